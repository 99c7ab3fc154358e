"""Where data sets are: in a folder of yours, in the cache, or on OpenML."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from sklearn import datasets as sklearn_datasets

from ..errors import DatasetError, OutputError
from ..progress import bar, line
from ..saving import write_atomically

_ARRAYS = {
    "x_train": (60000, 28, 28),
    "y_train": (60000,),
    "x_test": (10000, 28, 28),
    "y_test": (10000,),
}
_HIGHEST = {"x_train": 255, "y_train": 9, "x_test": 255, "y_test": 9, "label": 9}
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
        if not path.is_file():
            raise ValueError("something other than a file has that name")
        yield
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not {kind} ({error}); restore or delete it"
        ) from None


def read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of these names out of an npz file, whose headers are looked at first.

    Raises
    ------
    DatasetError
        Unless they have these shapes, and hold whole numbers from 0 to what they may at most.
    """
    with told_of_damage(path), zipfile.ZipFile(path) as archive:
        for key, shape in shapes.items():
            _check_header(archive, key, shape)
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in shapes}
        for key, array in arrays.items():
            lowest, highest = int(array.min()), int(array.max())
            if lowest < 0 or highest > _HIGHEST.get(key, highest):
                raise ValueError(
                    f"expected {key} from 0 to {_HIGHEST.get(key, 'any number')}, got "
                    f"{lowest} to {highest}"
                )
    return arrays


def _check_header(archive: zipfile.ZipFile, key: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless an array is of this shape, and as many bytes as that makes."""
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as file:
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        found, _, dtype = read_header[npy.read_magic(file)](file)
        n_bytes = member.file_size - file.tell()
    if found != shape:
        raise ValueError(f"expected {key} of shape {shape}, got {found}")
    if dtype.kind not in "iu" or (len(shape) > 1 and dtype.itemsize > 2):
        raise ValueError(f"expected {key} as integers, images and counts of 16 bits, got {dtype}")
    if n_bytes != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{key} has {n_bytes} bytes for {shape} of {dtype}")


def _download(name: str, cached: Path, progress: bool) -> dict[str, np.ndarray]:
    """The arrays from OpenML, whose own MD5 scikit-learn checks, and then our SHA-256."""
    title = _TITLES[name]
    if progress:
        line(f"downloading {title}")
    with bar(2, f"downloading {title}", shown=progress) as steps:
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
        steps.update()
        images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
        labels = np.asarray(bunch.target).astype(np.uint8)
        rows = images[:60000], labels[:60000], images[60000:], labels[60000:]
        arrays = dict(zip(_ARRAYS, rows, strict=True))
        if _checksum(arrays) != _CHECKSUMS[name]:
            raise DatasetError(
                f"the {title} downloaded from OpenML does not match its checksum; try again "
                "later, or name the folder of a good copy in SERKIT_DATA"
            )
        steps.update()
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
