"""Histograms of acoustic co-occurrences: counts of one length from sounds of any length."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import Tags
from threadpoolctl import threadpool_limits

from ...errors import InputError, NotFittedError
from ...options import (
    Constraint,
    Count,
    Counts,
    Options,
    PositiveInt,
    Seed,
    check_argument,
    seed_of,
)
from ...reading import array_in

_WINDOW, _HOP = 0.025, 0.010  # seconds
_N_STREAMS = 3
_DELTA_WIDTH = 9  # frames
_MOST_SAMPLES = 10_000_000  # of a file that does not have as many bytes


class Sizes(Constraint):
    """A size for all code books, or one for each."""

    wanted = "an integer >= 1, or three of them, one for each code book"

    def fits(self, value: Any) -> bool:
        """Whether it is."""
        return Count().fits(value) or (Counts().fits(value) and len(value) == _N_STREAMS)


@dataclass(frozen=True)
class Frames:
    """How a waveform is cut into frames: samples in each and between their starts; mel bands."""

    n_fft: int
    hop_length: int
    n_mels: int


@dataclass(eq=False, repr=False)
class HAC(ClassNamePrefixFeaturesOutMixin, TransformerMixin, Options):
    """Turn recordings into histograms of acoustic co-occurrences, such as MLDA takes.

    Each recording becomes three sequences of frames: mel-frequency cepstral coefficients, their
    deltas and the deltas' deltas. Each frame is given the number of the nearest codeword of its
    sequence's code book, which k-means learns. The histogram counts, for each sequence and each
    lag, how often codeword a is followed by codeword b that many frames later. Van hamme (2008),
    "HAC-models: a novel approach to continuous speech recognition", Interspeech.

    A scikit-learn transformer, whose counts an Observation takes. Recordings are scaled to a peak
    of 1, so loudness does not matter. Needs librosa: ``pip install '.[audio]'``.

    Parameters
    ----------
    n_codewords : int or (int, int, int)
        Size K of the code books, of all three or of each.
    lags : sequence of int
        Frames between the two codewords of a pair.
    n_mfcc : int
        Number of cepstral coefficients, at most `n_mels`.
    n_mels : int
        Number of mel bands, each of which must hold a frequency of the spectrum.
    n_fft, hop_length : int, optional
        Samples in a frame, and from one frame to the next; 25 and 10 ms unless given.
    sample_rate : int
        Samples a second. Arrays must have it, files are resampled to it.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        Of k-means.

    Attributes
    ----------
    codebooks_ : list of three np.ndarray of shape (K, n_mfcc)
        Of the coefficients, their deltas, and the deltas' deltas.
    analysis_ : list of int
        What the coefficients were made with: `sample_rate`, `n_mfcc`, `n_fft`, `hop_length` and
        `n_mels`.

    Examples
    --------
    Two tones that rise and two that fall:

    >>> import numpy as np
    >>> from scipy.signal import chirp
    >>> from serkit.modules import HAC
    >>> time = np.arange(4000) / 8000  # half a second
    >>> ends = (300, 3000), (3000, 300), (400, 2900), (2900, 400)
    >>> counts = HAC(3, random_state=0).fit_transform([chirp(time, a, 0.5, b) for a, b in ends])
    >>> counts.shape, counts.sum(axis=1)  # 3 sequences of 48 frames, at lags of 5 and 2
    ((4, 54), array([267., 267., 267., 267.], dtype=float32))
    """

    n_codewords: Annotated[int | Sequence[int], Sizes()] = 20
    _: KW_ONLY
    lags: Annotated[Sequence[int], Counts()] = (5, 2)
    n_mfcc: PositiveInt = 13
    n_mels: PositiveInt = 26
    n_fft: Annotated[int | None, Count(or_none=True)] = None
    hop_length: Annotated[int | None, Count(or_none=True)] = None
    sample_rate: PositiveInt = 8000
    random_state: Seed = None

    def fit(self, recordings: Sequence[str | PathLike | ArrayLike], y: None = None) -> HAC:
        """Learn the three code books; returns self. `y` is ignored.

        Parameters
        ----------
        recordings : sequence of path or array-like, shape (T,)
            WAV files of one channel, or waveforms, each with a T of its own.

        Raises
        ------
        InputError
            For a recording that is missing, too short, silent, not finite or of several channels,
            which is named; fewer different frames than codewords; or arguments out of range.
        """
        self.check_options()
        frames = [np.concatenate(s) for s in zip(*self._streams(recordings), strict=True)]
        sizes = self._sizes()
        n_different = [len(np.unique(stream, axis=0)) for stream in frames]
        for n, size in zip(n_different, sizes, strict=True):
            if n < size:
                raise InputError(
                    f"{self.label}: {n} different frames are too few for "
                    f"n_codewords={self.n_codewords}; give more recordings or lower n_codewords"
                )
        sequence = np.random.SeedSequence(seed_of(self.random_state))
        seeds = map(int, sequence.generate_state(_N_STREAMS))
        self.codebooks_ = [codebook(*each) for each in zip(frames, sizes, seeds, strict=True)]
        self.analysis_ = self._current_analysis()
        return self

    def transform(self, recordings: Sequence[str | PathLike | ArrayLike]) -> np.ndarray:
        """Count the co-occurrences in each recording, given as to `fit`, which must come first.

        Returns
        -------
        np.ndarray, shape (N, n_lags * sum of K**2)
            float32 counts. A column for each sequence, lag, codeword and following codeword, the
            last running fastest.
        """
        self._check_fitted()
        self.check_options()
        if self.analysis_ != self._current_analysis():
            raise NotFittedError(
                f"{self.label}: sample_rate, n_mfcc, n_mels, n_fft or hop_length has changed since "
                "fit, whose code books are of other coefficients; call fit again, or set it back"
            )
        histograms = []
        for streams in self._streams(recordings):
            counts = []
            for stream, codewords in zip(streams, self.codebooks_, strict=True):
                codes = pairwise_distances_argmin(stream, codewords)
                counts += [cooccurrences(codes, len(codewords), lag) for lag in self.lags]
            histograms.append(np.concatenate(counts))
        return np.stack(histograms).astype(np.float32)

    def check_options(self) -> None:
        """Raise InputError for an argument that is out of its range."""
        super().check_options()
        if self.n_mfcc > self.n_mels:
            raise InputError(
                f"{self.label}: n_mfcc must be at most {self.n_mels}, the number of mel bands, got "
                f"{self.n_mfcc}"
            )

    @property
    def _n_features_out(self) -> int:
        self._check_fitted()
        return len(self.lags) * sum(len(codewords) ** 2 for codewords in self.codebooks_)

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn is to know: recordings, of lengths of their own, are no table."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def _check_fitted(self) -> None:
        if not hasattr(self, "codebooks_"):
            raise NotFittedError(f"{self.label} is not fitted yet: call fit(recordings) first")

    def _sizes(self) -> list[int]:
        """Sizes of the code books."""
        if isinstance(self.n_codewords, Sequence):
            return [int(size) for size in self.n_codewords]
        return [int(self.n_codewords)] * _N_STREAMS

    def _frames(self) -> Frames:
        """How waveforms are cut up."""
        rate = int(self.sample_rate)
        n_fft = self.n_fft or max(round(_WINDOW * rate), 1)
        hop = self.hop_length or max(round(_HOP * rate), 1)
        return Frames(int(n_fft), int(hop), int(self.n_mels))

    def _current_analysis(self) -> list[int]:
        """The arguments that say what the coefficients are."""
        return [int(n) for n in (self.sample_rate, self.n_mfcc, *vars(self._frames()).values())]

    def _check_bands(self, n_fft: int) -> None:
        """Raise InputError for mel bands that hold no frequency."""
        check_argument(self.label, "n_mels", self.n_mels, Count(each=1 + n_fft // 2))
        n_empty = n_empty_bands(self.sample_rate, n_fft, self.n_mels)
        if n_empty:
            raise InputError(
                f"{self.label}: {n_empty} of n_mels={self.n_mels} mel bands hold no frequency of a "
                f"spectrum of {n_fft} samples at sample_rate={self.sample_rate}; lower n_mels or "
                "raise n_fft"
            )

    def _streams(self, recordings: Sequence[str | PathLike | ArrayLike]) -> list[list[np.ndarray]]:
        """The three sequences of frames, (T, n_mfcc), of each recording."""
        if isinstance(recordings, str | PathLike) or not np.iterable(recordings):
            raise InputError(
                f"{self.label}: expected a list of recordings, got {recordings!r:.60}; put a "
                "single one into a list"
            )
        if not len(recordings := [*recordings]):
            raise InputError(f"{self.label}: expected at least one recording, got none")
        frames = self._frames()
        waveforms = [self._waveform(r, number, frames) for number, r in enumerate(recordings)]
        self._check_bands(frames.n_fft)
        return [mfcc_streams(w, self.sample_rate, self.n_mfcc, frames) for w in waveforms]

    def _waveform(
        self, recording: str | PathLike | ArrayLike, number: int, frames: Frames
    ) -> np.ndarray:
        """One recording, checked, with a peak of 1: (T,), float64."""
        if isinstance(recording, str | PathLike):
            what = f"{self.label}: {recording}"
            samples = read_audio(Path(recording), self.sample_rate, what)
        else:
            what = f"{self.label}: recording {number}"
            samples = array_in(recording, what)
        if samples.ndim != 1 or samples.dtype.kind not in "if":
            raise InputError(
                f"{what}: expected a waveform of one channel, shape (T,), of floats or signed "
                f"integers, got {samples.shape} of {samples.dtype}"
            )
        hops = max(_DELTA_WIDTH - 1, *self.lags)
        shortest = frames.n_fft + hops * frames.hop_length
        if len(samples) < shortest:
            raise InputError(
                f"{what}: too short, {len(samples)} samples at {self.sample_rate} Hz; at least "
                f"{shortest} are needed"
            )
        samples = samples.astype(np.float64)
        if not np.isfinite(samples).all():
            raise InputError(f"{what}: NaN or infinity in the waveform; cut it out")
        peak = np.abs(samples).max()
        if peak == 0:
            raise InputError(f"{what}: silent, every sample is 0; leave it out")
        return samples / peak


def read_audio(path: Path, sample_rate: int, what: str) -> np.ndarray:
    """The samples of a file at this rate, (T,) or (T, channels); `what` names it in errors."""
    librosa = _librosa()
    import soundfile  # comes with librosa, whose own loader tries readers that Python has dropped

    if not os.path.isfile(path):  # False too where no file can have such a name
        raise InputError(f"{what}: there is no such file")
    try:
        info = soundfile.info(path)
        if "(should be" in info.extra_info:  # what libsndfile says of a file that was cut
            raise ValueError("it is shorter than it says")
        if info.frames * info.channels > max(_MOST_SAMPLES, path.stat().st_size):
            raise ValueError(f"it says it has {info.frames:,} samples; cut it into shorter ones")
        samples, rate = soundfile.read(path)
        if len(samples) != info.frames:
            raise ValueError(f"it has {len(samples):,} of {info.frames:,} samples")
    except Exception as error:
        raise InputError(f"{what}: not a sound file that can be read ({error!r:.80})") from None
    return librosa.resample(samples, orig_sr=rate, target_sr=sample_rate, axis=0)


def mfcc_streams(waveform: np.ndarray, rate: int, n_mfcc: int, frames: Frames) -> list[np.ndarray]:
    """Cepstral coefficients of each frame, their deltas and their deltas' deltas: 3 x (T, D).

    Deltas are derivatives of polynomials of degree 1 and 2 over 9 frames (Savitzky-Golay).
    """
    feature = _librosa().feature
    mfcc = feature.mfcc(y=waveform, sr=rate, n_mfcc=n_mfcc, center=False, **vars(frames))  # (D, T)
    deltas = [feature.delta(mfcc, width=_DELTA_WIDTH, order=order) for order in (1, 2)]
    return [stream.T for stream in (mfcc, *deltas)]


def n_empty_bands(rate: int, n_fft: int, n_mels: int) -> int:
    """How many mel bands are narrower than the spectrum's steps, and lie between two of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa warns of what is counted here
        bands = _librosa().filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels)
    return int((bands.max(axis=1) == 0).sum())


def codebook(frames: np.ndarray, n_codewords: int, seed: int) -> np.ndarray:
    """Centres of k-means: (T, D) -> (K, D)."""
    from sklearn.cluster import KMeans  # here, as loading it takes a while

    with threadpool_limits(1, user_api="openmp"):  # its sums would depend on the threads' order
        return KMeans(n_codewords, n_init=1, random_state=seed).fit(frames).cluster_centers_


def cooccurrences(codes: np.ndarray, n_codewords: int, lag: int) -> np.ndarray:
    """How often code a is followed by code b after `lag` frames: (T,) -> (K**2,), b fastest."""
    pairs = codes[:-lag] * n_codewords + codes[lag:]  # (T - lag,)
    return np.bincount(pairs, minlength=n_codewords**2)


def _librosa() -> ModuleType:
    """The package librosa, imported when it is first needed: it takes seconds."""
    try:
        import librosa
    except ImportError:
        text = "HAC needs librosa: pip install '.[audio]' in serkit's checkout"
        raise ImportError(text) from None
    return librosa
