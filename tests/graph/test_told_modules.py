"""What a mixture does with what it is told, once its rows have moved and where they have not."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax
from scipy.stats import entropy

from serkit import Graph, Module, Observation, Posterior
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.modules import GMM, MLDA, VAE
from serkit.modules.mixture import em
from tests.helpers.modules import Teller

K, N = 3, 90
CLASSES = np.arange(N) % K
CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
NOISE = np.random.default_rng(0).normal(size=(N, 2))


class Latents(Module):
    """Sends latents about the centres of the classes, which trade places in every update."""

    takes_from_parents = (Data,)
    takes_from_children = (Mixture,)
    sends_up = Gaussian

    def learn(self, inputs, from_children):
        self.turns_ = getattr(self, "turns_", -1) + 1
        return {}

    def infer(self, inputs, from_children):
        return Posterior(up=Gaussian(CENTRES[(CLASSES + self.turns_) % K] + NOISE), down=(None,))


def told(certainty=0.8, is_prior=True):
    """A message that gives the true class of each row this probability."""
    probabilities = np.full((N, K), (1 - certainty) / (K - 1))
    probabilities[np.arange(N), CLASSES] = certainty
    return Categorical(np.log(probabilities), is_prior=is_prior)


def graph(message, **options):
    latents = Latents().connect(Observation(np.zeros((N, 1)))).update()
    gmm = GMM(K, random_state=0, labels=CLASSES, **options).connect(latents)
    return latents, gmm, Teller(message).connect(gmm)


@pytest.mark.parametrize("is_prior", [True, False], ids=["prior", "evidence"])
def test_rows_that_have_moved_are_fitted_from_what_is_told_and_to_convergence(is_prior):
    """A step from the mixture of the latents before would be one from clusters of other classes."""
    latents, gmm, teller = graph(told(is_prior=is_prior))
    gmm.update()
    teller.update()
    for _ in range(2):
        latents.update()
        gmm.update()
        assert gmm.converged_
        np.testing.assert_array_equal(gmm.posterior.clusters, CLASSES)  # the message's numbers
        nearest = CENTRES[(np.arange(K) + latents.turns_) % K]
        np.testing.assert_allclose(gmm.means_, nearest, atol=1)  # 30 rows a class: 5 errors


def test_rows_that_have_not_moved_take_one_step_from_the_last_mixture():
    """Half of Baum-Welch under a Markov model: see test_objective."""
    _, gmm, teller = graph(told(0.5))
    gmm.update()
    teller.update()
    before = gmm.density()
    gmm.update()
    assert gmm.history_[-1]["n_iter"] == 2  # the start's log-likelihood, and after the step
    x = gmm.parents[0].message_up.mean
    k = gmm.n_components
    problem = gmm._problem(em.Rows(x), told(0.5), k, x.mean(axis=0), x.var(axis=0))
    [statistics] = em.e_step(problem.rows, [before], told(0.5))
    step = em.m_step(statistics, problem.prior, gmm.reg_covar)
    np.testing.assert_allclose(gmm.means_, step.means, atol=1e-9)


def test_a_frozen_parent_that_is_updated_again_has_not_moved():
    latents, gmm, teller = graph(told(0.5))
    gmm.update()
    teller.update()
    latents.freeze().update()
    gmm.update()
    assert gmm.history_[-1]["n_iter"] == 2


def test_evidence_goes_on_to_convergence_in_any_case():
    _, gmm, teller = graph(told(0.5, is_prior=False))
    gmm.update()
    teller.update()
    gmm.update()
    assert gmm.converged_


# -- starts ----------------------------------------------------------------------------------------


def problem(message):
    x = CENTRES[CLASSES] + NOISE
    return em.Problem(em.Rows(x), message, K, "full", None, 1e-6, max_iter=50, tol=1e-6)


def test_a_message_that_tells_nothing_is_no_start():
    same = np.tile(np.log([0.7, 0.2, 0.1]), (N, 1))
    for message in (Categorical.uniform(N, K), Categorical(same)):
        np.testing.assert_allclose(em.information_of(message), 0, atol=1e-12)
        assert em.starts_from_children(problem(message), message) == []


def test_rows_of_which_nothing_is_said_do_not_draw_the_start_to_the_middle():
    """Labels of a fifth of the rows: the start's means are the labelled rows'."""
    known = np.arange(N) < N // 5
    probabilities = np.where(known[:, None], 0.998 * np.eye(K)[CLASSES] + 0.001, 1 / K)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    message = Categorical(np.log(probabilities))
    (start,) = em.starts_from_children(problem(message), message)
    np.testing.assert_allclose(start.means, CENTRES, atol=2)  # 6 rows a class


def test_information_is_the_divergence_from_the_mean():
    log_prob = log_softmax(np.random.default_rng(1).normal(size=(N, K)), axis=1)
    mean = np.exp(log_prob).mean(axis=0)
    expected = [entropy(p, mean) / np.log(K) for p in np.exp(log_prob)]
    np.testing.assert_allclose(em.information_of(Categorical(log_prob)), expected)


def test_random_starts_number_their_components_as_the_message_does():
    message = told(0.6)
    for start in em.plus_plus_starts(problem(message), 5, np.random.default_rng(0)):
        shared = np.exp(message.log_prob).T @ em.responsibilities_of(
            problem(message).rows, start, None
        )
        _, order = linear_sum_assignment(shared, maximize=True)
        np.testing.assert_array_equal(order, np.arange(K))


# -- exchanges of components -------------------------------------------------------------------


class Still(Latents):
    """Sends the same latents in every update."""

    def infer(self, inputs, from_children):
        return Posterior(up=Gaussian(CENTRES[CLASSES] + NOISE), down=(None,))


class Pupil(Teller):
    """Tells as one that learns what the mixture's components mean."""

    learns_classes = True


def contradicting():
    """A message that is sure who is 0 and who is 1 of the rows of class 0, whatever they look."""
    of_first = np.random.default_rng(1).integers(2, size=N)
    heard = np.where(CLASSES == 0, of_first, 2)
    return Categorical(np.log(0.99 * np.eye(K)[heard] + 0.01 / K), is_prior=True)


def stuck(child=Pupil, **options):
    """Two components in class 0 and one over the classes 1 and 2, and a child that says as much."""
    latents = Still().connect(Observation(np.zeros((N, 1)))).update()
    start = {"means_init": [[-0.5, 0.0], [0.5, 0.0], [5.0, 5.0]], "n_init": (1, 0)}
    gmm = GMM(K, labels=CLASSES, random_state=0, **start, **options).connect(latents).update()
    teller = child(contradicting()).connect(gmm).update()
    return latents, gmm, teller


def in_turn(latents, gmm, n_updates):
    for _ in range(n_updates):
        latents.update()
        gmm.update()


def test_components_are_exchanged_once_hardly_any_row_changes_its_own():
    latents, gmm, _ = stuck()
    assert gmm.scores()["accuracy"] < 0.7
    in_turn(latents, gmm, 1)  # rows of class 0 trade places, as the child says
    assert gmm.history_[-1]["exchanges"] == 0
    assert gmm.scores()["accuracy"] < 0.7
    in_turn(latents, gmm, 1)
    assert gmm.history_[-1]["exchanges"] == 1
    assert gmm.scores()["accuracy"] == 1
    np.testing.assert_allclose(gmm.means_[0], CENTRES[0], atol=1)  # the union is 0


def test_a_child_speaks_of_the_components_as_they_were_until_it_has_heard():
    latents, gmm, pupil = stuck()
    in_turn(latents, gmm, 2)
    said = np.exp(contradicting().log_prob)
    heard = np.exp(gmm.received_from_children().log_prob)
    share = gmm.exchanges_["last"][0][-1]
    expected = [said[:, 0] + said[:, 1], share * said[:, 2], (1 - share) * said[:, 2]]
    np.testing.assert_allclose(heard, np.column_stack(expected))
    joint = gmm.message_up.log_likelihood + np.log(heard)
    expected = log_softmax(joint, axis=1)
    np.testing.assert_allclose(gmm.posterior.classes.log_prob, expected, atol=1e-9)
    again = gmm.density(), gmm.responsibilities_
    assert gmm._n_tries(problem(gmm.received_from_children()), *again) == 0  # it is to hear first
    in_turn(latents, gmm, 1)
    assert gmm.scores()["accuracy"] == 1
    pupil.update()
    np.testing.assert_array_equal(np.exp(gmm.received_from_children().log_prob), said)


def test_a_child_that_is_frozen_or_joined_by_another_has_not_heard():
    for second in (False, True):
        latents, gmm, pupil = stuck()
        in_turn(latents, gmm, 2)
        if second:
            Teller(told(1 / K)).connect(gmm).update()
        else:
            pupil.freeze().update()
        in_turn(latents, gmm, 2)
        assert gmm.scores()["accuracy"] == 1


def test_a_child_that_does_not_follow_ends_the_exchanges():
    """It says the same ever after; no triple is exchanged twice."""
    latents, gmm, pupil = stuck()
    exchanges = []
    for _ in range(12):
        in_turn(latents, gmm, 1)
        pupil.update()
        exchanges.append(gmm.history_[-1]["exchanges"])
    assert exchanges[1] == 1
    assert exchanges[-5:] == [0] * 5
    assert len(gmm.exchanges_["made"]) == sum(exchanges) == len(set(gmm.exchanges_["made"]))


def test_new_rows_are_of_the_components_as_they_are():
    latents, gmm, _ = stuck()
    graph = Graph(gmm.children[0])
    in_turn(latents, gmm, 2)
    found = graph.predict(np.zeros((N, 1))).messages["gmm"]
    np.testing.assert_array_equal(found.log_prob.argmax(axis=1), gmm.posterior.clusters)


def test_a_child_that_learns_follows():
    """Topics of words that tell class 0 from the others, and nothing of 1 and 2."""
    latents = Still().connect(Observation(np.zeros((N, 1)))).update()
    start = {"means_init": [[-0.5, 0.0], [0.5, 0.0], [5.0, 5.0]], "n_init": (1, 0)}
    gmm = GMM(K, labels=CLASSES, random_state=0, **start).connect(latents)
    words = np.random.default_rng(2).poisson(np.where(CLASSES == 0, 4, 0.5)[:, None], size=(N, 6))
    words = np.column_stack([words, np.random.default_rng(3).poisson(2, size=(N, 2)) + 1])
    mlda = MLDA(K, labels=CLASSES, random_state=0).connect(gmm, Observation(words))
    graph = Graph(mlda).fit(1, verbose=False)
    before = gmm.scores()["accuracy"], mlda.scores()["accuracy"]
    graph.fit(6, verbose=False)
    assert max(before) < 0.7
    assert gmm.scores()["accuracy"] == mlda.scores()["accuracy"] == 1


@pytest.mark.parametrize(
    "which", ["one that learns nothing", "frozen", "two", "no tries", "not moved", "evidence"]
)
def test_nothing_is_exchanged_where_nobody_would_follow(which):
    child = Teller if which == "one that learns nothing" else Pupil
    latents, gmm, pupil = stuck(child, n_split_merge=0 if which == "no tries" else None)
    if which == "frozen":
        pupil.freeze()
    elif which == "two":
        Teller(contradicting()).connect(gmm).update()
    elif which == "evidence":
        pupil.message = Categorical(contradicting().log_prob)
        pupil.update()
    if which == "not moved":
        gmm.update().update()
    else:
        in_turn(latents, gmm, 2)
    assert gmm.history_[-1]["exchanges"] == 0
    assert gmm.scores()["accuracy"] < 0.7


def test_an_exchange_that_a_child_has_not_heard_of_is_saved(tmp_path):
    rows = CENTRES[CLASSES] + NOISE
    vae = VAE(2, likelihood="gaussian", epochs=1, random_state=0).connect(Observation(rows))
    gmm = GMM(K, random_state=0).connect(vae)
    mlda = MLDA(K, random_state=0).connect(gmm, Observation(np.eye(K)[CLASSES] * 5, name="words"))
    graph = Graph(mlda).fit(2, verbose=False)
    gmm.exchanges_ = {
        "made": [(0, 1, 2)],
        "last": [(0, 1, 2, 0.25)],
        "n_sent": gmm.n_sent_,
    }
    heard = gmm.received_from_children().log_prob
    assert not np.array_equal(heard, mlda.messages_down[0].log_prob)
    graph.save(tmp_path / "graph")
    again = Graph.load(tmp_path / "graph")["gmm"]
    np.testing.assert_array_equal(again.received_from_children().log_prob, heard)
    assert again.exchanges_ == gmm.exchanges_
