"""Learning Gaussian components: MAP update, prior, draws from the posterior.

The components' prior is normal-inverse-Wishart, mu | Sigma ~ N(m0, Sigma / kappa), Sigma ~ IW(S0,
nu) (Murphy, 2007, "Conjugate Bayesian analysis of the Gaussian distribution", section 9; the joint
mode is section 9.5's), restricted to the matrices a covariance type allows; the weights' prior is a
symmetric Dirichlet. Maximum likelihood is the same update with no prior and `reg_covar` on the
diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import invgamma, invwishart

from ...density import DIAGONAL_TYPES, MixtureDensity
from .statistics import Statistics

TINY = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Prior:
    """Hyperparameters m0 (D,), kappa, nu and S0 (D, D), and the weights' Dirichlet's a."""

    mean: np.ndarray
    kappa: float
    nu: float
    scale: np.ndarray
    concentration: float


def _outer(rows: np.ndarray, diagonal: bool) -> np.ndarray:
    return rows**2 if diagonal else rows[:, :, None] * rows[:, None]


def _scatters(statistics: Statistics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (K,), weighted means (K, D), scatters about them, (K, D, D) or diagonals (K, D)."""
    counts, second = statistics.counts + TINY, statistics.second
    means = statistics.first / counts[:, None]
    weight = counts.reshape(-1, *[1] * (second.ndim - 1))
    scatters = second - weight * _outer(means, statistics.diagonal)
    return counts, means + statistics.centre, scatters


def maximise(
    statistics: Statistics, covariance_type: str, prior: Prior | None, reg_covar: float
) -> MixtureDensity:
    """The M-step: the parameters' mode under the prior, or maximum likelihood without one.

    With N_k, xbar_k, S_k the responsibilities' counts, weighted means and scatters,
    ``mu_k = (kappa m0 + N_k xbar_k) / (kappa + N_k)`` and ``Sigma_k = (S0 + S_k + kappa N_k /
    (kappa + N_k) (xbar_k - m0)(xbar_k - m0)^T) / (nu + N_k + D + 2)``, and
    ``pi_k = (N_k + a - 1) / (N + K (a - 1))``.
    """
    diagonal = statistics.diagonal
    counts, means, scatters = _scatters(statistics)
    if prior is None:
        weights = counts / counts.sum()
        covariances = _pool(scatters, counts, 0.0, 0.0, covariance_type)
        covariances = _add_to_diagonal(covariances, reg_covar, covariance_type)
        return _revive(MixtureDensity(weights, means, covariances, covariance_type), statistics)
    weights = counts + prior.concentration - 1
    weights /= weights.sum()
    means, scatters = _posterior(counts, means, scatters, prior, diagonal)
    k, d = means.shape
    extra = prior.nu + d + (1 + k if covariance_type == "tied" else 2)
    covariances = _pool(scatters, counts, _scale(prior, diagonal), extra, covariance_type)
    return MixtureDensity(weights, means, covariances, covariance_type)


def _scale(prior: Prior, diagonal: bool) -> np.ndarray:
    return np.diag(prior.scale) if diagonal else prior.scale


def _posterior(counts, means, scatters, prior, diagonal) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means m_k and scatters S_k + kappa N_k / (kappa + N_k) (xbar - m0)(xbar - m0)^T."""
    total = prior.kappa + counts
    shrink = (prior.kappa * counts / total).reshape(-1, *[1] * (scatters.ndim - 1))
    scatters = scatters + shrink * _outer(means - prior.mean, diagonal)
    return (prior.kappa * prior.mean + counts[:, None] * means) / total[:, None], scatters


def _pool(scatters, counts, scale, extra, covariance_type) -> np.ndarray:
    """(scale + scatter) / (count + extra) in the shape of the covariance type."""
    if covariance_type == "tied":
        return (scale + scatters.sum(axis=0)) / (counts.sum() + extra)
    divisor = (counts + extra).reshape(-1, *[1] * (scatters.ndim - 1))
    covariances = (scale + scatters) / divisor
    return covariances.mean(axis=1) if covariance_type == "spherical" else covariances


def _add_to_diagonal(covariances: np.ndarray, value: float, covariance_type: str) -> np.ndarray:
    if covariance_type in DIAGONAL_TYPES:
        return covariances + value
    return covariances + value * np.eye(covariances.shape[-1])


def _revive(parameters: MixtureDensity, statistics: Statistics) -> MixtureDensity:
    """Without a prior, give components that lost all their rows the data's own Gaussian."""
    counts = statistics.counts
    empty = counts < 1e-8 * counts.sum()
    if not empty.any() or parameters.covariance_type == "tied":
        return parameters
    mean = statistics.first.sum(axis=0) / counts.sum()
    second = statistics.second.sum(axis=0) / counts.sum()
    squares = second if statistics.diagonal else np.diagonal(second)
    variances = squares - mean**2 + parameters.covariances.min()
    wide = {"full": np.diag(variances), "diag": variances, "spherical": variances.mean()}
    means, covariances = parameters.means.copy(), parameters.covariances.copy()
    means[empty] = mean + statistics.centre
    covariances[empty] = wide[parameters.covariance_type]
    return replace(parameters, means=means, covariances=covariances)


def log_prior(parameters: MixtureDensity, prior: Prior | None) -> float:
    """Log of the prior's density at the parameters, up to a constant; 0 without a prior."""
    if prior is None:
        return 0.0
    white, log_det = parameters.whitening
    k, d = parameters.means.shape
    offsets = parameters.means - prior.mean
    dirichlet = (prior.concentration - 1) * np.log(parameters.weights).sum()
    if white.ndim == 2:
        scaled = np.diag(prior.scale) * white**2
        distances = ((offsets * white) ** 2).sum(axis=1)
    else:
        scaled = prior.scale * (white @ np.swapaxes(white, 1, 2))
        distances = ((offsets[:, None] @ white) ** 2).sum(axis=(1, 2))
    traces = scaled.reshape(k, -1).sum(axis=1)
    if parameters.covariance_type == "tied":  # one matrix, so one inverse-Wishart term
        matrix = -0.5 * ((prior.nu + d + 1) * log_det[0] + traces[0])
        return float(dirichlet + matrix - 0.5 * (log_det + prior.kappa * distances).sum())
    terms = (prior.nu + d + 2) * log_det + traces + prior.kappa * distances
    return float(dirichlet - 0.5 * terms.sum())


def draw(
    statistics: Statistics, covariance_type: str, prior: Prior, rng: np.random.Generator
) -> MixtureDensity:
    """Parameters drawn from their posterior given the statistics of assignments: a Gibbs step."""
    diagonal = statistics.diagonal
    counts, means, scatters = _scatters(statistics)
    means, scatters = _posterior(counts, means, scatters, prior, diagonal)
    scale, d = _scale(prior, diagonal), means.shape[1]
    nu = prior.nu + counts
    if covariance_type == "tied":
        pooled = scale + scatters.sum(axis=0)
        covariances = _draw_wishart(prior.nu + counts.sum(), pooled, rng)
    elif covariance_type == "full":
        drawn = [_draw_wishart(n, scale + s, rng) for n, s in zip(nu, scatters, strict=True)]
        covariances = np.stack(drawn)
    elif covariance_type == "diag":
        shape = np.broadcast_to((nu[:, None] + d - 1) / 2, scatters.shape)
        covariances = invgamma.rvs(shape, scale=(scale + scatters) / 2, random_state=rng)
    else:
        shape = d * (nu + d + 1) / 2 - 1
        covariances = invgamma.rvs(
            shape, scale=(scale + scatters).sum(axis=1) / 2, random_state=rng
        )
    weights = rng.dirichlet(prior.concentration + counts) + TINY
    drawn = MixtureDensity(weights / weights.sum(), means, covariances, covariance_type)
    lower = np.linalg.cholesky(drawn.full_covariances())  # (K, D, D)
    noise = (lower @ rng.standard_normal((*means.shape, 1)))[..., 0]
    return replace(drawn, means=means + noise / np.sqrt(prior.kappa + counts)[:, None])


def _draw_wishart(nu: float, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.reshape(invwishart.rvs(nu, scale, random_state=rng), scale.shape)
