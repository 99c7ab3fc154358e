"""Grids of images, read back from their pixels; animations, read back with Pillow."""

import re

import numpy as np
import pytest
from PIL import Image

from serkit import plots
from serkit.errors import InputError, OutputError
from tests.helpers.pictures import drawn, titles


def cells(axis, size):
    """The images of a grid around its ticks, (rows, columns, H, W, ...)."""
    tiles = np.asarray(axis.images[0].get_array())
    height, width = size
    tops = [round(centre - (height - 1) / 2) for centre in axis.get_yticks()]
    lefts = [round(centre - (width - 1) / 2) for centre in axis.get_xticks()]
    return np.array(
        [[tiles[top : top + height, left : left + width] for left in lefts] for top in tops]
    )


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 5, 7), (2, 3, 1, 5, 7), (2, 3, 3, 5, 7), (2, 3, 16), (2, 3, 40, 40), (1, 1, 4, 4)],
    ids=str,
)
def test_image_grid_shows_every_image_in_its_place(shape):
    images = np.random.default_rng(0).uniform(size=shape)
    rows, columns = list("ab")[: shape[0]], list("xyz")[: shape[1]]
    figure = plots.image_grid(images, row_titles=rows, column_titles=columns, title="grid")
    (axis,) = drawn(figure).axes
    expected = images.reshape(*shape[:2], 4, 4) if len(shape) == 3 else images
    if len(shape) == 5:
        expected = np.moveaxis(images, 2, -1).squeeze()  # the channel last, if there are three
    np.testing.assert_array_equal(cells(axis, expected.shape[2:4]), expected)
    assert axis.images[0].get_clim() == (0, 1)
    assert (titles(axis.yaxis), titles(axis.xaxis)) == (rows, columns)
    assert figure.get_suptitle() == "grid"


@pytest.mark.parametrize("channels", [(), (3,)])
def test_between_images_there_is_only_white(channels):
    (axis,) = plots.image_grid(np.zeros((2, 3, *channels, 5, 7))).axes
    tiles = np.asarray(axis.images[0].get_array())
    assert set(np.unique(tiles)) == {0, 1}
    assert (tiles == 0).sum() == 6 * 5 * 7 * (channels or (1,))[0]
    assert tiles.shape[:2] == (2 * 5 + 1, 3 * 7 + 2)


@pytest.mark.parametrize("names", [["a", "panda bear"], ["MMMMMMMMMMMM", "W"]])
@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 2, 5, 40), (2, 2, 40, 5), (2, 2, 3, 8, 8)])
def test_nothing_of_an_image_grid_is_cut_off(names, shape):
    figure = plots.image_grid(
        np.zeros(shape), row_titles=names, column_titles=names, title="a title of some length"
    )
    box = drawn(figure).get_tightbbox()  # in inches
    width, height = figure.get_size_inches()
    assert 0 <= box.x0 <= box.x1 <= width
    assert 0 <= box.y0 <= box.y1 <= height


def test_values_beyond_grey_are_clipped():
    (axis,) = plots.image_grid([[[[-0.5, 0.25], [0.5, 2]]]]).axes
    np.testing.assert_array_equal(axis.images[0].get_array(), [[0, 0.25], [0.5, 1]])


@pytest.mark.parametrize("shape", [(1, 2, 12), (1, 2, 2, 4, 4), (1, 2, 3, 1, 4, 4)], ids=str)
def test_rows_that_are_no_images_are_refused(shape):
    with pytest.raises(InputError, match="cannot show rows of"):
        plots.image_grid(np.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 4), (0, 2, 4, 4)], ids=str)
def test_a_grid_needs_rows_and_columns_of_images(shape):
    with pytest.raises(InputError, match=re.escape(f"(rows, columns, ...), got {shape}")):
        plots.image_grid(np.zeros(shape))


def test_titles_must_be_as_many_as_rows_and_columns():
    with pytest.raises(InputError, match="expected 2 row titles, got 1: a"):
        plots.image_grid(np.zeros((2, 3, 4, 4)), row_titles=["a"])
    with pytest.raises(InputError, match="expected 3 column titles, got 4: 0, 1, 2, 3"):
        plots.image_grid(np.zeros((2, 3, 4, 4)), column_titles=range(4))


def test_reconstructions_stand_below_their_rows():
    rows = np.random.default_rng(0).uniform(size=(11, 4, 4))
    (axis,) = drawn(plots.reconstructions(rows, 1 - rows, n_shown=3)).axes
    np.testing.assert_array_equal(cells(axis, (4, 4)), [rows[:3], 1 - rows[:3]])
    assert titles(axis.yaxis) == ["data", "reconstruction"]
    (axis,) = plots.reconstructions(rows, rows).axes
    assert cells(axis, (4, 4)).shape[:2] == (2, 10)


@pytest.mark.parametrize(
    ("names", "shown"),
    [(None, ["cluster 0", "cluster 1", "cluster 2"]), (["cat", "dog", 7], ["cat", "dog", "7"])],
)
def test_samples_have_a_row_a_cluster(names, shown):
    images = np.random.default_rng(0).uniform(size=(3, 4, 5, 5))
    (axis,) = drawn(plots.samples(images, names=names)).axes
    np.testing.assert_array_equal(cells(axis, (5, 5)), images)
    assert titles(axis.yaxis) == shown


def read(path, mode):
    """Frames (n, H, W, ...) and their milliseconds, and how often the file says to repeat."""
    with Image.open(path) as image:
        frames, durations = [], []
        for i in range(image.n_frames):
            image.seek(i)
            frames.append(np.asarray(image.convert(mode)))
            durations.append(image.info["duration"])
        return np.array(frames), durations, image.info["loop"]


@pytest.mark.parametrize("row_shape", [(6, 6), (1, 6, 6), (36,)], ids=str)
def test_grey_frames_are_kept_to_the_bit(row_shape, tmp_path):
    levels = np.random.default_rng(0).integers(256, size=(5, 6, 6))
    frames = levels.reshape(5, *row_shape) / 255
    plots.save_gif(frames, tmp_path / "morph.gif", duration=120, scale=3)
    frames, durations, loop = read(tmp_path / "morph.gif", "L")
    np.testing.assert_array_equal(frames, np.kron(levels, np.ones((1, 3, 3))))
    assert durations == [120] * 5
    assert loop == 0  # for ever


def test_colours_are_kept(tmp_path):
    frames = np.zeros((3, 3, 4, 6))
    for i in range(3):
        frames[i, i, :, :3] = 1
    plots.save_gif(frames, tmp_path / "colours.gif")
    found, durations, _ = read(tmp_path / "colours.gif", "RGB")
    expected = np.moveaxis(255 * frames, 1, -1).repeat(4, axis=1).repeat(4, axis=2)
    np.testing.assert_array_equal(found, expected)
    assert durations == [80] * 3


def test_frames_beyond_grey_are_clipped(tmp_path):
    plots.save_gif([[[-0.5, 0], [1, 2]]], tmp_path / "one.gif", scale=1)
    np.testing.assert_array_equal(read(tmp_path / "one.gif", "L")[0], [[[0, 0], [255, 255]]])


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (np.zeros((0, 4, 4)), "no frames to write"),
        (np.zeros((2, 12)), "cannot show rows of 12 values as square images"),
        (np.zeros((2, 2, 4, 4)), r"cannot show rows of shape \(2, 4, 4\) as images"),
    ],
)
def test_frames_that_are_no_images_are_refused(frames, text, tmp_path):
    with pytest.raises(InputError, match=text):
        plots.save_gif(frames, tmp_path / "none.gif")
    assert not (tmp_path / "none.gif").exists()


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "missing" / "morph.gif"
    with pytest.raises(OutputError, match=f"cannot write {path}: No such file or directory"):
        plots.save_gif(np.zeros((2, 4, 4)), path)
