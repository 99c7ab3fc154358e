"""Transforms: affine ones by the moments of a blob, those of values by closed forms; several."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.base import clone
from torch.nn import functional as F

from serkit import Graph, Observation
from serkit.errors import InputError
from serkit.modules import AE, VAE, Compose, RandomAffine, RandomIntensity
from serkit.modules.preprocessing.augment import _grid
from tests.helpers import oracles

N, HEIGHT, WIDTH = 300, 61, 41
NONE = {"degrees": 0.0, "shear": 0.0, "scale": 0.0, "shift": 0.0}
SCALES = r"a number >= 0 and < 1, or a pair \(low, high\) with 0 < low <= high"


def from_seed(transform, batch, seed=0):
    """From a seed of torch's generator, whose state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(batch)


def transformed(batch, seed=0, **amounts):
    return from_seed(RandomAffine(**NONE | amounts), batch, seed)


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


def test_scale_may_be_a_range_of_factors(images):
    _, covariances = measured(images, scale=(0.75, 1.05))
    width, height = np.sqrt(covariances[:, 0, 0]) / 3, np.sqrt(covariances[:, 1, 1]) / 5
    spreads_to(width - 0.9, 0.15, slack=0.1)
    np.testing.assert_allclose(width, height, rtol=0.02)


def test_a_share_is_the_range_either_side_of_one(images):
    pair, share = (transformed(images, scale=scale) for scale in ((0.9, 1.1), 0.1))
    torch.testing.assert_close(pair, share)


def test_aspect_scales_width_and_height_apart_and_keeps_areas(images):
    centres, covariances = measured(images, aspect=0.3)
    width, height = np.sqrt(covariances[:, 0, 0]) / 3, np.sqrt(covariances[:, 1, 1]) / 5
    spreads_to(np.log(width / height), 0.3, slack=0.1)
    np.testing.assert_allclose(width * height, 1, rtol=0.02)
    np.testing.assert_allclose(covariances[:, 0, 1], 0, atol=0.01)
    np.testing.assert_allclose(centres, [[20, 30]] * N, atol=0.01)


def test_aspect_is_of_the_image_before_it_is_turned(images):
    """Along its own axes, so that it turns as far as without."""
    turned, stretched = (measured(images, degrees=30.0, aspect=a)[1] for a in (0.0, 0.3))
    for covariances in (turned, stretched):
        xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
        spreads_to(np.degrees(0.5 * np.arctan2(2 * xy, yy - xx)), 30.0)
    np.testing.assert_allclose(np.linalg.det(stretched), 15.0**2, rtol=0.04)


def test_aspect_draws_nothing_unless_it_is_asked_for(images):
    """So that what is drawn after it, and the results of before, stay."""

    def after(transform):
        return from_seed(lambda batch: (transform(batch), torch.rand(3))[1], images)

    five = after(lambda batch: torch.rand(5, len(batch), dtype=batch.dtype))
    assert torch.equal(after(RandomAffine()), five)
    assert not torch.equal(after(RandomAffine(aspect=0.1)), five)


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
    with pytest.raises(InputError, match=r"RandomAffine needs images .* got rows of shape"):
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


# -- intensity ---------------------------------------------------------------------------------


def changed(batch, seed=0, **amounts):
    return from_seed(RandomIntensity(**{"gamma": 0.0, "gain": (1.0, 1.0)} | amounts), batch, seed)


def noise(*shape):
    """Values in (0, 1)."""
    return torch.tensor(np.random.default_rng(0).uniform(0.05, 0.95, shape))


def assert_uniform(values, low, high):
    """One value of each image, by Kolmogorov and Smirnov's test; all within the limits."""
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_no_change_of_intensity():
    batch = noise(5, 4, 6)
    torch.testing.assert_close(changed(batch), batch, rtol=0, atol=0)


def test_gamma_is_a_power_of_each_image():
    batch = noise(N, 2, 4, 6)
    exponents = (changed(batch, gamma=0.7).log() / batch.log()).flatten(1).numpy()
    np.testing.assert_allclose(exponents, exponents[:, :1].repeat(48, axis=1), rtol=1e-9)
    assert_uniform(np.log(exponents[:, 0]), -0.7, 0.7)


def test_gamma_keeps_black_and_white():
    ends = torch.tensor([[[0.0, 1.0]]]).repeat(50, 1, 1)
    assert torch.equal(changed(ends, gamma=2.0), ends)


def test_gain_is_a_factor_of_each_image():
    batch = noise(N, 2, 4, 6)
    factors = (changed(batch, gain=(0.6, 1.2)) / batch).flatten(1).numpy()
    np.testing.assert_allclose(factors, factors[:, :1].repeat(48, axis=1), rtol=1e-9)
    assert_uniform(factors[:, 0], 0.6, 1.2)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 6.0])  # whose cut at four of them is scipy's
def test_blur_is_a_share_of_a_gaussian_one(sigma):
    batch = noise(N, 9, 14)
    blurred, weights = (
        ndimage.gaussian_filter(rows, sigma, mode="constant", axes=(1, 2))
        for rows in (batch.numpy(), np.ones((1, 9, 14)))
    )
    full = (blurred / weights - batch.numpy()).reshape(N, -1)
    found = (changed(batch, blur=sigma) - batch).numpy().reshape(N, -1)
    shares = (found * full).sum(axis=1) / (full**2).sum(axis=1)
    np.testing.assert_allclose(found, shares[:, None] * full, atol=1e-9)
    assert_uniform(shares, 0.0, 1.0)


def test_blur_keeps_a_constant_image():
    batch = torch.full((20, 5, 7), 0.8)
    torch.testing.assert_close(changed(batch, blur=2.0), batch)


def test_changes_of_intensity_are_gamma_then_gain_then_blur():
    """With numbers of their own, which are the same whatever else is asked for."""
    batch = noise(20, 5, 7)
    amounts = {"gamma": 1.0, "gain": (0.3, 0.9), "blur": 1.0}
    expected = batch
    for name, amount in amounts.items():
        expected = changed(expected, **{name: amount})
    torch.testing.assert_close(changed(batch, **amounts), expected)


def test_layouts_agree_in_intensity():
    batch, amounts = noise(6, 8, 8), {"gamma": 1.0, "gain": (0.6, 1.0), "blur": 1.0}
    expected = changed(batch, **amounts)
    for shape in [(6, 1, 8, 8), (6, 64)]:
        found = changed(batch.reshape(shape), **amounts)
        assert found.shape == shape
        torch.testing.assert_close(found.reshape(6, 8, 8), expected)


@pytest.mark.parametrize("value", [-0.1, 1.1, torch.nan])
def test_gamma_needs_values_between_0_and_1(value):
    batch = noise(4, 3, 3)
    batch[2, 1, 1] = value
    with pytest.raises(
        InputError, match=r"RandomIntensity: gamma=1.0 needs values in \[0, 1\], got"
    ):
        changed(batch, gamma=1.0)
    assert changed(batch, gain=(0.5, 0.9)).shape == batch.shape


def test_gamma_takes_what_rounding_has_put_outside():
    found = changed(torch.tensor([[[-1e-7, 1 + 1e-7]]]), gamma=1.0)
    assert torch.equal(found, torch.tensor([[[0.0, 1.0]]]))


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        ({"gamma": -1.0}, "gamma must be a number >= 0, got -1.0"),
        ({"gain": 0.6}, r"gain must be a pair \(low, high\) with 0 < low <= high, got 0.6"),
        ({"gain": (1.0, 0.6)}, r"gain must be a pair .*, got \(1.0, 0.6\)"),
        ({"gain": (0.6, np.inf)}, r"gain must be a pair .*, got \(0.6, inf\)"),
        ({"blur": "much"}, "blur must be a number >= 0, got 'much'"),
    ],
)
def test_amounts_of_intensity_out_of_range_are_refused(amounts, text):
    with pytest.raises(InputError, match=f"RandomIntensity: {text}"):
        changed(torch.zeros(4, 3, 3), **amounts)


# -- several -----------------------------------------------------------------------------------


def test_several_transforms_are_applied_in_turn():
    batch = noise(10, 6, 6)
    affine, intensity = RandomAffine(aspect=0.2), RandomIntensity(blur=1.0)
    expected = from_seed(lambda rows: intensity(affine(rows)), batch)
    for several in ([affine, intensity], (Compose([affine]), intensity)):
        assert torch.equal(from_seed(Compose(several), batch), expected)
    own = Compose([lambda rows: rows + 1, lambda rows: rows * 2])
    torch.testing.assert_close(own(batch), (batch + 1) * 2)


def test_rows_of_any_shape_reach_functions_as_they_are():
    shapes = []
    Compose([lambda rows: shapes.append(rows.shape) or rows])(torch.zeros(4, 10))
    assert shapes == [(4, 10)]


SEVERAL = "transforms must be a list, not empty, of transforms such as RandomAffine"


@pytest.mark.parametrize(
    ("transforms", "text"),
    [
        ([], rf"{SEVERAL}.*, got \[\]"),
        (RandomAffine(), rf"{SEVERAL}.*, got RandomAffine\(\)"),
        ([RandomAffine(), 3], rf"{SEVERAL}.*, got \[RandomAffine\(\), 3\]"),
        ([RandomAffine], rf"{SEVERAL}.*, got \[<class "),
        (
            [RandomAffine(), lambda rows: rows[:, 0]],
            r"transforms\[1\] must return a tensor of shape \(4, 3, 3\), got \(4, 3\)",
        ),
        ([lambda rows: rows.numpy()], r"transforms\[0\] must return .*, got ndarray"),
    ],
)
def test_transforms_that_do_not_work_are_refused(transforms, text):
    with pytest.raises(InputError, match=f"^Compose: {text}"):
        Compose(transforms)(torch.zeros(4, 3, 3))


def test_an_error_within_names_the_transform():
    with pytest.raises(InputError, match=r"^RandomIntensity: blur must be"):
        Compose([RandomAffine(), RandomIntensity(blur=-1)])(torch.zeros(4, 3, 3))


def test_several_transforms_are_cloned_and_printed():
    several = Compose([RandomAffine(scale=(0.75, 1.05)), RandomIntensity()])
    expected = "Compose(transforms=[RandomAffine(scale=(0.75, 1.05)), RandomIntensity()])"
    assert repr(clone(several)) == repr(several) == expected
    assert clone(several).transforms[0] is not several.transforms[0]


def test_several_transforms_are_saved_with_a_graph(tmp_path):
    several = Compose([RandomAffine(scale=(0.75, 1.05)), RandomIntensity(gain=[0.5, 0.9])])
    options = {"hidden_sizes": (4,), "epochs": 1, "augment_target": "clean", "random_state": 0}
    vae = VAE(2, augment=several, name="vae", **options).connect(Observation(noise(9, 3, 3)))
    graph = Graph(vae)
    graph.fit(1, verbose=False)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[noise(9, 3, 3).numpy()])["vae"]
    assert repr(loaded.augment) == repr(several)
    assert loaded.augment_target == "clean"
    assert loaded.update().loss_curve_ == vae.update().loss_curve_


def test_a_function_among_several_makes_them_code(tmp_path):
    graph = Graph(VAE(2, augment=Compose([torch.sqrt]), name="vae").connect(Observation(np.eye(4))))
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[np.eye(4)])
    with pytest.raises(
        InputError, match=r"augment=Compose, which is not in the file; .*'vae.augment'"
    ):
        loaded.fit(1, verbose=False)
    given = {"vae.augment": Compose([torch.sqrt])}
    Graph.load(tmp_path / "graph", data=[np.eye(4)], custom=given)


# -- in training -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AE, VAE])
def test_a_callback_that_only_looks_changes_nothing(kind):
    """Encoding puts the nets in evaluation mode, in which dropout and augmentation rest."""
    x = np.random.default_rng(0).random((40, 3, 3))
    options = {"hidden_sizes": (8,), "epochs": 5, "device": "cpu", "random_state": 0}
    alone, watched = (kind(2, augment=RandomAffine(), **options) for _ in range(2))
    watched.on_epoch = lambda m, epoch, terms: m.reconstruct(x) is None
    assert watched.fit(x).loss_curve_ == alone.fit(x).loss_curve_


@pytest.mark.parametrize(
    ("augment", "match"),
    [
        (lambda batch: batch[:, :2], r"augment must return a tensor of shape \(40, 3, 3\), got"),
        (lambda batch: batch.numpy(), "got ndarray"),
        (torch.Tensor.double, "must return a tensor of torch.float32 on cpu, got torch.float64"),
        (lambda batch: batch > 0.5, "must return a tensor of torch.float32 on cpu, got torch.bool"),
        (torch.Tensor.bfloat16, "a tensor of torch.float32 on cpu, got torch.bfloat16 on cpu"),
        (7, "augment must be a function of batch, got 7"),
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
    with pytest.raises(InputError, match=f"RandomAffine: {name} must be an integer >= [01].*, got"):
        RandomAffine().copies(np.zeros((4, 3, 3)), **{name: value})


def test_copies_by_several_transforms(digits):
    several = Compose([RandomAffine(), RandomIntensity()])
    first = several.copies(digits.x, n_copies=2, random_state=0)
    assert (first.shape, first.dtype) == ((400, 8, 8), np.float32)
    np.testing.assert_array_equal(first, several.copies(digits.x, 2, random_state=0))
    assert not np.array_equal(first[:200], first[200:])


@pytest.mark.parametrize("transform", [RandomAffine(), RandomIntensity()])
@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_transforms_are_of_tensors_of_floats_and_copies_of_anything(transform, kind):
    images = kind(np.arange(36, dtype=np.uint8).reshape(4, 3, 3) // 36)
    text = (
        rf"^{type(transform).__name__}: expected a tensor of floats, got .*; take copies\(images\)"
    )
    with pytest.raises(InputError, match=text):
        transform(images)
    assert transform.copies(images).dtype == np.float32


def test_copies_of_nan_are_an_error():
    with pytest.raises(InputError, match="RandomAffine: NaN or infinity in 1 of 2 rows"):
        RandomAffine().copies(np.array([[[0.0, 1.0]], [[np.nan, 0.0]]]))
