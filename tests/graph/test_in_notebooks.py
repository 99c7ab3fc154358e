"""What notebooks show of graphs, modules, messages and predictions."""

import numpy as np
import pytest

from serkit import Graph, Observation
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.modules import AE, GMM
from tests.test_markup import Reader

EVIL = "<img src=x onerror=alert(1)>"
ROWS = np.random.default_rng(0).random((30, 3))


@pytest.fixture(scope="module")
def graph():
    low = AE(2, epochs=2, hidden_sizes=(4,), random_state=0).connect(Observation(ROWS, name="rows"))
    return Graph(GMM(2, labels=[EVIL, "b", "c"] * 10, random_state=0).connect(low))


def shown(item):
    return Reader(item._repr_html_())


def test_graph_is_a_diagram_of_boxes_with_states_and_shapes(graph):
    assert "new" in shown(graph).text
    graph.fit(1, verbose=False)
    read = shown(graph)
    assert read.tags.count("details") == 3
    for text in ("learnt, 1 update", "Gaussian(30, 2)", "Data of rows", "hidden_sizes(4,)"):
        assert text in read.text
    assert [value for name, value in read.attributes if value == "level"] == ["level"] * 3


def test_modules_show_their_own_and_not_that_of_scikit_learn(graph):
    for item in (graph["ae"], graph["rows"], AE(2), GMM(2)):
        read = shown(item)
        assert read.tags.count("details") == 1
        assert type(item).__name__ in read.text
        bundle = item._repr_mimebundle_(include=None, exclude=None)
        assert bundle == {"text/plain": repr(item), "text/html": item._repr_html_()}


def test_texts_of_users_are_no_markup(graph):
    for item in (graph, graph["gmm"], GMM(2, name=EVIL), Observation(ROWS, name=EVIL)):
        assert "img" not in shown(item).tags
    assert EVIL in shown(GMM(2, name=EVIL)).text


def test_messages_show_their_first_rows():
    observed = np.arange(7) != 1
    read = shown(Gaussian(np.arange(14.0).reshape(7, 2), observed=observed))
    assert "Gaussian(7, 2, 1 missing)rowmean00, 11missing24, 5" in read.text
    assert "and 2 more rows" in read.text
    read = shown(Categorical(np.log([[0.1, 0.2, 0.3, 0.4]])))
    assert "rowclasses03: 0.400, 2: 0.300, 1: 0.200" in read.text
    assert "more rows" not in read.text
    assert "0, 1, 2, 3, 4, 5, ..." in shown(Data(np.arange(9.0)[None])).text
    mixture = Mixture(np.log([[0.25, 0.75]]), np.zeros((2, 1)), np.ones((2, 1, 1)))
    assert "1: 0.750, 0: 0.250" in shown(mixture).text


def test_prediction_shows_rows_by_module(graph):
    if not graph.history:
        graph.fit(1, verbose=False)
    read = shown(graph.predict(ROWS[:3]))
    for text in ("rows: array", "ae: mean", "gmm: classes", repr(graph.predict(ROWS[:3]))):
        assert text in read.text
    assert read.tags.count("tr") == 4
