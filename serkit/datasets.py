"""Data sets: digits, clothes and animals, each with labels, as float32 images in [0, 1].

MNIST, Fashion-MNIST and the animals are looked for in the folder that the environment variable
`SERKIT_DATA` names, then in a cache folder (`SERKIT_CACHE`, else ``~/.cache/serkit``):
``mnist.npz`` and ``fashion_mnist.npz`` with the arrays ``x_train``, ``y_train``, ``x_test`` and
``y_test``, and ``animals128.zip``. Failing that, MNIST and Fashion-MNIST are downloaded from OpenML
through scikit-learn, checked and put into the cache; the animals have no download.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn import datasets as sklearn_datasets
from sklearn import model_selection
from tqdm.auto import tqdm

from .errors import DatasetError, InputError, OutputError
from .persistence import write_atomically
from .photographs import read_photographs

_DIGITS = tuple("0123456789")
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "fashion_mnist": (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    "tutorial_digits": _DIGITS,
    "animals": ("cat", "dog", "panda"),
}
"""Names of the classes, in the order of the labels, for each ``load_...``."""

_ARRAYS = {
    "x_train": (60000, 28, 28),
    "y_train": (60000,),
    "x_test": (10000, 28, 28),
    "y_test": (10000,),
}


class _Source(NamedTuple):
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


_ANIMAL_FOLDERS = ("cats", "dogs", "panda")
_ANIMALS_EACH, _ANIMAL_SIZE = 1000, 128


class Dataset(NamedTuple):
    """Images (N, H, W) or (N, 3, H, W), float32 in [0, 1], and their labels (N,), int64."""

    images: np.ndarray
    labels: np.ndarray


def load_digits() -> Dataset:
    """scikit-learn's embedded digits: 1,797 images of 8 x 8 pixels, 10 classes; no network."""
    digits = sklearn_datasets.load_digits()
    return Dataset((digits.images / 16).astype(np.float32), digits.target.astype(np.int64))


def load_mnist(split: str = "train", *, progress: bool = True) -> Dataset:
    """Handwritten digits of 28 x 28 pixels (LeCun et al., 1998).

    Parameters
    ----------
    split : {"train", "test", "all"}
        60,000, 10,000 or 70,000 images.
    progress : bool
        Whether to show a bar while downloading.

    Raises
    ------
    DatasetError
        If the data is neither at hand nor to be downloaded; the error names the ways.
    """
    return _split(_arrays("mnist", progress), split)


def load_fashion_mnist(split: str = "train", *, progress: bool = True) -> Dataset:
    """Images of clothes of 28 x 28 pixels (Xiao et al., 2017); see `load_mnist`."""
    return _split(_arrays("fashion_mnist", progress), split)


def load_tutorial_digits(*, progress: bool = True) -> Dataset:
    """The 3,000 digits of the Serket tutorial: 300 of each class, labels cycling 0 to 9.

    They are, of MNIST's training images from index 5,000 on, the first 300 of each class,
    interleaved, so anyone with MNIST has them. Parameters and errors as for `load_mnist`.
    """
    images, labels = load_mnist("train", progress=progress)
    images, labels = images[5000:], labels[5000:]
    first = [np.flatnonzero(labels == digit)[:300] for digit in range(10)]  # 10 x (300,)
    rows = np.stack(first, axis=1).ravel()
    return Dataset(images[rows], labels[rows])


def load_animals(*, size: int = 128, grey: bool = False) -> Dataset:
    """3,000 photographs of animals, 1,000 each of cats, dogs and pandas.

    From the public Kaggle data set "Animal Image Dataset (DOG, CAT and PANDA)" by Ashish Saxena,
    scaled to 128 x 128 pixels. It has to be at hand as ``animals128.zip``.

    Parameters
    ----------
    size : int
        Height and width; other than 128 the photographs are resized by Pillow's Lanczos filter,
        which is antialiased.
    grey : bool
        Whether to load them as grey images, by Pillow's "L" (ITU-R 601 luma).

    Returns
    -------
    Dataset
        Images (3000, 3, size, size), or (3000, size, size) if grey.

    Raises
    ------
    DatasetError
        If the zip is not at hand, which says where it belongs, or is damaged.
    """
    if not isinstance(size, Integral) or size < 1:
        raise InputError(f"size must be an integer >= 1, got {size!r}")
    path = _find("animals128.zip")
    if path is None:
        raise DatasetError(
            f"animals128.zip is not at hand and cannot be downloaded. Expected a zip with the "
            f"folders {'/, '.join(_ANIMAL_FOLDERS)}/ of {_ANIMALS_EACH} JPEG photographs each, "
            f"{_ANIMAL_SIZE} x {_ANIMAL_SIZE} pixels, in the folder that the environment variable "
            f"SERKIT_DATA names, or in {_cache_folder()}. They are those of the public Kaggle data "
            'set "Animal Image Dataset (DOG, CAT and PANDA)" by Ashish Saxena, scaled down'
        )
    pixels = read_photographs(
        path, _ANIMAL_FOLDERS, _ANIMALS_EACH, _ANIMAL_SIZE, size=size, grey=grey
    )
    images = pixels.astype(np.float32)
    images /= 255
    return Dataset(images, np.repeat(np.arange(len(_ANIMAL_FOLDERS)), _ANIMALS_EACH))


def train_test_split(
    dataset: Dataset, test_fraction: float = 0.2, random_state: int = 0
) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows to test on, each class in the same shares in both.

    Parameters
    ----------
    dataset : Dataset
    test_fraction : float
        Share of the rows to test on, between 0 and 1.
    random_state : int
        Seed of the shuffle.

    Raises
    ------
    InputError
        If a class cannot be on both sides, or for a fraction or seed out of range.
    """
    try:
        x_train, x_test, y_train, y_test = model_selection.train_test_split(
            *dataset,
            test_size=float(test_fraction),
            stratify=dataset.labels,
            random_state=random_state,
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"cannot split with test_fraction={test_fraction!r}, random_state={random_state!r}: "
            f"{error}"
        ) from None
    return Dataset(x_train, y_train), Dataset(x_test, y_test)


def _split(arrays: dict[str, np.ndarray], split: str) -> Dataset:
    if split not in ("train", "test", "all"):
        raise InputError(f"unknown split={split!r}; expected 'train', 'test' or 'all'")
    parts = ("train", "test") if split == "all" else (split,)
    images = np.concatenate([arrays[f"x_{part}"] for part in parts])
    labels = np.concatenate([arrays[f"y_{part}"] for part in parts])
    return Dataset(images.astype(np.float32) / 255, labels.astype(np.int64))


def _arrays(name: str, progress: bool) -> dict[str, np.ndarray]:
    """The four arrays of a data set, from the first place that has them."""
    found = _find(f"{name}.npz")
    if found is not None:
        return _read(found)
    cached = _cache_folder() / f"{name}.npz"
    arrays = _download(name, cached, progress)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    try:
        write_atomically(cached, buffer.getvalue())
    except OutputError as error:
        warnings.warn(f"{error}; name another folder in SERKIT_CACHE", stacklevel=3)
    return arrays


def _find(file_name: str) -> Path | None:
    """A file in the first folder that has it."""
    local = os.environ.get("SERKIT_DATA")
    folders = [*([Path(local)] if local else []), _cache_folder()]
    return next((f / file_name for f in folders if (f / file_name).exists()), None)


def _cache_folder() -> Path:
    return Path(os.environ.get("SERKIT_CACHE") or Path.home() / ".cache" / "serkit")


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in _ARRAYS}
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not such a data set ({error}); restore or delete it"
        ) from None
    for key, shape in _ARRAYS.items():
        if arrays[key].shape != shape:
            raise DatasetError(f"{path}: expected {key} of shape {shape}, got {arrays[key].shape}")
    return arrays


def _download(name: str, cached: Path, progress: bool) -> dict[str, np.ndarray]:
    """The arrays from OpenML, whose own MD5 scikit-learn checks, and then our SHA-256."""
    source = _SOURCES[name]
    with tqdm(total=2, desc=f"downloading {source.title}", disable=not progress) as bar:
        try:
            found = sklearn_datasets.fetch_openml(
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
        arrays = _from_openml(found.data, found.target)
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
