"""Variational autoencoder, its KL term taken to what the children say about the latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import InputError, MessageError
from ...messages import Data, Gaussian, Message, Mixture
from ...options import check_count, check_option
from ..common.inputs import all_observed
from ..nets.device import as_tensor
from .base import Autoencoder, Pull
from .divergences import MixtureTarget, kl_to_gaussian, kl_to_mixture


class GaussianAutoencoder(Autoencoder):
    """Abstract base of AE and VAE; see those for the parameters."""

    takes_from_children = (Gaussian, Mixture)
    sends_up = Gaussian
    kl_targets: tuple[str, ...]

    def __init__(
        self,
        latent_dim: int,
        *,
        net: str = "mlp",
        hidden_sizes: Sequence[int] = (128,),
        filters: Sequence[int] = (16, 32),
        batch_norm: bool = False,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: str = "bernoulli",
        noise_variance: float | str = 1.0,
        alpha: float | Callable[[int, int], float] | None = None,
        kl_target: str = "assigned",
        augment: Callable[[Tensor], Tensor] | None = None,
        epochs: int | Sequence[int] = 200,
        batch_size: int = 500,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        scheduler: str | Callable | None = None,
        max_grad_norm: float | None = None,
        validation_fraction: float = 0.0,
        patience: int = 10,
        warm_start: bool = True,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(
            net=net,
            hidden_sizes=hidden_sizes,
            filters=filters,
            batch_norm=batch_norm,
            encoder=encoder,
            decoder=decoder,
            likelihood=likelihood,
            noise_variance=noise_variance,
            alpha=alpha,
            augment=augment,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            scheduler=scheduler,
            max_grad_norm=max_grad_norm,
            validation_fraction=validation_fraction,
            patience=patience,
            warm_start=warm_start,
            device=device,
            precision=precision,
            compile=compile,
            name=name,
            random_state=random_state,
        )
        self.latent_dim = latent_dim
        self.kl_target = kl_target

    @property
    def size(self) -> int:
        """Number of latent dimensions."""
        return self.latent_dim

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options that cannot work, or data outside the likelihood's range."""
        check_count(self, "latent_dim")
        check_option(self, "kl_target", self.kl_targets)
        super().check(inputs, n_rows)

    def forward(self, inputs: list[Message]) -> Gaussian:
        """q(z | x): means and, from a VAE, variances, both (N, D)."""
        mean, log_var = self._encode(inputs)
        var = None if log_var is None else np.exp(log_var, out=log_var)
        return Gaussian(mean, var, observed=all_observed(inputs))

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Decoded draws from N(0, I), for each parent."""
        if component is not None:
            raise InputError(f"{self.label} has no components; leave component={component} out")
        return self._parts(self.sample(n_samples, random_state))

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> np.ndarray:
        """Decoded draws from N(0, I), (n_samples, ...); the same call repeats its draw."""
        rng = self._sampler(n_samples, random_state)
        return self.decode(rng.standard_normal((n_samples, self.latent_dim)))

    def artefacts(self) -> dict[str, np.ndarray]:
        """The original's z_learn.txt, x_hat_learn.txt and loss.txt (a row an epoch)."""
        return {"z_learn.txt": self.message_up.mean, **super().artefacts()}

    # -- what the children say of the latents ----------------------------------------------------

    def _target(self, prior: Message | None, n_rows: int) -> Gaussian | Mixture:
        """What `kl_target` makes of the children's message; N(0, I) where there is none."""
        self._check_prior(prior, n_rows)
        if prior is None or self.kl_target == "standard_normal":
            return Gaussian.standard(n_rows, self.latent_dim)
        return prior if self.kl_target == "mixture" else self._moments(prior)

    def _told(self, prior: Message | None, n_rows: int) -> np.ndarray:
        self._check_prior(prior, n_rows)
        return np.zeros((n_rows, self.latent_dim)) if prior is None else self._moments(prior).mean

    def _moments(self, prior: Gaussian | Mixture) -> Gaussian:
        """A message as one Gaussian a row."""
        if isinstance(prior, Gaussian):
            return prior
        return prior.assigned() if self.kl_target == "assigned" else prior.expected()

    def _check_prior(self, prior: Message | None, n_rows: int) -> None:
        """Raise for a message from the children that does not fit rows or latents."""
        if prior is None:
            return
        if isinstance(prior, Gaussian) and prior.var is None:
            raise MessageError(f"{self.label}: its children sent a Gaussian without a variance")
        dims = (prior.mean if isinstance(prior, Gaussian) else prior.means).shape[1]
        if (prior.n_rows, dims) != (n_rows, self.latent_dim):
            raise InputError(
                f"{self.label}: its children sent a message for {prior.n_rows} rows of {dims} "
                f"dimensions; expected {n_rows} rows of {self.latent_dim}"
            )


def gaussian_tensors(target: Gaussian, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and variance of a message as float32 tensors (N, D) on a device."""
    return as_tensor(target.mean, device), as_tensor(target.var, device)


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
