"""The contract of paying: with the library's defaults and the plain loop, joint beats apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.preprocessing import scale
from sklearn.utils import Bunch

from serkit import Module, Observation, metrics
from serkit.datasets import in_cycles, load_digits, make_counts
from serkit.modules import GMM, MLDA, VAE, MarkovModel, Supervised
from tutorials import hmm, vae_gmm_nn
from tutorials.vae_gmm_mlda import load as load_with_speech

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


def paying_speech(n_seeds: int, quick: bool = False) -> None:
    """The original's 3,000 digits, seen and heard: VAE, GMM and MLDA, updated in turn.

    Seeds from 10 on, the library's defaults, eight rounds; target: 0.97 by the mixture on each.
    """
    images, labels, words = load_with_speech("digits" if quick else "tutorial")
    n_rows, n_rounds = (150, 2) if quick else (None, 8)
    images, labels, words = images[:n_rows], labels[:n_rows], words[:n_rows]
    curves = []
    for seed in range(10, 10 + n_seeds):
        vae = VAE(18, random_state=seed, **({"epochs": 20} if quick else {}))
        gmm = GMM(10, labels=labels, random_state=seed).connect(vae.connect(Observation(images)))
        mlda = MLDA(10, labels=labels, random_state=seed)
        mlda.connect(gmm, Observation(words, name="speech"))
        curve = []
        for _ in range(n_rounds):
            vae.update()
            curve.append([_accuracy(gmm.update()), _accuracy(mlda.update())])
        curves.append(curve)
        print(f"seed {seed}, mixture and topics:", *np.round(curve, 3).tolist(), flush=True)
    rows = []
    for name, accuracies in zip(("mixture", "topics"), np.moveaxis(curves, 2, 0), strict=True):
        for kind, values in (("mean", accuracies.mean(axis=0)), ("worst", accuracies.min(axis=0))):
            rows.append((f"{name}, {kind}", *(f"{value:.3f}" for value in values)))
    columns = ["", *(f"round {number}" for number in range(1, n_rounds + 1))]
    table.show(f"{len(labels):,} digits with speech, {n_seeds} seeds", columns, rows)


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


def tables(n_seeds: int, quick: bool = False) -> None:
    """VAE and GMM with defaults on scikit-learn's tables, five rounds, and stopped early.

    "alone" trains the VAE likewise, but it hears nothing. Stopped early, each update of the VAE
    ends once rows held out gain no more. Target: joint is at least its own first round in the mean
    of all settings.
    """
    n_rounds, ways = 2 if quick else ROUNDS, ("alone", "assigned", "mixture")
    for held_out, title in ((0.0, "all epochs"), (0.1, "stopped early")):
        rows = []
        for (name, load), d, noise in product(TABLES.items(), (2, 5), (1.0, "learnt")):
            curves = []  # of each seed: accuracy by way and round
            for seed in range(n_seeds):
                net = {"latent_dim": d, "noise_variance": noise, "validation_fraction": held_out}
                curves.append([table_by_round(load(), seed, n_rounds, way, net) for way in ways])
            by_round = np.mean(curves, axis=0)  # (ways, rounds)
            rows.append((name, d, noise, by_round[0, 0], *by_round[:, -1]))
            if quick:
                break
        accuracies = np.array([row[3:] for row in rows])  # (settings, 1 + ways)
        gains = accuracies.mean(axis=0) - accuracies[:, 0].mean()
        shown = [(*row[:3], *(f"{a:.3f}" for a in row[3:])) for row in rows]
        shown.append(("mean", "", "", *(f"{a:.3f}" for a in accuracies.mean(axis=0))))
        shown.append(("less round 1", "", "", *(f"{gain:+.3f}" for gain in gains)))
        header = ["table", "D", "noise", "round 1", *(f"round {n_rounds}, {way}" for way in ways)]
        table.show(f"Tables, {title}, {n_seeds} seeds", header, shown)


def table_by_round(data: Bunch, seed: int, n_rounds: int, way: str, net: dict) -> list[float]:
    """Accuracy after each round of a VAE with that KL target, or "alone", and a mixture."""
    options = net if way == "alone" else {**net, "kl_target": way}
    vae = VAE(likelihood="gaussian", random_state=seed, **options)
    gmm = GMM(data.target.max() + 1, labels=data.target, random_state=seed)
    gmm.connect(vae.connect(Observation(scale(data.data))))
    curve = []
    for _ in range(n_rounds):
        vae.update(children=() if way == "alone" else None)
        curve.append(_accuracy(gmm.update()))
    return curve


TABLES = {"wine": load_wine, "breast cancer": load_breast_cancer, "iris": load_iris}

GRAPHS = {
    "VAE + GMM": vae_gmm,
    "VAE + GMM + MarkovModel": vae_gmm_markov,
    "VAE + GMM + MLDA": vae_gmm_mlda,
    "VAE + GMM + MLDA + MarkovModel": vae_gmm_mlda_markov,
    "VAE + GMM + Supervised": vae_gmm_supervised,
    "GMM + MarkovModel": gmm_markov,
}
