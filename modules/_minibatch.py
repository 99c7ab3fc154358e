"""The one minibatch loop, with early stopping and a way back from divergence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .. import processes
from ._chunks import evaluating

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
