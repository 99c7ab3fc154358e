"""Saving and loading without executing anything: one safetensors file, its header holding JSON.

Arrays are stored as tensors; everything else (constructor arguments, history, connections) as
JSON that refers to them. A SHA-256 over both tells a damaged file. Writing goes to a temporary
name in the same folder and is then renamed, so that a killed process leaves the old file whole.

scikit-learn's estimators, fitted or not, are stored in the format of `skops`, a zip of JSON and
arrays, as an array of its bytes. Only types that it, or `_TRUSTED` here, knows to be harmless are
written and read: a file cannot name anything else to be imported or called.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from sklearn.base import BaseEstimator

from ..errors import InputError, OutputError, SavedFileError
from ..messages import Categorical, Data, Gaussian, Message, Mixture

_FORMAT = 2
# Plain holders of numbers inside fitted neural nets, which skops has not listed yet.
_TRUSTED = [
    f"sklearn.neural_network._stochastic_optimizers.{name}"
    for name in ("AdamOptimizer", "SGDOptimizer")
]
_MESSAGES = {kind.__name__: kind for kind in (Data, Gaussian, Categorical, Mixture)}


class Unsupported(InputError):
    """A value that `encode` has no form for."""


class Custom:
    """Stands for an argument that is code (a net, a function), which no file can hold."""

    def __init__(self, description: str) -> None:
        self.description = description

    def __repr__(self) -> str:
        return self.description


def encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Turn a tree of values into JSON, moving its arrays and tensors into `arrays`.

    Parameters
    ----------
    value
        None, numbers, strings, lists, tuples (which become lists), dicts, arrays, tensors,
        messages, scikit-learn's estimators, objects of serkit in their style, or `Custom`.
    arrays : dict
        Filled with names like ``"12"``.

    Raises
    ------
    Unsupported
        For anything else, such as estimators of other libraries.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return {"__tensor__": _store(value.detach().cpu().numpy(), arrays)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "USO":
            return {"__strings__": value.tolist()}
        return {"__array__": _store(value, arrays)}
    if isinstance(value, list | tuple):
        return [encode(item, arrays) for item in value]
    if isinstance(value, dict):
        return {"__items__": [[encode(k, arrays), encode(v, arrays)] for k, v in value.items()]}
    if isinstance(value, Message):
        return {"__message__": type(value).__name__, "fields": encode(vars(value), arrays)}
    if _is_foreign(value):
        return {"__estimator__": _store(_dump_estimator(value), arrays)}
    if isinstance(value, BaseEstimator):
        fields = encode(value.get_params(deep=False), arrays)
        return {"__object__": type(value).__name__, "fields": fields}
    if isinstance(value, Custom):
        return {"__custom__": value.description}
    if hasattr(value, "__array__"):  # a pandas Series, say
        return encode(np.asarray(value), arrays)
    raise Unsupported(f"a value of type {type(value).__name__} cannot be saved")


def described(value: Any) -> Any:
    """The value if it can be saved, else a `Custom` with its name."""
    try:
        encode(value, {})
    except Unsupported:
        return Custom(getattr(value, "__qualname__", type(value).__qualname__))
    return value


def _store(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    if array.dtype.kind not in "biuf":
        raise Unsupported(f"an array of dtype {array.dtype} cannot be saved")
    name = str(len(arrays))
    arrays[name] = np.ascontiguousarray(array).reshape(array.shape)
    return name


def _is_foreign(value: Any) -> bool:
    """Whether a value is an estimator, and not one of serkit's."""
    return isinstance(value, BaseEstimator) and not type(value).__module__.startswith("serkit.")


def _dump_estimator(estimator: BaseEstimator) -> np.ndarray:
    """A scikit-learn estimator as bytes (n,) in skops' format."""
    kind = type(estimator).__name__
    try:
        from skops import io
    except ImportError:
        raise Unsupported(
            f"a {kind}, which only skops can save: pip install 'serkit[estimators]'"
        ) from None
    try:
        dumped = io.dumps(estimator)
        unknown = sorted({*io.get_untrusted_types(data=dumped)} - {*_TRUSTED})
    except Exception as error:  # what a foreign object raises when it is taken apart varies
        raise Unsupported(f"a {kind}, of which skops can make no safe file ({error})") from None
    if unknown:
        raise Unsupported(
            f"a {kind}, of which skops can make no safe file (it holds {', '.join(unknown)})"
        )
    return np.frombuffer(dumped, dtype=np.uint8)


def _load_estimator(dumped: np.ndarray) -> BaseEstimator:
    try:
        from skops import io
    except ImportError:
        raise SavedFileError(
            "it holds scikit-learn estimators, which are read by skops: "
            "pip install 'serkit[estimators]'"
        ) from None
    try:
        estimator = io.loads(dumped.tobytes(), trusted=_TRUSTED)
        if not isinstance(estimator, BaseEstimator):
            raise TypeError(f"it is a {type(estimator).__name__}")
        return estimator
    except Exception as error:  # a file made by others can be wrong in any way
        raise SavedFileError(
            f"it holds a scikit-learn estimator that cannot be read safely ({error}); save it "
            "again, with the versions of scikit-learn and skops that are installed here"
        ) from None


def decode(value: Any, arrays: dict[str, np.ndarray], classes: dict[str, type]) -> Any:
    """The inverse of `encode`; objects are made of `classes`, code becomes `Custom`."""
    if isinstance(value, list):
        return [decode(item, arrays, classes) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return torch.tensor(arrays[value["__tensor__"]])
    if "__array__" in value:
        return arrays[value["__array__"]]
    if "__estimator__" in value:
        return _load_estimator(arrays[value["__estimator__"]])
    if "__strings__" in value:
        return np.array(value["__strings__"])
    if "__items__" in value:
        return {
            decode(k, arrays, classes): decode(v, arrays, classes) for k, v in value["__items__"]
        }
    if "__message__" in value:
        return _MESSAGES[value["__message__"]](**decode(value["fields"], arrays, classes))
    if "__object__" in value and value["__object__"] not in classes:
        raise SavedFileError(f"names a class {value['__object__']} that serkit does not have")
    if "__object__" in value:
        return classes[value["__object__"]](**decode(value["fields"], arrays, classes))
    return Custom(value["__custom__"])


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, arrays and estimators by value and code by its name."""
    left, right = described(left), described(right)
    if _is_foreign(left) and _is_foreign(right):
        return joblib.hash(left) == joblib.hash(right)  # skops' bytes hold memory addresses
    left_arrays, right_arrays = {}, {}
    if encode(left, left_arrays) != encode(right, right_arrays):
        return False
    return all(np.array_equal(left_arrays[name], right_arrays[name]) for name in left_arrays)


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, then rename.

    Raises
    ------
    OutputError
        If the folder cannot be written to; a file already there stays as it is.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def write(path: str | os.PathLike, tree: Any) -> None:
    """Write a tree of values to one file."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps({"format": _FORMAT, "tree": encode(tree, arrays)})
    metadata = {"serkit": text, "sha256": _digest(text, arrays)}
    write_atomically(Path(path), to_safetensors(arrays, metadata))


def read(path: str | os.PathLike, classes: Callable[[], dict[str, type]]) -> Any:
    """Read what `write` wrote.

    Raises
    ------
    SavedFileError
        For a file that is missing, truncated, altered or not serkit's; the path is named.
    """
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SavedFileError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise SavedFileError(
            f"{path}: not a whole safetensors file ({error}); restore it from a copy, or delete "
            "it to start afresh"
        ) from None
    if "serkit" not in metadata or "sha256" not in metadata:
        raise SavedFileError(f"{path}: a safetensors file, but not one that serkit wrote")
    if metadata["sha256"] != _digest(metadata["serkit"], arrays):
        raise SavedFileError(
            f"{path}: its contents do not match their checksum, so it was altered or damaged; "
            "restore it from a copy, or delete it to start afresh"
        )
    content = json.loads(metadata["serkit"])
    if content["format"] != _FORMAT:
        raise SavedFileError(
            f"{path}: written in format {content['format']}, this serkit reads {_FORMAT}"
        )
    try:
        return decode(content["tree"], arrays, classes())
    except SavedFileError as error:
        raise SavedFileError(f"{path}: {error}") from None


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
