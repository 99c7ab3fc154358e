"""Kullback-Leibler divergences in closed form on tensors, in nats a row, (B,).

From the encoder's q of a batch: N(mean, exp(log_var)), (B, D) each, or class probabilities (B, K).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...messages import Mixture

_LEAST_LOG_PROB = math.log(1e-8)


def kl_to_gaussian(mean: Tensor, log_var: Tensor, to_mean: Tensor, to_var: Tensor) -> Tensor:
    """KL(q || N(to_mean, to_var)), diagonal; `to_mean` and `to_var` broadcast to (B, D).

    ``1/2 sum(var / to_var + (mean - to_mean)^2 / to_var - 1 - log(var / to_var))``
    (Kingma and Welling, 2014, appendix B, for any diagonal target).
    """
    ratio = log_var.exp() / to_var  # (B, D)
    distance = (mean - to_mean) ** 2 / to_var  # (B, D)
    return 0.5 * (ratio + distance - 1 - log_var + to_var.log()).sum(dim=1)


@dataclass(frozen=True)
class MixtureTarget:
    """A Gaussian mixture prepared for `kl_to_mixture`.

    Attributes
    ----------
    log_prob : (N, K) or (B, K)
        Log responsibilities of the rows.
    means : (K, D)
    whitening : (K, D, D)
        W_k with W_k W_k^T the component's precision.
    log_det : (K,)
        Log determinants of the covariances.
    log_weights : (K,)
    """

    log_prob: Tensor
    means: Tensor
    whitening: Tensor
    log_det: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, message: Mixture, device: torch.device) -> MixtureTarget:
        """Factor a message's covariances in float64, then go to `device` in float32."""
        lower = torch.linalg.cholesky(torch.tensor(message.covariances, dtype=torch.float64))
        log_det = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        whitening = torch.linalg.inv(lower).transpose(1, 2)
        factors = (whitening.numpy(), log_det.numpy())
        values = (message.log_prob, message.means, *factors, message.log_weights)
        return cls(*(torch.tensor(v, dtype=torch.float32, device=device) for v in values))

    def rows(self, index: Tensor) -> MixtureTarget:
        """The same mixture with the responsibilities of some rows only."""
        return MixtureTarget(
            self.log_prob[index], self.means, self.whitening, self.log_det, self.log_weights
        )


def kl_to_mixture(mean: Tensor, log_var: Tensor, target: MixtureTarget) -> Tensor:
    """``sum_k r_k KL(q || N(mu_k, Sigma_k)) + KL(r || pi)``: VaDE's term.

    Jiang et al., 2017, "Variational Deep Embedding", equation 9, with full covariances and the
    responsibilities r of the message held fixed.
    """
    with torch.autocast(mean.device.type, enabled=False):  # else the products are in bfloat16
        offsets = mean[:, None] - target.means  # (B, K, D)
        white = torch.einsum("bkd,kde->bke", offsets, target.whitening)  # (B, K, D)
        precisions = (target.whitening**2).sum(dim=2)  # (K, D), the diagonals
        trace = log_var.exp() @ precisions.T  # (B, K)
        constant = target.log_det - mean.shape[1]  # (K,)
        kl = 0.5 * ((white**2).sum(dim=2) + trace + constant - log_var.sum(dim=1, keepdim=True))
        r = target.log_prob.exp()  # (B, K)
        log_ratio = torch.where(r > 0, target.log_prob - target.log_weights, 0.0)  # (B, K)
        return (r * (kl + log_ratio)).sum(dim=1)


def kl_to_categorical(log_prob: Tensor, to_log_prob: Tensor) -> Tensor:
    """``sum_k q_k (log q_k - log p_k)`` of q = exp(log_prob) from p: (B, K), (B, K) -> (B,).

    No p_k counts as less than 1e-8, so that a class which p rules out costs up to 18 nats, and
    not infinitely many.
    """
    floored = to_log_prob.clamp(min=_LEAST_LOG_PROB)
    return (log_prob.exp() * (log_prob - floored)).sum(dim=1)
