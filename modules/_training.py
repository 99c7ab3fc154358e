"""What all trained nets share: the check of their settings, and a run of the loop by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import processes, storage
from ..errors import InputError
from . import _minibatch as minibatch
from ._devices import as_tensor, resolve_device
from ._options import check_count, check_counts, check_number, check_option, check_random_state


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
    n_batches = minibatch.n_batches(n_rows, module.batch_size)
    if n_rows < n_batches:
        raise InputError(
            f"{module.label}: batch_size={module.batch_size} makes {n_batches} batches of the rows "
            f"of {processes.count()} processes, of which each must bring some, but one has "
            f"{n_rows} rows that were seen; raise batch_size, or shuffle the rows"
        )
    if batch_norm and n_rows // n_batches < 2:
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

    mapped = storage.is_mapped(rows)
    on_device = None if mapped else as_tensor(rows, device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
    loss = minibatch.Loss(read if mapped else fetch, batch_terms, ahead=mapped)
    steps = epochs * minibatch.n_batches(len(learnt), module.batch_size)
    loop = minibatch.train_epochs(
        loss,
        learnt,
        optimizer,
        minibatch.make_scheduler(module.scheduler, optimizer, module.lr, steps),
        epochs=epochs,
        batch_size=module.batch_size,
        max_grad_norm=max_grad_norm,
    )
    return minibatch.fit_nets(
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
