"""Learning Gaussian components from statistics: the M-step, the prior, draws of the posterior.

The components' prior is normal-inverse-Wishart, mu | Sigma ~ N(m0, Sigma / kappa), Sigma ~ IW(S0,
nu) (Murphy, 2007, "Conjugate Bayesian analysis of the Gaussian distribution", section 9; the joint
mode is section 9.5's), restricted to the matrices a covariance type allows; the weights' prior is a
symmetric Dirichlet. Maximum likelihood is the same update with no prior and `reg_covar` on the
diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import xlogy
from scipy.stats import invgamma, invwishart

from ...density import MixtureDensity
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

    def scale_of(self, statistics: Statistics) -> np.ndarray:
        """S0, (D, D), or its diagonal where the statistics are of diagonals, (D,)."""
        return np.diag(self.scale) if statistics.diagonal else self.scale


def m_step(statistics: Statistics, prior: Prior | None, reg_covar: float) -> MixtureDensity:
    """The M-step: the parameters' mode under the prior, or maximum likelihood without one.

    With N_k, xbar_k, S_k the responsibilities' counts, weighted means and scatters,
    ``mu_k = (kappa m0 + N_k xbar_k) / (kappa + N_k)`` and ``Sigma_k = (S0 + S_k + kappa N_k /
    (kappa + N_k) (xbar_k - m0)(xbar_k - m0)^T) / (nu + N_k + D + 2)``, and
    ``pi_k = (N_k + a - 1) / (N + K (a - 1))``.
    """
    counts, means, scatters = _scatters(statistics)
    kind = statistics.covariance_type
    if prior is None:
        weights = counts / counts.sum()
        covariances = _pooled(scatters, counts, 0.0, 0.0, kind)
        ridge = reg_covar if statistics.diagonal else reg_covar * np.eye(means.shape[1])
        density = MixtureDensity(weights, means, covariances + ridge, kind, checked=False)
        return _revived(density, statistics)
    weights = counts + prior.concentration - 1
    weights /= weights.sum()
    means, scatters = _drawn_to(prior, counts, means, scatters, statistics.diagonal)
    k, d = means.shape
    extra = prior.nu + d + (1 + k if kind == "tied" else 2)
    covariances = _pooled(scatters, counts, prior.scale_of(statistics), extra, kind)
    return MixtureDensity(weights, means, covariances, kind, checked=False)


def _scatters(statistics: Statistics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (K,), weighted means (K, D), scatters about them, (K, D, D) or diagonals (K, D)."""
    counts, second = statistics.counts + TINY, statistics.second
    means = statistics.first / counts[:, None]
    scatters = second - _along(second, counts) * _outer(means, statistics.diagonal)
    return counts, means + statistics.centre, scatters


def _drawn_to(
    prior: Prior, counts: np.ndarray, means: np.ndarray, scatters: np.ndarray, diagonal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means m_k and scatters S_k + kappa N_k / (kappa + N_k) (xbar - m0)(xbar - m0)^T."""
    total = prior.kappa + counts
    shrinkage = _along(scatters, prior.kappa * counts / total)
    scatters = scatters + shrinkage * _outer(means - prior.mean, diagonal)
    return (prior.kappa * prior.mean + counts[:, None] * means) / total[:, None], scatters


def _pooled(
    scatters: np.ndarray, counts: np.ndarray, scale: np.ndarray | float, extra: float, kind: str
) -> np.ndarray:
    """(scale + scatter) / (count + extra) in the shape of the covariance type."""
    if kind == "tied":
        return (scale + scatters.sum(axis=0)) / (counts.sum() + extra)
    covariances = (scale + scatters) / _along(scatters, counts + extra)
    return covariances.mean(axis=1) if kind == "spherical" else covariances


def _outer(rows: np.ndarray, diagonal: bool) -> np.ndarray:
    return rows**2 if diagonal else rows[:, :, None] * rows[:, None]


def _along(scatters: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A value for each component, (K,), in a shape that multiplies its scatter."""
    return values.reshape(-1, *[1] * (scatters.ndim - 1))


def _revived(density: MixtureDensity, statistics: Statistics) -> MixtureDensity:
    """Without a prior, give components that lost all their rows the data's own Gaussian."""
    counts = statistics.counts
    empty = counts < 1e-8 * counts.sum()
    if not empty.any() or density.covariance_type == "tied":
        return density
    mean = statistics.first.sum(axis=0) / counts.sum()
    second = statistics.second.sum(axis=0) / counts.sum()
    squares = second if statistics.diagonal else np.diagonal(second)
    variances = squares - mean**2 + density.covariances.min()
    wide = {"full": np.diag(variances), "diag": variances, "spherical": variances.mean()}
    means, covariances = density.means.copy(), density.covariances.copy()
    means[empty] = mean + statistics.centre
    covariances[empty] = wide[density.covariance_type]
    return replace(density, means=means, covariances=covariances, checked=False)


def log_prior(density: MixtureDensity, prior: Prior | None) -> float:
    """Log of the prior's density at the parameters, up to a constant; 0 without a prior."""
    if prior is None:
        return 0.0
    (white, log_det), (k, d) = density.whitening, density.means.shape
    offsets = density.means - prior.mean
    dirichlet = xlogy(prior.concentration - 1, density.weights).sum()
    if white.ndim == 2:
        scale, distances = np.diag(prior.scale), ((offsets * white) ** 2).sum(axis=1)
    else:
        scale, distances = prior.scale, ((offsets[:, None] @ white) ** 2).sum(axis=(1, 2))
    traces = (scale * density.precisions).reshape(k, -1).sum(axis=1)
    if density.covariance_type == "tied":  # one matrix, so one inverse-Wishart term
        matrix = -0.5 * ((prior.nu + d + 1) * log_det[0] + traces[0])
        return float(dirichlet + matrix - 0.5 * (log_det + prior.kappa * distances).sum())
    terms = (prior.nu + d + 2) * log_det + traces + prior.kappa * distances
    return float(dirichlet - 0.5 * terms.sum())


def drawn_density(statistics: Statistics, prior: Prior, rng: np.random.Generator) -> MixtureDensity:
    """Parameters drawn from their posterior, given the statistics of assigned rows."""
    kind = statistics.covariance_type
    counts, means, scatters = _scatters(statistics)
    means, scatters = _drawn_to(prior, counts, means, scatters, statistics.diagonal)
    scale, nu, d = prior.scale_of(statistics), prior.nu + counts, means.shape[1]
    if kind == "tied":
        pooled = scale + scatters.sum(axis=0)
        covariances = _drawn_matrix(prior.nu + counts.sum(), pooled, rng)
    elif kind == "full":
        pairs = zip(nu, scatters, strict=True)
        covariances = np.stack([_drawn_matrix(n, scale + s, rng) for n, s in pairs])
    elif kind == "diag":
        shape = np.broadcast_to((nu[:, None] + d - 1) / 2, scatters.shape)
        covariances = invgamma.rvs(shape, scale=(scale + scatters) / 2, random_state=rng)
    else:
        shape, sums = d * (nu + d + 1) / 2 - 1, (scale + scatters).sum(axis=1)
        covariances = invgamma.rvs(shape, scale=sums / 2, random_state=rng)
    weights = rng.dirichlet(prior.concentration + counts) + TINY
    density = MixtureDensity(weights / weights.sum(), means, covariances, kind, checked=False)
    lower = np.linalg.cholesky(density.full_covariances())  # (K, D, D)
    noise = (lower @ rng.standard_normal((*means.shape, 1)))[..., 0]
    means = means + noise / np.sqrt(prior.kappa + counts)[:, None]
    return replace(density, means=means, checked=False)


def _drawn_matrix(nu: float, scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A covariance matrix of IW(scale, nu)."""
    return np.reshape(invwishart.rvs(nu, scale, random_state=rng), scale.shape)
