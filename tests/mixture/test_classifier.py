"""GMMClassifier on arrays: scikit-learn's contract, Bayes' rule, invariances, samples."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serkit.errors import InputError
from serkit.modules import GMM, GMMClassifier
from tests.helpers import oracles
from tests.helpers.classes import FAR, NAMES, classifier, overlapping, unregularised
from tests.helpers.mixtures import all_inference, all_types
from tests.helpers.saved import assert_same


def clustered(seed=0):
    """Rows (240, 2) of three classes, each of two clusters far from all others."""
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.repeat(np.arange(6), 40))
    angles = np.pi / 3 * np.array([0, 2, 1, 4, 3, 5])[clusters]
    centres = 20 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return centres + rng.normal(size=(240, 2)), NAMES[clusters // 2]


def log_likelihoods(fitted, x):
    """Log p(x | c) by scipy, from what was learnt."""
    kind = "full" if fitted.covariance_type == "tied" else fitted.covariance_type
    matrices = oracles.as_matrices(fitted.covariances_, kind, *fitted.means_.shape)
    parts = fitted.weights_, fitted.means_, matrices, fitted.component_classes_
    return oracles.class_log_likelihoods(x, *parts)


def assert_same_mixtures(one, other):
    """To the bit."""
    for name in ("priors_", "weights_", "means_", "covariances_", "component_classes_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


# -- scikit-learn ------------------------------------------------------------------------------


def test_pipeline_search_validation_clone_and_pickle():
    x, y = overlapping()
    pipeline = make_pipeline(StandardScaler(), classifier()).fit(x, y)
    scaled = StandardScaler().fit_transform(x)
    np.testing.assert_array_equal(pipeline.predict(x), classifier().fit(scaled, y).predict(scaled))
    assert cross_val_score(pipeline, x, y).min() > 0.5
    grid = {"n_components": [1, 3], "covariance_type": ["full", "diag"]}
    search = GridSearchCV(classifier(), grid, cv=3, error_score="raise").fit(x, y)
    assert search.best_params_["covariance_type"] == "full"  # of such rows were drawn
    fitted = classifier().fit(x, y)
    assert_same_mixtures(clone(fitted).fit(x, y), fitted)
    again = pickle.loads(pickle.dumps(fitted))
    assert_same(again.get_state(), fitted.get_state())
    np.testing.assert_array_equal(again.predict_proba(x), fitted.predict_proba(x))


# -- Bayes' rule -------------------------------------------------------------------------------


def test_one_component_is_quadratic_discriminant_analysis():
    x, y = overlapping()
    fitted = unregularised().fit(x, y)
    groups = [x[y == name] for name in NAMES]
    moments = [(rows.mean(axis=0), np.cov(rows.T, ddof=0)) for rows in groups]
    parts = np.ones(3), *zip(*moments, strict=True), np.arange(3)
    expected = oracles.bayes(oracles.class_log_likelihoods(x, *parts), [3 / 6, 2 / 6, 1 / 6])
    np.testing.assert_allclose(fitted.predict_proba(x), expected, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("priors", [None, [0.2, 0.2, 0.6]])
def test_one_diagonal_component_is_naive_bayes(priors, weighted):
    x, y = overlapping()
    weight = np.random.default_rng(1).uniform(0.1, 2, len(x)) if weighted else None
    fitted = unregularised(covariance_type="diag", priors=priors).fit(x, y, weight)
    reference = GaussianNB(priors=priors, var_smoothing=0).fit(x, y, weight)
    np.testing.assert_allclose(fitted.predict_proba(x), reference.predict_proba(x), atol=1e-10)


@all_types
@all_inference
def test_posteriors_are_bayes_rule_on_what_was_learnt(covariance_type, inference):
    x, y = overlapping()
    options = {"covariance_type": covariance_type, "inference": inference, "max_iter": 20}
    fitted = GMMClassifier(3, random_state=0, **options).fit(x, y)
    expected = log_likelihoods(fitted, x)
    posterior = oracles.bayes(expected, [3 / 6, 2 / 6, 1 / 6])
    np.testing.assert_allclose(fitted.log_likelihood_per_class(x), expected)
    np.testing.assert_allclose(fitted.predict_proba(x), posterior, atol=1e-12)
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(x)), posterior, atol=1e-12)
    np.testing.assert_array_equal(fitted.predict(x), NAMES[posterior.argmax(axis=1)])
    marginal = np.log(np.exp(expected) @ [3 / 6, 2 / 6, 1 / 6])
    np.testing.assert_allclose(fitted.score_samples(x), marginal)
    own = expected[np.arange(len(x)), np.searchsorted(NAMES, y)]
    (report,) = fitted.history_
    assert report["log_likelihood"] == pytest.approx(own.mean())
    assert report["accuracy"] == (fitted.predict(x) == y).mean() == fitted.score(x, y)
    weights = np.bincount(fitted.component_classes_, fitted.weights_)
    np.testing.assert_allclose(weights, 1)
    np.testing.assert_array_equal(
        fitted.n_iter_, [len(c) - 1 for c in fitted.log_likelihood_.values()]
    )


def test_a_given_prior_of_zero_is_never_predicted():
    x, y = overlapping()
    fitted = classifier(priors=[0.0, 0.5, 0.5]).fit(x, y)
    assert set(fitted.predict(x)) == {"bee", "cat"}
    assert (fitted.predict_proba(x)[:, 0] == 0).all()
    np.testing.assert_array_equal(fitted.predict_log_proba(x)[:, 0], -np.inf)


@all_types
def test_rows_far_away_get_finite_probabilities(covariance_type):
    x, y = overlapping()
    fitted = classifier(covariance_type=covariance_type).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fitted.predict_proba(FAR)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[2], fitted.priors_)


@all_types
def test_each_classs_density_is_the_mixture_fitted_to_it_alone(covariance_type):
    x, y = clustered()
    options = {"covariance_type": covariance_type, "covariance_prior": 0.7, "tol": 1e-12}
    fitted = classifier(n_init=5, **options).fit(x, y)
    for name in NAMES:
        alone = GMM(2, n_init=5, random_state=3, **options).fit(x[y == name])
        np.testing.assert_allclose(fitted.density(name).log_prob(x), alone.score_samples(x))


def test_the_pooled_prior_draws_covariances_to_the_one_within_classes():
    x, y = overlapping()
    fitted = GMMClassifier(1, random_state=0).fit(x, y)
    each, shares = [np.cov(x[y == n].T, ddof=0) for n in NAMES], [3 / 6, 2 / 6, 1 / 6]
    pooled = np.tensordot(shares, each, axes=1)
    for k, count in enumerate([90, 60, 30]):
        drawn = (5 * pooled + count * each[k]) / (5 + count + 5)  # nu = D + 2 = 5
        np.testing.assert_allclose(fitted.covariances_[k], drawn, rtol=1e-4)


# -- invariances -------------------------------------------------------------------------------


@all_inference
@all_types
def test_the_order_of_rows_makes_no_difference(covariance_type, inference):
    x, y = overlapping()
    make = partial(classifier, covariance_type=covariance_type, inference=inference, max_iter=10)
    order = np.random.default_rng(1).permutation(len(x))
    assert_same_mixtures(make().fit(x[order], y[order]), make().fit(x, y))


@all_inference
@all_types
def test_a_weight_of_two_is_the_row_twice_and_of_zero_no_row(covariance_type, inference):
    x, y = overlapping()
    make = partial(classifier, covariance_type=covariance_type, inference=inference, max_iter=10)
    weight = np.random.default_rng(1).integers(0, 3, len(x))
    rows = np.repeat(np.arange(len(x)), weight)
    assert_same_mixtures(make().fit(x, y, weight), make().fit(x[rows], y[rows]))


def test_renaming_classes_permutes_columns():
    x, y = clustered()
    renamed = np.array(["z", "x", "y"])[np.searchsorted(NAMES, y)]
    plain, other = (classifier(n_init=5, tol=1e-12).fit(x, labels) for labels in (y, renamed))
    likelihoods = other.log_likelihood_per_class(x)[:, [2, 0, 1]]
    np.testing.assert_allclose(likelihoods, plain.log_likelihood_per_class(x))


def test_same_seed_same_bits_and_refitting_is_fitting_afresh():
    x, y = overlapping()
    make = partial(GMMClassifier, 4, validation_fraction=0.3)
    one, same, other = (make(random_state=seed).fit(x, y) for seed in (0, 0, 1))
    assert_same(one.get_state(), same.get_state())
    assert not np.array_equal(one.means_, other.means_)
    assert_same(other.fit(x[:90], y[:90]).fit(x, y).get_state(), other.get_state())
    assert_same(same.set_params(random_state=1).fit(x, y).get_state(), other.get_state())


@pytest.mark.parametrize("scale", [1e3, 1e-3])
@all_types
def test_predictions_do_not_depend_on_the_scale_of_the_data(covariance_type, scale):
    x, y = overlapping()
    options = {"covariance_type": covariance_type, "validation_fraction": 0.3}
    plain, scaled = (classifier(**options).fit(s * x, y) for s in (1.0, scale))
    np.testing.assert_allclose(scaled.predict_proba(scale * x), plain.predict_proba(x), atol=1e-9)
    np.testing.assert_allclose(scaled.outlier_score(scale * x), plain.outlier_score(x), atol=1e-8)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([[0.0, 0], [3, 3]], [4, 7]),
        ([[0.0, 0], [0.1, 0], [3, 3]], [4, 4, 7]),
        ([[1.0, 2]] * 6 + [[3.0, 2]] * 6, ["a"] * 6 + ["b"] * 6),
        ([[1.0, 2]], ["only"]),
        (np.arange(20.0).reshape(10, 2), [True] * 10),
    ],
    ids=["one row a class", "few", "duplicates", "one row", "one class"],
)
def test_the_smallest_training_sets_work(x, y):
    fitted = GMMClassifier(6, random_state=0).fit(x, y)
    np.testing.assert_array_equal(fitted.predict(x), y)
    np.testing.assert_allclose(fitted.predict_proba(x).sum(axis=1), 1)
    different = [len({tuple(r) for r, c in zip(x, y, strict=True) if c == k}) for k in set(y)]
    assert (np.bincount(fitted.component_classes_) <= np.sort(different)[::-1]).all()
    assert np.isfinite(fitted.score_samples(x)).all()


# -- samples -----------------------------------------------------------------------------------


@all_types
def test_samples_have_the_moments_of_what_was_learnt(covariance_type):
    x, y = clustered()
    fitted = classifier(covariance_type=covariance_type, priors=[0.2, 0.3, 0.5]).fit(x, y)
    rows, labels = fitted.sample(6000, random_state=1)
    assert oracles.within(labels[:, None] == NAMES, [0.2, 0.3, 0.5]).all()
    kind = "full" if covariance_type == "tied" else covariance_type
    matrices = oracles.as_matrices(fitted.covariances_, kind, *fitted.means_.shape)
    for code, name in enumerate(NAMES):
        own = fitted.component_classes_ == code
        mean = fitted.weights_[own] @ fitted.means_[own]
        drawn, which = fitted.sample(3000, name, random_state=2)
        assert set(which) == {name}
        assert oracles.within(drawn, mean).all()
        assert oracles.within(rows[labels == name], mean).all()
        for k, number in enumerate(np.flatnonzero(own)):
            offsets = fitted.sample(3000, name, k, random_state=3)[0] - fitted.means_[number]
            assert oracles.within(offsets, 0).all()
            assert oracles.within(offsets[:, :, None] * offsets[:, None], matrices[number]).all()


def test_sampling_repeats_unless_told():
    fitted = classifier().fit(*overlapping())
    np.testing.assert_array_equal(fitted.sample(5)[0], fitted.sample(5)[0])
    assert not np.array_equal(fitted.sample(5)[0], fitted.sample(5, random_state=9)[0])
    assert fitted.sample()[0].shape == (1, 3)


def test_draws_of_classes_and_components_do_not_share_their_noise():
    x, y = clustered()
    fitted = GMMClassifier(2, random_state=0).fit(x, y)
    first, second = (fitted.sample(500, name, random_state=0)[0][:, 0] for name in NAMES[:2])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2  # four standard errors
    first, second = (fitted.sample(500, NAMES[0], k, random_state=0)[0][:, 0] for k in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_a_component_of_few_rows_nears_its_share_of_the_pooled_covariance():
    rng = np.random.default_rng(0)
    x = np.vstack([rng.normal(size=(20000, 3)), [[9.0, 9.0, 9.0]]])
    fitted = GMMClassifier(1, random_state=0).fit(x, [0] * 20000 + [1])
    nu, d = 5, 3
    np.testing.assert_allclose(
        np.diagonal(fitted.density(1).covariances[0]), nu / (nu + 1 + d + 2), rtol=0.05
    )


@all_types
def test_classes_far_from_the_origin_are_told_apart(covariance_type):
    x, y = make_blobs(90, 3, centers=3, cluster_std=0.5, random_state=0)
    fitted = GMMClassifier(2, covariance_type=covariance_type, random_state=0).fit(x + 1e10, y)
    np.testing.assert_array_equal(fitted.predict(x + 1e10), y)


def test_classes_whose_em_stops_at_max_iter_are_told_of():
    x, y = make_blobs(90, 3, centers=3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="GMMClassifier stopped at max_iter=1, before"):
        fitted = GMMClassifier(2, max_iter=1, tol=0, random_state=0).fit(x, y)
    assert fitted.converged_.tolist() == [False] * 3


def test_densities_beyond_floating_point_are_refused_and_classes_are_the_priors():
    x, y = make_blobs(90, 3, centers=3, random_state=0)
    fitted = GMMClassifier(1, random_state=0).fit(x, y)
    far = np.full((2, 3), 1e300)
    with pytest.raises(InputError, match=r"GMMClassifier: 2 of 2 rows \(rows 0, 1\) are so far"):
        fitted.score_samples(far)
    np.testing.assert_allclose(fitted.predict_proba(far), [fitted.priors_] * 2)


@pytest.mark.parametrize("sample_weight", [np.complex64(1j), [1j] * 6, "a"])
def test_weights_that_are_no_numbers_are_refused(sample_weight):
    rows, classes = np.arange(12.0).reshape(6, 2), [0, 1] * 3
    with pytest.raises(InputError, match="sample_weight must be finite numbers, got"):
        GMMClassifier(1).fit(rows, classes, sample_weight=sample_weight)


@pytest.mark.parametrize("label", [(), (0, 1), "a", [1]])
def test_a_class_that_does_not_exist_is_told_with_those_there_are(label):
    fitted = GMMClassifier(1).fit(np.arange(12.0).reshape(6, 2) ** 2, [0, 1] * 3)
    with pytest.raises(InputError, match=r"there is no class .*; they are \[0, 1\]"):
        fitted.density(label)
