"""Components from statistics: the M-step, the prior, and draws from the posterior."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from serkit.modules.mixture.components import drawn_density, log_prior, m_step
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import statistics_of
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, matrices_of, some_density, some_prior, unsure

N, K, D = 40, 3, 2


def some_rows(with_variances=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) + rng.integers(3, size=(N, 1)) * 3.0
    return Rows(x, rng.gamma(2.0, 0.2, size=(N, D)) if with_variances else None)


def hyper(prior):
    """As the oracles take it."""
    return prior.mean, prior.kappa, prior.nu, prior.scale, prior.concentration


def some_responsibilities(seed=2):
    return np.random.default_rng(seed).dirichlet(np.full(K, 0.7), N)


def of_responsibilities(rows, resp, covariance_type):
    return statistics_of(rows, resp.__getitem__, resp.shape[1], covariance_type)


# -- the MAP update ----------------------------------------------------------------------------


@all_types
@unsure
def test_map_update_equals_the_formula(covariance_type, with_variances):
    rows, prior, resp = some_rows(with_variances), some_prior(), some_responsibilities()
    found = m_step(of_responsibilities(rows, resp, covariance_type), prior, 0.0)
    variances = rows.variances if with_variances else np.zeros_like(rows.x)
    expected = oracles.map_update(rows.x, variances, resp, covariance_type, *hyper(prior))
    for mine, theirs in zip((found.weights, found.means, found.covariances), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10)


def moved(parameters, direction, step):
    """A mixture moved a step within their covariance type, positive definite and normalised."""
    weights = softmax(np.log(parameters.weights) + step * direction[0])
    means = parameters.means + step * direction[1]
    c = parameters.covariances
    if parameters.covariance_type in ("diag", "spherical"):
        c = c * np.exp(step * direction[2].reshape(-1)[: c.size].reshape(c.shape))
    else:
        lower = np.linalg.cholesky(c)
        root = np.eye(D) + step * direction[2][: len(c)].reshape(-1, D, D)
        root = root if c.ndim == 3 else root[0]
        c = lower @ root @ np.swapaxes(lower @ root, -1, -2)
    return replace(parameters, weights=weights, means=means, covariances=c)


@all_types
@unsure
@pytest.mark.parametrize("with_prior", [False, True], ids=["ml", "map"])
def test_update_is_a_maximum(covariance_type, with_variances, with_prior):
    """Of the expected log-likelihood plus log prior, both by scipy, in 20 random directions."""
    rows, resp = some_rows(with_variances), some_responsibilities()
    prior = some_prior() if with_prior else None
    best = m_step(of_responsibilities(rows, resp, covariance_type), prior, 0.0)

    def objective(parameters):
        matrices = matrices_of(parameters)
        joint = oracles.log_joint(rows.x, parameters.weights, parameters.means, matrices)
        if with_variances:
            precisions = np.array([np.diag(np.linalg.inv(m)) for m in matrices])
            joint = joint - 0.5 * rows.variances @ precisions.T
        total = (resp * joint).sum()
        if prior is None:
            return total
        return total + oracles.log_prior(parameters, *hyper(prior))

    rng = np.random.default_rng(5)
    top, h = objective(best), 1e-4
    for _ in range(20):
        direction = rng.normal(size=K), rng.normal(size=(K, D)), rng.normal(size=(K, D, D))
        up, down = (objective(moved(best, direction, s)) for s in (h, -h))
        assert max(up, down) < top
        slope, curvature = (up - down) / (2 * h), (up + down - 2 * top) / h**2
        assert abs(slope) < 1e-4 * abs(curvature)


@all_types
def test_log_prior_equals_scipy_up_to_a_constant(covariance_type):
    prior = some_prior()
    gaps = []
    for seed in range(4):
        parameters = some_density(covariance_type, seed)
        expected = oracles.log_prior(parameters, *hyper(prior))
        gaps.append(log_prior(parameters, prior) - expected)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-9)
    assert log_prior(some_density(covariance_type), None) == 0.0


# -- posterior draws ---------------------------------------------------------------------------


@all_types
def test_gibbs_draws_have_the_posterior_mean(covariance_type):
    rng = np.random.default_rng(7)
    counts = np.array([6, 9, 25])
    resp = np.repeat(np.eye(K), counts, axis=0)
    rows, prior = some_rows(), some_prior()
    statistics = of_responsibilities(rows, resp, covariance_type)
    draws = [drawn_density(statistics, prior, rng) for _ in range(600)]
    _, means, _ = oracles.map_update(rows.x, 0 * rows.x, resp, "full", *hyper(prior))
    assert oracles.within([d.means for d in draws], means).all()
    assert oracles.within([d.weights for d in draws], (counts + 3) / (N + 3 * K)).all()
    groups = np.split(rows.x, np.cumsum(counts)[:-1])
    expected = oracles.posterior_mean_covariances(groups, covariance_type, *hyper(prior)[:4])
    assert oracles.within([d.covariances for d in draws], expected).all()


@all_types
def test_gibbs_means_spread_by_their_covariance(covariance_type):
    """mu | Sigma ~ N(m_k, Sigma / (kappa + N_k)), so whitened means have identity covariance."""
    rng = np.random.default_rng(8)
    rows, prior, resp = some_rows(), some_prior(), np.eye(K)[np.arange(N) % K]
    statistics = of_responsibilities(rows, resp, covariance_type)
    draws = [drawn_density(statistics, prior, rng) for _ in range(600)]
    centre = m_step(statistics, prior, 0.0).means
    squares = []
    for drawn in draws:
        offsets = drawn.means - centre
        total = prior.kappa + resp.sum(axis=0)
        squares.append(
            [
                t * o @ np.linalg.solve(m, o)
                for t, o, m in zip(total, offsets, matrices_of(drawn), strict=True)
            ]
        )
    assert oracles.within(squares, D).all()
