"""What all trained nets share: the check of their settings, and a run of the loop by them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ... import arrays, processes
from ...errors import InputError
from ...options import check_count, check_counts, check_number, check_option, check_random_state
from .device import as_tensor, evaluating, resolve_device

Scheduler = torch.optim.lr_scheduler.LRScheduler


def make_scheduler(
    scheduler: str | Callable | None, optimizer: torch.optim.Optimizer, lr: float, n_steps: int
) -> Scheduler | None:
    """A learning-rate schedule over the `n_steps` steps of one update, starting afresh from lr."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        group.pop("initial_lr", None)
    if scheduler is None:
        return None
    if scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(n_steps, 1))
    if scheduler == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=max(n_steps, 2), cycle_momentum=False
        )
    return scheduler(optimizer, n_steps)


def n_batches(n_rows: int, batch_size: int) -> int:
    """Number of batches in an epoch, of `n_rows` rows in each process."""
    return -(-int(processes.total(n_rows)) // batch_size)


@dataclass(frozen=True)
class Loss:
    """A loss over batches of rows.

    Attributes
    ----------
    fetch : callable
        From row numbers (B,) to a batch of rows, on the training device.
    terms : callable
        From a batch, its row numbers and the epoch to scalar terms, means over the batch; the one
        named ``"loss"`` is minimised.
    ahead : bool
        Whether the next batch is fetched while one is trained on, by a thread of its own: where
        rows are read from files.
    """

    fetch: Callable[[Tensor], Tensor]
    terms: Callable[[Tensor, Tensor, int], dict[str, Tensor]]
    ahead: bool = False

    def batches(self, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Row numbers and rows of each part in turn."""
        if not self.ahead:
            yield from ((index, self.fetch(index)) for index in parts)
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self.fetch, parts[0])
            for index, following in itertools.zip_longest(parts, parts[1:]):
                x = coming.result()
                if following is not None:
                    coming = pool.submit(self.fetch, following)
                yield index, x


def train_epochs(
    loss: Loss,
    rows: Tensor,
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler | None,
    *,
    epochs: int,
    batch_size: int,
    max_grad_norm: float | None,
) -> Iterator[dict[str, float]]:
    """Minimise a loss over minibatches; yields the mean of its terms after every epoch.

    Parameters
    ----------
    loss : Loss
    rows : Tensor, shape (n,)
        The numbers of the rows to train on, on the training device. They are shuffled into
        batches of nearly equal size, none larger than `batch_size`. Of several processes each
        brings an equal share of its rows to every batch, whose size is then that but for rounding,
        and all learn from the mean gradient.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    batches_an_epoch = n_batches(len(rows), batch_size)
    sizes = np.array([len(part) for part in rows.tensor_split(batches_an_epoch)])
    shares = (sizes / processes.total(sizes)).tolist()  # of each batch, this process's
    for epoch in range(epochs):
        order = rows[torch.randperm(len(rows), device=rows.device)]
        batches = loss.batches(order.tensor_split(batches_an_epoch))
        totals: dict[str, Tensor] = {}
        for (index, x), share in zip(batches, shares, strict=True):
            terms = loss.terms(x, index, epoch)
            optimizer.zero_grad()
            (terms["loss"] * share).backward()
            processes.add_gradients(parameters)
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach() * len(index)
        yield _means(totals, len(rows))


def _means(sums: dict[str, Tensor], n_rows: int) -> dict[str, float]:
    """Sums over this process's rows as means over those of all."""
    every = processes.total(np.array([*map(float, sums.values()), n_rows]))
    return dict(zip(sums, (every[:-1] / every[-1]).tolist(), strict=True))


class DivergedError(Exception):
    """The loss became NaN or infinite; the nets are back at weights that gave a finite one."""

    def __init__(self, epoch: int, terms: dict[str, float]) -> None:
        name, value = next(term for term in terms.items() if not math.isfinite(term[1]))
        super().__init__(f"{name} became {value} in epoch {epoch}")


def fit_nets(
    nets: nn.Module,
    loss: Loss,
    learnt: Tensor,
    held_out: Tensor,
    loop: Iterator[dict[str, float]],
    *,
    batch_size: int,
    patience: int,
    on_epoch: Callable[[dict[str, float]], bool | None],
) -> dict[str, float]:
    """Run a loop of epochs with early stopping and a way back from divergence.

    Parameters
    ----------
    learnt, held_out : Tensor
        Row numbers; with none held out, nothing stops early and the last weights are kept.
    loop : iterator of dict
        From `train_epochs`.
    on_epoch : callable
        Told the terms of each epoch; a true answer ends the loop.

    Returns
    -------
    dict
        The terms of the epoch whose weights are kept, which is the last or the best on the rows
        held out; and the number of ``epochs`` run.

    Raises
    ------
    DivergedError
        With the last weights put back that are known to give a finite loss.
    """
    best, best_epoch, n_epochs, kept = math.inf, 0, 0, {}
    safe = latest = _weights(nets)

    def finite() -> bool:
        return math.isfinite(_mean_loss(nets, loss, learnt[:batch_size], 0, batch_size))

    def diverged(terms: dict[str, float]) -> DivergedError:
        """Back to the latest weights, or if those already are beyond use, to the ones before."""
        for weights in (latest, safe):
            nets.load_state_dict(weights)
            if finite():
                break
        return DivergedError(n_epochs, terms)

    nets.train()
    for terms in loop:
        n_epochs += 1
        if len(held_out):
            terms["held_out_loss"] = _mean_loss(nets, loss, held_out, n_epochs - 1, batch_size)
        if not all(map(math.isfinite, terms.values())):
            raise diverged(terms)
        if not len(held_out):
            safe, latest, kept = latest, _weights(nets), terms
        elif terms["held_out_loss"] < best:
            best, best_epoch, kept = terms["held_out_loss"], n_epochs, terms
            safe, latest = latest, _weights(nets)
        if on_epoch(terms) or (len(held_out) and n_epochs - best_epoch >= patience):
            break
    if len(held_out):
        nets.load_state_dict(latest)
    elif not finite():
        raise diverged({"loss": math.nan})
    return {**kept, "epochs": n_epochs}


def _weights(nets: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in nets.state_dict().items()}


def _mean_loss(nets: nn.Module, loss: Loss, rows: Tensor, epoch: int, batch_size: int) -> float:
    with evaluating(nets):
        batches = loss.batches(rows.split(batch_size))
        parts = [loss.terms(x, index, epoch)["loss"] * len(x) for index, x in batches]
        return _means({"loss": sum(parts)}, len(rows))["loss"]


def check_training_options(module: Any) -> None:
    """Raise InputError for sizes of default nets, or settings of their training, that cannot be."""
    check_random_state(module, module.random_state)
    check_counts(module, "hidden_sizes", empty=True)
    check_counts(module, "filters", empty=False)
    check_count(module, "batch_size")
    check_number(module, "lr", above=0)
    check_number(module, "weight_decay", at_least=0)
    check_option(module, "precision", ("auto", "bfloat16", "float32"))
    check_option(module, "compile", (False, True))
    if not callable(module.scheduler):
        check_option(module, "scheduler", (None, "cosine", "onecycle"))
    if module.augment is not None and not callable(module.augment):
        raise InputError(f"{module.label}: augment must be callable, got {module.augment!r}")
    resolve_device(module.device, module.label)


def check_batches(module: Any, n_rows: int, *, batch_norm: bool) -> None:
    """Raise InputError if this process's `n_rows` rows do not go round.

    Each batch needs one of them; two for batch normalisation, which learns nothing of a single one.
    """
    needed = n_batches(n_rows, module.batch_size)
    if n_rows < needed:
        raise InputError(
            f"{module.label}: batch_size={module.batch_size} makes {needed} batches of the rows "
            f"of {processes.count()} processes, of which each must bring some, but one has "
            f"{n_rows} rows that were seen; raise batch_size, or shuffle the rows"
        )
    if batch_norm and n_rows // needed < 2:
        raise InputError(
            f"{module.label}: batch normalisation needs two rows or more in every batch, but "
            f"batch_size={module.batch_size} leaves one of {n_rows} training rows alone; raise "
            "batch_size, or give more rows"
        )


def run_epochs(
    module: Any,
    nets: nn.Module,
    terms: Callable[[Tensor, Tensor, int], dict[str, Tensor]],
    rows: np.ndarray,
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device,
    bfloat16: bool,
    learnt: Tensor,
    held_out: Tensor,
    epochs: int,
    on_epoch: Callable[[dict[str, float]], bool | None],
    patience: int = 1,
    max_grad_norm: float | None = None,
) -> dict[str, float]:
    """Train `nets` with the augmentation, precision, schedule and batch size of `module`.

    Parameters
    ----------
    terms : callable
        From a batch (B, ...), its row numbers (B,) and the epoch to scalar loss terms.
    rows : np.ndarray, shape (N, ...)
        Copied to the device as a whole, unless they lie in a memory-mapped file: then batches are
        read while the one before is trained on.
    bfloat16 : bool
        Whether the nets' matrix products are in bfloat16.

    Returns
    -------
    dict
        As `fit_nets`, whose parameters the others are; `DivergedError` is raised as there.
    """

    def fetch(index: Tensor) -> Tensor:
        return on_device[index]

    def read(index: Tensor) -> Tensor:
        batch = as_tensor(rows[index.cpu().numpy()], torch.device("cpu"))
        if device.type == "cuda":
            return batch.pin_memory().to(device, non_blocking=True)
        return batch

    def batch_terms(x: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
        if module.augment is not None and nets.training:
            x = _augmented(module, x)
        with autocast:
            return terms(x, index, epoch)

    mapped = arrays.is_mapped(rows)
    on_device = None if mapped else as_tensor(rows, device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    loss = Loss(read if mapped else fetch, batch_terms, ahead=mapped)
    steps = epochs * n_batches(len(learnt), module.batch_size)
    loop = train_epochs(
        loss,
        learnt,
        optimizer,
        make_scheduler(module.scheduler, optimizer, module.lr, steps),
        epochs=epochs,
        batch_size=module.batch_size,
        max_grad_norm=max_grad_norm,
    )
    return fit_nets(
        nets,
        loss,
        learnt,
        held_out,
        loop,
        batch_size=module.batch_size,
        patience=patience,
        on_epoch=on_epoch,
    )


def _augmented(module: Any, x: Tensor) -> Tensor:
    result = module.augment(x)
    if not isinstance(result, Tensor) or result.shape != x.shape:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(
            f"{module.label}: augment must return a tensor of shape {tuple(x.shape)}, got {got}"
        )
    return result
