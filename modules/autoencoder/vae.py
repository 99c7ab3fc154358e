"""AE and VAE: latents in space, which children pull to where they say the rows belong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Self, cast

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import ArrayLike
from torch import Tensor

from ... import arrays, processes
from ...errors import InputError, MessageError
from ...messages import Data, Gaussian, Message, Mixture
from ...module import Node, Posterior, Values
from ...options import Choice, Count, RandomState, Width, check_argument, generator_of
from .base import Arrays, Autoencoder
from .divergences import DiagonalNormal, GaussianTarget, MixtureTarget, Point, PointTarget, Target

_DRAWS = 1  # beside seed and number of updates, so that draws are not those of training
KLTarget = Annotated[str, Choice("assigned", "expected", "mixture", "standard_normal")]


@dataclass(eq=False, repr=False)
class GaussianAutoencoder(Autoencoder):
    """Abstract base of AE and VAE: latents in D dimensions, of which Gaussian messages speak."""

    latent_dim: Width
    _: KW_ONLY
    kl_target: Annotated[str, Choice("assigned", "expected", "standard_normal")] = "assigned"

    takes_from_children = (Gaussian, Mixture)
    sends_up = Gaussian
    gaussian_target = GaussianTarget

    @property
    def n_outputs(self) -> int:
        """Number of latent dimensions D."""
        return self.latent_dim

    def latents_by(self, from_children: Message | None, n_rows: int) -> np.ndarray:
        """Latent means (N, D) by the children's message alone; 0 if None."""
        return self._moments(self._checked(from_children, n_rows)).mean

    def target_of(self, from_children: Message | None, n_rows: int, device: torch.device) -> Target:
        """What `kl_target` makes of the children's message; N(0, I) where there is none."""
        message = self._checked(from_children, n_rows)
        if self.kl_target == "standard_normal":
            message = Gaussian.standard(n_rows, self.latent_dim)
        if isinstance(message, Mixture) and self.kl_target == "mixture":
            return MixtureTarget.of(message, device)
        return self.gaussian_target.of(self._moments(message), device)

    def _moments(self, message: Gaussian | Mixture) -> Gaussian:
        """A message as one Gaussian per row."""
        if isinstance(message, Gaussian):
            return message
        return message.assigned() if self.kl_target == "assigned" else message.expected()

    def _checked(self, from_children: Message | None, n_rows: int) -> Gaussian | Mixture:
        """The children's message, N(0, I) if None; raise if it does not fit rows or latents."""
        if from_children is None:
            return Gaussian.standard(n_rows, self.latent_dim)
        message = cast(Gaussian | Mixture, from_children)
        if isinstance(message, Gaussian) and message.var is None:
            raise MessageError(f"{self.label}: its children sent a Gaussian without a variance")
        means = message.mean if isinstance(message, Gaussian) else message.means
        if (message.n_rows, means.shape[1]) != (n_rows, self.latent_dim):
            raise InputError(
                f"{self.label}: its children sent a message for {message.n_rows} rows of "
                f"{means.shape[1]} dimensions; expected {n_rows} rows of {self.latent_dim}"
            )
        return message

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> np.ndarray:
        """Decoded draws from N(0, I), (n_samples, ...); the same call repeats its draw."""
        return self._sample(n_samples, random_state, None)

    def _draw(self, n: int, rng: Generator, values: Values, component: int | None) -> np.ndarray:
        """The latents given, else draws from N(0, I)."""
        if component is not None:
            raise InputError(f"{self.label} has no components; leave component={component} out")
        return rng.standard_normal((n, self.latent_dim)) if values is None else values


class AE(GaussianAutoencoder):
    """Autoencoder, whose latents a child may pull to its cluster means.

    Minimises, per row, ``-log p(x | z) + alpha / 2 |z - mu|^2`` with z the encoder's output: mean
    squared error over two (Gaussian likelihood) or binary cross-entropy (Bernoulli), and, if
    `alpha` is above 0, a joint pull to mu: 0 until a child has sent a message, and then what
    `kl_target` makes of it. The pull is `VAE`'s KL term without the variance, and missing rows are
    treated as in `VAE`.

    Parameters
    ----------
    latent_dim : int
        Number of latent dimensions D.
    kl_target : {"assigned", "expected", "standard_normal"}
        As in `VAE`.
    alpha : float or callable, optional
        Weight of the pull, 0 (none) unless given, or a function of (update, epoch).
    **options
        All further options are those of `VAE`; an own encoder returns (N, D).

    Attributes
    ----------
    nets_, loss_curve_, history_
        As in `VAE`.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import AE
    >>> rows = np.random.default_rng(0).random((20, 6))
    >>> ae = AE(2, hidden_sizes=(8,), epochs=2, random_state=0).fit(rows)
    >>> ae.encode(rows).shape, ae.reconstruct(rows).shape
    ((20, 2), (20, 6))
    """

    default_alpha = 0.0
    divergence = "pull"
    gaussian_target = PointTarget

    def q_of(self, x: Tensor) -> Point:
        """The encoder's z, (B, D)."""
        return Point(self._net("encoder")(x).float())

    @staticmethod
    def sent(codes: Tensor) -> tuple[Tensor, ...]:
        """The codes themselves, (B, D)."""
        return (codes,)

    def _message_up(self, q: Arrays, observed: np.ndarray | None) -> Gaussian:
        return Gaussian(q[0], observed=observed, checked=False)

    def _row_bounds(self, rows: np.ndarray, q: Arrays, children: Message | None) -> np.ndarray:
        """Log p(x | z) at the encoder's z, (N,)."""
        return self._in_blocks(self.log_likelihood, rows, q[0])


@dataclass(eq=False, repr=False, kw_only=True)
class VAE(GaussianAutoencoder):
    """Variational autoencoder.

    Minimises, per row, ``-E_q[log p(x | z)] + alpha KL(q(z | x) || target)`` with q a diagonal
    Gaussian (Kingma and Welling, 2014). The target is N(0, I) until a child has sent a message,
    and then what `kl_target` makes of it: in a VAE-GMM graph the mean of the cluster each row
    was assigned to, with identity covariance (Nakamura et al., 2018).

    Rows that are missing in some parent do not train, say N(0, I) upwards, and are decoded from the
    mean the children's message gives them: the assigned one by the default `kl_target`, else the
    expected one.

    Parameters
    ----------
    latent_dim : int
        Number of latent dimensions D.
    kl_target : {"assigned", "expected", "mixture", "standard_normal"}
        Of a GMM's message: the mean of the most probable component, or the mean under the
        responsibilities, both with identity covariance; the whole mixture with its covariances
        (VaDE's term); or N(0, I) whatever the children say.
    sends : {"mean", "sample"}
        What an update sends up of each row: the mean and variance of q(z | x), or one draw from it,
        as Serket does. New rows are sent by their means in any case.
    net : {"mlp", "conv"}
        Default nets; "conv" needs images (N, H, W), (N, C, H, W) or flat and square.
    hidden_sizes : sequence of int
        Widths of the encoder's hidden layers, after any convolutions; the decoder mirrors them.
    filters : sequence of int
        Filters of the convolutions, each of which halves height and width.
    batch_norm : bool
        Batch normalisation before each ReLU of the default nets (Ioffe and Szegedy, 2015). Every
        batch then needs two rows or more.
    encoder, decoder : torch.nn.Module, optional
        Your own instead, both or one, of which copies are trained: rows -> (N, 2 D), the means
        followed by the log variances, or both as a tuple; and (N, D) -> the values of a row (logits
        under Bernoulli: a warning tells of a Sigmoid at the end). Weights of both stay shared.
    likelihood : {"bernoulli", "gaussian"}
        Bernoulli on logits, for values in [0, 1]; or Gaussian.
    noise_variance : float or "learnt"
        Variance of the Gaussian likelihood.
    alpha : float or callable, optional
        Weight of the KL term, 1 unless given (else a beta-VAE), or a function of (update, epoch),
        both counted from 0.
    augment : callable, optional
        From a batch tensor to one of the same shape, such as `serkit.modules.RandomAffine`; in
        training only. The KL target stays that of the original row.
    augment_target : {"augmented", "clean"} or sequence of them
        What is to be reconstructed from an augmented row: itself, so that latents tell how it was
        transformed, for new rows that vary like that; or the original row, so that they tell only
        what stays, for clusters of it (Vincent et al., 2008, "Extracting and composing robust
        features with denoising autoencoders"; of a VAE Im et al., 2017, "Denoising criterion for
        variational auto-encoding framework"). Of a sequence, one entry an update, the last for all
        further ones. No effect without `augment`.
    epochs : int or sequence of int
        Epochs an update; of a sequence, one entry an update, the last for all further ones.
    batch_size, lr, weight_decay : int, float, float
        Of AdamW (Adam where weight_decay is 0).
    scheduler : {None, "cosine", "onecycle"} or callable
        Learning-rate schedule over the steps of each update; a callable makes, of the optimiser and
        the number of steps, a torch scheduler that is stepped a batch.
    max_grad_norm : float, optional
        Gradients are clipped to this norm.
    validation_fraction, patience : float, int
        Share of rows held out; if above 0, an update stops once their loss has not improved for
        `patience` epochs, and the best weights are kept.
    warm_start : bool
        Weights and optimiser are kept from update to update; False starts afresh.
    device : {"auto", "cpu", "cuda", ...}
    precision : {"auto", "bfloat16", "float32"}
        Of the nets' matrix products in training; "auto" is bfloat16 where the device has it
        and the nets are large enough to gain by it, which the first update decides for all
        further ones.
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
        The terms of each update's last (or best) epoch, in nats per row.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import VAE
    >>> rows = np.random.default_rng(0).random((20, 6))
    >>> vae = VAE(2, hidden_sizes=(8,), epochs=2, random_state=0).fit(rows)
    >>> vae.encode(rows).shape, vae.sample(3).shape
    ((20, 2), (3, 6))
    """

    kl_target: KLTarget = "assigned"
    sends: Annotated[str, Choice("mean", "sample")] = "mean"

    codes_per_latent = 2
    q_parameters = ("mean", "log_var")
    sent_parameters = ("mean", "var")

    def update(self, children: Sequence[Node] | None = None) -> Self:
        """Learn and send new messages, see `serkit.Module.update`."""
        super().update(children)
        if self.sends == "sample":
            posterior = cast(Posterior, self.posterior)
            rng = np.random.default_rng([self.seed_, len(self.history_), _DRAWS])
            up = draw_of(cast(Gaussian, posterior.up), processes.generator(rng))
            self.posterior = replace(posterior, up=up)
        return self

    def q_of(self, x: Tensor) -> DiagonalNormal:
        """q(z | x) = N(mean, exp(log_var)), (B, D) each."""
        mean, log_var = self._net("encoder")(x).float().chunk(2, dim=1)
        return DiagonalNormal(mean, log_var)

    @staticmethod
    def sent(codes: Tensor) -> tuple[Tensor, ...]:
        """Means and variances, (B, D) each, of the codes (B, 2 D)."""
        mean, log_var = codes.chunk(2, dim=1)
        return mean, log_var.exp()

    def _message_up(self, q: Arrays, observed: np.ndarray | None) -> Gaussian:
        mean, log_var = q
        var = arrays.empty(log_var.shape, np.float32, log_var)
        with np.errstate(over="ignore"):
            np.exp(log_var, out=var)
        remedy = "they are far from those of training; scale them as those"
        arrays.check_finite(var, f"{self.label}: variances of latents", remedy=remedy)
        return Gaussian(mean, var, observed=observed, checked=False)

    def _row_bounds(self, rows: np.ndarray, q: Arrays, children: Message | None) -> np.ndarray:
        """E_q[log p(x | z)] - E_q[log q(z | x)] of each row, (N,).

        The prior's half of the ELBO, E_q[log p(z)], is the children's term. One z per row is drawn,
        by the same noise every time, so that differences between calls are the model's.
        """
        mean, log_var = q
        noise = np.random.default_rng(0).standard_normal(mean.shape)
        z = mean + noise * np.exp(0.5 * log_var)  # (N, D)
        entropy = 0.5 * (log_var + math.log(2 * math.pi * math.e)).sum(axis=1)
        return self._in_blocks(self.log_likelihood, rows, z) + entropy

    def _expected_log_prior(self, q: Arrays) -> np.ndarray:
        """E_q[log N(z; 0, I)] of each row, (N,)."""
        mean, log_var = q
        return -0.5 * (mean**2 + np.exp(log_var) + math.log(2 * math.pi)).sum(axis=1)

    def log_prob(
        self, x: ArrayLike, n_samples: int = 100, random_state: RandomState = None
    ) -> np.ndarray:
        """Log density of each row under the prior N(0, I), by importance sampling, in nats.

        ``log 1/S sum_s p(x | z_s) p(z_s) / q(z_s | x)`` with S draws of q(z | x): in the mean never
        above log p(x), closer to it the more draws, and with one the evidence lower bound (Burda,
        Grosse and Salakhutdinov, 2016, "Importance weighted autoencoders").

        Parameters
        ----------
        x : array-like, shape (N, ...)
        n_samples : int
            Draws S of each row's latents.
        random_state : int, np.random.Generator or np.random.RandomState, optional
            Seed of the draws; the module's own unless given, so the same call repeats its draw.

        Returns
        -------
        np.ndarray, shape (N,)
        """
        check_argument(self.label, "n_samples", n_samples, Count())
        rows = self.new_rows(x, "log_prob")
        mean, log_var = self._encode([Data(rows, checked=False)])
        rng = generator_of(self.label, random_state, self.seed())
        log_sum = np.full(len(rows), -np.inf)
        for _ in range(n_samples):
            noise = rng.standard_normal(mean.shape)
            z = mean + noise * np.exp(0.5 * log_var)  # (N, D)
            log_ratio = 0.5 * (noise**2 + log_var - z**2).sum(axis=1)  # of p(z) to q(z | x)
            log_joint = self._in_blocks(self.log_likelihood, rows, z) + log_ratio
            log_sum = np.logaddexp(log_sum, log_joint)
        return log_sum - math.log(n_samples)


def draw_of(message: Gaussian, rng: Generator) -> Gaussian:
    """One draw of each row's Gaussian, as good as certain: variances must be above 0."""
    mean, var = message.mean, cast(np.ndarray, message.var)
    z = mean + rng.standard_normal(mean.shape, dtype=np.float32) * np.sqrt(var)
    certain = np.broadcast_to(np.finfo(np.float32).tiny, mean.shape)
    return Gaussian(z, certain, observed=message.observed, checked=False)
