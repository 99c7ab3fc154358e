"""Rows as images: one as an array to show, several side by side, a sequence as a GIF."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..errors import InputError, OutputError
from ..options import Count, FilePath, check_argument
from ..reading import array_in

_LONGEST = 655_350  # milliseconds of a frame that GIF can hold


def pixels_in(images: ArrayLike, what: str) -> np.ndarray:
    """Images in any container as an array of real numbers, of any shape."""
    array = array_in(images, what)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: expected real numbers, got dtype {array.dtype}")
    return array


def picture(row: np.ndarray) -> np.ndarray:
    """A row, (H, W), (1, H, W), (3, H, W) or flat and square, as an image (H, W[, 3]) in [0, 1]."""
    row = np.clip(row, 0.0, 1.0)
    if row.ndim == 1:
        side = int(np.sqrt(row.size))
        if side**2 != row.size:
            raise InputError(f"cannot show rows of {row.size} values as square images")
        return row.reshape(side, side)
    if row.ndim == 2:
        return row
    if row.ndim == 3 and len(row) in (1, 3):
        return row[0] if len(row) == 1 else np.moveaxis(row, 0, -1)
    raise InputError(f"cannot show rows of shape {row.shape} as images")


def tiled(pictures: np.ndarray, gap: int) -> np.ndarray:
    """Pictures (rows, columns, H, W, ...) side by side, parted by white lines of `gap` pixels."""
    n_rows, n_columns, height, width, *channels = pictures.shape
    margins = [(0, 0), (0, 0), (0, gap), (0, gap)] + [(0, 0)] * len(channels)
    tiles = np.pad(pictures, margins, constant_values=1).swapaxes(1, 2)
    tiles = tiles.reshape(n_rows * (height + gap), n_columns * (width + gap), *channels)
    return tiles[:-gap, :-gap]


def save_gif(
    frames: ArrayLike, path: str | os.PathLike, *, duration: int = 80, scale: int = 4
) -> None:
    """Write frames as an animated GIF that starts over for ever.

    Parameters
    ----------
    frames : array-like, shape (n, H, W), (n, C, H, W) or flat and square
        Grey (one channel) or RGB, in [0, 1]; values beyond are clipped.
    path : path
    duration : int
        Milliseconds per frame, which GIF keeps in hundredths of a second.
    scale : int
        Side of the square that each pixel becomes, in pixels.

    Raises
    ------
    InputError
        For no frames, or frames that cannot be shown as images.
    OutputError
        If the file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import plots
    >>> frames = np.linspace(0, 1, 10)[:, None, None] * np.ones((8, 8))  # from black to white
    >>> plots.save_gif(frames, "fading.gif")  # doctest: +SKIP
    """
    check_argument("plots.save_gif", "duration", duration, Count())
    if duration > _LONGEST:
        raise InputError(f"plots.save_gif: duration must be at most {_LONGEST}, got {duration}")
    check_argument("plots.save_gif", "path", path, FilePath())
    pixels = pixels_in(frames, "plots.save_gif: frames")
    if pixels.ndim < 2 or not pixels.size:
        raise InputError("there are no frames to write")
    pictures = np.array([picture(frame) for frame in pixels])
    check_argument("plots.save_gif", "scale", scale, Count(each=pictures.size))
    pixels = np.rint(255 * pictures).astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    first, *others = map(Image.fromarray, pixels)
    try:
        first.save(path, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
