"""What AE and VAE share: nets, training on messages, and use on new rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..errors import InputError, NotReadyError
from ..messages import Data, Gaussian, Message, Mixture, as_rows
from ..module import Module
from ._autoencoder_options import check_options, check_prior, check_range
from ._autoencoder_training import Pull, build_nets, choose_target, make_optimizer, train
from ._minibatch import in_chunks, private_random_state, resolve_device, to_tensor
from ._nets import needed_image_shape
from ._options import check_n_samples, check_random_state
from ._rows import flat, join, split_columns


class Autoencoder(Module):
    """Abstract base of AE and VAE; see those for the parameters.

    A subclass says how many numbers the encoder gives a latent dimension (`codes_per_latent`),
    how a batch's loss is made of them (`_terms`) and which pull the children's message exerts
    (`_pull`).
    """

    accepts_forward = (Data,)
    accepts_backward = (Gaussian, Mixture)
    forward_kind = Gaussian
    backward_kind = Data
    codes_per_latent: int
    default_alpha: float
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
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.latent_dim = latent_dim
        self.net = net
        self.hidden_sizes = hidden_sizes
        self.filters = filters
        self.batch_norm = batch_norm
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.alpha = alpha
        self.kl_target = kl_target
        self.augment = augment
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.scheduler = scheduler
        self.max_grad_norm = max_grad_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.device = device
        self.precision = precision

    # -- to be filled in by AE and VAE ---------------------------------------------------------

    @abstractmethod
    def _terms(self, x: Tensor, index: Tensor, alpha: float, pull: Pull) -> dict[str, Tensor]:
        """Scalar loss terms of a batch; ``"loss"`` is the one to minimise."""

    @abstractmethod
    def _pull(self, target: Gaussian | Mixture, device: torch.device) -> Pull:
        """From row numbers, latent mean and log variance of a batch to the pull on each row."""

    @abstractmethod
    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoder's output (B, n_codes) as latent mean (B, D) and log variance, or None."""

    # -- module contract -----------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of latent dimensions."""
        return self.latent_dim

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options that cannot work, or data outside the likelihood's range."""
        check_options(self, n_rows)
        known = [message for message in inputs if message is not None]
        for message in known:
            check_range(self, message.array)
        if self.net == "conv" and self.encoder is None and len(known) == len(inputs):
            needed_image_shape(join(known).shape[1:], f"{self.label}: net='conv'")

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Train encoder and decoder; the children's message is what the latents are pulled to."""
        array = join(inputs)
        check_prior(self, prior, len(array))
        device = resolve_device(self.device, self.label)
        earlier = {
            k: v for k, v in vars(self).items() if k in ("nets_", "optimizer_", "row_shape_")
        }
        with private_random_state(int(self.rng().integers(2**62)), device):
            try:
                if not earlier or not self.warm_start:
                    self._build(array.shape[1:])
                self._check_row_shape(array.shape[1:])
                self.nets_.to(device)
                target = choose_target(self.kl_target, prior, len(array), self.latent_dim)
                return train(self, to_tensor(array, device), self._pull(target, device))
            except BaseException:  # Ctrl-C too: a half-trained fresh start is no replacement
                if not self.warm_start:
                    vars(self).update(earlier)
                raise

    def forward(self, inputs: list[Message]) -> Gaussian:
        """q(z | x): means and, from a VAE, variances, both (N, D)."""
        mean, log_var = self._encode(join(inputs))
        return Gaussian(mean, None if log_var is None else np.exp(log_var))

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Data]:
        """The reconstruction of every parent's rows."""
        whole = self.reconstruct(join(inputs))
        parts = split_columns(whole, [math.prod(message.shape) for message in inputs])
        return [Data(part.reshape(m.array.shape)) for part, m in zip(parts, inputs, strict=True)]

    @property
    def n_epochs(self) -> int:
        """Epochs of the coming update, unless it stops early."""
        several = self.epochs if isinstance(self.epochs, Sequence) else [self.epochs]
        return int(several[min(len(self.history_), len(several) - 1)])

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Decoded draws from N(0, I), for each parent."""
        if component is not None:
            raise InputError(f"{self.label} has no components; leave component={component} out")
        return self._parts(self.sample(n_samples, random_state))

    def top_down(self, values: np.ndarray) -> list[np.ndarray]:
        """Decoded latents, for each parent."""
        return self._parts(self.decode(values))

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        return split_columns(rows, [parent.size for parent in self.parents])

    def artefacts(self) -> dict[str, np.ndarray]:
        """The original's z_learn.txt, x_hat_learn.txt and loss.txt (a row an epoch)."""
        reconstructed = np.concatenate([flat(m) for m in self.backward_messages], axis=1)
        return {
            "z_learn.txt": self.forward_message.mean,
            "x_hat_learn.txt": reconstructed,
            "loss.txt": np.array([list(epoch.values()) for epoch in self.loss_curve_]),
        }

    # -- use on new rows -----------------------------------------------------------------------

    def fit(self, x: ArrayLike, y: None = None) -> Autoencoder:
        """Train on an array x (N, ...) without a graph; returns self. `y` is ignored."""
        message = Data(as_rows(x, f"{self.label}.fit"))
        self.check([message], message.n_rows)
        self.record(self.learn([message], None))
        return self

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Latent means of rows: (N, ...) -> (N, latent_dim)."""
        return self._encode(as_rows(x, f"{self.label}.encode"))[0]

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Data-space means of latents: (N, latent_dim) -> (N, ...)."""
        self._check_fitted()
        z = as_rows(z, f"{self.label}.decode")
        if z.shape[1:] != (self.latent_dim,):
            raise InputError(
                f"{self.label}: expected latents of shape (N, {self.latent_dim}), got {z.shape}"
            )
        likelihood = self.nets_["likelihood"]
        chunks = self._in_chunks(lambda part: likelihood.mean(self.nets_["decoder"](part)), z)
        return np.concatenate(chunks).reshape(len(z), *self.row_shape_)

    def reconstruct(self, x: ArrayLike) -> np.ndarray:
        """Rows through encoder and decoder, in data space: (N, ...) -> (N, ...)."""
        return self.decode(self.encode(x))

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> np.ndarray:
        """Decoded draws from N(0, I), (n_samples, ...); the same call repeats its draw."""
        self._check_fitted()
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        rng = np.random.default_rng(self.seed_ if random_state is None else random_state)
        return self.decode(rng.standard_normal((n_samples, self.latent_dim)))

    # -- building and saving -------------------------------------------------------------------

    def _build(self, row_shape: tuple[int, ...]) -> None:
        """New nets for rows of `row_shape`; a user's own are copied, so theirs stay as they are."""
        self.nets_, self.row_shape_ = build_nets(self, row_shape), row_shape
        self.optimizer_ = make_optimizer(self)
        self.loss_curve_ = getattr(self, "loss_curve_", [])

    def get_state(self) -> dict[str, Any]:
        """Everything learnt, nets and optimiser as their state dicts."""
        state = super().get_state()
        if "nets_" in state:
            state["nets_"] = self.nets_.state_dict()
            state["optimizer_"] = self.optimizer_.state_dict()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` gave."""
        state = dict(state)
        nets, optimizer = state.pop("nets_", None), state.pop("optimizer_", None)
        if nets is not None:
            device = resolve_device(self.device, self.label)
            with private_random_state(0, device):
                self._build(tuple(state["row_shape_"]))
            self.nets_.load_state_dict(nets)
            self.nets_.to(device)
            self.optimizer_.load_state_dict(optimizer)
            state["row_shape_"] = tuple(state["row_shape_"])
        super().set_state(state)

    # -- evaluation ----------------------------------------------------------------------------

    def _encode(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Latent means and log variances (or None) of rows."""
        self._check_fitted()
        self._check_row_shape(array.shape[1:])
        check_range(self, array)
        encoder = self.nets_["encoder"]
        parts = self._in_chunks(lambda rows: self._split(encoder(rows)), array)
        means, log_vars = zip(*parts, strict=True)
        known = log_vars[0] is not None
        return np.concatenate(means), np.concatenate(log_vars) if known else None

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x | z) of each row: (B, ...), (B, D) -> (B,)."""
        output = self.nets_["decoder"](z).float().flatten(1)  # (B, n_features)
        return self.nets_["likelihood"].log_prob(x.flatten(1), output)

    def _in_chunks(self, function: Callable, *arrays: np.ndarray) -> list:
        return in_chunks(self.nets_, function, *arrays, row_shape=self.row_shape_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "nets_"):
            raise NotReadyError(f"{self.label} has learnt nothing yet: call update() or fit(x)")

    def _check_row_shape(self, row_shape: tuple[int, ...]) -> None:
        if row_shape != self.row_shape_:
            raise InputError(
                f"{self.label}: trained on rows of shape {self.row_shape_}, got {row_shape}"
            )
