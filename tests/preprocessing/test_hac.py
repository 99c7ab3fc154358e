"""Histograms of acoustic co-occurrences: what is counted, and of which frames."""

import builtins
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.fft import dct
from scipy.io import wavfile
from scipy.signal import chirp, savgol_filter
from scipy.signal.windows import hann
from sklearn.base import clone
from sklearn.metrics import pairwise_distances
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import serkit
from serkit.datasets import load_spoken_digits
from serkit.errors import InputError, NotFittedError
from serkit.modules.preprocessing.hac import HAC, Frames, codebook, cooccurrences, mfcc_streams
from tests.helpers.files import LOCAL, needs

librosa = pytest.importorskip("librosa")
soundfile = pytest.importorskip("soundfile")

RATE, SMALL = 8000, {"n_codewords": 4, "random_state": 0}


def sound(seed=0, seconds=0.4, rising=True):
    """A tone that rises or falls through the band, with noise, of random loudness."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    ends = (300, 3000) if rising else (3000, 300)
    tone = chirp(time, ends[0], time[-1], ends[1])
    return rng.uniform(0.01, 0.9) * (tone + 0.05 * rng.normal(size=len(time)))


def words(n=12):
    """Rising and falling tones in turn, each of its own length and loudness; 1 where rising."""
    rising = np.arange(n) % 2 == 1
    lengths = np.random.default_rng(0).uniform(0.3, 0.6, n)
    return [sound(i, lengths[i], up) for i, up in enumerate(rising)], rising


def nearest(histograms):
    """Index of the nearest other row by the angle between histograms, (N,)."""
    distances = pairwise_distances(histograms, metric="cosine")
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(axis=1)


# -- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_cooccurrences_are_pairs_of_codes_a_lag_apart(lag):
    codes = np.random.default_rng(0).integers(3, size=20)
    expected = np.zeros((3, 3))
    for t in range(20 - lag):
        expected[codes[t], codes[t + lag]] += 1
    np.testing.assert_array_equal(cooccurrences(codes, 3, lag), expected.ravel())


@pytest.mark.parametrize("rate", [8000, 16000])
def test_frames_are_cepstra_of_25_ms_every_10_ms(rate):
    """Step by step by NumPy and SciPy: window, power, mel bands, decibels, cosine transform."""
    wave = np.random.default_rng(0).normal(size=rate // 4)
    size, hop = rate // 40, rate // 100
    starts = range(0, len(wave) - size + 1, hop)
    frames = np.stack([wave[s : s + size] * hann(size, sym=False) for s in starts])
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = power @ librosa.filters.mel(sr=rate, n_fft=size, n_mels=26).T
    cepstra = dct(10 * np.log10(bands), norm="ortho")[:, :13]
    static, delta, delta_delta = mfcc_streams(wave, rate, 13, HAC(sample_rate=rate)._frames())
    np.testing.assert_allclose(static, cepstra, rtol=1e-4, atol=1e-3)
    for order, found in ((1, delta), (2, delta_delta)):
        slopes = savgol_filter(cepstra, 9, order, deriv=order, axis=0)
        np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-3)


def test_codebook_is_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0], [9, 0], [0, 9]])
    labels = np.arange(90) % 3
    frames = centres[labels] + rng.normal(size=(90, 2))
    found = codebook(frames, 3, seed=0)
    expected = np.stack([frames[labels == k].mean(axis=0) for k in range(3)])
    order = pairwise_distances(expected, found).argmin(axis=1)
    np.testing.assert_allclose(found[order], expected)


# -- the transformer ---------------------------------------------------------------------------


def test_defaults_give_as_many_columns_as_the_serket_tutorials_speech():
    counts = HAC(random_state=0).fit_transform(words()[0])
    assert (counts.shape, counts.dtype) == ((12, 2400), np.float32)


def test_each_sequence_and_lag_counts_all_pairs():
    waves, _ = words(4)
    counts = HAC(lags=(3, 7), **SMALL).fit_transform(waves)
    frames = np.array([(len(wave) - 200) // 80 + 1 for wave in waves])
    expected = np.stack([frames - 3, frames - 7], axis=1)
    totals = counts.reshape(4, 3, 2, 16).sum(axis=3)
    np.testing.assert_array_equal(totals, np.repeat(expected[:, None], 3, axis=1))


def test_columns_are_counts_of_nearest_codewords():
    waves, _ = words(4)
    hac = HAC(lags=(2,), **SMALL).fit(waves)
    counts = hac.transform(waves).reshape(4, 3, 4, 4)
    wave = waves[1] / np.abs(waves[1]).max()
    for number, stream in enumerate(mfcc_streams(wave, RATE, 13, Frames(200, 80, 26))):
        codes = [int(((f - hac.codebooks_[number]) ** 2).sum(axis=1).argmin()) for f in stream]
        found = np.zeros((4, 4))
        np.add.at(found, (codes[:-2], codes[2:]), 1)
        np.testing.assert_array_equal(counts[1, number], found)


def test_each_code_book_has_its_own_size_if_wanted():
    waves, _ = words(4)
    hac = HAC((5, 4, 3), lags=(2,), random_state=0)
    counts = hac.fit_transform(waves)
    assert [len(codewords) for codewords in hac.codebooks_] == [5, 4, 3]
    assert counts.shape == (4, 25 + 16 + 9)
    same = HAC(4, lags=(2,), random_state=0).fit_transform(waves)
    np.testing.assert_array_equal(counts[:, 25:41], same[:, 16:32])  # of the same frames and seed


def test_frames_and_mel_bands_are_free():
    """Of 512 samples every 128: a recording of 2,560 has (2,560 - 512) / 128 + 1 = 17 frames."""
    options = {"n_fft": 512, "hop_length": 128, "n_mels": 40, "n_mfcc": 30, "lags": (1,)}
    hac = HAC(2, **options, random_state=0).fit(words(4)[0])
    assert hac.codebooks_[0].shape == (2, 30)
    np.testing.assert_array_equal(hac.transform([sound()[:2560]]).reshape(3, 4).sum(axis=1), 16)
    wave = sound()
    expected = librosa.feature.mfcc(
        y=wave, sr=RATE, n_mfcc=30, n_fft=512, hop_length=128, n_mels=40, center=False
    )
    np.testing.assert_array_equal(mfcc_streams(wave, RATE, 30, hac._frames())[0], expected.T)
    with pytest.raises(InputError, match="1535 samples at 8000 Hz; at least 1536 are needed"):
        hac.transform([sound()[:1535]])  # 512 and 8 hops, of which deltas are made


def test_words_of_any_length_and_loudness_are_nearest_to_their_like():
    waves, rising = words()
    found = nearest(HAC(10, random_state=0).fit_transform(waves))
    np.testing.assert_array_equal(rising[found], rising)


def test_new_recordings_are_recognised_by_old_code_books():
    waves, rising = words()
    new = [sound(100, 0.35, True), sound(101, 0.5, False)]
    hac = HAC(10, random_state=0).fit(waves)
    distances = pairwise_distances(hac.transform(new), hac.transform(waves), metric="cosine")
    np.testing.assert_array_equal(rising[distances.argmin(axis=1)], [True, False])


def test_loudness_and_number_format_do_not_matter():
    wave = np.round(20000 * sound(3) / np.abs(sound(3)).max())
    forms = [wave.astype(np.int16), wave, 1e-3 * wave, wave.tolist()]
    counts = HAC(**SMALL).fit(words()[0]).transform(forms)
    np.testing.assert_array_equal(counts, np.tile(counts[0], (4, 1)))


def test_same_seed_same_bits_and_no_other_random_state():
    waves, _ = words()
    before = np.random.get_state()  # noqa: NPY002
    one, same = (HAC(**SMALL).fit(waves) for _ in range(2))
    np.testing.assert_array_equal(one.codebooks_, same.codebooks_)
    other = HAC(**{**SMALL, "random_state": 1}).fit(waves)
    assert not np.array_equal(one.codebooks_, other.codebooks_)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])


def test_it_is_a_scikit_learn_transformer():
    hac = HAC(**SMALL)
    assert clone(hac).get_params() == hac.get_params()
    waves, _ = words(4)
    pipeline = make_pipeline(hac, FunctionTransformer(np.sqrt))
    np.testing.assert_allclose(pipeline.fit_transform(waves) ** 2, hac.transform(waves), rtol=1e-5)


# -- files -------------------------------------------------------------------------------------


def write(path, wave, rate=RATE):
    wavfile.write(path, rate, np.round(wave / np.abs(wave).max() * 32767).astype(np.int16))
    return path


def test_files_are_read_like_arrays(tmp_path):
    waves, _ = words(6)
    paths = [write(tmp_path / f"{i}.wav", wave) for i, wave in enumerate(waves)]
    rounded = [wavfile.read(path)[1] for path in paths]
    expected = HAC(**SMALL).fit_transform(rounded)
    np.testing.assert_array_equal(HAC(**SMALL).fit_transform(paths), expected)
    np.testing.assert_array_equal(HAC(**SMALL).fit_transform(list(map(str, paths))), expected)


def test_files_of_another_rate_are_resampled(tmp_path):
    waves, rising = words()
    hac = HAC(10, random_state=0).fit(waves)
    paths = []
    for i, wave in enumerate(waves):
        fine = np.interp(np.arange(2 * len(wave)) / 2, np.arange(len(wave)), wave)
        paths.append(write(tmp_path / f"{i}.wav", fine, 2 * RATE))
    counts = hac.transform(paths)
    np.testing.assert_allclose(counts.sum(axis=1), hac.transform(waves).sum(axis=1), atol=6)
    distances = pairwise_distances(counts, hac.transform(waves), metric="cosine")
    np.testing.assert_array_equal(rising[distances.argmin(axis=1)], rising)


@needs("spoken_digits")
def test_spoken_digits_are_nearest_to_other_recordings_of_the_same_digit():
    waves, labels, rate = load_spoken_digits()
    counts = HAC(sample_rate=rate, random_state=0).fit_transform(waves)
    np.testing.assert_array_equal(labels[nearest(counts)], labels)
    paths = sorted((Path(LOCAL) / "spoken_digits").glob("*.wav"))
    np.testing.assert_array_equal(HAC(random_state=0).fit_transform(paths), counts)


# -- errors ------------------------------------------------------------------------------------


def broken(value):
    wave = sound()
    wave[7] = value
    return wave


@pytest.mark.parametrize(
    ("recording", "text"),
    [
        (sound()[:400], r"recording 1: too short, 400 samples at 8000 Hz; at least 840 are needed"),
        (np.zeros(4000), "recording 1: silent, every sample is 0"),
        (broken(np.nan), "recording 1: NaN or infinity"),
        (broken(np.inf), "recording 1: NaN or infinity"),
        (np.ones((4000, 2)), r"recording 1: expected a waveform of one .*got \(4000, 2\) of float"),
        (0.5, r"recording 1: expected .* shape \(T,\), of floats or signed int.*, got \(\) of"),
        (np.ones(4000, np.uint8), r"recording 1: expected .*, got \(4000,\) of uint8"),
        (["a", "b"], r"recording 1: expected a waveform .* of <U1"),
        ("no/such.wav", r"no/such\.wav: there is no such file"),
    ],
    ids=["short", "silent", "nan", "inf", "stereo", "number", "bytes", "strings", "missing"],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_recordings_that_cannot_be_used_are_named(recording, text, method):
    hac = HAC(**SMALL).fit(words(4)[0])
    before = hac.codebooks_
    with pytest.raises(InputError, match=f"^HAC: {text}"):
        getattr(hac, method)([sound(), recording])
    assert hac.codebooks_ is before


def test_files_that_cannot_be_used_are_named(tmp_path):
    stereo, text = tmp_path / "stereo.wav", tmp_path / "text.wav"
    wavfile.write(stereo, RATE, np.ones((4000, 2), np.int16))
    text.write_text("no sound")
    short = tmp_path / "short.wav"
    wavfile.write(short, RATE, np.ones(4000, np.int16))
    short.write_bytes(short.read_bytes()[:5000])
    long = tmp_path / "long.flac"
    soundfile.write(long, np.zeros(11_000_000, np.int16), RATE)
    for path, what in (
        (stereo, "expected a waveform of one channel"),
        (text, "not a sound file"),
        (short, r"not a sound file .*shorter than it says"),
        (long, r"not a sound file .*it says it has 11,000,000 samples"),
        (tmp_path / ("a" * 300), "there is no such file"),
    ):
        with pytest.raises(InputError, match=f"HAC: {re.escape(str(path))}: {what}"):
            HAC(**SMALL).fit([path])


def test_longest_lag_sets_the_shortest_recording():
    """Frame t begins at 80 t and is 200 long: a lag of 20 needs 21 frames, 1,800 samples."""
    hac = HAC(lags=(20, 2), **SMALL).fit(words(4)[0])
    totals = hac.transform([sound()[:1800]]).reshape(3, 2, 16).sum(axis=2)
    np.testing.assert_array_equal(totals, np.tile([1, 19], (3, 1)))
    with pytest.raises(InputError, match="1799 samples at 8000 Hz; at least 1800 are needed"):
        hac.transform([sound()[:1799]])


@pytest.mark.parametrize(
    ("recordings", "text"),
    [
        ("one.wav", "expected a list of recordings, got 'one.wav'; put a single one into a list"),
        (Path("one.wav"), "expected a list of recordings"),
        (3, "expected a list of recordings, got 3"),
        ([], "expected at least one recording, got none"),
    ],
)
def test_recordings_are_a_list(recordings, text):
    with pytest.raises(InputError, match=text):
        HAC(**SMALL).fit(recordings)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_codewords": 0}, "HAC: n_codewords must be an integer >= 1, or three .*, got 0"),
        ({"lags": ()}, r"HAC: lags must be a sequence of integers >= 1, got \(\)"),
        ({"lags": (0, 2)}, r"HAC: lags must be a sequence of integers >= 1, got \(0, 2\)"),
        ({"lags": np.array([5, 2])}, r"HAC: lags must be a sequence of integers >= 1, got array"),
        ({"n_mfcc": "all"}, "HAC: n_mfcc must be an integer >= 1, got 'all'"),
        ({"n_mfcc": 27}, "HAC: n_mfcc must be at most 26, the number of mel bands, got 27"),
        (
            {"n_codewords": (4, 4)},
            r"n_codewords must be an integer >= 1, or three .*, got \(4, 4\)",
        ),
        (
            {"n_codewords": (4, 4, 500)},
            r"different frames are too few for n_codewords=\(4, 4, 500\)",
        ),
        ({"n_mfcc": 13, "n_mels": 12}, "n_mfcc must be at most 12, the number of mel bands"),
        ({"n_fft": 0}, "HAC: n_fft must be an integer >= 1, got 0"),
        ({"hop_length": 2.5}, "HAC: hop_length must be an integer >= 1, got 2.5"),
        (
            {"n_fft": 32},
            r"HAC: \d+ of n_mels=26 mel bands hold no freq.* 32 samples .*; lower n_mels",
        ),
        (
            {"sample_rate": 1000},
            "HAC: .* 25 samples at sample_rate=1000; lower n_mels or raise n_fft",
        ),
        ({"sample_rate": 8000.5}, "HAC: sample_rate must be an integer >= 1, got 8000.5"),
        (
            {"random_state": -1},
            "HAC: random_state must be an integer >= 0 or a NumPy random generator, got -1",
        ),
        ({"n_codewords": 500}, "HAC: .* different frames are too few for n_codewords=500; give mo"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        HAC(**arguments).fit(words(2)[0])


def test_numpy_integers_are_integers():
    waves, _ = words(4)
    options = {"n_codewords": 4, "n_mfcc": 13, "sample_rate": 8000, "random_state": 0}
    numpys = {name: np.int64(value) for name, value in options.items()}
    counts = HAC(**numpys, lags=(np.int64(5), np.int64(2))).fit_transform(waves)
    np.testing.assert_array_equal(counts, HAC(**options).fit_transform(waves))


def test_code_books_are_saved(tmp_path):
    recordings, _ = words(4)
    hac = HAC(**SMALL).fit(recordings)
    serkit.save(hac, tmp_path / "hac")
    found = serkit.load(tmp_path / "hac")
    np.testing.assert_array_equal(found.transform(recordings), hac.transform(recordings))


CHANGES = {"sample_rate": 16000, "n_mfcc": 5, "n_mels": 30, "n_fft": 400, "hop_length": 40}


@pytest.mark.parametrize(("name", "value"), CHANGES.items(), ids=CHANGES)
def test_code_books_are_not_used_for_other_coefficients(name, value):
    recordings, _ = words(4)
    hac = HAC(**SMALL).fit(recordings)
    before, expected = hac.get_params()[name], hac.transform(recordings)
    with pytest.raises(NotFittedError, match=r"HAC: sample_rate, n_mfcc, .* has changed since fit"):
        hac.set_params(**{name: value}).transform(recordings)
    again = hac.set_params(**{name: before}).transform(recordings)
    np.testing.assert_array_equal(again, expected)


def test_options_are_checked_when_transforming_too():
    recordings, _ = words(4)
    hac = HAC(**SMALL).fit(recordings).set_params(lags="two")
    with pytest.raises(
        InputError, match="HAC: lags must be a sequence of integers >= 1, got 'two'"
    ):
        hac.transform(recordings)


def test_before_fitting_nothing_is_transformed():
    with pytest.raises(NotFittedError, match=r"HAC is not fitted yet: call fit\(recordings\)"):
        HAC().transform([sound()])


def test_without_librosa_it_is_said_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "librosa":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=re.escape("pip install '.[audio]'")):
        HAC(**SMALL).fit([sound()])
