"""Speech: the tutorial's counts, and recordings of spoken digits in a folder."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import wavfile

from serkit import datasets
from serkit.errors import DatasetError
from tests.helpers.files import LOCAL, cut, needs, text


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for SERKIT_DATA and the cache."""
    found = SimpleNamespace(local=tmp_path / "local", cache=tmp_path / "cache")
    found.local.mkdir()
    monkeypatch.setenv("SERKIT_DATA", str(found.local))
    monkeypatch.setenv("SERKIT_CACHE", str(found.cache))
    return found


def put_speech(folder, **arrays):
    rng = np.random.default_rng(0)
    given = {
        "speech": rng.integers(0, 40, (3000, 2400), dtype=np.int16),
        "label": np.tile(np.arange(10, dtype=np.uint8), 300),
    }
    np.savez(folder / "serket_tutorial.npz", **{**given, **arrays})
    return given


def test_tutorial_speech_is_counts_and_labels(places):
    given = put_speech(places.local)
    counts, labels = datasets.load_tutorial_speech()
    np.testing.assert_array_equal(counts, given["speech"])
    np.testing.assert_array_equal(labels, given["label"])
    assert (counts.dtype, labels.dtype) == (np.float32, np.int64)


def test_without_tutorial_speech_it_is_said_what_and_where_it_should_be(places):
    with pytest.raises(DatasetError, match=r"serket_tutorial\.npz is not at hand and") as error:
        datasets.load_tutorial_speech()
    for part in (
        "the arrays speech (3000, 2400) and label (3000,)",
        f"the environment variable SERKIT_DATA names, or in {places.cache}.",
        "github.com/naka-lab/Serket",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("damage", [cut, text])
def test_damaged_tutorial_speech_is_named(places, damage):
    put_speech(places.local)
    damage(places.local / "serket_tutorial.npz")
    with pytest.raises(DatasetError, match=rf"{places.local}/serket_tutorial\.npz is damaged"):
        datasets.load_tutorial_speech()


def test_tutorial_speech_of_another_shape_is_refused(places):
    put_speech(places.local, speech=np.zeros((3000, 24), np.int16))
    with pytest.raises(DatasetError, match=r"expected speech of shape \(3000, 2400\), got"):
        datasets.load_tutorial_speech()


@needs("mnist.npz", "serket_tutorial.npz")
def test_tutorial_speech_says_what_the_tutorial_digits_show():
    counts, labels = datasets.load_tutorial_speech()
    np.testing.assert_array_equal(labels, datasets.load_tutorial_digits().labels)
    streams = counts.reshape(3000, 3, 2, 400).sum(axis=3)
    np.testing.assert_array_equal(streams[:, :, 1] - streams[:, :, 0], 3)  # lags 5 and 2


# -- recordings --------------------------------------------------------------------------------


def write(path, samples, rate=8000):
    path.parent.mkdir(exist_ok=True)
    wavfile.write(path, rate, samples)
    return path


def samples(n=900, seed=0):
    return np.random.default_rng(seed).integers(-(2**15), 2**15, n, dtype=np.int16)


@pytest.fixture
def folder(places):
    """A folder of three recordings, their names not in the order of writing."""
    for number, name in enumerate(("7_ann_1", "0_bob_12", "7_ann_0")):
        write(places.local / "spoken_digits" / f"{name}.wav", samples(900 + number, number))
    (places.local / "spoken_digits" / "readme.txt").write_text("digits")
    return places.local / "spoken_digits"


def test_recordings_come_in_the_order_of_their_names(folder):
    waves, labels, rate = datasets.load_spoken_digits()
    assert rate == 8000
    np.testing.assert_array_equal(labels, [0, 7, 7])
    for wave, (n, seed) in zip(waves, [(901, 1), (902, 2), (900, 0)], strict=True):
        assert wave.dtype == np.float32
        np.testing.assert_array_equal(wave * 2**15, samples(n, seed))


def test_without_recordings_it_is_said_what_and_where_they_should_be(places):
    with pytest.raises(DatasetError, match="spoken_digits is not at hand") as error:
        datasets.load_spoken_digits()
    assert "a folder of WAV files named like 0_jackson_0.wav" in str(error.value)
    (places.local / "spoken_digits").mkdir()
    with pytest.raises(DatasetError, match=r"spoken_digits holds no recordings named like 0_jack"):
        datasets.load_spoken_digits()


@pytest.mark.parametrize(
    ("values", "rate", "found"),
    [
        (samples(), 16000, "got 1 of int16 at 16000 Hz"),
        (samples().reshape(-1, 2), 8000, "got 2 of int16 at 8000 Hz"),
        (samples().astype(np.float32), 8000, "got 1 of float32 at 8000 Hz"),
    ],
)
def test_recordings_of_another_kind_are_named(folder, values, rate, found):
    path = write(folder / "3_ann_0.wav", values, rate)
    text = f"{path}: expected one channel of 16 bits at 8000 Hz, {found}"
    with pytest.raises(DatasetError, match=text):
        datasets.load_spoken_digits()


def larger(path):
    """As many samples as a WAV file can have, by what it says."""
    content = bytearray(path.read_bytes())
    content[40:44] = (2**32 - 40).to_bytes(4, "little")
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, text, larger])
def test_damaged_recording_is_named(folder, damage):
    damage(folder / "7_ann_0.wav")
    with pytest.raises(DatasetError, match=rf"{folder}/7_ann_0\.wav is damaged or not a WAV file"):
        datasets.load_spoken_digits()


@needs("spoken_digits")
def test_spoken_digits_are_the_first_three():
    waves, labels, _ = datasets.load_spoken_digits()
    names = [path.name for path in sorted((Path(LOCAL) / "spoken_digits").glob("*.wav"))]
    assert [int(name[0]) for name in names] == labels.tolist()
    assert all(0.2 < len(wave) / 8000 < 2 for wave in waves)
    assert all(0.05 < np.abs(wave).max() <= 1 for wave in waves)
