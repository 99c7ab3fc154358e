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
from scipy.special import logsumexp

from ... import arrays, processes
from ...density import DIAGONAL_TYPES, MixtureDensity
from ...messages import Categorical
from ..common.threads import for_parts
from .rows import Rows, expected_moments, log_gaussians_of_seen


def n_features(d: int, diagonal: bool) -> int:
    """Number of features F of rows with D columns."""
    return 1 + d + (d if diagonal else d * (d + 1) // 2)


def features_of(rows: Rows, part: slice, diagonal: bool) -> np.ndarray:
    """Features of the rows about their centre, (F, n); squares are expected under variances."""
    x = rows.block(part).T - rows.centre[:, None]  # (D, n)
    d, n = x.shape
    features = np.empty((n_features(d, diagonal), n))
    features[-1 - d : -1], features[-1] = x, 1
    if diagonal:
        np.square(x, out=features[:d])
        squares = slice(0, d)
    else:
        offset, squares = 0, _diagonal_places(d)
        for i in range(d):
            np.multiply(x[i], x[i:], out=features[offset : offset + d - i])
            offset += d - i
    if rows.variances is not None:
        features[squares] += rows.variances[part].T
    return features


def _diagonal_places(d: int) -> np.ndarray:
    """Where x_i^2 stands among x_i x_j, i <= j, in rows of ascending i."""
    return np.cumsum([0, *range(d, 1, -1)])


def packed(second: np.ndarray, diagonal: bool) -> np.ndarray:
    """Symmetric matrices (K, D, D) as their upper triangles, or their diagonals: (K, .)."""
    if diagonal:
        return np.diagonal(second, axis1=1, axis2=2)
    upper = np.triu_indices(second.shape[-1])
    return second[:, upper[0], upper[1]]


def unpacked(packed: np.ndarray, d: int, diagonal: bool) -> np.ndarray:
    """The reverse, (K, D, D); diagonals stay what they are, (K, D)."""
    if diagonal:
        return packed
    i, j = np.triu_indices(d)
    second = np.empty((len(packed), d, d))
    second[:, i, j] = packed
    second[:, j, i] = packed
    return second


def coefficients_of(density: MixtureDensity, diagonal: bool) -> np.ndarray:
    """What log N(x; mu_k, Sigma_k) takes of each feature, (K, F)."""
    white, log_det = density.whitening
    d = density.n_dims
    if white.ndim == 2:
        precisions = white**2
        pulls = precisions * density.means  # (K, D)
        quadratic = -0.5 * precisions
    else:
        precisions = white @ np.swapaxes(white, 1, 2)  # (K, D, D)
        pulls = (precisions @ density.means[..., None])[..., 0]
        quadratic = packed(-precisions, diagonal)
        quadratic[:, _diagonal_places(d)] *= 0.5
    constant = (density.means * pulls).sum(axis=1) + log_det + d * np.log(2 * np.pi)
    return np.concatenate([quadratic, pulls, -0.5 * constant[:, None]], axis=1)


def rounding(density: MixtureDensity, reach: np.ndarray) -> float:
    """About how much rounding errors add up to in log densities from features, in nats."""
    white, _ = density.whitening
    if white.ndim == 2:
        largest = (white**2 * reach**2).sum(axis=1)
    else:
        largest = ((white * reach[:, None]) ** 2).sum(axis=(1, 2))
    return float(np.finfo(np.float64).eps * largest.max())


def log_class_prior(
    log_weights: np.ndarray, told: Categorical | None, part: slice = slice(None)
) -> np.ndarray:
    """What is known of some rows' classes without the rows, (1, K) or (n, K).

    The own log pi_k, which a prior from the children replaces, and to which their evidence
    P(k | n) adds log P(k | n) K, so that a uniform message adds exactly nothing.
    """
    if told is None:
        return log_weights[None]
    if told.is_prior:
        return told.log_prob[part]
    return log_weights + (told.log_prob[part] + np.log(told.shape[0]))


def log_joint(rows: Rows, density: MixtureDensity, told: Categorical | None = None) -> np.ndarray:
    """Log N(x_n; mu_k, Sigma_k) of what was seen, and the log prior of k: (N, K).

    From whitened rows, not from features: slower, and exact however narrow a component is.
    """
    with np.errstate(divide="ignore"):  # a weight may be 0
        log_weights = np.log(density.weights)
    joint = arrays.empty((len(rows), density.n_components), np.float64, rows.x)

    def fill(part: slice) -> None:
        joint[part] = rows.log_gaussians(density, part) + log_class_prior(log_weights, told, part)

    list(for_parts(fill, len(rows)))
    return joint


def to_log_probabilities(joint: np.ndarray) -> np.ndarray:
    """Normalise log joint densities (N, K) over K, in place; returns them."""

    def normalise(part: slice) -> None:
        joint[part] -= logsumexp(joint[part], axis=1, keepdims=True)

    list(for_parts(normalise, len(joint)))
    return joint


def bound(joint: np.ndarray, log_responsibilities: np.ndarray) -> float:
    """Mean over rows of sum_k r_nk (log p(x_n, k) - log r_nk), in nats: joint, log r (N, K)."""
    r = np.exp(log_responsibilities)
    gap = np.subtract(joint, log_responsibilities, where=r > 0, out=np.zeros_like(joint))
    return float((r * gap).sum(axis=1).mean())


def mean_bound(
    rows: Rows, believed: Rows, density: MixtureDensity, told: Categorical | None
) -> float:
    """The same of `rows` under a mixture, with the responsibilities it gives `believed`."""

    def task(part: slice) -> float:
        prior = log_class_prior(np.log(density.weights), told, part)
        joint = rows.log_gaussians(density, part) + prior  # (n, K)
        known = joint if believed is rows else believed.log_gaussians(density, part) + prior
        log_r = known - logsumexp(known, axis=1, keepdims=True)
        return len(joint) * bound(joint, log_r)

    return sum(for_parts(task, len(rows))) / len(rows)


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
