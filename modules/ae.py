"""Autoencoder: a deterministic encoder and decoder in the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..messages import Gaussian, Message
from ._autoencoder import Autoencoder
from ._autoencoder_training import Pull, gaussian_tensors
from ._rows import join


class AE(Autoencoder):
    """Autoencoder, whose latents a child may pull to its cluster means.

    Minimises, a row, ``-log p(x | z) + alpha / 2 |z - mu|^2`` with z the encoder's output: mean
    squared error over two (Gaussian likelihood) or binary cross-entropy (Bernoulli), and, if
    `alpha` is above 0, a joint pull to mu: 0 until a child has sent a message, and then what
    `kl_target` makes of it. The pull is `VAE`'s KL term without the variance.

    Parameters
    ----------
    latent_dim : int
        Number of latent dimensions D.
    alpha : float or callable, optional
        Weight of the pull, 0 (none) unless given, or a function of (update, epoch).
    kl_target : {"assigned", "expected", "standard_normal"}
        As in `VAE`.
    **options
        All further options are those of `VAE`; an own encoder returns (N, D).

    Attributes
    ----------
    nets_, loss_curve_, history_
        As in `VAE`.
    """

    codes_per_latent = 1
    default_alpha = 0.0
    kl_targets = ("assigned", "expected", "standard_normal")

    def _split(self, codes: Tensor) -> tuple[Tensor, None]:
        return codes.float(), None

    def _terms(self, x: Tensor, index: Tensor, alpha: float, pull: Pull) -> dict[str, Tensor]:
        z, _ = self._split(self.nets_["encoder"](x))  # (B, D)
        reconstruction = -self._log_likelihood(x, z).mean()
        distance = pull(index, z, None).mean()
        return {
            "loss": reconstruction + alpha * distance,
            "reconstruction": reconstruction,
            "pull": distance,
        }

    def _pull(self, target: Gaussian, device: torch.device) -> Pull:
        """1/2 |z - mu|^2 / var."""
        mean, var = gaussian_tensors(target, device)
        return lambda index, z, _: 0.5 * ((z - mean[index]) ** 2 / var[index]).sum(dim=1)

    def objective(self, inputs: list[Message], prior: Message | None) -> float:
        """Log p(x | z) at the encoder's z, in nats a row; the children add log p(z)."""
        array = join(inputs)
        chunks = self._in_chunks(self._log_likelihood, array, self.encode(array))
        return float(np.concatenate(chunks).mean())
