"""Features of rows in which Gaussians' log densities are linear, and their coefficients.

The features of a row x are x_i x_j for i <= j, x_i, and 1; diagonal types need only x_i^2 of the
first. So the log densities of a block of rows are one matrix product.
"""

from __future__ import annotations

import numpy as np

from ..density import MixtureDensity
from ._rows import Rows


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
