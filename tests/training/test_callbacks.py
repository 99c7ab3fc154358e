"""Rounds: schedule, callbacks, stop rules, diagnostics of the exchange, progress."""

import numpy as np
import pytest
from scipy.stats import entropy

from serkit import Graph, Module, Observation, Posterior
from serkit.errors import GraphError, InputError
from serkit.messages import Categorical, Data, Mixture
from serkit.modules import GMM, VAE
from serkit.training import Callback, StopOnTolerance, exchange_diagnostics
from tests.helpers.modules import NET, KMeans, uniform_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")


class Scripted(Module):
    """Reports given numbers, one per update, then the last for ever; learns nothing."""

    def __init__(self, values, *, report="loss", name=None):
        super().__init__(name=name)
        self.values = values
        self.report = report

    def learn(self, inputs, from_children):
        return {self.report: self.values[min(len(self.history_), len(self.values) - 1)]}

    def infer(self, inputs, from_children):
        return Posterior(up=inputs[0], down=(None,) * len(inputs))

    sends_up = Data


def scripted(values, **options):
    return Graph(Scripted(values, **options).connect(Observation(uniform_rows())))


def pipeline(**options):
    vae = VAE(2, **{**NET, **options}).connect(Observation(uniform_rows()))
    return Graph(GMM(2, random_state=0).connect(vae))


def ran(graph):
    return [[update["module"] for update in record["updates"]] for record in graph.history]


# -- schedule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda g: None, [["vae", "gmm"]] * 2),
        (lambda g: ["vae", "gmm", "gmm"], [["vae", "gmm", "gmm"]] * 2),
        (lambda g: [g["vae"], "vae", g["gmm"]], [["vae", "vae", "gmm"]] * 2),
        (
            lambda g: lambda round_: ["vae"] * (2 - round_) + ["gmm"],
            [["vae", "vae", "gmm"], ["vae", "gmm"]],
        ),
    ],
    ids=["default", "repeated", "modules and names", "callable"],
)
def test_schedule_says_who_is_updated_when(schedule, expected):
    graph = pipeline()
    graph.fit(2, schedule=schedule(graph), verbose=False)
    assert ran(graph) == expected


def test_callable_schedule_goes_on_counting_rounds():
    graph, seen = scripted([1.0]), []

    def schedule(round_):
        seen.append(round_)
        return ["scripted"]

    graph.fit(2, schedule=schedule, verbose=False).fit(1, schedule=schedule, verbose=False)
    assert sorted(set(seen)) == [0, 1, 2]


def test_schedule_may_name_observations():
    graph = pipeline()
    graph.fit(1, schedule=graph.modules, verbose=False)
    assert len(graph["gmm"].history_) == 1


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (["vae", "gnm"], "no module is called 'gnm'; there are observation, vae, gmm"),
        ([GMM(2, name="stranger")], "schedule names GMM 'stranger', which is not in this gr"),
        ([7], "schedule names 7, which is not in this graph"),
        (lambda round_: ["vea"], "no module is called 'vea'"),
    ],
    ids=["name", "module", "number", "callable"],
)
def test_schedule_and_callback_errors_come_before_training(schedule, text):
    graph = pipeline()
    with pytest.raises(GraphError, match=text):
        graph.fit(1, schedule=schedule, verbose=False)
    for wrong in (3, StopOnTolerance):  # a class, not an instance
        with pytest.raises(
            InputError, match="must be serkit Callbacks or functions of graph and record, got"
        ):
            graph.fit(1, callbacks=[wrong], verbose=False)
    assert not graph["vae"].history_


# -- callbacks ---------------------------------------------------------------------------------


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_start(self, graph, rounds):
        self.calls.append(("start", rounds))

    def on_update(self, graph, module):
        self.calls.append(("update", graph.name_of(module)))

    def on_epoch(self, graph, module, epoch, terms):
        assert module in graph
        self.calls.append(("epoch", epoch, sorted(terms)))

    def on_update_end(self, graph, module, report):
        assert report["module"] == graph.name_of(module)
        self.calls.append(("updated", report["module"]))

    def on_round(self, graph, record):
        assert graph.history[-1] is record
        self.calls.append(("round", record["round"]))

    def on_end(self, graph):
        self.calls.append(("end",))


def test_callbacks_are_called_in_order():
    recorder = Recorder()
    pipeline(epochs=[2, 1]).fit(2, callbacks=[recorder], verbose=False)
    epochs = [("epoch", number, ["kl", "loss", "reconstruction"]) for number in (1, 2)]
    vae, gmm = ("updated", "vae"), [("update", "gmm"), ("updated", "gmm")]
    first = [("update", "vae"), *epochs, vae, *gmm, ("round", 1)]
    second = [("update", "vae"), epochs[0], vae, *gmm, ("round", 2)]
    assert recorder.calls == [("start", 2), *first, *second, ("end",)]


def test_callbacks_do_not_outlive_fit():
    recorder = Recorder()
    graph = pipeline().fit(1, callbacks=[recorder], verbose=False)
    n_calls = len(recorder.calls)
    graph["vae"].update()
    assert len(recorder.calls) == n_calls


def test_function_is_called_after_each_round_and_stops():
    low = [lambda graph, record: record["updates"][0]["loss"] < 2.5]
    assert len(scripted([3.0, 2.0, 1.0]).fit(9, callbacks=low, verbose=False).history) == 2


def test_every_callback_hears_of_the_round_that_stops():
    heard = []
    callbacks = [lambda g, r: True, lambda g, r: heard.append(r["round"])]
    assert len(scripted([1.0]).fit(3, callbacks=callbacks, verbose=False).history) == 1
    assert heard == [1]


def test_methods_of_other_arguments_are_refused_before_any_training():
    class Old(Callback):
        def on_epoch(self, module, terms):
            """As it was once."""

    graph = pipeline()
    text = "callbacks: Old.on_epoch must be a function of graph, module, epoch, terms"
    with pytest.raises(InputError, match=text):
        graph.fit(1, callbacks=[Old()], verbose=False)
    assert not graph.history


def test_the_record_of_a_round_is_made_of_the_updates_reports():
    reports = []

    class Keep(Callback):
        def on_update_end(self, graph, module, report):
            reports.append(report)

    graph = pipeline().fit(2, callbacks=[Keep()], verbose=False)
    assert reports == [update for record in graph.history for update in record["updates"]]


def test_on_epoch_ends_the_update_not_the_training():
    class Impatient(Callback):
        def on_epoch(self, graph, module, epoch, terms):
            return len(module.loss_curve_) % 2 == 0

    graph = pipeline(epochs=5).fit(2, callbacks=[Impatient()], verbose=False)
    assert [entry["epochs"] for entry in graph["vae"].history_] == [2, 2]


@pytest.mark.parametrize("hook", ["on_start", "on_update", "on_epoch", "on_update_end", "on_round"])
@pytest.mark.parametrize("verbose", [False, True])
def test_error_in_a_callback_comes_through(hook, verbose):
    recorder = Recorder()

    def fails(*args):
        raise ZeroDivisionError("mine")

    setattr(recorder, hook, fails)
    graph = pipeline()
    with pytest.raises(ZeroDivisionError, match="mine"):
        graph.fit(1, callbacks=[recorder], verbose=verbose)
    assert recorder.calls[-1] == ("end",)
    assert all(graph[name].on_epoch is None for name in ("vae", "gmm"))
    assert graph.fit(1, verbose=False)["gmm"].history_


# -- stop rule ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "options", "rounds"),
    [
        ([5.0, 4.0, 3.999, 3.998], {}, 3),
        ([5.0, 4.0, 3.999, 3.0, 2.999, 2.998], {"patience": 2}, 6),
        ([4.0], {"patience": 3}, 4),
        ([5.0, 4.0, 3.5, 3.4], {"tol": 0.6}, 3),
        ([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0], {}, 7),
    ],
    ids=["stands still", "patience", "from the start", "tol", "up and down"],
)
def test_stop_on_tolerance(values, options, rounds):
    graph = scripted(values)
    graph.fit(7, callbacks=[StopOnTolerance("loss", **options)], verbose=False)
    assert len(graph.history) == rounds


@pytest.mark.parametrize("monitor", ["objective", "changed", "loss", "log_likelihood"])
def test_stop_on_tolerance_watches_whatever_is_reported(monitor):
    graph = pipeline().fit(3, callbacks=[StopOnTolerance(monitor, tol=1e9)], verbose=False)
    assert 2 <= len(graph.history) <= 3


def test_stop_on_tolerance_names_what_is_there():
    with pytest.raises(InputError, match=r"nothing reports 'acuracy'; there is .*loss, mod"):
        scripted([1.0]).fit(3, callbacks=[StopOnTolerance("acuracy")], verbose=False)


def test_by_default_training_stops_once_hardly_a_row_changes_its_cluster():
    """The joint objective may fall by design, so that the default does not rest on it."""
    assert (StopOnTolerance().monitor, StopOnTolerance().tol) == ("changed", 0.01)
    rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * (np.arange(60) % 2)[:, None]
    gmm = GMM(2, random_state=0).connect(Observation(rows))
    graph = Graph(gmm).fit(9, callbacks=[StopOnTolerance()], verbose=False)
    assert len(graph.history) == 2  # the second round changes nothing


def test_rows_that_were_added_have_no_change_at_first():
    rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * (np.arange(60) % 2)[:, None]
    observation = Observation(rows)
    graph = Graph(GMM(2, random_state=0).connect(observation))
    graph.fit(2, callbacks=[StopOnTolerance()], verbose=False)
    observation.append(rows[:5])
    graph.fit(3, callbacks=[StopOnTolerance()], verbose=False)
    assert "changed" not in graph.history[2]["updates"][0]


# -- diagnostics -------------------------------------------------------------------------------


def mixture(n=30, k=4, seed=0):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.full(k, 0.5), size=n)
    means = rng.standard_normal((k, 2))
    return Mixture(np.log(probability), means, np.broadcast_to(np.eye(2), (k, 2, 2)))


def relabelled(message, order):
    return Mixture(message.log_prob[:, order], message.means[order], message.covariances[order])


def test_diagnostics_of_a_first_message():
    message = mixture()
    diagnostics = exchange_diagnostics(None, message)
    assert diagnostics.keys() == {"occupancy", "entropy"}
    probability = np.exp(message.log_prob)
    assert diagnostics["entropy"] == pytest.approx(entropy(probability, axis=1).mean())
    assert sum(diagnostics["occupancy"]) == pytest.approx(1)
    counts = [(probability.argmax(axis=1) == k).mean() for k in range(4)]
    assert diagnostics["occupancy"] == pytest.approx(counts)


@pytest.mark.filterwarnings("error")
def test_entropy_of_sure_and_of_undecided_rows():
    sure = Categorical([[0.0, -np.inf], [-np.inf, 0.0]])
    assert exchange_diagnostics(None, sure)["entropy"] == 0.0
    undecided = exchange_diagnostics(None, Categorical.uniform(3, 5))
    assert undecided["entropy"] == pytest.approx(np.log(5))


def test_relabelling_alone_changes_nothing():
    before = mixture()
    diagnostics = exchange_diagnostics(before, relabelled(before, [2, 0, 3, 1]))
    assert diagnostics["changed"] == 0
    assert diagnostics["mean_shift"] == pytest.approx(0, abs=1e-12)


def test_rows_that_change_cluster_are_counted():
    before = mixture()
    log_prob = before.log_prob.copy()
    log_prob[:3] = np.roll(log_prob[:3], 1, axis=1)
    after = Mixture(log_prob, before.means + np.array([3.0, 4.0]), before.covariances)
    diagnostics = exchange_diagnostics(before, relabelled(after, [3, 1, 0, 2]))
    assert diagnostics["changed"] == pytest.approx(3 / 30)
    assert diagnostics["mean_shift"] == pytest.approx(5.0)


def test_other_rows_are_not_compared():
    assert "changed" not in exchange_diagnostics(mixture(20), mixture(30))


def test_history_counts_changes_between_rounds():
    leaf = KMeans(3, random_state=0).connect(Observation(uniform_rows(60)))
    assigned = []

    def keep(graph, record):
        assigned.append(leaf.message_up.log_prob.argmax(axis=1))

    graph = Graph(leaf).fit(3, callbacks=[keep], verbose=False)
    for i in (1, 2):
        moved = (assigned[i - 1] != assigned[i]).mean()
        assert graph.history[i]["updates"][0]["changed"] == pytest.approx(moved)


# -- progress ----------------------------------------------------------------------------------


def test_quiet_fit_prints_nothing(capfd):
    pipeline().fit(2, verbose=False)
    assert capfd.readouterr() == ("", "")
