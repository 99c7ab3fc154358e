"""What people keep rows and labels in, read into arrays: lists, frames, tensors, data sets.

Rows of anything become an array (N, ...), labels of anything codes and classes, or an `InputError`
says what came and how to turn it into rows. A missing value is NaN among rows and -1 among codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .errors import InputError

_LABEL_KEYS = {"label", "labels", "target", "targets", "class", "y"}
_MOST_ROWS, _MOST_BYTES = 100_000, 2**30  # of a stream that does not say how long it is
_NUMBERS = (Real, Decimal, np.bool_)
_NESTED = (list, tuple, dict, set, np.ndarray, torch.Tensor)


# -- rows ------------------------------------------------------------------------------------------


def rows_in(values: Any, what: str) -> np.ndarray:
    """Anything that holds rows as an array, whose dtype is still to be looked at.

    Parameters
    ----------
    values : array-like, frame, torch.Tensor, torch Dataset or DataLoader, or sequence of rows
        Objects without `__array__`, such as data sets, are read by index, up to their length; of
        pairs the first is the row. What is masked becomes NaN, and so do None and NA among numbers.
    what : str
        How error texts name the values.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> import torch
    >>> from serkit.reading import rows_in
    >>> rows_in(TensorDataset(torch.eye(2), torch.tensor([7, 8])), "rows")
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if sparse.issparse(values):
        raise InputError(
            f"{what}: sparse rows {values.shape} are taken by MLDA.fit alone; give the others "
            "rows.toarray()"
        )
    if isinstance(values, Mapping):
        raise InputError(f"{what}: expected rows, got a {_kind(values)} of {[*values]!r:.60}")
    if _is_indexed(values):
        return _stacked([row for row, _ in _pairs_in(values, what)], what)
    if isinstance(values, list | tuple) and any(map(_is_odd, values)):
        return _stacked([rows_in(_pair_of(row, False, what)[0], what) for row in values], what)
    return _array_of(values, what)


def rows_and_labels(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of a data set of pairs, such as torchvision's, read by index.

    Parameters
    ----------
    dataset : torch Dataset or DataLoader, or sequence
        Of pairs ``(row, label)``, or of dicts of a row and a label, as Hugging Face's are. Of a
        DataLoader its data set is read, in that one's order.

    Returns
    -------
    rows : np.ndarray, shape (N, ...)
    labels : np.ndarray, shape (N,)

    Raises
    ------
    InputError
        If there is no label, rows differ in shape, or a row cannot be read.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> from serkit import datasets
    >>> pairs = TensorDataset(torch.eye(3), torch.tensor([0, 1, 1]))
    >>> rows, labels = datasets.rows_and_labels(pairs)
    >>> rows.shape, labels.tolist()
    ((3, 3), [0, 1, 1])
    """
    what = f"rows_and_labels: {_kind(dataset)}"
    pairs = list(_pairs_in(dataset, what))
    if not pairs or any(label is None for _, label in pairs):
        raise InputError(f"{what}: expected pairs of a row and a label, got rows without labels")
    labels = _array_of([_plain(label) for _, label in pairs], what)
    return _stacked([row for row, _ in pairs], what), labels


def _is_indexed(values: Any) -> bool:
    """Whether values are to be read one by one: NumPy would ask for ever what never ends."""
    if isinstance(values, Dataset | DataLoader):
        return True
    known = list | tuple | str | bytes | bytearray | memoryview | np.ndarray | torch.Tensor
    arrays = ("__array__", "__array_interface__", "__array_struct__")
    if isinstance(values, type | known) or any(hasattr(values, name) for name in arrays):
        return False
    return hasattr(values, "__getitem__")


def _is_odd(value: Any) -> bool:
    """Whether an item is no row that NumPy reads by itself."""
    if isinstance(value, tuple):
        return bool(value) and isinstance(value[0], np.ndarray | torch.Tensor)
    return isinstance(value, torch.Tensor) or _is_indexed(value)


def _pairs_in(dataset: Any, what: str) -> Iterator[tuple[Any, Any]]:
    """Each row of a data set, with its label or None."""
    dataset = dataset.dataset if isinstance(dataset, DataLoader) else dataset
    is_torch, items = isinstance(dataset, Dataset), _items_in(dataset, what)
    n_read = 0
    try:
        for item in items:
            yield _pair_of(item, is_torch, what)
            n_read += 1
    except InputError:
        raise
    except Exception as error:  # of the data set's own code
        raise InputError(
            f"{what}: row {n_read} of a {_kind(dataset)} cannot be read: {error!r:.200}"
        ) from error


def _items_in(dataset: Any, what: str) -> Iterable[Any]:
    """The items of a data set, as many as it says."""
    try:
        n_rows = len(dataset)
    except (TypeError, NotImplementedError):
        if isinstance(dataset, IterableDataset):
            return _bounded(dataset, what)
        raise InputError(
            f"{what}: {_kind(dataset)} has no length; give it __len__, or read it into an array"
        ) from None
    if isinstance(dataset, IterableDataset):
        return (item for item, _ in zip(dataset, range(n_rows), strict=False))
    return (dataset[number] for number in range(n_rows))


def _bounded(stream: Iterable[Any], what: str) -> Iterator[Any]:
    """The items of a stream; InputError once they are too many to be all of one that ends."""
    n_bytes = 0
    for number, item in enumerate(stream):
        n_bytes += getattr(item[0] if isinstance(item, tuple) else item, "nbytes", 0)
        if number == _MOST_ROWS or n_bytes > _MOST_BYTES:
            raise InputError(
                f"{what}: {_kind(stream)} without a length did not end within {number} rows; "
                "give as many as you want: list(itertools.islice(dataset, n))"
            )
        yield item


def _pair_of(item: Any, is_torch: bool, what: str) -> tuple[Any, Any]:
    """The row and the label, or None, of an item of a data set."""
    if isinstance(item, Mapping):
        keys = [key for key in item if str(key).lower() not in _LABEL_KEYS]
        if len(keys) != 1:
            raise InputError(
                f"{what}: each row is a dict of {[*item]}; choose one of them, as in "
                f"[dataset[i][{next(iter(item), 'x')!r}] for i in range(len(dataset))], or make a "
                "frame of those that are numbers"
            )
        return item[keys[0]], next((item[key] for key in item if key not in keys), None)
    paired = isinstance(item, tuple) or (is_torch and isinstance(item, list))
    if paired and item and (is_torch or np.ndim(item[0])):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _stacked(rows: Iterable[Any], what: str) -> np.ndarray:
    """Rows of one shape as one array (N, ...)."""
    arrays = [_array_of(row, what) for row in rows]
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise InputError(
                f"{what}: expected rows of equal length: row {number} has shape {array.shape}, row "
                f"0 {arrays[0].shape}"
            )
    return np.stack(arrays) if arrays else np.empty((0, 0))


def _array_of(values: Any, what: str) -> np.ndarray:
    """An array, list, frame, tensor or image as an array; objects that are numbers as float64."""
    if np.ma.is_masked(values) and values.dtype.kind in "biuf":  # others' dtypes are refused
        values = values.astype(np.result_type(values.dtype, np.float32)).filled(np.nan)
    array = array_in(values, what)
    return _of_objects(array, values, what) if array.dtype == object else array


def array_in(values: Any, what: str) -> np.ndarray:
    """Anything as an array of whatever dtype and shape it has, tensors too."""
    if isinstance(values, torch.Tensor):
        return _of_tensor(values, what)
    try:
        return np.asarray(values)
    except InputError:  # of what stands for values that no file could hold
        raise
    except ValueError as error:
        raise InputError(f"{what}: expected rows of equal length: {error!s:.200}") from None
    except Exception as error:  # whatever an object's own code raises
        raise InputError(f"{what}: a {_kind(values)} cannot be read: {error!s:.200}") from None


def _of_tensor(tensor: torch.Tensor, what: str) -> np.ndarray:
    try:
        dense = tensor.detach().cpu().resolve_conj().resolve_neg()
        if dense.is_floating_point() and dense.dtype not in (torch.float64, torch.float16):
            dense = dense.float()
        return dense.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        kind = f"{tensor.layout} tensor of {tensor.dtype} on {tensor.device}"
        raise InputError(f"{what}: cannot read a {kind}: {error!s:.120}") from None


def _of_objects(objects: np.ndarray, source: Any, what: str) -> np.ndarray:
    """An array of objects as float64, None and NA as NaN; InputError unless all are numbers."""
    if objects.ndim == 0:
        raise InputError(f"{what}: expected real numbers, got a {_kind(source)}: {source!r:.60}")
    flat = objects.ravel().tolist()
    missing = {kind for kind in set(map(type, flat)) if kind.__name__ in ("NoneType", "NAType")}
    for place, value in enumerate(flat):
        if not isinstance(value, _NUMBERS) and type(value) not in missing:
            row, *column = (int(i) for i in np.unravel_index(place, objects.shape))
            columns = getattr(source, "column_names", getattr(source, "columns", None))
            named = "" if columns is None or not column else f" of column {columns[column[0]]!r}"
            raise InputError(
                f"{what}: expected real numbers, got dtype object, with {value!r:.60} in row {row}"
                f"{named}; convert it first, or leave it out"
            )
    try:
        numbers = [np.nan if type(value) in missing else float(value) for value in flat]
    except OverflowError as error:
        raise InputError(f"{what}: expected real numbers: {error}") from None
    return np.array(numbers, dtype=np.float64).reshape(objects.shape)


def _kind(values: Any) -> str:
    return type(values).__name__


# -- names of columns ------------------------------------------------------------------------------


def names_in(values: Any, what: str) -> np.ndarray | None:
    """A frame's column names, (D,), if all are strings; None for anything else.

    InputError, as of scikit-learn, for names of which only some are strings or some are equal.
    """
    unnamed = BaseEstimator()
    _validated(unnamed, values, what, reset=True)
    return getattr(unnamed, "feature_names_in_", None)


def check_names(estimator: BaseEstimator, values: Any, what: str) -> None:
    """Check a frame's column names as scikit-learn does, by `estimator.feature_names_in_`.

    An InputError for names that are missing, new or in another order; a warning if only one of both
    has names.
    """
    _validated(estimator, values, what, reset=False)


def keep_names(estimator: BaseEstimator, names: np.ndarray | None) -> None:
    """Keep the names of the columns learnt from; None forgets others."""
    if names is not None:
        estimator.feature_names_in_ = names
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def _validated(estimator: BaseEstimator, values: Any, what: str, *, reset: bool) -> None:
    try:
        validate_data(estimator, values, reset=reset, skip_check_array=True, ensure_2d=False)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what}: {error}") from None


# -- labels ----------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """The classes that rows are known to be of."""

    codes: np.ndarray  # (N,) of int, places in `classes`; -1 where the class is unknown
    classes: np.ndarray  # (C,), sorted

    @property
    def known(self) -> np.ndarray:
        """Whether each row's class is known, (N,) of bool."""
        return self.codes >= 0


def labels_in(labels: Any, what: str) -> Labels:
    """Labels of any kind as codes and classes.

    Unknown, the same wherever labels are taken, are None, NaN, NaT, NA, masked ones, and the number
    -1, as in scikit-learn's semi-supervised estimators, unless 1 is the only other one: -1 and 1
    alone are two classes.

    Parameters
    ----------
    labels : array-like of shape (N,)
        Numbers, strings, booleans or dates, but of one kind: lists, arrays, tensors, and columns of
        frames, categories too.
    what : str
        How error texts name them.

    Raises
    ------
    InputError
        Unless there is one label per row, all of a kind, and one at least that is known; and for
        infinity.

    Examples
    --------
    >>> from serkit.reading import labels_in
    >>> labels_in(["dog", None, "cat", "dog"], "labels")
    Labels(codes=array([ 1, -1,  0,  1]), classes=array(['cat', 'dog'], dtype='<U3'))
    """
    values = _label_array(labels, what)
    known = ~_is_missing(values)
    if values.dtype.kind in "if":
        known &= (values != -1) | minus_one_is_class(values[known])
    if len(values) and not known.any():
        raise InputError(f"{what}: labels has no entry that is known: {labels!r:.60}")
    try:
        names = values[known]
        names = np.array(names.tolist()) if names.dtype == object else names
        classes, of_known = np.unique(names, return_inverse=True)
    except TypeError as error:
        raise InputError(f"{what}: labels cannot be put in order: {error}") from None
    if classes.dtype.kind == "f" and np.isinf(classes).any():
        raise InputError(f"{what}: labels contains infinity: {labels!r:.60}")
    codes = np.full(len(values), -1)
    codes[known] = of_known
    return Labels(codes, classes)


def minus_one_is_class(numbers: np.ndarray) -> bool:
    """Whether, of numbers (n,) that name classes, -1 does too: if they are -1 and 1 alone."""
    return np.array_equal(np.unique(numbers), [-1, 1])


def clusters_in(clusters: Any, what: str) -> np.ndarray:
    """Clusters, numbers or text, as an array (N,) that can be put in order; none are unknown."""
    array = array_in(clusters, what)
    if array.dtype.kind in "OT" and array.ndim == 1:
        array = _of_one_kind(array, what)
    is_known = array.dtype.kind not in "cOV"
    if not (is_known and np.array_equal(array, array)):
        raise InputError(
            f"{what}: clusters must be numbers or text, one per row, got dtype {array.dtype}"
            f"{' with NaN' if is_known else ''}"
        )
    return np.char.decode(array, "latin-1") if array.dtype.kind == "S" else array


def storable(labels: Any) -> Any:
    """Labels as files can hold them: numbers, or text and None; what can be none as it is."""
    try:
        array, (codes, classes) = _label_array(labels, "labels"), labels_in(labels, "labels")
    except InputError:
        return labels
    if array.dtype.kind in "biufU":
        return array
    names = [*classes.astype(str).tolist(), None]  # the last where codes are -1
    return np.array(names, dtype=object)[codes]


def _label_array(labels: Any, what: str) -> np.ndarray:
    """Labels as an array (N,) of one kind, objects where some are missing."""
    if isinstance(labels, np.ma.MaskedArray):
        labels = labels.tolist()  # None where masked
    if isinstance(labels, torch.Tensor):
        labels = _of_tensor(labels, what)
    if _is_indexed(labels) and not isinstance(labels, Mapping):
        labels = list(_items_in(labels, what))
    if isinstance(labels, list | tuple):  # of which NumPy would make strings where one is
        array = np.fromiter(map(_plain, labels), dtype=object, count=len(labels))
    else:
        array = array_in(labels, what)
    nested = array.dtype == object and any(isinstance(v, _NESTED) for v in array.ravel())
    if array.ndim != 1 or nested:
        raise InputError(
            f"{what}: labels must be one class per row, shape (N,), got "
            f"{'nested values' if nested else f'shape {array.shape}'}: {labels!r:.40}"
        )
    array = _of_one_kind(array, what) if array.dtype.kind in "OT" else array
    if array.dtype.kind not in "biufUSOMm":
        raise InputError(
            f"{what}: labels must be of numbers, text, booleans or dates, got dtype {array.dtype}"
        )
    return array


def _of_one_kind(objects: np.ndarray, what: str) -> np.ndarray:
    """Labels that are objects (N,), as numbers, booleans or strings where all are known."""
    kinds: dict[Any, Any] = {}
    missing = _is_missing(objects := objects.astype(object))
    for value in objects[~missing]:
        kinds.setdefault(_sort_of(value), value)
    if len(kinds) > 1:
        raise InputError(
            f"{what}: labels must be of one kind, got {' and '.join(map(repr, kinds.values()))}"
        )
    if kinds.keys() == {Real} and missing.any():
        if any(isinstance(v, int) and int(float(v)) != v for v in objects[~missing]):
            raise InputError(
                f"{what}: labels of rows among unknown ones must be integers that float64 holds"
            )
        return np.array([np.nan if m else v for v, m in zip(objects, missing, strict=True)], float)
    return objects if missing.any() else np.array(objects.tolist())


def _is_missing(values: np.ndarray) -> np.ndarray:
    """Whether each label (N,) is None, NaN, NaT or NA."""
    if values.dtype.kind == "O":
        missing = [v is None or type(v).__name__ == "NAType" or v != v for v in values]
        return np.array(missing, dtype=bool)
    is_missing = {"f": np.isnan, "M": np.isnat, "m": np.isnat}.get(values.dtype.kind, np.zeros_like)
    return is_missing(values).astype(bool)


def _sort_of(value: Any) -> Any:
    """What labels of one kind have in common: numbers of any type, else their type."""
    if isinstance(value, bool | np.bool_):
        return bool
    return Real if isinstance(value, _NUMBERS) else type(value)


def _plain(value: Any) -> Any:
    """NumPy's and torch's scalars as Python's, but for dates, which would lose their type."""
    scalar = isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and not value.ndim)
    return value.item() if scalar and not isinstance(value, np.datetime64) else value
