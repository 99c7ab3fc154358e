"""Gaussian mixtures on rows of which some columns were not seen, on arrays.

A row counts by the density of the columns it has; in the M-step the others are filled in by their
conditional moments, so that EM's bound never falls (Ghahramani and Jordan, 1994, "Supervised
learning from incomplete data via an EM approach").
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..density import MixtureDensity, log_gaussians


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
