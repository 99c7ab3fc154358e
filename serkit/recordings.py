"""Recordings of spoken digits out of a folder of WAV files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import wavfile

from .errors import DatasetError

_NAMES = "[0-9]_*_*.wav"  # digit, speaker, number of the recording
_SAMPLE_RATE = 8000


class Recordings(NamedTuple):
    """N waveforms, labels (N,), and samples a second.

    A waveform is (T,) long, each with a T of its own, float32 in [-1, 1]; labels are int64.
    """

    waveforms: list[np.ndarray]
    labels: np.ndarray
    sample_rate: int


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
    paths = sorted(folder.glob(_NAMES))
    if not paths:
        raise DatasetError(f"{folder} holds no recordings named like 0_jackson_0.wav")
    labels = np.array([int(path.name[0]) for path in paths], dtype=np.int64)
    return Recordings([_recording(path) for path in paths], labels, _SAMPLE_RATE)


def _recording(path: Path) -> np.ndarray:
    try:
        found, samples = wavfile.read(path)
    except Exception as error:
        raise DatasetError(
            f"{path} is damaged or not a WAV file ({error}); restore or delete it"
        ) from None
    if (found, samples.dtype, samples.ndim) != (_SAMPLE_RATE, np.int16, 1):
        raise DatasetError(
            f"{path}: expected one channel of 16 bits at {_SAMPLE_RATE} Hz, got "
            f"{samples.shape[1] if samples.ndim > 1 else 1} of {samples.dtype} at {found} Hz"
        )
    return samples.astype(np.float32) / 2**15
