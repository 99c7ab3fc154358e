"""One training loop for every net: minibatches, early stopping, and an end where it diverges.

It knows nothing of the model: nets, a loss of batches and rows are what it is given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import arrays, processes
from ...errors import InputError
from ...options import (
    Choice,
    Counts,
    Flag,
    Function,
    Number,
    Options,
    PositiveInt,
    called,
    in_words,
)
from ..common.devices import resolve_device
from .device import as_tensor, evaluating

Rows = np.ndarray | Tensor
Terms = dict[str, float]
Loss = Callable[[Tensor, Tensor, Tensor, int], dict[str, Tensor]]
Schedule = Callable[[torch.optim.Optimizer, int], Any]
Scheduler = Annotated[
    str | Schedule | None,
    Choice(None, "cosine", "onecycle", or_function_of=("optimizer", "n_steps")),
]


@dataclass(eq=False, repr=False, kw_only=True)
class NetOptions(Options):
    """Constructor arguments of whatever has nets; `VAE` and `NetClassifier` describe them."""

    hidden_sizes: Annotated[Sequence[int], Counts(or_empty=True, each=1)] = (128,)
    filters: Annotated[Sequence[int], Counts(each=1)] = (16, 32)
    batch_size: PositiveInt = 500
    lr: Annotated[float, Number(above=0)] = 1e-3
    weight_decay: Annotated[float, Number(at_least=0)] = 0.0
    scheduler: Scheduler = None
    augment: Annotated[Callable[[Tensor], Tensor] | None, Function(of=("batch",), or_none=True)] = (
        None
    )
    device: str = "auto"
    precision: Annotated[str, Choice("auto", "bfloat16", "float32")] = "auto"
    compile: Flag = False

    def _torch_device(self) -> torch.device:
        return resolve_device(self.device, self.label)

    def _settings(self) -> dict[str, Any]:
        """A trainer's settings: the arguments of the same names."""
        names = [field.name for field in fields(Trainer) if field.kw_only]
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


class DivergedError(Exception):
    """The loss became NaN or infinite."""

    def __init__(self, epoch: int, terms: Terms) -> None:
        name, value = next(term for term in terms.items() if not math.isfinite(term[1]))
        super().__init__(f"{name} became {value} in epoch {epoch}")


@dataclass(frozen=True)
class Trainer:
    """Fits nets to rows by minimising a loss over minibatches; `VAE` describes the settings.

    From a batch of rows as augmented, (B, ...), the same as they were, their numbers (B,) and the
    epoch, from 0, the loss makes scalar terms, means over the batch; the one named ``"loss"`` is
    minimised.
    """

    nets: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    device: torch.device
    _: KW_ONLY
    lr: float
    batch_size: int  # in several processes of theirs together
    scheduler: str | Schedule | None = None
    max_grad_norm: float | None = None
    patience: int = 1
    augment: Callable[[Tensor], Tensor] | None = None
    bfloat16: bool = False
    label: str = "Trainer"  # how error texts call what is trained

    def fit(
        self,
        rows: np.ndarray,
        epochs: int,
        learnt: Tensor,
        held_out: Tensor,
        on_epoch: Callable[[int, Terms], bool | None],
    ) -> Terms:
        """Train; returns the number of epochs run, and the terms of the one whose weights are kept.

        In every epoch the rows (N, ...) whose numbers are `learnt` are shuffled into batches of
        nearly equal size. Of several processes each brings an equal share of its rows to every
        batch, and all learn from the mean gradient. Rows go to the device as a whole, unless they
        lie in a memory-mapped file: then batches are read while the one before is trained on.

        The weights kept are the best on the rows `held_out`, and where there are none the last.
        `on_epoch` is told the number of each epoch, from 1, and its mean terms; a true answer ends
        the training. A `DivergedError` leaves weights that are good for nothing.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        loss = processes.with_mean_gradients(self.nets, self.loss)
        source = rows if arrays.is_mapped(rows) else as_tensor(rows, self.device)
        n_batches = batches_of(len(learnt), self.batch_size)
        shares = _shares(learnt, n_batches)
        scheduler = make_scheduler(
            self.label, self.scheduler, self.optimizer, self.lr, epochs * n_batches
        )
        best, best_epoch, report, kept = math.inf, 0, Terms(), dict[str, Tensor]()
        self.nets.train()
        for epoch in range(epochs):
            order = learnt[torch.randperm(len(learnt), device=self.device)]
            sums = torch.zeros((), device=self.device)
            batches = self._batches(source, order.tensor_split(n_batches))
            for (index, x), share in zip(batches, shares, strict=True):
                augmented = self._augmented(x)  # in full precision: coordinates must not be rounded
                with self._autocast():
                    terms = loss(augmented, x, index, epoch)
                self.optimizer.zero_grad()
                processes.backward(terms["loss"] * share)
                if self.max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
                self.optimizer.step()
                if scheduler is not None:
                    called(f"{self.label}: scheduler.step", scheduler.step)
                values = torch.stack([value.detach() for value in terms.values()])
                sums = sums + values * len(index)  # (number of terms,)
            means = dict(zip(terms, _means(sums, len(learnt)), strict=True))
            if len(held_out):
                means["held_out_loss"] = self._mean_loss(source, held_out, epoch)
            if not all(map(math.isfinite, means.values())):
                raise DivergedError(epoch + 1, means)
            score = means.get("held_out_loss", -epoch)
            if score < best:
                best, best_epoch, report = score, epoch, means
                kept = _weights(self.nets)
            if on_epoch(epoch + 1, means) or epoch - best_epoch >= self.patience:
                break
        self.nets.load_state_dict(kept)
        if not all(bool(values.isfinite().all()) for values in kept.values()):  # also of batch norm
            raise DivergedError(epoch + 1, {"a weight": math.inf})
        if not (len(held_out) or self._is_finite(source, learnt)):  # the last step has exploded
            raise DivergedError(epoch + 1, {"loss": math.nan})
        return {**report, "epochs": epoch + 1}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _batches(self, source: Rows, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers and rows of each part; from an array a thread reads one part ahead."""
        if isinstance(source, Tensor):
            yield from ((index, source[index]) for index in parts)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(_read, source, parts[0], self.device)
            for index, following in itertools.zip_longest(parts, parts[1:]):
                x = coming.result()
                if following is not None:
                    coming = pool.submit(_read, source, following, self.device)
                yield index, x

    def _augmented(self, x: Tensor) -> Tensor:
        if self.augment is None:
            return x
        return transformed(self.augment, x.clone(), f"{self.label}: augment")  # may work in place

    def _mean_loss(self, source: Rows, index: Tensor, epoch: int) -> float:
        """Mean loss over some rows, in evaluation mode."""
        total = torch.zeros((), device=self.device)
        with evaluating(self.nets), self._autocast():
            for part, x in self._batches(source, index.split(int(self.batch_size))):
                total = total + self.loss(x, x, part, epoch)["loss"] * len(x)
        return _means(total[None], len(index))[0]

    def _is_finite(self, source: Rows, learnt: Tensor) -> bool:
        return math.isfinite(self._mean_loss(source, learnt[: self.batch_size], 0))


def transformed(transform: Callable[[Tensor], Tensor], x: Tensor, what: str) -> Tensor:
    """A batch as a transform makes it; InputError unless that is a tensor like the batch."""
    result = called(what, transform, x)
    if not isinstance(result, Tensor) or result.shape != x.shape:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"{what} must return a tensor of shape {tuple(x.shape)}, got {got}")
    if (result.dtype, result.device) != (x.dtype, x.device):
        raise InputError(
            f"{what} must return a tensor of {x.dtype} on {x.device}, got {result.dtype} on "
            f"{result.device}"
        )
    return result


def batches_of(n_rows: int, batch_size: int) -> int:
    """Number of batches in an epoch, of `n_rows` rows in this process."""
    return -(-int(processes.total(n_rows)) // int(batch_size))


def check_batches(label: str, n_rows: int, batch_size: int, *, batch_norm: bool) -> None:
    """Raise InputError if this process's `n_rows` rows do not go round.

    Each batch needs one of them; two for batch normalisation, which learns nothing of a single one.
    """
    needed = batches_of(n_rows, batch_size)
    if n_rows < needed:
        raise InputError(
            f"{label}: batch_size={batch_size} makes {needed} batches of the rows of "
            f"{processes.count()} processes, of which each must bring some, but one has {n_rows} "
            "rows that are observed; raise batch_size, or shuffle the rows"
        )
    if batch_norm and n_rows // needed < 2:
        raise InputError(
            f"{label}: batch normalisation needs two rows or more in every batch, but "
            f"batch_size={batch_size} leaves one of {n_rows} training rows alone; raise "
            "batch_size, or give more rows"
        )


def make_scheduler(
    label: str,
    scheduler: str | Schedule | None,
    optimizer: torch.optim.Optimizer,
    lr: float,
    n_steps: int,
) -> Any:
    """A learning-rate schedule over the `n_steps` steps of one update, starting afresh from lr."""
    for group in optimizer.param_groups:
        group["lr"] = float(lr)
        group.pop("initial_lr", None)
    if scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(n_steps, 1))
    if scheduler == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, float(lr), total_steps=max(n_steps, 2), cycle_momentum=False
        )
    if not callable(scheduler):
        return None
    schedule = called(f"{label}: scheduler", scheduler, optimizer, n_steps)
    if not hasattr(schedule, "step"):
        raise InputError(
            f"{label}: scheduler must return a torch scheduler, got {in_words(schedule)}"
        )
    return schedule


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a state dict, its tensors on the devices and in the layout of their parameters.

    Fused steps go through both in the order of memory.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, values in moments.items():
            if values.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(values)


def _shares(learnt: Tensor, n_batches: int) -> list[float]:
    """How many times the mean share of processes this one's is, of each batch."""
    sizes = np.array([len(part) for part in learnt.tensor_split(n_batches)])
    return (sizes / processes.total(sizes) * processes.count()).tolist()


def _means(sums: Tensor, n_rows: int) -> list[float]:
    """Sums over this process's rows, of one or more terms, as means over the rows of all."""
    every = processes.total(np.array([*sums.tolist(), n_rows]))
    return (every[:-1] / every[-1]).tolist()


def _weights(nets: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in nets.state_dict().items()}


def _read(rows: np.ndarray, index: Tensor, device: torch.device) -> Tensor:
    """Some rows of a file as float32 on a device."""
    batch = as_tensor(rows[index.cpu().numpy()], torch.device("cpu"))
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch
