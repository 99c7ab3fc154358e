"""Rows that miss some of their columns: densities, EM, messages of mixtures, and graphs."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from serkit import Graph, Observation
from serkit.errors import InputError
from serkit.messages import Categorical, Data, Gaussian
from serkit.modules import GMM, GMMClassifier
from serkit.modules.mixture import em
from serkit.modules.mixture.rows import Rows, expected_moments, filled, stack
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, some_density, some_prior

N, D, K = 30, 3, 2


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, D)) + 2.0 * rng.integers(2, size=(N, 1))


@pytest.fixture
def observed():
    """Every row has something but the last."""
    mask = np.random.default_rng(1).random((N, D)) < 0.7
    mask[:, 0] |= ~mask.any(axis=1)
    mask[-1] = False
    return mask


@all_types
def test_log_density_is_that_of_the_columns_observed(x, observed, covariance_type):
    density = some_density(covariance_type, k=K, d=D)
    found = Rows(x, observed=observed).log_gaussians(density)
    covariances = density.full_covariances()
    for row, own, values in zip(x, observed, found, strict=True):
        for c in range(K if own.any() else 0):
            part = multivariate_normal(density.means[c][own], covariances[c][np.ix_(own, own)])
            assert values[c] == pytest.approx(part.logpdf(row[own]))
    np.testing.assert_array_equal(found[-1], 0)


@all_types
def test_marginal_equals_the_density_of_columns_by_quadrature(covariance_type):
    """Of two dimensions one is integrated out."""
    density = some_density(covariance_type, k=K, d=2)
    grid = np.linspace(-25, 25, 5001)
    for point in (-1.0, 0.5):
        joint = np.exp(density.log_prob(np.stack([grid, np.full_like(grid, point)], axis=1)))
        marginal = np.exp(density.marginal([1]).log_prob([[point]])[0])
        assert np.trapezoid(joint, grid) == pytest.approx(marginal, rel=1e-6)


@pytest.mark.parametrize("unsure", [False, True], ids=["exact", "unsure"])
def test_expected_moments_equal_sampling(x, observed, unsure):
    """Draw what is missing from scipy's conditional of the joint, by rejection-free algebra."""
    density, r = some_density("full", k=K, d=D), softmax(x[:, :K], axis=1)
    variances = np.where(observed, 0.3, 0.0) if unsure else None
    first, second = expected_moments(Rows(x, variances, observed), r, density)
    rng = np.random.default_rng(2)
    draws = 4000
    for c in range(K):
        mean, covariance = density.means[c], density.full_covariances()[c]
        samples = []
        for row, own in zip(x, observed, strict=True):
            base = np.tile(row, (draws, 1))
            if unsure:
                base = base + np.sqrt(0.3) * own * rng.normal(size=(draws, D))
            # Matheron's rule: a joint draw, corrected by the regression on what is observed
            joint = rng.multivariate_normal(mean, covariance, draws)
            if own.any():
                gain = np.linalg.solve(covariance[np.ix_(own, own)], covariance[own])
                joint = joint + (base[:, own] - joint[:, own]) @ gain
            samples.append(joint)
        samples = np.array(samples)  # (N, draws, D)
        totals = np.einsum("n,nsd->sd", r[:, c], samples)
        assert oracles.within(totals, first[c]).all()
        squares = np.einsum("n,nsd,nse->sde", r[:, c], samples, samples)
        assert oracles.within(squares, second[c]).all()


@pytest.mark.parametrize("with_prior", [False, True], ids=["ml", "map"])
@all_types
def test_the_bound_never_falls(x, observed, covariance_type, with_prior):
    prior = some_prior(D) if with_prior else None
    rows = Rows(x, observed=observed, weight=observed.any(axis=1) * 1.0)
    problem = em.Problem(rows, None, K, covariance_type, prior, 0.0, 40, 0.0)
    start = em.start_from(problem, softmax(x[:, :K], axis=1).__getitem__)
    curve = em.expectation_maximisation(problem, start).curve
    assert (np.diff([score.bound for score in curve]) > -1e-9).all()  # rounding


def two_parents(x, observed=None, name="gmm", **options):
    """A GMM on two observations, the second of which may miss rows."""
    first, second = Observation(x[:, :2]), Observation(x[:, 2:], observed=observed)
    return GMM(K, random_state=0, name=name, **options).connect(first, second)


def test_complete_rows_learn_as_before(x):
    plain, masked = (two_parents(x, s).update() for s in (None, np.ones(N, dtype=bool)))
    np.testing.assert_array_equal(plain.means_, masked.means_)


def test_what_stands_in_missing_rows_does_not_matter(x):
    observed = np.arange(N) % 3 > 0
    spoilt = np.where(observed[:, None], x, np.nan)
    spoilt[:, :2] = x[:, :2]
    one, other = two_parents(x, observed).update(), two_parents(spoilt, observed).update()
    np.testing.assert_array_equal(one.means_, other.means_)
    np.testing.assert_array_equal(one.responsibilities_, other.responsibilities_)


def test_a_lone_parents_missing_rows_are_left_out(x):
    """The same mixture as from the others alone; P(k | row) is uniform, or what children say."""
    observed = np.arange(N) % 3 > 0
    start = np.eye(K)[np.arange(N) % K]
    whole = GMM(K, responsibilities_init=start).connect(Observation(x, observed=observed)).update()
    part = GMM(K, responsibilities_init=start[observed]).connect(Observation(x[observed])).update()
    np.testing.assert_allclose(whole.means_, part.means_, rtol=1e-6)
    np.testing.assert_allclose(whole.covariances_, part.covariances_, rtol=1e-6)
    np.testing.assert_allclose(np.exp(whole.message_up.log_prob[~observed]), 1 / K)
    from_children = Categorical(np.log(np.tile([0.9, 0.1], (N, 1))), is_prior=True)
    (down,) = whole.infer([Data(x, observed=observed)], from_children).down
    np.testing.assert_allclose(np.exp(down.log_prob[~observed]), [[0.9, 0.1]] * (~observed).sum())


def test_objective_counts_missing_rows_as_nothing(x):
    observed = np.arange(N) % 3 > 0
    gmm = GMM(K, random_state=0).connect(Observation(x, observed=observed)).update()
    total = Graph(gmm).objective() * N
    assert total == pytest.approx(gmm.score_samples(x[observed]).sum())


def test_a_missing_modality_is_inferred_and_predicted(x):
    gmm = two_parents(x).update()
    found = Graph(gmm).predict(x[:, :2], None)
    alone = gmm.density().marginal([0, 1])
    np.testing.assert_allclose(found.probabilities, alone.responsibilities(x[:, :2]))
    mask = np.arange(N) % 2 == 0
    some = Graph(gmm).predict(x[:, :2], Data(x[:, 2:], observed=mask)).probabilities
    whole = Graph(gmm).predict(x[:, :2], x[:, 2:]).probabilities
    np.testing.assert_allclose(some[mask], whole[mask])
    np.testing.assert_allclose(some[~mask], found.probabilities[~mask])


def test_all_modalities_missing_is_an_error(x):
    with pytest.raises(InputError, match="every modality is missing"):
        Graph(two_parents(x).update()).predict(None, None)


def test_gibbs_sampling_needs_whole_rows(x):
    with pytest.raises(InputError, match=r"GMM 'gmm': some rows miss.*use inference='map'"):
        two_parents(x, np.arange(N) > 3, inference="gibbs").update()


def test_an_observation_needs_a_row_and_keeps_its_mask(x, tmp_path):
    with pytest.raises(InputError, match=f"observed is false in all {N} rows"):
        Observation(x, observed=np.zeros(N, dtype=bool))
    observed = np.arange(N) > 3
    gmm = two_parents(x, observed).update()
    Graph(gmm).save(tmp_path / "graph")
    rows = [x[:, :2], Data(x[:, 2:], observed=observed)]
    again = Graph.load(tmp_path / "graph", data=rows)["gmm"]
    np.testing.assert_array_equal(gmm.update().means_, again.update().means_)
    with pytest.raises(ValueError, match="saved with other rows"):
        Graph.load(tmp_path / "graph", data=[x[:, :2], x[:, 2:]])


def test_a_classifier_uses_what_is_observed(x):
    labels, observed = np.arange(N) % 2, np.arange(N) % 3 > 0
    first, second = Observation(x[:, :2]), Observation(x[:, 2:], observed=observed)
    classifier = GMMClassifier(1, labels=labels, random_state=0).connect(first, second).update()
    whole = GMMClassifier(1, random_state=0).fit(x[observed], labels[observed])
    np.testing.assert_allclose(classifier.means_, whole.means_)
    found = np.exp(classifier.message_up.log_prob)
    np.testing.assert_allclose(found[observed], whole.predict_proba(x[observed]))
    parts = [whole.density(c).marginal([0, 1]).log_prob(x[~observed, :2]) for c in whole.classes_]
    expected = oracles.bayes(np.stack(parts, axis=1), whole.priors_)
    np.testing.assert_allclose(found[~observed], expected)


def test_columns_of_missing_rows_are_marked_and_filled():
    mask = np.array([True, False])
    rows = stack([Data([[1.0], [2.0]]), Gaussian(np.ones((2, 2)), np.ones((2, 2)), observed=mask)])
    rows = filled(rows)
    np.testing.assert_array_equal(rows.observed, [[True, True, True], [True, False, False]])
    np.testing.assert_array_equal(rows.x, [[1, 1, 1], [2, 1, 1]])  # the column's mean
    np.testing.assert_array_equal(rows.variances, [[0, 1, 1], [0, 0, 0]])
