"""Class numbers made to agree, and what the modules then say to each other."""

import copy
from itertools import permutations

import numpy as np
import pytest
from scipy.special import log_softmax

from serkit import Graph, Module, Observation, Posterior
from serkit.errors import GraphError, InputError, MessageError, NotFittedError
from serkit.messages import Categorical, Data
from serkit.metrics import accuracy
from serkit.modules import GMM
from serkit.modules.adapters.label_alignment import LabelAlignment, groups_of, match_classes
from tests.helpers.modules import Classes, Teller
from tests.helpers.saved import assert_same

N, K = 40, 4
ORDER = np.array([2, 0, 3, 1])


def soft(seed, labels=None, strength=2.0, **options):
    """Probabilities (N, K) that favour each row's label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % K if labels is None else labels
    scores = rng.normal(size=(len(labels), K)) + strength * np.eye(K)[labels]
    return Categorical(log_softmax(scores, axis=1), **options)


def reordered(message, order):
    """The same with class k called order[k]."""
    inverse = np.argsort(order)
    prior = None if message.log_prior is None else message.log_prior[inverse]
    return Categorical(message.log_prob[:, inverse], log_prior=prior, observed=message.observed)


def aligned(*messages):
    module = LabelAlignment(random_state=0)
    module.learn(list(messages), None)
    return module


@pytest.mark.parametrize("seed", range(5))
def test_matching_shares_most_mass_of_all_permutations(seed):
    reference, other = soft(seed, strength=0.5), reordered(soft(seed + 9, strength=0.5), ORDER)
    p, q = np.exp(reference.log_prob), np.exp(other.log_prob)

    def share(order):
        return sum(p[n, k] * q[n, order[k]] for n in range(N) for k in range(K)) / N

    best = max(permutations(range(K)), key=share)
    classes, found = match_classes(reference, other)
    assert tuple(classes) == best
    assert found == pytest.approx(share(best))


def test_only_rows_that_both_observed_count_in_matching():
    labels = np.arange(N) % K
    half = np.arange(N) < N // 2
    first = soft(0, labels, 5.0, observed=half | (labels == 0))
    misleading = np.where(half, ORDER[labels], labels)
    second = soft(1, misleading, 5.0, observed=half | (labels != 0))
    classes, share = match_classes(first, second)
    np.testing.assert_array_equal(classes, ORDER)
    own = np.exp(first.log_prob[half] + second.log_prob[half][:, ORDER])
    assert share == pytest.approx(own.sum(axis=1).mean())
    blind = soft(1, misleading, 5.0, observed=~first.is_observed)
    classes, share = match_classes(first, blind)
    np.testing.assert_array_equal(classes, np.arange(K))
    assert share == 0


def test_parents_that_agree_keep_their_numbers():
    module = aligned(soft(0), soft(1), soft(2))
    np.testing.assert_array_equal(module.permutations_, np.tile(np.arange(K), (3, 1)))


def test_message_up_is_the_posterior_of_independent_observations():
    """Of a table of probabilities: P(k), and what each parent observed given k."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(K))
    likelihoods = rng.uniform(size=(2, N, K))  # p_i(row n | k)
    other_weights = rng.dirichlet(np.ones(K))
    parents = [
        Categorical(log_softmax(np.log(values) + np.log(p), axis=1), log_prior=np.log(p))
        for values, p in zip(likelihoods, (prior, other_weights), strict=True)
    ]
    module = LabelAlignment()
    module.permutations_ = np.stack([np.arange(K), ORDER])
    up = module.infer([parents[0], reordered(parents[1], ORDER)], None).up
    joint = prior * likelihoods[0] * likelihoods[1]
    np.testing.assert_allclose(np.exp(up.log_prob), joint / joint.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(np.exp(up.log_prior), prior)


@pytest.mark.parametrize("is_prior", [False, True])
def test_each_parent_hears_all_but_itself(is_prior):
    """Its own evidence times the message is what all say together."""
    weights = np.random.default_rng(9).dirichlet(np.ones(K), 3)
    inputs = [soft(i, log_prior=np.log(w)) for i, w in enumerate(weights)]
    inputs[1] = reordered(inputs[1], ORDER)
    told = soft(7, is_prior=is_prior)
    module = aligned(*inputs)
    orders, sent = module.permutations_, module.infer(inputs, told).down
    evidence = sum(m.log_likelihood[:, p] for m, p in zip(inputs, orders, strict=True))
    everything = np.exp(log_softmax(evidence + told.log_prob, axis=1))
    for own, down, classes in zip(inputs, sent, orders, strict=True):
        both = np.exp(log_softmax(own.log_likelihood + down.log_prob, axis=1))
        np.testing.assert_allclose(both[:, classes], everything)
        assert down.is_prior is is_prior


@pytest.mark.parametrize("told", [None, soft(7)])
def test_renumbering_a_parent_only_reorders_what_it_hears(told):
    inputs = [soft(0), soft(1), soft(2)]
    changed = [soft(0), soft(1), reordered(soft(2), ORDER)]
    module, other = aligned(*inputs), aligned(*changed)
    np.testing.assert_array_equal(other.permutations_[2], ORDER)
    plain, renumbered = module.infer(inputs, told), other.infer(changed, told)
    assert_same([plain.up, *plain.down[:2]], [renumbered.up, *renumbered.down[:2]])
    assert_same(plain.down[2].log_prob, renumbered.down[2].log_prob[:, ORDER])


def test_renumbering_the_reference_renumbers_everything_else():
    inputs = [soft(0), soft(1)]
    changed = [reordered(soft(0), ORDER), soft(1)]
    up = aligned(*inputs).infer(inputs, None).up.log_prob
    other = aligned(*changed)
    np.testing.assert_allclose(other.infer(changed, None).up.log_prob[:, ORDER], up)
    np.testing.assert_array_equal(other.permutations_[1], np.argsort(ORDER))


def test_uniform_parent_and_uniform_child_say_nothing():
    inputs = [soft(0), soft(1)]
    with_uniform = [*inputs, Categorical.uniform(N, K)]
    module, more = aligned(*inputs), aligned(*with_uniform)
    silent = module.infer(inputs, None)
    spoken = module.infer(inputs, Categorical.uniform(N, K))
    np.testing.assert_allclose(more.infer(with_uniform, None).up.log_prob, silent.up.log_prob)
    for one, other in zip(silent.down, spoken.down, strict=True):
        np.testing.assert_allclose(one.log_prob, other.log_prob)


def test_missing_rows_are_neutral():
    """Where one parent observed nothing the other speaks alone; where none did, nobody does."""
    labels = np.arange(N)
    weights = np.log([0.4, 0.3, 0.2, 0.1])
    first = soft(0, observed=labels >= 8, log_prior=weights)
    second = soft(1, observed=(labels < 4) | (labels >= 12))
    module = aligned(first, second)
    posterior = module.infer([first, second], None)
    up = posterior.up
    np.testing.assert_array_equal(up.is_observed, (labels < 4) | (labels >= 8))
    expected = log_softmax(second.log_prob[:4] + weights, axis=1)
    np.testing.assert_allclose(up.log_prob[:4], expected)
    np.testing.assert_allclose(up.log_prob[8:12], first.log_prob[8:12])
    to_first, to_second = posterior.down
    np.testing.assert_allclose(to_first.log_prob[4:12], -np.log(K))
    np.testing.assert_allclose(to_second.log_prob[:8], -np.log(K))


def certain(labels):
    with np.errstate(divide="ignore"):
        return Categorical(np.log(np.eye(K)[labels]))


@pytest.mark.parametrize("child", [False, True])
def test_contradictions_are_named_and_change_nothing(child):
    labels = np.arange(N) % K
    other = np.where(np.arange(N) == 5, 3, labels)
    module = aligned(certain(labels), certain(labels))
    before = copy.deepcopy(module.get_state())
    inputs = [certain(labels), certain(labels if child else other)]
    told = certain(other) if child else None
    with pytest.raises(MessageError, match="contradict each other in row 5: no class has a posit"):
        module.learn(inputs, told)
    assert_same(before, module.get_state())


def test_certain_parents_that_agree_are_no_contradiction():
    labels = np.arange(N) % K
    inputs = [certain(labels), certain(ORDER[labels])]
    module = aligned(*inputs)
    posterior = module.infer(inputs, None)
    np.testing.assert_array_equal(posterior.up.log_prob, certain(labels).log_prob)
    first, second = posterior.down
    np.testing.assert_array_equal(first.log_prob.argmax(axis=1), labels)
    np.testing.assert_array_equal(second.log_prob.argmax(axis=1), ORDER[labels])


# -- parents that share data ------------------------------------------------------------------


def some_rows(seed=0):
    return Observation(np.random.default_rng(seed).normal(size=(N, 3)))


def parents_of(*observations):
    """A module with classes on each, which learns nothing."""
    nodes = [below if isinstance(below, tuple) else (below,) for below in observations]
    return [Classes(K, random_state=i).connect(*below) for i, below in enumerate(nodes)]


def aligned_on(parents, messages, **options):
    """An alignment of some parents that has learnt, in place of what they say, from messages."""
    module = LabelAlignment(random_state=0, **options).connect(*parents)
    module.learn(messages, None)
    return module


def normalised(factors):
    return factors / factors.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("told", [None, soft(7)])
def test_parents_of_the_same_rows_count_as_one_by_the_mean_of_their_evidence(told):
    """Of models of the same rows one is right, each as probably: the sum over all cases."""
    seen = some_rows()
    weights = np.random.default_rng(9).dirichlet(np.ones(K), 4)
    inputs = [soft(i, log_prior=np.log(w)) for i, w in enumerate(weights)]
    module = aligned_on(parents_of(*[seen] * 4), inputs)
    posterior = module.infer(inputs, told)
    pairs = zip(inputs, module.permutations_, strict=True)
    evidence = [normalised(np.exp(m.log_likelihood[:, classes])) for m, classes in pairs]
    np.testing.assert_allclose(
        np.exp(posterior.up.log_prob), normalised(weights[0] * sum(evidence) / 4)
    )
    above = 1 if told is None else np.exp(told.log_prob)
    for number, down in enumerate(posterior.down):
        others = sum(said for i, said in enumerate(evidence) if i != number) / 3
        heard = np.exp(down.log_prob)[:, module.permutations_[number]]
        np.testing.assert_allclose(heard, normalised(others * above))


def test_copies_of_a_chain_add_no_certainty():
    """Of what is said of the same rows once or five times, the same follows."""
    said, seen = soft(0, log_prior=np.log([0.4, 0.3, 0.2, 0.1])), some_rows()
    for n in (2, 5):
        posterior = aligned_on(parents_of(*[seen] * n), [said] * n).infer([said] * n, None)
        np.testing.assert_allclose(posterior.up.log_prob, said.log_prob)
        for down in posterior.down:
            expected = log_softmax(said.log_likelihood, axis=1)
            np.testing.assert_allclose(down.log_prob, expected)


def test_other_data_counts_beside_chains_that_share_theirs():
    """Two chains on images and one on speech: the speech counts as much as both."""
    seen, heard = some_rows(0), some_rows(1)
    inputs = [soft(i) for i in range(3)]
    module = aligned_on(parents_of(seen, heard, seen), inputs)
    first, speech, second = (np.exp(m.log_prob) for m in inputs)
    posterior = module.infer(inputs, None)
    assert_same(module.permutations_, np.tile(np.arange(K), (3, 1)))
    for message, expected in zip(
        (posterior.up, *posterior.down),
        ((first + second) * speech, speech * second, first + second, first * speech),
        strict=True,
    ):
        np.testing.assert_allclose(np.exp(message.log_prob), normalised(expected))


def test_the_mean_is_of_those_that_observed_the_row():
    seen, other = some_rows(0), some_rows(1)
    here = np.arange(N) >= 10
    inputs = [soft(0, observed=here), soft(1), soft(2)]
    module = aligned_on(parents_of(seen, (seen, other), seen), inputs)
    first, second, third = (np.exp(m.log_prob) for m in inputs)
    up = np.exp(module.infer(inputs, None).up.log_prob)
    np.testing.assert_allclose(up[:10], (second + third)[:10] / 2)
    np.testing.assert_allclose(up[10:], (first + second + third)[10:] / 3)


def test_data_in_common_is_found_below_and_through_others():
    one, two, three = some_rows(0), some_rows(1), some_rows(2)
    (below,) = parents_of(one)
    parents = [*parents_of(three, (one, two), two), Teller(soft(0)).connect(below)]
    first, *others = groups_of(parents)
    assert len({*others}) == 1
    assert first not in others


@pytest.mark.parametrize("weight", [1, 0.3])
def test_message_weight_is_the_power_of_every_parent(weight):
    seen = some_rows()
    inputs = [soft(i) for i in range(3)]
    module = aligned_on(parents_of(*[seen] * 3), inputs, message_weight=weight)
    posterior = module.infer(inputs, told := soft(7))
    first, second, third = (m.log_prob for m in inputs)
    expected = log_softmax(weight * (first + second + third), axis=1)
    np.testing.assert_allclose(posterior.up.log_prob, expected)
    expected = log_softmax(weight * (second + third) + told.log_prob, axis=1)
    np.testing.assert_allclose(posterior.down[0].log_prob, expected)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"message_weight": 0}, "LabelAlignment: message_weight must be a number > 0, got 0"),
        ({"start": -1}, "LabelAlignment: start must be an integer >= 0, got -1"),
    ],
)
def test_odd_options_are_refused(graph, options, text):
    graph["labelalignment"].set_params(**options)
    with pytest.raises(InputError, match=text):
        graph.fit(1, verbose=False)
    assert not graph.history


def test_models_of_the_same_rows_may_contradict_each_other():
    labels, seen = np.arange(N) % K, some_rows()
    inputs = [certain(labels), certain(labels), certain(np.where(np.arange(N) == 5, 3, labels))]
    up = aligned_on(parents_of(*[seen] * 3), inputs).infer(inputs, None).up
    np.testing.assert_allclose(np.exp(up.log_prob[5]), [0, 2 / 3, 0, 1 / 3])


def test_the_vote_is_by_the_mean_of_what_all_say():
    messages = [soft(0, strength=1), reordered(soft(1, strength=1), ORDER), soft(2, strength=1)]
    tellers = [_Sender(message).connect(some_rows()).update() for message in messages]
    module = LabelAlignment().connect(*tellers).update()
    pairs = zip(messages, module.permutations_, strict=True)
    mean = np.mean([np.exp(m.log_prob[:, classes]) for m, classes in pairs], axis=0)
    np.testing.assert_array_equal(module.vote(), mean.argmax(axis=1))
    assert (module.vote() != module.posterior.clusters).any()  # which are by the product


class _Sender(Module):
    """Sends the message it was made with up."""

    sends_up = Categorical

    def __init__(self, message):
        super().__init__()
        self.message = message

    def learn(self, inputs, from_children):
        return {}

    def infer(self, inputs, from_children):
        return Posterior(self.message, (None,))


# -- late consensus ----------------------------------------------------------------------------


def test_nothing_goes_down_before_the_start(graph):
    graph["labelalignment"].set_params(start=3)
    left, right, labels = views()
    alone = GMM(K, labels=labels, weight_concentration_prior=1e3, random_state=0, name="left")
    alone.connect(Observation(left))
    for round_ in range(1, 5):
        graph.fit(1, verbose=False)
        alone.update()
        module = graph["labelalignment"]
        assert [message is None for message in module.messages_down] == [round_ < 3] * 2
        assert module.message_up.shape == (K,)
        assert graph.predict(left, right).classes.shape == (200,)
        said = graph["left"].posterior.classes.log_prob
        assert np.array_equal(said, alone.posterior.classes.log_prob) is (round_ < 4)


def test_before_the_start_children_are_heard_but_not_passed_on(graph):
    module = graph["labelalignment"].set_params(start=2)
    for mixture in (graph["left"], graph["right"], module):
        mixture.update()
    Teller(soft(0, np.full(200, 2), strength=1e3)).connect(module).update()
    posterior = module.infer(module.received_from_parents(), module.received_from_children())
    assert posterior.down == (None, None)
    np.testing.assert_array_equal(posterior.clusters, 2)


def test_the_start_counts_on_in_a_loaded_graph(graph, tmp_path):
    graph["labelalignment"].set_params(start=2)
    graph.fit(1, verbose=False).save(tmp_path / "graph")
    left, right, _ = views()
    loaded = Graph.load(tmp_path / "graph", data=[left, right]).fit(1, verbose=False)
    graph.fit(1, verbose=False)
    assert None not in loaded["labelalignment"].messages_down
    assert_same(loaded["labelalignment"].messages_down, graph["labelalignment"].messages_down)


# -- in graphs ---------------------------------------------------------------------------------


def views(n=200, seed=0):
    """Two noisy views of four classes, each of which alone confuses two of them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % K
    left = np.array([[0.0, 0], [2, 0], [8, 0], [0, 8]])
    right = np.array([[8.0, 0, 0], [0, 8, 0], [0, 0, 0], [0, 0, 2]])
    noise = [rng.normal(size=(n, 2)), rng.normal(size=(n, 3))]
    return left[labels] + noise[0], right[labels] + noise[1], labels


@pytest.fixture
def graph():
    """Two mixtures on two views, in one graph, and its labels."""
    left, right, labels = views()
    options = {"labels": labels, "weight_concentration_prior": 1e3, "random_state": 0}
    mixtures = [
        GMM(K, name=name, **options).connect(Observation(x))
        for name, x in {"left": left, "right": right}.items()
    ]
    return Graph(LabelAlignment(labels=labels, random_state=0).connect(*mixtures))


def test_two_views_together_find_what_neither_does(graph):
    graph.fit(rounds=2, verbose=False)
    reports = {name: graph[name].history_ for name in ("left", "right", "labelalignment")}
    alone = [reports[name][0]["accuracy"] for name in ("left", "right")]
    together = [updates[1]["accuracy"] for updates in reports.values()]
    assert max(alone) < 0.95
    assert min(together) > 0.99
    module = graph["labelalignment"]
    assert together[2] == accuracy(module.labels, module.posterior.clusters)
    left, right = (np.exp(graph[name].message_up.log_prob) for name in ("left", "right"))
    shared = (left * right[:, module.permutations_[1]]).sum(axis=1)
    assert module.history_[-1]["agreement"] == pytest.approx(shared.mean())


def test_it_is_saved_loaded_and_predicts_with_a_view_missing(graph, tmp_path):
    graph.fit(rounds=2, verbose=False)
    left, right, _ = views(seed=1)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph")
    assert_same(graph.predict(left, right).messages, loaded.predict(left, right).messages)
    alone = graph.predict(left, None).messages
    np.testing.assert_allclose(alone["labelalignment"].log_prob, alone["left"].log_prob)
    order = graph["labelalignment"].permutations_[1]
    known = graph["left"].infer([Data(left)], None).up
    missing = Data(right, observed=np.zeros(len(right), bool))
    inputs = [known, graph["right"].infer([missing], None).up]
    _, down = graph["labelalignment"].infer(inputs, None).down
    expected = log_softmax(known.log_likelihood, axis=1)
    np.testing.assert_allclose(down.log_prob[:, order], expected)


def test_samples_are_of_one_class_in_all_views(graph):
    graph.fit(rounds=2, verbose=False)
    for component in range(K):
        drawn = graph.sample(50, component, random_state=3)
        predicted = graph.predict(*drawn.values())
        assert (predicted.classes == component).mean() > 0.9
    prior = np.exp(graph["left"].message_up.log_prior)
    drawn = graph["labelalignment"].generate(4000, np.random.default_rng(0))
    classes = drawn[0].argmax(axis=1)
    shares = np.bincount(classes, minlength=K) / 4000
    assert (np.abs(shares - prior) < 5 * np.sqrt(prior * (1 - prior) / 4000)).all()
    assert_same(graph.sample(9), graph.sample(9))


def test_childs_message_counts_in_scores_and_clusters(graph):
    module = graph["labelalignment"]
    assert module.scores() == {}
    graph.fit(rounds=1, verbose=False)
    Teller(soft(0, np.full(200, 2), strength=1e3)).connect(module).update()
    module.freeze().update()
    np.testing.assert_array_equal(module.posterior.clusters, 2)
    assert module.scores()["accuracy"] == 1 / K


# -- errors ------------------------------------------------------------------------------------


def test_one_parent_is_too_few(graph):
    module = graph["labelalignment"].connect(graph["left"].update())
    with pytest.raises(GraphError, match="LabelAlignment aligns the classes of at least two pare"):
        module.update()


def test_numbers_of_classes_must_agree(graph):
    third = GMM(K + 1, name="third").connect(Observation(views()[0])).update()
    module = graph["labelalignment"].connect(graph["left"].update(), third)
    with pytest.raises(InputError, match="differ: GMM 'left' has 4, GMM 'third' has 5; make them"):
        module.update()
    untrained = LabelAlignment().connect(GMM(K, name="left"), GMM(K + 1, name="third"))
    untrained.parents[0].connect(Observation(views()[0]))
    untrained.parents[1].connect(Observation(views()[0]))
    with pytest.raises(InputError, match="differ: GMM 'left' has 4, GMM 'third' has 5; make them"):
        Graph(untrained).check()


def test_labels_of_another_length_are_refused(graph):
    graph["labelalignment"].set_params(labels=[0, 1])
    with pytest.raises(InputError, match="LabelAlignment: labels has 2 entries for 200 rows"):
        graph.fit(rounds=1, verbose=False)


def test_before_learning_there_is_nothing_to_send():
    with pytest.raises(NotFittedError, match="has matched no classes yet: call update"):
        LabelAlignment().infer([soft(0), soft(1)], None)


def test_samples_of_no_class_are_refused(graph):
    graph.fit(rounds=1, verbose=False)
    with pytest.raises(InputError, match="LabelAlignment: component=4 does not exist; they are 0"):
        graph.sample(2, K)
