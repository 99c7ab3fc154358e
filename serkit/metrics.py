"""How well a clustering agrees with known labels; numbering of clusters never matters."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from .errors import InputError


def _contingency(labels: ArrayLike, clusters: ArrayLike) -> np.ndarray:
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    if labels.ndim != 1 or labels.shape != clusters.shape or not len(labels):
        raise InputError(
            "expected labels and clusters of the same length, one a row, got shapes "
            f"{labels.shape} and {clusters.shape}"
        )
    return contingency_matrix(labels, clusters)  # (classes, clusters present)


def matching(labels: ArrayLike, clusters: ArrayLike) -> dict:
    """The one-to-one matching of clusters to labels that agrees on most rows (Hungarian method).

    Parameters
    ----------
    labels, clusters : array-like, shape (N,)

    Returns
    -------
    dict
        From cluster to label. With more clusters than labels the least useful ones are missing.

    Raises
    ------
    InputError
        For lengths that differ, or none.
    """
    table = _contingency(labels, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    found, present = np.unique(labels), np.unique(clusters)
    return {present[c].item(): found[r].item() for r, c in zip(rows, columns, strict=True)}


def accuracy(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of rows, in [0, 1], whose cluster is matched to their label (see `matching`).

    Works for any number of clusters: those left unmatched count as wrong.
    """
    table = _contingency(labels, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information (arithmetic mean of the entropies), in [0, 1]."""
    _contingency(labels, clusters)
    return float(normalized_mutual_info_score(labels, clusters))


def ari(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted Rand index: 1 for equal partitions, 0 on average for random ones."""
    _contingency(labels, clusters)
    return float(adjusted_rand_score(labels, clusters))


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Share of rows, in [0, 1], that carry the most frequent label of their cluster."""
    table = _contingency(labels, clusters)
    return float(table.max(axis=0).sum() / table.sum())


def clustering_scores(labels: ArrayLike, clusters: ArrayLike) -> dict[str, float]:
    """Accuracy, NMI and ARI at once: what modules with ``labels=`` report."""
    return {
        "accuracy": accuracy(labels, clusters),
        "nmi": nmi(labels, clusters),
        "ari": ari(labels, clusters),
    }


def confusion(labels: ArrayLike, clusters: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (classes, clusters), with the columns ordered so that matches lie on the diagonal.

    Returns
    -------
    counts : np.ndarray, shape (classes, clusters)
    classes : np.ndarray, shape (classes,)
    clusters : np.ndarray, shape (clusters,)
        The cluster of each column: matched ones first, in the order of their classes.
    """
    table = _contingency(labels, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    order = list(columns[np.argsort(rows)])
    order += [c for c in range(table.shape[1]) if c not in order]
    return table[:, order], np.unique(labels), np.unique(clusters)[order]
