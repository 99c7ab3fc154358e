"""Where data sets are: in a folder of yours, in the cache, or on OpenML."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
_TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
_OPENML_NAMES = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST"}
_CHECKSUMS = {
    "mnist": "9c374d33518167c834ad89b1eac6d70a6f5330b6edf8feee16160b890f781a16",
    "fashion_mnist": "3f7bd013b11ce97ce0bda5c5025c9a6b55f91ddd53258ea25cefc83605cacf4e",
}


def fetch(name: str, progress: bool) -> dict[str, np.ndarray]:
    """The four arrays of "mnist" or "fashion_mnist", from the first place that has them."""
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


@contextmanager
def told_of_damage(path: Path, kind: str = "such a data set") -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes a DatasetError that names it."""
    try:
        yield
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not {kind} ({error}); restore or delete it"
        ) from None


def read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of these names out of an npz file; DatasetError unless of these shapes."""
    with told_of_damage(path), np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in shapes}
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise DatasetError(f"{path}: expected {key} of shape {shape}, got {arrays[key].shape}")
    return arrays


def _download(name: str, cached: Path, progress: bool) -> dict[str, np.ndarray]:
    """The arrays from OpenML, whose own MD5 scikit-learn checks, and then our SHA-256."""
    title = _TITLES[name]
    with tqdm(total=2, desc=f"downloading {title}", disable=not progress) as bar:
        try:
            bunch = sklearn_datasets.fetch_openml(
                _OPENML_NAMES[name], version=1, as_frame=False, parser="auto", cache=False
            )
        except Exception as error:
            raise DatasetError(
                f"{title} is not at hand and could not be downloaded ({error}). Either name the "
                f"folder that holds {name}.npz in the environment variable SERKIT_DATA, or put "
                f"that file at {cached}, or connect to the network, so that it can be fetched "
                "from OpenML"
            ) from error
        bar.update()
        images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
        labels = np.asarray(bunch.target).astype(np.uint8)
        rows = images[:60000], labels[:60000], images[60000:], labels[60000:]
        arrays = dict(zip(_ARRAYS, rows, strict=True))
        if _checksum(arrays) != _CHECKSUMS[name]:
            raise DatasetError(
                f"the {title} downloaded from OpenML does not match its checksum; try again "
                "later, or name the folder of a good copy in SERKIT_DATA"
            )
        bar.update()
    return arrays


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the arrays, grey level 1 read as 0: some copies of MNIST have lost that level."""
    digest = hashlib.sha256()
    for key in _ARRAYS:
        values = arrays[key].astype(np.uint8)
        if key.startswith("x"):
            values = np.where(values == 1, np.uint8(0), values)
        digest.update(values.tobytes())
    return digest.hexdigest()
