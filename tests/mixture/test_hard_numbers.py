"""The mixture on numbers that are hard: far from 0, in odd units, few, beyond floating point."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from serkit import Observation
from serkit.errors import InputError
from serkit.modules import GMM, MarkovModel
from tests.helpers.mixtures import all_types

# -- precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1e10, 1.7e12])
@pytest.mark.parametrize("inference", ["map", "ml", "gibbs"])
@all_types
def test_clusters_far_from_the_origin_are_found(covariance_type, inference, offset):
    """As scikit-learn finds them in centred rows."""
    x, labels = make_blobs(90, 3, centers=3, cluster_std=0.5, random_state=0)
    reference = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit_predict(x)
    options = {"covariance_type": covariance_type, "inference": inference, "n_init": 2}
    gmm = GMM(3, **options, n_split_merge=1, max_iter=20, tol=1e-2, random_state=0)
    found = gmm.fit(x + offset).predict(x + offset)
    assert adjusted_rand_score(reference, found) == adjusted_rand_score(labels, found) == 1


def test_rows_that_miss_columns_are_clustered_far_from_the_origin_as_near_it():
    x, _ = make_blobs(90, 3, centers=3, cluster_std=0.5, random_state=0)
    clusters = []
    for offset in (0.0, 1e10):
        first = Observation(x[:, :2] + offset, observed=np.arange(90) % 5 > 0, name="first")
        second = Observation(x[:, 2:] - offset, name="second")
        gmm = GMM(3, random_state=0).connect(first, second).update()
        clusters.append(gmm.posterior.clusters)
    assert adjusted_rand_score(*clusters) == 1


def test_a_constant_column_far_from_the_origin_is_none_that_varies():
    x = np.column_stack([np.arange(40.0) % 2 * 5, np.full(40, 1.7e12 + 0.1)])
    gmm = GMM(2, random_state=0).fit(x)
    np.testing.assert_array_equal(gmm.predict(x) == gmm.predict(x[:1]), np.arange(40) % 2 == 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: 1_700_000_000 + np.r_[0:10, 60:70][:, None],
        lambda: np.repeat([[20_000_000], [20_000_001]], 10, axis=0),
        lambda: np.r_[0.0:10.0, 60.0:70.0][:, None].astype(">f8") + 1e9,
    ],
    ids=["times", "identities", "big-endian"],
)
def test_integers_that_float32_merges_are_clustered(make):
    gmm = GMM(2, random_state=0).connect(Observation(make())).update()
    alone = GMM(2, random_state=0).fit(make()).predict(make())
    assert adjusted_rand_score(np.arange(20) >= 10, gmm.posterior.clusters) == 1
    assert adjusted_rand_score(np.arange(20) >= 10, alone) == 1


@all_types
def test_the_default_prior_keeps_components_of_rows_without_clusters(covariance_type):
    """As scikit-learn's, which has none."""
    for seed in range(3):
        x = np.random.RandomState(seed).randn(50, 5)
        gmm = GMM(2, covariance_type=covariance_type, random_state=0).fit(x)
        assert gmm.weights_.min() * 50 > 1


def test_a_diagonal_component_without_rows_has_a_tenth_of_the_variances():
    x = np.random.default_rng(0).normal(size=(400, 3)) * [1e-3, 1.0, 1e4]
    responsibilities = np.repeat(np.eye(3)[[0, 1]], 200, axis=0)
    options = {"responsibilities_init": responsibilities, "max_iter": 1, "tol": 1e9}
    options["covariance_type"] = "diag"
    with pytest.warns(UserWarning, match=r"components \[2\] lost all their rows"):
        gmm = GMM(3, **options).fit(x)
    np.testing.assert_allclose(gmm.covariances_[2], x.var(axis=0) / 10)


@pytest.mark.parametrize("value", [1e160, 1e300])
@pytest.mark.parametrize("ask", ["score_samples", "predict", "predict_proba"])
def test_rows_beyond_floating_point_are_named(ask, value):
    gmm = GMM(2, random_state=0).fit(np.random.default_rng(0).normal(size=(30, 2)))
    with pytest.raises(InputError, match=r"GMM: 1 of 2 rows \(rows 1\) are so far from every"):
        getattr(gmm, ask)([[0.0, 0.0], [value, 0.0]])


# -- warnings --------------------------------------------------------------------------------------


def test_em_that_stops_at_max_iter_says_so():
    x = np.random.default_rng(0).normal(size=(60, 2))
    gmm = GMM(3, max_iter=1, tol=0, random_state=0, name="groups")
    for _ in range(2):  # each time
        with pytest.warns(ConvergenceWarning, match=r"GMM 'groups' stopped at max_iter=1, before"):
            gmm.fit(x)


def test_a_graph_hears_once_that_em_stops_at_max_iter():
    x = np.random.default_rng(0).normal(size=(60, 2))
    gmm = GMM(3, max_iter=1, tol=0, random_state=0).connect(Observation(x))
    with pytest.warns(ConvergenceWarning, match="or update it again"):
        gmm.update()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gmm.update().update()


def test_a_told_single_step_is_no_early_stop():
    x, _ = make_blobs(60, 2, centers=2, random_state=0)
    gmm = GMM(2, random_state=0).connect(Observation(x))
    markov = MarkovModel(max_iter=100).connect(gmm)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        for module in (gmm, markov, gmm, markov):
            module.update()
    assert len(gmm.log_likelihood_) == 2


@pytest.mark.parametrize(
    ("covariance_type", "few"),
    [
        ("full", [[0.0, 0.0], [0.1, 0.1], [0.2, 0.1]]),
        ("diag", [[0.0, 3.0], [0.0, 2.9], [0.0, 3.3], [0.0, 3.1]]),
    ],
    ids=["few rows", "no width"],
)
def test_components_that_maximum_likelihood_shrinks_are_named(covariance_type, few):
    x = np.concatenate([few, np.random.default_rng(0).normal(8, 1, (40, 2))])
    options = {"covariance_type": covariance_type, "random_state": 0}
    with pytest.warns(
        UserWarning, match=r"components \[\d\] rest on very few rows, or are no wider"
    ):
        gmm = GMM(2, inference="ml", **options).fit(x)
    assert gmm.degenerate_components_.tolist() == [gmm.weights_.argmin()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(GMM(2, **options).fit(x).degenerate_components_) == 0  # with a prior


def test_columns_that_reg_covar_swallows_are_told_of():
    x, _ = make_blobs(90, 2, centers=3, cluster_std=0.5, random_state=0)
    x = np.column_stack([x, np.ones(90)])  # a constant column is nothing to tell of
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GMM(3, inference="ml", random_state=0).fit(x)
    with pytest.warns(UserWarning, match=r"components \[0, 1, 2\] .* than reg_covar=1e-06"):
        GMM(3, inference="ml", random_state=0).fit(x * 1e-4)
