"""From what is heard to what is seen, and back: digits of which one modality is missing.

    python tutorials/cross_modal.py --out runs/cross_modal         # embedded digits
    python tutorials/cross_modal.py --data tutorial --seeds 10 --out runs/cross_modal

Images -> VAE -> GMM -> MLDA <- counts of speech, trained twice: with the images of a fifth of the
rows hidden, and with the speech of as many. How many of those rows are classified right, beside
the complete ones? And what image, or which words, does the graph expect there? Labels only score.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import serkit as srk
from serkit import metrics, plots
from serkit.modules import GMM, MLDA, VAE

DATA = ("digits", "tutorial")
WEIGHTS = [100, None]  # an image's class counts as 100 words, beside about 200 heard
ROUNDS, IMAGES_FIRST, EXCHANGES = 5, 3, 3


def load(data: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images (N, H, W) and counts of speech (N, V) by name, and labels (N,)."""
    if data == "tutorial":
        images, labels = srk.datasets.load_tutorial_digits()
        return {"images": images, "speech": srk.datasets.load_tutorial_speech().counts}, labels
    images, labels = srk.datasets.load_digits()
    return {"images": images, "speech": srk.datasets.make_counts(labels)}, labels


def schedule(round_: int) -> list[str]:
    """VAE and GMM first, so that MLDA starts from good clusters."""
    return ["vae", "gmm"] if round_ < IMAGES_FIRST else ["vae", *["gmm", "mlda"] * EXCHANGES]


def train(
    data: dict[str, np.ndarray], labels: np.ndarray, observed: dict, preset: dict, seed: int
) -> srk.Graph:
    """Observation -> VAE -> GMM -> MLDA <- Observation; `observed` masks rows (N,) by modality."""
    images, speech = (
        srk.Observation(rows, observed=observed.get(name), name=name) for name, rows in data.items()
    )
    vae = VAE(**preset["vae"], random_state=seed)
    gmm = GMM(10, labels=labels, random_state=seed, **preset["gmm"])
    mlda = MLDA(10, labels=labels, weights=WEIGHTS, random_state=seed, **preset["mlda"])
    vae.connect(images)
    gmm.connect(vae)
    mlda.connect(gmm, speech)
    report = srk.training.Report()
    return srk.Graph(mlda).fit(ROUNDS, schedule=schedule, callbacks=[report], verbose=False)


def correlation(truth: np.ndarray, expected: np.ndarray) -> float:
    """Of all values (n, ...) with what was expected there, of each row or of all alike."""
    pair = truth.ravel(), np.broadcast_to(expected, truth.shape).ravel()
    return float(np.corrcoef(*pair)[0, 1])


def hide(
    data: dict[str, np.ndarray], labels: np.ndarray, modality: str, preset: dict, seed: int
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Train with a modality hidden in a fifth of the rows.

    Returns
    -------
    scores : dict of str to float
        Accuracies of complete rows, of those with the modality hidden, and of all rows if it were
        missing from all; correlation of what was hidden with what is predicted in its place, and
        with the mean of the other rows.
    hidden : np.ndarray, shape (N / 5,)
        Numbers of the hidden rows.
    predicted : np.ndarray, shape (N / 5, ...)
        What is predicted there.
    """
    hidden = np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 5]
    observed = np.isin(np.arange(len(labels)), hidden, invert=True)
    graph = train(data, labels, {modality: observed}, preset, seed)
    clusters = graph["mlda"].posterior.clusters
    matching = metrics.matching(labels, clusters)
    right = np.array([matching.get(k) for k in clusters.tolist()]) == labels  # (N,)
    others = [None if name == modality else rows for name, rows in data.items()]
    predicted = graph.reconstruct(*others)[modality][hidden]
    truth, mean = data[modality][hidden], data[modality][observed].mean(axis=0)
    scores = {
        "complete": right[observed].mean(),
        "hidden": right[hidden].mean(),
        "ratio": right[hidden].mean() / right[observed].mean(),
        "all without": metrics.accuracy(labels, graph.predict(*others).classes),
        "correlation": correlation(truth, predicted),
        "of the mean": correlation(truth, mean),
    }
    return scores, hidden, predicted


def draw_images(labels: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> Figure:
    """The first hidden image of each digit above the one predicted from its speech."""
    _, first = np.unique(labels, return_index=True)
    names = ["hidden", "predicted from speech"]
    return plots.image_grid(np.stack([truth[first], predicted[first]]), row_titles=names)


def draw_speech(labels: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> Figure:
    """Mean counts of each digit's hidden words beside those predicted from the images."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = {"hidden": truth, "predicted from images": predicted}
    for axis, (title, rows) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        means = np.stack([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
        axis.imshow(means, aspect="auto", interpolation="nearest", vmax=np.quantile(means, 0.99))
        axis.set(title=title, xlabel="word", ylabel="digit", yticks=range(len(means)))
    return figure


DRAW = {"images": draw_images, "speech": draw_speech}


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the scores by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for pictures, of seed 0")
    parser.add_argument("--quick", action="store_true", help="300 rows, few epochs, for CI")
    chosen = parser.parse_args(arguments)

    data, labels = load(chosen.data)
    preset = srk.presets.vae_gmm_mlda(chosen.data)
    if chosen.quick:
        data, labels = {name: rows[:300] for name, rows in data.items()}, labels[:300]
        preset = {"vae": preset["vae"] | {"epochs": (20, 5)}, "gmm": {}, "mlda": {"n_init": 1}}
    runs = {modality: [] for modality in data}
    for seed, modality in product(range(chosen.seeds), data):
        print(f"seed {seed}, {modality} hidden in a fifth of {len(labels)} rows")
        scores, hidden, predicted = hide(data, labels, modality, preset, seed)
        runs[modality].append(scores)
        print(" ".join(f"{name} {score:.3f}" for name, score in scores.items()), "\n")
        if seed == 0 and chosen.out:
            chosen.out.mkdir(parents=True, exist_ok=True)
            figure = DRAW[modality](labels[hidden], data[modality][hidden], predicted)
            figure.savefig(chosen.out / f"predicted_{modality}.png", dpi=120)
    scores = {
        f"{modality}, {name}": np.array([run[name] for run in runs[modality]])
        for modality in data
        for name in runs[modality][0]
    }
    for name, values in scores.items():
        print(f"{name:>20}: {values.mean():.3f} ± {values.std():.3f}, lowest {values.min():.3f}")
    return scores


if __name__ == "__main__":
    main()
