"""What AE and VAE share: continuous latents, pulled to Gaussian or mixture messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, MessageError
from ..messages import Gaussian, Message, Mixture
from ._autoencoder import Autoencoder
from ._devices import as_tensor
from ._options import check_count, check_option
from ._rows import all_seen


class GaussianAutoencoder(Autoencoder):
    """Abstract base of AE and VAE; see those for the parameters."""

    accepts_backward = (Gaussian, Mixture)
    forward_kind = Gaussian
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
        return Gaussian(mean, var, observed=all_seen(inputs))

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
        return {"z_learn.txt": self.forward_message.mean, **super().artefacts()}

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
