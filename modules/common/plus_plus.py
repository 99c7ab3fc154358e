"""Where clusters start: k-means++ and k-means over rows that processes may share."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from scipy import sparse
from sklearn import config_context
from sklearn.metrics.pairwise import euclidean_distances

from ... import processes

Matrix: TypeAlias = np.ndarray | sparse.csr_array


def plus_plus_centres(x: Matrix, weight: np.ndarray, n_centres: int, seed: int) -> np.ndarray:
    """Rows far from each other, drawn by squared distance to those drawn before: (n_centres, D).

    Arthur and Vassilvitskii (2007), "k-means++: the advantages of careful seeding"; of a few draws
    the one that leaves the smallest sum of squared distances is taken. With the same seed, which
    all processes share, the rows are those of scikit-learn's `kmeans_plusplus`, however many
    processes have a share x (n, D) of them, with weights (n,) >= 0: only the rows drawn, and sums
    of distances, go from one to the others.
    """
    rng = np.random.RandomState(seed)
    n_trials = 2 + int(np.log(n_centres))
    totals = processes.by_process(weight.sum())  # (P,)
    holders = np.flatnonzero(processes.by_process(x.shape[0] > 0))  # processes that have rows
    centres = _rows_at(rng.random_sample(1), x, weight, totals, holders, "right")
    closest = _squared_distances(centres, x)[0]  # (n,)
    totals = processes.by_process(closest @ weight)
    for _ in range(1, n_centres):
        tried = _rows_at(rng.uniform(size=n_trials), x, closest * weight, totals, holders, "left")
        distances = np.minimum(_squared_distances(tried, x), closest)  # (T, n)
        remaining = processes.by_process(distances @ weight)  # (P, T)
        best = remaining.sum(axis=0).argmin()
        centres, closest = np.vstack([centres, tried[best]]), distances[best]
        totals = remaining[:, best]
    return centres


def k_means(x: Matrix, weight: np.ndarray, centres: np.ndarray, max_iter: int = 10) -> np.ndarray:
    """The centres (K, D) that at most so many steps of Lloyd's algorithm make of others.

    Each step moves every centre to the mean of the rows nearest to it, if there are any. Rows
    x (n, D) and weights (n,) >= 0 are this process's share.
    """
    for _ in range(max_iter):
        places = nearest(x, centres), np.arange(x.shape[0])
        weights = sparse.csr_array((weight, places), shape=(len(centres), x.shape[0]))
        sums = weights @ x
        sums = sums.toarray() if sparse.issparse(sums) else sums
        totals = processes.total(np.column_stack([sums, weights.sum(axis=1)]))
        has_rows = totals[:, -1] > 0
        moved = centres.copy()
        moved[has_rows] = totals[has_rows, :-1] / totals[has_rows, -1:]
        if processes.of_first(np.array_equal(moved, centres)):
            break
        centres = moved
    return centres


def nearest(x: Matrix, centres: np.ndarray) -> np.ndarray:
    """Number of the centre (K, D) that is nearest to each row (n, D), (n,)."""
    half_squares = 0.5 * np.einsum("kd,kd->k", centres, centres)
    return np.argmax(x @ centres.T - half_squares, axis=1)


def _squared_distances(centres: np.ndarray, x: Matrix) -> np.ndarray:
    empty = np.zeros((len(centres), 0))
    with config_context(assume_finite=True, skip_parameter_validation=True):  # for speed
        return euclidean_distances(centres, x, squared=True) if x.shape[0] else empty


def _rows_at(
    fractions: np.ndarray,
    x: Matrix,
    weight: np.ndarray,
    totals: np.ndarray,
    holders: np.ndarray,
    side: Literal["left", "right"],
) -> np.ndarray:
    """Rows where fractions (T,) of all weight, in processes `totals` (P,), are reached: (T, D)."""
    ends = totals.cumsum()
    sought = fractions * ends[-1]
    place = np.searchsorted(ends[holders], sought, side)
    mine = holders[np.minimum(place, len(holders) - 1)] == processes.rank()
    rows = np.zeros((len(fractions), x.shape[1]))
    if mine.any():
        before = (ends - totals)[processes.rank()]
        index = np.searchsorted(np.cumsum(weight, dtype=np.float64), sought[mine] - before, side)
        drawn = x[np.minimum(index, x.shape[0] - 1)]
        rows[mine] = drawn.toarray() if sparse.issparse(drawn) else drawn
    return processes.total(rows)
