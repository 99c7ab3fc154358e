"""Latent Dirichlet allocation on arrays: against enumeration, slow loops and scikit-learn."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln
from scipy.stats import dirichlet_multinomial
from sklearn.decomposition import LatentDirichletAllocation

from serkit.modules.topics import lda
from serkit.modules.topics.lda import Problem, cvb0, fold_in, gibbs_sampling, plus_plus_starts
from tests.helpers import oracles

SIZES = (3, 2)
MESSAGE = np.array([[1.0, 0.2], [1.0, 1.0], [0.5, 1.0]])
HEARD = np.array([1.0, 0.0, 1.0])  # the second row's says nothing


def problem(counts, sizes=None, k=2, from_children=None, n_heard=None, **options):
    counts = sparse.csr_array(np.asarray(counts, dtype=np.float64))
    from_children = np.ones((counts.shape[0], k)) if from_children is None else from_children
    settings = {"alpha": 0.7, "beta": 0.4, "max_iter": 2000, "tol": 0.0} | options
    heard = (from_children < 1).any(axis=1).astype(float) if n_heard is None else n_heard
    return Problem(counts, sizes or (counts.shape[1],), from_children, heard, **settings)


def tiny(**options):
    """Three rows of two modalities, seven tokens; the last row misses the second modality."""
    return problem(
        [[2, 0, 0, 1, 0], [0, 1, 0, 0, 1], [0, 1, 1, 0, 0]], SIZES, from_children=MESSAGE, **options
    )


def drawn(n=400, k=4, words=60, tokens=80, alpha=0.1, seed=0, topics=None):
    """Counts (n, words) by the model itself, and the topics (k, words) they were drawn from."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(words, 0.1), k) if topics is None else topics
    theta = rng.dirichlet(np.full(k, alpha), n)
    return rng.multinomial(tokens, theta @ topics), topics


def some_topics(k, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.dirichlet(np.ones(size), k) for size in sizes], axis=1)


def best(given, n_init=5):
    starts = plus_plus_starts(given, n_init, np.random.default_rng(0))
    return max((cvb0(given, start) for start in starts), key=lambda s: s.log_likelihood[-1])


# -- against references ------------------------------------------------------------------------


def expectations(given, topics=None):
    """E[theta] and E[N_wk] over all topics of all tokens and of what is heard, by enumeration.

    The topics' words are (K, W), or as probable as their prior says.
    """
    dense, k = given.counts.toarray().astype(int), given.n_components
    tokens = [(n, w) for n, row in enumerate(dense) for w, c in enumerate(row) for _ in range(c)]
    stops = np.cumsum(given.sizes)
    total, by_row, by_word = 0.0, 0.0, 0.0
    heard = [n for n, count in enumerate(given.n_heard) for _ in range(int(count))]
    for z in product(range(k), repeat=len(tokens) + len(heard)):
        rows, words, log_p = np.zeros((len(dense), k)), np.zeros((dense.shape[1], k)), 0.0
        for (n, w), topic in zip(tokens, z[: len(tokens)], strict=True):
            rows[n, topic] += 1
            words[w, topic] += 1
        for n, topic in zip(heard, z[len(tokens) :], strict=True):
            rows[n, topic] += 1
            log_p += np.log(given.from_children[n, topic])
        log_p += gammaln(rows + given.alpha).sum()
        if topics is not None:
            log_p += (words * np.log(topics.T)).sum()
        for size, stop in zip(given.sizes, stops, strict=True) if topics is None else ():
            part = words[stop - size : stop] + given.beta
            log_p += gammaln(part).sum() - gammaln(part.sum(axis=0)).sum()
        p = np.exp(log_p)
        total, by_row, by_word = total + p, by_row + p * rows, by_word + p * words
    concentrations = by_row / total + given.alpha
    return concentrations / concentrations.sum(axis=1, keepdims=True), by_word / total


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_gibbs_sampling_finds_the_posterior_of_all_assignments(weight):
    given = tiny(max_iter=300, n_heard=weight * HEARD)
    chains = [
        gibbs_sampling(given, some_topics(2, SIZES, seed), np.random.default_rng(seed))
        for seed in range(12)
    ]
    theta, by_word = expectations(given)
    assert oracles.within([c.proportions for c in chains], theta).all()
    # the ratio of means over half a chain has a bias of the order of its variance, 1 / 150
    close = np.mean([c.topics for c in chains], axis=0)
    np.testing.assert_allclose(close, given.topics(by_word), atol=0.02)


@pytest.mark.parametrize("weight", [2.0, 3.0])
def test_cvb0_is_near_the_posterior_of_all_assignments(weight):
    # of all topics' numberings, which messages of less weight leave about equally probable
    given = tiny(tol=1e-9, n_heard=weight * HEARD)
    theta, _ = expectations(given)
    # the approximation's own error, with two or three tokens per row
    np.testing.assert_allclose(best(given).proportions, theta, atol=0.1)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0, 3.0])
def test_folding_in_is_near_the_posterior_of_all_assignments(weight):
    given, topics = tiny(n_heard=weight * HEARD), some_topics(2, SIZES)
    theta, _ = expectations(given, topics)
    found = given.proportions(fold_in(given, topics)[0])
    np.testing.assert_allclose(found, theta, atol=0.03)  # as above: the approximation's own error


def test_theta_after_one_observation_is_exact():
    rng = np.random.default_rng(0)
    dirichlet, message = rng.random((5, 3)) * 4, rng.random((5, 3))
    found = dirichlet + lda.heard_counts(dirichlet, message, np.ones(5))
    found /= found.sum(axis=1, keepdims=True)
    for a, m, theta in zip(dirichlet, message, found, strict=True):
        after = a + np.eye(3)  # the Dirichlet after a class each, (class, topic)
        expected = (m * a) @ (after / after.sum(axis=1, keepdims=True)) / (m @ a)
        np.testing.assert_allclose(theta, expected)


@pytest.mark.parametrize("weight", [0.5, 1.0, 4.0])
def test_a_sure_message_adds_its_class_and_a_uniform_one_nothing(weight):
    dirichlet = np.random.default_rng(0).random((2, 3)) * 4
    message, n_heard = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]), np.full(2, weight)
    sure, uniform = lda.heard_counts(dirichlet, message, n_heard)
    np.testing.assert_allclose(sure, [0, weight, 0])
    np.testing.assert_allclose(uniform, weight * dirichlet[1] / dirichlet[1].sum())


def slow_cvb0(given, gammas, topics=None):
    """Entry by entry from probabilities {(row, word): (K,)} until none changes by 1e-9.

    Returns N_nk, N_wk and the log-likelihood per token.
    """
    dense, change = given.counts.toarray(), 1.0
    owner = np.repeat(np.arange(len(given.sizes)), given.sizes)
    while change > 1e-9:
        rows = np.zeros((len(dense), given.n_components))
        words = np.zeros((dense.shape[1], given.n_components))
        for (n, w), gamma in gammas.items():
            rows[n] += dense[n, w] * gamma
            words[w] += dense[n, w] * gamma
        new, total = {}, 0.0
        for (n, w), gamma in gammas.items():
            out = min(dense[n, w], 1) * gamma
            prior, m = rows[n] - out + given.alpha, given.from_children[n]
            prior = prior * (prior @ m + m) if given.n_heard[n] else prior  # one observation more
            own = words[owner == owner[w]].sum(axis=0) - out + given.sizes[owner[w]] * given.beta
            word = (words[w] - out + given.beta) / own if topics is None else topics[:, w]
            new[n, w] = prior * word / (prior * word).sum()
            total += dense[n, w] * np.log((prior * word).sum() / prior.sum())
        change = max(np.abs(new[entry] - gammas[entry]).max() for entry in new)
        gammas = new
    return rows, words, total / dense.sum()


@pytest.mark.parametrize("scale", [1.0, 0.3, 2.5])
def test_cvb0_ends_where_the_slow_updates_end(scale):
    given = tiny()
    given = replace(given, counts=given.counts * scale)
    start = some_topics(2, SIZES)
    entries = zip(*given.counts.nonzero(), strict=True)
    gammas = {(n, w): start[:, w] / start[:, w].sum() for n, w in entries}
    rows, words, likelihood = slow_cvb0(given, gammas)
    found = cvb0(replace(given, tol=1e-14), start)
    close = {"rtol": 0, "atol": 1e-5}  # gains of 1e-14 are squares of steps of 1e-7, which add up
    np.testing.assert_allclose(found.proportions, given.proportions(rows), **close)
    np.testing.assert_allclose(found.topics, given.topics(words), **close)
    np.testing.assert_allclose(found.log_likelihood[-1], likelihood, **close)


def test_folding_in_ends_where_the_slow_updates_end(monkeypatch):
    monkeypatch.setattr(lda, "FOLD_IN_TOL", 1e-12)
    given, topics = tiny(), some_topics(2, SIZES)
    entries = zip(*given.counts.nonzero(), strict=True)
    rows, _, likelihood = slow_cvb0(given, {e: np.full(2, 0.5) for e in entries}, topics)
    row_counts, log_likelihood = fold_in(given, topics, 1000)
    close = {"rtol": 0, "atol": 1e-7}  # both stop at steps of 1e-9 or less
    np.testing.assert_allclose(row_counts, rows, **close)
    np.testing.assert_allclose(log_likelihood / given.n_tokens, likelihood, **close)


def test_folding_in_a_single_token_is_exact():
    topics, message = some_topics(2, (4,)), np.random.default_rng(1).random((4, 2))
    given = problem(np.eye(4), from_children=message)
    row_counts, log_likelihood = fold_in(given, topics)
    prior = given.alpha + message / message.sum(axis=1, keepdims=True)
    joint = prior * topics.T
    np.testing.assert_allclose(row_counts, joint / joint.sum(axis=1, keepdims=True))
    assert log_likelihood == pytest.approx(np.log(joint.sum(axis=1) / prior.sum(axis=1)).sum())


def completion(given, topics, held_out):
    """Perplexity of held-out tokens of the same rows, theta from the others."""
    theta = given.proportions(fold_in(given, topics)[0])
    return np.exp(-(held_out * np.log(theta @ topics)).sum() / held_out.sum())


def test_held_out_perplexity_is_that_of_sklearn():
    x, truth = drawn(n=500)
    train, test = x[:300], x[300:]
    half = np.random.default_rng(1).binomial(test, 0.5)
    settings = {"k": 4, "alpha": 0.25, "beta": 0.25}
    peer = LatentDirichletAllocation(4, max_iter=20, random_state=0).fit(train)
    theirs = peer.components_ / peer.components_.sum(axis=1, keepdims=True)
    ours = best(problem(train, tol=1e-4, **settings)).topics
    score = [completion(problem(half, **settings), t, test - half) for t in (ours, theirs, truth)]
    assert score[0] < 1.01 * score[1]
    assert score[0] < 1.05 * score[2]


def test_topics_are_recovered():
    x, truth = drawn()
    found = best(problem(x, k=4, alpha=0.1, beta=0.1, tol=1e-4)).topics
    distance = 0.5 * np.abs(truth[:, None] - found).sum(axis=2)  # total variation
    rows, columns = linear_sum_assignment(distance)
    assert distance[rows, columns].max() < 0.1


# -- invariants --------------------------------------------------------------------------------


def test_a_constant_message_changes_nothing():
    x, topics = drawn(n=50)
    one = cvb0(problem(x, k=4, tol=1e-4), topics)
    other = cvb0(problem(x, k=4, tol=1e-4, from_children=np.full((50, 4), 0.25)), topics)
    np.testing.assert_allclose(one.proportions, other.proportions, rtol=1e-9)  # rounding


def test_a_message_pulls_every_row():
    x, topics = drawn(n=50)
    message = np.tile([1.0, 1e-3, 1e-3, 1e-3], (50, 1))
    given = problem(x, k=4)
    pulled = replace(given, from_children=message, n_heard=np.ones(50))
    own = given.proportions(fold_in(given, topics)[0])
    theta = pulled.proportions(fold_in(pulled, topics)[0])
    assert (theta[:, 0] > own[:, 0]).all()


def test_an_impossible_class_only_adds_to_the_other_topics():
    x, topics = drawn(n=50)
    message = np.tile([0.0, 1.0, 1.0, 1.0], (50, 1))
    given = problem(x, k=4, from_children=message)
    silent = replace(given, n_heard=np.zeros(50))
    heard, own = (g.proportions(fold_in(g, topics)[0]) for g in (given, silent))
    assert (heard[:, 0] < own[:, 0]).all()
    assert (heard[:, 0] > 0).all()  # other tokens of the row may have the topic still


def test_a_message_counts_once_however_many_tokens_a_row_has():
    # of two words, each as probable in one topic as in the other, nothing is learnt but the message
    topics, message = np.full((2, 2), 0.5), np.tile([1.0, 0.25], (3, 1))
    given = problem([[1, 1], [10, 10], [100, 100]], from_children=message)
    for row in given.proportions(fold_in(given, topics, 5000)[0]):
        # by symmetry N_k = N / 2 to begin with, where the message decides one observation's topic
        assert 0.5 < row[0] < (given.alpha + 1) / (2 * given.alpha + 1)


# -- what goes down to mixtures --------------------------------------------------------------------


@pytest.mark.parametrize("n_tokens", [1, 7, 60])
def test_a_class_of_several_tokens_is_drawn_from_polyas_urn(n_tokens):
    """All tokens are of one word: scipy's Dirichlet-multinomial, of topics with a class each."""
    dirichlet = np.random.default_rng(0).gamma(2.0, 5.0, size=(6, 3))
    found = np.exp(lda.log_prob_of_classes(dirichlet, np.eye(3), n_tokens))
    all_one = n_tokens * np.eye(3, dtype=int)
    expected = np.array(
        [[dirichlet_multinomial.pmf(x, a, n_tokens) for x in all_one] for a in dirichlet]
    )
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)


def test_a_class_of_one_token_has_its_expected_probability():
    rng = np.random.default_rng(0)
    dirichlet, phi = rng.gamma(2.0, 5.0, size=(6, 3)), rng.dirichlet(np.ones(4), size=3)
    theta = dirichlet / dirichlet.sum(axis=1, keepdims=True)
    found = np.exp(lda.log_prob_of_classes(dirichlet, phi, 1))
    np.testing.assert_allclose(found, theta @ phi, rtol=1e-9)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_order_of_rows_and_words_does_not_matter(axis):
    x, topics = drawn(n=50)
    order = np.random.default_rng(1).permutation(x.shape[axis])
    one = cvb0(problem(x, k=4, max_iter=30), topics)
    start = topics[:, order] if axis else topics
    other = cvb0(problem(x.take(order, axis), k=4, max_iter=30), start)
    expected = one.topics[:, order] if axis else one.topics
    np.testing.assert_allclose(other.topics, expected, rtol=1e-9)  # sums in another order


def test_small_blocks_lead_to_the_same_topics(monkeypatch):
    x, topics = drawn(n=100)
    one = cvb0(problem(x, k=4, max_iter=200), topics)
    monkeypatch.setattr(lda, "BLOCK_NUMBERS", 500)
    given = problem(x, k=4, max_iter=200)
    assert len(list(lda.blocks_of(given))) > 5
    other = cvb0(given, topics)
    # other ways to the same optimum, which 200 iterations come closer to than this
    np.testing.assert_allclose(other.topics, one.topics, atol=1e-6)


def test_probabilities_add_up_to_one_in_each_modality():
    given = tiny(max_iter=20)
    rng = np.random.default_rng(0)
    for found in (best(given), gibbs_sampling(given, some_topics(2, SIZES), rng)):
        np.testing.assert_allclose(found.topics[:, :3].sum(axis=1), 1)
        np.testing.assert_allclose(found.topics[:, 3:].sum(axis=1), 1)
        np.testing.assert_allclose(found.proportions.sum(axis=1), 1)


def test_rows_without_tokens_keep_what_children_say():
    x, topics = drawn(n=50)
    x[7] = 0
    message = np.tile([0.4, 0.3, 0.2, 0.1], (50, 1))
    given = problem(x, k=4, from_children=message, max_iter=50)
    (start,) = plus_plus_starts(given, 1, np.random.default_rng(0))
    expected = (given.alpha + message[7]) / (4 * given.alpha + 1)  # one observation
    np.testing.assert_allclose(cvb0(given, start).proportions[7], expected)
    rng = np.random.default_rng(0)
    chains = [gibbs_sampling(given, topics, rng).proportions[7] for _ in range(12)]
    assert oracles.within(chains, expected).all()


def test_starts_have_the_numbers_of_the_classes_the_children_speak_of():
    x, topics = drawn(alpha=0.02)
    classes = (x @ np.log(topics).T).argmax(axis=1)
    given = problem(x, k=4, from_children=np.where(np.eye(4)[classes] > 0, 1.0, 0.2))
    starts = [lda.start_of_message(given), *plus_plus_starts(given, 3, np.random.default_rng(0))]
    for start in starts:
        np.testing.assert_array_equal((start @ topics.T).argmax(axis=1), np.arange(4))


def test_rows_are_not_grouped_by_what_they_miss():
    x, topics = drawn(n=300, k=3, words=40, alpha=0.02)
    both = np.concatenate([x, x], axis=1)
    both[::3, :40] = 0
    both[1::3, 40:] = 0
    truth = topics.argmax(axis=0)  # of words
    labels = np.array([np.bincount(truth, row, 3).argmax() for row in x])
    for start in plus_plus_starts(problem(both, (40, 40), k=3), 4, np.random.default_rng(0)):
        found = cvb0(problem(both, (40, 40), k=3, alpha=0.1, beta=0.1, tol=1e-4), start)
        hits = oracles.best_accuracy(labels.tolist(), found.proportions.argmax(axis=1).tolist())
        assert hits > 0.9


def test_one_to_one_is_the_best_of_all_permutations():
    rng = np.random.default_rng(3)
    phi, weights = rng.dirichlet(np.ones(5), 5), rng.dirichlet(np.ones(5))
    kept = {p: sum(weights[k] * phi[k, c] for k, c in enumerate(p)) for p in permutations(range(5))}
    expected = np.eye(5)[list(max(kept, key=kept.get))]
    np.testing.assert_array_equal(lda.one_to_one(phi, weights), expected)


def test_a_sure_modality_does_not_decide_all_starts():
    labels = np.arange(90) % 3
    rng = np.random.default_rng(0)
    words = rng.multinomial(60, np.eye(3).repeat(4, axis=1)[labels] / 8 + 0.5 / 12)
    wrong = 60 * np.eye(3)[rng.integers(3, size=90)]  # classes that know nothing of the words
    given = problem(np.hstack([wrong, words]), (3, 12), k=3)

    def agreement(start):
        """Of topics' words with the classes': the mean of each class's best topic."""
        own = np.array([start[:, 3 + 4 * k : 7 + 4 * k].sum(axis=1) for k in range(3)])
        return own.max(axis=1).mean()

    both = [agreement(s) for s in plus_plus_starts(given, 4, np.random.default_rng(0))]
    alone = [agreement(s) for s in plus_plus_starts(given, 4, np.random.default_rng(0), [1])]
    assert both[0] == alone[0]
    assert min(alone[1], alone[3]) > max(both)
