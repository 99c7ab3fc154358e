"""What an encoder says of the latents, and the Kullback-Leibler divergence from there to a target.

A target is made of the children's message and holds a row per data row; ``target.rows(index)`` are
those of a batch, and ``target.kl(q)`` their divergences (B,), in closed form and in nats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, distributions

from ...messages import Gaussian, Mixture
from ..nets.device import as_tensor


class DiagonalNormal(distributions.Normal):
    """N(mean, exp(log_var)) of each row, (B, D) each; keeps the logarithm as it came."""

    def __init__(self, mean: Tensor, log_var: Tensor) -> None:
        super().__init__(mean, (0.5 * log_var).exp(), validate_args=False)
        self.log_var = log_var


class OneHot(distributions.OneHotCategorical):
    """One-hot classes of logits (B, K), maybe NaN: what is made of them is looked at for that."""

    def __init__(self, logits: Tensor) -> None:
        self._categorical = distributions.Categorical(logits=logits, validate_args=False)
        shapes = logits.shape[:-1], logits.shape[-1:]
        distributions.Distribution.__init__(self, *shapes, validate_args=False)


@dataclass(frozen=True)
class Point:
    """A latent vector that is known for certain: an AE's q(z | x); mean (B, D)."""

    mean: Tensor

    def rsample(self) -> Tensor:
        """The point itself."""
        return self.mean


@dataclass(frozen=True)
class Target(ABC):
    """What latents are pulled to; its fields hold a row per data row."""

    def rows(self, index: Tensor) -> Self:
        """The target of some rows."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @abstractmethod
    def kl(self, q: Any) -> Tensor:
        """Divergence from q to the target, of each row of a batch: (B,)."""


@dataclass(frozen=True)
class GaussianTarget(Target):
    """A diagonal Gaussian per row: mean (N, D), var (N, D)."""

    mean: Tensor
    var: Tensor

    @classmethod
    def of(cls, message: Gaussian, device: torch.device) -> Self:
        """A message as float32 tensors on a device."""
        var = cast(np.ndarray, message.var)
        return cls(as_tensor(message.mean, device), as_tensor(var, device))

    def kl(self, q: DiagonalNormal) -> Tensor:
        """``1/2 sum(s^2 / var + (m - mean)^2 / var - 1 - log(s^2 / var))`` of q = N(m, s^2).

        Kingma and Welling, 2014, appendix B, for any diagonal target.
        """
        ratio = q.log_var.exp() / self.var  # (B, D)
        distance = (q.mean - self.mean) ** 2 / self.var  # (B, D)
        return 0.5 * (ratio + distance - 1 - q.log_var + self.var.log()).sum(dim=1)


@dataclass(frozen=True)
class PointTarget(GaussianTarget):
    """A diagonal Gaussian per row, to which a point is pulled."""

    def kl(self, q: Point) -> Tensor:  # type: ignore[override]
        """``1/2 sum((z - mean)^2 / var)``: what of the divergence depends on where z is."""
        return 0.5 * ((q.mean - self.mean) ** 2 / self.var).sum(dim=1)


@dataclass(frozen=True)
class MixtureTarget(Target):
    """A Gaussian mixture, and which of its components each row belongs to."""

    log_prob: Tensor  # (N, K), log responsibilities
    means: Tensor  # (K, D)
    whitening: Tensor  # (K, D, D), W_k with W_k W_k^T the component's precision
    log_det: Tensor  # (K,), of the covariances
    log_weights: Tensor  # (K,)

    @classmethod
    def of(cls, message: Mixture, device: torch.device) -> Self:
        """Factor a message's covariances in float64, then go to `device` in float32."""
        lower = torch.linalg.cholesky(torch.tensor(message.covariances, dtype=torch.float64))
        log_det = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        whitening = torch.linalg.inv(lower).transpose(1, 2)
        factors = (whitening.numpy(), log_det.numpy())
        values = (message.log_prob, message.means, *factors, message.log_weights)
        return cls(*(torch.tensor(v, dtype=torch.float32, device=device) for v in values))

    def rows(self, index: Tensor) -> Self:
        """The mixture with the responsibilities of some rows."""
        return replace(self, log_prob=self.log_prob[index])

    def kl(self, q: DiagonalNormal) -> Tensor:
        """``sum_k r_k KL(q || N(mu_k, Sigma_k)) + KL(r || pi)``: VaDE's term.

        Jiang et al., 2017, "Variational Deep Embedding", equation 9, with full covariances and the
        responsibilities r of the message held fixed.
        """
        with torch.autocast(q.mean.device.type, enabled=False):  # else products are in bfloat16
            offsets = q.mean[:, None] - self.means  # (B, K, D)
            white = torch.einsum("bkd,kde->bke", offsets, self.whitening)  # (B, K, D)
            precisions = (self.whitening**2).sum(dim=2)  # (K, D), the diagonals
            trace = q.log_var.exp() @ precisions.T  # (B, K)
            entropy = q.log_var.sum(dim=1, keepdim=True)  # (B, 1), twice and up to a constant
            constant = self.log_det - q.mean.shape[1]  # (K,)
            kl = 0.5 * ((white**2).sum(dim=2) + trace + constant - entropy)  # (B, K)
            r = self.log_prob.exp()  # (B, K)
            log_ratio = torch.where(r > 0, self.log_prob - self.log_weights, 0.0)  # (B, K)
            return (r * (kl + log_ratio)).sum(dim=1)


@dataclass(frozen=True)
class CategoricalTarget(Target):
    """Class probabilities per row, as logarithms (N, K), of each of several draws."""

    log_prob: Tensor
    n_draws: int = 1

    def rows(self, index: Tensor) -> Self:
        """The target of some rows."""
        return replace(self, log_prob=self.log_prob[index])

    def kl(self, q: distributions.OneHotCategorical) -> Tensor:
        """``sum_k q_k (log q_k - log p_k)`` times the number of draws.

        No p_k counts as less than 1e-8, so that a class which p rules out costs up to 18 nats, and
        not infinitely many.
        """
        floored = self.log_prob.clamp(min=math.log(1e-8))
        return self.n_draws * (q.probs * (q.logits - floored)).sum(dim=1)
