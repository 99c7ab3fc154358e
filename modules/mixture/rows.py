"""Rows of several parents set side by side, read block by block, and cut apart again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ... import arrays, processes
from ...density import MixtureDensity, log_gaussians
from ...messages import Message
from ..common.inputs import flat, side_by_side


def patterns(seen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that saw the same columns, (n,), and those columns, (d,): of a mask (N, D)."""
    kinds, kind_of_row = np.unique(seen, axis=0, return_inverse=True)
    for number, columns in enumerate(kinds):
        yield np.flatnonzero(kind_of_row.ravel() == number), np.flatnonzero(columns)


def log_gaussians_of_seen(
    x: np.ndarray, density: MixtureDensity, variances: np.ndarray | None, seen: np.ndarray | None
) -> np.ndarray:
    """`log_gaussians` of the columns each row saw, (N, K); 0 where it saw none."""
    if seen is None:
        return log_gaussians(x, density, variances)
    result = np.zeros((len(x), density.n_components))
    for rows, columns in patterns(seen):
        if len(columns):
            own = np.ix_(rows, columns)
            unsure = None if variances is None else variances[own]
            result[rows] = log_gaussians(x[own], density.marginal(columns), unsure)
    return result


def expected_moments(
    x: np.ndarray,
    responsibilities: np.ndarray,
    density: MixtureDensity,
    variances: np.ndarray | None,
    seen: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of r_nk E[x_n | k], (K, D), and of r_nk E[x_n x_n^T | k], (K, D, D).

    The expectations are under component k of `density`, given the columns that were seen.
    """
    k, d = density.means.shape
    first, second = np.zeros((k, d)), np.zeros((k, d, d))
    covariances = density.full_covariances()
    for rows, columns in patterns(seen):
        for c in range(k):
            gain, spread = _regression(covariances[c], columns)
            mean = density.means[c]
            filled = mean + (x[np.ix_(rows, columns)] - mean[columns]) @ gain.T  # (n, D)
            r = responsibilities[rows, c]
            first[c] += r @ filled
            second[c] += (r[:, None] * filled).T @ filled + r.sum() * spread
            if variances is not None:
                second[c] += (gain * (r @ variances[np.ix_(rows, columns)])) @ gain.T
    return first, second


def _regression(covariance: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a Gaussian's D columns follow from some of them: gain (D, d), what is left (D, D)."""
    across = covariance[:, columns]  # (D, d)
    gain = np.linalg.solve(across[columns], across.T).T if len(columns) else across
    gain[columns] = np.eye(len(columns))
    left = covariance - gain @ across.T
    left[columns], left[:, columns] = 0, 0
    return gain, left


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to fit: x (N, D), their variances (N, D) where the sender is unsure, or None.

    With variances every sufficient statistic is an expectation over N(x_n, diag(variances_n)).
    `seen` (N, D) is false where a value is missing, None where none is. float32 rows stay float32:
    only blocks of them are converted. `origin` (D,) is what statistics are about, the mean of x
    unless given.
    """

    x: np.ndarray
    variances: np.ndarray | None = None
    seen: np.ndarray | None = None
    origin: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def n_columns(self) -> int:
        """Number of columns D."""
        return self.x.shape[1]

    def any_observed(self) -> np.ndarray | bool:
        """Rows of which anything was seen, (N,); True if all was of all."""
        return True if self.seen is None else self.seen.any(axis=1)

    def block(self, part: slice = slice(None)) -> np.ndarray:
        """Some of x, or all, in float64: (n, D)."""
        return self.x[part].astype(np.float64, copy=False)

    def mean(self, weight: np.ndarray | None = None) -> np.ndarray:
        """Mean of x over all processes, weighted if weights (N,) are given: (D,)."""
        weight = np.ones(len(self)) if weight is None else weight
        sums = (weight[part] @ self.block(part) for part in arrays.blocks(self.x))
        own = sum(sums, np.zeros(self.n_columns))
        return processes.total(own) / processes.total(weight.sum())

    @cached_property
    def centre(self) -> np.ndarray:
        """What is subtracted from x before sums are taken, (D,)."""
        return self.mean() if self.origin is None else self.origin

    @cached_property
    def reach(self) -> np.ndarray:
        """How far x gets from its centre in each column, (D,)."""
        if not len(self):
            return np.zeros(self.n_columns)
        ends = self.x.max(axis=0) - self.centre, self.centre - self.x.min(axis=0)
        return np.maximum(*ends)

    def log_gaussians(self, density: MixtureDensity, part: slice = slice(None)) -> np.ndarray:
        """Log density of what was seen of some rows under each component, (n, K)."""
        variances = None if self.variances is None else self.variances[part]
        seen = None if self.seen is None else self.seen[part]
        return log_gaussians_of_seen(self.block(part), density, variances, seen)


def stack(inputs: list[Message]) -> Rows:
    """The parents' rows side by side; variances of those that sent none are 0."""
    means = [flat(message) for message in inputs]
    given = [getattr(message, "var", None) for message in inputs]
    x, variances = side_by_side(means), None
    if any(v is not None for v in given):
        known = [np.zeros_like(m) if v is None else v for m, v in zip(means, given, strict=True)]
        variances = side_by_side(known)
    if all(message.observed is None for message in inputs):
        return Rows(x, variances)
    masks = [
        np.repeat(message.is_observed[:, None], m.shape[1], 1)
        for message, m in zip(inputs, means, strict=True)
    ]
    return Rows(x, variances, np.concatenate(masks, axis=1))


def filled(rows: Rows) -> Rows:
    """The rows with what was not seen set to its column's mean (of all processes), variance 0."""
    if not processes.any_of(rows.seen is not None):
        return rows
    seen = np.ones(rows.x.shape, dtype=bool) if rows.seen is None else rows.seen
    sums = np.sum(rows.x, axis=0, dtype=np.float64, where=seen)
    centre = processes.total(sums) / np.maximum(processes.total(seen.sum(axis=0)), 1)
    if rows.seen is None:
        return rows
    x = arrays.empty(rows.x.shape, rows.x.dtype, rows.x)
    for part in arrays.blocks(x):
        x[part] = np.where(seen[part], rows.x[part], centre)
    variances = rows.variances
    if variances is not None:
        variances = arrays.copy(variances)
        variances[~seen] = 0
    return replace(rows, x=x, variances=variances)
