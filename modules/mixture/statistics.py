"""What a mixture makes of rows: the E-step's sums, and each row's class probabilities.

For a tile of rows the E-step is two matrix products: coefficients times features give the log
densities, responsibilities times features the sufficient statistics. Nothing is kept of a tile but
its statistics, in float64, and these add up: over tiles, blocks, processes and batches. Sums are
taken in the same order for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.random import Generator
from scipy.special import logsumexp

from ... import arrays, processes
from ...density import DIAGONAL_TYPES, MixtureDensity
from ...messages import Categorical
from ..common.inputs import log_class_prior
from ..common.threads import for_blocks
from .rows import Rows, expected_moments

Responsibilities = Callable[[slice], np.ndarray]  # of some rows, (n, K)

_CACHE_VALUES = 2**17  # a tile stays in the processor's cache, if it can: ...
_TILE_ROWS, _TILE_VALUES = 64, 2**23  # ... of many columns some rows are taken at least
_KEPT_VALUES = 2**22  # 32 megabytes of features that all steps of a fit share
_NEXT_TO_NOTHING = 1e-290  # products with numbers close to underflow take many times as long
_PRECISE = 1e-9  # nats by which rounding may change a log density before features are given up


@dataclass(frozen=True)
class Statistics:
    """Sums over rows of their F features, each times its responsibilities and weight."""

    sums: np.ndarray  # (K, F), F = 1 + D + D (D + 1) / 2, or 1 + 2 D with only the squares
    log_likelihood: float  # sum over rows of w_n log p(x_n), in nats
    centre: np.ndarray  # (D,), subtracted from the rows: keeps differences of sums accurate
    covariance_type: str

    @classmethod
    def of_totals(cls, totals: np.ndarray, rows: Rows, covariance_type: str) -> Statistics:
        """From all processes' sums, with the log-likelihood behind them: (K F + 1,)."""
        width = n_features(rows.n_columns, covariance_type in DIAGONAL_TYPES)
        sums = totals[:-1].reshape(-1, width)
        return cls(sums, float(totals[-1]), rows.centre, covariance_type)

    @property
    def diagonal(self) -> bool:
        """Whether second moments are kept of the diagonal alone."""
        return self.covariance_type in DIAGONAL_TYPES

    @property
    def counts(self) -> np.ndarray:
        """Sum of each component's responsibilities, (K,)."""
        return self.sums[:, -1]

    @property
    def first(self) -> np.ndarray:
        """Sums of r x, (K, D)."""
        return self.sums[:, -1 - len(self.centre) : -1]

    @property
    def second(self) -> np.ndarray:
        """Sums of r x x^T, (K, D, D), or of r x^2, (K, D)."""
        d = len(self.centre)
        return unpacked(self.sums[:, : -1 - d], d, self.diagonal)


# -- statistics of rows ----------------------------------------------------------------------------


def softmax(joint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responsibilities (M, K, n), written over log joint densities, and log evidence (M, n)."""
    top = joint.max(axis=1)
    joint -= top[:, None]
    np.exp(joint, out=joint)
    joint *= joint > _NEXT_TO_NOTHING
    total = joint.sum(axis=1)
    joint /= total[:, None]
    return joint, np.log(total) + top


def drawn_classes(joint: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A class per row, drawn by its responsibilities (Gumbel-max): 0 or 1, (1, K, n); evidence."""
    noise = rng.gumbel(size=joint.shape[::-1])
    classes = (joint + noise.T).argmax(axis=1)  # (1, n)
    _, log_evidence = softmax(joint)
    numbers = np.arange(joint.shape[1])[:, None]
    return (numbers == classes[:, None]).astype(np.float64), log_evidence


def e_step(
    rows: Rows,
    densities: Sequence[MixtureDensity],
    from_children: Categorical | None = None,
    *,
    respond: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] = softmax,
    features: np.ndarray | None = None,
    totals_on_device: Callable[[Sequence[MixtureDensity]], np.ndarray] | None = None,
    n_threads: int | None = None,
) -> list[Statistics]:
    """The E-step: statistics of all processes' rows under their responsibilities P(k | row).

    Of M mixtures of equally many components at once, as products of larger matrices take less
    time. `respond` makes responsibilities (M, K, n) and log evidence (M, n) of log joint densities
    (M, K, n). `features` (F, N) are the rows' if they were kept. `totals_on_device` makes the sums
    (M, K F + 1) elsewhere, by `softmax`, of mixtures for which features are precise.
    """
    kind = densities[0].covariance_type
    shape = densities[0].n_components, n_features(rows.n_columns, kind in DIAGONAL_TYPES)
    if totals_on_device and all(is_precise(density, rows.reach) for density in densities):
        totals = totals_on_device(densities)
    else:
        if rows.observed is None:
            totals_of_block = _totals_of_complete(rows, densities, from_children, respond, features)
        else:
            totals_of_block = _totals_of_incomplete(rows, densities, from_children)
        start = np.zeros((len(densities), math.prod(shape) + 1))
        totals = sum(for_blocks(totals_of_block, len(rows), n_threads), start)
    every = processes.total(totals)
    return [Statistics.of_totals(of_mixture, rows, kind) for of_mixture in every]


def _totals_of_complete(
    rows: Rows,
    densities: Sequence[MixtureDensity],
    from_children: Categorical | None,
    respond: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    kept: np.ndarray | None,
) -> Callable[[slice], np.ndarray]:
    """What a block of rows adds to the statistics of each mixture, (M, K F + 1)."""
    coefficients = np.stack([coefficients_of(d, rows.centre) for d in densities])  # (M, K, F)
    kind, weights = densities[0].covariance_type, rows.weights
    log_weights = [*map(log_weights_of, densities)]  # (K,) each
    n_mixtures, k, f = coefficients.shape
    flat = coefficients.reshape(-1, f)  # (M K, F)
    imprecise = [m for m, density in enumerate(densities) if not is_precise(density, rows.reach)]

    def totals_of_block(block: slice) -> np.ndarray:
        sums, log_likelihood = np.zeros(flat.shape), np.zeros(n_mixtures)
        for tile in tiles(block, sum(flat.shape)):
            features = _features_of_tile(rows, tile, kind, kept)  # (F, n)
            joint = (flat @ features).reshape(n_mixtures, k, -1)
            for m in imprecise:
                joint[m] = rows[tile].log_gaussians(densities[m]).T
            for of_mixture, own in zip(joint, log_weights, strict=True):
                of_mixture += log_class_prior(own, from_children, tile).T
            r, log_evidence = respond(joint)
            r *= weights[tile]
            sums += r.reshape(len(flat), -1) @ features.T
            log_likelihood += log_evidence @ weights[tile]
            del features, joint, r  # their memory, still in cache, serves the next tile
        return np.concatenate([sums.reshape(n_mixtures, -1), log_likelihood[:, None]], axis=1)

    return totals_of_block


def _totals_of_incomplete(
    rows: Rows, densities: Sequence[MixtureDensity], from_children: Categorical | None
) -> Callable[[slice], np.ndarray]:
    """The same of rows that miss columns, whose moments are expected under each component."""
    diagonal, centre = densities[0].covariance_type in DIAGONAL_TYPES, rows.centre

    def totals_of_mixture(density: MixtureDensity, block: slice) -> np.ndarray:
        shifted = replace(density, means=density.means - centre, checked=False)
        some, weights = replace(rows[block], x=rows.x[block] - centre), rows.weights[block]
        joint = some.log_gaussians(shifted).T.copy()  # (K, n)
        joint += log_class_prior(log_weights_of(density), from_children, block).T
        (r,), (log_evidence,) = softmax(joint[None])
        r = r * weights
        first, second = expected_moments(some, r.T, shifted)
        moments = packed(second, diagonal), first, r.sum(axis=1, keepdims=True)
        return np.append(np.concatenate(moments, axis=1), weights @ log_evidence)

    return lambda block: np.stack([totals_of_mixture(d, block) for d in densities])


def gibbs_step(
    rows: Rows, density: MixtureDensity, from_children: Categorical | None, rng: Generator
) -> Statistics:
    """Statistics of all processes' rows under one class each, drawn from its responsibilities."""
    respond = partial(drawn_classes, rng=rng)
    return e_step(rows, [density], from_children, respond=respond, n_threads=1)[0]


def statistics_of(
    rows: Rows,
    responsibilities: Responsibilities,
    n_components: int,
    covariance_type: str,
    features: np.ndarray | None = None,
) -> Statistics:
    """Statistics of all processes' rows under given responsibilities.

    Missing values are taken as they stand in x, as there is no density yet to fill them by.
    `features` (F, N) are the rows' if they were kept.
    """
    shape = n_components, n_features(rows.n_columns, covariance_type in DIAGONAL_TYPES)
    weights, _ = rows.weights, rows.centre  # made here, as all processes make the centre

    def totals_of_block(block: slice) -> np.ndarray:
        sums = np.zeros(shape)
        for tile in tiles(block, sum(shape)):
            r = responsibilities(tile).T * weights[tile]  # (K, n)
            sums += r @ _features_of_tile(rows, tile, covariance_type, features).T
        return np.append(sums, 0.0)

    totals = sum(for_blocks(totals_of_block, len(rows)), np.zeros(math.prod(shape) + 1))
    return Statistics.of_totals(processes.total(totals), rows, covariance_type)


def tiles(block: slice, width: int) -> Iterator[slice]:
    """Consecutive slices of a block, of so many rows that `width` numbers each stay in cache."""
    n_rows = max(_CACHE_VALUES // width, min(_TILE_ROWS, _TILE_VALUES // width), 1)
    for start in range(block.start, block.stop, n_rows):
        yield slice(start, min(start + n_rows, block.stop))


# -- features --------------------------------------------------------------------------------------


def n_features(d: int, diagonal: bool) -> int:
    """Number of features F of rows with D columns."""
    return 1 + d + (d if diagonal else d * (d + 1) // 2)


def features_of(rows: Rows, centre: np.ndarray, covariance_type: str) -> np.ndarray:
    """Products x_i x_j (or squares), x and 1 of rows about a centre, (F, n).

    Squares are expected ones under the rows' variances.
    """
    x, diagonal = rows.x.T - centre[:, None], covariance_type in DIAGONAL_TYPES  # (D, n)
    d, n = x.shape
    features = np.empty((n_features(d, diagonal), n))
    features[-1 - d : -1], features[-1] = x, 1
    squares: slice | np.ndarray
    if diagonal:
        np.square(x, out=features[:d])
        squares = slice(0, d)
    else:
        offset, squares = 0, _diagonal_places(d)
        for i in range(d):
            np.multiply(x[i], x[i:], out=features[offset : offset + d - i])
            offset += d - i
    if rows.variances is not None:
        features[squares] += rows.variances.T
    return features


def kept_features(rows: Rows, covariance_type: str) -> np.ndarray | None:
    """Features of all rows, (F, N), or None where they are many or a row misses columns."""
    n = n_features(rows.n_columns, covariance_type in DIAGONAL_TYPES)
    if rows.observed is not None or n * len(rows) > _KEPT_VALUES:
        return None
    return features_of(rows, rows.centre, covariance_type)


def _features_of_tile(
    rows: Rows, tile: slice, covariance_type: str, kept: np.ndarray | None
) -> np.ndarray:
    if kept is not None:
        return kept[:, tile]
    return features_of(rows[tile], rows.centre, covariance_type)


def coefficients_of(density: MixtureDensity, centre: np.ndarray) -> np.ndarray:
    """What log N(x; mu_k, Sigma_k) takes of each feature of x about a centre (D,): (K, F)."""
    precisions, (_, log_det), d = density.precisions, density.whitening, density.n_dims
    means = density.means - centre
    if precisions.ndim == 2:
        pulls = precisions * means  # (K, D)
        quadratic = -0.5 * precisions
    else:
        pulls = (precisions @ means[..., None])[..., 0]
        quadratic = packed(-precisions, diagonal=False)
        quadratic[:, _diagonal_places(d)] *= 0.5
    constant = (means * pulls).sum(axis=1) + log_det + d * np.log(2 * np.pi)
    return np.concatenate([quadratic, pulls, -0.5 * constant[:, None]], axis=1)


def is_precise(density: MixtureDensity, reach: np.ndarray) -> bool:
    """Whether log densities from features are right to a billionth of a nat.

    `reach` (D,) is how far rows get from the centre. Rounding errors grow with its square in
    standard deviations of the narrowest component.
    """
    white, _ = density.whitening
    stretched = white * (reach if white.ndim == 2 else reach[:, None])
    largest = (stretched.reshape(len(white), -1) ** 2).sum(axis=1).max()
    return bool(np.finfo(np.float64).eps * largest < _PRECISE)


def packed(second: np.ndarray, diagonal: bool) -> np.ndarray:
    """Symmetric matrices (K, D, D) as their upper triangles, or their diagonals: (K, .)."""
    if diagonal:
        return np.diagonal(second, axis1=1, axis2=2)
    i, j = _upper_triangle(second.shape[-1])
    return second[:, i, j]


def unpacked(values: np.ndarray, d: int, diagonal: bool) -> np.ndarray:
    """Symmetric matrices (K, D, D) of what `packed` gave; diagonals stay what they are, (K, D)."""
    if diagonal:
        return values
    i, j = _upper_triangle(d)
    second = np.empty((len(values), d, d))
    second[:, i, j] = second[:, j, i] = values
    return second


@cache
def _upper_triangle(d: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(d)


@cache
def _diagonal_places(d: int) -> np.ndarray:
    """Where x_i^2 stands among x_i x_j, i <= j, in rows of ascending i."""
    return np.cumsum([0, *range(d, 1, -1)])


# -- class probabilities of rows -------------------------------------------------------------------


def log_likelihoods(rows: Rows, density: MixtureDensity) -> np.ndarray:
    """Log N(x_n; mu_k, Sigma_k) of what is observed, (N, K), in nats.

    From whitened rows, not from features: slower, and exact however narrow a component is.
    """
    result = arrays.empty((len(rows), density.n_components), np.float64, rows.x)

    def fill(block: slice) -> None:
        result[block] = rows[block].log_gaussians(density)

    list(for_blocks(fill, len(rows)))
    return result


def log_posterior(
    log_likelihood: np.ndarray,
    log_weights: np.ndarray,
    from_children: Categorical | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bayes' rule: log P(k | row), (N, K), and log p(row), (N,), of log p(row | k), (N, K).

    `out` is where log P(k | row) is written to; it may be `log_likelihood` itself.
    """
    shape = log_likelihood.shape
    log_prob = arrays.empty(shape, np.float64, log_likelihood) if out is None else out
    log_evidence = arrays.empty(shape[:1], np.float64, log_likelihood)

    def fill(block: slice) -> None:
        joint = log_likelihood[block] + log_class_prior(log_weights, from_children, block)  # (n, K)
        log_evidence[block] = logsumexp(joint, axis=1)
        np.subtract(joint, log_evidence[block, None], out=log_prob[block])

    list(for_blocks(fill, len(log_prob)))
    return log_prob, log_evidence


def log_weights_of(density: MixtureDensity) -> np.ndarray:
    """Log pi_k, (K,); -inf of a component that has no weight."""
    with np.errstate(divide="ignore"):
        return np.log(density.weights)


def responsibilities_of(
    rows: Rows, density: MixtureDensity, from_children: Categorical | None
) -> np.ndarray:
    """P(k | row) by a mixture and what the children say, (N, K)."""
    joint = log_likelihoods(rows, density)
    log_prob, _ = log_posterior(joint, log_weights_of(density), from_children, out=joint)
    return np.exp(log_prob, out=log_prob)


def mean_half_trace(rows: Rows, density: MixtureDensity, log_prob: np.ndarray) -> float:
    """By how much the rows' variances lower their mean expected log density, in nats per row.

    ``mean_n sum_k r_nk tr(Sigma_k^-1 diag(variances_n)) / 2`` with log r (N, K).
    """
    if rows.variances is None:
        return 0.0

    def total_of_block(block: slice) -> float:
        return float((np.exp(log_prob[block]) * rows[block].half_traces(density)).sum())

    return sum(for_blocks(total_of_block, len(rows))) / len(rows)
