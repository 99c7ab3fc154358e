"""Rows of numbers, which messages and methods on arrays start from: checks, and where they lie.

What users give becomes finite rows of real numbers, or an error that says what is wrong. Rows of a
memory-mapped file stay in it, those of Zarr and HDF5 are copied into one, and what is computed from
such rows goes into files as well: unnamed ones, in the folder that the environment variable
SERKIT_SCRATCH names, which end with their arrays.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike

from .errors import InputError, OutputError
from .reading import array_in, rows_in

_BLOCK_BYTES = 2**20
_EXACT_FLOAT32, _EXACT_FLOAT64 = 2**24, 2**53  # up to here every integer is itself


def as_rows(
    values: ArrayLike | torch.Tensor,
    what: str,
    observed: np.ndarray | None = None,
    neutral: float = 0.0,
) -> np.ndarray:
    """Turn array-like rows into a finite, read-only float array, or say what is wrong.

    InputError for a dtype that is not a real number, no rows or columns, NaN or infinity.

    Parameters
    ----------
    values : array-like or torch.Tensor, shape (N, ...)
        Of any real dtype; float32 where that holds every value that the dtype may have, or the
        integers there are, else float64. A warning names integers that float64 has to round.
    what : str
        How error texts name the values, for example ``"Observation 'images'"``.
    observed : np.ndarray of bool, shape (N,), optional
        Rows that count; whatever stands in the others is replaced by `neutral`.
    neutral : float

    Returns
    -------
    np.ndarray, shape (N, ...)
        A read-only view where no conversion is needed, else a converted copy.

    Examples
    --------
    >>> from serkit.arrays import as_rows
    >>> as_rows([[1, 2], [3, 4]], "latents")
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> as_rows([[1, 2], [3, float("nan")]], "latents")
    Traceback (most recent call last):
    serkit.errors.InputError: latents: NaN or infinity in 1 of 2 rows (rows 1); remove or fill them
    """
    array = as_array(values, what)
    return finite_rows(array, slice(0, array.shape[0]), what, observed, neutral)


def as_array(values: ArrayLike | torch.Tensor, what: str) -> np.ndarray:
    """Rows of anything as an array (N, ...) of real numbers; those of Zarr and HDF5 as they are."""
    array: Any = values if is_lazy(values) else rows_in(values, what)
    if array.dtype.kind == "c":
        raise InputError(f"{what}: Complex data not supported, got dtype {array.dtype}")
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{what}: expected real numbers, got dtype {array.dtype}; convert them first, "
            "for example with array.astype('float32')"
        )
    if array.ndim < 2 or array.size == 0:
        hint = ""
        if array.ndim == 1 and array.size:
            hint = ". Reshape your data: reshape(-1, 1) if it is one column, (1, -1) if one row"
        if array.ndim == 2 and len(array):
            hint = f": 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        raise InputError(
            f"{what}: expected at least one row and one column, shape (N, ...), got "
            f"{array.shape}{hint}"
        )
    if is_lazy(array):
        _check_chunks(array, what)
    return array


def _check_chunks(array: Any, what: str) -> None:
    """Raise InputError where chunks of Zarr or HDF5 are not in the file: they would read as 0."""
    is_zarr = hasattr(array, "nchunks_initialized")
    is_hdf5 = hasattr(getattr(array, "id", None), "get_num_chunks") and not array.is_virtual
    if not (is_zarr or is_hdf5):
        return  # what is like these, dask say, or virtual has no chunks of its own
    try:
        if is_zarr:
            n_there, n_chunks = array.nchunks_initialized, array.nchunks
        else:
            pairs = zip(array.shape, array.chunks or array.shape, strict=True)
            n_chunks = math.prod(-(-length // chunk) for length, chunk in pairs)
            n_there = array.id.get_num_chunks() if array.chunks else array.id.get_storage_size()
    except Exception as error:
        raise InputError(f"{what}: {_file_of(array)} cannot be read: {error}") from None
    if n_there < n_chunks and (is_zarr or array.chunks or not n_there):
        raise InputError(
            f"{what}: {_file_of(array)} holds {n_there} of {n_chunks} chunks, and the others would "
            "read as its fill value; restore them, or give the rows as array[:] if they are to be"
        )


def _file_of(array: Any) -> str:
    """Where rows of Zarr or HDF5 lie."""
    place = getattr(array, "store_path", None) or getattr(
        getattr(array, "file", None), "filename", array
    )
    return str(place)


def finite_rows(
    array: np.ndarray, block: slice, what: str, observed: np.ndarray | None, neutral: float = 0.0
) -> np.ndarray:
    """Consecutive rows of what `as_array` gave, as `as_rows` returns all of them.

    `block` names both its ends; `observed` speaks of all N rows.
    """
    if observed is not None and len(observed) != array.shape[0]:
        observed = None  # the caller's own check names both lengths
    dtype, mapped = float_type(array, what), is_mapped(array)
    if is_lazy(array) or (mapped and (observed is not None or dtype != array.dtype)):
        rows: np.ndarray = _copy_mapped(array, block, dtype)
    else:
        apart = block.stop - block.start < array.shape[0] and not mapped  # others may be forgotten
        with np.errstate(over="ignore"):  # of long doubles: infinite ones are named below
            rows = array[block].astype(dtype, copy=observed is not None or apart)
    if min(rows.strides) < 0:  # torch takes no mirrored rows
        rows = rows.copy()
    if observed is not None:
        rows[~observed[block]] = neutral
    check_finite(rows, what, block.start)
    view = rows.view()
    view.flags.writeable = False
    return view


def float_type(array: np.ndarray, what: str) -> np.dtype:
    """The type that holds an array's numbers: float32 if it can hold them all, else float64.

    Of integers wider than 16 bits the values decide, of all rows, so that processes that share them
    agree. A warning says if float64 has to round them.
    """
    wanted = np.promote_types(array.dtype, np.float32)  # in the machine's own byte order
    if array.dtype.kind not in "iu" or wanted == np.float32:
        return np.dtype(np.float32 if wanted == np.float32 else np.float64)
    parts = [(array[block].min(), array[block].max()) for block in blocks(array)]
    largest = max(max(-int(low), int(high)) for low, high in parts)
    if largest > _EXACT_FLOAT64 and any(_is_rounded(array[block]) for block in blocks(array)):
        warnings.warn(
            f"{what}: integers up to {largest} are rounded, as float64 holds each only up to "
            f"{_EXACT_FLOAT64}; subtract an offset from them first",
            stacklevel=4,
        )
    return np.dtype(np.float32 if largest <= _EXACT_FLOAT32 else np.float64)


def _is_rounded(integers: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):  # the largest may be rounded to one too many
        return bool((integers.astype(np.float64).astype(integers.dtype) != integers).any())


def check_finite(
    rows: np.ndarray, what: str, first: int = 0, remedy: str = "remove or fill them"
) -> None:
    """Raise InputError for rows (N, ...), numbered from `first`, that hold NaN or infinity."""
    columns = tuple(range(1, rows.ndim))
    finite = np.concatenate([np.isfinite(rows[block]).all(axis=columns) for block in blocks(rows)])
    if not finite.all():
        bad = numbered(first + np.flatnonzero(~finite))
        n_bad = int((~finite).sum())
        raise InputError(
            f"{what}: NaN or infinity in {n_bad} of {len(rows)} rows (rows {bad}); {remedy}"
        )


def numbered(numbers: np.ndarray) -> str:
    """The first five of some numbers of rows, as error texts name them."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def as_observed(observed: ArrayLike | None, n_rows: int, what: str) -> np.ndarray | None:
    """A mask of rows as booleans (N,); None if it is None or true of every row."""
    if observed is None:
        return None
    try:
        mask = array_in(observed, what)
    except InputError:  # the text below says what is wanted
        mask = np.empty((0, 0))
    if mask.dtype != bool or mask.shape != (n_rows,):
        raise InputError(
            f"{what}: observed must hold one boolean for each of the {n_rows} rows, got dtype "
            f"{mask.dtype} and shape {mask.shape}"
        )
    return None if mask.all() else mask


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array's values lie in a memory-mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def is_lazy(values: Any) -> bool:
    """Whether values are rows that are read when they are sliced: of Zarr, HDF5 and their like."""
    wanted = ("shape", "dtype", "chunks", "__getitem__")
    return not isinstance(values, np.ndarray | torch.Tensor) and all(
        hasattr(values, name) for name in wanted
    )


def empty(shape: Sequence[int], dtype: DTypeLike, *like: np.ndarray) -> np.ndarray:
    """A new array, in a memory-mapped file if one of `like` is."""
    return _empty_mapped(shape, dtype) if any(map(is_mapped, like)) else np.empty(shape, dtype)


def copy(rows: np.ndarray) -> np.ndarray:
    """A copy, in a memory-mapped file if the rows are in one."""
    copied = empty(rows.shape, rows.dtype, rows)
    copied[:] = rows
    return copied


def blocks(rows: np.ndarray) -> Iterator[slice]:
    """Consecutive slices of rows of a megabyte at most, or one row, or a chunk of Zarr or HDF5."""
    n_rows, n_bytes = rows.shape[0], math.prod(rows.shape) * rows.dtype.itemsize
    step = max(_BLOCK_BYTES * n_rows // max(n_bytes, 1), 1)
    chunks = getattr(rows, "chunks", None)
    if chunks and isinstance(chunks[0], int):  # each is unpacked as a whole; dask's are tuples
        step = -(-step // chunks[0]) * chunks[0]
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _empty_mapped(shape: Sequence[int], dtype: DTypeLike) -> np.memmap:
    """A new array in a memory-mapped file without a name."""
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


def _copy_mapped(array: np.ndarray, rows: slice, dtype: DTypeLike) -> np.memmap:
    """Consecutive rows, read block by block, as an array in a memory-mapped file."""
    copied = _empty_mapped((rows.stop - rows.start, *array.shape[1:]), dtype)
    for block in blocks(array):
        first, end = max(block.start, rows.start), min(block.stop, rows.stop)
        if first >= end:
            continue
        try:
            copied[first - rows.start : end - rows.start] = array[first:end]
        except Exception as error:  # what a damaged file of Zarr or HDF5 raises varies
            raise InputError(f"{_file_of(array)} cannot be read: {error}") from None
    return copied


def some_rows(n_rows: int, most: int) -> np.ndarray:
    """Numbers of at most so many rows, spread by chance, in order; a few are among those of more.

    >>> from serkit.arrays import some_rows
    >>> some_rows(5, 3), some_rows(5, 9)
    (array([2, 3, 4]), array([0, 1, 2, 3, 4]))
    """
    return np.sort(np.random.default_rng(0).permutation(n_rows)[:most])
