"""Photographs out of a zip file with a folder a class."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DatasetError


def read_photographs(
    path: Path, folders: Sequence[str], n_each: int, pixels: int, *, size: int, grey: bool
) -> np.ndarray:
    """All photographs, folder by folder in the order of their names.

    Parameters
    ----------
    path : Path
        Of a zip file with `n_each` photographs of `pixels` x `pixels` in each of `folders`.
    size : int
        Height and width to resize them to, by Pillow's antialiased Lanczos filter.
    grey : bool
        Whether to make them grey, by Pillow's "L".

    Returns
    -------
    np.ndarray, shape (N, 3, size, size) or (N, size, size)
        uint8.

    Raises
    ------
    DatasetError
        If the file is damaged or holds anything else; it names the file in the zip.
    """
    images = []
    try:
        with zipfile.ZipFile(path) as archive:
            for folder in folders:
                names = _names(archive, folder, n_each)
                images += [_photograph(archive, name, pixels, size, grey) for name in names]
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not such a data set ({error}); restore or delete it"
        ) from None
    return np.stack(images)


def _names(archive: zipfile.ZipFile, folder: str, n_each: int) -> list[str]:
    names = sorted(n for n in archive.namelist() if n.startswith(f"{folder}/") and n[-1] != "/")
    if len(names) != n_each:
        raise ValueError(f"expected {n_each} photographs in {folder}/, got {len(names)}")
    return names


def _photograph(
    archive: zipfile.ZipFile, name: str, pixels: int, size: int, grey: bool
) -> np.ndarray:
    """(3, size, size), or (size, size) if grey."""
    try:
        with archive.open(name) as file, Image.open(file) as image:
            photograph = image.convert("L" if grey else "RGB")
    except Exception as error:
        raise ValueError(f"{name}: {error}") from None
    if photograph.size != (pixels, pixels):
        width, height = photograph.size
        raise ValueError(f"{name}: expected {pixels} x {pixels} pixels, got {width} x {height}")
    photograph = photograph.resize((size, size), Image.Resampling.LANCZOS)
    values = np.asarray(photograph)
    return values if grey else np.ascontiguousarray(values.transpose(2, 0, 1))
