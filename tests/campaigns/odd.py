"""Odd values: what people pass by mistake, or pass on from elsewhere, in place of a sound one."""

from __future__ import annotations

import datetime
import decimal
import fractions
import importlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.random import Generator

LARGE = (2**31, 10**12)
NUMBERS = [
    *(0, -1, 1, 2, 3, 7, 10**400, 0.5, 1.5, -0.0, -2.5, 1e300, -1e300, 1e-300, 5e-324),
    *(float("nan"), float("inf"), float("-inf"), True, False, 1 + 2j),
    *(np.int64(2), np.uint8(3), np.float32(0.5), np.float16(2), np.bool_(True), np.float64("nan")),
    *(np.longdouble(2), np.complex64(1j), np.datetime64("2020-01-01"), np.datetime64("NaT")),
    *(fractions.Fraction(1, 3), decimal.Decimal("0.5"), datetime.date(2020, 1, 1)),
]


class Sulky:
    """Refuses to become an array, or to be compared."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise RuntimeError("no array of me")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison with me")


OTHERS: list[Callable[[], Any]] = [
    *(list, tuple, dict, set, object, Sulky),
    lambda: None,
    lambda: ...,
    *(lambda: "", lambda: "odd", lambda: "0", lambda: b"odd", lambda: "a\0b", lambda: Path("odd")),
    *(
        lambda: range(3),
        lambda: iter([1, 2]),
        lambda: [1, 2],
        lambda: (3, 0),
        lambda: [[1, 2], [3]],
    ),
    *(lambda: ["a", None, 1.5], lambda: {"a": 1}, lambda: {1, 2}, lambda: [None], lambda: [[]]),
    *(lambda: int, lambda: np.ndarray, lambda: len, lambda: lambda: None, lambda: lambda *a: a),
    *(lambda: np.random.default_rng(0), lambda: np.random.RandomState(0), lambda: [float("nan")]),
    *(lambda: np.zeros(3), lambda: np.ones((2, 3)), lambda: np.zeros((0, 4)), lambda: np.array(3)),
    *(lambda: np.full((3, 2), np.nan), lambda: np.array("x"), lambda: np.array(None)),
    *(lambda: np.array(["a", "b"]), lambda: np.zeros((2, 2), complex), lambda: np.zeros((60, 1))),
    *(lambda: torch.zeros(3), lambda: torch.ones(2, 3, device="meta"), lambda: torch.tensor(2)),
    *(lambda: torch.nn.Linear(2, 2), lambda: torch.eye(3).to_sparse(), lambda: torch.float32),
    *(lambda: scipy.sparse.eye_array(3).tocsr(), lambda: np.ma.masked_equal([1, 2, 3], 2)),
]


def anything(rng: Generator, *, large: bool) -> Any:
    """A value of any kind, made anew; with `large` perhaps a number of very many."""
    kind = rng.integers(5)
    if kind == 0 and large:
        return LARGE[rng.integers(len(LARGE))]
    if kind <= 2:
        return NUMBERS[rng.integers(len(NUMBERS))]
    return OTHERS[rng.integers(len(OTHERS))]()


def spoilt(rows: Any, rng: Generator) -> Any:
    """Sound rows with one or two things odd about them: values, dtype, shape, container."""
    try:
        array = np.array(rows)
    except ValueError:  # arrays of unequal lengths
        return [spoilt(rows[0], rng), *rows[1:]]
    for _ in range(rng.integers(1, 3)):
        if isinstance(array, np.ndarray):
            changes = CHANGES[rng.integers(len(CHANGES))]
            with suppress(Exception), np.errstate(all="ignore"):  # there may be no such rows
                array = changes[rng.integers(len(changes))](array)
    return array


def _put(*values: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A change that puts values into the first entries."""

    def change(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed.flat[: len(values)] = values[: array.size]
        return changed

    return change


def _as(dtype: Any) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array.astype(dtype)


def _tensor(function: Callable[[torch.Tensor], Any]) -> Callable[[np.ndarray], Any]:
    return lambda array: function(torch.from_numpy(np.ascontiguousarray(array)))


def _frame(library: str) -> Callable[[np.ndarray], Any]:
    """A change into a series or a frame of a library, where that is installed."""

    def change(array: np.ndarray) -> Any:
        frames = importlib.import_module(library)
        if array.ndim == 1:
            return frames.Series(array)
        columns = enumerate(array.reshape(len(array), -1).T)
        return frames.DataFrame({f"column {i}": column for i, column in columns})

    return change


CHANGES: list[list[Callable[[np.ndarray], Any]]] = [
    [  # values
        *(_put(np.nan), _put(np.inf, -np.inf), _put(1e300, -1e300), _put(5e-324, -0.0)),
        *(_put(-1.0), _put(3e38, -3e38), _put(1e19)),
        *(lambda a: a * 0, lambda a: a + 1e12, lambda a: a * 1e300, lambda a: a * 1e-300),
        lambda a: np.repeat(a[:1], len(a), axis=0),
        lambda a: np.repeat(a[:, :1], a.shape[1], axis=1),
    ],
    [  # dtypes
        *map(_as, (bool, np.int8, np.int64, np.uint64, np.float16, np.longdouble, complex)),
        *map(_as, (object, str, bytes, "datetime64[s]", "timedelta64[s]", ">f8", ">i4", "V8")),
    ],
    [  # shapes
        *(lambda a: a[:0], lambda a: a[:1], lambda a: a[:2], lambda a: a[1:], lambda a: a[::-2]),
        *(lambda a: a[..., :0], lambda a: a[..., :1], lambda a: a.T, np.asfortranarray, np.ravel),
        *(lambda a: a[None], lambda a: a[..., None], lambda a: a.flat[0], np.squeeze),
        *(lambda a: np.concatenate([a, a]), lambda a: np.concatenate([a, a], axis=-1)),
    ],
    [  # containers
        *(np.ndarray.tolist, list, lambda a: iter(a.tolist()), lambda a: [*a.flat[:3], a.tolist()]),
        *(lambda a: np.ma.masked_equal(a, a.flat[0]), lambda a: {"rows": a}, np.ndarray.tobytes),
        *(scipy.sparse.csr_array, scipy.sparse.coo_matrix, _frame("pandas"), _frame("polars")),
    ],
    [  # tensors
        *map(_tensor, (torch.clone, lambda t: t.to("meta"), torch.Tensor.to_sparse, torch.conj)),
        *map(_tensor, (torch.Tensor.bfloat16, torch.Tensor.half, torch.Tensor.cfloat)),
        _tensor(lambda t: t.to(torch.float8_e5m2)),
        _tensor(lambda t: t.float().requires_grad_() * 1),
        _tensor(lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8)),
        _tensor(lambda t: torch.nested.nested_tensor([t.float(), t.float()])),
    ],
]
