"""Topics of digits that are seen and heard: MLDA on images, on speech, and on both.

    python tutorials/mlda_multimodal.py --out runs/mlda                        # embedded digits
    python tutorials/mlda_multimodal.py --data tutorial --seeds 10 --out runs/mlda

No nets: an image is a histogram of ink, a count a pixel. One set of topics explains both modalities
of a row, so that each can be predicted from the other. Labels only score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import serkit as srk
from serkit import metrics, plots
from serkit.modules import MLDA

WEIGHTS = {"ink": 50, "speech": None}  # ink in 50 drops, so that it does not drown the words


def load(data: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Counts by modality, ink (N, H, W) and speech (N, V), and labels (N,)."""
    if data == "tutorial":
        images, labels = srk.datasets.load_tutorial_digits()
        return {"ink": images, "speech": srk.datasets.load_tutorial_speech().counts}, labels
    images, labels = srk.datasets.load_digits()
    return {"ink": images, "speech": srk.datasets.make_counts(labels)}, labels


def train(
    data: dict[str, np.ndarray], labels: np.ndarray, seed: int, n_init: int, out: Path | None
) -> srk.Graph:
    """Observations -> MLDA."""
    weights = [WEIGHTS[name] for name in data]
    mlda = MLDA(10, weights=weights, labels=labels, n_init=n_init, random_state=seed)
    mlda.connect(*(srk.Observation(counts, name=name) for name, counts in data.items()))
    return srk.Graph(mlda).fit(1, out=out, callbacks=[srk.training.Report()], verbose=False)


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=["digits", "tutorial"], default="digits")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of seed 0")
    parser.add_argument("--quick", action="store_true", help="500 rows, one start, for CI")
    chosen = parser.parse_args(arguments)

    data, labels = load(chosen.data)
    n_init = 10
    if chosen.quick:
        data, labels = {name: counts[:500] for name, counts in data.items()}, labels[:500]
        n_init = 1
    rows = []
    for seed in range(chosen.seeds):
        out = chosen.out if seed == 0 else None
        accuracies = {}
        for name, counts in data.items():
            alone = train({name: counts}, labels, seed, n_init, None)
            accuracies[name] = alone["mlda"].scores()["accuracy"]
        graph = train(data, labels, seed, n_init, out)
        missing = {"ink": (None, data["speech"]), "speech": (data["ink"], None)}
        accuracies["both"] = graph["mlda"].scores()["accuracy"]
        for name, modalities in missing.items():
            classes = graph.predict(*modalities).classes
            accuracies[f"both, {name} missing later"] = metrics.accuracy(labels, classes)
        rows.append(accuracies)
        print(f"seed {seed}:", ", ".join(f"{name} {a:.3f}" for name, a in accuracies.items()), "\n")
        if out:
            draw(out, graph, data, labels)
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name, values in scores.items():
        print(f"{name:>27}: {values.mean():.3f} ± {values.std():.3f}, lowest {values.min():.3f}")
    return scores


def draw(out: Path, graph: srk.Graph, data: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """Write the topics' ink, and a digit each: its ink, and what is expected by what was heard."""
    mlda = graph["mlda"]
    ink = mlda.components_[0].reshape(-1, *data["ink"].shape[1:])  # (K, H, W)
    digit = metrics.matching(labels, mlda.posterior.clusters)
    topics = [f"topic {k}: {digit.get(k, '-')}" for k in range(len(ink))]
    _, first = np.unique(labels, return_index=True)
    seen = data["ink"][first]
    heard = graph.reconstruct(None, data["speech"][first])["ink"]
    rows = [image / image.max(axis=(1, 2), keepdims=True) for image in (seen, heard)]
    names = ["seen", "expected from speech"]
    figures = {
        "topics": plots.image_grid(
            (ink / ink.max(axis=(1, 2), keepdims=True))[None],
            column_titles=topics,
            title="P(ink | topic), and the digit that each topic is matched to",
        ),
        "ink_from_speech": plots.image_grid(np.stack(rows), row_titles=names),
    }
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
