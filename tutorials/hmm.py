"""A hidden Markov model out of two modules: a Gaussian mixture and a Markov model.

    python tutorials/hmm.py                                  # seconds
    python tutorials/hmm.py --seeds 10 --out runs/hmm

Rows are drawn from a known hidden Markov model whose Gaussians overlap, so that a mixture alone
mistakes many of them. The Markov model learns which class follows which and tells the mixture what
each row's neighbours make of it; updated in turn, the two are the Baum-Welch algorithm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import serkit as srk
from serkit import metrics, plots
from serkit.modules import GMM, MarkovModel

MEANS = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])  # of Gaussians N(mu_k, I) at the corners ...
TRANSITION = np.array(  # ... of a square, round which classes mostly go
    [
        [0.10, 0.80, 0.05, 0.05],
        [0.05, 0.10, 0.80, 0.05],
        [0.05, 0.05, 0.10, 0.80],
        [0.80, 0.05, 0.05, 0.10],
    ]
)
LENGTH = 30  # of each sequence


def draw_sequences(n_sequences: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows (S, LENGTH, 2), and classes (S, LENGTH + 1): theirs, and the one that would follow."""
    classes = np.zeros((n_sequences, LENGTH + 1), dtype=int)
    classes[:, 0] = rng.integers(len(MEANS), size=n_sequences)
    for t in range(LENGTH):
        classes[:, t + 1] = [rng.choice(len(MEANS), p=TRANSITION[k]) for k in classes[:, t]]
    rows = MEANS[classes[:, :-1]]
    return rows + rng.standard_normal(rows.shape), classes


def build(rows: np.ndarray, labels: np.ndarray, seed: int) -> srk.Graph:
    """Observation -> GMM -> MarkovModel; no transition crosses from one sequence to the next."""
    n_classes, lengths = len(MEANS), [LENGTH] * (len(rows) // LENGTH)
    obs = srk.Observation(rows)
    gmm = GMM(n_classes, inference="ml", n_init=20, labels=labels, random_state=seed, name="gmm")
    markov = MarkovModel(lengths=lengths, labels=labels, random_state=seed, name="markov")
    gmm.connect(obs)
    markov.connect(gmm)
    return srk.Graph(markov)


def run(n_sequences: int, seed: int, out: Path | None) -> dict[str, float]:
    """Draw sequences, learn from them without labels, and compare what was learnt with the truth.

    Labels only score, and match clusters to classes.
    """
    rows, classes = draw_sequences(n_sequences, np.random.default_rng(seed))
    labels, following = classes[:, :-1].ravel(), classes[:, -1]
    graph = build(rows.reshape(-1, 2), labels, seed)
    gmm, markov = graph["gmm"], graph["markov"]
    report = [srk.training.Report()] if seed == 0 else []
    converged = srk.training.StopOnTolerance("objective", tol=1e-4)

    turns = [gmm, markov]
    graph.fit(1, schedule=turns, callbacks=report, verbose=False)
    alone = gmm.posterior  # when no message had come down yet
    graph.fit(20, schedule=turns * 5, callbacks=[*report, converged], out=out, verbose=False)

    smoothed, path = gmm.posterior.clusters, markov.viterbi()
    pairs = metrics.matching(labels, smoothed)
    order = sorted(pairs, key=pairs.get)  # the cluster of each class
    learnt = markov.transition_[np.ix_(order, order)]
    forecast = markov.forecast()[:, 0, order].argmax(axis=1)
    known = TRANSITION[classes[:, -2]].argmax(axis=1)  # who knows the truth could do no better
    curve = [alone.bound, *(record["updates"][-1]["objective"] for record in graph.history)]
    if out:
        strips = {"truth": labels, "GMM": alone.clusters, "smoothed": smoothed, "Viterbi": path}
        draw(out, strips, learnt)
        figure = plots.log_likelihood(curve, title="GMM alone, then Baum-Welch")
        figure.savefig(out / "log_likelihood.png", dpi=120)
    return {
        "GMM alone": metrics.accuracy(labels, alone.clusters),
        "GMM + Markov": metrics.accuracy(labels, smoothed),
        "Viterbi path": metrics.accuracy(labels, path),
        "nats gained": curve[-1] - curve[0],
        "max |A - true|": np.abs(learnt - TRANSITION).max(),
        "next class": (forecast == following).mean(),
        "knowing last": (known == following).mean(),
    }


def draw(out: Path, paths: dict[str, np.ndarray], learnt: np.ndarray) -> None:
    """Write pictures: classes of the first four sequences, transitions."""
    pairs = {name: metrics.matching(paths["truth"], classes) for name, classes in paths.items()}
    strips = [[pairs[name][k] for k in classes[: 4 * LENGTH]] for name, classes in paths.items()]
    figure = Figure(figsize=(12, 1.8), layout="constrained")
    axis = figure.subplots()
    axis.imshow(strips, cmap="tab10", vmin=0, vmax=9, aspect="auto", interpolation="none")
    axis.set_yticks(range(len(paths)), paths)
    for end in (LENGTH, 2 * LENGTH, 3 * LENGTH):
        axis.axvline(end - 0.5, color="white", linewidth=4)
    axis.set(xlabel="row", title="class of each row, four sequences")
    figure.savefig(out / "paths.png", dpi=120)
    for name, matrix in (("true", TRANSITION), ("learnt", learnt)):
        axes = {"xlabel": "class of the next row", "ylabel": "class of a row"}
        title = f"{name} transitions"
        figure = plots.heat_map(matrix.round(4), title=title, label="P(next | class)", **axes)
        figure.savefig(out / f"transition_{name}.png", dpi=120)


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the scores by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of seed 0")
    parser.add_argument("--quick", action="store_true", help="20 sequences for 100, for CI")
    chosen = parser.parse_args(arguments)

    runs = []
    for seed in range(chosen.seeds):
        out = chosen.out if seed == 0 else None
        runs.append(run(20 if chosen.quick else 100, seed, out))
        if seed == 0:
            print("\n seed " + " ".join(f"{name:>14}" for name in runs[0]))
        print(f"{seed:5d} " + " ".join(f"{v:14.3f}" for v in runs[-1].values()), flush=True)
    scores = {name: np.array([row[name] for row in runs]) for name in runs[0]}
    print(" mean " + " ".join(f"{values.mean():14.3f}" for values in scores.values()))
    print("  std " + " ".join(f"{values.std():14.3f}" for values in scores.values()))
    return scores


if __name__ == "__main__":
    main()
