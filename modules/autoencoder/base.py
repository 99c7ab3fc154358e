"""What AE, VAE and MultinomialVAE share: options, the loss, training, and use on new rows."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from torch import Tensor, nn

from ... import arrays, paths, processes
from ...arrays import as_rows
from ...errors import InputError, NotFittedError, TrainingError
from ...messages import Data, Deferred, Message
from ...module import Node, Part, Posterior, Values, content_of
from ...observation import Observation
from ...options import (
    Choice,
    Count,
    EachUpdate,
    Flag,
    Function,
    Number,
    PositiveInt,
    RandomState,
    as_numbers,
    called,
    check_argument,
    generator_of,
    of_update,
)
from ..common.estimators import ArrayEstimator
from ..common.inputs import all_observed, join, split_columns
from ..nets import architectures
from ..nets.architectures import Bernoulli, GaussianNoise
from ..nets.device import (
    check_float32,
    check_outputs,
    check_sizes,
    compiled,
    draw_apart,
    in_blocks,
    private_random_state,
    scale_problem,
    uses_bfloat16,
)
from ..nets.trainer import DivergedError, NetOptions, Terms, Trainer, check_batches, load_optimizer
from .divergences import Target
from .parts import DecoderPart

Arrays = tuple[np.ndarray, ...]
Path = Callable[..., np.ndarray]  # from two latents and a number of steps to latents
Ramp = Callable[[int, int], float]  # of the numbers of update and epoch, both from 0


@dataclass(eq=False, repr=False, kw_only=True)
class Autoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetOptions, ArrayEstimator):
    """Abstract base of AE, VAE and MultinomialVAE; `VAE` describes the parameters.

    A subclass says what its latents are: what the encoder's output tells of them (`q_of`), how they
    explain the rows (`expected_log_likelihood`), and what the children's message makes of them
    (`target_of`, `latents_by`).
    """

    net: Annotated[str, Choice("mlp", "conv")] = "mlp"
    batch_norm: Flag = False
    encoder: nn.Module | None = None
    decoder: nn.Module | None = None
    likelihood: Annotated[str, Choice("bernoulli", "gaussian")] = "bernoulli"
    noise_variance: Annotated[float | str, Number(above=0, or_words=("learnt",))] = 1.0
    alpha: Annotated[
        float | Ramp | None,
        Number(at_least=0, or_none=True, or_function_of=("update", "epoch")),
    ] = None
    epochs: Annotated[int | Sequence[int], EachUpdate(Count())] = 200
    max_grad_norm: Annotated[float | None, Number(above=0, or_none=True)] = None
    validation_fraction: Annotated[float, Number(at_least=0)] = 0.0
    patience: PositiveInt = 10
    warm_start: Flag = True
    augment_target: Annotated[str | Sequence[str], EachUpdate(Choice("augmented", "clean"))] = (
        "augmented"
    )

    takes_from_parents = (Data,)
    sends_down = Data
    learns_from_shares = True
    codes_per_latent = 1  # outputs of the encoder for each latent
    q_parameters: ClassVar[tuple[str, ...]] = ("mean",)  # attributes of q; latent means first
    sent_parameters: ClassVar[tuple[str, ...]] = ("mean",)  # contents of the message up
    default_alpha = 1.0
    divergence = "kl"  # what the loss terms call the pull to the target

    # -- what the latents are: to be filled in by a subclass ------------------------------------

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of latents."""

    @abstractmethod
    def q_of(self, x: Tensor) -> Any:
        """q(z | x) of a batch (B, ...): a distribution whose `mean` (B, n_outputs) are latents."""

    @staticmethod
    @abstractmethod
    def sent(codes: Tensor) -> tuple[Tensor, ...]:
        """The `sent_parameters`, (B, n_outputs) each, of what the encoder makes of a batch."""

    @abstractmethod
    def target_of(self, from_children: Message | None, n_rows: int, device: torch.device) -> Target:
        """What the latents are pulled to by the children's message, or without one."""

    @abstractmethod
    def latents_by(self, from_children: Message | None, n_rows: int) -> np.ndarray:
        """Latent means (N, n_outputs) by the children's message alone; neutral ones if None."""

    @abstractmethod
    def _message_up(self, q: Arrays, observed: np.ndarray | None) -> Message:
        """The message made of q's parameters, (N, ...) each."""

    @abstractmethod
    def _row_bounds(self, rows: np.ndarray, q: Arrays, children: Message | None) -> np.ndarray:
        """Each row's term of the joint objective, (N,), by q's parameters, (N, ...) each."""

    @abstractmethod
    def _draw(self, n: int, rng: Generator, values: Values, component: int | None) -> np.ndarray:
        """Latents (n, n_outputs) to decode; see `generate`."""

    @property
    def _n_features_out(self) -> int:
        return self.n_outputs

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn is to know: latents are float32, whatever the rows are."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    # -- the model -----------------------------------------------------------------------------

    def loss(
        self, x: Tensor, explained: Tensor, target: Target, epoch: int = 0
    ) -> dict[str, Tensor]:
        """``-E_q[log p(explained | z)] + alpha KL(q(z | x) || target)``, batch means in nats.

        The rows explained are x, or those it was augmented from where `augment_target` is "clean".
        """
        q = self.q_of(x)
        reconstruction = -self.expected_log_likelihood(explained, q, epoch).mean()
        kl = target.kl(q).mean()
        alpha = self.default_alpha if self.alpha is None else self.alpha
        if not self.nets_.training:  # rows held out: by one measure in all epochs of an update
            epoch = self.n_epochs - 1
        loss = reconstruction + self._ramped("alpha", alpha, epoch, Number(at_least=0)) * kl
        return {"loss": loss, "reconstruction": reconstruction, self.divergence: kl}

    def expected_log_likelihood(self, x: Tensor, q: Any, epoch: int) -> Tensor:
        """E_q[log p(x | z)] of each row of a batch, (B,), by one draw of z per row."""
        return self.log_likelihood(x, q.rsample())

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x | z) of each row: (B, ...), (B, n_outputs) -> (B,)."""
        output = self._net("decoder")(z).float().flatten(1)  # (B, n_features)
        return self._likelihood.log_prob(x.flatten(1), output)

    @property
    def _likelihood(self) -> Bernoulli | GaussianNoise:
        return cast(Bernoulli | GaussianNoise, self.nets_["likelihood"])

    def _net(self, name: str) -> Callable[[Tensor], Tensor]:
        """The encoder or decoder, compiled if it is in training and wanted so."""
        net = getattr(self, "_compiled", self.nets_)[name]
        is_own = getattr(self, name) is not None
        return architectures.own_net(name, net, self.label) if is_own else net

    def _ramped(self, name: str, value: float | Ramp, epoch: int, range_: Number) -> float:
        """An argument's value, where it may be a function; InputError unless it is in range."""
        if not callable(value):
            return float(value)
        number = called(f"{self.label}: {name}", value, len(self.history_), epoch)
        if not range_.accepts(number):
            raise InputError(
                f"{self.label}: {name} must return {range_.wanted}, got {number!r:.60}"
            )
        return float(number)

    # -- training ------------------------------------------------------------------------------

    @property
    def n_epochs(self) -> int:
        """Epochs of the coming update, unless it stops early."""
        return int(of_update(self.epochs, len(self.history_)))

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options that cannot work, or data outside the likelihood's range."""
        known = [message for message in inputs if isinstance(message, Data)]
        n_own = known[0].n_rows if known else n_rows // processes.count()
        self._torch_device()  # raises for one that is not there
        for name in ("encoder", "decoder"):
            net = getattr(self, name)
            if net is not None and not isinstance(net, nn.Module):
                raise InputError(f"{self.label}: {name} must be a torch.nn.Module, got {net!r:.60}")
        self._check_n_learnt(len(observed_rows(known, n_own)))
        for message in known:
            check_float32(self.label, message.array)
            self._check_range(message)
        if self.net == "conv" and self._has_default_net and len(known) == len(inputs):
            architectures.needed_image_shape(join(known).shape[1:], f"{self.label}: net='conv'")

    @property
    def _has_default_net(self) -> bool:
        return self.encoder is None or self.decoder is None

    def _check_n_learnt(self, n_observed: int) -> None:
        """Raise InputError if this process's rows cannot be divided as wanted."""
        if not processes.total(n_observed):
            raise InputError(
                f"{self.label}: no row is observed in all of its parents, so there is nothing to "
                "learn from; give some with observed=True"
            )
        n_held_out = int(self.validation_fraction * n_observed)
        if self.validation_fraction and n_held_out not in range(1, n_observed):
            raise InputError(
                f"{self.label}: validation_fraction={self.validation_fraction} of {n_observed} "
                "rows leaves no rows on one side; it must lie between 0 and 1"
            )
        batch_norm = self.batch_norm and self._has_default_net
        check_batches(self.label, n_observed - n_held_out, self.batch_size, batch_norm=batch_norm)

    def _check_range(self, message: Message) -> None:
        """Raise InputError for observed rows outside the likelihood's range."""
        rows = cast(Data, message).array
        rows = rows if message.observed is None else rows[message.observed]
        if self.likelihood == "bernoulli" and len(rows) and (rows.min() < 0 or rows.max() > 1):
            values = f"[{rows.min():g}, {rows.max():g}]"
            raise InputError(
                f"{self.label}: likelihood='bernoulli' needs values in [0, 1], got {values}; "
                "divide images by 255, or use likelihood='gaussian'"
            )

    def _check_augmented(self, x: Tensor) -> None:
        """Raise InputError for augmented rows outside the likelihood's range."""
        low, high = (float(value) for value in x.aminmax())
        if self.likelihood == "bernoulli" and (low < -1e-4 or high > 1 + 1e-4):
            raise InputError(
                f"{self.label}: likelihood='bernoulli' needs values in [0, 1], but augment made "
                f"[{low:g}, {high:g}] of them; end it by clamp(0, 1), or use likelihood='gaussian'"
            )

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Train on the rows observed in all parents; the children's message pulls the latents.

        Returns the terms of the epoch kept, and the number of epochs. TrainingError if the loss
        becomes NaN or infinite.
        """
        rows, device = join(inputs), self._torch_device()
        seed = int(self.rng().integers(2**62))
        restores = of_update(self.augment_target, len(self.history_)) == "clean"

        def loss(x: Tensor, clean: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
            explained = clean if restores else x
            if self.augment is not None and self.nets_.training and not epoch:
                self._check_augmented(explained)
            return self.loss(x, explained, target.rows(index), epoch)

        def on_epoch(epoch: int, terms: Terms) -> bool:
            self.loss_curve_.append({"update": len(self.history_) + 1, "epoch": epoch, **terms})
            return bool(self.on_epoch and self.on_epoch(self, epoch, terms))

        problem = scale_problem(rows)
        if problem and self.likelihood == "gaussian" and not self.history_:
            warnings.warn(
                f"{self.label}: in a Gaussian likelihood the largest columns outweigh all others. "
                f"{problem}",
                stacklevel=3,
            )
        with private_random_state(seed, device), self._training(problem):
            target = self.target_of(from_children, len(rows), device)
            self._make_ready(rows.shape[1:], device)
            draw_apart(seed, device)
            learnt, held_out = self._split_rows(observed_rows(inputs, len(rows)), device)
            settings = self._settings() | {"bfloat16": self.bfloat16_}
            trainer = Trainer(self.nets_, loss, self.optimizer_, device, **settings)
            report = trainer.fit(rows, self.n_epochs, learnt, held_out, on_epoch)
            processes.spread(self.nets_)  # batch normalisation's means differ
        return report

    def _make_ready(self, row_shape: tuple[int, ...], device: torch.device) -> None:
        """Nets and optimiser of the coming update: new ones, or those there are, as wanted now."""
        goes_on = hasattr(self, "nets_") and self.warm_start
        afresh = not (goes_on and self._blueprint == self._current_blueprint())
        if afresh:
            self._build(row_shape)
        if afresh or self.precision != "auto":  # which is decided once, and kept
            bfloat16 = uses_bfloat16(self.precision, device, self.nets_, self.batch_size)
            self.bfloat16_ = processes.of_first(bfloat16)
        self._check_row_shape(row_shape)
        if any(parameter.device != device for parameter in self.nets_.parameters()):
            self.nets_.to(device)
            load_optimizer(self.optimizer_, self.optimizer_.state_dict())
        self.optimizer_.param_groups[0]["weight_decay"] = self.weight_decay
        processes.spread(self.nets_)
        if self.compile:
            pair = ("encoder", "decoder")
            self._compiled = {n: compiled(self.nets_[n], device, self.label) for n in pair}

    def _split_rows(self, observed: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Rows to learn from and rows held out, the same in every update."""
        order = np.random.default_rng(self.seed_).permutation(len(observed))
        n_held_out = int(self.validation_fraction * len(observed))
        groups = (order[n_held_out:], order[:n_held_out])
        learnt, held_out = (torch.tensor(np.sort(observed[g]), device=device) for g in groups)
        return learnt, held_out

    @contextmanager
    def _training(self, problem: str | None) -> Iterator[None]:
        """Within it the nets may train; they are compiled no longer than that.

        `problem` is what is wrong with the rows' scale, if anything.
        """
        try:
            yield
        except DivergedError as error:
            raise TrainingError(
                f"{self.label}: {error} of update {len(self.history_) + 1}; what was learnt before "
                f"it is kept. {problem or f'Lower lr={self.lr}, or set max_grad_norm'}"
            ) from None
        finally:
            self.__dict__.pop("_compiled", None)
            if hasattr(self, "nets_"):
                self.nets_.eval()

    # -- messages ------------------------------------------------------------------------------

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """q(z | x) of the parents' rows; a reconstruction that is made once it is read.

        A row counts as observed if it is so in all parents. Of others the latents are what the
        children's message has, and they add 0 to the bound.
        """
        q, observed = self._encode(inputs), all_observed(inputs)
        latents = q[0]
        if observed is not None:
            latents = arrays.copy(latents)
            latents[~observed] = self.latents_by(from_children, len(latents))[~observed]

        def bound() -> float:
            terms = self._row_bounds(join(inputs), q, from_children)  # (N,)
            return float((terms if observed is None else np.where(observed, terms, 0.0)).mean())

        down = (Deferred(latents, "reconstruction", checked=False),) * len(inputs)
        return Posterior(self._message_up(q, observed), down, bound)

    def reconstruction(self, values: np.ndarray) -> list[Data]:
        """Decoded latents (N, n_outputs), for each parent."""
        shapes = self._parents_shapes()
        tables = split_columns(self._decode(values), [math.prod(shape) for shape in shapes])
        reshaped = (t.reshape(len(t), *shape) for t, shape in zip(tables, shapes, strict=True))
        return [Data(rows, checked=False) for rows in reshaped]

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Decoded latents, for each parent: those given as `values`, else draws of the prior."""
        rows = self.decode(self._draw(n_samples, rng, values, component))
        return split_columns(rows, [math.prod(shape) for shape in self._parents_shapes()])

    def _parents_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the parents' rows; its own rows' where it was trained without a graph."""
        return [_shape_from(parent) for parent in self.parents] or [self.row_shape_]

    def parts(self) -> list[Part]:
        """The encoder, to what is sent up, and the decoder, to the rows of each parent."""
        self._check_fitted()
        nets = cast(nn.ModuleDict, deepcopy(self.nets_).cpu().eval())
        shapes, latents = self._parents_shapes(), self.sent_parameters[0]
        numbers = [f"_{number}" for number in range(len(shapes))] if len(shapes) > 1 else [""]
        rows = tuple(f"reconstruction{number}" for number in numbers)
        parents = tuple((parent, "array") for parent in self.parents)

        def encoded(*arrays: np.ndarray) -> list[np.ndarray]:
            up = self.infer([Data(array, checked=False) for array in arrays], None).up
            return [content_of(cast(Message, up), name) for name in self.sent_parameters]

        def decoded(values: np.ndarray) -> list[np.ndarray]:
            return [message.array for message in self.reconstruction(values)]

        encoder = architectures.Whole(nets["encoder"], self.sent)
        decoder = self._decoder_part(nets, shapes)
        return [
            Part("encoder", encoder, parents, self.sent_parameters, encoded),
            Part("decoder", decoder, ((self, latents),), rows, decoded),
        ]

    def _decoder_part(self, nets: nn.ModuleDict, shapes: list[tuple[int, ...]]) -> DecoderPart:
        return DecoderPart(nets, shapes)

    # -- use on new rows -----------------------------------------------------------------------

    def encode(self, x: ArrayLike) -> np.ndarray:
        """Latent means of rows: (N, ...) -> (N, n_outputs)."""
        return self._encode([Data(self.new_rows(x, "encode"), checked=False)])[0]

    def transform(self, x: ArrayLike) -> np.ndarray:
        """Latent means of rows, see `encode`, by scikit-learn's name for it."""
        return self.encode(x)

    def inverse_transform(self, z: ArrayLike) -> np.ndarray:
        """Data-space means of latents, see `decode`, by scikit-learn's name for it."""
        return self.decode(z)

    def lower_bound(self, x: ArrayLike) -> np.ndarray:
        """Evidence lower bound of each row under the module's own prior, in nats: (N, ...) -> (N,).

        Of an AE, which has no prior, log p(x | z) at the encoder's z. Of a VAE by one draw of z a
        row, with the same noise each time.
        """
        rows = self.new_rows(x, "lower_bound")
        q = self._encode([Data(rows, checked=False)])
        return self._row_bounds(rows, q, None) + self._expected_log_prior(q)

    def _expected_log_prior(self, q: Arrays) -> np.ndarray | float:
        """What of the evidence lower bound the children's term of the joint objective holds."""
        return 0.0

    def score(self, x: ArrayLike, y: None = None) -> float:
        """Mean evidence lower bound of the rows, in nats, see `lower_bound`; higher is better."""
        return float(self.lower_bound(x).mean())

    def interpolate(
        self, start: ArrayLike, end: ArrayLike, n_steps: int = 10, path: Path = paths.straight
    ) -> np.ndarray:
        """Rows on the way from one row to another, by their latents.

        Parameters
        ----------
        start, end : array-like, shape (...)
            Rows such as the module was trained on.
        n_steps : int
            Number of rows, the reconstructions of both ends included; at least 2.
        path : callable
            From two latents (D,) and a number of steps to latents (n_steps, D), such as
            `serkit.paths.straight`, `serkit.paths.spherical`, or, through where a mixture is dense,
            ``functools.partial(serkit.paths.densest, density=gmm.density())``.

        Returns
        -------
        np.ndarray, shape (n_steps, ...)
        """
        check_argument(self.label, "path", path, Function(of=("start", "end", "n_steps")))
        self._check_fitted()
        range_ = Count(at_least=2, each=math.prod(self.row_shape_))
        check_argument(self.label, "n_steps", n_steps, range_)
        ends = [as_numbers(self.label, *end) for end in (("start", start), ("end", end))]
        if ends[0].shape != ends[1].shape:
            shapes = f"{ends[0].shape} and {ends[1].shape}"
            raise InputError(f"{self.label}: start and end must be rows of one shape, got {shapes}")
        rows = as_rows(np.stack(ends), f"{self.label}.interpolate")
        z = self._encode([Data(rows, checked=False)])[0]  # (2, n_outputs)
        what = f"{self.label}: path"
        latents = as_rows(called(what, path, *z, n_steps), what)
        expected = (n_steps, self.n_outputs)
        if latents.shape != expected:
            raise InputError(f"{what} must return latents of shape {expected}, got {latents.shape}")
        return self.decode(latents)

    def _encode(self, inputs: Sequence[Message]) -> Arrays:
        """The parameters of q(z | x) for the parents' rows; those of missing rows mean nothing."""
        self._check_fitted()
        rows = join(inputs)
        self._check_row_shape(rows.shape[1:])
        for message in inputs:
            self._check_range(message)

        def parameters(x: Tensor) -> tuple[Tensor, ...]:
            q = self.q_of(x)
            return tuple(getattr(q, name) for name in self.q_parameters)

        return self._in_blocks(parameters, rows)

    def decode(self, z: ArrayLike) -> np.ndarray:
        """Data-space means of latents: (N, n_outputs) -> (N, ...)."""
        self._check_fitted()
        latents = as_rows(z, f"{self.label}.decode")
        if latents.shape[1:] != (self.n_outputs,):
            expected = f"expected latents of shape (N, {self.n_outputs})"
            raise InputError(f"{self.label}: {expected}, got {latents.shape}")
        return self._decode(latents)

    def _decode(self, z: np.ndarray) -> np.ndarray:
        decoder, mean = self._net("decoder"), self._likelihood.mean
        rows = self._in_blocks(lambda block: mean(decoder(block)), z)
        return rows.reshape(len(z), *self.row_shape_)

    def reconstruct(self, x: ArrayLike) -> np.ndarray:
        """Rows through encoder and decoder, in data space: (N, ...) -> (N, ...)."""
        return self.decode(self.encode(x))

    def _sample(
        self, n_samples: int, random_state: RandomState, component: int | None
    ) -> np.ndarray:
        """Decoded draws of the prior, (n_samples, ...), by the module's own seed unless given."""
        self._check_fitted()
        range_ = Count(each=math.prod(self.row_shape_))
        check_argument(self.label, "n_samples", n_samples, range_)
        rng = generator_of(self.label, random_state, self.seed())
        return self.decode(self._draw(n_samples, rng, None, component))

    def _in_blocks(self, function: Callable, *tables: np.ndarray) -> Any:
        results = in_blocks(self.nets_, function, *tables, row_shape=self.row_shape_)
        for result in results if isinstance(results, tuple) else (results,):
            check_outputs(self.label, result, tables[0])
        return results

    def _check_fitted(self) -> None:
        if not hasattr(self, "nets_"):
            raise NotFittedError(f"{self.label} has learnt nothing yet: call update() or fit(x)")
        if self._blueprint != self._current_blueprint():
            raise NotFittedError(
                f"{self.label}: arguments that its nets are made of have changed since it learnt; "
                "call update() or fit(x) again, or set them back"
            )

    def _check_row_shape(self, row_shape: tuple[int, ...]) -> None:
        if row_shape != self.row_shape_:
            expected = f"trained on rows of shape {self.row_shape_}"
            raise InputError(f"{self.label}: {expected}, got {row_shape}")

    # -- building and saving -------------------------------------------------------------------

    def _build(self, row_shape: tuple[int, ...]) -> None:
        """New nets for rows of `row_shape`; a user's own are copied, so theirs stay as they are."""
        self.nets_, self.row_shape_ = build_nets(self, row_shape), row_shape
        self._blueprint = self._current_blueprint()
        self.optimizer_ = make_optimizer(self)
        self.loss_curve_: list[dict[str, float]] = getattr(self, "loss_curve_", [])

    def _current_blueprint(self) -> tuple[Any, ...]:
        """The arguments that shape the nets; where they have changed, a fit starts afresh."""
        filters = tuple(self.filters) if self.net == "conv" else ()
        default = (self.net, tuple(self.hidden_sizes), filters, self.batch_norm)
        pair = [default if net is None else net for net in (self.encoder, self.decoder)]
        noise = self.noise_variance if self.likelihood == "gaussian" else None
        return (self.n_outputs, self.likelihood, noise, *pair)

    def get_state(self) -> dict[str, Any]:
        """Everything learnt, nets and optimiser as their state dicts."""
        state = super().get_state()
        built = [name for name in ("nets_", "optimizer_") if name in state]
        return state | {name: state[name].state_dict() for name in built}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` gave."""
        state = dict(state)
        nets, optimizer = state.pop("nets_", None), state.pop("optimizer_", None)
        if nets is not None:
            device = self._torch_device()
            state["row_shape_"] = tuple(state["row_shape_"])
            with private_random_state(0, device):
                if self.encoder is None:
                    check_sizes(nets, partial(build_nets, self, state["row_shape_"]))
                self._build(state["row_shape_"])
            self.nets_.load_state_dict(nets)
            self.nets_.to(device).eval()
            load_optimizer(self.optimizer_, optimizer)
        super().set_state(state)


def build_nets(module: Autoencoder, row_shape: tuple[int, ...]) -> nn.ModuleDict:
    """New encoder, decoder and likelihood for rows of `row_shape`; a user's own are copied.

    Both at once, so that weights they share stay shared.
    """
    n_latents, encoder, decoder = int(module.n_outputs), module.encoder, module.decoder
    n_codes = module.codes_per_latent * n_latents
    ends = (row_shape, n_codes, n_latents)
    pair: list[nn.Module] = []
    if encoder is None or decoder is None:
        pair = [*default_pair(module, *ends)]
    if encoder is not None:
        pair[:1] = [architectures.checked_encoder(encoder, *ends, module.label)]
    if decoder is not None:
        pair[1:] = [architectures.checked_decoder(decoder, row_shape, n_latents, module.label)]
        if module.likelihood == "bernoulli":
            _warn_of_probabilities(pair[1], n_latents, module.label)
    gaussian = module.likelihood == "gaussian"
    likelihood = GaussianNoise(module.noise_variance) if gaussian else Bernoulli()
    encoder, decoder = deepcopy(pair)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder, "likelihood": likelihood})


def default_pair(
    module: Autoencoder, row_shape: tuple[int, ...], n_codes: int, n_latents: int
) -> tuple[nn.Module, nn.Module]:
    """The encoder and decoder that `net` names, new ones."""
    sizes = (module.hidden_sizes, n_codes, n_latents, module.batch_norm)
    if module.net == "conv":
        image_shape = architectures.needed_image_shape(row_shape, f"{module.label}: net='conv'")
        return architectures.conv_pair(image_shape, module.filters, *sizes)
    return architectures.mlp_pair(math.prod(row_shape), *sizes)


def _warn_of_probabilities(decoder: nn.Module, n_latents: int, label: str) -> None:
    if architectures.ends_in_probabilities(decoder, n_latents):
        warnings.warn(
            f"{label}: decoder returns values in [0, 1] alone, as by a Sigmoid at its end, which "
            "likelihood='bernoulli' takes for logits, so that all probabilities lie between 0.5 "
            "and 0.73; leave the Sigmoid out",
            stacklevel=2,
        )


def make_optimizer(module: Autoencoder) -> torch.optim.Optimizer:
    """AdamW over all that is learnt; a learnt noise variance does not decay."""
    nets = module.nets_
    noise = [p for p in nets["likelihood"].parameters() if p.requires_grad]
    learnt = architectures.learnable(nets, module.label, "encoder and decoder")  # noise last
    groups: list[dict[str, Any]] = [{"params": learnt[: len(learnt) - len(noise)]}]
    groups += [{"params": noise, "weight_decay": 0.0}] if noise else []
    return torch.optim.AdamW(groups, lr=module.lr, weight_decay=module.weight_decay, fused=True)


def observed_rows(inputs: Sequence[Message], n_rows: int) -> np.ndarray:
    """Numbers of the rows that are observed in every message."""
    observed = all_observed(inputs)
    return np.arange(n_rows) if observed is None else np.flatnonzero(observed)


def _shape_from(parent: Node) -> tuple[int, ...]:
    """Shape of a row that a parent sends."""
    if isinstance(parent, Observation):
        return parent.row_shape
    message = parent.message_up
    return (cast(int, parent.n_outputs),) if message is None else message.shape
