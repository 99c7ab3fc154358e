"""Runs from several seeds, of which one is kept without labels."""

import copy
import json
from functools import partial

import numpy as np
import pytest

from serkit import Graph, Observation
from serkit.errors import GraphError, InputError
from serkit.graph.restarting import seed_of_run
from serkit.metrics import stability
from serkit.modules import AE, GMM, VAE, MarkovModel
from serkit.training import Callback
from tests.helpers.saved import assert_same

RUNS = 3


def build(rows, seed=4):
    vae = VAE(2, likelihood="gaussian", epochs=3, hidden_sizes=(8,), random_state=seed)
    return Graph(GMM(3, n_init=1, random_state=seed).connect(vae.connect(Observation(rows))))


@pytest.fixture
def graph(x):
    return build(x)


@pytest.fixture
def by_hand(x):
    """The runs, each trained by itself."""
    return [build(x, seed_of_run(4, run)).fit(2, verbose=False) for run in range(RUNS)]


def state(graph):
    """What a graph holds, but for the times, seeds and how it was chosen."""
    states = {name: graph[name].get_state() for name in list(graph)[1:]}
    history = [{k: v for k, v in record.items() if k != "chosen"} for record in graph.history]
    return {"states": states, "history": history, "latents": graph.first_latents}


def test_the_first_run_has_the_own_seed_and_later_ones_other_seeds():
    seeds = {(seed, run): seed_of_run(seed, run) for seed in range(20) for run in range(20)}
    assert [seeds[seed, 0] for seed in range(20)] == [*range(20)]
    assert len({*seeds.values()}) == 400


def test_the_most_stable_run_is_kept_as_if_it_were_the_only_one(graph, by_hand):
    assert graph.fit(2, restarts=RUNS, verbose=False) is graph
    expected = stability([run["gmm"].posterior.clusters for run in by_hand])
    chosen = graph.history[-1]["chosen"]
    np.testing.assert_allclose(chosen["scores"], expected)
    assert len({*chosen["scores"]}) == RUNS
    assert chosen["run"] == int(np.argmax(expected))
    assert_same(state(graph), state(by_hand[chosen["run"]]))
    assert [graph[name].random_state for name in ("vae", "gmm")] == [4, 4]


@pytest.mark.parametrize("best", range(RUNS))
def test_a_function_of_the_graph_may_choose(graph, by_hand, best):
    asked = []

    def choose(trained):
        assert trained is graph
        asked.append(copy.deepcopy(state(trained)))
        return np.float32(len(asked) == best + 1)

    graph.fit(2, restarts=RUNS, choose=choose, verbose=False)
    for run, alone in zip(asked, by_hand, strict=True):
        assert_same(run, state(alone))
    assert graph.history[-1]["chosen"] == {"run": best, "scores": list(np.eye(RUNS)[best])}
    assert_same(state(graph), asked[best])


def test_training_goes_on_from_the_run_that_was_kept(graph, x):
    graph.fit(1, restarts=RUNS, verbose=False).fit(1, verbose=False)
    assert len(graph.history) == 2
    assert "chosen" in graph.history[0]
    assert "chosen" not in graph.history[1]
    assert len(graph["gmm"].history_) == 2
    assert graph.predict(x[:5]).classes.shape == (5,)


def with_chain(x):
    gmm = GMM(3, n_init=1, random_state=0).connect(Observation(x))
    return Graph(MarkovModel(random_state=0).connect(gmm))


def test_where_there_is_a_chain_its_likelihood_chooses(x):
    graph = with_chain(x).fit(2, restarts=2, verbose=False)
    chosen = graph.history[-1]["chosen"]
    assert chosen["scores"][chosen["run"]] == graph["markovmodel"].log_likelihood_[-1]
    assert chosen["scores"][chosen["run"]] == max(chosen["scores"])
    named = with_chain(x).fit(2, restarts=2, choose="likelihood", verbose=False)
    assert_same(named.history, graph.history)


def test_without_a_chain_likelihood_is_that_of_the_topmost_that_has_one(graph):
    graph.fit(1, restarts=2, choose="likelihood", verbose=False)
    chosen = graph.history[-1]["chosen"]
    assert max(chosen["scores"]) == graph["gmm"].log_likelihood_[-1]


def test_one_run_is_as_without(x):
    plain, other = build(x).fit(1, verbose=False), build(x)
    other.fit(1, restarts=1, choose="stability", verbose=False)
    assert_same(state(other), state(plain))
    assert "chosen" not in other.history[-1]


def test_frozen_modules_keep_what_they_have_learnt(graph):
    vae = graph["vae"].update().freeze()
    said = vae.message_up.mean
    graph.fit(1, restarts=RUNS, verbose=False)
    assert len(vae.history_) == 1
    np.testing.assert_array_equal(vae.message_up.mean, said)


def test_fresh_seeds_differ_by_run(x):
    seeds = []

    def choose(graph):
        seeds.append(graph["gmm"].seed_)
        return 0.0

    build(x, None).fit(1, restarts=RUNS, choose=choose, verbose=False)
    assert len({*seeds}) == RUNS


# -- files -------------------------------------------------------------------------------------


class Kill(Callback):
    """Breaks off in the round of a run."""

    def __init__(self, run, round_):
        self.run, self.round_, self.started = run, round_, -1

    def on_start(self, graph, rounds):
        self.started += 1

    def on_update(self, graph, module):
        if self.started == self.run and len(graph.history) == self.round_ - 1:
            raise KeyboardInterrupt


def test_a_run_that_breaks_off_leaves_the_graph_as_it_was(graph):
    before = {module: dict(vars(module)) for module in graph.modules}
    with pytest.raises(KeyboardInterrupt):
        graph.fit(2, restarts=RUNS, callbacks=[Kill(run=1, round_=2)], verbose=False)
    assert graph.history == []
    assert graph.first_latents == {}
    for module, held in before.items():
        learnt = {name for name in vars(module) if name.endswith("_")} - {"seed_"}  # of its runs
        assert learnt == {name for name in held if name.endswith("_")}
    assert graph["vae"].random_state == 4
    graph.fit(1, restarts=RUNS, verbose=False)  # so that the same call can be made again


@pytest.mark.parametrize("afresh", [False, True])
@pytest.mark.parametrize("killed", [(0, 2), (1, 1), (2, 2)])
def test_it_goes_on_after_a_kill_as_if_never_stopped(x, tmp_path, killed, afresh):
    whole = build(x).fit(2, restarts=RUNS, verbose=False)
    path = tmp_path / "checkpoint"
    graph = build(x)
    options = {"restarts": RUNS, "checkpoint": path, "verbose": False}
    with pytest.raises(KeyboardInterrupt):
        graph.fit(2, callbacks=[Kill(*killed)], **options)
    graph = build(x) if afresh else graph
    graph.fit(2, **options)
    assert_same(graph.history, whole.history)
    assert_same(state(graph), state(whole))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"checkpoint.run{run}" for run in range(RUNS)
    ]


def test_a_finished_call_only_chooses_again(x, tmp_path):
    options = {"restarts": RUNS, "checkpoint": tmp_path / "checkpoint", "verbose": False}
    first = build(x).fit(2, **options)
    updates = []
    again = build(x).fit(2, callbacks=[lambda graph, record: updates.append(record)], **options)
    assert updates == []
    assert_same(again.history, first.history)
    more = build(x).fit(3, **options)  # each run goes on, and all are judged anew
    assert_same(more.history, build(x).fit(3, restarts=RUNS, verbose=False).history)


def test_the_results_are_those_of_the_run_that_was_kept(graph, tmp_path):
    graph.fit(1, restarts=RUNS, out=tmp_path / "out", verbose=False)
    written = json.loads((tmp_path / "out" / "history.json").read_text())
    assert written[-1]["chosen"] == graph.history[-1]["chosen"]
    classes = np.loadtxt(tmp_path / "out" / "module002_gmm" / "class_learn.txt")
    np.testing.assert_array_equal(classes, graph["gmm"].posterior.clusters)


def test_it_is_saved_with_how_it_was_chosen(graph, x, tmp_path):
    graph.fit(1, restarts=RUNS, verbose=False).save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[x])
    assert_same(loaded.history, graph.history)
    assert_same(loaded.sample(4), graph.sample(4))


# -- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"restarts": 0}, "Graph.fit: restarts must be an integer >= 1, got 0"),
        ({"restarts": 3, "choose": "accuracy"}, "Graph.fit: unknown choose='accuracy'; expected"),
        ({"restarts": 2}, "two runs agree with each other equally; give at least 3 restarts"),
        ({"restarts": 3, "out_each_round": True}, "out_each_round=True writes one run"),
    ],
)
def test_odd_arguments_are_refused_before_training(graph, options, text):
    with pytest.raises(InputError, match=text):
        graph.fit(1, verbose=False, **options)
    assert not graph["vae"].history_


def test_a_graph_that_has_learnt_is_refused(graph):
    graph["vae"].update()
    with pytest.raises(InputError, match="trains from the start, but VAE has learnt already; make"):
        graph.fit(1, restarts=RUNS, verbose=False)
    assert len(graph["vae"].history_) == 1


def test_stability_needs_classes(x):
    with pytest.raises(GraphError, match="no module of this graph sends class probabilities up"):
        Graph(AE(2).connect(Observation(x))).fit(1, restarts=RUNS, verbose=False)


def test_stability_needs_a_schedule_that_reaches_the_top(graph):
    with pytest.raises(GraphError, match="found no classes of the topmost module after a run"):
        graph.fit(1, restarts=RUNS, schedule=["vae"], verbose=False)
    assert graph.history == []


def test_likelihood_needs_one(x):
    ae = AE(2, likelihood="gaussian", epochs=1, hidden_sizes=(4,))
    graph = Graph(ae.connect(Observation(x)))
    with pytest.raises(GraphError, match="choose='likelihood' found no module with log_likelih"):
        graph.fit(1, restarts=2, choose="likelihood", verbose=False)
    assert not graph["ae"].history_


@pytest.mark.parametrize("score", [np.nan, "good", None])
def test_what_a_function_returns_must_be_a_number(graph, score):
    with pytest.raises(InputError, match=r"what choose\(graph\) returns must be a number, got"):
        graph.fit(1, restarts=2, choose=lambda graph: score, verbose=False)
    assert graph.history == []


def test_a_generator_is_drawn_from_once_whatever_breaks_off(x):
    def three_runs(stop_in=None):
        seeds = []

        def note(graph, record):
            seeds.append(graph["gmm"].seed_)
            if len(seeds) == stop_in:
                raise KeyboardInterrupt

        graph = Graph(GMM(3, random_state=rng, name="gmm").connect(Observation(x)))
        run = partial(graph.fit, 1, restarts=RUNS, callbacks=[note], verbose=False)
        if stop_in is not None:
            with pytest.raises(KeyboardInterrupt):
                run()
            seeds.clear()
            stop_in = None
        run()
        return seeds

    rng = np.random.default_rng(5)
    expected = three_runs()
    assert len({*expected}) == RUNS
    rng = np.random.default_rng(5)
    assert three_runs(stop_in=2) == expected
