"""Nets at work, not in training: on chunks of rows that are arrays outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from .. import storage
from ._devices import to_tensor

_CHUNK_ROWS, _CHUNK_VALUES = 4096, 2**22


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
