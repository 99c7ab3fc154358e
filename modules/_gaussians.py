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

from ..density import DIAGONAL_TYPES, MixtureDensity, chunks
from ._missing import expected_moments, log_gaussians_of_seen

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


@dataclass(frozen=True)
class Rows:
    """Rows to fit: x (N, D), their variances (N, D) where the sender is unsure, or None.

    With variances every sufficient statistic is an expectation over N(x_n, diag(variances_n)).
    `seen` (N, D) is false where a value is missing, None where none is; x holds the column's mean
    there, and variances 0.
    """

    x: np.ndarray
    variances: np.ndarray | None = None
    seen: np.ndarray | None = None

    def any_seen(self) -> np.ndarray | bool:
        """Rows of which anything was seen, (N,); True if all was of all."""
        return True if self.seen is None else self.seen.any(axis=1)

    def log_gaussians(self, density: MixtureDensity) -> np.ndarray:
        """Log density of what was seen of each row under each component, (N, K)."""
        return log_gaussians_of_seen(self.x, density, self.variances, self.seen)


def _statistics(
    rows: Rows, responsibilities: np.ndarray, diagonal: bool, density: MixtureDensity | None = None
) -> tuple:
    """Counts (K,), weighted means (K, D), scatters about them, (K, D, D) or diagonals (K, D).

    Values that were not seen are expected under `density`; without one x is taken as it is.
    """
    centre = rows.x.mean(axis=0)  # keeps the subtraction below accurate, far from the origin too
    x = rows.x - centre
    counts = responsibilities.sum(axis=0) + TINY
    if rows.seen is None or density is None:
        first = responsibilities.T @ x
        second = _second_moments(x, responsibilities, diagonal)
        if rows.variances is not None:
            unsure = responsibilities.T @ rows.variances  # (K, D)
            second += unsure if diagonal else unsure[:, :, None] * np.eye(x.shape[1])
    else:
        shifted = replace(density, means=density.means - centre)
        first, second = expected_moments(x, responsibilities, shifted, rows.variances, rows.seen)
        second = np.diagonal(second, axis1=1, axis2=2) if diagonal else second
    means = first / counts[:, None]
    weight = counts.reshape(-1, *[1] * (second.ndim - 1))
    return counts, means + centre, second - weight * _outer(means, diagonal)


def _second_moments(x: np.ndarray, responsibilities: np.ndarray, diagonal: bool) -> np.ndarray:
    """sum_n r_nk x_n x_n^T, (K, D, D), or its diagonals (K, D)."""
    if diagonal:
        return responsibilities.T @ x**2
    (n, d), k = x.shape, responsibilities.shape[1]
    total = np.zeros((k * d, d))
    for part in chunks(n, k * d):
        weights, columns = np.ascontiguousarray(responsibilities[part].T), x[part].T.copy()
        weighted = weights[:, None] * columns  # (K, D, n)
        total += weighted.reshape(k * d, -1) @ x[part]
    return total.reshape(k, d, d)


def maximise(
    rows: Rows,
    responsibilities: np.ndarray,
    covariance_type: str,
    prior: Prior | None,
    reg_covar: float,
    density: MixtureDensity | None = None,
) -> MixtureDensity:
    """The M-step: the parameters' mode under the prior, or maximum likelihood without one.

    With N_k, xbar_k, S_k the responsibilities' counts, weighted means and scatters,
    ``mu_k = (kappa m0 + N_k xbar_k) / (kappa + N_k)`` and ``Sigma_k = (S0 + S_k + kappa N_k /
    (kappa + N_k) (xbar_k - m0)(xbar_k - m0)^T) / (nu + N_k + D + 2)``, and
    ``pi_k = (N_k + a - 1) / (N + K (a - 1))``. Values that were not seen are expected under the
    present `density`.
    """
    diagonal = covariance_type in DIAGONAL_TYPES
    counts, means, scatters = _statistics(rows, responsibilities, diagonal, density)
    if prior is None:
        weights = counts / counts.sum()
        covariances = _pool(scatters, counts, 0.0, 0.0, covariance_type)
        covariances = _add_to_diagonal(covariances, reg_covar, covariance_type)
        return _revive(rows.x, MixtureDensity(weights, means, covariances, covariance_type), counts)
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


def _revive(x: np.ndarray, parameters: MixtureDensity, counts: np.ndarray) -> MixtureDensity:
    """Without a prior, give components that lost all their rows the data's own Gaussian."""
    empty = counts < 1e-8 * counts.sum()
    if not empty.any() or parameters.covariance_type == "tied":
        return parameters
    variances = x.var(axis=0) + parameters.covariances.min()
    wide = {"full": np.diag(variances), "diag": variances, "spherical": variances.mean()}
    means, covariances = parameters.means.copy(), parameters.covariances.copy()
    means[empty], covariances[empty] = x.mean(axis=0), wide[parameters.covariance_type]
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
    rows: Rows,
    responsibilities: np.ndarray,
    covariance_type: str,
    prior: Prior,
    rng: np.random.Generator,
) -> MixtureDensity:
    """MixtureDensity drawn from their posterior given (one-hot) responsibilities: a Gibbs step."""
    diagonal = covariance_type in DIAGONAL_TYPES
    counts, means, scatters = _statistics(rows, responsibilities, diagonal)
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
