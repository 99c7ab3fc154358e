"""How well a clustering agrees with known labels; numbering of clusters never matters.

Labels and clusters are array-like, (N,), of any dtype, text too: one of each per row, else
InputError. Only rows whose label is known are scored: None, NaN, NA and, among numbers, -1 stand
for unknown ones, as everywhere where labels are taken (`serkit.reading.labels_in`). Clusters are
never unknown: -1 is one like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from . import processes
from .arrays import as_observed
from .errors import InputError
from .reading import array_in, clusters_in, labels_in


def matching(labels: ArrayLike, clusters: ArrayLike) -> dict[Any, Any]:
    """The one-to-one matching of clusters to labels that agrees on most rows (Hungarian method).

    Returns a dict from cluster to label; with more clusters than labels the least useful ones are
    missing.

    Examples
    --------
    >>> from serkit import metrics
    >>> metrics.matching(["cat", "cat", "dog"], [1, 1, 0])
    {1: 'cat', 0: 'dog'}
    """
    table, classes, present = _table(labels, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return dict(zip(present[columns].tolist(), classes[rows].tolist(), strict=True))


def accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of rows, in [0, 1], whose cluster is matched to their label (see `matching`).

    Works for any number of clusters: those left unmatched count as wrong.

    Examples
    --------
    >>> from serkit import metrics
    >>> metrics.accuracy([0, 0, 1, 1], [7, 7, 3, 7])
    0.75
    """
    table, _, _ = _table(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information (arithmetic mean of the entropies), in [0, 1]."""
    return float(normalized_mutual_info_score(*_scored(labels, clusters)[:2]))


def ari(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted Rand index: 1 for equal partitions, 0 on average for random ones."""
    return float(adjusted_rand_score(*_scored(labels, clusters)[:2]))


def stability(clusterings: Sequence[ArrayLike]) -> np.ndarray:
    """Mean adjusted Rand index of each clustering with all others of the same rows, (n,).

    A judge that needs no labels: runs that find what is in the data agree with each other (von
    Luxburg, 2010, "Clustering stability: an overview"). Of processes that share rows, each gives
    its own; clusters are integers from 0 then.

    Raises
    ------
    InputError
        For fewer than two clusterings, or unequal numbers of rows.

    Examples
    --------
    >>> from serkit import metrics
    >>> metrics.stability([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]])
    array([ 0.25,  0.25, -0.5 ])
    """
    is_list = isinstance(clusterings, list | tuple | Iterator)
    several = [*(clusterings if is_list else np.atleast_1d(array_in(clusterings, "stability")))]
    if len(several) < 2:
        raise InputError(f"stability compares at least two clusterings, got {len(several)}")
    agreement = np.full((len(several), len(several)), np.nan)
    for i, j in combinations(range(len(several)), 2):
        first, second = (clusters_in(several[k], "stability") for k in (i, j))
        pair = processes.pairs(*_aligned(first, second))
        agreement[i, j] = agreement[j, i] = adjusted_rand_score(*pair)
    return np.nanmean(agreement, axis=1)


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of rows, in [0, 1], that carry the most frequent label of their cluster."""
    table, _, _ = _table(labels, clusters)
    return float(table.max(axis=0).sum() / table.sum())


def clustering_scores(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """Accuracy, NMI and ARI at once: what modules with ``labels=`` report.

    Examples
    --------
    >>> from serkit import metrics
    >>> metrics.clustering_scores(["a", "a", "b"], [1, 1, 0])
    {'accuracy': 1.0, 'nmi': 1.0, 'ari': 1.0}
    """
    return {score.__name__: score(labels, clusters) for score in (accuracy, nmi, ari)}


def scores_of(
    labels: ArrayLike | None, clusters: np.ndarray, observed: np.ndarray | None = None
) -> dict[str, float]:
    """`clustering_scores` over the rows of all processes; {} without labels of scored rows.

    `labels` (N,) are of the rows of all processes, `observed` tells which of this process's rows
    are scored (all, unless given), and `clusters` (n,), integers from 0, are of those.
    """
    if labels is None:
        return {}
    codes, clusters = labels_in(labels, "labels").codes, clusters_in(clusters, "scores_of")
    mask = clusters if observed is None else array_in(observed, "scores_of: observed")
    n_rows = mask.size
    observed = as_observed(observed, n_rows, "scores_of")
    share = processes.share_of(codes, n_rows)
    share = share if observed is None else share[observed]
    known = share >= 0
    if not processes.total(known.sum()):
        return {}
    return clustering_scores(*processes.pairs(share[known], clusters[known]))


def confusion(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of rows by class and cluster, ordered so that matches lie on the diagonal.

    Returns
    -------
    counts : np.ndarray of int, shape (classes, clusters)
    classes : np.ndarray, shape (classes,)
        The class of each row: matched ones first, sorted.
    clusters : np.ndarray, shape (clusters,)
        The cluster of each column: matched ones first, in the order of their classes.
    """
    table, classes, present = _table(labels, clusters)
    matches = linear_sum_assignment(table, maximize=True)
    rows, columns = (
        np.append(matched, np.setdiff1d(np.arange(n), matched))
        for n, matched in zip(table.shape, matches, strict=True)
    )
    return table[np.ix_(rows, columns)], classes[rows], present[columns]


def _table(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of rows of known classes, (classes, clusters), and both, those present, sorted."""
    codes, clusters, classes = _scored(labels, clusters)
    return contingency_matrix(codes, clusters), classes, np.unique(clusters)


def _scored(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of the known classes and clusters of these rows, (n,) each; the classes, (C,)."""
    labels, clusters = _aligned(labels, clusters)
    codes, classes = labels_in(labels, "metrics")
    known = codes >= 0
    return codes[known], clusters[known], classes


def _aligned(labels: Any, clusters: ArrayLike) -> tuple[Any, np.ndarray]:
    """Labels and clusters, these as an array; InputError unless there is one of each per row."""
    clusters = clusters_in(clusters, "metrics")
    labels = array_in(labels, "labels") if isinstance(labels, torch.Tensor) else labels
    shape = getattr(labels, "shape", None)
    shape = shape if isinstance(shape, tuple) else array_in(labels, "labels").shape
    if len(shape) != 1 or shape != clusters.shape or not len(clusters):
        raise InputError(
            "expected labels and clusters of the same length, one per row, got shapes "
            f"{tuple(shape)} and {clusters.shape}"
        )
    return labels, clusters
