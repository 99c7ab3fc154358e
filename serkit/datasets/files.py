"""Photographs out of a zip file, and recordings out of a folder of WAV files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import DatasetError
from .sources import told_of_damage

_SAMPLE_RATE = 8000
_MOST_BYTES = 2**20  # of a photograph as it is in the file


class Recordings(NamedTuple):
    """N waveforms, labels (N,), and samples per second.

    A waveform is (T,) long, each with a T of its own, float32 in [-1, 1]; labels are int64.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.datasets import Recordings
    >>> silence = Recordings([np.zeros(4000), np.zeros(6000)], np.array([0, 1]), 8000)
    >>> [len(waveform) / silence.sample_rate for waveform in silence.waveforms]  # seconds
    [0.5, 0.75]
    """

    waveforms: list[np.ndarray]
    labels: np.ndarray
    sample_rate: int


def read_photographs(
    path: Path, folders: Sequence[str], n_each: int, pixels: int, size: int, grey: bool
) -> np.ndarray:
    """All photographs of a zip's folders, sorted by name, uint8, (N, [3,] size, size).

    Each folder must hold `n_each` of `pixels` x `pixels`; Pillow resizes them and makes them grey.
    """
    images = []
    with told_of_damage(path), zipfile.ZipFile(path) as archive:
        for folder in folders:
            names = [n for n in archive.namelist() if n.startswith(f"{folder}/") and n[-1] != "/"]
            if len(names) != n_each:
                raise ValueError(f"expected {n_each} photographs in {folder}/, got {len(names)}")
            for name in sorted(names):
                photograph = _photograph(archive, name, pixels, "L" if grey else "RGB")
                photograph = photograph.resize((size, size), Image.Resampling.LANCZOS)
                images.append(np.asarray(photograph))
    rows = np.stack(images)
    return rows if grey else np.ascontiguousarray(np.moveaxis(rows, -1, 1))


def _photograph(archive: zipfile.ZipFile, name: str, pixels: int, mode: str) -> Image.Image:
    """One photograph in a mode of Pillow's; an error names it."""
    try:
        if archive.getinfo(name).file_size > _MOST_BYTES:
            raise ValueError(f"expected {_MOST_BYTES:,} bytes at most")
        with archive.open(name) as file, Image.open(file, formats=("JPEG", "PNG")) as image:
            if image.size != (pixels, pixels):  # seen before it is loaded
                size = "{} x {}".format(*image.size)
                raise ValueError(f"expected {pixels} x {pixels} pixels, got {size}")
            photograph = image.convert(mode)
    except Exception as error:
        raise ValueError(f"{name}: {error}") from None
    return photograph


def read_recordings(folder: Path) -> Recordings:
    """All recordings of a folder named ``digit_speaker_number.wav``, in the order of their names.

    They must be mono, of 16 bits at 8,000 Hz. Files of other names are passed over.
    """
    paths = sorted(folder.glob("[0-9]_*_*.wav"))
    if not paths:
        raise DatasetError(f"{folder} holds no recordings named like 0_jackson_0.wav")
    labels = np.array([int(path.name[0]) for path in paths], dtype=np.int64)
    return Recordings([_recording(path) for path in paths], labels, _SAMPLE_RATE)


def _recording(path: Path) -> np.ndarray:
    """One waveform, (T,), float32 in [-1, 1]."""
    from scipy.io import wavfile  # here, as loading it takes a while

    with told_of_damage(path, "a WAV file"):
        rate, samples = wavfile.read(path, mmap=True)  # as many samples as it says, or an error
    if (rate, samples.dtype, samples.ndim) != (_SAMPLE_RATE, np.int16, 1):
        raise DatasetError(
            f"{path}: expected one channel of 16 bits at {_SAMPLE_RATE} Hz, got "
            f"{samples.shape[1] if samples.ndim > 1 else 1} of {samples.dtype} at {rate} Hz"
        )
    return samples.astype(np.float32) / 2**15
