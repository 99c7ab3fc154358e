"""A VAE, a mixture and a Markov model: digits that come in an order.

    python tutorials/vae_gmm_mm.py                               # embedded digits, a minute or two
    python tutorials/vae_gmm_mm.py --data tutorial --seeds 10    # the original's 3,000 digits

The rows count: 0, 1, ..., 9, 0, 1, ... Nobody says so, but the Markov model learns which cluster
follows which, and what a row's neighbours say of it corrects the mixture and, through that, the
VAE. Where two digits are in one cluster and one digit is in two, the chain sees that too: rows of
one cluster then have two contexts, and it tells the mixture to group its rows anew. Compared with
the same VAE and mixture without it. All that is gained lies in the order of the rows: once they are
shuffled (``--shuffled``) there is nothing to gain. Labels only score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import serkit as srk
from serkit import metrics, plots
from serkit.datasets import Dataset
from serkit.modules import GMM, VAE, MarkovModel

DATA = ("digits", "tutorial")


def load(data: str, shuffled: bool = False) -> Dataset:
    """Digits whose labels cycle from 0 to 9, unless they are shuffled."""
    if data == "tutorial":
        digits = srk.datasets.load_tutorial_digits()
    else:
        digits = srk.datasets.in_cycles(srk.datasets.load_digits())
    if not shuffled:
        return digits
    rows = np.random.default_rng(0).permutation(len(digits.labels))
    return Dataset(digits.images[rows], digits.labels[rows])


def without_order(digits: Dataset, preset: dict, seed: int) -> srk.Graph:
    """Observation -> VAE -> GMM."""
    obs = srk.Observation(digits.images)
    vae = VAE(**preset["vae"], random_state=seed)
    gmm = GMM(10, labels=digits.labels, random_state=seed, **preset["gmm"])
    vae.connect(obs)
    gmm.connect(vae)
    return srk.Graph(gmm)


def with_order(digits: Dataset, preset: dict, seed: int) -> srk.Graph:
    """Observation -> VAE -> GMM -> MarkovModel."""
    gmm = without_order(digits, preset, seed)["gmm"]
    markov = MarkovModel(labels=digits.labels, random_state=seed, name="markov")
    return srk.Graph(markov.connect(gmm))


def compare(digits: Dataset, preset: dict, seed: int, out: Path | None = None) -> dict[str, float]:
    """Accuracies by the last update, of the same VAE and mixture without and with the chain."""
    graphs = [build(digits, preset, seed) for build in (without_order, with_order)]
    schedules = [["vae", "gmm"], ["vae", *["gmm", "markov"] * preset["steps"]]]
    accuracies = []
    for graph, schedule in zip(graphs, schedules, strict=True):
        print(f"seed {seed}: {' -> '.join(graph.names)}")
        options = {"schedule": schedule, "callbacks": [srk.training.Report()], "verbose": False}
        graph.fit(preset["rounds"], **options, out=out if graph is graphs[-1] else None)
        print()
        accuracies.append(graph.history[-1]["updates"][-1]["accuracy"])
    show_order(graph["markov"], out)
    return dict(zip(("without", "with"), accuracies, strict=True))


def show_order(markov: MarkovModel, out: Path | None) -> None:
    """Print what should come next, and draw the transitions, clusters named by their digits."""
    digit = metrics.matching(markov.labels, markov.posterior.clusters)
    following = [digit.get(k) for k in markov.forecast(3)[0].argmax(axis=1)]
    print(f"rows end with {markov.labels[-3:]}; most probable next: {following}\n")
    if out:
        order = sorted(digit, key=digit.get)
        transition = markov.transition_[np.ix_(order, order)]
        names = sorted(digit.values())
        figure = plots.heat_map(
            transition.round(4),
            names,
            title="what follows each digit, learnt",
            label="P(next digit | digit)",
            xlabel="next digit",
            ylabel="digit",
        )
        figure.savefig(out / "transition.png", dpi=120)


def main(arguments: list[str] | None = None) -> dict[str, np.ndarray]:
    """Run the tutorial; returns the accuracies by seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--shuffled", action="store_true", help="rows in random order")
    parser.add_argument("--seeds", type=int, choices=range(1, 101), default=1, metavar="N")
    parser.add_argument("--first-seed", type=int, default=0, help="in place of 0")
    parser.add_argument("--out", type=Path, help="folder for results and pictures, of the first")
    parser.add_argument("--quick", action="store_true", help="fewer epochs and steps, for CI")
    chosen = parser.parse_args(arguments)

    digits, preset = load(chosen.data, chosen.shuffled), srk.presets.vae_gmm_mm(chosen.data)
    if chosen.quick:
        vae, gmm = {**preset["vae"], "epochs": 30}, {**preset["gmm"], "n_init": 2}
        preset = {"rounds": 2, "steps": 5, "vae": vae, "gmm": gmm}
    runs = [
        compare(digits, preset, seed, chosen.out if seed == chosen.first_seed else None)
        for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    ]
    scores = {name: np.array([row[name] for row in runs]) for name in runs[0]}
    gain = scores["with"] - scores["without"]
    print(
        f"accuracy, {chosen.seeds} seeds: "
        + ", ".join(
            f"{name} the chain {a.mean():.3f} ± {a.std():.3f}" for name, a in scores.items()
        )
        + f", gained {gain.mean():+.3f} ± {gain.std():.3f} (least {gain.min():+.3f})"
    )
    return scores


if __name__ == "__main__":
    main()
