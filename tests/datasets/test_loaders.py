"""Data sets: where they are looked for, what they hold, and what is said where they are not."""

import io
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits as sklearn_digits

from serkit import datasets
from serkit.datasets import sources
from serkit.errors import DatasetError, InputError
from tests.helpers.files import LOCAL, cut, needs, text

LOADERS = {"mnist": datasets.load_mnist, "fashion_mnist": datasets.load_fashion_mnist}


def small(seed):
    """The four arrays of a data set of 12 training images and 4 test images."""
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 12, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (4, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 4, dtype=np.uint8),
    }


def forbidden(*args, **kwargs):
    raise AssertionError("asked the network")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty folders for SERKIT_DATA and the cache, small data sets allowed, no network."""
    local, cache = tmp_path / "local", tmp_path / "cache"
    local.mkdir()
    monkeypatch.setenv("SERKIT_DATA", str(local))
    monkeypatch.setenv("SERKIT_CACHE", str(cache))
    monkeypatch.setattr(sources, "_ARRAYS", {k: v.shape for k, v in small(0).items()})
    monkeypatch.setattr(sources.sklearn_datasets, "fetch_openml", forbidden)
    return SimpleNamespace(local=local, cache=cache, patch=monkeypatch)


def put(folder, name, arrays):
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)


def test_digits_are_scikit_learns():
    images, labels = datasets.load_digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8), np.float32)
    assert (images.min(), images.max()) == (0, 1)
    np.testing.assert_array_equal(images * 16, sklearn_digits().images)
    np.testing.assert_array_equal(labels, sklearn_digits().target)
    assert labels.dtype == np.int64


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_local_file_is_split_and_scaled(places, name, split):
    arrays = small(1)
    put(places.local, name, arrays)
    images, labels = LOADERS[name](split)
    parts = ["train", "test"] if split == "all" else [split]
    expected = np.concatenate([arrays[f"x_{part}"] for part in parts])
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(images, expected.astype(np.float32) / 255)
    np.testing.assert_array_equal(labels, np.concatenate([arrays[f"y_{p}"] for p in parts]))


@pytest.mark.parametrize("name", LOADERS)
def test_named_folder_goes_before_the_cache(places, name):
    put(places.cache, name, small(2))
    np.testing.assert_array_equal(LOADERS[name]().labels, small(2)["y_train"])
    put(places.local, name, small(1))
    np.testing.assert_array_equal(LOADERS[name]().labels, small(1)["y_train"])
    places.patch.delenv("SERKIT_DATA")
    np.testing.assert_array_equal(LOADERS[name]().labels, small(2)["y_train"])


def test_cache_lies_in_the_home_folder_unless_named(places, tmp_path):
    places.patch.delenv("SERKIT_CACHE")
    places.patch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache" / "serkit").mkdir(parents=True)
    put(tmp_path / ".cache" / "serkit", "mnist", small(3))
    np.testing.assert_array_equal(datasets.load_mnist().labels, small(3)["y_train"])


@pytest.mark.parametrize("split", ["training", "", None, 0])
def test_unknown_split_is_refused(places, split):
    put(places.local, "mnist", small(1))
    with pytest.raises(InputError, match=f"unknown split={split!r}; expected one of 'train'"):
        datasets.load_mnist(split)


def lacks_labels(path):
    np.savez(path, x_train=small(0)["x_train"])


def holds_objects(path):
    np.savez(path, **{**small(0), "y_test": np.array([{}, 1, "a", None], dtype=object)})


def other_shape(path):
    np.savez(path, **{**small(0), "x_test": np.zeros((4, 8, 8), dtype=np.uint8)})


def holds_nan(path):
    np.savez(path, **{**small(0), "y_train": np.full(12, np.nan)})


def other_labels(path):
    np.savez(path, **{**small(0), "y_train": np.full(12, 250, dtype=np.uint8)})


def negative_pixels(path):
    np.savez(path, **{**small(0), "x_train": np.full((12, 28, 28), -1, dtype=np.int16)})


def says_more_than_it_holds(path):
    np.savez(path, **{name: array for name, array in small(0).items() if name != "x_test"})
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": (4, 28, 28)}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_test.npy", header.getvalue())


def holds_much_more(path):
    np.savez_compressed(path, **{**small(0), "x_test": np.zeros(10**7, dtype=np.uint8)})


def is_a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("folder", ["local", "cache"])
@pytest.mark.parametrize(
    "damage",
    [
        cut,
        text,
        lacks_labels,
        holds_objects,
        other_shape,
        holds_nan,
        other_labels,
        negative_pixels,
        says_more_than_it_holds,
        holds_much_more,
        is_a_folder,
    ],
)
def test_damaged_file_is_named(places, folder, damage):
    place = getattr(places, folder)
    put(place, "mnist", small(1))
    damage(place / "mnist.npz")
    with pytest.raises(DatasetError, match=rf"{place}/mnist\.npz.*(damaged|expected x_test)"):
        datasets.load_mnist()


def test_what_is_too_large_is_never_unpacked(places):
    put(places.local, "mnist", small(1))
    holds_much_more(places.local / "mnist.npz")
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"expected x_test of shape \(4, 28, 28\), got \(100000"):
        datasets.load_mnist()
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


# -- download ----------------------------------------------------------------------------------


def openml(arrays, asked):
    """A stand-in for fetch_openml that keeps what it was asked for."""

    def fetch(name, **options):
        asked.append((name, options["as_frame"]))
        images = np.concatenate([arrays["x_train"], arrays["x_test"]])
        labels = np.concatenate([arrays["y_train"], arrays["y_test"]])
        return SimpleNamespace(data=images.reshape(len(images), 784), target=labels.astype(str))

    return fetch


def offline(*args, **options):
    raise OSError("no route to host")


@pytest.mark.parametrize(
    ("name", "title"), [("mnist", "MNIST"), ("fashion_mnist", "Fashion-MNIST")]
)
def test_without_network_three_ways_are_named(places, name, title):
    places.patch.setattr(sources.sklearn_datasets, "fetch_openml", offline)
    with pytest.raises(DatasetError, match=rf"^{title} is not at hand .*no route to host") as error:
        LOADERS[name](progress=False)
    for way in (f"holds {name}.npz in the environment variable SERKIT_DATA", "OpenML"):
        assert way in str(error.value)
    assert f"put that file at {places.cache / name}.npz" in str(error.value)
    assert not places.cache.exists()


def test_download_that_does_not_match_its_checksum_is_refused(places):
    asked = []
    places.patch.setattr(sources.sklearn_datasets, "fetch_openml", openml(small(1), asked))
    with pytest.raises(DatasetError, match=r"MNIST downloaded .* does not match its checksum"):
        datasets.load_mnist(progress=False)
    assert asked == [("mnist_784", False)]
    assert not places.cache.exists()


@pytest.mark.parametrize(
    ("name", "asked_for", "progress"),
    [("mnist", "mnist_784", True), ("fashion_mnist", "Fashion-MNIST", False)],
)
@needs("mnist.npz", "fashion_mnist.npz")
def test_download_is_checked_and_cached(tmp_path, monkeypatch, capfd, name, asked_for, progress):
    """With the real data as the download: the checksum is the real one's."""
    with np.load(Path(LOCAL) / f"{name}.npz") as file:
        arrays = dict(file)
    asked = []
    monkeypatch.delenv("SERKIT_DATA")
    monkeypatch.setenv("SERKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(sources.sklearn_datasets, "fetch_openml", openml(arrays, asked))
    monkeypatch.setattr(np, "savez_compressed", np.savez)  # which takes seconds less
    first = LOADERS[name]("test", progress=progress)
    assert ("downloading" in capfd.readouterr().err) is progress
    monkeypatch.setattr(sources.sklearn_datasets, "fetch_openml", forbidden)
    again = LOADERS[name]("test")
    assert asked == [(asked_for, False)]
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.npz"]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.labels, arrays["y_test"])


# -- the tutorial's digits ---------------------------------------------------------------------


def test_tutorial_digits_are_the_first_of_each_class_interleaved(places):
    """On 9,000 images whose pixels tell their own position, so that the rule can be read off."""
    n = 9000
    numbers = np.arange(n)
    arrays = {
        "x_train": np.zeros((n, 28, 28), dtype=np.uint8),
        "y_train": np.random.default_rng(0).integers(0, 10, n).astype(np.uint8),
        "x_test": np.zeros((1, 28, 28), dtype=np.uint8),
        "y_test": np.zeros(1, dtype=np.uint8),
    }
    arrays["x_train"][:, 0, 0], arrays["x_train"][:, 0, 1] = numbers // 256, numbers % 256
    places.patch.setattr(sources, "_ARRAYS", {k: v.shape for k, v in arrays.items()})
    put(places.local, "mnist", arrays)
    images, labels = datasets.load_tutorial_digits()
    np.testing.assert_array_equal(labels, np.tile(np.arange(10), 300))
    pixels = np.rint(images * 255).astype(int)
    found = pixels[:, 0, 0] * 256 + pixels[:, 0, 1]
    expected = [[i for i in range(5000, n) if arrays["y_train"][i] == d][:300] for d in range(10)]
    np.testing.assert_array_equal(found, np.transpose(expected).ravel())


@needs("mnist.npz", "serket_tutorial.npz")
def test_tutorial_digits_are_those_of_the_serket_tutorial():
    """Grey level 1 apart, which the copy of MNIST at hand may have lost."""
    images, labels = datasets.load_tutorial_digits()
    with np.load(Path(LOCAL) / "serket_tutorial.npz") as file:
        expected, numbers = file["image"].reshape(3000, 28, 28), file["label"]
    np.testing.assert_array_equal(labels, numbers)
    expected = np.where(expected == 1, 0, expected)
    pixels = np.rint(images * 255).astype(int)
    np.testing.assert_array_equal(np.where(pixels == 1, 0, pixels), expected)


# -- names and splits --------------------------------------------------------------------------


def test_every_loader_has_names_for_its_classes():
    loaders = {name.removeprefix("load_") for name in vars(datasets) if name.startswith("load_")}
    assert loaders == set(datasets.CLASS_NAMES)
    assert {name: len(names) for name, names in datasets.CLASS_NAMES.items()} == {
        **dict.fromkeys(loaders, 10),
        "animals": 3,
    }


def test_split_keeps_rows_with_their_labels_and_the_shares_of_classes():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    rows = np.arange(100.0)[:, None, None] + labels[:, None, None] / 10
    train, test = datasets.train_test_split(datasets.Dataset(rows, labels), 0.3)
    np.testing.assert_array_equal(np.bincount(train.labels), [35, 21, 14])
    np.testing.assert_array_equal(np.bincount(test.labels), [15, 9, 6])
    both = np.concatenate([train.images, test.images])
    np.testing.assert_array_equal(np.sort(both, axis=0), rows)
    for part in (train, test):
        fractions = part.images[:, 0, 0] % 1 * 10
        np.testing.assert_array_equal(np.rint(fractions), part.labels)


def test_split_is_repeated_by_its_seed():
    digits = datasets.load_digits()
    one, same, other = (datasets.train_test_split(digits, random_state=s)[1] for s in (0, 0, 1))
    np.testing.assert_array_equal(one.images, same.images)
    assert not np.array_equal(one.images, other.images)


@pytest.mark.parametrize("fraction", [0, 1.0, 2, -0.1, "x", None, 0.001, 0.999])
def test_fractions_that_leave_a_class_out_are_refused(fraction):
    with pytest.raises(InputError, match=f"cannot split with test_fraction={fraction!r}, random"):
        datasets.train_test_split(datasets.load_digits(), fraction)


# -- sequences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [datasets.Dataset, datasets.Counts])
def test_in_cycles_labels_count_up_and_rows_stay_theirs(kind):
    labels = np.array([2, 0, 2, 1, 1, 0, 2, 0, 1, 2, 2])
    rows = np.arange(11.0)[:, None]
    found = datasets.in_cycles(kind(rows, labels))
    assert type(found) is kind
    np.testing.assert_array_equal(found.labels, [0, 1, 2] * 3)
    np.testing.assert_array_equal(found[0][:, 0], [1, 3, 0, 5, 4, 2, 7, 8, 6])


def test_embedded_digits_in_cycles_keep_most_rows():
    images, labels = datasets.in_cycles(datasets.load_digits())
    np.testing.assert_array_equal(labels, np.arange(1740) % 10)  # 174 eights
    assert len(np.unique(images.reshape(1740, -1), axis=0)) == 1740
