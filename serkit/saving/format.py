"""One file for a tree of values, written and read without executing anything.

It is a safetensors file. Arrays are its tensors, each stored once however often the tree holds it;
the rest is JSON that refers to them, in the header. Records, which are dicts in a list such as the
entries of a history, are lines of JSON in one more tensor, and each is encoded once, however often
the file is written anew. A SHA-256 over all tells a damaged file.

Classes go by their public names (``serkit.modules.GMM``), wherever their source is, and a file
cannot name any other to be imported or called.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime, time, timedelta
from importlib import import_module
from typing import Any, NoReturn

import joblib
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from sklearn.base import BaseEstimator

from ..errors import InputError, SavedFileError
from ..messages import Categorical, Data, Deferred, Gaussian, Mixture
from ..module import Posterior
from . import estimators
from .atomic import write_atomically
from .estimators import Unsupported, is_foreign

FORMAT = 3
EARLY = "0.1.0 before its release"  # which wrote formats 1 and 2, without saying so
PUBLIC = ("serkit.modules", "serkit")  # packages whose classes go by the names they have there
_STATEMENTS: dict[str, type] = {
    kind.__name__: kind for kind in (Data, Gaussian, Categorical, Mixture, Deferred, Posterior)
}
_DATES: dict[str, Any] = {kind.__name__: kind for kind in (date, datetime, time)}
_GENERATORS = (np.random.Generator, np.random.RandomState)
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_RECORDS = "records"  # the tensor of their lines
_MOST_BYTES = 2**26  # that a few letters in a file may become

Arrays = dict[str, np.ndarray]
# Records encoded before, by identity: a record, held so that it stays alive, and its line.
Encoded = dict[int, tuple[dict, str]]


class Custom:
    """Stands for what was given to a constructor and no file can hold: code, or odd values."""

    def __init__(self, description: str, remedy: str = "") -> None:
        self.description = description
        self.remedy = remedy

    def __repr__(self) -> str:
        return self.description

    def __call__(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise InputError, as it is missing."""
        raise InputError(self.remedy or f"{self.description} was not saved")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        """Raise InputError, as it is missing."""
        self()


class Contents:
    """What a file holds beside the JSON of its tree: arrays, each once, and lines of records."""

    def __init__(self, known: Encoded | None = None) -> None:
        self.arrays: Arrays = {}
        self.lines: list[str] = []
        self.encoded: Encoded = {}
        self._known = known or {}
        self._names: dict[tuple, str] = {}
        self._held: list[np.ndarray] = []  # so that their places in memory stay theirs
        self._tensors: dict[str, torch.Tensor] = {}
        self._n_taken = 0  # lines
        self._n_bytes_left: int | None = None  # of arrays, each as often as it is asked for

    def add(self, array: np.ndarray) -> str:
        """Store an array, unless it is there already; returns its name, like ``"12"``."""
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise Unsupported(f"an array of dtype {array.dtype} cannot be saved")
        place = (array.ctypes.data, array.shape, array.strides, array.dtype.str)
        if place not in self._names:
            self._names[place] = name = str(len(self.arrays))
            native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
            self.arrays[name] = native.reshape(array.shape)
            self._held.append(array)
        return self._names[place]

    def add_records(self, records: Sequence[dict]) -> list[int] | None:
        """Store records as lines, if none holds an array; returns the first and last + 1 of them.

        The last one may still change, so only those before it are taken as they were encoded.
        """
        lines = []
        for record in records:
            before, line = self._known.get(id(record), (None, ""))
            if before is not record or record is records[-1]:
                own = Contents()
                line = json.dumps(encode(record, own, is_record=True))
                if own.arrays:
                    return None
            self.encoded[id(record)] = record, line
            lines.append(line)
        self.encoded.pop(id(records[-1]))
        self.lines += lines
        return [len(self.lines) - len(lines), len(self.lines)]

    def array(self, name: str) -> np.ndarray:
        """An array that was stored; ValueError if they are asked for again and again."""
        if self._n_bytes_left is None:
            total = sum(array.nbytes for array in self.arrays.values())
            self._n_bytes_left = max(_MOST_BYTES, 100 * total)
        self._n_bytes_left -= self.arrays[name].nbytes
        if self._n_bytes_left < 0:
            raise ValueError("the same arrays stand in too many places")
        return self.arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        """An array as a tensor, the same one whenever it is asked for."""
        array = self.array(name)
        if name not in self._tensors:
            self._tensors[name] = torch.tensor(array)
        return self._tensors[name]

    def take_lines(self, first: int, end: int) -> list[str]:
        """Lines that nobody has taken yet: in this order they were written."""
        if not self._n_taken <= first <= end <= len(self.lines):
            raise ValueError(f"no records {first} to {end}")
        self._n_taken = end
        return self.lines[first:end]


def encode(value: Any, contents: Contents, *, is_record: bool = False) -> Any:
    """Turn a tree of values into JSON, moving its arrays and records into `contents`.

    The tree may hold None, numbers, strings, dates and times, lists, tuples, dicts, arrays of them,
    tensors, messages, a `Posterior`, scikit-learn's estimators, public objects of serkit with what
    they learnt, and `Custom`; anything else raises `Unsupported`. In a record lists of dicts stay
    where they are.
    """

    def inner(value: Any) -> Any:
        return encode(value, contents, is_record=is_record)

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "mM":
        native = value.dtype.newbyteorder("=")
        return {"__times__": [native.str, inner(value.astype(native).view(np.int64))]}
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return float(value) if isinstance(value, np.floating) else value.item()
    if isinstance(value, torch.Tensor):
        if value.dtype is torch.bfloat16:
            raise Unsupported(f"a tensor of dtype {value.dtype} cannot be saved")
        return {"__tensor__": contents.add(value.detach().cpu().numpy())}
    if isinstance(value, np.ndarray) and value.dtype.kind in "UO":
        flat = [inner(item) for item in value.ravel().tolist()]
        return {"__values__": [value.dtype.kind, list(value.shape), flat]}
    if isinstance(value, np.ndarray):  # sums round by the order in memory, so that is kept
        is_fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        return {"__fortran__" if is_fortran else "__array__": contents.add(value)}
    if type(value) in _DATES.values():
        return {"__date__": [type(value).__name__, value.isoformat()]}
    if type(value) is timedelta:
        return {"__timedelta__": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, _GENERATORS):
        return {"__random__": [type(value).__name__, inner(_state_of(value))]}
    if isinstance(value, tuple):
        return {"__tuple__": [inner(item) for item in value]}
    if isinstance(value, list):
        if value and not is_record and all(isinstance(item, dict) for item in value):
            lines = contents.add_records(value)
            if lines is not None:
                return {"__records__": lines}
        return [inner(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: inner(item) for key, item in value.items()}
        return {"__items__": [[inner(key), inner(item)] for key, item in value.items()]}
    if type(value) in _STATEMENTS.values():
        stated = {f.name: inner(getattr(value, f.name)) for f in fields(value)}
        return {"__statement__": [type(value).__name__, stated]}
    if is_foreign(value):
        return {"__estimator__": contents.add(estimators.dump(value))}
    if isinstance(value, BaseEstimator) and public_class(class_name(type(value))):
        arguments, learnt = value.get_params(deep=False), learnt_by(value)
        return {"__object__": [class_name(type(value)), inner(arguments), inner(learnt)]}
    if isinstance(value, Custom):
        return {"__custom__": value.description}
    if hasattr(value, "__array__"):  # a pandas Series, say
        return inner(np.asarray(value))
    raise Unsupported(f"a value of type {type(value).__name__} cannot be saved")


def decode(value: Any, contents: Contents) -> Any:
    """The inverse of `encode`; code becomes `Custom`."""
    match value:
        case list():
            return [decode(item, contents) for item in value]
        case {"__tensor__": name}:
            return contents.tensor(name)
        case {"__array__": name}:
            return contents.array(name)
        case {"__times__": [dtype, numbers]}:
            return np.asarray(decode(numbers, contents), np.int64).view(_time_dtype(dtype))[()]
        case {"__values__": [kind, shape, items]}:
            values = np.empty(len(items), dtype=object)
            for i, item in enumerate(items):
                values[i] = decode(item, contents)
            return (values if kind == "O" else _strings(values)).reshape(shape)
        case {"__date__": [kind, text]}:
            return _DATES[kind].fromisoformat(text)
        case {"__timedelta__": numbers}:
            return timedelta(*numbers)
        case {"__fortran__": name}:
            return np.asfortranarray(contents.array(name))
        case {"__random__": [kind, state]}:
            return _generator(kind, decode(state, contents))
        case {"__tuple__": items}:
            return tuple(decode(item, contents) for item in items)
        case {"__records__": [first, end]}:
            lines = contents.take_lines(first, end)
            return [decode(json.loads(line), contents) for line in lines]
        case {"__items__": pairs}:
            return {decode(key, contents): decode(item, contents) for key, item in pairs}
        case {"__statement__": [kind, stated]}:
            return _STATEMENTS[kind](**decode(stated, contents))
        case {"__estimator__": name}:
            return estimators.load(contents.arrays.pop(name))  # each is stored for itself
        case {"__object__": [name, arguments, learnt]}:
            return _object(name, decode(arguments, contents), decode(learnt, contents))
        case {"__custom__": description}:
            return Custom(description)
        case dict():
            if unknown := [key for key in value if key.startswith("__")]:
                raise ValueError(f"no value is written as {unknown[0]}")
            return {key: decode(item, contents) for key, item in value.items()}
    return value


def _strings(values: np.ndarray) -> np.ndarray:
    """Strings (n,) as an array of them, each of which takes as much as the longest."""
    lengths = [len(value) for value in values]
    if 4 * len(values) * max(lengths, default=0) > max(_MOST_BYTES, 100 * sum(lengths)):
        raise ValueError("strings that would take much more memory than they have letters")
    return values.astype(str)


def _time_dtype(name: str) -> np.dtype:
    """A dtype of dates or durations; ValueError for any other."""
    dtype = np.dtype(name)
    if dtype.kind not in "mM":
        raise ValueError(f"{name} is no dtype of dates")
    return dtype


def described(value: Any) -> Any:
    """The value if it can be saved, else a `Custom` with its name; of odd values a hash too."""
    try:
        encode(value, Contents())
    except Unsupported:
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return Custom(f"{name} {_hash(value)}" if _is_data(value) else name)
    return value


def _is_data(value: Any) -> bool:
    """Whether a value is a collection of values, and not code."""
    is_collection = isinstance(value, Sequence | Mapping | set) or hasattr(value, "__array__")
    return is_collection and not callable(value) and not isinstance(value, Custom)


def _hash(value: Any) -> str:
    """A hash of a value; nothing where there is code in it."""
    try:
        return joblib.hash(value)
    except Exception:  # what a foreign object raises when it is taken apart varies
        return ""


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal: arrays and estimators by value, code by its name."""
    left, right = map(described, (left, right))
    left, right = (list(v) if isinstance(v, tuple) else v for v in (left, right))
    if isinstance(left, _GENERATORS):
        return type(left) is type(right)  # what it has drawn since makes no other argument of it
    if is_foreign(left) and is_foreign(right):
        return joblib.hash(left) == joblib.hash(right)  # skops' bytes hold memory addresses
    one, other = Contents(), Contents()
    texts = [json.dumps(encode(*pair)) for pair in ((left, one), (right, other))]  # NaN is "NaN"
    if texts[0] != texts[1] or one.lines != other.lines:
        return False
    pairs = ((one.arrays[name], other.arrays[name]) for name in one.arrays)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


# -- random generators -----------------------------------------------------------------------------


def _state_of(generator: np.random.Generator | np.random.RandomState) -> dict[str, Any]:
    """Where a generator is in its sequence."""
    if isinstance(generator, np.random.RandomState):
        return dict(generator.get_state(legacy=False))
    return dict(generator.bit_generator.state)


def _generator(kind: str, state: dict[str, Any]) -> np.random.Generator | np.random.RandomState:
    """A generator that goes on where one of that kind was."""
    if state["bit_generator"] not in _BIT_GENERATORS:
        raise SavedFileError(
            f"it holds a random generator {state['bit_generator']!r}, unknown here"
        )
    bits = getattr(np.random, state["bit_generator"])(0)
    if kind == "RandomState":
        generator = np.random.RandomState(bits)
        generator.set_state(state)
        return generator
    bits.state = state
    return np.random.Generator(bits)


# -- classes ---------------------------------------------------------------------------------------


def class_name(kind: type) -> str:
    """How files call a class: its public name in serkit, of a user's class ``module:qualname``."""
    for package in PUBLIC:
        if getattr(import_module(package), kind.__name__, None) is kind:
            return f"{package}.{kind.__name__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def public_class(name: str) -> type | None:
    """The public class of serkit that files call by this name; None if there is none."""
    package, _, own = name.rpartition(".")
    found = getattr(import_module(package), own, None) if package in PUBLIC else None
    return found if isinstance(found, type) else None


def learnt_by(estimator: BaseEstimator) -> dict[str, Any]:
    """What an object of serkit has learnt: attributes that end in an underscore."""
    learnt = {k: v for k, v in vars(estimator).items() if k.endswith("_") and k[0] != "_"}
    return estimator.get_state() if hasattr(estimator, "get_state") else learnt


def set_learnt(estimator: BaseEstimator, learnt: dict[str, Any]) -> None:
    """Let an object of serkit have learnt what `learnt_by` gave."""
    if any(callable(getattr(type(estimator), name, None)) for name in learnt):
        raise ValueError("what it has learnt has the names of methods")
    if learnt and hasattr(estimator, "set_state"):
        estimator.set_state(learnt)
    else:
        vars(estimator).update(learnt)


def _object(name: str, arguments: dict[str, Any], learnt: dict[str, Any]) -> BaseEstimator:
    kind = public_class(name)
    if kind is None or not issubclass(kind, BaseEstimator):
        raise SavedFileError(f"it holds an object of class {name}, which serkit does not have")
    made = kind(**arguments)
    set_learnt(made, learnt)
    return made


# -- files -----------------------------------------------------------------------------------------


def write(path: str | os.PathLike, tree: Any, encoded: Encoded | None = None) -> None:
    """Write a tree of values to one file.

    Parameters
    ----------
    path : path
    tree
        What `encode` takes.
    encoded : dict, optional
        Whoever writes a growing history again and again keeps this dict, empty at first: then each
        record in it is encoded once. What is changed in a record that has successors in its list
        is not written any more.

    Raises
    ------
    Unsupported
        For a value that no file can hold.
    OutputError
        If the file cannot be written; one that is already there stays whole.
    """
    contents = Contents(encoded)
    head = {"format": FORMAT, "version": import_module("serkit").__version__}
    text = json.dumps({**head, "tree": encode(tree, contents)})
    arrays = contents.arrays
    arrays[_RECORDS] = np.frombuffer("\n".join(contents.lines).encode(), dtype=np.uint8)
    metadata = {"serkit": text, "sha256": _digest(text, arrays)}
    write_atomically(path, to_safetensors(arrays, metadata))
    if encoded is not None:
        encoded.clear()
        encoded.update(contents.encoded)


def read(path: str | os.PathLike) -> Any:
    """Read what `write` wrote.

    Raises
    ------
    SavedFileError
        For a file that is missing, truncated, altered, of another format or not serkit's; the path
        is named.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise SavedFileError(f"{path}: something other than a file has that name")
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if "serkit" not in metadata or "sha256" not in metadata:
                raise SavedFileError(f"{path}: a safetensors file, but not one that serkit wrote")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SavedFileError:
        raise
    except FileNotFoundError:
        raise SavedFileError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise SavedFileError(
            f"{path}: not a whole safetensors file ({error}); restore it from a copy, or delete "
            "it to start afresh"
        ) from None
    if metadata["sha256"] != _digest(metadata["serkit"], arrays):
        raise SavedFileError(
            f"{path}: its contents do not match their checksum, so it was altered or damaged; "
            "restore it from a copy, or delete it to start afresh"
        )
    try:
        head = json.loads(metadata["serkit"])
        if head["format"] not in _READERS:
            raise SavedFileError(
                f"written in format {head['format']} by serkit {head.get('version', EARLY)}; "
                f"this serkit reads {', '.join(map(str, _READERS))}; train again, or load it with "
                "the version that wrote it"
            )
        return _READERS[head["format"]](head["tree"], arrays)
    except SavedFileError as error:
        raise SavedFileError(f"{path}: {error}") from None
    except Exception as error:  # a file made by others can be wrong in any way
        raise SavedFileError(f"{path}: it holds what serkit does not write ({error!r})") from error


def _read_3(tree: Any, arrays: Arrays) -> Any:
    contents = Contents()
    contents.lines = arrays[_RECORDS].tobytes().decode().split("\n")
    contents.arrays = arrays
    return decode(tree, contents)


# By format number; those of the last two minor versions stay when a new one is added.
_READERS: dict[int, Callable[[Any, Arrays], Any]] = {FORMAT: _read_3}


def _digest(text: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
