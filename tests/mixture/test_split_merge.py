"""Split-and-merge EM: what leads out of a poor optimum, and what each step gains or loses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import entropy

from serkit.density import MixtureDensity
from serkit.messages import Categorical
from serkit.modules.mixture import em, split_merge
from serkit.modules.mixture.rows import Rows
from serkit.modules.mixture.split_merge import Beliefs, Exchange, split_and_merge
from tests.helpers import oracles
from tests.helpers.mixtures import all_types, matrices_of, some_density, some_prior, unsure

CENTRES = np.array([[-10.0, 0.0], [4.0, 0.0], [10.0, 0.0]])
MISPLACED = np.array([[-10.5, 0.0], [-9.5, 0.0], [7.0, 0.0]])  # two in one blob, one over two
D = 2


def blobs():
    """Rows (300, 2) of three blobs of variance 1, and their classes."""
    classes = np.repeat(np.arange(3), 100)
    return CENTRES[classes] + np.random.default_rng(0).normal(size=(300, D)), classes


def problem(rows, covariance_type="full", prior=None, from_children=None, n_components=3):
    limits = {"reg_covar": 1e-3, "max_iter": 100, "tol": 1e-4}
    return em.Problem(rows, from_children, n_components, covariance_type, prior, **limits)


def stuck(task):
    return em.expectation_maximisation(task, em.start_from_means(task, MISPLACED))


def tried(task, solution, n_tries=12, seed=0):
    return split_and_merge(task, solution, n_tries, np.random.default_rng(seed))[1]


def log_joint(rows, density):
    """By scipy, with the rows' variances, (N, K)."""
    matrices = matrices_of(density)
    joint = oracles.log_joint(rows.x, density.weights, density.means, matrices)
    if rows.variances is None:
        return joint
    precisions = np.array([np.diag(np.linalg.inv(m)) for m in matrices])
    return joint - 0.5 * rows.variances @ precisions.T


def log_likelihood(rows, density):
    return rows.weights @ logsumexp(log_joint(rows, density), axis=1)


def overlapping(with_variances=False, n_rows=150):
    """Weighted rows (n, 2) without clear clusters."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n_rows, D)) + rng.integers(3, size=(n_rows, 1)) * 2.0
    variances = rng.gamma(2.0, 0.2, size=x.shape) if with_variances else None
    return Rows(x, variances, weight=rng.gamma(2.0, size=n_rows))


# -- what it finds -----------------------------------------------------------------------------


@all_types
@pytest.mark.parametrize("prior", [None, some_prior()], ids=["ml", "map"])
def test_three_blobs_are_found_where_em_stays_with_two_means_in_one(covariance_type, prior):
    x, classes = blobs()
    task = problem(Rows(x), covariance_type, prior)
    before = stuck(task)
    assert before.converged
    assert before.density.means[:, 0].max() < 8  # one over two blobs
    after = tried(task, before, n_tries=1)  # there is but one exchange for the better: the first
    order = after.density.means[:, 0].argsort()
    # four standard errors of a blob's mean, 1 / sqrt(100); the prior pulls by less than 0.2
    np.testing.assert_allclose(after.density.means[order], CENTRES, atol=0.6)
    assert after.log_likelihood > before.log_likelihood + task.tol
    found = Beliefs.of(task.rows, after.density).responsibilities.argmax(axis=1)
    assert oracles.best_accuracy(classes.tolist(), found.tolist()) > 0.99


@all_types
def test_of_rows_that_count_differently_unsure_or_miss_a_column(covariance_type):
    x, _ = blobs()
    rng = np.random.default_rng(3)
    variances, weight = np.full(x.shape, 0.2), rng.gamma(2.0, size=len(x))
    observed = np.ones(x.shape, dtype=bool)
    observed[::7, 1] = False
    for rows in (
        Rows(x, variances),
        Rows(x, weight=weight),
        Rows(np.where(observed, x, 0), variances, observed, weight),
    ):
        task = problem(rows, covariance_type, some_prior())
        means = np.sort(tried(task, stuck(task)).density.means[:, 0])
        np.testing.assert_allclose(means, CENTRES[:, 0], atol=0.6)


@all_types
@unsure
@pytest.mark.parametrize("seed", range(2))
def test_the_log_likelihood_never_falls(covariance_type, with_variances, seed):
    task = problem(overlapping(with_variances), covariance_type, some_prior(), n_components=4)
    (start,) = em.plus_plus_starts(task, 1, np.random.default_rng(seed))
    before = em.expectation_maximisation(task, start)
    after = tried(task, before, 5, seed)
    assert after is before or after.log_likelihood > before.log_likelihood + task.tol
    found = log_likelihood(task.rows, after.density) / task.total_weight
    assert found == pytest.approx(after.log_likelihood, rel=1e-9)


def test_the_same_seed_gives_the_same_bits():
    task = problem(overlapping(), n_components=4)
    (start,) = em.plus_plus_starts(task, 1, np.random.default_rng(0))
    before = em.expectation_maximisation(task, start)
    one, other = tried(task, before, seed=1), tried(task, before, seed=1)
    np.testing.assert_array_equal(one.density.means, other.density.means)
    assert one.curve == other.curve


def test_components_that_are_not_exchanged_keep_their_numbers():
    x, _ = blobs()
    far = np.array([0.0, 30.0])
    x = np.concatenate([x, far + np.random.default_rng(1).normal(size=(100, D))])
    means = np.insert(MISPLACED, 1, far, axis=0)
    task = problem(Rows(x), n_components=4)
    before = em.expectation_maximisation(task, em.start_from_means(task, means))
    after = tried(task, before, n_tries=1)
    assert after is not before
    np.testing.assert_allclose(after.density.means[1], before.density.means[1], atol=1e-3)
    np.testing.assert_allclose(after.density.means[0], CENTRES[0], atol=0.6)  # the union is i


# -- when there is nothing to try --------------------------------------------------------------


def test_the_solution_stays_without_tries_triples_or_silence():
    x, _ = blobs()
    task = problem(Rows(x))
    before = stuck(task)
    assert tried(task, before, n_tries=0) is before
    two = problem(Rows(x), n_components=2)  # no third component to split
    solution = em.expectation_maximisation(two, em.start_from_means(two, CENTRES[:2]))
    assert tried(two, solution) is solution
    evidence = replace(task, from_children=Categorical.uniform(len(x), 3))
    assert tried(evidence, before) is before


def test_no_more_tries_than_asked_for(monkeypatch):
    x, _ = blobs()
    task = problem(Rows(x))
    best, starts = tried(task, stuck(task)), []

    def count(problem, density):
        starts.append(problem.n_components)
        return em.expectation_maximisation(problem, density)

    monkeypatch.setattr(split_merge, "expectation_maximisation", count)
    assert tried(task, best, n_tries=2) is best
    assert starts.count(3) == 2
    starts.clear()
    assert tried(task, best, n_tries=50) is best
    assert starts.count(3) == 3  # pairs of three components, each with one left to split


@pytest.mark.parametrize("n_components", [2, 3], ids=["split", "exchange"])
def test_a_try_that_fails_spoils_nothing(n_components, monkeypatch):
    x, _ = blobs()
    task = problem(Rows(x))
    before, failed = stuck(task), []

    def fail(problem, density):
        if problem.n_components == n_components:
            failed.append(density)
            raise np.linalg.LinAlgError("a variance is not positive")
        return em.expectation_maximisation(problem, density)

    monkeypatch.setattr(split_merge, "expectation_maximisation", fail)
    assert tried(task, before) is before
    assert len(failed) == 3


@all_types
def test_components_without_rows_are_merged_and_never_split(covariance_type):
    x, _ = blobs()
    task = problem(Rows(x), covariance_type, some_prior())
    means = np.array([[-10.0, 0.0], [300.0, 300.0], [7.0, 0.0]])
    density = some_density(covariance_type)
    weights = np.array([1 / 3, 1e-18, 2 / 3])
    density = replace(density, weights=weights, means=means)
    beliefs = Beliefs.of(task.rows, density)
    assert split_merge.split(task, beliefs, 1, np.random.default_rng(0)) is None
    before = em.Solution(density, [em.Score(-99.0, -99.0)], True)
    after = tried(task, before, n_tries=1)
    np.testing.assert_allclose(np.sort(after.density.means[:, 0]), CENTRES[:, 0], atol=0.6)


# -- what steps gain and lose ------------------------------------------------------------------


@all_types
@unsure
def test_what_a_merger_loses(covariance_type, with_variances):
    """By the log-likelihoods of the mixtures before and after."""
    rows, density = overlapping(with_variances), some_density(covariance_type)
    union = split_merge.merged(density, (0, 2))
    loss = split_merge.loss_of_merger(Beliefs.of(rows, density), (0, 2), union)
    after = MixtureDensity(
        [union.weights[0], density.weights[1]],
        np.stack([union.means[0], density.means[1]]),
        np.stack([matrices_of(union)[0], matrices_of(density)[1]]),
    )
    expected = log_likelihood(rows, density) - log_likelihood(rows, after)
    assert loss == pytest.approx(expected, rel=1e-9)


@all_types
def test_a_union_has_the_moments_of_both(covariance_type):
    """Of many draws, to five standard errors."""
    density = some_density(covariance_type)
    two = MixtureDensity(
        density.weights[:2] / density.weights[:2].sum(),
        density.means[:2],
        matrices_of(density)[:2],
    )
    x, _ = two.sample(200_000, random_state=0)
    union = split_merge.merged(density, (0, 1))
    assert union.weights == pytest.approx(density.weights[:2].sum())
    errors = 5 * x.std(axis=0) / np.sqrt(len(x))
    assert (np.abs(union.means[0] - x.mean(axis=0)) < errors).all()
    if covariance_type == "tied":
        np.testing.assert_array_equal(union.covariances, density.covariances)
    else:
        expected = oracles.as_type(np.cov(x.T)[None], np.ones(1), covariance_type)
        np.testing.assert_allclose(union.covariances, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@unsure
def test_what_a_split_gains_at_least(covariance_type, with_variances):
    """Of the mixture's log-likelihood before and after."""
    rows, density = overlapping(with_variances), some_density(covariance_type, spread=2.0)
    task, beliefs = problem(rows, covariance_type), Beliefs.of(rows, density)
    for k in range(3):
        found = split_merge.split(task, beliefs, k, np.random.default_rng(k))
        others = [i for i in range(3) if i != k]
        after = MixtureDensity(
            np.append(density.weights[others], density.weights[k] * found.halves.weights),
            np.concatenate([density.means[others], found.halves.means]),
            np.concatenate([density.covariances[others], found.halves.covariances]),
            covariance_type,
        )
        gain = log_likelihood(rows, after) - log_likelihood(rows, density)
        assert found.gain <= gain + 1e-3 * task.total_weight  # of rows with r below 1e-3
        assert found.gain > 0


def test_the_most_promising_exchange_comes_first():
    x, _ = blobs()
    task = problem(Rows(x))
    before = stuck(task).density
    found = list(split_merge.candidates(task, before, [], np.random.default_rng(0)))
    assert [candidate.lost for candidate in found] == [0, 0, 0]
    first, *others = [candidate.start for candidate in found]
    assert len(others) == 2
    assert all(
        log_likelihood(task.rows, first) > log_likelihood(task.rows, other) for other in others
    )


# -- with a prior from children ----------------------------------------------------------------


def prior(classes, certainty=0.99, n_classes=3):
    """A message that gives each row's class this probability."""
    others = (1 - certainty) / (n_classes - 1)
    return Categorical(
        np.log(np.where(np.eye(n_classes)[classes] > 0, certainty, others)), is_prior=True
    )


def told_stuck(told, x):
    """EM's solution from two means in the first blob, told what components rows are of."""
    task = problem(Rows(x), from_children=told)
    return task, stuck(task)


def test_classes_that_children_and_rows_tell_apart_otherwise_become_one():
    """The children are sure who is 0 and who is 1 of one blob's rows, which the rows deny."""
    x, classes = blobs()
    heard = np.where(classes == 0, np.random.default_rng(1).integers(2, size=300), 2)
    task, before = told_stuck(prior(heard), x)
    told, after, exchanges = split_and_merge(task, before, 3, np.random.default_rng(0))
    assert [exchange.triple for exchange in exchanges] == [(0, 1, 2)]
    order = after.density.means[:, 0].argsort()
    np.testing.assert_allclose(after.density.means[order], CENTRES, atol=0.6)
    assert after.density.means[0, 0] == after.density.means[order[0], 0]  # the union is i
    expected = exchanges[0].translated(task.from_children).log_prob
    np.testing.assert_array_equal(told.from_children.log_prob, expected)


def test_what_children_know_is_not_given_up_for_a_better_fit_of_the_rows():
    """Two classes that only the children can tell apart, and a third that has two blobs.

    The third in two gains about 74 nats; that the first are two tells nearly 200 log 2 of them.
    """
    rng, classes = np.random.default_rng(0), np.repeat(np.arange(3), 100)
    x = rng.normal(size=(300, D))
    x[200:], x[250:, 0] = x[200:] + 40, x[250:, 0] + 48
    for certainty, expected in ((0.99, []), (0.34, [(0, 1, 2)])):
        task = problem(Rows(x), from_children=prior(classes, certainty))
        start = em.start_from(task, np.eye(3)[classes].__getitem__)
        solution = em.expectation_maximisation(task, start)
        *_, exchanges = split_and_merge(task, solution, 3, rng)
        assert [exchange.triple for exchange in exchanges] == expected


def test_no_component_is_exchanged_twice_before_children_have_heard():
    x, classes = blobs()
    heard = np.where(classes == 0, np.random.default_rng(1).integers(2, size=300), 2)
    task, before = told_stuck(prior(heard), x)
    rng, made = np.random.default_rng(0), [Exchange(0, 1, 2, 0.5)]
    assert list(split_merge.candidates(task, before.density, made, rng)) == []
    assert len(list(split_merge.candidates(task, before.density, [], rng))) > 0


def test_an_exchange_moves_probabilities_and_makes_none():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), size=20)
    p[0] = [1, 0, 0, 0]
    with np.errstate(divide="ignore"):
        told = Categorical(np.log(p), is_prior=True)
        found = Exchange(1, 3, 0, 0.25).translated(told)
    shares = np.array([[0.75, 0, 0, 0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]])
    np.testing.assert_allclose(np.exp(found.log_prob), p @ shares, atol=1e-15)
    assert found.is_prior
    np.testing.assert_array_equal(told.log_prob[1:], np.log(p[1:]))  # as it was


def information(p, weights):
    """Mutual information of row and class, times the rows' weight, by entropies."""
    mean = weights @ p / weights.sum()
    return weights.sum() * entropy(mean) - weights @ entropy(p, axis=1)


def test_lost_information_is_that_of_three_classes_less_that_of_two():
    rows, rng = overlapping(), np.random.default_rng(3)
    p = rng.dirichlet([0.3, 0.5, 1.0], size=150)
    told = Categorical(np.log(p), is_prior=True)
    together = np.column_stack([p[:, 0] + p[:, 2], p[:, 1]])
    expected = information(p, rows.weights) - information(together, rows.weights)
    assert split_merge.lost_information(rows, told, (0, 2)) == pytest.approx(expected)
    assert expected > 1
    assert split_merge.lost_information(rows, None, (0, 2)) == 0
    same = Categorical(np.tile(np.log([0.2, 0.3, 0.5]), (150, 1)), is_prior=True)
    assert split_merge.lost_information(rows, same, (0, 2)) == pytest.approx(0, abs=1e-9)


def test_a_class_that_only_rows_without_weight_have_is_no_information():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.1, 0.9]])
    rows = Rows(np.zeros((3, D)), weight=np.array([1.0, 2.0, 0.0]))
    with np.errstate(divide="ignore"):
        told = Categorical(np.log(p), is_prior=True)
    expected = information(p[:2], rows.weights[:2])  # the pair (0, 1) together is all there is
    assert split_merge.lost_information(rows, told, (0, 1)) == pytest.approx(expected)
    assert split_merge.lost_information(rows, told, (1, 2)) == 0


def test_a_gain_below_what_is_lost_is_none():
    task = problem(Rows(np.zeros((10, D))))  # tol 1e-4 a row
    density = some_density("full")
    solution = em.Solution(density, [em.Score(-1.0, -1.0)], True)
    for gain, lost, expected in ((0.5, 4.9, True), (0.5, 5.1, False), (5e-5, 0.0, False)):
        other = em.Solution(density, [em.Score(-1.0 + gain, -1.0)], True)
        assert split_merge._is_better(task, other, solution, lost) == expected


def test_of_two_components_there_is_no_third_to_split():
    task = problem(Rows(blobs()[0]), n_components=2)
    solution = em.expectation_maximisation(task, em.start_from_means(task, CENTRES[:2]))
    rng = np.random.default_rng(0)
    assert list(split_merge.candidates(task, solution.density, [], rng)) == []
    assert rng.integers(100) == np.random.default_rng(0).integers(100)  # nor is any drawn


def test_triples_of_earlier_exchanges_are_not_tried():
    x, _ = blobs()
    task = problem(Rows(x))
    before, every = stuck(task), [(0, 1, 2), (0, 2, 1), (1, 2, 0)]
    found = split_and_merge(task, before, 5, np.random.default_rng(0), every)
    assert found == (task, before, [])


def test_nothing_is_known_of_rows_that_children_miss():
    rows, rng = overlapping(), np.random.default_rng(3)
    p, observed = rng.dirichlet([0.3, 0.5, 1.0], size=150), np.arange(150) % 3 > 0
    told = Categorical(np.log(p), is_prior=True, observed=observed)
    some = replace(rows, weight=rows.weights * observed)
    of_some = split_merge.lost_information(some, Categorical(np.log(p), is_prior=True), (0, 1))
    assert split_merge.lost_information(rows, told, (0, 1)) == pytest.approx(of_some)


@all_types
def test_what_a_merger_loses_where_children_speak(covariance_type):
    """By each row's log-likelihood before and after, with its own prior."""
    rows, density = overlapping(), some_density(covariance_type)
    p = np.random.default_rng(4).dirichlet(np.ones(3), size=150)
    told = Categorical(np.log(p), is_prior=True)
    beliefs = Beliefs.of(rows, density, told)
    union = split_merge.merged(density, (0, 2))
    log_likelihood = log_joint(rows, density) - np.log(density.weights)
    of_union = log_joint(rows, union)[:, 0] - np.log(union.weights)
    before = rows.weights @ logsumexp(log_likelihood, b=p, axis=1)
    both = np.column_stack([of_union, log_likelihood[:, 1]])
    after = rows.weights @ logsumexp(both, b=np.column_stack([p[:, 0] + p[:, 2], p[:, 1]]), axis=1)
    loss = split_merge.loss_of_merger(beliefs, (0, 2), union)
    assert loss == pytest.approx(before - after, rel=1e-9)
