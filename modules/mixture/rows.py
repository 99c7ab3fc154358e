"""Rows to fit a mixture to: of several parents side by side, unsure, weighted, incomplete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ... import arrays, processes
from ...density import MixtureDensity, log_gaussians
from ...messages import Message
from ..common.inputs import flat, side_by_side

ALL = slice(None)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one process, read block by block.

    Attributes
    ----------
    x : (N, D)
        float32 rows stay float32: only blocks of them are converted.
    variances : (N, D) or None
        Where the sender is unsure; every statistic is then an expectation over
        N(x_n, diag(variances_n)).
    observed : (N, D) of bool, or None
        False where a value is missing; None if none is.
    weight : (N,) or None
        How often each row counts; once unless given.
    origin : (D,) or None
        What statistics are about; the mean of x over all processes unless given.
    """

    x: np.ndarray
    variances: np.ndarray | None = None
    observed: np.ndarray | None = None
    weight: np.ndarray | None = None
    origin: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def n_columns(self) -> int:
        """Number of columns D."""
        return self.x.shape[1]

    @cached_property
    def weights(self) -> np.ndarray:
        """`weight` as an array in any case, (N,)."""
        return np.ones(len(self)) if self.weight is None else self.weight

    @cached_property
    def centre(self) -> np.ndarray:
        """What is subtracted from x before sums are taken, (D,)."""
        return self.mean(np.ones(len(self))) if self.origin is None else self.origin

    @cached_property
    def reach(self) -> np.ndarray:
        """How far x gets from its centre in each column, (D,)."""
        if not len(self):
            return np.zeros(self.n_columns)
        ends = self.x.max(axis=0) - self.centre, self.centre - self.x.min(axis=0)
        return np.maximum(*ends)

    def mean(self, weight: np.ndarray) -> np.ndarray:
        """Mean of x over all processes under weights (N,): (D,)."""
        sums = np.zeros(self.n_columns)
        for block in arrays.blocks(self.x):
            sums = sums + weight[block] @ self.block(block)
        return processes.total(sums) / processes.total(weight.sum())

    def block(self, block: slice = ALL) -> np.ndarray:
        """Some of x, or all, in float64: (n, D)."""
        return self.x[block].astype(np.float64, copy=False)

    def log_gaussians(self, density: MixtureDensity, block: slice = ALL) -> np.ndarray:
        """Log density of what is observed of some rows under each component, (n, K)."""
        variances = None if self.variances is None else self.variances[block]
        observed = None if self.observed is None else self.observed[block]
        return log_gaussians_of_observed(self.block(block), density, variances, observed)

    def half_traces(self, density: MixtureDensity, block: slice = ALL) -> np.ndarray:
        """``tr(Sigma_k^-1 diag(variances_n)) / 2`` of some unsure rows, (n, K).

        By so much their variances lower the expected log density.
        """
        assert self.variances is not None
        variances = self.variances[block]
        if self.observed is None:
            return half_traces(variances, density)
        traces = np.zeros((len(variances), density.n_components))
        for rows, columns in patterns(self.observed[block]):
            if len(columns):
                some = variances[np.ix_(rows, columns)]
                traces[rows] = half_traces(some, density.marginal(columns))
        return traces


def stack(inputs: Sequence[Message]) -> Rows:
    """The parents' rows side by side; variances of those that sent none are 0."""
    means = [flat(message) for message in inputs]
    variances = [getattr(message, "var", None) for message in inputs]
    rows = Rows(side_by_side(means))
    if any(v is not None for v in variances):
        parts = zip(means, variances, strict=True)
        every = [np.zeros_like(mean) if v is None else v for mean, v in parts]
        rows = replace(rows, variances=side_by_side(every))
    if all(message.observed is None for message in inputs):
        return rows
    widths = [mean.shape[1] for mean in means]
    masks = np.stack([message.is_observed for message in inputs], axis=1)  # (N, parents)
    return replace(rows, observed=np.repeat(masks, widths, axis=1))


def filled(rows: Rows) -> Rows:
    """The rows with what is missing set to its column's mean (of all processes), variance 0."""
    if not processes.any_of(rows.observed is not None):
        return rows
    observed = np.ones(rows.x.shape, dtype=bool) if rows.observed is None else rows.observed
    sums = np.asarray(np.sum(rows.x, axis=0, dtype=np.float64, where=observed))
    counts = observed.sum(axis=0, dtype=np.float64)
    means = processes.total(sums) / np.maximum(processes.total(counts), 1)
    if rows.observed is None:
        return rows
    x = arrays.empty(rows.x.shape, rows.x.dtype, rows.x)
    for block in arrays.blocks(x):
        x[block] = np.where(observed[block], rows.x[block], means)
    variances = rows.variances
    if variances is not None:
        variances = arrays.copy(variances)
        variances[~observed] = 0
    return replace(rows, x=x, variances=variances)


# -- rows that miss columns ------------------------------------------------------------------------


def patterns(observed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that miss the same columns, (n,), and those they have, (d,): of a mask (N, D)."""
    kinds, kind_of_row = np.unique(observed, axis=0, return_inverse=True)
    for number, columns in enumerate(kinds):
        yield np.flatnonzero(kind_of_row.ravel() == number), np.flatnonzero(columns)


def log_gaussians_of_observed(
    x: np.ndarray,
    density: MixtureDensity,
    variances: np.ndarray | None,
    observed: np.ndarray | None,
) -> np.ndarray:
    """`log_gaussians` of the columns each row has, (N, K); 0 where it has none."""
    if observed is None:
        return log_gaussians(x, density, variances)
    result = np.zeros((len(x), density.n_components))
    for rows, columns in patterns(observed):
        if len(columns):
            some = np.ix_(rows, columns)
            unsure = None if variances is None else variances[some]
            result[rows] = log_gaussians(x[some], density.marginal(columns), unsure)
    return result


def half_traces(variances: np.ndarray, density: MixtureDensity) -> np.ndarray:
    """``tr(Sigma_k^-1 diag(variances_n)) / 2`` of complete rows: (N, D) -> (N, K)."""
    white, _ = density.whitening
    precisions = white**2 if white.ndim == 2 else (white**2).sum(axis=2)  # their diagonals, (K, D)
    return 0.5 * variances @ precisions.T


def expected_moments(
    x: np.ndarray,
    responsibilities: np.ndarray,
    density: MixtureDensity,
    variances: np.ndarray | None,
    observed: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of r_nk E[x_n | k], (K, D), and of r_nk E[x_n x_n^T | k], (K, D, D).

    The expectations are under component k of `density`, given the columns that are observed.
    """
    k, d = density.means.shape
    first, second = np.zeros((k, d)), np.zeros((k, d, d))
    covariances = density.full_covariances()
    for rows, columns in patterns(observed):
        some = np.ix_(rows, columns)
        for c in range(k):
            gain, spread = _regression(covariances[c], columns)
            mean = density.means[c]
            completed = mean + (x[some] - mean[columns]) @ gain.T  # (n, D)
            r = responsibilities[rows, c]  # (n,)
            first[c] += r @ completed
            second[c] += (r[:, None] * completed).T @ completed + r.sum() * spread
            if variances is not None:
                second[c] += (gain * (r @ variances[some])) @ gain.T
    return first, second


def _regression(covariance: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a Gaussian's D columns follow from some: gain (D, d), remaining covariance (D, D)."""
    across = covariance[:, columns]  # (D, d)
    gain = np.linalg.solve(across[columns], across.T).T if len(columns) else across
    gain[columns] = np.eye(len(columns))
    remaining = covariance - gain @ across.T
    remaining[columns], remaining[:, columns] = 0, 0
    return gain, remaining
