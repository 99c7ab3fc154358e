"""A mixture learnt from batches of a stream."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from serkit import Graph, Observation
from serkit.density import COVARIANCE_TYPES
from serkit.errors import InputError, TrainingError
from serkit.modules import GMM
from serkit.modules.mixture.components import maximise
from serkit.modules.mixture.em import stream_of
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import Statistics, expect

K = 3


@pytest.fixture(scope="module")
def x():
    rows, _ = make_blobs(6000, 2, centers=[[0, 0], [5, 0], [0, 6]], cluster_std=1.5, random_state=0)
    return rows.astype(np.float32)


def batches(x, size=300):
    return np.split(x, len(x) // size)


def learnt(x, **options):
    module = GMM(K, random_state=0, **options)
    for batch in batches(x):
        module.partial_fit(batch)
    return module


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("inference", ["map", "ml"])
def test_a_stream_is_learnt_nearly_as_well_as_all_rows_at_once(x, covariance_type, inference):
    options = {"covariance_type": covariance_type, "inference": inference}
    streamed = learnt(x, **options).score_samples(x).mean()
    whole = GMM(K, tol=1e-6, random_state=0, **options).fit(x).score_samples(x).mean()
    first = GMM(K, random_state=0, **options).fit(batches(x)[0]).score_samples(x).mean()
    assert whole - 0.01 < streamed <= whole + 1e-4
    assert first < streamed


def test_a_whole_step_is_a_step_of_em(x):
    """With step_size=1 only the last batch counts; maximum likelihood, by NumPy."""
    module = learnt(x, inference="ml", reg_covar=0.0)
    r, rows = module.predict_proba(x[:500]), x[:500].astype(np.float64)
    module.partial_fit(x[:500], step_size=1.0)
    means = (r.T @ rows) / r.sum(axis=0)[:, None]
    np.testing.assert_allclose(module.means_, means)
    np.testing.assert_allclose(module.weights_, r.mean(axis=0))
    expected = [np.cov(rows.T, aweights=r[:, k], bias=True) for k in range(K)]
    np.testing.assert_allclose(module.covariances_, expected, rtol=1e-8)


def test_shares_of_the_batches(x):
    """Statistics are averages a row, of weights that follow from the steps (t + 1)^-0.6."""
    module = GMM(K, random_state=0)
    parts, found = batches(x)[:3], []
    for batch in parts:
        before = module.density() if found else None
        module.partial_fit(batch)
        if before is not None:
            rows = Rows(batch, origin=module.stream_["centre"])
            found.append(expect(rows, np.ones(len(batch)), before, None).sums / len(batch))
        else:
            found.append(module.stream_["sums"])
    second, third = 3**-0.6, 4**-0.6
    shares = np.array([(1 - second) * (1 - third), second * (1 - third), third])
    np.testing.assert_allclose(module.stream_["sums"], np.tensordot(shares, found, 1))
    assert module.stream_["weight"] == 900
    assert module.stream_["n_batches"] == 3


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_fitted_mixture_is_its_own_first_batch(x, covariance_type):
    """The statistics it stands for have it as their M-step."""
    fitted = GMM(K, covariance_type=covariance_type, inference="ml", random_state=0).fit(x)
    density, stream = fitted.density(), stream_of(fitted.density(), len(x))
    sums, diagonal = len(x) * stream.sums, covariance_type in ("diag", "spherical")
    statistics = Statistics(sums, 0.0, len(x), stream.centre, diagonal)
    found = maximise(statistics, covariance_type, None, 0.0)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(found, name), getattr(density, name), rtol=1e-6)


def test_a_small_step_after_a_fit_changes_little(x):
    module = GMM(K, random_state=0).fit(x)
    before = module.means_
    module.partial_fit(np.full((2, 2), 20.0), step_size=0.001)
    assert np.abs(module.means_ - before).max() < 0.3


def test_a_constant_step_follows_a_drift(x):
    moved = x + np.float32([20, 0])
    fading, constant = learnt(x), learnt(x)
    for batch in batches(moved):
        fading.partial_fit(batch)
        constant.partial_fit(batch, step_size=0.5)
    assert constant.score_samples(moved).mean() > fading.score_samples(moved).mean()


def test_goes_on_from_a_mixture_fitted_before(x):
    module = GMM(K, random_state=0).fit(x)
    before = module.means_
    module.partial_fit(x[:3000])
    assert np.abs(module.means_ - before).max() < 0.2  # the same clusters, no new start
    assert module.stream_["n_batches"] == 2
    module.fit(x)
    assert not hasattr(module, "stream_")


def test_every_batch_is_an_update(x):
    module = learnt(x[:900])
    assert len(module.history_) == 3
    assert module.history_[-1]["log_likelihood"] == module.log_likelihood_[-1]
    assert len(module.log_likelihood_) == len(module.lower_bound_)
    assert module.responsibilities_.shape == (300, K)


def test_saved_and_loaded_it_goes_on_to_the_same_bits(x, tmp_path):
    observation = Observation(x)
    module = learnt(x[:900]).connect(observation)
    Graph(module).save(tmp_path / "graph.safetensors")
    loaded = Graph.load(tmp_path / "graph.safetensors")["gmm"]
    for one in (module, loaded):
        one.partial_fit(x[900:1200])
    np.testing.assert_array_equal(module.means_, loaded.means_)
    np.testing.assert_array_equal(module.covariances_, loaded.covariances_)


@pytest.mark.parametrize(
    ("options", "batch", "step_size", "message"),
    [
        ({}, np.ones((5, 3)), None, r"partial_fit: expected rows \(n, 2\), got \(5, 3\)"),
        ({}, np.full((5, 2), np.nan), None, "NaN or infinity in 5 of 5 rows"),
        ({}, np.ones((5, 2)), 0.0, r"step_size must be in \(0, 1\], got 0.0"),
        ({}, np.full((5, 2), 1e200), None, "too large to square"),
        ({"labels": [0] * 5}, np.ones((5, 2)), None, "labels belong to fixed rows"),
        ({"sample_weight": [1] * 5}, np.ones((5, 2)), None, "sample_weight belong to fixed rows"),
        ({"inference": "gibbs"}, np.ones((5, 2)), None, "partial_fit needs inference='map' or"),
    ],
)
def test_bad_batches_change_nothing(x, options, batch, step_size, message):
    module = learnt(x[:900]).set_params(**options)
    before = module.means_.copy(), module.stream_["sums"].copy(), len(module.history_)
    with pytest.raises(InputError, match=message):
        module.partial_fit(batch, step_size=step_size)
    np.testing.assert_array_equal(module.means_, before[0])
    np.testing.assert_array_equal(module.stream_["sums"], before[1])
    assert len(module.history_) == before[2]


def test_a_singular_batch_changes_nothing(x):
    module = learnt(x[:900], inference="ml", reg_covar=0.0)
    before, stream = module.get_state(), module.stream_["sums"].copy()
    with pytest.raises(TrainingError, match=r"not positive definite; raise reg_covar=0\.0"):
        module.partial_fit(np.ones((50, 2)), step_size=1.0)
    np.testing.assert_array_equal(module.means_, before["means_"])
    np.testing.assert_array_equal(module.stream_["sums"], stream)
    assert len(module.history_) == 3


def test_starts_of_the_first_batch_are_checked(x):
    with pytest.raises(InputError, match=r"expected means_init of shape \(3, D\), got \(2, 2\)"):
        GMM(3, means_init=np.zeros((2, 2))).partial_fit(x[:300])
