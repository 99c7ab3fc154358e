"""Several processes, each with its share of the rows: the same script under ``torchrun``.

::

    torchrun --nproc_per_node=4 tutorials/vae_gmm.py

Every process runs the whole script and names all rows, but keeps and works on its share of them
only. Rows and messages stay where they are; what crosses between processes are sums: a mixture's
statistics, a net's gradients, counts (and the few rows that k-means++ draws). An update of modules
with K components, D dimensions, W words or P parameters sends, from each process and whatever the
number of rows, about

- GMM, GMMClassifier: ``8 K (1 + D + D (D + 1) / 2)`` bytes an iteration of EM,
- AE, VAE, MultinomialVAE: ``4 P`` bytes a step of the optimiser,
- MLDA: ``8 K W`` bytes an iteration; MarkovModel: ``8 (K + K^2)``.

Besides, whoever writes a file or a checkpoint gathers what is said of each row in the first
process, GMMClassifier joins the log-likelihoods of rows held out (and whether rows are complete,
where some are not), MarkovModel the last probabilities of each sequence.

Processes find each other by the environment variables that torchrun sets, and all that crosses
goes through `torch.distributed`: gloo on processors, NCCL on GPUs. They are for several machines or
several GPUs; on the processors of one machine a single process with threads (``OMP_NUM_THREADS``)
is faster. All must make the same calls in the same order: those that check, learn, score, save,
load or compute an objective talk to the others, and an error in one ends the run. Files that are
read, such as checkpoints, are read by all. With a single process every function here is the
identity.
"""

from __future__ import annotations

import atexit
import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import InputError, TrainingError

Sums = TypeVar("Sums", float, np.ndarray)
Value = TypeVar("Value")

_is_alone: ContextVar[bool] = ContextVar("_is_alone", default=False)


# -- who is there ----------------------------------------------------------------------------------


def count() -> int:
    """Number of processes; those that torchrun started are joined by the first call."""
    if _is_alone.get() or not distributed.is_available():
        return 1
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
            return 1
        _join()
    return distributed.get_world_size()


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def print_once(*values: Any, **options: Any) -> None:
    """Print, in the first process only."""
    if is_first():
        print(*values, **options)


@contextmanager
def alone() -> Iterator[None]:
    """Within it this process is the only one: it keeps all rows and talks to nobody."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def _join() -> None:
    if torch.cuda.is_available():
        local_rank, n_gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local_rank >= n_gpus:
            raise InputError(
                f"there are more processes than the {n_gpus} GPUs here: start as many as GPUs, or "
                "hide those (CUDA_VISIBLE_DEVICES=) to work on processors"
            )
        torch.cuda.set_device(local_rank)
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")
    atexit.register(_leave)


def _leave() -> None:
    """Give gloo's threads time for their last tensors, without which an exit in between aborts.

    They need the interpreter to release them, as long as it is there.
    """
    time.sleep(0.1)
    if distributed.is_initialized():
        distributed.destroy_process_group()


# -- rows ------------------------------------------------------------------------------------------


def share(n_rows: int, lengths: Sequence[int] | None = None) -> slice:
    """The consecutive rows of `n_rows` that this process works on: about equally many in each.

    Parameters
    ----------
    n_rows : int
    lengths : sequence of int, optional
        Of consecutive sequences, none of which is divided.

    Raises
    ------
    InputError
        If some process would have none, or lengths do not add up to the number of rows.
    """
    if lengths is None:
        ends, what = range(n_rows + 1), "rows"
    else:
        ends, what = np.cumsum([0, *lengths]).tolist(), "sequences"
    n_pieces, n_processes = len(ends) - 1, count()
    if ends[-1] != n_rows or (lengths is not None and min(lengths) < 1):
        raise InputError(
            f"lengths must be integers >= 1 that add up to the {n_rows} rows, got {lengths!r:.60}"
        )
    if n_pieces < n_processes:
        raise InputError(f"{n_pieces} {what} are too few for {n_processes} processes")
    cuts = [0]
    for number in range(1, n_processes + 1):
        after = bisect_left(ends, n_rows * number / n_processes)
        cuts.append(min(max(after, cuts[-1] + 1), n_pieces - n_processes + number))
    return slice(ends[cuts[rank()]], ends[cuts[rank() + 1]])


def place(n_rows: int) -> slice:
    """Where the `n_rows` rows that this process holds stand among the rows of all processes."""
    end = int(by_process(n_rows)[: rank() + 1].sum())
    return slice(end - n_rows, end)


def share_of(values: ArrayLike, n_rows: int) -> np.ndarray:
    """Of values given for the rows of all processes, those for the `n_rows` rows of this one.

    Raises
    ------
    InputError
        Unless there is one value per row.
    """
    values, n_all = np.asarray(values), int(total(n_rows))
    if len(values) != n_all:
        raise InputError(f"expected a value for each of {n_all} rows, got {len(values)}")
    return values[place(n_rows)]


def gather(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, in order, on each of them."""
    if count() == 1:
        return rows
    shares: list[Any] = [None] * count()
    with _explained():
        distributed.all_gather_object(shares, np.asarray(rows))
    return np.concatenate(shares)


def gather_first(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, in order, on the first; the others get back their share."""
    if count() == 1:
        return rows
    shares: list[Any] | None = [None] * count() if is_first() else None
    with _explained():
        distributed.gather_object(np.asarray(rows), shares)
    return rows if shares is None else np.concatenate(shares)


# -- sums and agreement ----------------------------------------------------------------------------


def total(values: Sums) -> Sums:
    """The sum over all processes of a number, or of arrays of one shape, in float64."""
    return _reduced(values, "SUM")


def by_process(value: float | np.ndarray) -> np.ndarray:
    """A number of every process, or an array, in order: (number of processes, ...)."""
    values = np.zeros((count(), *np.shape(value)))
    values[rank()] = value
    return total(values)


def largest(values: Sums) -> Sums:
    """The largest over all processes, entry by entry, in float64."""
    return _reduced(values, "MAX")


def merged(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What is the same in all processes, with all changes that each has made of it."""
    return after if count() == 1 else before + total(after - before)


def mean(value: float, n_rows: int) -> float:
    """The mean over all processes' rows of what is `value` in the mean of `n_rows` here."""
    if count() == 1:
        return value
    weighted, weight = total(np.array([value * n_rows, n_rows]))
    return float(weighted / weight)


def any_of(value: bool) -> bool:
    """Whether it is true in some process."""
    return bool(value) if count() == 1 else largest(float(value)) > 0


def of_first(value: Value) -> Value:
    """What the first process has."""
    if count() == 1:
        return value
    values = [value]
    with _explained():
        distributed.broadcast_object_list(values)
    return values[0]


def pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two class numbers a row, of the rows of all processes, in no particular order.

    How often each pair occurs is what is sent.
    """
    if count() == 1:
        return first, second
    n_first, n_second = (int(largest(float(c.max(initial=0)))) + 1 for c in (first, second))
    counts = np.bincount(first * n_second + second, minlength=n_first * n_second)
    every = np.repeat(np.arange(len(counts)), total(counts.astype(float)).astype(int))
    return divmod(every, n_second)


def generator(rng: np.random.Generator) -> np.random.Generator:
    """A generator that draws otherwise in each process; the given one goes on equally in all."""
    return rng if count() == 1 else rng.spawn(count())[rank()]


def _reduced(values: Sums, operation: str) -> Sums:
    if count() == 1:
        return values
    result = _all_reduced(torch.tensor(np.asarray(values, dtype=np.float64)), operation).numpy()
    return result if isinstance(values, np.ndarray) else result.item()


def _all_reduced(values: Tensor, operation: str = "SUM") -> Tensor:
    """The same tensor, changed into the sum or the largest over all processes."""
    with _explained():
        distributed.all_reduce(values, getattr(distributed.ReduceOp, operation))
    return values


# -- nets ------------------------------------------------------------------------------------------


def with_mean_gradients(
    nets: nn.Module, function: Callable[..., dict[str, Tensor]]
) -> Callable[..., dict[str, Tensor]]:
    """A function of nets, after whose backward pass gradients are the mean over all processes.

    By torch's DistributedDataParallel, which sends the gradients of the last layers while those of
    the layers before are computed. Of the terms that the function returns the one named "loss" is
    what can be differentiated.
    """
    if count() == 1:
        return function
    with _explained():
        parallel = DistributedDataParallel(_Terms(nets, function), find_unused_parameters=True)

    def terms_of(*inputs: Any) -> dict[str, Tensor]:
        with _explained():
            return parallel(*inputs)

    return terms_of


class _Terms(nn.Module):
    """A loss with its nets, as DistributedDataParallel takes them."""

    def __init__(self, nets: nn.Module, function: Callable[..., dict[str, Tensor]]) -> None:
        super().__init__()
        self.nets, self.function = nets, function
        # Without it torch warns wherever all parameters are used.
        self.unused = nn.Parameter(next(nets.parameters()).new_zeros(1))

    def forward(self, *inputs: Any) -> dict[str, Tensor]:
        terms = self.function(*inputs)
        return {name: term if name == "loss" else term.detach() for name, term in terms.items()}


def backward(loss: Tensor) -> None:
    """The backward pass of a loss, in which processes talk to each other."""
    if count() == 1:
        loss.backward()
    else:
        with _explained():
            loss.backward()


def spread(net: nn.Module) -> None:
    """Give every process the parameters and buffers that the first one has."""
    if count() == 1:
        return
    with _explained(), torch.no_grad():
        for values in net.state_dict().values():
            sent = values.contiguous()
            distributed.broadcast(sent, 0)
            values.copy_(sent)


@contextmanager
def _explained() -> Iterator[None]:
    """Say what to do where another process is gone."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise TrainingError(
            f"process {distributed.get_rank()} of {distributed.get_world_size()} lost touch with "
            "the others: one of them ended, see its own error, or made other calls. With "
            "fit(checkpoint=...) the same script goes on from the last whole round, with any "
            f"number of processes ({str(error).splitlines()[0]})"
        ) from None
