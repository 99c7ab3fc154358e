"""Nets at work: their device, precision and seed, compiling, and runs over blocks of rows."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from ... import arrays, processes

_turns = threading.RLock()
_runs: WeakKeyDictionary[nn.Module, Callable[[nn.Module, Tensor], Tensor]] = WeakKeyDictionary()
_BLOCK_ROWS, _BLOCK_VALUES = 4096, 2**22
_FEWEST_STEPS = 256  # between the least and the largest value of a column
_LARGE = 100.0  # root mean square of a column
# Weights times rows of a batch, from which on products are in bfloat16. On one core with AMX that
# takes less time, conversions included, as nets of 20,000 to 1,300,000 weights showed. An H200 was
# still faster in float32 at 2.2e10, the most that was tried.
_MANY_PRODUCTS, _MANY_PRODUCTS_OF_GPU = 5e7, 1e11


def uses_bfloat16(precision: str, device: torch.device, nets: nn.Module, batch_size: int) -> bool:
    """Whether to autocast nets to bfloat16.

    "auto" does where the device has it and a step takes many products, about as many as weights
    times rows of a batch: for fewer, to convert takes longer than the products. It asks the
    processor's features and measures nothing, so that runs repeat to the bit.
    """
    if precision == "float32":
        return False
    if precision == "bfloat16":
        return True
    n_products = sum(weights.numel() for weights in nets.parameters()) * int(batch_size)
    if n_products < (_MANY_PRODUCTS_OF_GPU if device.type == "cuda" else _MANY_PRODUCTS):
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _multiplies_bfloat16()


def _multiplies_bfloat16() -> bool:
    """Whether the processor does, as far as torch can tell: an older one says less, or nothing."""
    if hasattr(torch.cpu, "get_capabilities"):
        features = torch.cpu.get_capabilities()
        return bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@contextmanager
def private_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Run torch's global generators from `seed`, and put their state back afterwards.

    So initialisation, dropout and a user's augmentation repeat, and nobody else notices. Threads
    take turns, as there is one global generator for all of them. The caller's ``torch.no_grad()``,
    ``torch.inference_mode()``, default dtype and default device do not count within.
    """
    devices = [device] if device.type == "cuda" else []
    with (
        _turns,
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(False),
        torch.enable_grad(),
        _default_float32(),
        _default_cpu(),
    ):
        _seed(seed, device)
        yield


@contextmanager
def _default_float32() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _default_cpu() -> Iterator[None]:
    """Tensors are made on the CPU where no device is named, whatever the caller's default."""
    if torch.get_default_device().type == "cpu":
        yield
    else:
        with torch.device("cpu"):
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


def compiled(net: nn.Module, device: torch.device, label: str) -> Callable[[Tensor], Tensor]:
    """A net as a compiled function of the same weights; itself, with a warning, if that fails.

    What it is compiled to, when first called, is kept as long as the net lives: for up to eight
    kinds of batches (sizes, precisions), which is torch's limit; further ones run as they are.
    """
    problem = _problem(device.type)
    if problem is not None:
        warnings.warn(
            f"{label}: compile=True, but torch cannot compile here ({problem}); training goes on "
            "without it",
            stacklevel=2,
        )
        return net
    if net not in _runs:

        def run(net: nn.Module, x: Tensor) -> Tensor:
            return net(x)

        # torch compiles each code object only so often: one of its own for every net
        run.__code__ = run.__code__.replace(co_name="run")
        _runs[net] = torch.compile(run)
    return partial(_runs[net], net)


@cache
def _problem(device_type: str) -> str | None:
    """Why nothing can be compiled for a device, found out by trying; None if it can."""
    try:
        torch.compile(torch.square)(torch.ones(2, device=device_type))
    except (RuntimeError, OSError) as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    return None


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Rows in float32 on a device; those that already are, are not copied: only read them."""
    contiguous = np.ascontiguousarray(array)  # torch knows no mirrored ones
    if not contiguous.flags.writeable:  # of which torch warns, and filters are not the thread's own
        contiguous = np.asarray(_Writable(contiguous))
    return torch.as_tensor(contiguous, device="cpu").to(device, torch.float32)


class _Writable:
    """The memory of a read-only array, for NumPy to see as writable."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # which keeps the memory
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def check_outputs(label: str, outputs: np.ndarray, rows: np.ndarray) -> None:
    """Raise InputError for rows (N, ...) of which nets make NaN or infinity in outputs (N, ...)."""
    remedy = f"scale them as those of training: they hold values up to {largest(rows):g}"
    arrays.check_finite(outputs, f"{label}: what the nets make of the rows", remedy=remedy)


def check_float32(label: str, rows: np.ndarray) -> None:
    """Raise InputError for rows (N, ...) of values that are beyond float32."""
    if largest(rows) > float(np.finfo(np.float32).max):
        with np.errstate(over="ignore"):
            narrow = rows.astype(np.float32)
        arrays.check_finite(narrow, f"{label}: rows in float32", remedy="scale them")
    if rows.dtype == np.float64:
        low, high = rows.min(axis=0), rows.max(axis=0)
        step = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))
        n_coarse = int(((high > low) & (high - low < _FEWEST_STEPS * step)).sum())
        if n_coarse:
            warnings.warn(
                f"{label}: {n_coarse} of {low.size} columns vary by less than {_FEWEST_STEPS} "
                "steps of float32, in which nets compute; subtract their means first",
                stacklevel=3,
            )


def scale_problem(rows: np.ndarray) -> str | None:
    """What to do of columns of rows (N, ...) that are on no scale for nets; None if all are.

    Their root mean square is to be 100 at most, as weights start for values of about 1.
    """
    sums, squares = np.zeros(rows[0].size), np.zeros(rows[0].size)
    for block in arrays.blocks(rows):
        flat = rows[block].reshape(-1, sums.size).astype(np.float64, copy=False)
        sums, squares = sums + flat.sum(axis=0), squares + np.square(flat).sum(axis=0)
    means, mean_squares = sums / len(rows), squares / len(rows)
    if mean_squares.max() <= _LARGE**2:
        return None
    spreads = np.sqrt(np.maximum(mean_squares - means**2, 0))
    return (
        f"Values are up to {largest(rows):g} and columns' standard deviations from "
        f"{spreads.min():.3g} to {spreads.max():.3g}, while nets begin with weights for about 1: "
        "standardise the columns (sklearn.preprocessing.StandardScaler), divide images by 255"
    )


def largest(rows: np.ndarray) -> float:
    """The largest absolute value."""
    return float(max(rows.max(), -rows.min()))


@contextmanager
def evaluating(nets: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each net in it has the mode that it had."""
    modes = [(net, net.training) for net in nets.modules()]
    nets.eval()
    try:
        with torch.no_grad(), _default_cpu():
            yield
    finally:
        for net, training in modes:
            net.training = training


def check_sizes(weights: dict[str, Tensor], make_nets: Callable[[], nn.Module]) -> None:
    """Raise ValueError unless weights are those of nets, which are not made to find that out."""
    with torch.device("meta"):  # which has shapes and no memory
        expected = make_nets().state_dict()
    if {k: w.shape for k, w in weights.items()} != {k: w.shape for k, w in expected.items()}:
        raise ValueError("the weights are of other sizes than its arguments tell")


def in_blocks(
    nets: nn.Module, function: Callable, *tables: np.ndarray, row_shape: tuple[int, ...]
) -> Any:
    """Evaluate a function of `nets` on blocks of tables (N, ...), in float32 on their device.

    The function makes one tensor (B, ...), or a tuple of them, of a tensor (B, ...) per table; the
    result is an array (N, ...), or a tuple of them, in a memory-mapped file if the first table is.
    Of rows of data that are large by their `row_shape` fewer are taken at once.
    """
    device = next((p.device for p in nets.parameters()), torch.device("cpu"))
    n_rows, results = len(tables[0]), list[np.ndarray]()
    step = min(_BLOCK_ROWS, max(_BLOCK_VALUES // math.prod(row_shape), 1))
    with evaluating(nets):
        for start in range(0, n_rows, step):
            block = slice(start, start + step)
            rows = [np.ascontiguousarray(table[block]) for table in tables]
            values = function(*(torch.tensor(r, dtype=torch.float32, device=device) for r in rows))
            parts = values if isinstance(values, tuple) else (values,)
            shapes = [(n_rows, *part.shape[1:]) for part in parts]
            results = results or [arrays.empty(s, np.float32, tables[0]) for s in shapes]
            for result, part in zip(results, parts, strict=True):
                if len(part) != len(rows[0]):
                    made = f"made {len(part)} of {len(rows[0])}"
                    raise ValueError(f"must return as many rows as it gets, but {made}")
                result[block] = part.float().cpu().numpy()
    return tuple(results) if isinstance(values, tuple) else results[0]
