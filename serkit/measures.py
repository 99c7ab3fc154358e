"""How uncertain one mixture is and how unlike two are, in nats: estimates by sampling, and bounds.

Entropies and divergences of Gaussian mixtures have no closed form. Sampling gives them to any
precision and says how large its error is; the bounds always hold, and cost little where mixtures
have few components (D^3 for every pair of them). Mixtures of different dimensions, or fewer than
two draws, raise InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .density import DIAGONAL_TYPES, MixtureDensity, combine, log_gaussians
from .errors import InputError
from .options import (
    Count,
    Function,
    Kind,
    RandomState,
    Several,
    called,
    check_argument,
    generator_of,
)


class Estimate(NamedTuple):
    """A Monte-Carlo mean and its standard error, in nats.

    Examples
    --------
    >>> import math
    >>> from serkit import MixtureDensity, measures
    >>> normal, wide = (MixtureDensity([1.0], [[0.0]], [v], "spherical") for v in (1.0, 4.0))
    >>> estimate = measures.kl(normal, wide)
    >>> abs(estimate.value - (math.log(2) - 3 / 8)) < 4 * estimate.standard_error
    True
    """

    value: float
    standard_error: float


def entropy(
    density: MixtureDensity, *, n_samples: int = 10_000, random_state: RandomState = 0
) -> Estimate:
    """Differential entropy ``-E_p[log p]``, which may be negative.

    Parameters
    ----------
    density : MixtureDensity
    n_samples : int
        Number of draws, at least 2.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        The same seed gives the same estimate.
    """
    rows = _draws("measures.entropy", density, n_samples, random_state)
    return _estimate(-density.log_prob(rows))


def kl(
    p: MixtureDensity, q: MixtureDensity, *, n_samples: int = 10_000, random_state: RandomState = 0
) -> Estimate:
    """Kullback-Leibler divergence ``KL(p || q) = E_p[log p - log q]``.

    At least 0; an estimate may be lower by its error.

    Parameters
    ----------
    p, q : MixtureDensity
    n_samples, random_state
        Of the draws from p; see `entropy`.
    """
    _check_same_space(p, q)
    rows = _draws("measures.kl", p, n_samples, random_state)
    return _estimate(p.log_prob(rows) - q.log_prob(rows))


def jensen_shannon(
    p: MixtureDensity, q: MixtureDensity, *, n_samples: int = 10_000, random_state: RandomState = 0
) -> Estimate:
    """Jensen-Shannon divergence ``(KL(p || m) + KL(q || m)) / 2`` with ``m = (p + q) / 2``.

    Symmetric, 0 for equal mixtures and log 2 for ones that share no ground (Lin, 1991); an
    estimate may leave this range by its error.

    Parameters
    ----------
    p, q : MixtureDensity
    n_samples, random_state
        Of the draws from each of the two; see `entropy`.
    """
    _check_same_space(p, q)
    rng = generator_of("measures.jensen_shannon", random_state)
    estimates = []
    for density, other in ((p, q), (q, p)):
        rows = _draws("measures.jensen_shannon", density, n_samples, rng)
        log_prob = density.log_prob(rows)
        log_sum = np.logaddexp(log_prob, other.log_prob(rows))
        estimates.append(_estimate(log_prob - log_sum + np.log(2)))
    values, errors = zip(*estimates, strict=True)
    return Estimate(sum(values) / 2, float(np.hypot(*errors)) / 2)


def pairwise(
    densities: Sequence[MixtureDensity],
    measure: Callable[[MixtureDensity, MixtureDensity], Estimate],
) -> np.ndarray:
    """``measure(p, q).value`` of every ordered pair, 0 on the diagonal.

    Parameters
    ----------
    densities : sequence of C MixtureDensity
    measure : callable
        `kl` or `jensen_shannon`; `functools.partial` sets their options.

    Returns
    -------
    np.ndarray, shape (C, C)
        Rows are p, columns q.

    Examples
    --------
    >>> from serkit import MixtureDensity, measures
    >>> near, far = (MixtureDensity([1.0], [[m]], [1.0], "spherical") for m in (0.0, 100.0))
    >>> measures.pairwise([near, far], measures.jensen_shannon).round(3)  # log 2: no common ground
    array([[0.   , 0.693],
           [0.693, 0.   ]])
    """
    label = "measures.pairwise"
    check_argument(label, "densities", densities, Several(Kind(MixtureDensity)))
    check_argument(label, "measure", measure, Function(of=("p", "q")))
    values = np.zeros((len(densities), len(densities)))
    for i, j in permutations(range(len(densities)), 2):
        estimate = called(f"{label}: measure", measure, densities[i], densities[j])
        check_argument(label, "what measure returns", estimate, Kind(Estimate))
        values[i, j] = estimate.value
    return values


def _draws(
    label: str, density: MixtureDensity, n_samples: int, random_state: RandomState
) -> np.ndarray:
    """Rows of a mixture, (n_samples, D), of which a standard error needs two."""
    check_argument(label, "density", density, Kind(MixtureDensity))
    check_argument(label, "n_samples", n_samples, Count(at_least=2))
    return density.sample(n_samples, random_state)[0]


def _estimate(values: np.ndarray) -> Estimate:
    """The mean of independent values and its standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(float(values.mean()), float(error))


def _check_same_space(p: MixtureDensity, q: MixtureDensity) -> None:
    for name, density in {"p": p, "q": q}.items():
        check_argument("measures", name, density, Kind(MixtureDensity))
    if p.n_dims != q.n_dims:
        raise InputError(
            "expected two mixtures over the same space, got p of "
            f"{p.n_dims} dimensions and q of {q.n_dims}"
        )


def entropy_bounds(density: MixtureDensity) -> tuple[float, float]:
    """Lower and upper bound on the entropy; equal for a single Gaussian.

    The lower bound is the higher of ``-sum_a w_a log sum_b w_b N(mu_a; mu_b, S_a + S_b)``
    (Huber et al., 2008) and ``sum_a w_a (H_a - log sum_b w_b BC_ab)`` with the components'
    entropies H_a and Bhattacharyya coefficients BC_ab (Kolchinsky and Tracey, 2017, alpha = 0.5).
    The upper bound is the lower of ``sum_a w_a (H_a - log sum_b w_b exp(-KL_ab))`` (Kolchinsky
    and Tracey; never above the one of Huber et al., which keeps b = a only) and the entropy of
    the Gaussian with the mixture's covariance.

    Examples
    --------
    >>> from serkit import MixtureDensity, measures
    >>> humps = MixtureDensity([0.5, 0.5], [[0.0], [3.0]], [1.0, 1.0], "spherical")
    >>> lower, upper = measures.entropy_bounds(humps)
    >>> print(f"{lower:.3f} <= {measures.entropy(humps).value:.2f} <= {upper:.3f}")
    1.858 <= 1.94 <= 2.008

    References
    ----------
    M. F. Huber et al. (2008). On entropy approximation for Gaussian mixture random vectors. *MFI*.
    A. Kolchinsky, B. D. Tracey (2017). Estimating mixture entropy with pairwise distances.
    *Entropy* 19:361.
    """
    check_argument("measures.entropy_bounds", "density", density, Kind(MixtureDensity))
    _, log_det = density.whitening
    within = float(density.weights @ _gaussian_entropy(log_det, density.n_dims))
    apart = within - _mean_log_sum(density, density, _log_bhattacharyya(density))
    lower, upper = _cross_entropy_bounds(density, density)
    _, log_det_of_all = np.linalg.slogdet(density.covariance())
    widest = float(_gaussian_entropy(log_det_of_all, density.n_dims))
    return max(lower, apart), min(upper, widest)


def kl_bounds(p: MixtureDensity, q: MixtureDensity) -> tuple[float, float]:
    """Lower and upper bound on ``KL(p || q)``, at least 0; the upper is exact for two Gaussians.

    Bounds on ``E_p[log q]`` by Jensen's inequality from both sides, ``sum_a w_a log sum_b pi_b
    N(mu_a; mu_b, S_a + S_b)`` above and ``sum_a w_a (log sum_b pi_b exp(-KL_ab) - H_a)`` below
    (Hershey and Olsen, 2007; Durrieu et al., 2012), together with `entropy_bounds` of p. The
    convexity bound ``sum_ab w_a pi_b KL_ab`` is never below this upper bound.

    References
    ----------
    J. R. Hershey, P. A. Olsen (2007). Approximating the Kullback Leibler divergence between
    Gaussian mixture models. *ICASSP*.
    J.-L. Durrieu et al. (2012). Lower and upper bounds for approximation of the Kullback-Leibler
    divergence between Gaussian mixture models. *ICASSP*.
    """
    _check_same_space(p, q)
    lower, upper = _cross_entropy_bounds(p, q)
    lower_entropy, upper_entropy = entropy_bounds(p)
    return max(lower - upper_entropy, 0.0), max(upper - lower_entropy, 0.0)


def jensen_shannon_bounds(p: MixtureDensity, q: MixtureDensity) -> tuple[float, float]:
    """Lower and upper bound on the Jensen-Shannon divergence, in [0, log 2].

    ``H(m) - (H(p) + H(q)) / 2`` with ``m = (p + q) / 2``, from `entropy_bounds` of the three.
    """
    _check_same_space(p, q)
    lower, upper = entropy_bounds(combine([p, q], [0.5, 0.5]))
    lower_mean, upper_mean = np.mean([entropy_bounds(p), entropy_bounds(q)], axis=0)
    bounds = np.clip([lower - upper_mean, upper - lower_mean], 0, np.log(2))
    return float(bounds[0]), float(bounds[1])


def _cross_entropy_bounds(p: MixtureDensity, q: MixtureDensity) -> tuple[float, float]:
    """Lower and upper bound on -E_p[log q], by Jensen's inequality before and after the log."""
    lower = -_mean_log_sum(p, q, _log_overlaps(p, q))
    return lower, -_mean_log_sum(p, q, _expected_log_gaussians(p, q))


def _mean_log_sum(p: MixtureDensity, q: MixtureDensity, logs: np.ndarray) -> float:
    """``sum_a w_a log sum_b pi_b exp(logs_ab)``."""
    return float(p.weights @ logsumexp(logs, axis=1, b=q.weights))


def _gaussian_entropy(log_det: np.ndarray, n_dims: int) -> np.ndarray:
    """Entropy of Gaussians whose covariances have these log determinants."""
    return 0.5 * (n_dims * np.log(2 * np.pi * np.e) + log_det)


def _log_overlaps(p: MixtureDensity, q: MixtureDensity) -> np.ndarray:
    """``log integral p_a q_b = log N(mu_a; mu_b, S_a + S_b)``, (A, B)."""
    pairs = zip(p.means, p.full_covariances(), strict=True)
    widths = q.full_covariances()
    wide = ((m, MixtureDensity(q.weights, q.means, widths + s, checked=False)) for m, s in pairs)
    return np.concatenate([log_gaussians(m[None], density) for m, density in wide])


def _log_bhattacharyya(density: MixtureDensity) -> np.ndarray:
    """``log integral sqrt(p_a p_b)``, (K, K): the root of a Gaussian is one twice as wide."""
    _, log_det = density.whitening
    root = (density.n_dims * np.log(8 * np.pi) + log_det) / 4  # log sqrt(N(x; S)) / N(x; 2 S)
    wide = replace(density, covariances=2 * density.covariances, checked=False)
    return _log_overlaps(wide, wide) + root[:, None] + root


def _expected_log_gaussians(p: MixtureDensity, q: MixtureDensity) -> np.ndarray:
    """``E_p_a[log q_b] = -KL_ab - H_a``, (A, B)."""
    if q.covariance_type in DIAGONAL_TYPES:
        return log_gaussians(p.means, q, p.variances())
    covariances = p.full_covariances().reshape(p.n_components, -1)  # (A, D * D)
    traces = covariances @ q.precisions.reshape(q.n_components, -1).T  # (A, B)
    return log_gaussians(p.means, q) - 0.5 * traces
