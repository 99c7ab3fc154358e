"""Loggers keep what a graph reports, once each, whatever breaks a training off."""

import csv
import itertools
import signal
import sys
import types
from collections import defaultdict

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from serkit import Graph, Module, Observation, Posterior
from serkit.errors import InputError, OutputError
from serkit.messages import Data
from serkit.modules import GMM, VAE
from serkit.training import Callback, loggers
from serkit.training.loggers import CSVLogger, MLflowLogger, TensorBoardLogger, WandbLogger

ROWS = np.random.default_rng(0).random((30, 6)).astype(np.float32)
EPOCHS = 3


def graph_of(name="vae", seed=0):
    vae = VAE(2, hidden_sizes=(4,), epochs=EPOCHS, random_state=seed, name=name)
    gmm = GMM(2, labels=np.arange(30) % 2, random_state=seed)
    return Graph(gmm.connect(vae.connect(Observation(ROWS))))


class Broken(Exception):
    """What breaks a training off."""


class Break(Callback):
    """Break off in an epoch of a round, or after the round, before loggers that come later."""

    def __init__(self, round_, epoch=None):
        self.round_, self.epoch = round_, epoch

    def on_epoch(self, graph, module, epoch, terms):
        if (len(graph.history) + 1, epoch) == (self.round_, self.epoch):
            raise Broken

    def on_round(self, graph, record):
        if self.epoch is None and record["round"] == self.round_:
            raise Broken


def expected_of(graph):
    """What a log of a graph is to hold: {(series, step): {name: value}}."""
    steps = {("rounds", r["round"]): loggers.values_of(r) for r in graph.history}
    for number, entry in enumerate(graph["vae"].loss_curve_, start=1):
        terms = {k: v for k, v in entry.items() if k not in ("update", "epoch")}
        steps["epochs/vae", number] = terms
    return steps


# -- what is read back -----------------------------------------------------------------------------


def read_csv(folder):
    steps = defaultdict(dict)
    with open(folder / "log.csv", newline="") as file:
        for row in csv.DictReader(file):
            series = steps[row["series"], int(row["step"])]
            assert row["name"] not in series, "doubled"
            series[row["name"]] = float(row["value"])
    return dict(steps)


def read_tensorboard(folder):
    steps = defaultdict(dict)
    for series in ("rounds", "epochs/vae"):
        if (folder / series).is_dir():
            events = EventAccumulator(str(folder / series), {"scalars": 0}).Reload()
            for name in events.Tags()["scalars"]:
                for event in events.Scalars(name):
                    assert name not in steps[series, event.step], "doubled"
                    steps[series, event.step][name] = event.value
    return dict(steps)


class MLflowServer:
    """What MLflow keeps, as far as loggers use it; values of a step stay doubled if they are."""

    def __init__(self):
        self.runs = []

    def module(self):
        entities = types.ModuleType("mlflow.entities")
        entities.Metric = lambda *fields: types.SimpleNamespace(
            **dict(zip(("key", "value", "timestamp", "step"), fields, strict=True))
        )
        mlflow = types.ModuleType("mlflow")
        mlflow.MlflowClient, mlflow.entities = lambda uri: self, entities
        return {"mlflow": mlflow, "mlflow.entities": entities}

    def get_experiment_by_name(self, name):
        return types.SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment_id, run_name):
        info = types.SimpleNamespace(run_id=str(len(self.runs)))
        run = types.SimpleNamespace(info=info, name=run_name, metrics=[], params={}, files=[])
        run.status = "RUNNING"
        self.runs.append(run)
        return run

    def search_runs(self, experiment_ids, filter_string, order_by, max_results):
        assert filter_string.startswith("attributes.run_name = ")
        name = filter_string.split("'")[1]
        found = [run for run in reversed(self.runs) if run.name == name][:max_results]
        for run in found:
            latest = {m.key: m.value for m in sorted(run.metrics, key=lambda m: m.step)}
            run.data = types.SimpleNamespace(metrics=latest)
        return found

    def get_metric_history(self, run_id, key):
        return [metric for metric in self.runs[int(run_id)].metrics if metric.key == key]

    def log_batch(self, run_id, metrics):
        self.runs[int(run_id)].metrics += metrics

    def log_param(self, run_id, name, value):
        assert name not in self.runs[int(run_id)].params, "parameters may be set once"
        self.runs[int(run_id)].params[name] = value

    def log_figure(self, run_id, figure, file):
        self.runs[int(run_id)].files.append(file)

    def update_run(self, run_id, status):
        self.runs[int(run_id)].status = status

    def set_terminated(self, run_id):
        self.runs[int(run_id)].status = "FINISHED"

    def read(self):
        return by_step([(m.key, m.step, m.value) for m in self.runs[-1].metrics])


class WandbServer:
    """What W&B keeps, as far as loggers use it."""

    def __init__(self, mode="online"):
        self.runs, self.mode = {}, mode

    def module(self):
        wandb = types.ModuleType("wandb")
        wandb.setup = lambda: types.SimpleNamespace(settings=types.SimpleNamespace(mode=self.mode))
        wandb.init, wandb.Image = self.init, lambda figure: figure
        return {"wandb": wandb}

    def init(self, project, name, id=None, resume=None):
        assert resume == ("allow" if self.mode == "online" else None)
        resumed, id = id in self.runs, id or f"chance{len(self.runs)}"
        run = self.runs.setdefault(id, types.SimpleNamespace(rows=[], summary={}, metrics={}))
        run.resumed, run.finished = resumed, False
        update = lambda values, allow_val_change: vars(run).update(settings=values)  # noqa: E731
        run.config = types.SimpleNamespace(update=update)
        run.define_metric = lambda name, **options: run.metrics.update({name: options})
        run.finish = lambda: setattr(run, "finished", True)
        run.log = lambda row: (run.rows.append(row), run.summary.update(row))
        return run

    def read(self):
        values, (*_, run) = [], self.runs.values()
        for row in run.rows:
            (key,) = [k for k in row if k.endswith("/step")]
            series = key.removesuffix("/step")
            values += [(n, row[key], v) for n, v in row.items() if n.startswith(f"{series}/")]
        return by_step([v for v in values if not v[0].endswith("/step")])


def by_step(values):
    """Metrics (name with series, step, value) as `expected_of` has them."""
    steps = defaultdict(dict)
    for name, step, value in values:
        series = next(s for s in ("rounds", "epochs/vae") if name.startswith(f"{s}/"))
        name = name.removeprefix(f"{series}/")
        assert name not in steps[series, step], "doubled"
        steps[series, step][name] = value
    return dict(steps)


@pytest.fixture(params=["csv", "tensorboard", "mlflow", "wandb"])
def log(request, tmp_path, monkeypatch):
    """A function that makes a logger, and one that reads what it has kept."""
    folder = tmp_path / "log"
    if request.param == "csv":
        return lambda **o: CSVLogger(folder, **o), lambda: read_csv(folder)
    if request.param == "tensorboard":  # whose files are ordered by seconds
        clock = types.SimpleNamespace(time=itertools.count(1_700_000_000).__next__)
        monkeypatch.setattr(event_file_writer, "time", clock)
        return lambda **o: TensorBoardLogger(folder, **o), lambda: read_tensorboard(folder)
    server, kind = {
        "mlflow": (MLflowServer(), MLflowLogger),
        "wandb": (WandbServer(), WandbLogger),
    }[request.param]
    for name, module in server.module().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    return lambda **o: kind("digits", **o), server.read


def assert_holds(steps, graph):
    expected = expected_of(graph)
    assert steps.keys() == expected.keys()
    for place, values in expected.items():
        assert steps[place] == pytest.approx(values, rel=1e-6, abs=1e-12), place


# -- what is kept ----------------------------------------------------------------------------------


def test_every_number_is_kept_once(log):
    logger, read = log
    graph = graph_of().fit(2, callbacks=[logger()], verbose=False)
    assert_holds(read(), graph)
    names = read()["rounds", 2]
    assert {"gmm/accuracy", "gmm/changed", "gmm/occupancy/1", "vae/loss", "gmm/objective"} <= {
        *names
    }
    assert ("epochs/vae", 2 * EPOCHS) in read()


@pytest.mark.parametrize(
    "breaks",
    [Break(1, epoch=2), Break(2, epoch=2), Break(2), Break(3, epoch=1)],
    ids=["first round", "second round", "after the checkpoint", "third round"],
)
def test_a_resume_doubles_and_loses_nothing(log, breaks, tmp_path):
    logger, read = log
    checkpoint = tmp_path / "graph.safetensors"
    with pytest.raises(Broken):  # in the middle, or before this round is logged
        graph_of().fit(3, callbacks=[breaks, logger()], checkpoint=checkpoint, verbose=False)
    graph = graph_of()  # as in another process
    graph.fit(3, callbacks=[logger()], checkpoint=checkpoint, verbose=False)
    assert_holds(read(), graph)


def test_ctrl_c_and_the_same_call_again(log, tmp_path, capfd):
    logger, read = log

    class Interrupt(Callback):
        def on_epoch(self, graph, module, epoch, terms):
            if (len(graph.history), epoch) == (1, 2):
                signal.raise_signal(signal.SIGINT)

    graph, own = graph_of(), logger()
    with pytest.raises(KeyboardInterrupt):
        graph.fit(3, callbacks=[own, Interrupt()], verbose=False)
    assert len(graph.history) == 1
    graph.fit(2, callbacks=[own], verbose=False)
    assert_holds(read(), graph)


def test_a_log_goes_on_with_further_rounds_and_one_that_was_lost_is_made_again(log):
    logger, read = log
    graph = graph_of().fit(1, callbacks=[logger()], verbose=False)
    graph.fit(1, verbose=False)  # by nobody logged
    graph.fit(1, callbacks=[logger()], verbose=False)
    assert_holds(read(), graph)


def test_the_log_of_another_training_is_not_gone_on_with(log):
    logger, read = log
    graph_of().fit(3, callbacks=[logger()], verbose=False)
    for rounds in (2, 3):
        other = graph_of(seed=rounds).fit(rounds, verbose=False)
        other.fit(1, callbacks=[logger()], verbose=False)
        assert_holds(read(), other)


def only_the_graphs_picture(graph):
    """Of a graph's pictures draw but one, which is quick."""
    asked = []
    graph.pictures = lambda: asked.append(len(graph.history)) or {"graph": graph.draw()}
    return asked


def test_pictures_come_every_so_many_rounds(log):
    logger, read = log
    graph = graph_of()
    asked = only_the_graphs_picture(graph)
    graph.fit(4, callbacks=[logger(pictures_every=2)], verbose=False)
    assert asked == [2, 4]
    assert_holds(read(), graph)


def test_pictures_of_a_graph_are_those_of_its_results():
    graph = graph_of().fit(2, verbose=False)
    assert {"graph", "rounds", "losses_vae", "latents_vae_after", "confusion"} <= {
        *graph.pictures()
    }


def test_files_and_images_of_pictures(tmp_path):
    graph = graph_of()
    only_the_graphs_picture(graph)
    callbacks = [
        kind(tmp_path / kind.__name__, pictures_every=1) for kind in (CSVLogger, TensorBoardLogger)
    ]
    graph.fit(2, callbacks=callbacks, verbose=False)
    files = {path.name for path in (tmp_path / "CSVLogger").iterdir()}
    assert files == {"log.csv", "round001_graph.png", "round002_graph.png"}
    events = EventAccumulator(str(tmp_path / "TensorBoardLogger" / "rounds")).Reload()
    assert [image.step for image in events.Images("graph")] == [1, 2]


# -- each by itself --------------------------------------------------------------------------------


def test_a_table_is_read_by_pandas_and_made_again_where_it_is_damaged(tmp_path):
    pandas = pytest.importorskip("pandas")
    graph = graph_of().fit(2, callbacks=[CSVLogger(tmp_path)], verbose=False)
    path = tmp_path / "log.csv"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    graph.fit(1, callbacks=[CSVLogger(tmp_path)], verbose=False)
    assert_holds(read_csv(tmp_path), graph)
    table = pandas.read_csv(path)
    rounds = table[table.series == "rounds"].pivot(index="step", columns="name", values="value")
    accuracies = [record["updates"][1]["accuracy"] for record in graph.history]
    assert rounds["gmm/accuracy"].tolist() == accuracies


class Own(Module):
    """Trains two epochs an update and keeps no loss curve."""

    sends_up = Data

    def learn(self, inputs, from_children):
        for epoch in (1, 2):
            self.on_epoch(self, epoch, {"loss": 10 * len(self.history_) + epoch})
        return {"epochs": 2, "word": "none", "sure": True}

    def infer(self, inputs, from_children):
        return Posterior(up=inputs[0], down=(None,))


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_epochs_of_own_modules_are_counted_by_what_they_report(kind, tmp_path, monkeypatch):
    clock = types.SimpleNamespace(time=itertools.count(1_700_000_000).__next__)
    monkeypatch.setattr(event_file_writer, "time", clock)
    graph = Graph(Own(name="vae").connect(Observation(ROWS)))
    graph.fit(1, callbacks=[kind(tmp_path)], verbose=False)
    with pytest.raises(Broken):
        graph.fit(2, callbacks=[kind(tmp_path), Break(2, epoch=1)], verbose=False)
    graph.fit(1, callbacks=[kind(tmp_path)], verbose=False)
    steps = (read_csv if kind is CSVLogger else read_tensorboard)(tmp_path)
    losses = {s: v["loss"] for (series, s), v in steps.items() if series == "epochs/vae"}
    assert losses == {1: 1.0, 2: 2.0, 3: 11.0, 4: 12.0}
    assert steps["rounds", 2].keys() == {"vae/epochs", "vae/seconds"}


def test_repeated_updates_and_lists_have_names_of_their_own():
    updates = [{"module": "a", "loss": 1}, {"module": "a", "loss": 2, "occupancy": [0.25, 0.75]}]
    assert loggers.values_of({"round": 1, "updates": updates}) == {
        "a/loss": 1.0,
        "a.2/loss": 2.0,
        "a.2/occupancy/0": 0.25,
        "a.2/occupancy/1": 0.75,
    }


def test_runs_of_mlflow_have_settings_and_an_end(monkeypatch):
    server = MLflowServer()
    for name, module in server.module().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    graph = graph_of()
    only_the_graphs_picture(graph)
    for _ in range(2):
        graph.fit(1, callbacks=[MLflowLogger("digits", pictures_every=2)], verbose=False)
    (run,) = server.runs
    assert (run.name, run.status, run.files) == ("digits", "FINISHED", ["round002_graph.png"])
    assert run.params["vae"].startswith("VAE(epochs=3")
    graph_of(seed=1).fit(1, callbacks=[MLflowLogger("digits")], verbose=False)
    assert len(server.runs) == 2


def test_runs_of_wandb_have_settings_steps_and_an_end(monkeypatch):
    server = WandbServer()
    monkeypatch.setitem(sys.modules, "wandb", server.module()["wandb"])
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    graph_of().fit(1, callbacks=[WandbLogger("digits")], verbose=False)
    graph_of(seed=1).fit(1, callbacks=[WandbLogger("digits")], verbose=False)
    assert [*server.runs] == ["digits", "digits-2"]
    for run in server.runs.values():
        assert run.finished
        assert run.settings["gmm"].startswith("GMM(")
        assert run.metrics["rounds/*"] == {"step_metric": "rounds/step"}


def test_offline_every_fit_begins_a_run_of_wandb_with_all_rounds(monkeypatch):
    server, graph = WandbServer("offline"), graph_of()
    monkeypatch.setitem(sys.modules, "wandb", server.module()["wandb"])
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)
    for _ in range(2):
        graph.fit(1, callbacks=[WandbLogger("digits")], verbose=False)
        assert_holds(server.read(), graph)
    assert [*server.runs] == ["chance0", "chance1"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CSVLogger(3), "CSVLogger: folder must be a path"),
        (lambda: CSVLogger("a", pictures_every=0), "CSVLogger: pictures_every must be an integer"),
        (lambda: TensorBoardLogger(""), "TensorBoardLogger: folder must be a path"),
        (lambda: MLflowLogger("a'b"), "MLflowLogger: name must be letters, digits"),
        (lambda: MLflowLogger("a", experiment=7), "MLflowLogger: experiment must be letters"),
        (lambda: MLflowLogger("a", tracking_uri=7), "MLflowLogger: tracking_uri must be a string"),
        (lambda: WandbLogger(None), "WandbLogger: name must be letters, digits"),
        (lambda: WandbLogger("a", project="/"), "WandbLogger: project must be letters, digits"),
    ],
)
def test_odd_arguments_are_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()


@pytest.mark.parametrize("kind", [TensorBoardLogger, MLflowLogger, WandbLogger])
def test_a_missing_package_is_named_with_how_to_install_it(kind, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"{kind.__name__} needs .*: pip install"):
        kind("digits")


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_folder_that_cannot_be_is_told_before_training(kind, tmp_path):
    (tmp_path / "file").write_text("mine")
    graph = graph_of()
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        graph.fit(1, callbacks=[kind(tmp_path / "file")], verbose=False)
    assert not graph.history


def test_only_the_first_of_several_processes_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.processes, "is_first", lambda: False)
    logger = CSVLogger(tmp_path / "log")
    graph = graph_of().fit(1, verbose=False)
    logger.on_start(graph, 1)
    logger.on_epoch(graph, graph["vae"], 1, {"loss": 1.0})
    logger.on_round(graph, graph.history[0])
    logger.on_end(graph)
    assert not (tmp_path / "log").exists()
