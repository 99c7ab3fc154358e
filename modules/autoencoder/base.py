"""What AE, VAE and MultinomialVAE share: nets, training on messages, and use on new rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ... import processes
from ...arrays import as_rows
from ...errors import InputError, NotReadyError, TrainingError
from ...messages import Data, Message
from ...module import Module
from ...options import (
    check_count,
    check_n_samples,
    check_number,
    check_option,
    check_random_state,
    is_count,
)
from ..common.inputs import all_observed, flat, join, split_columns
from ..nets.architectures import (
    Bernoulli,
    GaussianNoise,
    conv_pair,
    copy_pair,
    mlp_pair,
    needed_image_shape,
)
from ..nets.device import (
    compiled,
    draw_apart,
    in_chunks,
    private_random_state,
    resolve_device,
    uses_bfloat16,
)
from ..nets.trainer import DivergedError, check_batches, check_training_options, run_epochs


def check_options(module: Any, n_rows: int) -> None:
    """Raise InputError for arguments that cannot work with this process's `n_rows` seen rows."""
    check_training_options(module)
    check_count(module, "patience")
    check_option(module, "net", ("mlp", "conv"))
    check_option(module, "batch_norm", (False, True))
    check_option(module, "likelihood", ("bernoulli", "gaussian"))
    check_number(module, "validation_fraction", at_least=0)
    if module.alpha is not None and not callable(module.alpha):
        check_number(module, "alpha", at_least=0)
    if module.noise_variance != "learnt":
        check_number(module, "noise_variance", above=0)
    if module.max_grad_norm is not None:
        check_number(module, "max_grad_norm", above=0)
    if (module.encoder is None) != (module.decoder is None):
        raise InputError(f"{module.label}: give both encoder and decoder, or neither")
    for name in ("encoder", "decoder"):
        net = getattr(module, name)
        if net is not None and not isinstance(net, nn.Module):
            raise InputError(f"{module.label}: {name} must be a torch.nn.Module, got {net!r}")
    _check_epochs(module)
    if not processes.total(n_rows):
        raise InputError(
            f"{module.label}: no row was seen by all of its parents, so there is nothing to learn "
            "from; give some with observed=True"
        )
    _check_validation(module, n_rows)
    n_learnt = n_rows - int(module.validation_fraction * n_rows)
    check_batches(module, n_learnt, batch_norm=module.batch_norm and module.encoder is None)


def _check_epochs(module: Any) -> None:
    several = module.epochs if isinstance(module.epochs, Sequence) else [module.epochs]
    if not several or not all(map(is_count, several)):
        raise InputError(
            f"{module.label}: epochs must be an integer >= 1 or several, got {module.epochs!r}"
        )


def _check_validation(module: Any, n_rows: int) -> None:
    held_out = int(module.validation_fraction * n_rows)
    if module.validation_fraction and held_out not in range(1, n_rows):
        raise InputError(
            f"{module.label}: validation_fraction={module.validation_fraction} of {n_rows} rows "
            "leaves no rows on one side; it must lie between 0 and 1"
        )


def check_range(module: Any, message: Data) -> None:
    """Raise InputError for rows outside the likelihood's range, of those that were seen."""
    rows = message.array if message.observed is None else message.array[message.observed]
    if module.likelihood == "bernoulli" and len(rows) and (rows.min() < 0 or rows.max() > 1):
        raise InputError(
            f"{module.label}: likelihood='bernoulli' needs values in [0, 1], got "
            f"[{rows.min():g}, {rows.max():g}]; divide images by 255, or use "
            "likelihood='gaussian'"
        )


def check_temperature(module: Any) -> None:
    """Raise InputError unless the temperature is a number above 0, two of them or a function."""
    if callable(module.temperature):
        return
    several = module.temperature
    several = several if isinstance(several, Sequence) and len(several) == 2 else [several]
    if not all(isinstance(value, Real) and 0 < value < float("inf") for value in several):
        raise InputError(
            f"{module.label}: temperature must be a number > 0, a pair of them, or a function of "
            f"update and epoch, got {module.temperature!r}"
        )


Pull = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def build_nets(module: Autoencoder, row_shape: tuple[int, ...]) -> nn.ModuleDict:
    """New encoder, decoder and likelihood for rows of `row_shape`; a user's own are copied."""
    n_latents, n_codes = module.size, module.codes_per_latent * module.size
    sizes = (module.hidden_sizes, n_codes, n_latents, module.batch_norm)
    if module.encoder is not None:
        given = (module.encoder, module.decoder)
        encoder, decoder = copy_pair(*given, row_shape, n_codes, n_latents, module.label)
    elif module.net == "conv":
        image_shape = needed_image_shape(row_shape, f"{module.label}: net='conv'")
        encoder, decoder = conv_pair(image_shape, module.filters, *sizes)
    else:
        encoder, decoder = mlp_pair(math.prod(row_shape), *sizes)
    if module.likelihood == "bernoulli":
        likelihood: nn.Module = Bernoulli()
    else:
        learnt = module.noise_variance == "learnt"
        likelihood = GaussianNoise(1.0 if learnt else module.noise_variance, learnt)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder, "likelihood": likelihood})


def make_optimizer(module: Autoencoder) -> torch.optim.Optimizer:
    """AdamW over all that is learnt; a learnt noise variance does not decay."""
    nets = module.nets_
    noise = [p for p in nets["likelihood"].parameters() if p.requires_grad]
    pair = [*nets["encoder"].parameters(), *nets["decoder"].parameters()]
    groups = [{"params": [p for p in pair if p.requires_grad]}]
    groups += [{"params": noise, "weight_decay": 0.0}] if noise else []
    return torch.optim.AdamW(groups, lr=module.lr, weight_decay=module.weight_decay, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a state dict, its tensors in the memory layout of their parameters.

    Fused steps go through both in the order of memory.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, values in moments.items():
            if values.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(values)


def seen_rows(inputs: Sequence[Message], n_rows: int) -> np.ndarray:
    """Numbers of the rows that every parent saw."""
    seen = all_observed(inputs)
    return np.arange(n_rows) if seen is None else np.flatnonzero(seen)


def train(
    module: Autoencoder, rows: np.ndarray, seen: np.ndarray, pull: Pull, device: torch.device
) -> dict[str, Any]:
    """Run the epochs of one update on the rows numbered `seen` of `rows` (N, ...).

    Returns
    -------
    dict
        The terms of the epoch kept.

    Raises
    ------
    TrainingError
        If the loss becomes NaN or infinite; the last weights with a finite one are put back.
    """
    learnt, held_out = _split_rows(module, seen, device)
    update, n_before = len(module.history_), len(module.loss_curve_)

    def terms(x: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
        return _loss_terms(module, x, index, update, epoch, pull)

    def on_epoch(terms: dict[str, float]) -> bool:
        epoch = len(module.loss_curve_) - n_before + 1
        module.loss_curve_.append({"update": update + 1, "epoch": epoch, **terms})
        return bool(module.on_epoch and module.on_epoch(module, terms))

    try:
        return run_epochs(
            module,
            module.nets_,
            terms,
            rows,
            module.optimizer_,
            device=device,
            bfloat16=module.bfloat16_,
            learnt=learnt,
            held_out=held_out,
            epochs=module.n_epochs,
            patience=module.patience,
            max_grad_norm=module.max_grad_norm,
            on_epoch=on_epoch,
        )
    except DivergedError as diverged:
        module.optimizer_ = make_optimizer(module)  # the old one's moments are spoilt
        raise TrainingError(
            f"{module.label}: {diverged} of update {update + 1}; the last weights with a finite "
            f"loss are kept. Lower lr={module.lr}, or set max_grad_norm"
        ) from None
    finally:
        module.nets_.eval()


def _loss_terms(
    module: Autoencoder, x: Tensor, index: Tensor, update: int, epoch: int, pull: Pull
) -> dict[str, Tensor]:
    """Scalar terms of a batch, means over its rows; ``"loss"`` is the one to minimise."""
    mean, rest = module._split(module.net_of("encoder")(x))
    reconstruction = -module._expected_log_likelihood(x, mean, rest, update, epoch).mean()
    divergence = pull(index, mean, rest).mean()
    given = module.default_alpha if module.alpha is None else module.alpha
    alpha = scheduled(module, "alpha", given, update, epoch)
    return {
        "loss": reconstruction + alpha * divergence,
        "reconstruction": reconstruction,
        module.divergence: divergence,
    }


def _split_rows(
    module: Autoencoder, seen: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows held out, the same in every update."""
    order = np.random.default_rng(module.seed_).permutation(len(seen))
    n_held_out = int(module.validation_fraction * len(seen))
    learnt, held_out = np.sort(seen[order[n_held_out:]]), np.sort(seen[order[:n_held_out]])
    return torch.tensor(learnt, device=device), torch.tensor(held_out, device=device)


def scheduled(
    module: Autoencoder,
    name: str,
    value: float | Callable[[int, int], float],
    update: int,
    epoch: int,
) -> float:
    """An argument's value in an epoch, where it may be a function of update and epoch.

    Raises
    ------
    InputError
        If the function returns no number.
    """
    if not callable(value):
        return value
    number = value(update, epoch)
    if not isinstance(number, Real):
        raise InputError(f"{module.label}: {name} must return a number, got {number!r}")
    return float(number)


def temperature_of(module: Any, update: int, epoch: int) -> float:
    """Temperature of the relaxation in an epoch.

    Raises
    ------
    InputError
        If the user's function returns no number above 0.
    """
    if isinstance(module.temperature, Sequence):
        first, last = module.temperature
        afresh = update == 0 or not module.warm_start
        share = epoch / max(module.n_epochs - 1, 1) if afresh else 1.0
        return first * (last / first) ** share
    temperature = scheduled(module, "temperature", module.temperature, update, epoch)
    if not temperature > 0:
        raise InputError(f"{module.label}: temperature must be above 0, got {temperature}")
    return temperature


_BUILT = ("nets_", "optimizer_", "row_shape_", "bfloat16_")


class Autoencoder(Module):
    """Abstract base of AE, VAE and MultinomialVAE; see those for the parameters.

    A subclass says what its latents are: what the encoder's output tells of them (`_split`), how
    well they explain the rows (`_expected_log_likelihood`), and what the children's message makes
    of them (`_pull`, `_told`). `size` is their number, `codes_per_latent` that of the encoder's
    outputs for each, `divergence` what the loss terms call the pull.
    """

    takes_from_parents = (Data,)
    sends_down = Data
    codes_per_latent: int
    default_alpha: float
    divergence: str
    learns_from_shares = True
    _compiled: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({})

    def __init__(
        self,
        *,
        net: str,
        hidden_sizes: Sequence[int],
        filters: Sequence[int],
        batch_norm: bool,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        likelihood: str,
        noise_variance: float | str,
        alpha: float | Callable[[int, int], float] | None,
        augment: Callable[[Tensor], Tensor] | None,
        epochs: int | Sequence[int],
        batch_size: int,
        lr: float,
        weight_decay: float,
        scheduler: str | Callable | None,
        max_grad_norm: float | None,
        validation_fraction: float,
        patience: int,
        warm_start: bool,
        device: str,
        precision: str,
        compile: bool,
        name: str | None,
        random_state: int | None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.net = net
        self.hidden_sizes = hidden_sizes
        self.filters = filters
        self.batch_norm = batch_norm
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.alpha = alpha
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
        self.compile = compile

    # -- what the latents are: to be filled in by a subclass ------------------------------------

    @abstractmethod
    def _split(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """The encoder's output (B, n_codes) as latent means (B, size), and what else tells q."""

    @abstractmethod
    def _expected_log_likelihood(
        self, x: Tensor, mean: Tensor, rest: Tensor | None, update: int, epoch: int
    ) -> Tensor:
        """E_q[log p(x | z)] of each row of a batch, (B,), from what `_split` gave."""

    @abstractmethod
    def _pull(self, prior: Message | None, n_rows: int, device: torch.device) -> Pull:
        """From a batch's row numbers and what `_split` gave to its divergence from the message."""

    @abstractmethod
    def _told(self, prior: Message | None, n_rows: int) -> np.ndarray:
        """Latent means (N, size) by the children's message alone; the neutral ones if None."""

    @abstractmethod
    def _bound(self, inputs: list[Data], prior: Message | None) -> np.ndarray:
        """Each row's term of the joint objective, (N,)."""

    # -- module contract -----------------------------------------------------------------------

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options that cannot work, or data outside the likelihood's range."""
        known = [message for message in inputs if message is not None]
        n_own = known[0].n_rows if known else n_rows // processes.count()
        check_options(self, len(seen_rows(known, n_own)))
        for message in known:
            check_range(self, message)
        if self.net == "conv" and self.encoder is None and len(known) == len(inputs):
            needed_image_shape(join(known).shape[1:], f"{self.label}: net='conv'")

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Train encoder and decoder on the rows seen; the children's message pulls the latents."""
        array = join(inputs)
        device = resolve_device(self.device, self.label)
        pull = self._pull(prior, len(array), device)
        earlier = {name: value for name, value in vars(self).items() if name in _BUILT}
        seed = int(self.rng().integers(2**62))
        with private_random_state(seed, device):
            try:
                afresh = not earlier or not self.warm_start
                if afresh:
                    self._build(array.shape[1:])
                if afresh or self.precision != "auto":  # which is decided once, and kept
                    self.bfloat16_ = processes.of_first(uses_bfloat16(self.precision, device))
                self._check_row_shape(array.shape[1:])
                self.nets_.to(device)
                processes.spread(self.nets_)
                draw_apart(seed, device)
                seen = seen_rows(inputs, len(array))
                if self.compile:
                    self._compiled = {
                        name: compiled(self.nets_[name], device, self.label)
                        for name in ("encoder", "decoder")
                    }
                report = train(self, array, seen, pull, device)
                processes.spread(self.nets_)  # batch normalisation's means differ
                return report
            except BaseException:  # Ctrl-C too: a half-trained fresh start is no replacement
                if not self.warm_start:
                    vars(self).update(earlier)
                raise
            finally:
                vars(self).pop("_compiled", None)

    def net_of(self, name: str) -> Callable[[Tensor], Tensor]:
        """The encoder or decoder, compiled if it is in training and wanted so."""
        return self._compiled.get(name, self.nets_[name])

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Data]:
        """The reconstruction of every parent's rows; unseen ones as the children's message has it.

        A row counts as seen if all parents saw it.
        """
        whole = self.decode(self._latents(inputs, prior))
        parts = split_columns(whole, [math.prod(message.shape) for message in inputs])
        return [Data(part.reshape(m.array.shape)) for part, m in zip(parts, inputs, strict=True)]

    def objective(self, inputs: list[Message], prior: Message | None) -> float:
        """The module's term of the ELBO, in nats a row, over all rows.

        A row that was not seen has no likelihood, and its latents are the children's to sum out:
        it adds 0.
        """
        bound = self._bound(inputs, prior)
        seen = all_observed(inputs)
        return float((bound if seen is None else np.where(seen, bound, 0.0)).mean())

    @property
    def n_epochs(self) -> int:
        """Epochs of the coming update, unless it stops early."""
        several = self.epochs if isinstance(self.epochs, Sequence) else [self.epochs]
        return int(several[min(len(self.history_), len(several) - 1)])

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Decoded latents, for each parent."""
        return self._parts(self.decode(values))

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        return split_columns(rows, [parent.size for parent in self.parents])

    def artefacts(self) -> dict[str, np.ndarray]:
        """The original's x_hat_learn.txt and loss.txt (a row an epoch)."""
        return {
            "x_hat_learn.txt": np.concatenate([flat(m) for m in self.messages_down], axis=1),
            "loss.txt": np.array([list(epoch.values()) for epoch in self.loss_curve_]),
        }

    # -- use on new rows -----------------------------------------------------------------------

    def fit(self, x: ArrayLike, y: None = None) -> Autoencoder:
        """Train on an array x (N, ...) without a graph; returns self. `y` is ignored."""
        rows = as_rows(x, f"{self.label}.fit")
        message = Data(rows[processes.share(len(rows))])
        self.check([message], len(rows))
        self.record(self.learn([message], None))
        return self

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Latent means of rows: (N, ...) -> (N, size)."""
        return self._encode([Data(as_rows(x, f"{self.label}.encode"))])[0]

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Data-space means of latents: (N, size) -> (N, ...)."""
        self._check_fitted()
        z = as_rows(z, f"{self.label}.decode")
        if z.shape[1:] != (self.size,):
            raise InputError(
                f"{self.label}: expected latents of shape (N, {self.size}), got {z.shape}"
            )
        return self._decode(z)

    def _decode(self, z: np.ndarray) -> np.ndarray:
        decoder, likelihood = self.nets_["decoder"], self.nets_["likelihood"]
        rows = self._in_chunks(lambda part: likelihood.mean(decoder(part)), z)
        return rows.reshape(len(z), *self.row_shape_)

    def reconstruct(self, x: ArrayLike) -> np.ndarray:
        """Rows through encoder and decoder, in data space: (N, ...) -> (N, ...)."""
        return self.decode(self.encode(x))

    def _sampler(self, n_samples: int, random_state: int | None) -> np.random.Generator:
        """The generator of a draw, once its arguments are checked."""
        self._check_fitted()
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        return np.random.default_rng(self.seed_ if random_state is None else random_state)

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
            load_optimizer(self.optimizer_, optimizer)
            state["row_shape_"] = tuple(state["row_shape_"])
        super().set_state(state)

    # -- evaluation ----------------------------------------------------------------------------

    def _latents(self, inputs: list[Data], prior: Message | None) -> np.ndarray:
        """Latent means of the parents' rows, (N, size); the children's where a row was not seen."""
        means, _ = self._encode(inputs)
        seen = all_observed(inputs)
        if seen is not None:
            means[~seen] = self._told(prior, len(means))[~seen]
        return means

    def _encode(self, inputs: list[Data]) -> tuple[np.ndarray, np.ndarray | None]:
        """What `_split` says of the parents' rows; of those not seen it means nothing."""
        self._check_fitted()
        array = join(inputs)
        self._check_row_shape(array.shape[1:])
        for message in inputs:
            check_range(self, message)
        encoder = self.nets_["encoder"]
        return self._in_chunks(lambda x: self._split(encoder(x)), array)

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x | z) of each row: (B, ...), (B, size) -> (B,)."""
        output = self.net_of("decoder")(z).float().flatten(1)  # (B, n_features)
        return self.nets_["likelihood"].log_prob(x.flatten(1), output)

    def _log_likelihoods(self, inputs: list[Data], z: np.ndarray) -> np.ndarray:
        """The same of the parents' rows: (N, size) -> (N,)."""
        return self._in_chunks(self._log_likelihood, join(inputs), z)

    def _in_chunks(self, function: Callable, *arrays: np.ndarray) -> np.ndarray | tuple:
        return in_chunks(self.nets_, function, *arrays, row_shape=self.row_shape_)

    def _check_fitted(self) -> None:
        if not hasattr(self, "nets_"):
            raise NotReadyError(f"{self.label} has learnt nothing yet: call update() or fit(x)")

    def _check_row_shape(self, row_shape: tuple[int, ...]) -> None:
        if row_shape != self.row_shape_:
            raise InputError(
                f"{self.label}: trained on rows of shape {self.row_shape_}, got {row_shape}"
            )
