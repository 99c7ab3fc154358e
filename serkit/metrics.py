"""How well a clustering agrees with known labels; numbering of clusters never matters."""

from __future__ import annotations

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

    Parameters
    ----------
    labels, clusters : array-like, shape (N,)
        Of any dtype, text too.

    Returns
    -------
    dict
        From cluster to label. With more clusters than labels the least useful ones are missing.

    Raises
    ------
    InputError
        For lengths that differ, or none.

    Examples
    --------
    >>> from serkit import metrics
    >>> metrics.matching(["cat", "cat", "dog"], [1, 1, 0])
    {1: 'cat', 0: 'dog'}
    """
    rows, columns = _matches(_contingency(labels, clusters))
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
    return float(table[_matches(table)].sum() / table.sum())


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information (arithmetic mean of the entropies), in [0, 1]."""
    _contingency(labels, clusters)
    return float(normalized_mutual_info_score(labels, clusters))


def ari(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted Rand index: 1 for equal partitions, 0 on average for random ones."""
    _contingency(labels, clusters)
    return float(adjusted_rand_score(labels, clusters))


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
    return {
        "accuracy": accuracy(labels, clusters),
        "nmi": nmi(labels, clusters),
        "ari": ari(labels, clusters),
    }


def scores_of(
    labels: ArrayLike | None, clusters: np.ndarray, observed: np.ndarray | None = None
) -> dict[str, float]:
    """`clustering_scores` over the rows of all processes; {} without labels.

    Parameters
    ----------
    labels : array-like, shape (N,), optional
        Classes of the rows of all processes.
    clusters : np.ndarray of int, shape (n,)
        Clusters, from 0, of those of this process's rows that are scored.
    observed : np.ndarray of bool, shape (number of this process's rows,), optional
        True for the rows that are scored; all are unless given.

    Raises
    ------
    InputError
        Unless there is one label for each row.
    """
    if labels is None:
        return {}
    codes = np.unique(np.asarray(labels), return_inverse=True)[1]
    share = processes.share_of(codes, len(clusters) if observed is None else len(observed))
    share = share if observed is None else share[observed]
    return clustering_scores(*processes.pairs(share, clusters))


def confusion(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of rows by class and cluster, ordered so that matches lie on the diagonal.

    Parameters
    ----------
    labels, clusters : array-like, shape (N,)

    Returns
    -------
    counts : np.ndarray of int, shape (classes, clusters)
    classes : np.ndarray, shape (classes,)
    clusters : np.ndarray, shape (clusters,)
        The cluster of each column: matched ones first, in the order of their classes.
    """
    table = _contingency(labels, clusters)
    rows, columns = _matches(table)
    order = list(columns[np.argsort(rows)])
    order += [c for c in range(table.shape[1]) if c not in order]
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


def _matches(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a contingency table that are matched, one to one."""
    return linear_sum_assignment(table, maximize=True)
