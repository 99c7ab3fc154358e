"""Split-and-merge of a chain's states: what it estimates, what it takes, and who follows it."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multinomial

from serkit import Graph, Observation
from serkit.datasets import make_counts
from serkit.messages import Categorical, product
from serkit.metrics import accuracy
from serkit.modules import GMM, MLDA, MarkovModel
from serkit.modules.sequence import split_merge
from serkit.modules.sequence.chains import Chain, ChainPrior, forward_backward
from serkit.modules.sequence.split_merge import Problem, Regrouping, split_and_merge
from tests.helpers.chains import CYCLE, K, rows_of, stuck_graph
from tests.helpers.modules import Sender
from tests.helpers.saved import assert_same

STARTS = np.arange(len(CYCLE)) == 0
STUCK_CLASSES = np.where(CYCLE == 2, 0, CYCLE)
STUCK_CLASSES[np.flatnonzero(CYCLE == 1)[::2]] = 2
FLAT = ChainPrior(np.array(1.0), np.array(1.0))


def probabilities(n_rows, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(K), n_rows)


def test_a_mixture_stuck_between_two_classes_gets_out_by_its_order_alone():
    stuck = stuck_graph(n_split_merge=0).fit(6, verbose=False)
    free = stuck_graph().fit(6, verbose=False)
    scores = [graph["markov"].scores()["accuracy"] for graph in (stuck, free)]
    assert scores[0] < 0.9
    assert scores[1] == 1
    assert accuracy(CYCLE, free["gmm"].posterior.clusters) == 1
    assert free.objective() > stuck.objective()


def test_it_sends_what_to_regroup_and_the_mixture_starts_from_it():
    graph = stuck_graph()
    gmm, markov = graph["gmm"], graph["markov"]
    gmm.update()
    markov.update()
    (message,) = markov.messages_down
    assert message.regroups
    assert message.is_prior
    assert accuracy(CYCLE, message.log_prob.argmax(axis=1)) == 1
    assert accuracy(CYCLE, markov.posterior.clusters) < 0.9  # these are the old classes
    gmm.update()
    assert accuracy(CYCLE, gmm.posterior.clusters) == 1
    markov.update()
    assert markov.is_followed_
    assert not markov.regrouping_
    assert not markov.messages_down[0].regroups


def test_asked_again_before_the_mixture_has_heard_it_says_the_same():
    once, twice = stuck_graph(), stuck_graph()
    for graph, n_updates in ((once, 1), (twice, 2)):
        graph["gmm"].update()
        for _ in range(n_updates):
            graph["markov"].update()
    of_both = [graph["markov"].messages_down[0].log_prob.argmax(axis=1) for graph in (once, twice)]
    assert accuracy(*of_both) == 1
    assert accuracy(CYCLE, twice["markov"].posterior.clusters) < 0.9


@pytest.mark.parametrize("seed", range(10))
def test_no_classes_are_regrouped_by_chance(seed):
    """The rows are in no order, so that any context of a class is one by chance."""
    rng = np.random.default_rng(seed)
    evidence = 4 * np.eye(K)[rng.integers(K, size=300)] + rng.normal(size=(300, K))
    problem = Problem(FLAT, max_iter=20, tol=1e-4, n_tries=10)
    starts = np.arange(300) % 50 == 0
    uniform = Chain(np.full((K, K), 1 / K), np.full(K, 1 / K))
    solution = problem.solve(lambda chain: forward_backward(evidence, chain, starts), uniform)
    assert split_and_merge(evidence, starts, solution, problem) is None


def test_two_states_are_no_place_to_exchange():
    evidence = np.log(0.9 * np.eye(2) + 0.05)[CYCLE % 2]
    problem = Problem(FLAT, max_iter=20, tol=1e-4, n_tries=10)
    chain = Chain(np.full((2, 2), 0.5), np.full(2, 0.5))
    solution = problem.solve(lambda chain: forward_backward(evidence, chain, STARTS), chain)
    assert split_and_merge(evidence, STARTS, solution, problem) is None


def test_a_parent_that_does_not_follow_is_asked_once():
    stubborn = Sender(Categorical(np.log(0.97 * np.eye(K) + 0.0075)[STUCK_CLASSES]))
    stubborn.can_regroup = True
    markov = MarkovModel().connect(stubborn.connect(Observation(CYCLE[:, None])))
    stubborn.update()
    markov.update()
    clusters, transition = markov.posterior.clusters, markov.transition_
    assert markov.regrouping_
    stubborn.update()
    markov.update()
    assert not markov.is_followed_
    assert not markov.regrouping_
    np.testing.assert_array_equal(markov.posterior.clusters, clusters)
    # the chain went on from its last one, where it had converged but for `tol`
    np.testing.assert_allclose(markov.transition_, transition, atol=0.01)


@pytest.mark.parametrize("seed", [0, 4, 15])
def test_nothing_is_taken_from_a_chain_only_because_it_has_not_converged(seed):
    """The classes of the rows last, but share no contexts. (Any chain would gain by more steps.)"""
    rng = np.random.default_rng(seed)
    lasts = np.maximum.accumulate(np.where(rng.random(100) < 0.2, np.arange(100), 0))
    evidence = 2 * np.eye(5)[rng.integers(5, size=100)[lasts]] + rng.normal(size=(100, 5))
    problem, starts = Problem(FLAT, max_iter=1, tol=1e-4, n_tries=10), np.arange(100) == 0
    uniform = Chain(np.full((5, 5), 0.2), np.full(5, 0.2))
    solution = problem.solve(lambda chain: forward_backward(evidence, chain, starts), uniform)
    assert not solution.converged
    assert split_and_merge(evidence, starts, solution, problem) is None


@pytest.mark.parametrize("which", ["frozen", "several parents", "children", "others", "zeros"])
def test_nothing_is_regrouped_where_nobody_could_follow(which):
    graph = stuck_graph()
    gmm, markov = graph["gmm"], graph["markov"]
    gmm.update()
    if which == "frozen":
        gmm.freeze()
    elif which == "zeros":  # which stay zeros, and are of certain classes
        markov.set_params(initial_init=[0.5, 0.5, 0, 0])
    elif which == "several parents":
        other = GMM(K, random_state=0).connect(Observation(rows_of(CYCLE))).update()
        markov.connect(gmm, other)
    elif which == "others":  # whose messages are of the old classes
        gmm.update()
        MarkovModel(n_split_merge=0).connect(gmm).update()
    else:
        MarkovModel(n_split_merge=0).connect(markov)
        markov.update()
        markov.children[0].update()
    markov.update()
    assert not markov.regrouping_


def pending_graph():
    """One that ends with a regrouping that the mixture has not heard of."""
    graph = stuck_graph().fit(1, verbose=False)
    assert graph["markov"].messages_down[0].regroups
    return graph


def test_new_rows_are_of_the_old_classes_until_the_mixture_has_followed():
    plain, pending = stuck_graph(n_split_merge=0).fit(1, verbose=False), pending_graph()
    rows = rows_of(CYCLE, seed=1)
    assert_same(plain.predict(rows).messages, pending.predict(rows).messages)
    assert_same(plain.reconstruct(rows), pending.reconstruct(rows))
    assert plain.objective(rows) == pending.objective(rows)


def test_a_frozen_mixture_does_not_hear_of_a_regrouping_and_follows_a_later_one():
    graph = pending_graph()
    gmm, markov = graph["gmm"], graph["markov"]
    gmm.freeze().update()
    assert_same(gmm.posterior.classes.log_prob, gmm.message_up.log_prob)
    markov.update()
    assert not markov.messages_down[0].regroups
    gmm.unfreeze()
    graph.fit(4, verbose=False)
    assert markov.scores()["accuracy"] == 1


def test_a_mixture_that_others_speak_to_does_not_hear_of_a_regrouping():
    graph = pending_graph()
    other = MarkovModel(n_split_merge=0)
    with pytest.warns(UserWarning, match="will hear"):
        other.connect(graph["gmm"])
    other.update()
    assert_same(graph["gmm"].received_from_children(), other.messages_down[0])


@pytest.mark.parametrize("how", ["freeze", "set_chain", "fit"])
def test_a_regrouping_is_taken_back_where_nothing_would_learn_its_chain(how):
    graph = pending_graph()
    markov = graph["markov"]
    transition = markov.transition_
    if how == "freeze":
        markov.freeze()
    elif how == "set_chain":
        markov.set_chain(transition, markov.initial_).freeze()
    else:  # of the old classes, so that it only goes on
        markov.fit(graph["gmm"].message_up.log_likelihood).freeze()
    assert markov.messages_down == (None,)
    transition = markov.transition_
    graph.fit(2, verbose=False)
    assert not markov.messages_down[0].regroups
    np.testing.assert_array_equal(markov.transition_, transition)
    markov.unfreeze()
    graph.fit(4, verbose=False)
    assert markov.scores()["accuracy"] == 1


def test_other_parents_are_told_to_regroup_whatever_the_first_ones_did():
    markov = pending_graph()["markov"]
    markov.is_followed_ = False
    graph = stuck_graph()
    graph["markov"].disconnect()
    graph = Graph(markov.connect(graph["gmm"])).fit(4, verbose=False)
    assert markov.scores()["accuracy"] == 1


def test_topics_follow_too():
    classes = Observation(np.eye(K)[STUCK_CLASSES], name="classes")
    words = Observation(make_counts(CYCLE, concentration=1.0), name="words")
    mlda = MLDA(K, weights=[200, None], random_state=0).connect(classes, words)
    markov = MarkovModel(labels=CYCLE).connect(mlda)
    for _ in range(3):
        mlda.update()
        markov.update()
    assert markov.is_followed_
    assert markov.scores()["accuracy"] == 1


def test_messages_keep_that_they_regroup():
    log_prob = np.log(probabilities(6))
    regroups = Categorical(log_prob, is_prior=True, regroups=True)
    assert product([regroups, Categorical.uniform(6, K)]).regroups
    assert regroups.extended(8).regroups


def test_a_saved_graph_goes_on_from_a_regrouping(tmp_path):
    graph = stuck_graph().fit(1, verbose=False)
    assert graph["markov"].regrouping_
    graph.save(tmp_path / "graph.srk")
    loaded = Graph.load(tmp_path / "graph.srk", data=[rows_of(CYCLE)])
    for each in (graph, loaded):
        each.fit(2, verbose=False)
    for name in ("gmm", "markov"):
        assert_same(graph[name].get_state(), loaded[name].get_state())


# -- estimates -------------------------------------------------------------------------------------


def test_evidence_of_a_regrouping_is_that_of_a_mixture_of_classes():
    shares = probabilities(K, seed=3)
    with np.errstate(divide="ignore"):
        log_shares = np.log(np.where(shares > 0.1, shares, 0))  # some are 0
    evidence = np.random.default_rng(0).normal(scale=50, size=(30, K))
    regrouping = Regrouping(log_shares, Chain(np.eye(K), np.ones(K) / K))
    expected = logsumexp(evidence[:, None] + log_shares, axis=2)
    np.testing.assert_allclose(regrouping.evidence(evidence), expected, rtol=1e-12)
    same = Regrouping.of(regrouping.as_dict())
    np.testing.assert_array_equal(same.evidence(evidence), regrouping.evidence(evidence))


@pytest.mark.parametrize("source", [(3,), (0, 2)])
def test_an_exchange_keeps_each_rows_probability(source):
    """Row by row: the states before, merged and split as the sources say."""
    posterior, shares = probabilities(20), np.random.default_rng(1).random(20)
    states = split_merge.regrouped(posterior, (0, 2), source, shares)
    p0, p1, p2, p3 = posterior.T
    union = p0 + p2
    if source == (3,):
        expected = [union, p1, p3 * shares, p3 * (1 - shares)]
    else:
        expected = [union * (1 - shares), p1, union * shares, p3]
    np.testing.assert_allclose(states, np.stack(expected, axis=1))
    np.testing.assert_allclose(states.sum(axis=1), 1)


@pytest.mark.parametrize("source", [(3,), (0, 2)])
def test_an_exchange_says_which_classes_a_state_is_of(source):
    with np.errstate(divide="ignore"):
        own = np.log(np.eye(K))
    weights = np.array([3.0, 5.0, 1.0, 7.0])
    shares = np.exp(split_merge.exchanged(own, weights, (0, 2), source))
    union, own_of_3 = [0.75, 0, 0.25, 0], [0, 0, 0, 1]
    of_b = own_of_3 if source == (3,) else union
    np.testing.assert_allclose(shares, [union, [0, 1, 0, 0], of_b, own_of_3])


@pytest.mark.parametrize("weights", [[0, 5, 0, 7], [0, 0, 0, 1]])
def test_states_without_rows_are_exchanged_in_equal_parts(weights):
    with np.errstate(divide="ignore"):
        own = np.log(np.eye(K))
    shares = np.exp(split_merge.exchanged(own, np.array(weights, float), (0, 2), (3,)))
    np.testing.assert_allclose(shares[0], [0.5, 0, 0.5, 0])


def test_contexts_are_counts_of_three_states_in_a_row():
    path = np.random.default_rng(0).integers(K, size=200)
    starts = np.arange(200) % 40 == 0
    counts = np.zeros((K, K, K))
    for t in range(1, 199):
        if not starts[t] and not starts[t + 1]:
            counts[path[t], path[t - 1], path[t + 1]] += 1
    np.testing.assert_array_equal(split_merge.contexts(np.eye(K)[path], ~starts[1:]), counts)


def test_gains_and_losses_are_differences_of_log_likelihoods():
    """Of a distribution for each of two rows of counts, less one for both, by scipy."""
    counts = np.random.default_rng(0).integers(9, size=(2, 5)).astype(float)
    both = counts.sum(axis=0)

    def log_likelihood(row, p):
        combinations = multinomial(row.sum(), np.full(5, 0.2)).logpmf(row) - row @ np.log([0.2] * 5)
        return multinomial(row.sum(), p).logpmf(row) - combinations

    apart = sum(log_likelihood(row, row / row.sum()) for row in counts)
    together = sum(log_likelihood(row, both / both.sum()) for row in counts)
    assert split_merge.gain_of(counts) == pytest.approx(apart - together)
    table = np.random.default_rng(1).integers(9, size=(K, K)).astype(float)
    expected = split_merge.gain_of(table[[1, 3]]) + split_merge.gain_of(table[:, [1, 3]].T)
    assert split_merge.loss_of_merger(table, 1, 3) == expected


def test_a_state_splits_by_the_state_before_that_tells_most_of_what_follows():
    counts = np.array([[9.0, 1, 0], [1, 8, 1], [0, 9, 1]])
    found = split_merge.split_of(counts)
    gains = [split_merge.gain_of(np.stack([row, counts.sum(axis=0) - row])) for row in counts]
    assert found.previous == np.argmax(gains) == 0
    assert found.gain == max(gains)


def test_a_chain_of_certain_states_counts_their_transitions():
    starts = np.arange(len(CYCLE)) % 80 == 0
    uniform = Chain(np.full((K, K), 1 / K), np.full(K, 1 / K))
    chain = split_merge.chain_of(np.eye(K)[CYCLE], ~starts[1:], starts, FLAT, uniform)
    counts = np.full((K, K), 1 / K)
    for t, (i, j) in enumerate(pairwise(CYCLE)):
        counts[i, j] += not starts[t + 1]
    np.testing.assert_allclose(chain.transition, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(chain.initial, np.array([3.25, 0.25, 0.25, 0.25]) / 4)
