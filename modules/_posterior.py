"""What a mixture and its children's messages say of each row's class."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from .. import storage
from ..density import MixtureDensity
from ..messages import Categorical
from ._rows import Rows
from ._threads import for_parts


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
    joint = storage.empty((len(rows), density.n_components), np.float64, rows.x)

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
