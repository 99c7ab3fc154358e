"""Rows like none that were learnt: p-values against their definition, and what each score finds."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.base import clone

import serkit as srk
from serkit import MixtureDensity
from serkit.errors import InputError, NotFittedError
from serkit.modules import AE, GMM
from serkit.novelty import n_as_high, p_values, reconstruction_error

STANDARD = MixtureDensity([1.0], [[0.0, 0.0]], [1.0], "spherical")


@dataclass
class Plane:
    """Latents are a row's first two values; the decoder says 0 of all others."""

    def encode(self, x):
        return x.reshape(len(x), -1)[:, :2]

    def decode(self, z):
        return np.pad(z, [(0, 0), (0, 62)]).reshape(len(z), *self.row_shape)

    row_shape: tuple = (64,)


def own_rows(n, seed):
    """Rows near the plane."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(n, 2)), 0.1 * rng.normal(size=(n, 62))], axis=1)


@pytest.fixture(scope="module")
def fitted():
    return srk.Novelty().fit(Plane(), STANDARD, own_rows(500, seed=0))


# -- what is refused ---------------------------------------------------------------------------


def test_typical_latents_do_not_excuse_a_bad_reconstruction(fitted):
    strange = own_rows(100, seed=1)
    strange[:, 2:] *= 2
    by_latents = fitted.density_.log_prob(strange[:, :2])
    assert (by_latents > np.quantile(-fitted.scores_[:, 0], 0.05)).mean() > 0.8
    assert fitted.is_novel(strange).all()


def test_a_good_reconstruction_does_not_excuse_odd_latents(fitted):
    strange = own_rows(100, seed=1)
    strange[:, :2] += 8
    error = reconstruction_error(strange, Plane().decode(strange[:, :2]))
    assert (error < np.quantile(fitted.scores_[:, 1], 0.95)).mean() > 0.8
    assert fitted.is_novel(strange).all()


@pytest.mark.parametrize("quantile", [0.01, 0.05, 0.3])
def test_own_rows_are_kept_as_often_as_asked(quantile):
    """Both samples err, each by its binomial deviation; a discrete p adds 3 / (n + 1)."""
    n_held_out, n_new = 2_000, 20_000
    novelty = srk.Novelty(reject_quantile=quantile)
    novelty.fit(Plane(), STANDARD, own_rows(n_held_out, seed=0))
    refused = novelty.is_novel(own_rows(n_new, seed=1)).mean()
    deviation = np.sqrt(quantile * (1 - quantile) * (1 / n_held_out + 1 / n_new))
    assert abs(refused - quantile) < 4 * deviation + 3 / n_held_out


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_few_held_out_rows_never_refuse_too_many_in_the_mean(slope):
    """However the scores depend on each other: 4,000 times 20 held-out rows and a new one."""
    rng, quantile = np.random.default_rng(0), 0.2
    refused = []
    for _ in range(4_000):
        first, noise = rng.normal(size=(2, 21))
        scores = np.column_stack([first, slope * first + (slope == 0) * noise])
        refused.append(p_values(scores[:1], scores[1:])[0] <= quantile)
    assert np.mean(refused) < quantile + 4 * np.sqrt(quantile * (1 - quantile) / 4_000)
    assert np.mean(refused) > quantile - 3 / 21


def test_smoothing_tells_strokes_from_noise():
    """Errors of the same size: independent pixels in own images, a broad stroke in strange ones."""
    own = own_rows(500, seed=0).reshape(-1, 8, 8)
    strange = own_rows(100, seed=1).reshape(-1, 8, 8)
    size = np.sqrt(np.square(own.reshape(500, -1)[:, 2:]).sum(axis=1).mean())
    strange.reshape(100, -1)[:, 2:] = 0
    strange[:, 2:6, 2:6] = size / 4  # 16 pixels
    shares = {}
    for smoothing in (0, 1):
        novelty = srk.Novelty(smoothing=smoothing).fit(Plane((8, 8)), STANDARD, own)
        shares[smoothing] = novelty.is_novel(strange).mean()
    assert shares[0] < 0.2
    assert shares[1] == 1


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8)])
def test_images_may_have_channels(shape):
    own, strange = (own_rows(200, seed).reshape(-1, *shape) for seed in (0, 1))
    novelty = srk.Novelty(smoothing=1).fit(Plane(shape), STANDARD, own)
    flat = srk.Novelty(smoothing=1).fit(Plane((8, 8)), STANDARD, own.reshape(-1, 8, 8))
    expected = flat.p_value(strange.reshape(-1, 8, 8))
    np.testing.assert_array_equal(novelty.p_value(strange), expected)


# -- the definition ----------------------------------------------------------------------------


def test_p_values_equal_their_definition_with_ties():
    rng = np.random.default_rng(0)
    scores, held_out = rng.integers(0, 8, (30, 2)), rng.integers(0, 8, (40, 2))

    def rank(row, others):
        return 1 + min(sum(other[s] >= row[s] for other in others) for s in range(2))

    others = [np.delete(held_out, i, axis=0) for i in range(40)]
    ranks = [rank(row, rest) for row, rest in zip(held_out, others, strict=True)]
    expected = [(1 + sum(r <= rank(row, held_out) for r in ranks)) / 41 for row in scores]
    np.testing.assert_allclose(p_values(scores, held_out), expected, rtol=1e-15)


def test_rows_beyond_all_others_have_the_least_p_and_each_score_counts():
    held_out = np.column_stack([np.arange(100.0), np.arange(100.0)[::-1]])
    assert n_as_high(np.array([[99.5, 0.0]]), held_out).tolist() == [[0, 100]]
    beyond = np.array([[1e9, 0], [0, np.inf], [np.nan, 0]])  # NaN: further than floats say
    np.testing.assert_allclose(p_values(beyond, held_out), 3 / 101)  # two held-out rows are first


def test_reconstruction_error_is_the_squared_distance():
    x, other = np.random.default_rng(0).normal(size=(2, 5, 4, 4))
    expected = torch.cdist(*(torch.tensor(v.reshape(5, -1)) for v in (x, other))).diagonal() ** 2
    np.testing.assert_allclose(reconstruction_error(x, other), expected, rtol=1e-12)


def test_a_filter_keeps_flat_errors_whole_and_takes_from_others():
    x = np.random.default_rng(0).normal(size=(3, 6, 6))
    assert (reconstruction_error(x, 0 * x, 1.0) < reconstruction_error(x, 0 * x)).all()
    flat = np.ones((2, 6, 6))
    np.testing.assert_allclose(reconstruction_error(flat, 0 * flat, 2.0), 36, rtol=1e-12)


# -- use ---------------------------------------------------------------------------------------


def test_an_autoencoder_and_a_mixture_of_the_library_fit_in():
    images = srk.datasets.load_digits().images
    ae = AE(4, hidden_sizes=(16,), epochs=3, random_state=0).fit(images[:500])
    gmm = GMM(3, random_state=0).fit(ae.encode(images[:500]))
    novelty = srk.Novelty(smoothing=0.5).fit(ae, gmm.density(), images[500:900])
    p = novelty.p_value(images[900:])
    assert p.shape == (len(images) - 900,)
    np.testing.assert_array_equal(novelty.is_novel(images[900:]), p <= 0.05)
    assert novelty.p_value(images[900:901]) == pytest.approx(p[0], abs=2 / 401)  # blocks round
    for twin in (copy.deepcopy(novelty), pickle.loads(pickle.dumps(novelty))):
        np.testing.assert_array_equal(twin.p_value(images[900:]), p)


def test_a_clone_has_the_options_alone(fitted):
    twin = clone(srk.Novelty(smoothing=2, reject_quantile=0.1))
    assert (twin.smoothing, twin.reject_quantile) == (2, 0.1)
    with pytest.raises(NotFittedError, match=r"Novelty is not fitted yet: call fit\(autoencoder"):
        clone(fitted).is_novel(own_rows(3, 0))


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "x", "text"),
    [
        ({"smoothing": -1}, own_rows(99, 0), "smoothing must be a number >= 0, got -1"),
        ({"reject_quantile": 0}, own_rows(99, 0), "reject_quantile must be a number > 0 and < 1"),
        ({"reject_quantile": 1}, own_rows(99, 0), "reject_quantile must be .*got 1"),
        (
            {"reject_quantile": 0.03},
            own_rows(98, 0),
            "0.03 needs at least 99 .*, got 98",
        ),
        ({"smoothing": 1}, own_rows(99, 0), r"smoothing=1 needs images .*shape \(64,\); reshape"),
        ({}, [[np.nan] * 64] * 99, "Novelty.fit: NaN or infinity"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(options, x, text):
    novelty = srk.Novelty().fit(Plane(), STANDARD, own_rows(500, seed=0)).set_params(**options)
    before = dict(vars(novelty))
    with pytest.raises(InputError, match=text):
        novelty.fit(Plane(), STANDARD, x)
    assert vars(novelty) == before


def test_the_density_must_be_of_the_latents():
    line = MixtureDensity([1.0], [[0.0]], [1.0], "spherical")
    with pytest.raises(InputError, match=r"density is of 1 dimensions, but the autoencoder's.*2"):
        srk.Novelty().fit(Plane(), line, own_rows(99, 0))


@pytest.mark.parametrize(
    ("shape", "value", "text"),
    [
        ((1,), 0.0, r"decode gives rows of shape \(1,\) for rows of shape \(64,\)"),
        ((64,), np.nan, "rows of decode: NaN or infinity in 99 of 99 rows"),
    ],
)
def test_what_an_autoencoder_of_ones_own_decodes_is_checked(shape, value, text):
    plane = Plane()
    plane.decode = lambda z: np.full((len(z), *shape), value)
    with pytest.raises(InputError, match=text):
        srk.Novelty().fit(plane, STANDARD, own_rows(99, 0))


def test_a_quantile_that_no_number_of_rows_reaches_is_refused():
    density = MixtureDensity([1.0], [[0.0, 0.0]], [1.0], "spherical")
    with pytest.raises(InputError, match="reject_quantile=5e-324 needs at least inf held-out rows"):
        srk.Novelty(reject_quantile=5e-324).fit(AE(2, epochs=1), density, np.zeros((5, 4)))
