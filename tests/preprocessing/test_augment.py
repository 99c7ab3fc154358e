"""RandomAffine: each amount alone, measured by the moments of a blob on an oblong image."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from serkit.errors import InputError
from serkit.modules import AE, VAE, RandomAffine
from serkit.modules.preprocessing.augment import _grid
from tests.helpers import oracles

N, HEIGHT, WIDTH = 300, 61, 41
NONE = {"degrees": 0.0, "shear": 0.0, "scale": 0.0, "shift": 0.0}


def transformed(batch, seed=0, **amounts):
    """From a seed of torch's generator, whose state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RandomAffine(**NONE | amounts)(batch)


@pytest.fixture(scope="module")
def images():
    """One centred blob, 3 pixels wide and 5 high, repeated."""
    x, y = np.arange(WIDTH) - (WIDTH - 1) / 2, np.arange(HEIGHT)[:, None] - (HEIGHT - 1) / 2
    blob = np.exp(-0.5 * (x**2 / 3.0**2 + y**2 / 5.0**2))
    return torch.tensor(np.repeat(blob[None], N, axis=0))


def measured(images, **amounts):
    return oracles.image_moments(transformed(images, **amounts))


def spreads_to(values, limit, slack=0.03):
    """All within the limit, both ends nearly reached."""
    assert np.abs(values).max() <= limit * (1 + slack)
    assert values.max() > 0.9 * limit
    assert values.min() < -0.9 * limit


def test_no_amounts_change_nothing(images):
    torch.testing.assert_close(transformed(images), images)


def test_coordinates_are_those_of_torchs_affine_grid():
    matrices = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.affine_grid(matrices, (4, 1, HEIGHT, WIDTH), align_corners=False)
    torch.testing.assert_close(_grid(matrices, HEIGHT, WIDTH), expected)


def test_rotation(images):
    centres, covariances = measured(images, degrees=14.0)
    xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    spreads_to(np.degrees(0.5 * np.arctan2(2 * xy, yy - xx)), 14.0)
    np.testing.assert_allclose(centres, [[20, 30]] * N, atol=0.01)


def test_shear_is_horizontal(images):
    centres, covariances = measured(images, shear=0.3)
    spreads_to(covariances[:, 0, 1] / covariances[:, 1, 1], 0.3)
    np.testing.assert_allclose(covariances[:, 1, 1], 25.0, rtol=0.02)
    np.testing.assert_allclose(centres, [[20, 30]] * N, atol=0.01)


def test_rotation_and_shear_keep_areas(images):
    _, covariances = measured(images, degrees=30.0, shear=0.3)
    np.testing.assert_allclose(np.linalg.det(covariances), 15.0**2, rtol=0.04)


def test_scale_is_the_same_along_both_axes(images):
    _, covariances = measured(images, scale=0.1)
    width, height = np.sqrt(covariances[:, 0, 0]) / 3, np.sqrt(covariances[:, 1, 1]) / 5
    spreads_to(width - 1, 0.1, slack=0.1)
    np.testing.assert_allclose(width, height, rtol=0.02)
    np.testing.assert_allclose(covariances[:, 0, 1], 0, atol=0.01)


def test_shift_is_in_pixels(images):
    centres, _ = measured(images, shift=1.4)
    for offsets in (centres - [20, 30]).T:
        spreads_to(offsets, 1.4)
        assert oracles.within(offsets, 0)
    assert abs(np.corrcoef(centres.T)[0, 1]) < 5 / np.sqrt(N)


def test_every_row_has_its_own_amounts_and_its_channels_share_them(images):
    blobs = images[:20, None].repeat(1, 3, 1, 1)
    with torch.random.fork_rng(devices=[]):
        found = RandomAffine()(blobs)
    torch.testing.assert_close(found[:, 0], found[:, 2])
    assert len(torch.unique(found[:, 0].flatten(1), dim=0)) == 20


def test_values_stay_within_the_images_range():
    batch = torch.tensor(np.random.default_rng(0).uniform(0.2, 0.9, size=(50, 9, 9)))
    found = transformed(batch, degrees=45.0, shear=0.5, scale=0.3, shift=4.0)
    assert found.min() >= 0
    assert found.max() <= batch.max()


def test_layouts_agree():
    batch = torch.tensor(np.random.default_rng(0).uniform(size=(6, 8, 8)))
    amounts = {"degrees": 14.0, "shear": 0.3, "scale": 0.1, "shift": 1.4}
    expected = transformed(batch, **amounts)
    for shape in [(6, 1, 8, 8), (6, 64)]:
        found = transformed(batch.reshape(shape), **amounts)
        assert found.shape == shape
        torch.testing.assert_close(found.reshape(6, 8, 8), expected)


@pytest.mark.parametrize("shape", [(4, 10), (4, 1, 2, 3, 3)])
def test_rows_that_are_no_images_are_refused(shape):
    with pytest.raises(InputError, match=f"RandomAffine: expected images .* got \\({shape[0]}, "):
        RandomAffine()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        ({"degrees": -1.0}, "degrees must be a number >= 0, got -1.0"),
        ({"shear": np.zeros(2)}, r"shear must be a number >= 0, got array\("),
        ({"scale": 1.0}, f"scale must be {SCALES}, got 1.0"),
        ({"scale": (1.1, 0.9)}, rf"scale must be {SCALES}, got \(1.1, 0.9\)"),
        ({"scale": (0.0, 1.0)}, rf"scale must be {SCALES}, got \(0.0, 1.0\)"),
        ({"scale": (0.5, 0.7, 0.9)}, rf"scale must be {SCALES}, got \(0.5, 0.7, 0.9\)"),
        ({"scale": "ab"}, f"scale must be {SCALES}, got 'ab'"),
        ({"aspect": None}, "aspect must be a number >= 0, got None"),
        ({"shift": "far"}, "shift must be a number >= 0, got 'far'"),
    ],
)
def test_amounts_out_of_range_are_refused(amounts, text):
    with pytest.raises(InputError, match=f"RandomAffine: {text}"):
        RandomAffine(**amounts)(torch.zeros(4, 3, 3))


def test_a_misspelt_amount_is_told_with_the_one_meant():
    with pytest.raises(InputError, match="has no argument 'sheer'; did you mean 'shear'"):
        RandomAffine(sheer=0.1)


# -- in training -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AE, VAE])
def test_a_callback_that_only_looks_changes_nothing(kind):
    """Encoding puts the nets in evaluation mode, in which dropout and augmentation rest."""
    x = np.random.default_rng(0).random((40, 3, 3))
    options = {"hidden_sizes": (8,), "epochs": 5, "device": "cpu", "random_state": 0}
    alone, watched = (kind(2, augment=RandomAffine(), **options) for _ in range(2))
    watched.on_epoch = lambda m, terms: m.reconstruct(x) is None
    assert watched.fit(x).loss_curve_ == alone.fit(x).loss_curve_


@pytest.mark.parametrize(
    ("augment", "match"),
    [
        (lambda batch: batch[:, :2], r"augment must return a tensor of shape \(40, 3, 3\), got"),
        (lambda batch: batch.numpy(), "got ndarray"),
        (7, "augment must be callable, got 7"),
    ],
)
def test_bad_augmentations_are_refused(augment, match):
    with pytest.raises(InputError, match=f"VAE: .*{match}"):
        VAE(2, augment=augment).fit(np.zeros((40, 3, 3)))


def test_copies_repeat_with_the_seed_and_leave_the_global_state(digits):
    before = torch.get_rng_state()
    first = RandomAffine().copies(digits.x, n_copies=3, random_state=0)
    assert first.shape == (600, 8, 8)
    np.testing.assert_array_equal(first, RandomAffine().copies(digits.x, 3, random_state=0))
    assert not np.array_equal(first[:200], first[200:400])
    assert not np.array_equal(first, RandomAffine().copies(digits.x, 3, random_state=1))
    torch.testing.assert_close(before, torch.get_rng_state(), rtol=0, atol=0)


def test_copies_without_transformation_are_the_images(digits):
    still = RandomAffine(degrees=0, shear=0, scale=0, shift=0)
    np.testing.assert_allclose(still.copies(digits.x, 2), np.tile(digits.x, (2, 1, 1)), atol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("n_copies", 0), ("random_state", -1)])
def test_numbers_of_copies_and_seeds_are_checked(name, value):
    with pytest.raises(InputError, match=f"RandomAffine: {name} must be an integer >= [01], got"):
        RandomAffine().copies(np.zeros((4, 3, 3)), **{name: value})


def test_copies_of_nan_are_an_error():
    with pytest.raises(InputError, match="RandomAffine: NaN or infinity in 1 of 2 rows"):
        RandomAffine().copies(np.array([[[0.0, 1.0]], [[np.nan, 0.0]]]))
