"""The one minibatch loop, and where and how precisely it runs."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .. import processes, storage
from ..errors import InputError

Scheduler = torch.optim.lr_scheduler.LRScheduler
_CHUNK_ROWS, _CHUNK_VALUES = 4096, 2**22


def resolve_device(device: str, label: str) -> torch.device:
    """The torch device; "auto" is a GPU where there is one.

    Raises
    ------
    InputError
        For an unknown name, or a GPU that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"{label}: unknown device={device!r}; expected 'auto', 'cpu' or 'cuda'"
        ) from None
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):  # what torch raises varies
        seen = f"sees {torch.cuda.device_count()} GPUs" if found.type == "cuda" else "cannot use it"
        raise InputError(
            f"{label}: device={device!r} asked for, but torch {seen} here; use device='cpu' or "
            "'auto'"
        ) from None
    if found.type == "cuda" and found.index is None:  # threads would each have their own
        return torch.device("cuda", torch.cuda.current_device())
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
        _seed(seed, device)
        yield


def draw_apart(seed: int, device: torch.device) -> None:
    """From here on draw other numbers in every process; in the first go on as if it were alone."""
    if processes.rank():
        _seed(int(np.random.default_rng([seed, processes.rank()]).integers(2**62)), device)


def _seed(seed: int, device: torch.device) -> None:
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


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
    for epoch in range(epochs):
        order = rows[torch.randperm(len(rows), device=rows.device)]
        totals: dict[str, Tensor] = {}
        for index, x in loss.batches(order.tensor_split(batches_an_epoch)):
            terms = loss.terms(x, index, epoch)
            optimizer.zero_grad()
            terms["loss"].backward()
            processes.mean_gradients(parameters, len(index))
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


@contextmanager
def evaluating(nets: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards the mode is what it was."""
    training = nets.training
    nets.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        nets.train(training)


def to_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A float32 copy on a device, of arrays of any memory layout (torch knows no mirrored ones)."""
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Rows in float32 on a device; those that already are, are not copied: only read them."""
    contiguous = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(contiguous).to(device, torch.float32)


def in_chunks(
    nets: nn.Module, function: Callable, *arrays: np.ndarray, row_shape: tuple[int, ...]
) -> np.ndarray | tuple:
    """Evaluate a function of `nets` on float32 chunks of rows, on their device.

    Parameters
    ----------
    function : callable
        From a tensor (B, ...) an array to a tensor, or a tuple of tensors and None.
    arrays : np.ndarray, shape (N, ...)
    row_shape : tuple of int
        Of a row of data; of large rows fewer are taken at once.

    Returns
    -------
    np.ndarray, or tuple of them and None
        The results of all rows, in a memory-mapped file if the first of `arrays` is.
    """
    device = next((p.device for p in nets.parameters()), torch.device("cpu"))
    step = min(_CHUNK_ROWS, max(_CHUNK_VALUES // math.prod(row_shape), 1))
    results: list[np.ndarray | None] = []
    with evaluating(nets):
        for start in range(0, len(arrays[0]), step):
            chunk = slice(start, start + step)
            found = function(*(to_tensor(array[chunk], device) for array in arrays))
            several = isinstance(found, tuple)
            parts = [p if p is None else p.float().cpu() for p in (found if several else (found,))]
            results = results or [_results(part, arrays[0]) for part in parts]
            for result, part in zip(results, parts, strict=True):
                if part is not None:
                    _put(part, result[chunk])
    return tuple(results) if several else results[0]


def _put(part: Tensor, rows: np.ndarray) -> None:
    if len(part) != len(rows):
        raise ValueError(
            f"must return as many rows as it gets, but made {len(part)} of {len(rows)}"
        )
    rows[:] = part.numpy()


def _results(part: Tensor | None, rows: np.ndarray) -> np.ndarray | None:
    """Where the results of all rows go, of which `part` are some."""
    return None if part is None else storage.empty((len(rows), *part.shape[1:]), np.float32, rows)


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
