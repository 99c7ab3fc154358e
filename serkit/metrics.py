"""How well a clustering agrees with known labels; numbering of clusters never matters.

Labels and clusters are array-like, (N,), of any dtype, text too: one of each per row, else
InputError.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from . import processes
from .errors import InputError


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
    rows, columns = linear_sum_assignment(_contingency(labels, clusters), maximize=True)
    classes, present = np.unique(labels), np.unique(clusters)
    return {present[c].item(): classes[r].item() for r, c in zip(rows, columns, strict=True)}


def accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of rows, in [0, 1], whose cluster is matched to their label (see `matching`).

    Works for any number of clusters: those left unmatched count as wrong.

    Examples
    --------
    >>> from serkit import metrics
    >>> metrics.accuracy([0, 0, 1, 1], [7, 7, 3, 7])
    0.75
    """
    table = _contingency(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information (arithmetic mean of the entropies), in [0, 1]."""
    _contingency(labels, clusters)
    return float(normalized_mutual_info_score(labels, clusters))


def ari(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted Rand index: 1 for equal partitions, 0 on average for random ones."""
    _contingency(labels, clusters)
    return float(adjusted_rand_score(labels, clusters))


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
    several = [np.asarray(clusters) for clusters in clusterings]
    if len(several) < 2:
        raise InputError(f"stability compares at least two clusterings, got {len(several)}")
    agreement = np.full((len(several), len(several)), np.nan)
    for i, j in combinations(range(len(several)), 2):
        agreement[i, j] = agreement[j, i] = ari(*processes.pairs(several[i], several[j]))
    return np.nanmean(agreement, axis=1)


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of rows, in [0, 1], that carry the most frequent label of their cluster."""
    table = _contingency(labels, clusters)
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
    """`clustering_scores` over the rows of all processes; {} without labels.

    `labels` (N,) are of the rows of all processes, `observed` tells which of this process's rows
    are scored (all, unless given), and `clusters` (n,), integers from 0, are of those.
    """
    if labels is None:
        return {}
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    share = processes.share_of(codes, len(clusters) if observed is None else len(observed))
    share = share if observed is None else share[observed]
    return clustering_scores(*processes.pairs(share, clusters))


def confusion(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of rows by class and cluster, ordered so that matches lie on the diagonal.

    Returns
    -------
    counts : np.ndarray of int, shape (classes, clusters)
    classes : np.ndarray, shape (classes,)
    clusters : np.ndarray, shape (clusters,)
        The cluster of each column: matched ones first, in the order of their classes.
    """
    table = _contingency(labels, clusters)
    _, matched = linear_sum_assignment(table, maximize=True)  # in the order of their classes
    order = np.append(matched, np.setdiff1d(np.arange(table.shape[1]), matched))
    return table[:, order], np.unique(labels), np.unique(clusters)[order]


def _contingency(labels: ArrayLike, clusters: ArrayLike) -> np.ndarray:
    """Counts of rows, (classes, clusters), both those present and sorted."""
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.ndim != 1 or labels.shape != clusters.shape or not len(labels):
        raise InputError(
            "expected labels and clusters of the same length, one per row, got shapes "
            f"{labels.shape} and {clusters.shape}"
        )
    return contingency_matrix(labels, clusters)
