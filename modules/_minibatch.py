"""The one minibatch loop, and where and how precisely it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import InputError

Scheduler = torch.optim.lr_scheduler.LRScheduler


def resolve_device(device: str, label: str) -> torch.device:
    """The torch device; "auto" is a GPU where there is one.

    Raises
    ------
    InputError
        For an unknown name, or a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"{label}: unknown device={device!r}; expected 'auto', 'cpu' or 'cuda'"
        ) from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"{label}: device={device!r} asked for, but torch sees {torch.cuda.device_count()} "
            "GPUs here; use device='cpu' or 'auto'"
        )
    return found


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast: "auto" asks the processor's features, so runs repeat to the bit."""
    if precision == "float32":
        return False
    if precision == "bfloat16":
        return True
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


@contextmanager
def private_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Run torch's global generators from `seed`, and put their state back afterwards.

    So initialisation, dropout and a user's augmentation repeat, and nobody else notices.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


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
    """Number of batches in an epoch."""
    return -(-n_rows // batch_size)


def train_epochs(
    batch_loss: Callable[[Tensor, int], dict[str, Tensor]],
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
    batch_loss : callable
        From row numbers (B,) and the epoch to scalar terms, means over the batch; the one named
        ``"loss"`` is minimised.
    rows : Tensor, shape (n,)
        The numbers of the rows to train on, on the training device. They are shuffled into
        batches of nearly equal size, none larger than `batch_size`.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for epoch in range(epochs):
        order = rows[torch.randperm(len(rows), device=rows.device)]
        totals: dict[str, Tensor] = {}
        for index in order.tensor_split(n_batches(len(rows), batch_size)):
            terms = batch_loss(index, epoch)
            optimizer.zero_grad()
            terms["loss"].backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + value.detach() * len(index)
        yield {name: float(total) / len(rows) for name, total in totals.items()}
