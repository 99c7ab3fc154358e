"""Sufficient statistics of Gaussian mixtures: what EM needs of the rows, in one pass over them.

For a block of rows both steps of EM are one matrix product each: coefficients times features give
the log densities, responsibilities times features the statistics. Nothing is kept of a block but
its statistics, in float64, and these add up: over blocks, over threads, over batches. Sums are
taken in the same order for any number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from .. import processes
from ..density import DIAGONAL_TYPES, MixtureDensity
from ..messages import Categorical
from ._features import coefficients_of, features_of, n_features, packed, rounding, unpacked
from ._missing import expected_moments, log_gaussians_of_seen
from ._posterior import log_class_prior
from ._rows import Rows
from ._threads import for_parts

_CACHE_VALUES = 2**17  # a block stays in the processor's cache, if it can: ...
_BLOCK_ROWS, _BLOCK_VALUES = 64, 2**23  # ... of many columns some rows are taken at least
_PRECISE = 1e-9  # nats by which rounding may change a log density before features are given up

Weigh = Callable[[np.ndarray, slice], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Statistics:
    """Sums over rows of their features times their responsibilities.

    Attributes
    ----------
    sums : (K, F)
        F = 1 + D + D (D + 1) / 2 features, or 1 + 2 D with only the squares.
    log_likelihood, weight : float
        Sums over rows of w_n log p(x_n), in nats, and of w_n.
    centre : (D,)
        Subtracted from the rows beforehand, which keeps differences of sums accurate.
    diagonal : bool
    """

    sums: np.ndarray
    log_likelihood: float
    weight: float
    centre: np.ndarray
    diagonal: bool

    @property
    def counts(self) -> np.ndarray:
        """Sum of each component's responsibilities, (K,)."""
        return self.sums[:, -1]

    @property
    def first(self) -> np.ndarray:
        """Sums of r x, (K, D)."""
        d = len(self.centre)
        return self.sums[:, -1 - d : -1]

    @property
    def second(self) -> np.ndarray:
        """Sums of r x x^T, (K, D, D), or of r x^2, (K, D)."""
        d = len(self.centre)
        return unpacked(self.sums[:, : -1 - d], d, self.diagonal)


# -- what is done with the responsibilities --------------------------------------------------------


def expect(
    rows: Rows, weight: np.ndarray, density: MixtureDensity, told: Categorical | None
) -> Statistics:
    """The E-step: statistics under the responsibilities of `density` and what the children say."""

    def weigh(joint: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        return _softmax(joint)

    return _collect(rows, weight, density, told, weigh)


def assign(
    rows: Rows,
    weight: np.ndarray,
    density: MixtureDensity,
    told: Categorical | None,
    rng: np.random.Generator,
) -> Statistics:
    """The same under one class a row, drawn from its responsibilities (Gumbel-max)."""
    k = density.n_components

    def weigh(joint: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
        noise = rng.gumbel(size=joint.shape[::-1])
        drawn = (joint + noise.T).argmax(axis=0)  # (n,)
        _, log_likelihood = _softmax(joint)
        return (np.arange(k)[:, None] == drawn).astype(np.float64), log_likelihood

    return _collect(rows, weight, density, told, weigh, n_threads=1)


def summarise(
    rows: Rows,
    weight: np.ndarray,
    responsibilities: Callable[[slice], np.ndarray],
    n_components: int,
    covariance_type: str,
) -> Statistics:
    """Statistics under given responsibilities: from a slice of rows to (n, K).

    There is no density yet, so that values that were not seen are taken as they stand in x.
    """
    diagonal = covariance_type in DIAGONAL_TYPES

    def block(part: slice) -> tuple[np.ndarray, float]:
        r = responsibilities(part).T * weight[part]  # (K, n)
        return r @ features_of(rows, part, diagonal).T, 0.0

    return _summed(block, rows, weight, n_components, diagonal)


def totals(own: Statistics) -> Statistics:
    """The sum of all processes' statistics, which must have one centre."""
    if processes.count() == 1:
        return own
    sent = np.array([*own.sums.ravel(), own.log_likelihood, own.weight])
    *sums, log_likelihood, weight = processes.total(sent)
    whole = np.reshape(sums, own.sums.shape)
    return replace(own, sums=whole, log_likelihood=log_likelihood, weight=weight)


# -- passes over blocks ----------------------------------------------------------------------------


def _collect(
    rows: Rows,
    weight: np.ndarray,
    density: MixtureDensity,
    told: Categorical | None,
    weigh: Weigh,
    n_threads: int | None = None,
) -> Statistics:
    """Statistics under the weights (K, n) that `weigh` makes of log joint densities (K, n)."""
    diagonal = density.covariance_type in DIAGONAL_TYPES
    shifted = replace(density, means=density.means - rows.centre)
    with np.errstate(divide="ignore"):
        log_weights = np.log(density.weights)

    def weighted(joint: np.ndarray, part: slice) -> tuple[np.ndarray, float]:
        joint += log_class_prior(log_weights, told, part).T
        r, log_likelihood = weigh(joint, part)
        return r * weight[part], float(weight[part] @ log_likelihood)

    def block(part: slice) -> tuple[np.ndarray, float]:
        features = features_of(rows, part, diagonal)  # (F, n)
        if precise:
            joint = coefficients @ features  # (K, n)
        else:
            joint = np.ascontiguousarray(rows.log_gaussians(density, part).T)
        r, log_likelihood = weighted(joint, part)
        return r @ features.T, log_likelihood

    def block_of_seen(part: slice) -> tuple[np.ndarray, float]:
        x, variances, seen = rows.block(part) - rows.centre, rows.variances, rows.seen[part]
        variances = None if variances is None else variances[part]
        joint = log_gaussians_of_seen(x, shifted, variances, seen).T.copy()
        r, log_likelihood = weighted(joint, part)
        first, second = expected_moments(x, r.T, shifted, variances, seen)
        sums = [packed(second, diagonal), first, r.sum(axis=1, keepdims=True)]
        return np.concatenate(sums, axis=1), log_likelihood

    k = density.n_components
    if rows.seen is not None:
        return _summed(block_of_seen, rows, weight, k, diagonal, n_threads, len(rows))
    coefficients = coefficients_of(shifted, diagonal)
    precise = rounding(shifted, rows.reach) < _PRECISE
    return _summed(block, rows, weight, k, diagonal, n_threads)


def _block_rows(width: int) -> int:
    return max(_CACHE_VALUES // width, min(_BLOCK_ROWS, _BLOCK_VALUES // width), 1)


def _summed(
    block: Callable[[slice], tuple[np.ndarray, float]],
    rows: Rows,
    weight: np.ndarray,
    n_components: int,
    diagonal: bool,
    n_threads: int | None = None,
    block_rows: int | None = None,
) -> Statistics:
    """What `block` gives of `block_rows` rows at a time, or as many as go well, added up."""
    centre = rows.centre  # found before threads would each find it
    shape = (n_components, n_features(rows.n_columns, diagonal))
    block_rows = block_rows or _block_rows(sum(shape))

    def task(part: slice) -> tuple[np.ndarray, float]:
        starts = range(part.start, part.stop, block_rows)
        return _added(block(slice(i, min(i + block_rows, part.stop))) for i in starts)

    parts = for_parts(task, len(rows), n_threads) if len(rows) else [(np.zeros(shape), 0.0)]
    return Statistics(*_added(parts), float(weight.sum()), centre, diagonal)


def _added(parts: Iterable[tuple[np.ndarray, float]]) -> tuple[np.ndarray, float]:
    """Sums over the parts as they come, so that no more than one is kept."""
    return functools.reduce(lambda total, part: (total[0] + part[0], total[1] + part[1]), parts)


def _softmax(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responsibilities (K, n), written over `joint`, and the log of what was divided by, (n,)."""
    top = joint.max(axis=0)
    joint -= top
    np.exp(joint, out=joint)
    total = joint.sum(axis=0)
    joint /= total
    return joint, np.log(total) + top
