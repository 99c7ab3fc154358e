"""`fit(keep_latents=True)`: where latents and clusters were after each round."""

import numpy as np
import pytest

from serkit import Graph, Observation, arrays
from serkit.errors import InputError, SavedFileError
from serkit.modules import GMM, VAE
from serkit.saving import format
from tests.helpers.saved import assert_same

ROWS = np.random.default_rng(0).random((60, 6)) + np.arange(3).repeat(20)[:, None]


def make(rows=ROWS):
    vae = VAE(2, likelihood="gaussian", epochs=2, hidden_sizes=(8,), random_state=0)
    return Graph(GMM(2, random_state=0).connect(vae.connect(Observation(rows))))


class Stop(Exception):
    """What a callback raises."""


def test_latents_and_clusters_are_those_after_each_round():
    graph, seen = make(), []

    def look(graph, record):
        seen.append((graph["vae"].message_up.mean, graph["gmm"].posterior.clusters))

    graph.fit(3, callbacks=[look], keep_latents=True, verbose=False)
    assert [kept["round"] for kept in graph.latents_by_round] == [1, 2, 3]
    for kept, (latents, clusters) in zip(graph.latents_by_round, seen, strict=True):
        assert_same(kept["rows"], np.arange(60))
        assert_same(kept["latents"], {"vae": latents})
        assert_same(kept["clusters"], {"gmm": clusters})


@pytest.mark.parametrize(("options", "n_kept"), [({}, 0), ({"out": True}, 1)])
def test_they_are_kept_where_asked_for_or_results_are_written(tmp_path, options, n_kept):
    place = {"out": tmp_path / "out"} if options else {}
    assert len(make().fit(1, verbose=False, **place).latents_by_round) == n_kept
    graph = make().fit(1, verbose=False, keep_latents=False, **place)
    assert graph.latents_by_round == []


def test_of_many_rows_few_are_kept(monkeypatch):
    monkeypatch.setattr("serkit.graph.state._MOST_KEPT", 10)
    graph = make().fit(2, keep_latents=True, verbose=False)
    first, second = graph.latents_by_round
    assert first["rows"] is second["rows"]  # so that files hold it once
    rows = first["rows"]
    assert len(rows) == 10
    assert set(rows) <= set(arrays.some_rows(60, 20))
    assert_same(second["latents"]["vae"], graph["vae"].message_up.mean[rows])


def test_they_are_saved_and_go_on_from_a_checkpoint(tmp_path):
    path, whole = tmp_path / "checkpoint", make().fit(3, keep_latents=True, verbose=False)
    make().fit(2, checkpoint=path, keep_latents=True, verbose=False)
    graph = make().fit(3, checkpoint=path, keep_latents=True, verbose=False)
    assert_same(graph.latents_by_round, whole.latents_by_round)
    graph.save(tmp_path / "graph")
    assert_same(Graph.load(tmp_path / "graph").latents_by_round, whole.latents_by_round)


def test_a_round_that_breaks_off_leaves_none(tmp_path):
    graph = make().fit(1, keep_latents=True, verbose=False)

    class Broken(GMM):
        def infer(self, inputs, from_children):
            if len(self.history_) == 2:
                raise Stop
            return super().infer(inputs, from_children)

    graph["gmm"].__class__ = Broken
    with pytest.raises(Stop):
        graph.fit(2, keep_latents=True, verbose=False)
    assert [kept["round"] for kept in graph.latents_by_round] == [1]
    assert len(graph.history) == 1


def test_of_several_runs_the_chosen_ones_stay():
    graph = make().fit(2, restarts=3, keep_latents=True, verbose=False)
    assert [kept["round"] for kept in graph.latents_by_round] == [1, 2]
    assert_same(graph.latents_by_round[-1]["latents"]["vae"], graph["vae"].message_up.mean)


def test_a_flag_is_wanted():
    text = r"Graph.fit: unknown keep_latents='all'; expected one of False, True, None"
    with pytest.raises(InputError, match=text):
        make().fit(1, keep_latents="all")


@pytest.mark.parametrize(
    "wrong",
    [
        [1],
        [{"round": 1}],
        [{"round": "1", "rows": np.arange(2), "latents": {}, "clusters": {}}],
        [{"round": 1, "rows": np.arange(2), "latents": {"vae": np.zeros((3, 2))}, "clusters": {}}],
    ],
)
def test_files_with_what_are_no_rounds_are_refused(tmp_path, wrong):
    graph = make().fit(1, keep_latents=True, verbose=False)
    graph.save(tmp_path / "graph")
    tree = format.read(tmp_path / "graph")
    format.write(tmp_path / "graph", {**tree, "latents_by_round": wrong})
    with pytest.raises(SavedFileError, match="it holds no whole graph"):
        Graph.load(tmp_path / "graph")


def test_files_of_before_are_read(tmp_path):
    make().fit(1, verbose=False).save(tmp_path / "graph")
    tree = format.read(tmp_path / "graph")
    del tree["latents_by_round"]
    format.write(tmp_path / "graph", tree)
    assert Graph.load(tmp_path / "graph").latents_by_round == []
