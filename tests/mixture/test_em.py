"""Fitting a mixture: EM's bound, Gibbs sampling, numbers of components, batches of a stream."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.datasets import make_blobs

from serkit import Graph, Observation
from serkit.density import COVARIANCE_TYPES
from serkit.errors import InputError, TrainingError
from serkit.messages import Categorical
from serkit.modules import GMM
from serkit.modules.mixture import em
from serkit.modules.mixture.components import Prior, m_step
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import (
    Statistics,
    e_step,
    gibbs_step,
    log_likelihoods,
    responsibilities_of,
)
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, matrices_of, some_density, some_prior, unsure

N, K, D = 40, 3, 2


def some_rows(with_variances=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) + rng.integers(3, size=(N, 1)) * 3.0
    return Rows(x, rng.gamma(2.0, 0.2, size=(N, D)) if with_variances else None)


def some_responsibilities(seed=2):
    return np.random.default_rng(seed).dirichlet(np.full(K, 0.7), N)


def problem(rows, covariance_type="full", prior=None, from_children=None, **limits):
    limits = {"reg_covar": 1e-6, "max_iter": 30, "tol": 0.0} | limits
    return em.Problem(rows, from_children, K, covariance_type, prior, **limits)


def solved(task):
    """By EM from responsibilities that are the same in every test."""
    start = em.start_from(task, some_responsibilities().__getitem__)
    return em.expectation_maximisation(task, start)


def worst_start(task):
    """All rows in one component, but for two that are alone."""
    classes = np.eye(K)[np.minimum(np.arange(N), K - 1)]
    return em.start_from(task, classes.__getitem__)


# -- fitting -----------------------------------------------------------------------------------


@all_types
@unsure
@pytest.mark.parametrize("with_prior", [False, True], ids=["ml", "map"])
@pytest.mark.parametrize("with_children", [False, True], ids=["", "children"])
def test_the_bound_never_falls(covariance_type, with_variances, with_prior, with_children):
    rows = some_rows(with_variances)
    task = problem(
        replace(rows, weight=np.random.default_rng(4).gamma(2.0, size=N)),
        covariance_type,
        some_prior() if with_prior else None,
        Categorical(np.log(some_responsibilities())) if with_children else None,
        reg_covar=0.0,
        max_iter=60,
    )
    start = em.start_from_means(task, rows.x[:K])
    gains = np.diff([score.bound for score in em.expectation_maximisation(task, start).curve])
    assert gains.min() > -1e-10  # rounding of sums over 40 rows
    assert gains.max() > 1e-3


@all_types
@pytest.mark.parametrize("with_children", [False, True], ids=["", "children"])
def test_starts_together_come_to_what_the_best_comes_to_alone(covariance_type, with_children):
    rows = some_rows()
    children = Categorical(np.log(some_responsibilities())) if with_children else None
    task = problem(rows, covariance_type, some_prior(), children, max_iter=9)  # none is given up
    starts = [em.start_from_means(task, rows.x[i : i + K]) for i in range(0, 12, K)]
    alone = [em.expectation_maximisation(task, start) for start in starts]
    best = max(alone, key=lambda solution: solution.log_likelihood)
    together = em.expectation_maximisation(task, *starts)
    # Products of other shapes round differently, by some 1e-15 a step.
    np.testing.assert_allclose(together.curve, best.curve, rtol=1e-10)
    np.testing.assert_allclose(together.density.means, best.density.means, rtol=1e-8)


def test_the_less_likely_half_is_given_up_twice_but_three_go_on(monkeypatch):
    rows = some_rows()
    task = problem(rows, "full", some_prior())
    starts = [em.start_from_means(task, rows.x[i : i + K]) for i in range(8)]
    numbers = []

    def count(rows, densities, from_children, **options):
        numbers.append(len(densities))
        return e_step(rows, densities, from_children, **options)

    monkeypatch.setattr(em, "e_step", count)
    em.expectation_maximisation(task, *starts)
    # of 31 E-steps, the starts' included; a half of a half of 8 would be 2, but three go on
    assert numbers == [8] * 11 + [4] * 10 + [3] * 10


def test_of_equal_solutions_the_earlier_start_is_first():
    """Whatever the last bits, which processors, devices and libraries make in their own ways."""
    density = some_density(k=K)
    values = [-1.0, -1.0 + 1e-15, -2.0, -1.0 - 1e-15, -0.5]
    solutions = [em.Solution(density, [em.Score(v, v)], converged=True) for v in values]
    order = [[*map(id, solutions)].index(id(solution)) for solution in em.best_first(solutions)]
    assert order == [4, 0, 1, 3, 2]


def test_a_start_that_has_converged_waits_for_the_others():
    rows = some_rows()
    task = problem(rows, "diag", tol=1e-6, max_iter=200)
    solution = solved(task)
    found = em.expectation_maximisation(task, solution.density, worst_start(task))
    assert found.converged
    assert len(found.curve) == 2  # a single step, which gained less than the tolerance
    assert found.log_likelihood == pytest.approx(solution.log_likelihood, abs=1e-6)


def test_tolerance_ends_the_iterations():
    task = problem(some_rows(), prior=some_prior(), max_iter=500, tol=1e-3)
    solution = solved(task)
    assert solution.converged
    assert len(solution.curve) < 500
    assert abs(solution.curve[-1].bound - solution.curve[-2].bound) < 1e-3
    assert not solved(replace(task, max_iter=2)).converged


@all_types
def test_align_numbers_components_as_before(covariance_type):
    task = problem(some_rows(), covariance_type, some_prior())
    solution, order = solved(task), np.array([1, 2, 0])
    shuffled = replace(solution, density=solution.density.permuted(order))
    r, reference = (responsibilities_of(task.rows, s.density, None) for s in (shuffled, solution))
    aligned, found = em.align(task, shuffled, r, reference)
    np.testing.assert_allclose(found, reference, rtol=1e-9)
    same, _ = em.align(task, solution, reference, reference)
    assert same is solution
    np.testing.assert_array_equal(aligned.density.means, solution.density.means)
    found = log_likelihoods(task.rows, shuffled.density)
    expected = log_likelihoods(task.rows, solution.density)[:, order]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@all_types
def test_gibbs_sampling_finds_separated_blobs(blobs, covariance_type):
    prior = Prior(blobs.x.mean(axis=0), 1.0, 6.0, 0.1 * np.eye(4), 1.0)
    task = problem(Rows(blobs.x), covariance_type, prior, max_iter=60)
    rng = np.random.default_rng(9)
    solution = em.gibbs_sampling(task, next(em.plus_plus_starts(task, 1, rng)), rng)
    classes = responsibilities_of(task.rows, solution.density, None).argmax(axis=1)
    assert oracles.best_accuracy(blobs.labels.tolist(), classes.tolist()) == 1.0
    assert len(solution.curve) == 61


@all_types
def test_gibbs_assignments_follow_the_posterior(covariance_type):
    """Statistics of whole assignments, whose mean over draws is that of responsibilities."""
    rows, density = some_rows(), some_density(covariance_type)
    from_children = Categorical(np.log(some_responsibilities()))
    draws = [
        gibbs_step(rows, density, from_children, np.random.default_rng(seed)) for seed in range(400)
    ]
    assert all((d.counts % 1 == 0).all() and d.counts.sum() == N for d in draws)
    joint = oracles.log_joint(rows.x, density.weights, density.means, matrices_of(density))
    expected = softmax(joint + from_children.log_prob, axis=1)
    assert oracles.within([d.counts for d in draws], expected.sum(axis=0)).all()
    x = rows.x - rows.x.mean(axis=0)
    assert oracles.within([d.first for d in draws], expected.T @ x).all()


# -- batches of a stream -----------------------------------------------------------------------


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
    """Statistics are averages per row, of weights that follow from the steps (t + 1)^-0.6."""
    module = GMM(K, random_state=0)
    parts, found = batches(x)[:3], []
    for batch in parts:
        before = module.density() if found else None
        module.partial_fit(batch)
        if before is not None:
            rows = Rows(batch, origin=module.stream_["centre"])
            found.append(e_step(rows, [before])[0].sums / len(batch))
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
    density, stream = fitted.density(), em.stream_of(fitted.density(), len(x))
    statistics = Statistics(len(x) * stream.sums, 0.0, stream.centre, covariance_type)
    found = m_step(statistics, None, 0.0)
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
        ({}, np.ones((5, 3)), None, "X has 3 features, but GMM is expecting 2"),
        ({}, np.full((5, 2), np.nan), None, "NaN or infinity in 5 of 5 rows"),
        ({}, np.ones((5, 2)), 0.0, "step_size must be a number > 0 and <= 1, got 0.0"),
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
