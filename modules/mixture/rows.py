"""Rows to fit a mixture to: of several parents side by side, unsure, weighted, incomplete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ... import arrays, processes
from ...density import MixtureDensity, log_gaussians
from ...errors import InputError
from ...messages import Message
from ..common.inputs import flat, side_by_side

_CONSTANT = 8 * np.finfo(np.float64).eps  # standard deviation of ones: less is rounding


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one process; `rows[block]` are some of them.

    Unsure rows stand for N(x_n, diag(variances_n)): every statistic is an expectation over it.
    """

    x: np.ndarray  # (N, D); float32 rows stay float32: only blocks of them are converted
    variances: np.ndarray | None = None  # (N, D)
    observed: np.ndarray | None = None  # (N, D) of bool, False where a value is missing
    weight: np.ndarray | None = None  # (N,), how often each row counts; once unless given
    origin: np.ndarray | None = None  # (D,), the centre; the mean over all processes unless given

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, block: slice | np.ndarray) -> Rows:
        values = self.variances, self.observed, self.weight
        variances, observed, weight = (v if v is None else v[block] for v in values)
        return Rows(self.x[block], variances, observed, weight, self.origin)

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

    def centred(self, block: slice | np.ndarray) -> np.ndarray:
        """Some rows about the centre, (n, D), float64: exact far from the origin too."""
        return self.x[block] - self.centre

    @cached_property
    def reach(self) -> np.ndarray:
        """How far x gets from its centre in each column, (D,)."""
        if not len(self):
            return np.zeros(self.n_columns)
        return np.maximum(self.x.max(axis=0) - self.centre, self.centre - self.x.min(axis=0))

    def mean(self, weight: np.ndarray) -> np.ndarray:
        """Mean of x over all processes under weights (N,): (D,)."""
        sums = np.zeros(self.n_columns)
        for block in arrays.blocks(self.x):
            sums = sums + weight[block] @ self.x[block].astype(np.float64, copy=False)
        return processes.total(sums) / processes.total(weight.sum())

    def scale(self, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Variance of each column over all processes, (D,): of x, and the mean of the rows' own.

        A constant column gets the mean of the others' variances, or 1.
        """
        first, second = np.zeros(self.n_columns), np.zeros(self.n_columns)
        for block in arrays.blocks(self.x):
            offsets = self.x[block] - mean
            first += weight[block] @ offsets  # 0 but for the mean's rounding
            second += weight[block] @ offsets**2
        total = processes.total(weight.sum())
        variances = processes.total(second) / total - (processes.total(first) / total) ** 2
        variances += self.mean_variances(weight)
        varies = variances > (_CONSTANT * mean) ** 2
        return np.where(varies, variances, variances.mean() if varies.any() else 1.0)

    def mean_variances(self, weight: np.ndarray) -> np.ndarray:
        """Mean of the rows' own variances over all processes, (D,); 0 where they have none."""
        sums = np.zeros(self.n_columns)
        if self.variances is not None:
            for block in arrays.blocks(self.x):
                sums += weight[block] @ self.variances[block]
        return processes.total(sums) / processes.total(weight.sum())

    def log_gaussians(self, density: MixtureDensity) -> np.ndarray:
        """Log density of what is observed under each component, (N, K); 0 where nothing is."""
        return self._by_columns(log_gaussians, density)

    def half_traces(self, density: MixtureDensity) -> np.ndarray:
        """``tr(Sigma_k^-1 diag(variances_n)) / 2``, which variances take off that, (N, K)."""
        return self._by_columns(_half_traces, density)

    def _by_columns(
        self, function: Callable[..., np.ndarray], density: MixtureDensity
    ) -> np.ndarray:
        """A function of complete rows, a density and variances, of the columns each row has."""
        if self.observed is None:
            return function(self.x, density, self.variances)
        result = np.zeros((len(self), density.n_components))
        for rows, columns in patterns(self.observed):
            if len(columns):
                some = np.ix_(rows, columns)
                variances = None if self.variances is None else self.variances[some]
                result[rows] = function(self.x[some], density.marginal(columns), variances)
        return result


def stack(inputs: Sequence[Message]) -> Rows:
    """The parents' rows side by side; variances of those that sent none are 0."""
    means = [flat(message) for message in inputs]
    variances = [getattr(message, "var", None) for message in inputs]
    rows = Rows(side_by_side(means))
    if any(v is not None for v in variances):
        pairs = zip(means, variances, strict=True)
        every = [np.zeros_like(mean) if v is None else v for mean, v in pairs]
        rows = replace(rows, variances=side_by_side(every))
    if all(message.observed is None for message in inputs):
        return rows
    masks = np.stack([message.is_observed for message in inputs], axis=1)  # (N, parents)
    return replace(rows, observed=np.repeat(masks, [m.shape[1] for m in means], axis=1))


# -- before a fit ----------------------------------------------------------------------------------


def prepared(label: str, rows: Rows, n_components: int) -> Rows:
    """Rows with what is missing filled in, those of which nothing is observed without weight.

    InputError for values beyond floating point, fewer distinct rows than components, or no weight.
    """
    check_squares(label, rows.x)
    rows = filled(rows)
    n_distinct = count_distinct(rows.x, n_components)
    if n_distinct < n_components:
        raise InputError(
            f"{label}: n_components={n_components}, but only {n_distinct} of the "
            f"{int(processes.total(len(rows)))} rows are distinct"
        )
    if rows.observed is not None:
        rows = replace(rows, weight=rows.weights * rows.observed.any(axis=1))
    if not processes.any_of(bool(rows.weights.any())):
        raise InputError(f"{label}: no row with a weight above 0 is observed in any parent")
    return rows


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
    x, variances = arrays.empty(rows.x.shape, rows.x.dtype, rows.x), rows.variances
    for block in arrays.blocks(x):
        x[block] = np.where(observed[block], rows.x[block], means)
    if variances is not None:
        variances = arrays.copy(variances)
        variances[~observed] = 0
    return replace(rows, x=x, variances=variances)


def check_squares(label: str, x: np.ndarray) -> None:
    """Raise InputError for values whose squares are beyond floating point."""
    largest = float(max(x.max(initial=0), -x.min(initial=0)))
    if largest > np.sqrt(np.finfo(np.float64).max / max(x.size, 1)):
        raise InputError(
            f"{label}: values up to {largest:g} are too large to square; scale the data"
        )


def count_distinct(x: np.ndarray, enough: int) -> int:
    """Number of different rows of all processes, or `enough`; looks no further than needed."""
    n_read, distinct = 0, x[:0]
    while len(distinct) < enough and n_read < len(x):
        n_read = min(len(x), max(2 * n_read, 4 * enough))
        distinct = np.unique(x[:n_read], axis=0)
    some = processes.gather(distinct[:enough])
    return min(len(np.unique(some, axis=0)), enough)


# -- rows that miss columns ------------------------------------------------------------------------


def patterns(observed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows that miss the same columns, (n,), and those they have, (d,): of a mask (N, D)."""
    kinds, kind_of_row = np.unique(observed, axis=0, return_inverse=True)
    for number, columns in enumerate(kinds):
        yield np.flatnonzero(kind_of_row.ravel() == number), np.flatnonzero(columns)


def expected_moments(
    rows: Rows, responsibilities: np.ndarray, density: MixtureDensity
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over rows of r_nk E[x_n | k], (K, D), and of r_nk E[x_n x_n^T | k], (K, D, D).

    The expectations are under component k of `density`, given the columns that are observed.
    """
    assert rows.observed is not None
    k, d = density.means.shape
    first, second = np.zeros((k, d)), np.zeros((k, d, d))
    covariances = density.full_covariances()
    for numbers, columns in patterns(rows.observed):
        some = np.ix_(numbers, columns)
        for c in range(k):
            gain, spread = _regression(covariances[c], columns)
            mean = density.means[c]
            completed = mean + (rows.x[some] - mean[columns]) @ gain.T  # (n, D)
            r = responsibilities[numbers, c]  # (n,)
            first[c] += r @ completed
            second[c] += (r[:, None] * completed).T @ completed + r.sum() * spread
            if rows.variances is not None:
                second[c] += (gain * (r @ rows.variances[some])) @ gain.T
    return first, second


def _regression(covariance: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a Gaussian's D columns follow from some: gain (D, d), remaining covariance (D, D)."""
    across = covariance[:, columns]  # (D, d)
    gain = np.linalg.solve(across[columns], across.T).T if len(columns) else across
    gain[columns] = np.eye(len(columns))
    remaining = covariance - gain @ across.T
    remaining[columns], remaining[:, columns] = 0, 0
    return gain, remaining


def _half_traces(_: np.ndarray, density: MixtureDensity, variances: np.ndarray) -> np.ndarray:
    white = density.whitening[0]
    precisions = white**2 if white.ndim == 2 else (white**2).sum(axis=2)  # their diagonals, (K, D)
    return 0.5 * variances @ precisions.T
