"""GMMClassifier where rows are refused, and where something is wrong."""

import copy

import numpy as np
import pytest

from serkit import Observation
from serkit.errors import InputError, NotFittedError, NotReadyError, TrainingError
from serkit.messages import Data
from serkit.modules import GMMClassifier
from tests.helpers import oracles
from tests.helpers.classes import FAR, NAMES, classifier, overlapping, unregularised
from tests.helpers.mixtures import all_types
from tests.helpers.saved import assert_same

X, Y = overlapping()
HELD_OUT = overlapping(n=120, seed=1)


def fit_with(**options):
    return lambda fitted: fitted.set_params(**options).fit(X, Y)


def assert_refused(fitted, use, text, error=InputError):
    """The error, and that what was learnt is as before."""
    before = copy.deepcopy(fitted.get_state())
    with pytest.raises(error, match=text):
        use(fitted)
    assert_same(fitted.get_state(), before)


# -- rejection ---------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0.0, 0.05, 0.37])
@pytest.mark.parametrize("weighted", [False, True])
def test_thresholds_are_quantiles_of_held_out_rows(quantile, weighted):
    x, y = HELD_OUT
    weight = np.random.default_rng(0).uniform(0, 2, len(x)) * (np.arange(len(x)) % 4 > 0)
    fitted = classifier(reject_quantile=quantile).fit(X, Y)
    assert fitted.fit_thresholds(x, y, weight if weighted else None) is fitted
    weight = weight if weighted else np.ones(len(x))
    likelihoods = fitted.log_likelihood_per_class(x)
    expected = [
        oracles.weighted_quantile(
            likelihoods[(y == name) & (weight > 0), c], weight[(y == name) & (weight > 0)], quantile
        )
        for c, name in enumerate(NAMES)
    ]
    np.testing.assert_array_equal(fitted.thresholds_, expected)


@all_types
def test_rows_below_every_threshold_are_rejected_and_no_others(covariance_type):
    fitted = classifier(covariance_type=covariance_type, reject_quantile=0.3).fit(X, Y)
    x = np.concatenate([fitted.fit_thresholds(*HELD_OUT).sample(300)[0], FAR])
    below = fitted.log_likelihood_per_class(x) < fitted.thresholds_
    outlying = below.all(axis=1)
    assert outlying[-3:].all()
    assert 0 < outlying[:-3].mean() < 0.5
    np.testing.assert_array_equal(fitted.outlier_score(x) > 0, outlying)
    plain, found = fitted.predict(x), fitted.predict(x, reject=True)
    np.testing.assert_array_equal(found, np.where(outlying, "none", plain))


@pytest.mark.parametrize("quantile", [0.01, 0.1])
def test_the_promised_share_of_fresh_rows_is_kept(quantile):
    """But for the binomial errors of the held-out quantile and of the fresh share: four of them."""
    x, y = overlapping(n=6000, seed=2)
    fitted = classifier(reject_quantile=quantile).fit(X, Y).fit_thresholds(x, y)
    fresh, labels = overlapping(n=6000, seed=3)
    kept = fitted.predict(fresh, reject=True) != "none"
    for name in NAMES:
        own = labels == name
        error = np.sqrt(quantile * (1 - quantile) * 2 / own.sum())
        assert kept[own].mean() >= 1 - quantile - 4 * error
    own = fitted.log_likelihood_per_class(fresh)[np.arange(6000), np.searchsorted(NAMES, labels)]
    below = own < fitted.thresholds_[np.searchsorted(NAMES, labels)]
    error = np.sqrt(quantile * (1 - quantile) * 2 / 1000)
    assert abs(below.mean() - quantile) < 4 * error


@pytest.mark.parametrize(
    ("names", "none"),
    [
        ([0, 1, 2], -1),
        ([-2, 0, 4], -3),  # -1 would be no class but an unknown one
        ([-5, -3, 3], -6),
        (np.array([1, 2, 3], np.uint64), -1),
        (np.array([-128, 0, 127], np.int8), -129),
        ([0.0, 1.0, 2.0], -1),
        (["a", "b", "c"], "none"),
        (np.array(["a", "b", "c"], object), "none"),
        ([False, True, True], -1),
    ],
    ids=[
        "ints",
        "one negative",
        "negative",
        "uint64",
        "int8",
        "floats",
        "short",
        "objects",
        "booleans",
    ],
)
def test_what_rejected_rows_are_called(names, none):
    names = np.array(names)
    labels = names[np.searchsorted(NAMES, Y)]
    fitted = classifier(validation_fraction=0.5).fit(X, labels)
    assert fitted.none_label == none
    assert fitted.none_label not in fitted.classes_
    found = fitted.predict(np.concatenate([FAR, X]), reject=True)
    assert found[0] == none
    accepted = fitted.outlier_score(X) <= 0
    np.testing.assert_array_equal(found[3:][accepted], fitted.predict(X)[accepted])
    if names.dtype.kind in "biu":
        assert found.dtype.kind == "i"  # not floats, which would round large class numbers


def test_none_is_a_class_no_rejected_row_can_be_taken_for():
    labels = np.array(["none", "some", "more"])[np.searchsorted(NAMES, Y)]
    fitted = classifier(validation_fraction=0.5).fit(X, labels)
    assert fitted.predict(FAR, reject=True)[0] not in fitted.classes_


def test_a_share_of_the_rows_may_be_held_out_for_thresholds():
    """The mixture is then of the others: refitted on all it is another."""
    fitted = classifier(validation_fraction=0.25, reject_quantile=0.0).fit(X, Y)
    rejected = fitted.predict(X, reject=True) == "none"
    assert 0 < rejected.mean() < 0.3
    assert not np.array_equal(fitted.means_, classifier().fit(X, Y).means_)
    own = fitted.log_likelihood_per_class(X)[np.arange(len(X)), np.searchsorted(NAMES, Y)]
    for c, count in enumerate([22, 15, 8]):  # a quarter of 90, 60 and 30, rounded to even
        ranks = np.sort(own[NAMES[c] == Y])
        assert np.searchsorted(ranks, fitted.thresholds_[c]) <= len(ranks) - count


def test_thresholds_do_not_outlive_the_mixtures_they_were_of():
    fitted = classifier().fit(X, Y).fit_thresholds(*HELD_OUT).fit(X, Y)
    assert not hasattr(fitted, "thresholds_")
    for use in (fitted.outlier_score, lambda x: fitted.predict(x, reject=True)):
        with pytest.raises(NotReadyError, match=r"no thresholds.*fit_thresholds\(X, y\).*validat"):
            use(X)


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (X, np.where(Y == "cat", "cow", Y), r"missing \['cat'\], unknown \['cow'\]"),
        (X[Y != "ape"], Y[Y != "ape"], r"missing \['ape'\], unknown \[\]"),
        (X, Y[:5], "y has 5 entries for 180 rows"),
        (X[:, :2], Y, "X has 2 features, but GMMClassifier is expecting 3"),
        (np.full((3, 3), np.nan), NAMES, "contains NaN"),
    ],
    ids=["unknown", "missing", "lengths", "columns", "nan"],
)
def test_thresholds_that_cannot_be_set_change_nothing(x, y, text):
    fitted = classifier().fit(X, Y).fit_thresholds(*HELD_OUT)
    assert_refused(fitted, lambda f: f.fit_thresholds(x, y), f"GMMClassifier: .*{text}")


def test_a_quantile_above_one_is_refused():
    fitted = classifier().fit(X, Y).set_params(reject_quantile=1.5)
    assert_refused(fitted, lambda f: f.fit_thresholds(X, Y), "reject_quantile must be .*got 1.5")


# -- what is wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda f: f.fit(X[:5], Y), "y has 180 entries for 5 rows"),
        (lambda f: f.fit(X, None), "requires y to be passed, but the target y is None"),
        (lambda f: f.fit(X, np.stack([Y, Y], axis=1)), "y should be a 1d array"),
        (lambda f: f.fit(X, X[:, 0]), "Unknown label type: continuous"),
        (lambda f: f.fit(X, Y.astype(bytes)), r"got bytes .*as text, y.astype\(str\)"),
        (lambda f: f.fit(X[:, 0], Y), "Expected 2D array, got 1D"),
        (lambda f: f.fit(np.where(X > 4, np.nan, X), Y), "contains NaN"),
        (lambda f: f.fit(np.where(X > 4, np.inf, X), Y), "contains infinity"),
        (lambda f: f.fit(X[:0], Y[:0]), r"0 sample\(s\)"),
        (lambda f: f.fit([["a", "b"]] * 3, NAMES), "could not convert"),
        (lambda f: f.fit(X * 1e200, Y), "too large to square; scale the data"),
        (lambda f: f.fit(X, Y, -np.ones(180)), "Negative values .*sample_weight"),
        (lambda f: f.fit(X, Y, np.ones(3)), r"sample_weight.shape == \(3,\), expected \(180,\)"),
        (lambda f: f.fit(X, Y, np.zeros(180)), "at least one non-zero|every sample_weight is 0"),
        (fit_with(n_components=0), "n_components must be an integer >= 1, got 0"),
        (fit_with(covariance_type="round"), "unknown covariance_type='round'"),
        (fit_with(inference="vb"), "unknown inference='vb'"),
        (fit_with(n_init=0), "n_init must be an integer >= 1, got 0"),
        (fit_with(max_iter=0), "max_iter must be an integer >= 1, got 0"),
        (fit_with(tol=-1), "tol must be a number >= 0, got -1"),
        (fit_with(reg_covar=-1), "reg_covar must be a number >= 0, got -1"),
        (fit_with(mean_precision_prior=0), "mean_precision_prior must be a number > 0, got 0"),
        (fit_with(degrees_of_freedom_prior=1), "degrees_of_freedom_prior > 2"),
        (fit_with(degrees_of_freedom_prior="a"), "degrees_of_freedom_prior .*'a'"),
        (fit_with(degrees_of_freedom_prior=np.nan), "degrees_of_freedom_prior .*nan"),
        (fit_with(covariance_prior="pool"), "must be 'pooled', a number or a matrix, got 'pool'"),
        (fit_with(covariance_prior=np.eye(2)), r"covariance_prior a number or \(3, 3\)"),
        (fit_with(priors=[0.5, 0.5]), r"priors must be 3 probabilities.*\[0.5, 0.5\]"),
        (fit_with(priors=[0.5, 0.6, -0.1]), "priors must be 3 probabilities"),
        (fit_with(priors=[np.nan, 0.5, 0.5]), "priors must be finite numbers"),
        (fit_with(reject_quantile=1.0), "reject_quantile must be a number >= 0 and < 1, got 1.0"),
        (fit_with(reject_quantile=-0.1), "reject_quantile must be a number >= 0 and < 1, got -0.1"),
        (
            fit_with(validation_fraction=1),
            "validation_fraction must be a number >= 0 and < 1, got 1",
        ),
        (fit_with(validation_fraction=0.01), "validation_fraction=0.01 of the 30 rows of one"),
        (
            fit_with(random_state=-1),
            "random_state must be an integer >= 0 or a NumPy random generator, got -1",
        ),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_cannot_be_fitted_is_refused_and_nothing_is_lost(use, text):
    fitted = classifier(name="mine").fit(X, Y).fit_thresholds(*HELD_OUT)
    assert_refused(fitted, use, f"(?s)GMMClassifier.*mine.*{text}")
    first = GMMClassifier(name="mine", random_state=0)
    with pytest.raises(InputError, match=f"(?s)mine.*{text}"):
        use(first)
    assert not [name for name in vars(first) if name.endswith("_")]


@pytest.mark.parametrize("name", sorted(set(GMMClassifier().get_params()) - {"name"}))
@pytest.mark.parametrize("value", [np.ones((2, 2, 2)), object(), "odd", {}, [[1], [2, 3]]])
def test_odd_values_of_any_option_are_refused_by_name(name, value):
    refused = classifier(labels=Y).set_params(**{name: value}).connect(Observation(X))
    with pytest.raises(InputError, match=f"GMMClassifier.*{name}"):
        refused.update()


def test_singular_covariances_are_refused_and_nothing_is_lost():
    fitted = unregularised().fit(X, Y)
    flat = np.column_stack([X[:, :2], np.ones(180)])
    text = "class ape.*not positive definite; raise reg_covar"
    assert_refused(fitted, lambda f: f.fit(flat, Y), text, TrainingError)


def test_what_cannot_be_learnt_in_a_graph_is_refused_and_nothing_is_lost():
    fitted = classifier(labels=Y[:5]).fit(X, Y)
    assert_refused(fitted, lambda f: f.learn([Data(X)], None), "y has 5 entries for 180 rows")
    fitted.set_params(labels=None)
    assert_refused(fitted, lambda f: f.check([Data(X)], 180), "labels=... is needed, the classes")


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda f: f.predict(X[:, :2]), "X has 2 features, but GMMClassifier is expecting 3"),
        (lambda f: f.density("cow"), r"no class 'cow'; they are \['ape', 'bee', 'cat'\]"),
        (lambda f: f.sample(1, "cow"), r"no class 'cow'; they are \['ape', 'bee', 'cat'\]"),
        (lambda f: f.sample(1, component=0), "component=0 of which class. Give a label"),
        (lambda f: f.sample(1, "ape", 9), "component=9 does not exist; they are 0 to "),
        (lambda f: f.sample(0), "n_samples must be an integer >= 1, got 0"),
        (
            lambda f: f.sample(1, random_state=-1),
            "random_state must be an integer >= 0 or a NumPy random generator, got -1",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(use, text):
    assert_refused(classifier().fit(X, Y), use, f"GMMClassifier.*{text}")


def test_nothing_can_be_asked_before_fitting():
    new = GMMClassifier(name="mine")
    asked = (new.predict, new.predict_proba, new.score_samples, new.outlier_score)
    for use in (*asked, lambda x: new.fit_thresholds(x, Y), lambda x: new.sample()):
        with pytest.raises(NotFittedError, match="GMMClassifier 'mine' is not fitted yet"):
            use(X)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        new.density()


def test_thresholds_on_rows_beyond_floating_point_are_refused():
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.repeat([0, 1], 20)
    fitted = GMMClassifier(1, random_state=0).fit(x, y)
    with pytest.raises(InputError, match=r"GMMClassifier: thresholds cannot.*\[0, 1\]"):
        fitted.fit_thresholds(np.full((2, 2), 1e200), [0, 1])
    assert not hasattr(fitted, "thresholds_")
