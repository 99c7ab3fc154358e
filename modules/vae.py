"""Variational autoencoder, its KL term taken to what the children say about the latents."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..messages import Data, Message, Mixture
from ._autoencoder_training import Pull
from ._divergences import MixtureTarget, kl_to_gaussian, kl_to_mixture
from ._gaussian_autoencoder import GaussianAutoencoder, gaussian_tensors


class VAE(GaussianAutoencoder):
    """Variational autoencoder.

    Minimises, a row, ``-E_q[log p(x | z)] + alpha KL(q(z | x) || target)`` with q a diagonal
    Gaussian (Kingma and Welling, 2014). The target is N(0, I) until a child has sent a message,
    and then what `kl_target` makes of it: in a VAE-GMM graph the mean of the cluster each row
    was assigned to, with identity covariance (Nakamura et al., 2018).

    Rows that not all parents saw do not train, say N(0, I) upwards, and are decoded from the mean
    the children's message gives them: the assigned one by the default `kl_target`, else the
    expected one.

    Parameters
    ----------
    latent_dim : int
        Number of latent dimensions D.
    net : {"mlp", "conv"}
        Default nets; "conv" needs images (N, H, W), (N, C, H, W) or flat and square.
    hidden_sizes : sequence of int
        Widths of the encoder's hidden layers (after the convolutions, if any); the decoder
        mirrors them.
    filters : sequence of int
        Filters of the convolutions, each of which halves height and width.
    batch_norm : bool
        Batch normalisation before each ReLU of the default nets (Ioffe and Szegedy, 2015). Every
        batch then needs two rows or more.
    encoder, decoder : torch.nn.Module, optional
        Your own pair instead: rows -> (N, 2 D), the means followed by the log variances, and
        (N, D) -> as many values as a row has (logits under a Bernoulli likelihood). Copied before
        training.
    likelihood : {"bernoulli", "gaussian"}
        Bernoulli on logits, for values in [0, 1]; or Gaussian.
    noise_variance : float or "learnt"
        Variance of the Gaussian likelihood.
    alpha : float or callable, optional
        Weight of the KL term, 1 unless given (else a beta-VAE), or a function of (update, epoch),
        both counted from 0.
    kl_target : {"assigned", "expected", "mixture", "standard_normal"}
        Of a GMM's message: the mean of the most probable component, or the mean under the
        responsibilities, both with identity covariance; the whole mixture with its covariances
        (VaDE's term); or N(0, I) whatever the children say.
    augment : callable, optional
        From a batch tensor to one of the same shape, applied in training; the KL target stays
        that of the original row. `serkit.modules.RandomAffine` is one for images.
    epochs : int or sequence of int
        Epochs an update; of a sequence, one entry an update, the last for all further ones.
    batch_size, lr, weight_decay : int, float, float
        Of AdamW (Adam where weight_decay is 0).
    scheduler : {None, "cosine", "onecycle"} or callable
        Learning-rate schedule over the steps of each update; a callable gets the optimiser and
        the number of steps and returns a torch scheduler that is stepped a batch.
    max_grad_norm : float, optional
        Gradients are clipped to this norm.
    validation_fraction : float
        Share of rows held out; if above 0, an update stops once their loss has not improved for
        `patience` epochs, and the best weights are kept.
    patience : int
    warm_start : bool
        Weights and optimiser are kept from update to update; False starts afresh.
    device : {"auto", "cpu", "cuda", ...}
    precision : {"auto", "bfloat16", "float32"}
        Of the nets' matrix products in training; "auto" is bfloat16 where the processor has it,
        which the first update decides for all further ones.
    compile : bool
        Whether training runs the nets through `torch.compile`, which takes a compiler and, for
        new nets, some seconds; without one it warns and trains as usual.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    nets_ : torch.nn.ModuleDict
        "encoder", "decoder" and "likelihood".
    loss_curve_ : list of dict
        Terms of the loss, an entry an epoch over all updates.
    history_ : list of dict
        The terms of each update's last (or best) epoch, in nats a row.
    """

    codes_per_latent = 2
    default_alpha = 1.0
    divergence = "kl"
    kl_targets = ("assigned", "expected", "mixture", "standard_normal")

    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = codes.float().chunk(2, dim=1)  # (B, D) each
        return mean, log_var

    def _expected_log_likelihood(
        self, x: Tensor, mean: Tensor, log_var: Tensor, update: int, epoch: int
    ) -> Tensor:
        """By one draw of z a row."""
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()  # (B, D)
        return self._log_likelihood(x, z)

    def _pull(self, prior: Message | None, n_rows: int, device: torch.device) -> Pull:
        """KL(q || target)."""
        target = self._target(prior, n_rows)
        if isinstance(target, Mixture):
            mixture = MixtureTarget.of(target, device)
            return lambda index, mean, log_var: kl_to_mixture(mean, log_var, mixture.rows(index))
        to_mean, to_var = gaussian_tensors(target, device)
        return lambda index, mean, log_var: kl_to_gaussian(
            mean, log_var, to_mean[index], to_var[index]
        )

    def _bound(self, inputs: list[Data], prior: Message | None) -> np.ndarray:
        """E_q[log p(x | z)] - E_q[log q(z | x)] of each row, (N,).

        The prior's half of the ELBO, E_q[log p(z)], is the children's term; without children it
        is N(0, I)'s and added here. The expectation takes one draw of z a row, the same noise
        every time, so that differences between calls are the model's.
        """
        mean, log_var = self._encode(inputs)
        noise = np.random.default_rng(0).standard_normal(mean.shape)
        z = mean + noise * np.exp(0.5 * log_var)
        entropy = 0.5 * (log_var + math.log(2 * math.pi * math.e)).sum(axis=1)
        bound = self._log_likelihoods(inputs, z) + entropy
        if not self.children:
            second_moment = mean**2 + np.exp(log_var) + math.log(2 * math.pi)
            bound = bound - 0.5 * second_moment.sum(axis=1)
        return bound
