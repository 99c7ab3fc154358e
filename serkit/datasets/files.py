"""Photographs out of a zip file, and recordings out of a folder of WAV files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.io import wavfile

from ..errors import DatasetError

_RECORDING_NAMES = "[0-9]_*_*.wav"  # digit, speaker, number of the recording
_SAMPLE_RATE = 8000


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


# -- photographs -------------------------------------------------------------------------------


def read_photographs(
    path: Path, folders: Sequence[str], n_each: int, pixels: int, *, size: int, grey: bool
) -> np.ndarray:
    """All photographs of a zip file, folder by folder in the order of their names.

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
                for name in _names(archive, folder, n_each):
                    images.append(_photograph(archive, name, pixels, size, grey))
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not such a data set ({error}); restore or delete it"
        ) from None
    return np.stack(images)


def _names(archive: zipfile.ZipFile, folder: str, n_each: int) -> list[str]:
    """The files of a folder in a zip, sorted."""
    names = sorted(n for n in archive.namelist() if n.startswith(f"{folder}/") and n[-1] != "/")
    if len(names) != n_each:
        raise ValueError(f"expected {n_each} photographs in {folder}/, got {len(names)}")
    return names


def _photograph(
    archive: zipfile.ZipFile, name: str, pixels: int, size: int, grey: bool
) -> np.ndarray:
    """One photograph, (3, size, size), or (size, size) if grey."""
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


# -- recordings --------------------------------------------------------------------------------


def read_recordings(folder: Path) -> Recordings:
    """All recordings of a folder, in the order of their names.

    Parameters
    ----------
    folder : Path
        With files named ``digit_speaker_number.wav``: mono, 16 bits, 8,000 Hz. Files of other
        names are passed over.

    Raises
    ------
    DatasetError
        If there is none, or one is damaged or of another kind; it names the file.
    """
    paths = sorted(folder.glob(_RECORDING_NAMES))
    if not paths:
        raise DatasetError(f"{folder} holds no recordings named like 0_jackson_0.wav")
    labels = np.array([int(path.name[0]) for path in paths], dtype=np.int64)
    return Recordings([_recording(path) for path in paths], labels, _SAMPLE_RATE)


def _recording(path: Path) -> np.ndarray:
    """One waveform, (T,), float32 in [-1, 1]."""
    try:
        rate, samples = wavfile.read(path)
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not a WAV file ({error}); restore or delete it"
        ) from None
    if (rate, samples.dtype, samples.ndim) != (_SAMPLE_RATE, np.int16, 1):
        raise DatasetError(
            f"{path}: expected one channel of 16 bits at {_SAMPLE_RATE} Hz, got "
            f"{samples.shape[1] if samples.ndim > 1 else 1} of {samples.dtype} at {rate} Hz"
        )
    return samples.astype(np.float32) / 2**15
