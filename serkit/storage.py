"""Arrays larger than memory: rows in memory-mapped files, and what is made of them in others.

Whatever is computed for every row of a memory-mapped array goes into a memory-mapped file of its
own. Such files lie in the folder that the environment variable SERKIT_SCRATCH names, or else where
temporary files go, have no name there, and take up space as long as their array is in use.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .errors import OutputError

_BLOCK_BYTES = 2**20


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array's values lie in a memory-mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def is_lazy(values: Any) -> bool:
    """Whether values are rows that are read when they are sliced: of Zarr, HDF5 and their like."""
    wanted = ("shape", "dtype", "chunks", "__getitem__")
    return not isinstance(values, np.ndarray) and all(hasattr(values, name) for name in wanted)


def empty(shape: Sequence[int], dtype: DTypeLike, *like: np.ndarray) -> np.ndarray:
    """A new array, in a memory-mapped file if one of `like` is."""
    mapped = any(map(is_mapped, like))
    return empty_mapped(shape, dtype) if mapped else np.empty(shape, dtype)


def copy(rows: np.ndarray) -> np.ndarray:
    """A copy, in a memory-mapped file if the rows are in one."""
    copied = empty(rows.shape, rows.dtype, rows)
    copied[:] = rows
    return copied


def empty_mapped(shape: Sequence[int], dtype: DTypeLike) -> np.memmap:
    """A new array in a memory-mapped file.

    Raises
    ------
    OutputError
        If the file cannot be made.
    """
    folder = os.environ.get("SERKIT_SCRATCH") or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a full disk is told now, not by a crash later
                size = math.prod(shape) * np.dtype(dtype).itemsize
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            return np.memmap(file, dtype, "w+", shape=tuple(shape))
    except OSError as error:
        raise OutputError(
            f"cannot make a file for an array {tuple(shape)} in {folder} (SERKIT_SCRATCH names "
            f"another folder): {error.strerror or error}"
        ) from None


def copy_mapped(rows: Any, part: slice, dtype: DTypeLike) -> np.memmap:
    """Some rows, read block by block, as an array in a memory-mapped file."""
    copied = empty_mapped((part.stop - part.start, *rows.shape[1:]), dtype)
    for block in blocks(copied):
        stop = min(block.stop, len(copied))
        copied[block] = rows[part.start + block.start : part.start + stop]
    return copied


def blocks(rows: np.ndarray) -> Iterator[slice]:
    """Consecutive slices of rows of a megabyte at most, or one row."""
    step = max(_BLOCK_BYTES * len(rows) // max(rows.nbytes, 1), 1)
    return (slice(start, start + step) for start in range(0, len(rows), step))
