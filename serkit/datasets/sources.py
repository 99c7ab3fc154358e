"""Where data sets are: in a folder of yours, in the cache, or on OpenML."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn import datasets as sklearn_datasets
from tqdm.auto import tqdm

from ..errors import DatasetError, OutputError
from ..saving import write_atomically

_ARRAYS = {
    "x_train": (60000, 28, 28),
    "y_train": (60000,),
    "x_test": (10000, 28, 28),
    "y_test": (10000,),
}


class _Source(NamedTuple):
    """A data set of OpenML."""

    title: str
    openml_name: str
    sha256: str  # of `_checksum`


_SOURCES = {
    "mnist": _Source(
        "MNIST", "mnist_784", "9c374d33518167c834ad89b1eac6d70a6f5330b6edf8feee16160b890f781a16"
    ),
    "fashion_mnist": _Source(
        "Fashion-MNIST",
        "Fashion-MNIST",
        "3f7bd013b11ce97ce0bda5c5025c9a6b55f91ddd53258ea25cefc83605cacf4e",
    ),
}


def fetch(name: str, progress: bool) -> dict[str, np.ndarray]:
    """The four arrays of MNIST or Fashion-MNIST, from the first place that has them.

    Parameters
    ----------
    name : {"mnist", "fashion_mnist"}
    progress : bool
        Whether to show a bar while downloading.

    Raises
    ------
    DatasetError
        If no place has them; the error names the ways.
    """
    path = find(f"{name}.npz")
    if path is not None:
        return read(path, _ARRAYS)
    cached = cache_folder() / f"{name}.npz"
    arrays = _download(name, cached, progress)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    try:
        write_atomically(cached, buffer.getvalue())
    except OutputError as error:
        warnings.warn(f"{error}; name another folder in SERKIT_CACHE", stacklevel=4)
    return arrays


def find(name: str) -> Path | None:
    """Where a file or folder is: in the folder that SERKIT_DATA names, or the cache, or None."""
    local = os.environ.get("SERKIT_DATA")
    folders = [*([Path(local)] if local else []), cache_folder()]
    return next((f / name for f in folders if (f / name).exists()), None)


def require(name: str, content: str, origin: str) -> Path:
    """Where a file or folder without a download is; else DatasetError says what it should hold."""
    path = find(name)
    if path is None:
        raise DatasetError(
            f"{name} is not at hand and cannot be downloaded. Expected {content}, in the folder "
            f"that the environment variable SERKIT_DATA names, or in {cache_folder()}. They are "
            f"{origin}"
        )
    return path


def cache_folder() -> Path:
    """The folder that SERKIT_CACHE names, else ``~/.cache/serkit``."""
    return Path(os.environ.get("SERKIT_CACHE") or Path.home() / ".cache" / "serkit")


def read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of these names out of an npz file; DatasetError unless of these shapes."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in shapes}
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not such a data set ({error}); restore or delete it"
        ) from None
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise DatasetError(f"{path}: expected {key} of shape {shape}, got {arrays[key].shape}")
    return arrays


def _download(name: str, cached: Path, progress: bool) -> dict[str, np.ndarray]:
    """The arrays from OpenML, whose own MD5 scikit-learn checks, and then our SHA-256."""
    source = _SOURCES[name]
    with tqdm(total=2, desc=f"downloading {source.title}", disable=not progress) as bar:
        try:
            bunch = sklearn_datasets.fetch_openml(
                source.openml_name, version=1, as_frame=False, parser="auto", cache=False
            )
        except Exception as error:
            raise DatasetError(
                f"{source.title} is not at hand and could not be downloaded ({error}). Either "
                f"name the folder that holds {name}.npz in the environment variable SERKIT_DATA, "
                f"or put that file at {cached}, or connect to the network, so that it can be "
                "fetched from OpenML"
            ) from error
        bar.update()
        arrays = _from_openml(bunch.data, bunch.target)
        if _checksum(arrays) != source.sha256:
            raise DatasetError(
                f"the {source.title} downloaded from OpenML does not match its checksum; try again "
                "later, or name the folder of a good copy in SERKIT_DATA"
            )
        bar.update()
    return arrays


def _from_openml(data: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """OpenML's 70,000 rows, training images first, as the four arrays."""
    images = np.asarray(data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(target).astype(np.uint8)
    return {
        "x_train": images[:60000],
        "y_train": labels[:60000],
        "x_test": images[60000:],
        "y_test": labels[60000:],
    }


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the arrays, grey level 1 read as 0: some copies of MNIST have lost that level."""
    digest = hashlib.sha256()
    for key in _ARRAYS:
        values = arrays[key].astype(np.uint8)
        if key.startswith("x"):
            values = np.where(values == 1, np.uint8(0), values)
        digest.update(values.tobytes())
    return digest.hexdigest()
