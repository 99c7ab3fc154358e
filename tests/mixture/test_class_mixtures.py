"""Mixtures a class, evaluated together, against scipy; and what is done before fitting them."""

import warnings

import numpy as np
import pytest
from scipy.special import logsumexp

from serkit.density import MixtureDensity
from serkit.errors import InputError
from serkit.modules import GMM
from serkit.modules.mixture.class_mixtures import (
    ClassMixtures,
    fit_mixtures,
    grouped,
    held_out_rows,
    occupied,
    pooled_covariance,
    thresholds,
)
from serkit.modules.mixture.rows import Rows
from tests.helpers import oracles
from tests.helpers.mixtures import all_types

D, SIZES, PRIORS = 3, (2, 1, 3), np.array([0.5, 0.2, 0.3])


def random_density(k, covariance_type, seed):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, D, D))
    matrices = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(D)
    weights = rng.dirichlet(np.full(k, 3.0))
    covariances = oracles.as_type(matrices, np.ones(k), covariance_type)
    return MixtureDensity(weights, 2 * rng.normal(size=(k, D)), covariances, covariance_type)


def mixtures_of(covariance_type="full", priors=PRIORS):
    densities = [random_density(k, covariance_type, seed) for seed, k in enumerate(SIZES)]
    return ClassMixtures.of(densities, priors), densities


def by_scipy(x, density):
    matrices = oracles.as_matrices(
        density.covariances, density.covariance_type, *density.means.shape
    )
    return oracles.log_joint(x, density.weights, density.means, matrices)


def labelled_rows(n=90, seed=0):
    """Rows of three classes of different sizes, with weights; none is there twice."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat([0, 1, 2], [n // 2, n // 3, n // 6]))
    x = rng.normal(size=(n, D)) @ rng.normal(size=(D, D)) + 3.0 * codes[:, None]
    return x, codes, rng.uniform(0.5, 2.0, n)


def fitted(x, codes, weight, k=2, previous=(), **options):
    previous = dict(previous)
    template = GMM(k, n_init=1, name="mine", random_state=0, **options)
    groups = by_class(x, codes, weight)
    classes = "abc"[: len(groups)]
    return fit_mixtures(groups, classes, template, np.random.default_rng(0), previous)


def by_class(x, codes, weight):
    return grouped(x, codes, weight, codes.max() + 1)


def assert_bit_equal(mixtures, others):
    for one, other in zip(mixtures, others, strict=True):
        for name in ("weights_", "means_", "covariances_"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


# -- evaluation --------------------------------------------------------------------------------


@all_types
def test_log_likelihood_joint_and_posterior_equal_scipy(x, covariance_type):
    mixtures, densities = mixtures_of(covariance_type)
    each = [by_scipy(x, density) for density in densities]
    expected = np.stack([logsumexp(joint, axis=1) for joint in each], axis=1)
    np.testing.assert_array_equal(mixtures.owners, [0, 0, 1, 2, 2, 2])
    np.testing.assert_allclose(mixtures.log_likelihood(x), expected)
    joint = np.concatenate([j + np.log(p) for j, p in zip(each, PRIORS, strict=True)], axis=1)
    log_priors = mixtures.log_priors[mixtures.owners]
    np.testing.assert_allclose(mixtures.log_weighted(Rows(x)) + log_priors, joint)
    posterior = np.exp(mixtures.log_posterior(expected))
    np.testing.assert_allclose(posterior, oracles.bayes(expected, PRIORS))


def test_log_weighted_takes_the_expectation_over_variances(x):
    """E log N(x + e; mu, Sigma) by sampling e."""
    mixtures, _ = mixtures_of()
    row, variances = x[:1], np.array([[0.5, 0.1, 1.0]])
    draws = row + np.sqrt(variances) * np.random.default_rng(0).normal(size=(20_000, D))
    expected = mixtures.log_weighted(Rows(row, variances))[0]
    assert oracles.within(mixtures.log_weighted(Rows(draws)), expected).all()


@all_types
def test_density_of_a_class_and_of_all(x, covariance_type):
    mixtures, densities = mixtures_of(covariance_type)
    each = np.stack([logsumexp(by_scipy(x, d), axis=1) for d in densities], axis=1)
    for code in range(3):
        np.testing.assert_allclose(mixtures.density(code).log_prob(x), each[:, code])
        assert mixtures.density(code).weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(mixtures.density().log_prob(x), np.log(np.exp(each) @ PRIORS))


@all_types
@pytest.mark.parametrize("size", [1e150, 1e160, 1e300])
def test_rows_far_away_get_a_posterior(covariance_type, size):
    mixtures, _ = mixtures_of(covariance_type)
    far = size * np.array([[1.0, 1, 1], [1, -1, 0], [0, 0, -1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_likelihood = mixtures.log_likelihood(far)
        posterior = np.exp(mixtures.log_posterior(log_likelihood))
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    if size > 1e154:  # its square is infinite
        assert np.isneginf(log_likelihood).all()
        np.testing.assert_allclose(posterior, np.tile(PRIORS, (3, 1)))


def test_a_prior_of_zero_rules_a_class_out(x):
    mixtures, _ = mixtures_of(priors=np.array([0.0, 0.4, 0.6]))
    log_likelihood = mixtures.log_likelihood(x)
    posterior = np.exp(mixtures.log_posterior(log_likelihood))
    assert (posterior[:, 0] == 0).all()
    np.testing.assert_allclose(posterior, oracles.bayes(log_likelihood, mixtures.priors))
    unreachable = np.array([[-5.0, -np.inf, -np.inf]])  # only what is ruled out could explain it
    np.testing.assert_allclose(np.exp(mixtures.log_posterior(unreachable)), [[0, 0.4, 0.6]])


# -- fitting -----------------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("inference", ["map", "ml", "gibbs"])
def test_order_of_rows_and_repeating_them_make_no_difference(covariance_type, inference):
    x, codes, _ = labelled_rows()
    options = {"covariance_type": covariance_type, "inference": inference, "max_iter": 20}
    weight = np.random.default_rng(1).integers(1, 4, len(x)).astype(float)
    plain = fitted(x, codes, weight, **options)
    order = np.random.default_rng(2).permutation(len(x))
    assert_bit_equal(fitted(x[order], codes[order], weight[order], **options), plain)
    rows = np.repeat(order, weight[order].astype(int))
    assert_bit_equal(fitted(x[rows], codes[rows], np.ones(len(rows)), **options), plain)


def test_classes_are_fitted_to_their_own_rows_under_the_templates_options():
    x, codes, weight = labelled_rows()
    mixtures = fitted(x, codes, weight, k=1, covariance_prior=0.7, mean_precision_prior=3.0)
    for code, mixture in enumerate(mixtures):
        own, w = x[codes == code], weight[codes == code]
        mean = w @ own / w.sum()
        scatter = (w[:, None] * (own - mean)).T @ (own - mean)
        expected = (0.7 * np.eye(D) + scatter) / (D + 2 + w.sum() + D + 2)
        np.testing.assert_allclose(mixture.means_[0], mean)
        np.testing.assert_allclose(mixture.covariances_[0], expected)
        assert mixture.name == f"mine, class {'abc'[code]}"


def test_a_class_gets_at_most_as_many_components_as_different_rows():
    x = np.array([[0.0], [0.0], [0.0], [5.0], [6.0], [7.0], [8.0], [9.0]])
    codes = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    mixtures = fitted(x, codes, np.ones(8), k=3)
    assert [mixture.n_components for mixture in mixtures] == [1, 2, 3]


def test_components_without_rows_are_dropped_without_a_warning():
    x, codes, weight = labelled_rows(n=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixtures = fitted(x, codes, weight, k=5, covariance_prior=100.0)
    groups = by_class(x, codes, weight)
    kept = [occupied(*both) for both in zip(mixtures, groups, strict=True)]
    counts = [mixture.responsibilities_.sum(axis=0) for mixture in mixtures]
    assert sum(density.n_components for density in kept) < sum(map(len, counts))
    for density, count in zip(kept, counts, strict=True):
        assert density.n_components == (count >= 0.5).sum()
        assert density.weights.sum() == pytest.approx(1)


def test_a_component_of_one_row_among_duplicates_is_kept():
    """It has a row, however many times another one was seen."""
    x = np.repeat([[0.0], [5.0]], [99, 1], axis=0)
    codes, weight = np.zeros(100, int), np.ones(100)
    (mixture,), (group,) = fitted(x, codes, weight), by_class(x, codes, weight)
    weights = occupied(mixture, group).weights
    np.testing.assert_allclose(np.sort(weights), [0.01, 0.99], atol=1e-3)


# -- pooling, merging, holding out -------------------------------------------------------------


def test_pooled_covariance_is_the_weighted_mean_within_classes():
    x, codes, weight = labelled_rows()
    each = [np.cov(x[codes == c].T, aweights=weight[codes == c], ddof=0) for c in range(3)]
    shares = np.bincount(codes, weights=weight) / weight.sum()
    total = np.trace(np.cov(x.T, aweights=weight, ddof=0)) / D
    expected = np.tensordot(shares, each, axes=1) + 1e-6 * total * np.eye(D)
    np.testing.assert_allclose(pooled_covariance(by_class(x, codes, weight)), expected)


def test_pooled_covariance_is_positive_definite_without_spread_within_classes():
    x = np.repeat([[0.0, 1.0], [4.0, 1.0]], 5, axis=0)
    within = pooled_covariance(by_class(x, np.repeat([0, 1], 5), np.ones(10)))
    np.testing.assert_allclose(within, 1e-6 * 2.0 * np.eye(2))  # variances 4 and 0 between
    alone = pooled_covariance(by_class(x[:1], np.zeros(1, int), np.ones(1)))
    assert (np.linalg.eigvalsh(alone) > 0).all()


def test_grouping_sorts_the_rows_of_each_class_and_adds_their_weights():
    x = np.array([[2.0, 1], [0, 3], [2, 1], [0, 1], [0, 3], [2, 1]])
    codes, weight = np.array([0, 0, 0, 0, 0, 1]), np.array([1.0, 2, 4, 8, 16, 32])
    first, second = by_class(x, codes, weight)
    np.testing.assert_array_equal(first.x, [[0, 1], [0, 3], [2, 1]])
    np.testing.assert_array_equal(first.weight, [8, 18, 5])
    np.testing.assert_array_equal(second.x, [[2, 1]])
    np.testing.assert_array_equal(second.weight, [32])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9])
def test_held_out_rows_are_a_share_of_each_class(fraction):
    codes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [10, 20, 70]))
    mask, same, other = (
        held_out_rows(codes, fraction, np.random.default_rng(seed), "mine") for seed in (0, 0, 1)
    )
    expected = np.round(fraction * np.array([10, 20, 70]))
    np.testing.assert_array_equal(np.bincount(codes[mask], minlength=3), expected)
    np.testing.assert_array_equal(mask, same)
    assert fraction == 0 or not np.array_equal(mask, other)


@pytest.mark.parametrize(("fraction", "n"), [(0.1, 4), (0.9, 4), (0.5, 1)])
def test_holding_out_none_or_all_of_a_class_is_an_error(fraction, n):
    codes = np.repeat([0, 1], [50, n])
    with pytest.raises(InputError, match=f"validation_fraction={fraction} of the {n} rows of one"):
        held_out_rows(codes, fraction, np.random.default_rng(0), "mine")


@pytest.mark.parametrize("quantile", [0.0, 0.05, 0.3, 0.999])
def test_thresholds_are_each_classs_own_weighted_quantile(quantile):
    rng = np.random.default_rng(0)
    log_likelihood, codes = rng.normal(size=(200, 3)), rng.integers(3, size=200)
    weight = rng.uniform(0.5, 2, 200)
    expected = [
        oracles.weighted_quantile(log_likelihood[codes == c, c], weight[codes == c], quantile)
        for c in range(3)
    ]
    found = thresholds(log_likelihood, codes, weight, quantile)
    np.testing.assert_array_equal(found, expected)
    own = log_likelihood[np.arange(200), codes]
    below = np.bincount(codes, weights=weight * (own < found[codes])) / np.bincount(codes, weight)
    assert (below <= quantile).all()


def test_a_previous_mixture_is_where_the_fit_starts():
    x, codes, weight = labelled_rows()
    first = fitted(x, codes, weight, tol=1e-8, max_iter=500)
    before = {label: mixture.density() for label, mixture in zip("abc", first, strict=True)}
    for one, again in zip(first, fitted(x, codes, weight, previous=before), strict=True):
        np.testing.assert_allclose(again.means_, one.means_, atol=1e-3)
    wider = {"a": random_density(2, "full", 0)}
    assert_bit_equal(
        fitted(x[:, :2], codes, weight), fitted(x[:, :2], codes, weight, previous=wider)
    )
