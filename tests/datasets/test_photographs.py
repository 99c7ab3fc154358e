"""The animals: photographs read from a zip, resized, made grey, and told where they are amiss."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serkit import datasets
from serkit.datasets import loaders
from serkit.errors import DatasetError, InputError
from tests.helpers.files import LOCAL, cut, needs, text


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def plain(red, green=0, blue=0, side=128):
    """A photograph of one colour, which JPEG keeps to a level or two."""
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (side, side, 3))


def large_png():
    """A picture that says it is large, which nobody has to load to see that."""
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "png")
    content = bytearray(buffer.getvalue())
    content[16:24] = 2 * (13000).to_bytes(4)
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    return bytes(content)


ANIMALS = {
    "panda/b.jpg": jpeg(plain(60)),
    "panda/a.jpg": jpeg(plain(50)),
    "cats/2.jpg": jpeg(plain(20)),
    "cats/1.jpg": jpeg(plain(10, 100, 200)),
    "dogs/1.jpg": jpeg(plain(30)),
    "dogs/2.jpg": jpeg(plain(40)),
    "cats/": b"",
    "readme.txt": b"animals",
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders for SERKIT_DATA and the cache; two photographs of each animal will do."""
    found = {}
    for name, variable in [("local", "SERKIT_DATA"), ("cache", "SERKIT_CACHE")]:
        found[name] = tmp_path / name
        found[name].mkdir()
        monkeypatch.setenv(variable, str(found[name]))
    monkeypatch.setattr(loaders, "_ANIMALS_EACH", 2)
    return found


def put(folder, members=ANIMALS):
    path = folder / "animals128.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("size", [128, 32, 150])
@pytest.mark.parametrize("folder", ["local", "cache"])
def test_animals_are_read_class_by_class_in_the_order_of_their_names(folders, size, folder):
    put(folders[folder])
    images, labels = datasets.load_animals(size=size)
    assert (images.shape, images.dtype) == ((6, 3, size, size), np.float32)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [0, 0, 1, 1, 2, 2])
    colours = [[10, 100, 200], *([red, 0, 0] for red in (20, 30, 40, 50, 60))]
    expected = np.array(colours)[:, :, None, None] / 255
    np.testing.assert_allclose(images, np.broadcast_to(expected, images.shape), atol=3 / 255)


def test_grey_animals_have_the_luma(folders):
    put(folders["local"])
    images, _ = datasets.load_animals(grey=True)
    assert images.shape == (6, 128, 128)
    luma = 0.299 * 10 + 0.587 * 100 + 0.114 * 200  # ITU-R 601
    np.testing.assert_allclose(images[0], luma / 255, atol=3 / 255)


def test_smaller_animals_are_antialiased(folders):
    """Stripes of one pixel become their mean, where taking every fourth pixel keeps one colour."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    put(folders["local"], dict.fromkeys(ANIMALS, jpeg(stripes)) | {"cats/": b""})
    images, _ = datasets.load_animals(size=32, grey=True)
    np.testing.assert_allclose(images[:, 4:-4, 4:-4], 0.5, atol=0.05)  # as JPEG keeps stripes


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"dogs/2.jpg": b"no picture"}, r"dogs/2\.jpg: cannot identify image file"),
        ({"dogs/2.jpg": ANIMALS["dogs/2.jpg"][:-20]}, r"dogs/2\.jpg: image file is truncated"),
        ({"cats/1.jpg": jpeg(plain(1, side=64))}, r"cats/1\.jpg: expected 128 x 128 .*got 64 x 64"),
        ({"cats/1.jpg": large_png()}, r"cats/1\.jpg: expected 128 x 128 .*got 13000 x 13000"),
        ({"cats/1.jpg": bytes(2**20 + 1)}, r"cats/1\.jpg: expected 1,048,576 bytes at most"),
        ({"cats/1.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, r"cats/1\.jpg: cannot identify"),
        ({"panda/c.jpg": ANIMALS["panda/a.jpg"]}, "expected 2 photographs in panda/, got 3"),
    ],
)
def test_bad_photographs_are_named(folders, members, text):
    path = put(folders["local"], ANIMALS | members)
    with pytest.raises(DatasetError, match=rf"{path} is damaged or not such a data set \({text}"):
        datasets.load_animals()


@pytest.mark.parametrize("damage", [cut, text])
def test_damaged_zip_is_named(folders, damage):
    path = put(folders["local"])
    damage(path)
    with pytest.raises(DatasetError, match=rf"{path} is damaged or not such a data set"):
        datasets.load_animals()


def test_without_animals_it_is_said_what_and_where_they_should_be(folders):
    with pytest.raises(DatasetError, match=r"animals128\.zip is not at hand and") as error:
        datasets.load_animals()
    for part in (
        "the folders cats/, dogs/, panda/ of 2 JPEG photographs each, 128 x 128 pixels",
        f"the environment variable SERKIT_DATA names, or in {folders['cache']}.",
        'Kaggle data set "Animal Image Dataset (DOG, CAT and PANDA)" by Ashish Saxena',
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("size", [0, -3, 2.5, "128"])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(InputError, match=f"size must be an integer >= 1, got {size!r}"):
        datasets.load_animals(size=size)


@needs("animals128.zip")
def test_animals_are_3000_photographs():
    """One of each class, picked by its name, as Pillow reads it."""
    images, labels = datasets.load_animals()
    assert images.shape == (3000, 3, 128, 128)
    np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], 1000))
    with zipfile.ZipFile(Path(LOCAL) / "animals128.zip") as archive:
        for row, name in [(16, "cats/cats_00017"), (1000, "dogs/dogs_00001"), (-1, "panda_01000")]:
            (member,) = [n for n in archive.namelist() if name in n]
            pixels = np.asarray(Image.open(archive.open(member)))
            np.testing.assert_array_equal(np.rint(images[row] * 255), pixels.transpose(2, 0, 1))
