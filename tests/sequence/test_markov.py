"""MarkovModel: with a GMM below it the exact hidden Markov model (hmmlearn, enumeration)."""

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning

from serkit import Graph, MixtureDensity, Observation
from serkit.errors import InputError, NotFittedError, NotReadyError
from serkit.messages import Categorical
from serkit.metrics import accuracy
from serkit.module import bound_of
from serkit.modules import GMM, MarkovModel
from serkit.modules.sequence import chains
from serkit.modules.sequence.chains import Chain, forward_backward
from tests.helpers.chains import Enumeration
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same

K, D, LENGTHS = 3, 2, [100, 150, 50]
N = sum(LENGTHS)
TRANSITION = np.array([[0.8, 0.15, 0.05], [0.1, 0.8, 0.1], [0.25, 0.05, 0.7]])
INITIAL = np.array([0.5, 0.3, 0.2])
# hmmlearn, enumeration and serkit add the same logs in different orders, over 300 rows at most
ROUNDING = {"rtol": 0, "atol": 1e-8}
CLOSE = {"rel": 1e-10}


def sequences(distance=2.0, lengths=LENGTHS, seed=0):
    """Rows (N, D) and states (N,) of a hidden Markov model with clusters that overlap."""
    rng, states = np.random.default_rng(seed), []
    for length in lengths:
        states.append(rng.choice(K, p=INITIAL))
        for _ in range(length - 1):
            states.append(rng.choice(K, p=TRANSITION[states[-1]]))
    means = distance * np.array([[0, 0], [1, 0], [0, 1]])
    return means[states] + rng.standard_normal((len(states), D)), np.array(states)


def connected(x, *, lengths=LENGTHS, gmm=(), **options):
    """Observation, GMM by maximum likelihood from three rows, and a Markov model, updated once."""
    mixture = GMM(
        K,
        inference="ml",
        reg_covar=0.0,
        means_init=[[0, 0], [1, 0], [0, 1]],
        max_iter=2,
        random_state=0,
        **dict(gmm),
    )
    mixture.connect(Observation(x))
    markov = MarkovModel(lengths=lengths, random_state=0, **options)
    markov.connect(mixture)
    mixture.update()
    markov.update()
    return mixture, markov


def as_hmmlearn(mixture, markov):
    peer = GaussianHMM(K, "full")
    peer.startprob_, peer.transmat_ = markov.initial_, markov.transition_
    peer.means_, peer.covars_ = mixture.means_, mixture.covariances_
    return peer


def evidence(n=12, seed=0, k=K):
    return np.random.default_rng(seed).normal(size=(n, k))


def message(log_likelihood, log_prior=None):
    """What a parent with these likelihoods and class prior sends up."""
    log_prior = np.zeros(log_likelihood.shape[1]) if log_prior is None else log_prior
    return Categorical(log_softmax(log_likelihood + log_prior, axis=1), log_prior=log_prior)


def fitted(transition=TRANSITION, initial=INITIAL, **options):
    """A model with these very parameters."""
    model = MarkovModel(transition_init=transition, initial_init=initial, **options)
    model.fit(np.zeros((2, len(transition))) if not options.get("lengths") else evidence())
    model.transition_, model.initial_ = np.array(transition), np.array(initial)
    return model


def starts_of(lengths):
    return np.isin(np.arange(sum(lengths)), np.cumsum([0, *lengths[:-1]]))


# -- the exact hidden Markov model -----------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_graph_predicts_hmmlearns_posteriors(lengths):
    x, _ = sequences()
    mixture, markov = connected(x, lengths=lengths)
    mixture.update()
    markov.update()
    peer, graph = as_hmmlearn(mixture, markov), Graph(markov)
    found, expected = graph.predict(x), peer.predict_proba(x, lengths)
    np.testing.assert_allclose(found.probabilities, expected, **ROUNDING)
    own = np.exp(found.messages["gmm"].log_prob)  # its own weights are not counted beside
    np.testing.assert_allclose(own, expected, **ROUNDING)
    np.testing.assert_array_equal(markov.viterbi(), peer.decode(x, lengths)[1])


@pytest.mark.parametrize("kind", ["full", "diag", "tied", "spherical"])
@pytest.mark.parametrize("lengths", [None, [20, 29, 1]])
def test_given_parameters_score_new_sequences_as_hmmlearn(kind, lengths):
    """Nothing is learnt."""
    new, _ = sequences(lengths=[20, 29, 1], seed=1)
    variances = {
        "full": np.array([[[2, 0.5], [0.5, 1]]] * K),
        "tied": np.array([[2, 0.5], [0.5, 1]]),
    }
    variances |= {"diag": np.full((K, D), [2.0, 1.0]), "spherical": np.array([1.0, 2.0, 0.5])}
    density = MixtureDensity(np.ones(K) / K, [[0, 0], [2, 0], [0, 2]], variances[kind], kind)
    markov = MarkovModel(lengths=LENGTHS, random_state=0).set_chain(TRANSITION, INITIAL)
    peer = GaussianHMM(K, kind)
    peer.startprob_, peer.transmat_ = INITIAL, TRANSITION
    peer.means_, peer.covars_ = density.means, density.covariances
    log_likelihood, n_free = density.component_log_prob(new), density.n_free(weights=False)
    own = {"lengths": [len(new)] if lengths is None else lengths}
    assert markov.score(log_likelihood, **own) == pytest.approx(peer.score(new, lengths), **CLOSE)
    for name in ("aic", "bic"):
        found = getattr(markov, name)(log_likelihood, n_free, **own)
        assert found == pytest.approx(getattr(peer, name)(new, lengths), **CLOSE)
    found = markov.predict_proba(log_likelihood, **own)
    np.testing.assert_allclose(found, peer.predict_proba(new, lengths), **ROUNDING)
    np.testing.assert_array_equal(markov.viterbi(log_likelihood, **own), peer.predict(new, lengths))
    assert markov.chain().transition.tolist() == TRANSITION.tolist()


def test_a_graph_of_given_parameters_is_saved_and_never_learns(tmp_path):
    x, _ = sequences()
    density = MixtureDensity(np.ones(K) / K, [[0, 0], [2, 0], [0, 2]], [np.eye(D)] * K)
    mixture = GMM(K).connect(Observation(x)).set_density(density).freeze()
    markov = MarkovModel(lengths=LENGTHS).connect(mixture).set_chain(TRANSITION, INITIAL).freeze()
    graph = Graph(markov).fit(2, verbose=False)
    expected = as_hmmlearn(mixture, markov).predict_proba(x, LENGTHS)
    graph.save(tmp_path / "graph")
    for each in (graph, Graph.load(tmp_path / "graph")):
        np.testing.assert_allclose(each.predict(x).probabilities, expected, **ROUNDING)
        assert each["markovmodel"].chain().transition.tolist() == TRANSITION.tolist()
    assert len(markov.sample(5)) == 5
    with pytest.raises(NotFittedError, match="forecast goes on from the rows of the last training"):
        markov.forecast()
    markov.unfreeze().update()
    assert markov.forecast().shape == (3, 1, K)
    assert not np.array_equal(markov.transition_, TRANSITION)


@pytest.mark.parametrize(
    ("transition", "initial", "text"),
    [
        (TRANSITION, [0.5, 0.5], r"transition must be an array \(2, 2\) of probabilities"),
        (TRANSITION.T, INITIAL, "add up to 1, each row by itself"),
        (TRANSITION, [0.5, 0.6, -0.1], r"initial must be an array \(3,\) of probabilities"),
        (TRANSITION, "even", "initial must be finite numbers"),
    ],
)
def test_chains_that_are_none_are_refused(transition, initial, text):
    markov = MarkovModel()
    with pytest.raises(InputError, match=f"MarkovModel: .*{text}"):
        markov.set_chain(transition, initial)
    assert not hasattr(markov, "initial_")
    assert not markov.history_


def test_scores_are_of_rows_and_parameters_that_fit():
    markov = MarkovModel().set_chain(TRANSITION, INITIAL)
    with pytest.raises(InputError, match="fitted on K=3 classes, got 2"):
        markov.score(np.zeros((5, 2)))
    with pytest.raises(InputError, match="lengths add up to 4, but there are 5 rows"):
        markov.score(np.zeros((5, K)), lengths=[2, 2])
    with pytest.raises(InputError, match="n_free must be an integer >= 0, got -1"):
        markov.bic(np.zeros((5, K)), -1)
    with pytest.raises(NotFittedError, match="MarkovModel is not fitted yet"):
        MarkovModel().score(np.zeros((5, K)))


def test_new_rows_are_other_sequences():
    mixture, markov = connected(sequences()[0])
    new, _ = sequences(lengths=[20, 30], seed=1)
    graph = Graph(markov)
    with pytest.raises(InputError, match=r"lengths add up to 300.*50 rows.*set_params\(lengths="):
        graph.predict(new)
    markov.set_params(lengths=[20, 30])
    expected = as_hmmlearn(mixture, markov).predict_proba(new, [20, 30])
    np.testing.assert_allclose(graph.predict(new).probabilities, expected, **ROUNDING)


@pytest.mark.parametrize("max_iter", [1, 20])
def test_alternating_updates_never_lower_the_exact_likelihood_and_reach_hmmlearns(max_iter):
    x, _ = sequences(distance=3.0)
    mixture, markov = connected(x, max_iter=max_iter, tol=1e-12)
    peer = GaussianHMM(
        K, "full", init_params="", covars_prior=0, covars_weight=0, n_iter=500, tol=1e-9
    )
    peer.startprob_, peer.transmat_ = np.full(K, 1 / K), np.full((K, K), 1 / K)
    peer.means_, peer.covars_ = mixture.means_, mixture.covariances_
    scores = []
    for _ in range(30):
        for module in (mixture, markov):
            module.update()
            scores.append(as_hmmlearn(mixture, markov).score(x, LENGTHS) / N)
    assert np.diff(scores).min() > -1e-10
    assert scores[-1] > scores[0] + 1e-2
    best = peer.fit(x, LENGTHS).score(x, LENGTHS) / N
    np.testing.assert_allclose(scores[-1], best, atol=1e-6)  # hmmlearn's last step gains 1e-9


def test_objectives_add_up_to_the_exact_log_likelihood():
    x, _ = sequences()
    mixture, markov = connected(x)
    for _ in range(5):
        exact = as_hmmlearn(mixture, markov).score(x, LENGTHS) / N
        np.testing.assert_allclose(Graph(markov).objective(), exact, **ROUNDING)
        mixture.update()
        exact = as_hmmlearn(mixture, markov).score(x, LENGTHS) / N
        np.testing.assert_allclose(Graph(markov).objective(), exact, **ROUNDING)
        markov.update()


@pytest.mark.parametrize("n_rows", [30, 240])  # the latter as many as there were in training
def test_objectives_of_new_rows_are_exact_too(n_rows):
    """Of two parents, each of which hears of the new rows what the other one says."""
    x, _ = sequences(lengths=[240])
    gmms = [GMM(K, random_state=seed).connect(Observation(x)) for seed in range(2)]
    markov = MarkovModel().connect(*gmms)
    graph = Graph(markov).fit(2, verbose=False)
    rows, _ = sequences(lengths=[n_rows], seed=1)
    evidence = sum(gmm.density().component_log_prob(rows) for gmm in gmms)
    exact = markov.score(evidence) / n_rows
    assert graph.objective(rows, rows) == pytest.approx(exact, rel=1e-9)


def test_time_helps_where_clusters_overlap():
    x, states = sequences(distance=2.0, lengths=[600])
    mixture, markov = connected(x, lengths=None, labels=states)
    alone = accuracy(states, mixture.predict(x))
    for _ in range(10):
        mixture.update()
        markov.update()
    assert markov.history_[-1]["accuracy"] > alone + 0.05
    assert markov.scores() == {k: markov.history_[-1][k] for k in ("accuracy", "nmi", "ari")}
    assert markov.posterior.classes is markov.message_up  # no child has spoken


# -- messages --------------------------------------------------------------------------------------


def exact(likelihoods, from_children=0.0, lengths=(6,)):
    total = sum(likelihoods) + from_children
    return Enumeration(total, Chain(TRANSITION, INITIAL), starts_of(list(lengths)))


def test_messages_of_one_parent_are_posterior_and_cavity():
    likelihood, log_prior = evidence(6), np.log([0.2, 0.3, 0.5])
    posterior = fitted().infer([message(likelihood, log_prior)], None)
    oracle = exact([likelihood])
    np.testing.assert_allclose(posterior.up.log_prob, oracle.posterior(), **ROUNDING)
    (down,) = posterior.down
    np.testing.assert_allclose(down.log_prob, oracle.cavity(), **ROUNDING)
    assert down.is_prior
    assert not posterior.up.is_prior


def test_parents_multiply_and_each_gets_what_the_others_say():
    likelihoods = [evidence(6, seed) for seed in range(3)]
    posterior = fitted().infer([message(likelihood) for likelihood in likelihoods], None)
    oracle = exact(likelihoods)
    np.testing.assert_allclose(posterior.up.log_prob, oracle.posterior(), **ROUNDING)
    for own, down in zip(likelihoods, posterior.down, strict=True):
        oracle.own = own[np.arange(6), oracle.paths]  # only what this parent says is left out
        np.testing.assert_allclose(down.log_prob, oracle.cavity(), **ROUNDING)


def test_children_count_downwards_and_for_classes_but_not_upwards():
    likelihood, child = evidence(6), message(evidence(6, seed=1))
    model, inputs = fitted(), [message(likelihood)]
    posterior = model.infer(inputs, child)
    oracle = exact([likelihood], child.log_prob)
    np.testing.assert_allclose(posterior.classes.log_prob, oracle.posterior(), **ROUNDING)
    oracle.own = likelihood[np.arange(6), oracle.paths]
    np.testing.assert_allclose(posterior.down[0].log_prob, oracle.cavity(), **ROUNDING)
    assert_same(posterior.up, model.infer(inputs, None).up)


def test_rows_are_smoothed_once_or_once_more_with_what_children_say(monkeypatch):
    model, inputs, calls = fitted(), [message(evidence(6)), message(evidence(6, seed=1))], []
    monkeypatch.setattr(
        chains, "forward_backward", lambda *a: calls.append(a) or forward_backward(*a)
    )
    bound_of(model.infer(inputs, None))
    assert len(calls) == 1
    bound_of(model.infer(inputs, Categorical.uniform(6, K)))
    assert len(calls) == 3


@pytest.mark.parametrize("log_prior", [None, np.log([0.2, 0.3, 0.5])])
def test_bound_leaves_out_what_the_parents_terms_hold(log_prior):
    """With P(k) of the parents' own at first, with the messages last sent down later."""
    model, likelihood = fitted(), evidence(6)
    probability = Categorical(log_softmax(likelihood, axis=1), log_prior=log_prior)
    likelihood = probability.log_likelihood
    total = exact([likelihood]).log_likelihood / 6
    posterior = model.infer([probability], None)
    own = np.full(K, -np.log(K)) if log_prior is None else log_prior
    for used in (own, posterior.down[0].log_prob):
        parents = np.logaddexp.reduce(likelihood + used, axis=1).mean()
        bound = bound_of(model.infer([probability], None))
        np.testing.assert_allclose(bound, total - parents, **ROUNDING)
        model.posterior = posterior


def test_children_teach_the_transitions():
    states = np.arange(60) % K
    teller = Teller(message(50 * np.eye(K)[states]))
    x = np.random.default_rng(0).normal(size=(60, D))
    _, markov = connected(x, lengths=None)
    teller.connect(markov).update()
    markov.update()
    assert np.diag(markov.transition_[:, [1, 2, 0]]).min() > 0.95
    assert accuracy(states, markov.messages_down[0].log_prob.argmax(axis=1)) > 0.9


def test_own_evidence_of_a_row_does_not_come_back():
    likelihood, model = evidence(20), fitted()
    (before,) = model.infer([message(likelihood)], None).down
    likelihood[7] += [4.0, -2.0, 0.0]
    (after,) = model.infer([message(likelihood)], None).down
    np.testing.assert_allclose(after.log_prob[7], before.log_prob[7], **ROUNDING)
    assert np.abs(after.log_prob[8] - before.log_prob[8]).max() > 0.1


def test_chain_that_forgets_changes_nothing():
    uniform = np.full((K, K), 1 / K)
    model = fitted(uniform, uniform[0])
    parent = message(evidence(20))
    posterior = model.infer([parent], None)
    np.testing.assert_allclose(posterior.up.log_prob, parent.log_prob, **ROUNDING)
    np.testing.assert_allclose(posterior.down[0].log_prob, np.log(uniform[0, 0]), **ROUNDING)


def test_rows_not_observed_get_their_class_from_their_neighbours():
    likelihood, observed = evidence(6), np.array([1, 1, 0, 1, 0, 1], dtype=bool)
    log_prior = np.log(INITIAL)
    log_prob = message(likelihood, log_prior).log_prob
    parent = Categorical(log_prob, log_prior=log_prior, observed=observed)
    oracle = exact([np.where(observed[:, None], likelihood, 0)])
    up = fitted().infer([parent], None).up
    np.testing.assert_allclose(up.log_prob, oracle.posterior(), **ROUNDING)
    assert up.observed is None


def test_rows_missing_in_training_leave_the_graph_exact():
    x, _ = sequences()
    observed = np.random.default_rng(0).random(N) > 0.2
    mixture = GMM(K, inference="ml", means_init=[[0, 0], [1, 0], [0, 1]], random_state=0)
    mixture.connect(Observation(x, observed=observed))
    markov = MarkovModel(lengths=LENGTHS).connect(mixture)
    for _ in range(3):
        mixture.update()
        markov.update()
    emissions = as_hmmlearn(mixture, markov)._compute_log_likelihood(x)
    emissions = np.where(observed[:, None], emissions, 0)
    probabilities = np.exp(markov.message_up.log_prob)
    np.testing.assert_allclose(probabilities, markov.predict_proba(emissions), **ROUNDING)


# -- sequences -------------------------------------------------------------------------------------


def test_groups_are_sequences_wherever_their_rows_stand():
    likelihood, lengths = evidence(60), [10, 20, 30]
    groups = np.repeat(["c", "a", "b"], lengths)
    interleaved = np.random.default_rng(1).permutation(60)
    for name in np.unique(groups):  # rows of one group stay in their order
        places = np.flatnonzero(groups[interleaved] == name)
        interleaved[places] = np.sort(interleaved[places])
    whole = MarkovModel(lengths=lengths).fit(likelihood)
    mixed = MarkovModel(groups=groups[interleaved]).fit(likelihood[interleaved])
    np.testing.assert_allclose(mixed.transition_, whole.transition_, **ROUNDING)
    np.testing.assert_allclose(mixed.initial_, whole.initial_, **ROUNDING)
    found, expected = (
        mixed.predict_proba(likelihood[interleaved]),
        whole.predict_proba(likelihood),
    )
    np.testing.assert_allclose(found, expected[interleaved], **ROUNDING)
    np.testing.assert_array_equal(
        mixed.viterbi(likelihood[interleaved]), whole.viterbi(likelihood)[interleaved]
    )
    np.testing.assert_allclose(mixed.forecast()[[2, 0, 1]], whole.forecast(), **ROUNDING)


def test_sequences_do_not_touch():
    likelihood = evidence(12)
    model = fitted(lengths=[5, 7])
    before = model.predict_proba(likelihood)
    likelihood[:5] += np.random.default_rng(1).normal(size=(5, K))
    after = model.predict_proba(likelihood)
    np.testing.assert_allclose(after[5:], before[5:], **ROUNDING)
    assert np.abs(after[:5] - before[:5]).max() > 0.1


def test_permuted_classes_give_permuted_models():
    likelihood, order = evidence(80), [2, 0, 1]
    start = {"transition_init": TRANSITION, "initial_init": INITIAL}
    turned = {"transition_init": TRANSITION[order][:, order], "initial_init": INITIAL[order]}
    plain, permuted = (
        MarkovModel(**start).fit(likelihood),
        MarkovModel(**turned).fit(likelihood[:, order]),
    )
    np.testing.assert_allclose(permuted.transition_, plain.transition_[order][:, order], **ROUNDING)
    np.testing.assert_allclose(
        permuted.predict_proba(likelihood[:, order]), plain.predict_proba(likelihood)[:, order]
    )


# -- learning --------------------------------------------------------------------------------------


def test_bound_never_falls_and_is_reported():
    model = MarkovModel(transition_prior=2.0, initial_prior=3.0, max_iter=50, tol=1e-8)
    model.fit(3 * evidence(100))
    assert np.diff(model.lower_bound_).min() > -1e-12
    report = model.history_[0]
    assert report["log_likelihood"] == model.log_likelihood_[-1]
    assert report["lower_bound"] == model.lower_bound_[-1]
    assert report["n_iter"] == len(model.lower_bound_)
    assert model.converged_
    smoothed = forward_backward(3 * evidence(100), model.chain(), starts_of([100]))
    assert report["log_likelihood"] == smoothed.log_normalisers.mean()


def test_priors_keep_transitions_possible_and_zeros_stay():
    states = np.arange(60) % K
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(K))[states]
    flat = MarkovModel().fit(certain)
    np.testing.assert_allclose(flat.transition_, np.roll(np.eye(K), 1, axis=1))
    np.testing.assert_allclose(flat.initial_, [1, 0, 0])
    prior = 1 + np.eye(K)
    model = MarkovModel(transition_prior=prior, initial_prior=2.0).fit(certain)
    counts = 59 * np.roll(np.eye(K), 1, axis=1) / K + np.eye(K)
    counts[[0, 1], [1, 2]] += 1 / 3  # 20 + 20 + 19 transitions
    counts[2, 0] -= 2 / 3
    np.testing.assert_allclose(model.transition_, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(model.initial_, [0.5, 0.25, 0.25])


def test_priors_move_an_iteration_as_hmmlearns():
    x, _ = sequences()
    density = MixtureDensity(np.ones(K) / K, [[0, 0], [2, 0], [0, 2]], [np.eye(D)] * K)
    priors = 1 + 5 * np.random.default_rng(0).random((K, K)), np.array([2.0, 4.0, 1.0])
    start = {"transition_init": TRANSITION, "initial_init": INITIAL, "max_iter": 1}
    names = dict(zip(("transition_prior", "initial_prior"), priors, strict=True))
    markov = MarkovModel(lengths=LENGTHS, **names, **start)
    with pytest.warns(ConvergenceWarning):
        markov.fit(density.component_log_prob(x))
    names = dict(zip(("transmat_prior", "startprob_prior"), priors, strict=True))
    peer = GaussianHMM(K, "full", params="st", init_params="", n_iter=1, **names)
    peer.startprob_, peer.transmat_ = INITIAL, TRANSITION
    peer.means_, peer.covars_ = density.means, density.covariances
    peer.fit(x, LENGTHS)
    np.testing.assert_allclose(markov.transition_, peer.transmat_, **ROUNDING)
    np.testing.assert_allclose(markov.initial_, peer.startprob_, **ROUNDING)


def test_chains_from_left_to_right_stay_so():
    forward = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    start = {"transition_init": forward, "initial_init": [1.0, 0.0, 0.0]}
    markov = MarkovModel(lengths=[7, 4, 1], max_iter=200, **start).fit(evidence())
    assert (markov.transition_[forward == 0] == 0).all()
    assert markov.initial_.tolist() == [1, 0, 0]
    path = markov.viterbi(evidence())
    assert min(np.diff(path[:7]).min(), np.diff(path[7:11]).min()) >= 0


def test_classes_without_a_row_keep_the_transitions_they_start_from():
    rows = evidence(60)
    rows[:, 2] = -np.inf
    markov = MarkovModel(transition_init=TRANSITION, max_iter=200).fit(rows)
    np.testing.assert_array_equal(markov.transition_[2], TRANSITION[2])
    np.testing.assert_allclose(markov.transition_.sum(axis=1), 1)
    assert markov.initial_[2] == 0
    assert not markov.predict_proba(rows)[:, 2].any()


def test_order_of_sequences_makes_no_difference():
    parts, found = np.split(evidence(), [5, 9]), []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        rows, lengths = np.vstack([parts[i] for i in order]), [len(parts[i]) for i in order]
        found.append(MarkovModel(lengths=lengths, max_iter=200).fit(rows))
    for other in found[1:]:
        np.testing.assert_allclose(other.transition_, found[0].transition_, **ROUNDING)


def test_a_row_far_from_all_classes_underflows_nothing():
    x = np.repeat([0.0, 5.0, 0.0, 5.0], 20)
    x[8] = 10_000
    density = MixtureDensity([0.5, 0.5], [[0.0], [5.0]], [1.0, 1.0], "spherical")
    rows = density.component_log_prob(x[:, None])
    markov = MarkovModel(initial_init=[0.0, 1.0], max_iter=100).fit(rows)
    assert np.isfinite(markov.score(rows))
    np.testing.assert_allclose(markov.predict_proba(rows).sum(axis=1), 1)
    assert markov.viterbi(rows)[[0, 8, 9]].tolist() == [1, 1, 0]


def test_warm_start_goes_on_from_the_last_parameters():
    rows = evidence(50)
    warm, cold = MarkovModel(max_iter=1), MarkovModel(max_iter=1, warm_start=False)
    for _ in range(2):
        warm.fit(rows)
        cold.fit(rows)
    np.testing.assert_array_equal(cold.transition_, MarkovModel(max_iter=1).fit(rows).transition_)
    np.testing.assert_allclose(warm.log_likelihood_[0], cold.log_likelihood_[-1], **ROUNDING)
    assert warm.log_likelihood_[-1] > warm.log_likelihood_[0]


# -- what the chain tells --------------------------------------------------------------------------


def test_forecast_follows_the_transitions_from_each_sequences_end():
    model = MarkovModel(lengths=[5, 7], transition_prior=2.0).fit(evidence())
    ends = model.predict_proba(evidence())[[4, 11]]
    expected = [ends @ np.linalg.matrix_power(model.transition_, h) for h in (1, 2, 3)]
    found = model.forecast(3)
    assert found.shape == (2, 3, K)
    np.testing.assert_allclose(found, np.stack(expected, axis=1))
    far = model.forecast(200)[:, -1]
    np.testing.assert_allclose(far @ model.transition_, far, **ROUNDING)


def test_forecast_equals_smoothing_rows_not_yet_seen():
    longer = np.vstack([evidence(), np.zeros((2, K))])
    model = MarkovModel().fit(evidence())
    np.testing.assert_allclose(model.forecast(2)[0], model.predict_proba(longer)[-2:], **ROUNDING)


def test_samples_have_the_models_frequencies_and_repeat():
    model = fitted(random_state=3)
    path = model.sample(20_000)
    np.testing.assert_array_equal(path, model.sample(20_000))
    assert (path != model.sample(20_000, random_state=4)).any()
    counts = np.zeros((K, K))
    np.add.at(counts, (path[:-1], path[1:]), 1)
    n = counts.sum(axis=1, keepdims=True)
    error = np.sqrt(TRANSITION * (1 - TRANSITION) / n)
    assert (np.abs(counts / n - TRANSITION) <= 5 * error).all()


def test_samples_go_on_from_a_class():
    markov = MarkovModel(random_state=3).set_chain(TRANSITION, [0, 0, 1])
    for first in range(K):
        path = markov.sample(5_000, first=first)
        assert path[0] == first
        np.testing.assert_array_equal(path, markov.sample(5_000, first=first))
        follows = np.bincount(path[1:][path[:-1] == 0], minlength=K)
        error = np.sqrt(TRANSITION[0] * (1 - TRANSITION[0]) / follows.sum())
        assert (np.abs(follows / follows.sum() - TRANSITION[0]) <= 5 * error).all()
    before = markov.sample(100)  # draws that go on are others, though the seed is the same
    assert (before[1:] != markov.sample(100, first=before[-1])[1:]).any()
    assert (markov.sample(100, first=2) != before).any()
    with pytest.raises(InputError, match="MarkovModel: first=3 does not exist; they are 0 to 2"):
        markov.sample(2, first=3)


def test_graph_samples_sequences_or_rows_of_one_class():
    x, _ = sequences(distance=20.0)
    mixture, markov = connected(x)
    graph = Graph(markov)
    rows = graph.sample(200, random_state=1)
    np.testing.assert_array_equal(mixture.predict(rows), markov.sample(200, random_state=1))
    assert set(mixture.predict(graph.sample(20, component=2))) == {2}
    with pytest.raises(InputError, match=r"component=3 does not exist"):
        graph.sample(2, component=3)


def test_saved_graph_predicts_forecasts_and_trains_on_alike(tmp_path):
    x, states = sequences()
    _, markov = connected(x, labels=states)
    graph = Graph(markov)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[x])
    again = loaded["markovmodel"]
    assert_same(markov.get_state(), again.get_state())
    assert_same(graph.predict(x).messages, loaded.predict(x).messages)
    np.testing.assert_array_equal(again.forecast(3), markov.forecast(3))
    np.testing.assert_array_equal(again.viterbi(), markov.viterbi())
    for one in (graph, loaded):
        one.fit(2, verbose=False)
    assert_same(markov.transition_, again.transition_)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lengths": [5, 6]}, r"lengths add up to 11, but there are 12 rows.*set_params"),
        ({"lengths": [12.0]}, r"lengths must be a list of integers >= 1, got \[12.0\]"),
        ({"lengths": [12, 0]}, r"lengths must be a list of integers >= 1"),
        ({"lengths": []}, r"lengths must be a list of integers >= 1"),
        ({"groups": [1, 2]}, r"groups must hold one entry per row, got shape \(2,\) for 12 rows"),
        ({"groups": [None, *range(11)]}, r"groups must be all numbers or all strings"),
        ({"groups": [0] * 12, "lengths": [12]}, r"give lengths or groups, not both"),
        ({"transition_prior": 0.5}, r"transition_prior must be a number >= 1 or an array \(3, 3\)"),
        ({"initial_prior": np.ones(2)}, r"initial_prior must be a number >= 1 or an array \(3,\)"),
        ({"transition_init": np.eye(2)}, r"transition_init must be an array \(3, 3\) of prob"),
        ({"initial_init": [0.5, 0.6, 0.7]}, r"initial_init must be an array \(3,\) of prob"),
        ({"initial_init": [-1.0, 1.0, 1.0]}, r"initial_init must be"),
        ({"max_iter": 0}, r"max_iter must be an integer >= 1, got 0"),
        ({"tol": -1}, r"tol must be a number >= 0"),
        ({"labels": [0, 1]}, r"labels has 2 entries for 12 rows"),
        ({"random_state": -1}, r"random_state must be an integer >= 0 or a NumPy random generator"),
    ],
)
def test_bad_options_are_named_and_lose_nothing(options, text):
    model = MarkovModel().fit(evidence())
    before = model.get_state()
    model.set_params(**options)
    with pytest.raises(InputError, match=rf"MarkovModel: {text}"):
        model.fit(evidence())
    assert_same(before, model.get_state())


@pytest.mark.parametrize(
    "rows", [np.zeros(3), np.zeros((0, 3)), [["a"]], np.full((2, 3), np.nan), [[np.inf, 0.0]]]
)
def test_bad_log_likelihoods_are_refused(rows):
    with pytest.raises(InputError, match=r"MarkovModel\..*: expected"):
        MarkovModel().fit(rows)
    with pytest.raises(InputError, match=r"MarkovModel\..*: expected"):
        fitted().predict_proba(rows)


def test_lengths_in_the_place_of_y_are_refused():
    model, rows = fitted(), evidence()
    before = model.get_state()
    with pytest.raises(InputError, match=r"fit: expected y of 12 rows.*set_params\(lengths="):
        model.fit(rows, [5, 7])
    with pytest.raises(InputError, match=r"score: expected y of 12 rows.*score\(log_likelihood, l"):
        model.score(rows, [5, 7])
    assert_same(before, model.get_state())


def test_impossible_rows_are_named():
    with np.errstate(divide="ignore"):
        cycle = np.log(np.eye(K))[np.arange(30) % K]
        broken = np.log(np.eye(K))[[0, 1, 0]]
    model = MarkovModel().fit(cycle)
    for method in (model.predict_proba, model.viterbi):
        with pytest.raises(InputError, match=r"row 2 is impossible.*transition_prior"):
            method(broken)
    model.set_params(groups=["b", "a", "b"], transition_init=np.eye(K), warm_start=False)
    before = model.get_state()
    with pytest.raises(InputError, match="row 2 is impossible"):
        model.fit(broken[[0, 2, 1]])
    assert_same(before, model.get_state())


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(InputError, match="X has 4 features, but MarkovModel is expecting 3"):
        fitted().predict_proba(evidence(k=4))
    x, _ = sequences()
    obs = Observation(x)
    parents = [GMM(k, random_state=0).connect(obs) for k in (2, 3)]
    markov = MarkovModel().connect(*parents)
    with pytest.raises(InputError, match=r"MarkovModel.*probabilities of \[2, 3\] classes"):
        Graph(markov).check()


def test_nothing_to_tell_before_fitting():
    model = MarkovModel()
    for ask in (model.chain, model.forecast, model.sample):
        with pytest.raises(NotFittedError, match=r"MarkovModel is not fitted yet: call update"):
            ask()
    with pytest.raises(NotReadyError, match="MarkovModel is not connected"):
        model.viterbi()
    with pytest.raises(InputError, match="n_steps must be an integer >= 1, got 0"):
        fitted().forecast(0)


def test_learning_that_stops_at_max_iter_says_so():
    evidence = np.random.default_rng(0).normal(size=(60, 3))
    with pytest.warns(ConvergenceWarning, match="MarkovModel stopped at max_iter=2, before"):
        MarkovModel(max_iter=2).fit(evidence)
