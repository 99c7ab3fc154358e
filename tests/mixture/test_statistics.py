"""One pass over the rows: its sums by independent formulas, in tiles, blocks and tight places."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.mixture import GaussianMixture

from serkit.density import MixtureDensity
from serkit.messages import Categorical
from serkit.modules import GMM
from serkit.modules.mixture import statistics
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.statistics import (
    e_step,
    gibbs_step,
    kept_features,
    log_likelihoods,
    log_posterior,
    log_weights_of,
    mean_half_trace,
    statistics_of,
)
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, matrices_of, some_density, unsure

N, K, D = 40_000, 3, 4  # rows of several blocks
DIAGONAL = ("diag", "spherical")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)) + rng.integers(3, size=(N, 1)) * 3.0 + 7.0
    weight = np.random.default_rng(1).gamma(2.0, size=N)
    return Rows(x, rng.gamma(2.0, 0.2, size=x.shape), weight=weight)


@pytest.fixture(scope="module")
def from_children():
    return Categorical(np.log(np.random.default_rng(2).dirichlet(np.ones(K), N)))


def expected_joint(rows, density, from_children):
    """By scipy."""
    matrices = matrices_of(density)
    joint = oracles.log_joint(rows.x, density.weights, density.means, matrices)
    if rows.variances is not None:
        precisions = np.array([np.diag(np.linalg.inv(m)) for m in matrices])
        joint = joint - 0.5 * rows.variances @ precisions.T
    return joint if from_children is None else joint + from_children.log_prob + np.log(K)


def check_sums(found, rows, r, covariance_type):
    """Counts and moments about the centre under responsibilities r (N, K), by einsum."""
    x, r = rows.x - found.centre, r * rows.weight[:, None]
    np.testing.assert_allclose(found.counts, r.sum(axis=0))
    np.testing.assert_allclose(found.first, r.T @ x, rtol=1e-9, atol=1e-6)
    second = np.einsum("nk,nd,ne->kde", r, x, x)
    if rows.variances is not None:
        second += np.einsum("nk,nd->kd", r, rows.variances)[:, :, None] * np.eye(D)
    if covariance_type in DIAGONAL:
        second = np.diagonal(second, axis1=1, axis2=2)
    np.testing.assert_allclose(found.second, second, rtol=1e-9, atol=1e-6)


@all_types
@unsure
@pytest.mark.parametrize("with_children", [False, True], ids=["", "children"])
def test_expected_statistics(rows, from_children, covariance_type, with_variances, with_children):
    rows = rows if with_variances else replace(rows, variances=None)
    children = from_children if with_children else None
    density = some_density(covariance_type, k=K, d=D)
    found = e_step(rows, [density], children)[0]
    joint = expected_joint(rows, density, children)
    evidence = logsumexp(joint, axis=1)
    assert found.log_likelihood == pytest.approx(rows.weight @ evidence, rel=1e-10)
    check_sums(found, rows, softmax(joint, axis=1), covariance_type)
    likelihood = log_likelihoods(rows, density)
    log_prob, log_evidence = log_posterior(likelihood, log_weights_of(density), children)
    np.testing.assert_allclose(log_evidence, evidence, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(log_prob, joint - evidence[:, None], rtol=1e-8, atol=1e-8)


@all_types
def test_statistics_of_given_responsibilities(rows, from_children, covariance_type):
    r = np.exp(from_children.log_prob)
    found = statistics_of(rows, r.__getitem__, r.shape[1], covariance_type)
    check_sums(found, rows, r, covariance_type)


@all_types
@unsure
def test_kept_features_change_nothing(rows, monkeypatch, covariance_type, with_variances):
    rows = rows if with_variances else replace(rows, variances=None)
    density, features = (
        some_density(covariance_type, k=K, d=D),
        kept_features(rows, covariance_type),
    )
    [kept] = e_step(rows, [density], features=features)
    [made] = e_step(rows, [density])
    # The same numbers at other places of memory, which a product may add up in another order.
    np.testing.assert_allclose(kept.sums, made.sums, rtol=1e-12, atol=1e-9)
    monkeypatch.setattr(statistics, "_KEPT_VALUES", features.size - 1)
    assert kept_features(rows, covariance_type) is None  # too many


@all_types
def test_variances_that_do_not_count_lower_the_expected_log_density(rows, covariance_type):
    """E over N(x, diag(s^2)) of log N(x; mu, Sigma), under responsibilities of the means alone."""
    density = some_density(covariance_type, k=K, d=D)
    certain = log_likelihoods(replace(rows, variances=None), density)
    log_prob, _ = log_posterior(certain, log_weights_of(density))
    loss = certain - log_likelihoods(rows, density)  # which takes the expectation
    expected = (np.exp(log_prob) * loss).sum(axis=1).mean()
    assert mean_half_trace(rows, density, log_prob) == pytest.approx(expected)


def test_statistics_of_parts_add_up(rows):
    """About one origin: a third of the rows and the others."""
    density, whole = some_density("full", k=K, d=D), replace(rows, variances=None)
    expected = e_step(whole, [density])[0]
    first, second = (
        e_step(Rows(rows.x[part], weight=rows.weight[part], origin=expected.centre), [density])[0]
        for part in (slice(0, N // 3), slice(N // 3, N))
    )
    np.testing.assert_allclose(first.sums + second.sums, expected.sums, rtol=1e-9, atol=1e-6)
    log_likelihood = first.log_likelihood + second.log_likelihood
    assert log_likelihood == pytest.approx(expected.log_likelihood)


@pytest.mark.parametrize(
    "step",
    [
        lambda *problem: e_step(*problem)[0],
        lambda rows, densities: gibbs_step(rows, densities[0], None, np.random.default_rng(0)),
    ],
    ids=["E", "Gibbs"],
)
def test_the_number_of_threads_makes_no_difference(rows, step):
    density, before, found = some_density("full", k=K, d=D), torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(step(rows, [density]))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(other.sums, found[0].sums)
        assert other.log_likelihood == found[0].log_likelihood


@all_types
@pytest.mark.parametrize("width", [1e-3, 1e-7, 1e-11])
def test_narrow_components_far_apart(covariance_type, width):
    """Where the squares of the rows leave no digits for a component's width, whitening does."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [3.0, 1.0]])
    labels = rng.integers(2, size=500)
    x = means[labels] + width * rng.normal(size=(500, 2))
    covariances = oracles.as_type(np.stack([np.eye(2) * width**2] * 2), np.ones(2), covariance_type)
    density = MixtureDensity(np.array([0.5, 0.5]), means, covariances, covariance_type)
    found = e_step(Rows(x), [density])[0]
    z = (x - means[labels]) / width
    log_density = -0.5 * (z**2).sum(axis=1) - np.log(2 * np.pi) - 2 * np.log(width) + np.log(0.5)
    assert found.log_likelihood == pytest.approx(log_density.sum(), rel=1e-6)


def test_many_rows_start_from_rows_that_count():
    x = np.random.default_rng(0).normal(size=(70_000, 2))
    weight = np.zeros(len(x))
    weight[[5, 60_000]] = 1.0
    module = GMM(2, sample_weight=weight, n_init=1, max_iter=1, random_state=0).fit(x)
    shares = module.responsibilities_[[5, 60_000]].argmax(axis=1)
    assert sorted(shares) == [0, 1]


def test_float32_rows_are_not_copied_as_a_whole():
    x = np.random.default_rng(0).normal(size=(400_000, 8)).astype(np.float32)
    rows = Rows(x)
    density = some_density("full", k=2, d=8)
    tracemalloc.start()
    try:
        e_step(rows, [density])[0]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 2
    np.testing.assert_allclose(
        e_step(rows, [density])[0].sums,
        e_step(Rows(x.astype(np.float64)), [density])[0].sums,
        rtol=1e-9,
    )


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_em_takes_the_same_steps_as_scikit_learn(rows, covariance_type):
    """From the same start, maximum likelihood: parameters and likelihood after 10 iterations."""
    x = rows.x[:5000]
    nearest = np.eye(K)[((x[:, None] - x[:K]) ** 2).sum(axis=2).argmin(axis=1)]
    ours = GMM(
        K,
        covariance_type=covariance_type,
        inference="ml",
        responsibilities_init=nearest,
        max_iter=10,
        tol=0,
    ).fit(x)
    counts = nearest.sum(axis=0)
    scatters = [np.cov(x[own].T, bias=True) + 1e-6 * np.eye(D) for own in nearest.T.astype(bool)]
    covariances = oracles.as_type(np.stack(scatters), counts, covariance_type)
    matrices = covariance_type in ("full", "tied")
    peer = GaussianMixture(
        K,
        covariance_type=covariance_type,
        weights_init=counts / len(x),
        means_init=(nearest.T @ x) / counts[:, None],
        precisions_init=np.linalg.inv(covariances) if matrices else 1 / covariances,
        max_iter=10,
        tol=0,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        peer.fit(x)
    np.testing.assert_allclose(ours.means_, peer.means_, rtol=1e-9)
    np.testing.assert_allclose(ours.covariances_, peer.covariances_, rtol=1e-8, atol=1e-10)
    assert ours.log_likelihood_[-1] == pytest.approx(peer.score(x), rel=1e-10)
