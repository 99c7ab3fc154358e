"""Sums of rows by group upward, what is said of a group copied downward."""

import numpy as np
import pandas as pd
import pytest

from serkit import Graph, Observation
from serkit.errors import GraphError, InputError, MessageError
from serkit.messages import Categorical, Data
from serkit.modules import GMM
from serkit.modules.adapters.group_sum import GroupSum
from tests.helpers.modules import Teller

GROUPS = ["b", "a", "b", "c", "a", "b"]
ROWS_OF = [[0, 2, 5], [1, 4], [3]]  # in the order of first appearance: b, a, c
OBSERVED = np.array([True, False, False, False, True, True])
N, K, G = 6, 3, 3


def random_rows(shape=(N, 2), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def probabilities(n=N, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(K), n)


def categorical(n=N, seed=0, **options):
    return Categorical(np.log(probabilities(n, seed)), **options)


class Speaker(Observation):
    """A node without parents that sends class probabilities."""

    sends_up = Categorical

    def __init__(self, message):
        super().__init__(message.log_prob)
        self._message = message


@pytest.mark.parametrize("shape", [(N, 2), (N, 4, 3)])
def test_rows_of_data_are_summed_in_the_order_of_first_appearance(shape):
    rows = random_rows(shape)
    sent = GroupSum(GROUPS).infer([Data(rows)], None).up
    np.testing.assert_allclose(sent.array, [rows[own].sum(axis=0) for own in ROWS_OF])
    assert sent.observed is None


def test_class_probabilities_become_expected_counts():
    """The mean of bags of classes drawn row by row."""
    p = probabilities()
    sent = GroupSum(GROUPS).infer([categorical()], None).up.array
    rng = np.random.default_rng(1)
    draws = np.stack([rng.multinomial(1, row, 20_000) for row in p])  # (N, S, K)
    bags = np.stack([draws[own].sum(axis=0) for own in ROWS_OF])  # (G, S, K)
    error = bags.std(axis=1, ddof=1) / np.sqrt(bags.shape[1])
    assert (np.abs(bags.mean(axis=1) - sent) < 5 * error).all()
    np.testing.assert_allclose(sent.sum(axis=1), [3, 2, 1])


@pytest.mark.parametrize("kind", [Data, Categorical])
def test_missing_rows_add_nothing_and_groups_without_a_row_are_missing(kind):
    values = np.log(probabilities())
    full = values if kind is Data else np.exp(values)
    values = np.where(OBSERVED[:, None], values, np.nan)
    sent = GroupSum(GROUPS).infer([kind(values, observed=OBSERVED)], None).up
    np.testing.assert_array_equal(sent.observed, [True, True, False])
    np.testing.assert_allclose(sent.array[:2], [full[0] + full[5], full[4]])


@pytest.mark.parametrize("is_prior", [True, False])
def test_probabilities_of_a_group_are_copied_to_its_rows(is_prior):
    told = categorical(G, seed=1, is_prior=is_prior)
    (down,) = GroupSum(GROUPS).infer([categorical()], told).down
    for number, own in enumerate(ROWS_OF):
        for row in own:
            np.testing.assert_array_equal(down.log_prob[row], told.log_prob[number])
    assert down.is_prior is is_prior


def test_predicted_counts_become_probabilities_in_place_of_the_parents_own():
    counts = np.array([[1.0, 2, 1], [0, 0, 5], [0, 0, 0]])
    (down,) = GroupSum(GROUPS).infer([categorical()], Data(counts)).down
    expected = np.array([[0.25, 0.5, 0.25], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]])
    for number, own in enumerate(ROWS_OF):
        for row in own:
            np.testing.assert_allclose(np.exp(down.log_prob[row]), expected[number])
    assert down.is_prior


@pytest.mark.parametrize("shape", [(2,), (4, 3)])
@pytest.mark.parametrize("observed", [None, OBSERVED])
def test_predicted_sums_are_shared_out_so_that_observed_rows_add_up_to_them(shape, observed):
    sums = random_rows((G, *shape), seed=2)
    inputs = [Data(random_rows((N, *shape)), observed=observed)]
    (down,) = GroupSum(GROUPS).infer(inputs, Data(sums)).down
    assert down.shape == shape
    for number, own in enumerate(ROWS_OF):
        assert (down.array[own] == down.array[own[0]]).all()
        counted = [row for row in own if inputs[0].is_observed[row]] or own
        np.testing.assert_allclose(down.array[counted].sum(axis=0), sums[number])


def test_without_children_nothing_is_sent_down():
    assert GroupSum(GROUPS).infer([categorical()], None).down == (None,)


def test_own_group_a_row_changes_nothing():
    alone = GroupSum(np.arange(N))
    np.testing.assert_array_equal(alone.infer([Data(random_rows())], None).up.array, random_rows())
    (down,) = alone.infer([categorical()], Data(probabilities(seed=3))).down
    np.testing.assert_allclose(np.exp(down.log_prob), probabilities(seed=3))


# -- in graphs ---------------------------------------------------------------------------------


def episodes(n_episodes=40, n_rows=5, seed=0):
    """Rows of three blobs; the even episodes hold blobs 0 and 1, the odd ones blobs 1 and 2."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_episodes), n_rows)
    blobs = rng.integers(2, size=len(groups)) + groups % 2
    return groups, np.array([[0.0, 0], [6, 0], [0, 6]])[blobs] + rng.normal(size=(len(groups), 2))


def test_what_is_predicted_of_episodes_reaches_their_rows():
    groups, x = episodes()
    rows = GMM(3, random_state=0, name="rows").connect(Observation(x))
    sums = GroupSum(groups).connect(rows)
    counts = np.tile([[1.0, 4, 0], [0, 1, 4]], (20, 1))
    teller = Teller(Data(counts)).connect(sums)
    Graph(teller).fit(rounds=3)
    assert sums.message_up.array.shape == (40, 3)
    np.testing.assert_allclose(np.exp(rows.received_from_children().log_prob), counts[groups] / 5)
    found = np.exp(rows.messages_down[0].log_prob)
    assert (found[groups % 2 == 0, 2] == 0).all()
    assert (found[groups % 2 == 1, 0] == 0).all()


def test_saved_and_loaded_it_predicts_the_same_and_takes_other_groups(tmp_path):
    groups, x = episodes()
    names = np.array(["ape", "bee"])[groups % 2]
    sums = GroupSum(names).connect(GMM(3, random_state=0).connect(Observation(x)))
    graph = Graph(sums)
    graph.fit(rounds=1)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph")
    predicted = loaded.predict(x).messages["groupsum"].array
    np.testing.assert_array_equal(predicted, graph.predict(x).messages["groupsum"].array)
    with pytest.raises(InputError, match="group of each of 7 rows"):
        loaded.predict(x[:7])
    loaded["groupsum"].set_params(groups=np.zeros(7))
    rows = graph["gmm"].predict_proba(x[:7])
    message = loaded.predict(x[:7]).messages["groupsum"]
    np.testing.assert_allclose(message.array, [rows.sum(axis=0)])


def test_sample_goes_on_to_one_row_of_each_group():
    sums = GroupSum(["a", "a", "b", "b"]).connect(Observation(np.ones((4, 2))))
    (rows,) = sums.generate(1, np.random.default_rng(0), np.array([[4.0, 8.0]]))
    np.testing.assert_allclose(rows, [[2, 4]])
    sums.connect(Speaker(categorical(4)))
    (p,) = sums.generate(1, np.random.default_rng(0), np.array([[4.0, 8.0, 4.0]]))
    np.testing.assert_allclose(p, [[0.25, 0.5, 0.25]])


def test_other_rows_need_their_groups():
    sums = GroupSum(GROUPS).connect(Observation(random_rows())).update()
    before = sums.message_up
    text = r"GroupSum: expected the group of each of 4 rows, got groups of shape \(6,\); for other"
    sums.connect(Observation(random_rows((4, 2))))
    for call in (sums.update, lambda: sums.rows_sent(4), Graph(sums).check):
        with pytest.raises(InputError, match=text) as error:
            call()
        assert "set_params(groups=...)" in str(error.value)
    assert sums.set_params(groups=[1, 1, 1, 0]).update().message_up.n_rows == 2
    assert before.n_rows == G


@pytest.mark.parametrize(
    "groups",
    [
        ["a", None, "b", "b", "a", "a"],
        [0, np.nan, 1, 1, 0, 0],
        pd.array(["a", pd.NA, "b", "b", "a", "a"], dtype="string"),
    ],
)
def test_missing_group_is_named(groups):
    with pytest.raises(InputError, match="GroupSum: the group of row 1 is missing"):
        GroupSum(groups).connect(Observation(random_rows())).update()


@pytest.mark.parametrize("name", [{"a": 1}, np.zeros(2)])
def test_groups_that_cannot_be_told_apart_are_refused(name):
    text = r"GroupSum: groups must be numbers or names, got (\{|array).* in row 3"
    with pytest.raises(InputError, match=text):
        GroupSum(pd.Series([*"abb", name, *"aa"])).connect(Observation(random_rows())).update()


def test_groups_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="GroupSum: groups: expected rows of equal length"):
        GroupSum([["a"], ["b", "c"]]).connect(Observation(random_rows())).update()


@pytest.mark.parametrize("groups", ["abcdef", 3, np.zeros((N, 1))])
def test_groups_that_are_not_one_a_row_are_refused(groups):
    with pytest.raises(InputError, match=f"the group of each of {N} rows, got groups of shape"):
        GroupSum(groups).connect(Observation(random_rows())).update()


def test_two_parents_are_refused():
    sums = GroupSum(GROUPS).connect(Observation(random_rows()), Observation(random_rows()))
    with pytest.raises(GraphError, match="GroupSum takes one parent, got 2; give each one of its"):
        sums.update()


def test_negative_counts_are_refused():
    with pytest.raises(MessageError, match=r"GroupSum: its children predict negative.*-0\.5"):
        GroupSum(GROUPS).infer([categorical()], Data(np.array([[1, 2, -0.5]] * G)))
