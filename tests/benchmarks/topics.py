"""Topic models: of spoken digits' histograms, beside scikit-learn; of each other's topics."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import LatentDirichletAllocation

from serkit import Observation, datasets, metrics
from serkit.datasets import Concepts
from serkit.modules import MLDA

from . import table

_TOPICS = 10


def mlda(n_seeds: int, quick: bool = False) -> None:
    """An update on the tutorial's 3,000 x 2,400 counts of speech, K = 10; target: 10 seconds.

    Held-out perplexity by document completion, the same for both: each of the other 600 rows is cut
    into halves at random, theta is found from one half by the model's own `transform`, and the
    other half is predicted. Target: no worse than scikit-learn's, both with their defaults.
    """
    if quick:
        labels = datasets.load_digits().labels[:100]
        counts = datasets.make_counts(labels)
    else:
        counts, labels = datasets.load_tutorial_speech()
    counts = counts.astype(int)
    rows = []
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        train, test = np.split(counts[rng.permutation(len(counts))], [len(counts) * 4 // 5])
        half = rng.binomial(test, 0.5)
        whole = MLDA(_TOPICS, labels=labels, random_state=seed).connect(Observation(counts))
        peer = _sklearns(seed)
        rows.append(
            (
                table.seconds(whole.update),
                table.seconds(lambda peer=peer: peer.fit(counts)),
                whole.history_[-1]["accuracy"],
                metrics.accuracy(labels, peer.transform(counts).argmax(axis=1)),
                _completion(MLDA(_TOPICS, random_state=seed).fit(train), half, test - half),
                _completion(_sklearns(seed).fit(train), half, test - half),
            )
        )
        print(f"seed {seed}:", np.round(rows[-1], 3).tolist(), flush=True)
    names = ["seconds", "accuracy of all rows", "held-out perplexity"]
    pairs = np.array(rows).T.reshape(3, 2, n_seeds)
    print()
    table.show(
        f"MLDA: counts {counts.shape}, K = {_TOPICS}, {n_seeds} seeds: median (range)",
        ["", "serkit", "scikit-learn"],
        [(name, *map(table.spread, pair)) for name, pair in zip(names, pairs, strict=True)],
    )


def concepts(n_seeds: int, quick: bool = False) -> None:
    """Five modalities, two MLDA below a third, five rounds of updates in turn; new data a seed.

    Target: no seed falls below its first round, which is what each MLDA knows alone.
    """
    n_rows, n_rounds = (60, 2) if quick else (300, 5)
    curves = []
    for seed in range(n_seeds):
        data = datasets.make_concepts(n_rows, random_state=seed)
        curves.append(rounds_of_two_levels(data, n_rounds, seed))
        print(f"seed {seed}:", *np.round(curves[-1], 3).tolist(), flush=True)
    accuracies = np.array(curves)  # (seeds, rounds, modules)
    print()
    table.show(
        f"two chains of MLDA, {n_rows} rows, {n_seeds} seeds: mean accuracy by round",
        ["", *(f"round {i + 1}" for i in range(n_rounds)), "least gain of a seed"],
        [
            (name, *(f"{a:.3f}" for a in of_module.mean(axis=0)), f"{gain.min():+.3f}")
            for name, of_module, gain in zip(
                ["objects", "motions"],
                np.moveaxis(accuracies, 2, 0),
                (accuracies[:, -1] - accuracies[:, 0]).T,
                strict=True,
            )
        ],
    )


def rounds_of_two_levels(data: Concepts, n_rounds: int, seed: int) -> list[list[float]]:
    """Accuracy of objects and of motions after each round, told apart by all that is known."""
    n_objects, n_motions = (len(np.unique(labels)) for labels in (data.objects, data.motions))
    objects = MLDA(n_objects, labels=data.objects, name="objects", random_state=seed)
    motions = MLDA(n_motions, labels=data.motions, name="motions", random_state=seed)
    whole = MLDA(n_objects, name="concepts", random_state=seed)
    objects.connect(*map(Observation, (data.vision, data.audio, data.touch)))
    motions.connect(*map(Observation, (data.angle, data.force)))
    whole.connect(objects, motions)
    curve = []
    for _ in range(n_rounds):
        for module in (objects, motions, whole):
            module.update()
        curve.append([module.scores()["accuracy"] for module in (objects, motions)])
    return curve


def _sklearns(seed: int) -> LatentDirichletAllocation:
    return LatentDirichletAllocation(_TOPICS, random_state=seed)


def _completion(
    model: MLDA | LatentDirichletAllocation,
    half: np.ndarray,
    held_out: np.ndarray,
) -> float:
    """Perplexity a token of `held_out`, theta from `half`: counts (N, W)."""
    topics = np.reshape(model.components_, (_TOPICS, -1))
    words = topics / topics.sum(axis=1, keepdims=True)  # (K, W)
    p = model.transform(half) @ words  # (N, W)
    return float(np.exp(-(held_out * np.log(p)).sum() / held_out.sum()))
