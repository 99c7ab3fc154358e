"""The contract of paying: with the library's defaults and the plain loop, joint beats apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from serkit import Module, Observation, metrics
from serkit.datasets import in_cycles, load_digits, make_counts
from serkit.modules import GMM, MLDA, VAE, MarkovModel, Supervised
from tutorials import hmm, vae_gmm_nn

from . import table

ROUNDS = 5


def paying(n_seeds: int, quick: bool = False) -> None:
    """Each integrated graph of the tutorials, on embedded digits, updated in turn.

    Targets: the mean of joint is at least that of the parts, trained one after the other, and no
    seed ends more than 0.02 below its own first round.
    """
    n_rows, n_rounds = (150, 2) if quick else (None, ROUNDS)
    for name, build in GRAPHS.items():
        curves = []
        for seed in range(n_seeds):
            curves.append(accuracies_by_round(build, seed, n_rounds, n_rows, quick=quick))
            print(f"{name}, seed {seed}:", *np.round(curves[-1], 3), flush=True)
        shown(name, np.array(curves))


def shown(name: str, accuracies: np.ndarray) -> None:
    """A table of accuracies, (seeds, 1 + rounds): of the parts, then by round."""
    print()
    columns = ["the parts", *(f"round {r}" for r in range(1, accuracies.shape[1]))]
    gain = accuracies[:, -1] - accuracies[:, 1]
    rows = [
        ("mean", *(f"{a:.3f}" for a in accuracies.mean(axis=0)), f"{gain.mean():+.3f}"),
        ("worst", *(f"{a:.3f}" for a in accuracies.min(axis=0)), f"{gain.min():+.3f}"),
    ]
    table.show(f"{name}, {len(accuracies)} seeds", ["", *columns, "last less first round"], rows)


def accuracies_by_round(
    build: Callable, seed: int, n_rounds: int, n_rows: int | None = None, *, quick: bool = False
) -> list[float]:
    """Accuracy of the best of the parts, and of the topmost classes after each round."""
    run = build(seed, n_rows, {"epochs": 20} if quick else {})
    curve = []
    for _ in range(n_rounds):
        for module in run.modules:
            module.update()
        curve += [run.score()] if curve else [run.parts(), run.score()]
    return curve


class Run(NamedTuple):
    """A graph in the order of its updates, and accuracies: its own, and that of its parts alone."""

    modules: list[Module]
    score: Callable[[], float]
    parts: Callable[[], float]  # asked after the first updates, before which nobody has heard any


def _digits(n_rows: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images whose labels cycle from 0 to 9."""
    images, labels = in_cycles(load_digits())
    return images[:n_rows], labels[:n_rows]


def _accuracy(module: Module) -> float:
    return module.scores()["accuracy"]


def _vae_gmm(images: np.ndarray, labels: np.ndarray, seed: int, net: dict) -> tuple[VAE, GMM]:
    vae = VAE(10, random_state=seed, **net).connect(Observation(images))
    return vae, GMM(10, labels=labels, random_state=seed).connect(vae)


def vae_gmm(seed: int, n_rows: int | None, net: dict) -> Run:
    """Observation -> VAE -> GMM."""
    vae, gmm = _vae_gmm(*_digits(n_rows), seed, net)
    return Run([vae, gmm], partial(_accuracy, gmm), partial(_accuracy, gmm))


def vae_gmm_markov(seed: int, n_rows: int | None, net: dict) -> Run:
    """Observation -> VAE -> GMM -> MarkovModel."""
    images, labels = _digits(n_rows)
    vae, gmm = _vae_gmm(images, labels, seed, net)
    markov = MarkovModel(labels=labels, random_state=seed).connect(gmm)
    return Run([vae, gmm, markov], partial(_accuracy, markov), partial(_accuracy, gmm))


def vae_gmm_mlda(seed: int, n_rows: int | None, net: dict) -> Run:
    """Images -> VAE -> GMM -> MLDA <- words."""
    images, labels = _digits(n_rows)
    words = make_counts(labels)
    vae, gmm = _vae_gmm(images, labels, seed, net)
    mlda = MLDA(10, labels=labels, random_state=seed).connect(gmm, Observation(words))
    alone = MLDA(10, labels=labels, random_state=seed).connect(Observation(words)).update()

    def parts() -> float:
        return max(_accuracy(gmm), _accuracy(alone))

    return Run([vae, gmm, mlda], partial(_accuracy, mlda), parts)


def vae_gmm_mlda_markov(seed: int, n_rows: int | None, net: dict) -> Run:
    """Images -> VAE -> GMM -> MLDA <- words, and MLDA -> MarkovModel."""
    below = vae_gmm_mlda(seed, n_rows, net)
    labels = _digits(n_rows)[1]
    markov = MarkovModel(labels=labels, random_state=seed).connect(below.modules[-1])
    return Run([*below.modules, markov], partial(_accuracy, markov), below.parts)


def vae_gmm_supervised(seed: int, n_rows: int | None, net: dict) -> Run:
    """Observation -> VAE -> GMM -> Supervised <- labels of 1 % of rows; the others are scored."""
    images, labels = _digits(n_rows)
    known = vae_gmm_nn.pick_known(labels, seed) if n_rows is None else np.arange(len(labels)) < 10
    vae, gmm = _vae_gmm(images, labels, seed, net)
    targets = Observation(labels[:, None], observed=known, name="targets")
    supervised = Supervised(random_state=seed).connect(gmm, targets)

    def score() -> float:
        return metrics.accuracy(labels[~known], gmm.posterior.clusters[~known])

    return Run([vae, gmm, supervised], score, score)


def gmm_markov(seed: int, n_rows: int | None, net: dict) -> Run:
    """Observation -> GMM -> MarkovModel, on rows of a hidden Markov model."""
    n_sequences = 40 if n_rows is None else max(n_rows // hmm.LENGTH, 2)
    rows, classes = hmm.draw_sequences(n_sequences, np.random.default_rng(seed))
    labels = classes[:, :-1].ravel()
    gmm = GMM(4, labels=labels, random_state=seed).connect(Observation(rows.reshape(-1, 2)))
    lengths = [hmm.LENGTH] * n_sequences
    markov = MarkovModel(lengths=lengths, labels=labels, random_state=seed).connect(gmm)
    return Run([gmm, markov], partial(_accuracy, markov), partial(_accuracy, gmm))


GRAPHS = {
    "VAE + GMM": vae_gmm,
    "VAE + GMM + MarkovModel": vae_gmm_markov,
    "VAE + GMM + MLDA": vae_gmm_mlda,
    "VAE + GMM + MLDA + MarkovModel": vae_gmm_mlda_markov,
    "VAE + GMM + Supervised": vae_gmm_supervised,
    "GMM + MarkovModel": gmm_markov,
}
