"""The GMM module where something is wrong: dead components, bad options, bad rows."""

import numpy as np
import oracles
import pytest
from test_gmm import K, all_inference, all_types, learnt

from serkit.errors import InputError, NotReadyError, SerkitError, TrainingError
from serkit.messages import Categorical
from serkit.modules import GMM


@all_inference
@all_types
def test_dead_components_stay_finite_and_are_reported(blobs, inference, covariance_type):
    start = np.eye(K + 1)[blobs.labels]
    gmm = GMM(
        K + 1,
        inference=inference,
        covariance_type=covariance_type,
        responsibilities_init=start,
        max_iter=1,
        name="mine",
        random_state=0,
    )
    with pytest.warns(UserWarning, match=r"GMM 'mine': components \[3\] lost all their rows"):
        gmm.fit(blobs.x)
    np.testing.assert_array_equal(gmm.empty_components_, [3])
    for name in ("weights_", "means_", "covariances_", "responsibilities_", "lower_bound_"):
        assert np.isfinite(getattr(gmm, name)).all()
    assert np.isfinite(gmm.score_samples(blobs.x)).all()
    np.testing.assert_allclose(gmm.means_[3], blobs.x.mean(axis=0), atol=0.1)  # or the prior's
    if inference == "ml" and covariance_type != "tied":
        matrix = oracles.as_matrices(gmm.covariances_, covariance_type, K + 1, 4)[3]
        assert np.trace(matrix) == pytest.approx(blobs.x.var(axis=0).sum(), rel=0.3)


@all_types
@all_inference
def test_constant_and_duplicated_features_are_taken(x, covariance_type, inference):
    x = np.column_stack([x, x[:, 0], np.full(len(x), 3.0)])
    gmm = GMM(K, inference=inference, covariance_type=covariance_type, random_state=0, max_iter=20)
    assert np.isfinite(gmm.fit(x).score_samples(x)).all()


@all_inference
def test_values_beyond_floating_point_are_an_error_and_nothing_is_lost(x, inference):
    gmm = GMM(K, inference=inference, random_state=0, max_iter=5).fit(x)
    means = gmm.means_.copy()
    huge = x * 1e200
    with np.errstate(all="ignore"), pytest.raises(SerkitError, match="GMM: "):
        gmm.fit(huge)
    np.testing.assert_array_equal(gmm.means_, means)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_singular_covariances_are_an_error_and_nothing_is_lost(x, covariance_type):
    x = np.column_stack([x, np.full(len(x), 3.0)])
    gmm = GMM(K, inference="ml", covariance_type=covariance_type, random_state=0)
    means = gmm.fit(x).means_.copy()
    gmm.reg_covar = 0.0
    with pytest.raises(TrainingError, match=r"not positive definite; raise reg_covar=0\.0"):
        gmm.fit(x)
    np.testing.assert_array_equal(gmm.means_, means)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_components": 0}, "n_components must be an integer >= 1, got 0"),
        ({"n_components": 2.0}, "n_components must be an integer >= 1, got 2.0"),
        ({"n_components": 121}, "n_components=121 is more than the 120 rows"),
        ({"n_init": 0}, "n_init must be an integer >= 1"),
        ({"max_iter": -1}, "max_iter must be an integer >= 1"),
        ({"tol": -1e-3}, "tol must be a number >= 0, got -0.001"),
        ({"reg_covar": np.nan}, "reg_covar must be a number >= 0, got nan"),
        ({"covariance_type": "round"}, "unknown covariance_type='round'; expected one of 'full'"),
        ({"inference": "vb"}, "unknown inference='vb'; expected one of 'map', 'ml', 'gibbs'"),
        ({"labels": [0, 1]}, "labels has 2 entries for 120 rows"),
        ({"labels": np.zeros((120, 1))}, r"labels .*\(120, 1\)"),
        ({"labels": [np.nan] * 120}, "labels "),
        ({"labels": [None] * 120}, "labels "),
        ({"labels": 3}, "labels .*3"),
        ({"sample_weight": np.ones(3)}, "sample_weight has 3 entries for 120 rows"),
        ({"sample_weight": -np.ones(120)}, "sample_weight must be 120 finite numbers >= 0"),
        ({"sample_weight": np.full(120, np.nan)}, "sample_weight must be 120 finite numbers >= 0"),
        ({"sample_weight": np.zeros(120)}, "every sample_weight is 0"),
        ({"means_init": np.zeros((2, 4))}, r"means_init of shape \(3, D\), got \(2, 4\)"),
        ({"means_init": np.full((3, 4), np.nan)}, "means_init must be finite numbers"),
        (
            {"responsibilities_init": np.ones((120, 2))},
            r"responsibilities_init of shape \(120, 3\)",
        ),
        ({"responsibilities_init": np.ones((120, 3))}, "responsibilities_init must add up to 1"),
        ({"responsibilities_init": np.ones((3, 3))}, "responsibilities_init has 3 entries"),
        ({"responsibilities_init": np.eye(3)[[0] * 120] * -1}, "without negative entries"),
        ({"mean_precision_prior": 0}, "mean_precision_prior must be a number > 0, got 0"),
        ({"mean_prior": [0.0]}, r"for D=4 dimensions expected mean_prior \(4,\).*got \(1,\)"),
        ({"covariance_prior": np.eye(3)}, r"covariance_prior a number or \(4, 4\).*\(3, 3\)"),
        ({"covariance_prior": -1.0}, "covariance_prior must be positive definite"),
        ({"covariance_prior": np.nan}, "covariance_prior "),
        ({"mean_prior": [np.nan] * 4}, "mean_prior "),
        ({"degrees_of_freedom_prior": np.nan}, "degrees_of_freedom_prior "),
        ({"weight_concentration_prior": 0.5}, "weight_concentration_prior must be a number >= 1"),
        ({"degrees_of_freedom_prior": 3}, "degrees_of_freedom_prior > 3"),
    ],
)
def test_bad_options_are_refused_before_anything_is_learnt(blobs, options, match):
    gmm = GMM(**{"n_components": K, "name": "mine", **options})
    with pytest.raises(InputError, match=f"GMM 'mine'.*{match}"):
        gmm.fit(blobs.x)
    assert not hasattr(gmm, "means_")


def test_bad_rows_are_refused(blobs):
    with pytest.raises(InputError, match=r"GMM\.fit: NaN or infinity in 1 of 120 rows \(rows 7\)"):
        GMM(K).fit(np.where(np.arange(120)[:, None] == 7, np.nan, blobs.x))
    with pytest.raises(InputError, match="n_components=3, but only 2 of the 60 rows are distinct"):
        GMM(K).fit(np.repeat([[0.0], [1.0]], 30, axis=0))
    gmm = GMM(K).fit(blobs.x)
    for use in (gmm.predict, gmm.predict_proba, gmm.score_samples, gmm.bic):
        with pytest.raises(InputError, match="fitted on 4 columns, got 3"):
            use(blobs.x[:, :3])


def test_children_with_other_classes_are_refused(blobs):
    with pytest.raises(InputError, match="sent probabilities of 5 classes for n_components=3"):
        learnt(GMM(K), blobs.x, Categorical.uniform(120, 5))


def test_nothing_can_be_asked_before_fitting(blobs):
    gmm = GMM(K, name="mine")
    for use in (gmm.predict, gmm.score_samples, gmm.bic, gmm.aic):
        with pytest.raises(NotReadyError, match="GMM 'mine' is not fitted yet"):
            use(blobs.x)
    with pytest.raises(NotReadyError, match="not fitted yet"):
        gmm.sample()
