"""NeighbourField: mean field on a Potts model, against sums over all classes of all rows."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning

from serkit import Graph, Observation, processes
from serkit.errors import GraphError, InputError, MessageError, NotFittedError
from serkit.messages import Categorical, Data, Gaussian
from serkit.metrics import accuracy
from serkit.module import bound_of, check_shares
from serkit.modules import GMM, NeighbourField
from serkit.modules.sequence import field as fields
from serkit.modules.sequence.field import beliefs_under, mean_field, neighbours_among, weights_of
from tests.helpers.modules import Sender, Teller
from tests.helpers.saved import assert_same

N, K, D = 7, 3, 2
# sums of the same numbers in different orders
ROUNDING = {"rtol": 0, "atol": 1e-9}
PRIOR = np.log([0.2, 0.3, 0.5])
settle = partial(mean_field, max_iter=2000, tol=1e-14)


class Potts:
    """All K^N classes of N rows, with the log of what each would count."""

    def __init__(self, log_joint, weights):
        self.n, self.k = log_joint.shape
        self.classes = np.array(list(product(range(self.k), repeat=self.n)))  # (K^N, N)
        differ = self.classes[:, :, None] != self.classes[:, None]
        self.pairs = -0.5 * (differ * weights).sum(axis=(1, 2))
        self.score = self.rows(log_joint) + self.pairs
        self.log_evidence = logsumexp(self.score)

    def rows(self, log_values):
        """Sums of each row's value (N, K) at its class: (K^N,)."""
        return log_values[np.arange(self.n), self.classes].sum(axis=1)

    def elbo(self, log_q):
        """E[score - log q] of independent rows."""
        log_weight = self.rows(log_q)
        return float(np.exp(log_weight) @ (self.score - log_weight))


def evidence(n=N, seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(n, K))


def places(n=N, seed=5):
    return np.random.default_rng(seed).normal(size=(n, D))


def weights(n=N, seed=5, n_neighbors=2):
    return weights_of(neighbours_among(places(n, seed), np.ones(n, bool), n_neighbors))


def message(log_likelihood, log_prior=PRIOR, **options):
    """What a parent with these likelihoods and class prior sends up."""
    log_prob = log_softmax(log_likelihood + log_prior, axis=1)
    return Categorical(log_prob, log_prior=log_prior, **options)


def connected(classes, rows=None, observed=None, **options):
    """A field on a parent that says this of the rows' classes, and on their places."""
    rows = places(classes.n_rows) if rows is None else rows
    where = Observation(rows, observed=observed, name="places")
    says = Sender(classes).connect(Observation(rows, name="rows")).update()
    options = {"n_neighbors": 2, "coupling": 2.0, "tol": 1e-14, **options}
    return NeighbourField(**options).connect(says, where)


# -- the graph of neighbours -----------------------------------------------------------------------


def test_weights_are_the_mean_of_what_each_counts_for_the_other():
    rows, observed = places(40), np.arange(40) % 9 != 4
    found = weights_of(neighbours_among(rows, observed, 3)).toarray()
    distance = np.linalg.norm(rows[:, None] - rows, axis=2)
    distance[np.diag_indices(40)] = distance[:, ~observed] = np.inf
    counts = np.zeros((40, 40))
    for n in np.flatnonzero(observed):
        counts[n, np.argsort(distance[n])[:3]] = 1 / 3
    np.testing.assert_allclose(found, (counts + counts.T) / 2, **ROUNDING)
    np.testing.assert_allclose(found.sum(), observed.sum())


def test_equal_rows_are_each_others_neighbours_but_never_their_own():
    neighbours = neighbours_among(np.zeros((6, 2)), np.ones(6, bool), 5)
    assert [set(row) | {n} for n, row in enumerate(neighbours.tolist())] == [set(range(6))] * 6


# -- mean field ------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", [0.0, 0.5, 3.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_bound_is_the_elbo_never_falls_and_stays_below_the_evidence(coupling, seed):
    log_joint, w = evidence(seed=seed), coupling * weights(seed=seed)
    potts = Potts(log_joint, w.toarray())
    solution = settle(log_joint, w)
    np.testing.assert_allclose(N * solution.bounds[-1], potts.elbo(solution.log_prob), **ROUNDING)
    assert np.diff(solution.bounds).min() > -1e-12
    assert N * solution.bounds[-1] <= potts.log_evidence + 1e-9
    if coupling == 0:
        np.testing.assert_allclose(N * solution.bounds[-1], potts.log_evidence, **ROUNDING)


@pytest.mark.parametrize("coupling", [1.0, 8.0])
def test_it_ends_where_no_row_can_raise_the_bound(coupling):
    log_joint, w = evidence(50), coupling * weights(50, n_neighbors=5)
    solution = settle(log_joint, w)
    assert solution.converged
    best = log_softmax(log_joint + w @ np.exp(solution.log_prob), axis=1)
    # the bound is flat at its optimum: a gain of 1e-14 means that q may move by its square root
    np.testing.assert_allclose(np.exp(solution.log_prob), np.exp(best), rtol=0, atol=1e-5)


def test_where_whole_steps_would_swing_for_ever_shorter_ones_rise():
    """Two groups of rows that hear only each other, and start out with opposite classes."""
    w = 8.0 * (1 - np.kron(np.eye(2), np.ones((3, 3)))) / 3
    log_joint = np.log(np.repeat([[0.6, 0.4], [0.41, 0.59]], 3, axis=0))
    whole, bounds = np.zeros_like(log_joint), []
    for _ in range(20):
        beliefs = beliefs_under(whole, log_joint, w)
        whole = beliefs.next_field
        bounds.append(beliefs.bound)
    assert np.diff(bounds).min() < -1e-3
    solution = settle(log_joint, w)
    assert np.diff(solution.bounds).min() > -1e-12
    assert solution.bounds[-1] > max(bounds) + 0.1
    assert len(set(solution.log_prob.argmax(axis=1))) == 1


def test_max_iter_and_tol_stop_it():
    log_joint, w = evidence(50), 4 * weights(50, n_neighbors=5)
    short = mean_field(log_joint, w, max_iter=3, tol=0.0)
    assert (len(short.bounds), short.converged) == (3, False)
    gains = np.diff(mean_field(log_joint, w, max_iter=200, tol=1e-3).bounds)
    assert gains[-1] < 1e-3 <= gains[:-1].min()


def test_what_cannot_be_stays_impossible():
    log_joint = evidence()
    log_joint[2, 0] = log_joint[4, :2] = -np.inf
    w = 3 * weights()
    solution = settle(log_joint, w)
    assert np.isfinite(solution.bounds).all()
    np.testing.assert_array_equal(np.exp(solution.log_prob[4]), [0, 0, 1])
    assert solution.log_prob[2, 0] == -np.inf


# -- messages --------------------------------------------------------------------------------------


def test_first_message_leaves_out_the_rows_own_word_and_what_comes_back_is_as_stated():
    log_joint, w = evidence(30), 3 * weights(30, n_neighbors=4)
    changed = log_joint.copy()
    changed[7] += [4.0, -2.0, 0.0]
    before, after = (
        beliefs_under(np.zeros((30, K)), joint, w).next_field for joint in (log_joint, changed)
    )
    np.testing.assert_array_equal(before[7], after[7])
    heard = w.toarray()[7] > 0
    assert np.abs(before - after)[heard].max() > 0.1

    def answer(q):  # what row 7 hears once its neighbours have heard q
        beliefs = beliefs_under(w @ q, log_joint, w)
        return beliefs.next_field[7], np.exp(beliefs.log_prob)

    q, step = softmax(log_joint, axis=1), 1e-6
    moved = q.copy()
    moved[7, 1] += step
    (said, p), (said_then, _) = answer(q), answer(moved)
    expected = (w.toarray()[7] ** 2) @ (p[:, 1] * (1 - p[:, 1]))
    # a difference quotient, whose error is about the step
    np.testing.assert_allclose((said_then - said)[1] / step, expected, rtol=1e-4)


def test_posterior_and_message_down_are_those_of_mean_field():
    likelihood = evidence()
    field = connected(message(likelihood)).update()
    solution = settle(likelihood + PRIOR, 2 * weights())
    up, (down, nothing) = field.message_up, field.messages_down
    close = {"rtol": 0, "atol": 1e-6}  # the field's likelihoods differ by a constant a row
    np.testing.assert_allclose(up.log_prob, solution.log_prob, **close)
    np.testing.assert_allclose(
        down.log_prob, log_softmax(PRIOR + 2 * weights() @ np.exp(up.log_prob), axis=1), **close
    )
    assert down.is_prior
    assert nothing is None
    np.testing.assert_array_equal(up.log_prior, PRIOR)
    # in place of P(k), the message makes of the parent's word what the field believes
    told = field.parents[0].message * down
    np.testing.assert_allclose(told.log_prob, field.posterior.classes.log_prob, **ROUNDING)


def test_without_coupling_all_stays_as_the_parent_says():
    parent = message(evidence())
    field = connected(parent, coupling=0).update()
    np.testing.assert_allclose(field.message_up.log_prob, parent.log_prob, **ROUNDING)
    down = np.broadcast_to(PRIOR, (N, K))
    np.testing.assert_allclose(field.messages_down[0].log_prob, down, **ROUNDING)
    np.testing.assert_allclose(bound_of(field.posterior), 0, **ROUNDING)


@pytest.mark.parametrize("is_prior", [False, True])
def test_children_count_as_they_would_at_the_parent(is_prior):
    likelihood, log_prob = evidence(), log_softmax(evidence(seed=1), axis=1)
    child = Categorical(log_prob, is_prior=is_prior)
    field = connected(message(likelihood)).update()
    posterior = field.infer(field.received_from_parents(), child)
    assert_same(posterior.up, field.infer(field.received_from_parents(), None).up)
    prior = log_prob if is_prior else PRIOR + log_prob
    solution = settle(likelihood + prior, 2 * weights())
    close = {"rtol": 0, "atol": 1e-6}  # of two ends of mean field, as above
    np.testing.assert_allclose(posterior.classes.log_prob, solution.log_prob, **close)
    told = field.parents[0].message * posterior.down[0]
    np.testing.assert_allclose(told.log_prob, posterior.classes.log_prob, **ROUNDING)


def test_children_are_heard_in_learning():
    field = connected(message(evidence())).update()
    Teller(message(evidence(seed=1, scale=9))).connect(field).update()
    field.update()
    classes = np.exp(field.posterior.classes.log_prob)
    np.testing.assert_allclose(field.probabilities_, classes, **ROUNDING)
    assert np.abs(classes - np.exp(field.message_up.log_prob)).max() > 0.1


def test_rows_of_which_little_is_known():
    """Of row 1 only the place is known, of row 2 only the class, of row 3 nothing."""
    heard = np.array([1, 0, 1, 0, 1, 1, 1], dtype=bool)
    placed = np.array([1, 1, 0, 0, 1, 1, 1], dtype=bool)
    likelihood = evidence(scale=3)
    field = connected(message(likelihood, observed=heard), observed=placed).update()
    assert (field.neighbours_[~placed] == -1).all()
    assert not np.isin(field.neighbours_, [2, 3]).any()
    np.testing.assert_array_equal(field.message_up.is_observed, heard | placed)
    q, down = np.exp(field.message_up.log_prob), field.messages_down[0].log_prob
    w = 2 * weights_of(field.neighbours_)
    by_neighbours = softmax(PRIOR + w @ np.exp(field.posterior.classes.log_prob), axis=1)
    close = {"rtol": 0, "atol": 1e-6}  # mean field's end
    np.testing.assert_allclose(q[1], by_neighbours[1], **close)
    np.testing.assert_allclose(q[2], softmax(likelihood[2] + PRIOR), **close)
    np.testing.assert_allclose(down[[2, 3]], [PRIOR, PRIOR], **ROUNDING)
    np.testing.assert_allclose(field.posterior.classes.log_prob[3], PRIOR, **ROUNDING)


# -- what it is for --------------------------------------------------------------------------------


def test_it_corrects_noisy_classes():
    """Two moons, and a parent that is right of four rows in five, and sure of itself by as much."""
    rows, classes = make_moons(400, noise=0.06, random_state=0)
    rng = np.random.default_rng(0)
    said = np.where(rng.random(400) < 0.8, classes, 1 - classes)
    parent = Categorical(np.log(np.where(np.eye(2)[said] > 0, 0.8, 0.2)))
    field = connected(parent, rows, n_neighbors=10, coupling=8.0, labels=classes).update()
    assert field.scores()["accuracy"] == field.history_[0]["accuracy"] > 0.97
    assert accuracy(classes, field.messages_down[0].log_prob.argmax(axis=1)) > 0.97


def test_other_rows_are_believed_one_by_one_by_their_nearest_among_those_learnt():
    field = connected(message(evidence(30)), n_neighbors=4).update()
    new, likelihood = places(6, seed=8), evidence(6, seed=9)
    observed = np.arange(6) != 2
    inputs = [message(likelihood), Data(new, observed=observed)]
    posterior = field.infer(inputs, None)
    distance = np.linalg.norm(new[:, None] - field.rows_, axis=2)
    nearest = np.argsort(distance, axis=1)[:, :4]
    said = 2 * field.probabilities_[nearest].mean(axis=1) * observed[:, None]
    down = log_softmax(PRIOR + said, axis=1)
    np.testing.assert_allclose(posterior.down[0].log_prob, down, **ROUNDING)
    up = log_softmax(likelihood + down, axis=1)
    np.testing.assert_allclose(posterior.up.log_prob, up, **ROUNDING)
    assert posterior.bound is None
    one = field.infer([message(likelihood[:1]), Data(new[:1])], None)
    np.testing.assert_allclose(one.up.log_prob, up[:1], **ROUNDING)


def test_neighbours_are_looked_for_only_when_rows_or_their_number_change(monkeypatch):
    field, calls = connected(message(evidence(30))), []
    monkeypatch.setattr(
        fields, "neighbours_among", lambda *a: calls.append(a) or neighbours_among(*a)
    )
    field.update()
    field.update()
    assert len(calls) == 1
    field.set_params(n_neighbors=4).update()
    assert field.neighbours_.shape == (30, 4)
    field.connect(field.parents[0], Observation(places(30, seed=6))).update()
    assert len(calls) == 3


def test_another_number_of_classes_starts_afresh():
    field = connected(message(evidence())).update()
    two = Categorical(log_softmax(evidence()[:, :2], axis=1))
    field.parents[0].message = two
    field.parents[0].update()
    field.update()
    assert field.probabilities_.shape == (N, 2)
    assert np.isfinite(field.posterior.bound)


# -- the joint objective ---------------------------------------------------------------------------


def test_with_a_mixture_the_objective_is_a_bound_on_the_evidence():
    rows = places(seed=1) + 2 * np.array([0, 1, 0, 1, 1, 0, 1])[:, None]
    gmm = GMM(2, inference="ml", reg_covar=0.1, means_init=[[0.0, 0], [2, 2]], random_state=0)
    gmm.connect(Observation(rows)).update()
    field = NeighbourField(n_neighbors=2, coupling=1.5, tol=1e-12)
    field.connect(gmm, Observation(places(), name="places"))
    graph, w = Graph(field), 1.5 * weights().toarray()
    for _ in range(4):
        field.update()
        density = gmm.density()
        components = zip(density.means, density.full_covariances(), strict=True)
        likelihood = np.stack([multivariate_normal(*c).logpdf(rows) for c in components], axis=1)
        log_prior = np.log(density.weights)
        potts, prior = Potts(likelihood + log_prior, w), Potts(np.tile(log_prior, (N, 1)), w)
        objective, exact = graph.objective(), potts.log_evidence - prior.log_evidence
        elbo = potts.elbo(field.posterior.classes.log_prob)
        np.testing.assert_allclose(N * objective, elbo, **ROUNDING)
        assert elbo <= potts.log_evidence + 1e-9
        assert potts.log_evidence < exact
        looseness = -prior.log_evidence / N
        assert looseness <= -log_prior.max() + 1e-9
        assert looseness <= 1.5 / 2 * (1 - (density.weights**2).sum()) + 1e-9
        gmm.update()


def test_latents_that_only_the_field_hears_leave_no_objective():
    rows = Observation(places())
    classes = Sender(message(evidence()), name="classes").connect(rows).update()
    latents = Sender(Gaussian.standard(N, D), name="latents").connect(rows).update()
    field = NeighbourField(n_neighbors=3).connect(classes, latents).update()
    assert field.posterior.bound is None
    GMM(1).connect(latents)
    assert np.isfinite(field.update().posterior.bound)


# -- errors ----------------------------------------------------------------------------------------


def test_parents_that_do_not_suit_are_named():
    gmm, rows = GMM(2, name="gmm"), Observation(places(), name="rows")
    gmm.connect(rows).update()
    text = r"NeighbourField: expected two parents.*as in connect\(gmm, vae\), got "
    for parents, names in ([gmm], "GMM 'gmm'"), ([rows, gmm], "Observation 'rows', GMM 'gmm'"):
        with pytest.raises(GraphError, match=text + names):
            NeighbourField().connect(*parents).update()
        gmm.children = ()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_neighbors": 5}, "n_neighbors=5 must be less than the number of rows with latents, 5"),
        ({"n_neighbors": 0}, "n_neighbors must be an integer >= 1, got 0"),
        ({"coupling": -1.0}, "coupling must be a number >= 0, got -1.0"),
        ({"max_iter": 0}, "max_iter must be an integer >= 1, got 0"),
        ({"tol": -1.0}, "tol must be a number >= 0, got -1.0"),
        ({"labels": [0, 1]}, "labels has 2 entries for 7 rows"),
    ],
)
def test_bad_options_are_named_and_lose_nothing(options, text):
    field = connected(message(evidence()), observed=np.arange(N) < 5).update()
    before = field.get_state()
    with pytest.raises(InputError, match=f"NeighbourField: {text}"):
        field.set_params(**options).update()
    assert_same(before, field.get_state())


def test_several_processes_cannot_learn_it(monkeypatch):
    field = connected(message(evidence()))
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(GraphError, match="NeighbourField cannot learn from rows that 2 processes"):
        check_shares(field)


def test_messages_that_do_not_fit_are_refused():
    field = connected(message(np.where(np.eye(K)[np.zeros(N, int)] > 0, 0, -np.inf)))
    inputs = field.received_from_parents()
    with pytest.raises(NotFittedError, match=r"knows no neighbours yet: call update\(\) first"):
        field.infer(inputs, None)
    field.update()
    with pytest.raises(
        InputError, match="its children sent probabilities of 2 classes for the parent's K=3"
    ):
        field.infer(inputs, Categorical.uniform(N, 2))
    other = message(np.where(np.eye(K)[np.full(N, 1)] > 0, 0, -np.inf))
    with pytest.raises(MessageError, match="contradict each other in row 0: no class has a posit"):
        field.infer(inputs, other)
    wide = [inputs[0], Data(np.zeros((N, 5)))]
    with pytest.raises(InputError, match="fitted on K=3 classes and D=2 columns, got 3 and 5"):
        field.infer(wide, None)


def test_neighbours_far_from_the_origin_are_those_near_it():
    rows = np.random.default_rng(0).normal(size=(60, 20))  # so many columns that all are compared
    observed = np.arange(60) > 3
    near = neighbours_among(rows, observed, 5)
    np.testing.assert_array_equal(neighbours_among(rows + 1e10, observed, 5), near)
    found = (fields.neighbours_of(rows + d, observed, rows + d, near) for d in (0.0, 1e10))
    np.testing.assert_array_equal(*found)


def test_mean_field_that_stops_at_max_iter_says_so():
    field = connected(message(evidence()), max_iter=1)
    with pytest.warns(ConvergenceWarning, match="NeighbourField stopped at max_iter=1, before"):
        field.update()
