"""Autoencoder: a deterministic encoder and decoder in the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..messages import Data, Message
from ._autoencoder_training import Pull
from ._gaussian_autoencoder import GaussianAutoencoder, gaussian_tensors


class AE(GaussianAutoencoder):
    """Autoencoder, whose latents a child may pull to its cluster means.

    Minimises, a row, ``-log p(x | z) + alpha / 2 |z - mu|^2`` with z the encoder's output: mean
    squared error over two (Gaussian likelihood) or binary cross-entropy (Bernoulli), and, if
    `alpha` is above 0, a joint pull to mu: 0 until a child has sent a message, and then what
    `kl_target` makes of it. The pull is `VAE`'s KL term without the variance. Rows that were not
    seen are treated as there.

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
    divergence = "pull"
    kl_targets = ("assigned", "expected", "standard_normal")

    def _split(self, codes: Tensor) -> tuple[Tensor, None]:
        return codes.float(), None

    def _expected_log_likelihood(
        self, x: Tensor, z: Tensor, rest: None, update: int, epoch: int
    ) -> Tensor:
        """At the encoder's z."""
        return self._log_likelihood(x, z)

    def _pull(self, prior: Message | None, n_rows: int, device: torch.device) -> Pull:
        """1/2 |z - mu|^2 / var."""
        mean, var = gaussian_tensors(self._target(prior, n_rows), device)
        return lambda index, z, _: 0.5 * ((z - mean[index]) ** 2 / var[index]).sum(dim=1)

    def _bound(self, inputs: list[Data], prior: Message | None) -> np.ndarray:
        """Log p(x | z) at the encoder's z, (N,); the children add log p(z)."""
        return self._log_likelihoods(inputs, self._encode(inputs)[0])
