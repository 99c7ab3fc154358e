"""Digits seen and heard: a VAE and a mixture for the images, and topics shared with the speech.

    python tutorials/vae_gmm_mlda.py                              # embedded digits, made-up speech
    python tutorials/vae_gmm_mlda.py --data tutorial --seeds 10   # 3,000 digits, images and speech

Images -> VAE -> GMM -> MLDA <- counts of speech. MLDA tells the mixture which clusters to expect
of each row by what was said, the mixture tells the VAE. The images by themselves (VAE and GMM) and
the speech by itself (MLDA) are trained beside it with the same settings. Labels only score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import serkit as srk
from serkit import plots
from serkit.modules import GMM, MLDA, VAE

DATA = ("digits", "tutorial")
WEIGHTS = [100, None]  # an image's class counts as 100 words, beside 100 or 200 heard
ROUNDS, IMAGES_FIRST, EXCHANGES = 5, 3, 3


def load(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, H, W), labels (N,) and counts of speech (N, V)."""
    if data == "tutorial":
        return *srk.datasets.load_tutorial_digits(), srk.datasets.load_tutorial_speech().counts
    images, labels = srk.datasets.load_digits()
    return images, labels, srk.datasets.make_counts(labels)


def images_alone(images: np.ndarray, labels: np.ndarray, preset: dict, seed: int) -> srk.Graph:
    """Observation -> VAE -> GMM."""
    vae = VAE(**preset["vae"], random_state=seed)
    gmm = GMM(10, labels=labels, random_state=seed, **preset["gmm"])
    vae.connect(srk.Observation(images, name="images"))
    gmm.connect(vae)
    return srk.Graph(gmm)


def speech_alone(counts: np.ndarray, labels: np.ndarray, preset: dict, seed: int) -> srk.Graph:
    """Observation -> MLDA."""
    mlda = MLDA(10, labels=labels, random_state=seed, **preset["mlda"])
    mlda.connect(srk.Observation(counts, name="speech"))
    return srk.Graph(mlda)


def both(
    images: np.ndarray, labels: np.ndarray, counts: np.ndarray, preset: dict, seed: int
) -> srk.Graph:
    """Observation -> VAE -> GMM -> MLDA <- Observation."""
    gmm = images_alone(images, labels, preset, seed)["gmm"]
    mlda = MLDA(10, labels=labels, weights=WEIGHTS, random_state=seed, **preset["mlda"])
    mlda.connect(gmm, srk.Observation(counts, name="speech"))
    return srk.Graph(mlda)


def schedule(round_: int) -> list[str]:
    """VAE and GMM first, so that MLDA starts from good clusters."""
    return ["vae", "gmm"] if round_ < IMAGES_FIRST else ["vae", *["gmm", "mlda"] * EXCHANGES]


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of seed 0")
    parser.add_argument("--quick", action="store_true", help="300 rows, few epochs, for CI")
    chosen = parser.parse_args(arguments)

    images, labels, counts = load(chosen.data)
    preset = srk.presets.vae_gmm_mlda(chosen.data)
    if chosen.quick:
        images, labels, counts = images[:300], labels[:300], counts[:300]
        preset = {"vae": preset["vae"] | {"epochs": (20, 5)}, "gmm": {}, "mlda": {"n_init": 1}}
    report, rows = {"callbacks": [srk.training.Report()], "verbose": False}, []
    for seed in range(chosen.seeds):
        print(f"seed {seed}, {len(labels)} rows")
        out = chosen.out if seed == 0 else None
        seen = images_alone(images, labels, preset, seed).fit(ROUNDS, **report)
        heard = speech_alone(counts, labels, preset, seed).fit(1, **report)
        joint = both(images, labels, counts, preset, seed)
        joint.fit(ROUNDS, schedule=schedule, out=out, **report)
        modules = {"images": seen["gmm"], "speech": heard["mlda"], "both": joint["mlda"]}
        rows.append({name: module.scores()["accuracy"] for name, module in modules.items()})
        print(", ".join(f"{name} {share:.3f}" for name, share in rows[-1].items()), "\n")
        if out:
            drawn = [joint.sample(8, component=topic)["images"] for topic in range(10)]
            plots.samples(np.stack(drawn)).savefig(out / "samples.png", dpi=120)
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    gain = scores["both"] - np.maximum(scores["images"], scores["speech"])
    for name, shares in (scores | {"both above the better one": gain}).items():
        print(f"{name:>25}: {shares.mean():.3f} ± {shares.std():.3f}, lowest {shares.min():.3f}")
    return scores


if __name__ == "__main__":
    main()
