"""Digits seen and heard, one after the other as in counting: a Markov model on top of MLDA.

    python tutorials/vae_gmm_mlda_mm.py --out runs/vae_gmm_mlda_mm    # embedded digits
    python tutorials/vae_gmm_mlda_mm.py --data tutorial --seeds 10

Images -> VAE -> GMM -> MLDA <- counts of speech, and MLDA -> MarkovModel. Labels cycle from 0 to 9;
the chain learns which topic follows which and tells MLDA what to expect of each row, MLDA tells the
mixture, the mixture the VAE. What is sent up leaves out what came down, so one graph shows what is
known by the image, by image and speech, and by the whole sequence. Labels only score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import serkit as srk
from serkit import metrics, plots
from serkit.modules import GMM, MLDA, VAE, MarkovModel

DATA = ("digits", "tutorial")
ROUNDS, IMAGES_FIRST, EXCHANGES = 5, 3, 3
UP_TO = {"gmm": "image", "mlda": "image and speech", "markovmodel": "sequence"}


def load(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, H, W), counts of speech (N, V) and labels (N,), which cycle."""
    if data == "tutorial":
        images, labels = srk.datasets.load_tutorial_digits()
        return images, srk.datasets.load_tutorial_speech().counts, labels
    images, labels = srk.datasets.in_cycles(srk.datasets.load_digits())
    return images, srk.datasets.make_counts(labels), labels


def build(
    images: np.ndarray, counts: np.ndarray, labels: np.ndarray, preset: dict, seed: int
) -> srk.Graph:
    """Observation -> VAE -> GMM -> MLDA <- Observation, MLDA -> MarkovModel."""
    vae = VAE(**preset["vae"], random_state=seed)
    gmm = GMM(10, labels=labels, random_state=seed, **preset["gmm"])
    mlda = MLDA(10, labels=labels, random_state=seed, **preset["mlda"])
    chain = MarkovModel(labels=labels, random_state=seed)
    vae.connect(srk.Observation(images, name="images"))
    gmm.connect(vae)
    mlda.connect(gmm, srk.Observation(counts, name="speech"))
    chain.connect(mlda)
    return srk.Graph(chain)


def schedule(round_: int) -> list[str]:
    """VAE and GMM first, so that MLDA and the chain start from good clusters."""
    if round_ < IMAGES_FIRST:
        return ["vae", "gmm"]
    return ["vae", *["gmm", "mlda", "markovmodel"] * EXCHANGES]


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of seed 0")
    parser.add_argument("--quick", action="store_true", help="300 rows, few epochs, for CI")
    chosen = parser.parse_args(arguments)

    data, preset = load(chosen.data), srk.presets.vae_gmm_mlda(chosen.data)
    if chosen.quick:
        data = [values[:300] for values in data]
        preset = {"vae": preset["vae"] | {"epochs": (20, 5)}, "gmm": {}, "mlda": {"n_init": 1}}
    labels, rows = data[-1], []
    for seed in range(chosen.seeds):
        print(f"seed {seed}, {len(labels)} rows")
        graph = build(*data, preset, seed)
        out = chosen.out if seed == 0 else None
        report = srk.training.Report()
        graph.fit(ROUNDS, schedule=schedule, callbacks=[report], out=out, verbose=False)
        classes = {
            known: graph[name].message_up.log_prob.argmax(axis=1) for name, known in UP_TO.items()
        }
        rows.append({known: metrics.accuracy(labels, k) for known, k in classes.items()})
        print(", ".join(f"by {known} {share:.3f}" for known, share in rows[-1].items()), "\n")
        if out:
            draw(out, graph["markovmodel"], labels)
    scores = {known: np.array([row[known] for row in rows]) for known in rows[0]}
    for known, shares in scores.items():
        print(f"{known:>16}: {shares.mean():.3f} ± {shares.std():.3f}, lowest {shares.min():.3f}")
    return scores


def draw(out: Path, chain: MarkovModel, labels: np.ndarray) -> None:
    """Write the transitions, classes in the order of the digits they are matched to."""
    of_class = metrics.matching(labels, chain.posterior.clusters)
    order = sorted(range(len(chain.initial_)), key=lambda k: of_class.get(k, len(of_class)))
    figure = plots.heat_map(
        chain.transition_[np.ix_(order, order)],
        [of_class.get(k, "-") for k in order],
        title="what follows each digit",
        label="P(next digit | digit)",
        xlabel="next digit",
        ylabel="digit",
    )
    figure.savefig(out / "transitions.png", dpi=120)


if __name__ == "__main__":
    main()
