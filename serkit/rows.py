"""Rows of numbers, checked: what every message and every method on arrays starts from."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from . import storage
from .errors import InputError

_ROWS_NAMED = 5


def as_rows(
    values: ArrayLike | torch.Tensor,
    what: str,
    observed: np.ndarray | None = None,
    neutral: float = 0.0,
) -> np.ndarray:
    """Turn array-like rows into a finite, read-only float array, or say what is wrong.

    Parameters
    ----------
    values : array-like or torch.Tensor, shape (N, ...)
        Numbers of any real dtype; float32 and float64 are kept, all else becomes float32. Those of
        memory-mapped files stay there, and arrays of Zarr and HDF5 are copied into such a file.
    what : str
        How error texts name the values, for example ``"Observation 'images'"``.
    observed : np.ndarray of bool, shape (N,), optional
        Rows that count; whatever stands in the others is replaced by `neutral`.
    neutral : float

    Returns
    -------
    np.ndarray, shape (N, ...)
        A read-only view where no conversion is needed, else a converted copy.

    Raises
    ------
    InputError
        For a dtype that is not a real number, no rows or columns, NaN or infinity.
    """
    array = as_array(values, what)
    return finite_rows(array, slice(0, array.shape[0]), what, observed, neutral)


def as_array(values: ArrayLike | torch.Tensor, what: str) -> np.ndarray:
    """Array-like rows as an array (N, ...) of real numbers; those of Zarr and HDF5 as they are.

    Raises
    ------
    InputError
        For a dtype that is not a real number, or no rows or columns.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    try:
        array = values if storage.is_lazy(values) else np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what}: expected rows of equal length: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{what}: expected real numbers, got dtype {array.dtype}; convert them first, "
            "for example with array.astype('float32')"
        )
    if array.ndim < 2 or array.size == 0:
        raise InputError(
            f"{what}: expected at least one row and one column, shape (N, ...), got {array.shape}"
        )
    return array


def finite_rows(
    array: np.ndarray,
    part: slice,
    what: str,
    observed: np.ndarray | None = None,
    neutral: float = 0.0,
) -> np.ndarray:
    """Some rows of what `as_array` gave, as `as_rows` returns all of them."""
    masked = observed is not None and len(observed) == array.shape[0]
    dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.float32
    mapped, is_share = storage.is_mapped(array), part.stop - part.start < array.shape[0]
    if storage.is_lazy(array) or (mapped and (masked or dtype != array.dtype)):
        rows = storage.copy_mapped(array, part, dtype)
    else:
        apart = is_share and not mapped  # so that the other rows may be forgotten
        rows = array[part].astype(dtype, copy=masked or apart)
    if masked:
        rows[~observed[part]] = neutral
    _check_finite(rows, part.start, what)
    view = rows.view()
    view.flags.writeable = False
    return view


def _check_finite(array: np.ndarray, first: int, what: str) -> None:
    """Raise InputError for rows (N, ...), numbered from `first`, that hold NaN or infinity."""
    found = [
        part.start + np.flatnonzero(~np.isfinite(array[part]).all(axis=tuple(range(1, array.ndim))))
        for part in storage.blocks(array)
    ]
    bad = first + np.concatenate(found)
    if len(bad):
        more = ", ..." if len(bad) > _ROWS_NAMED else ""
        raise InputError(
            f"{what}: NaN or infinity in {len(bad)} of {len(array)} rows "
            f"(rows {', '.join(map(str, bad[:_ROWS_NAMED]))}{more}); remove or fill them"
        )


def as_observed(observed: ArrayLike | None, n_rows: int, what: str) -> np.ndarray | None:
    """A mask of rows as booleans (N,); None if it is None or true of every row.

    Raises
    ------
    InputError
        Unless there is one boolean a row.
    """
    if observed is None:
        return None
    mask = np.asarray(observed)
    if mask.dtype != bool or mask.shape != (n_rows,):
        raise InputError(
            f"{what}: observed must hold one boolean for each of the {n_rows} rows, got dtype "
            f"{mask.dtype} and shape {mask.shape}"
        )
    return None if mask.all() else mask
