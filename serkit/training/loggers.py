"""Loggers: callbacks that keep a training's numbers and pictures, in files or by a service.

All keep the same. Of every round: what its updates reported (losses, scores, seconds), diagnostics
of the exchange (changed, occupancy, entropy, objective, ...), and pictures where wanted. Of every
epoch of a module, counted over all updates: the terms of its loss. What is no number is left out, a
list is kept entry by entry.

A log goes on where the graph does. When a training starts, what the graph's history and loss curves
have and the log lacks is added. What the log has of a round that was broken off is taken out, or,
where a service cannot do that, not added twice: the round that is made again has the same bits. The
log of another training, known by its seconds, is replaced, or a new run begun.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from PIL import Image

from .. import processes
from ..module import Module
from ..options import Count, FilePath, Text, check_argument
from ..saving import write_atomically
from ..saving.atomic import explained
from .callbacks import Callback, Record, TrainedGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CSVLogger", "Logger", "MLflowLogger", "TensorBoardLogger", "WandbLogger"]

ROUNDS = "rounds"
_LONGEST = 500  # letters of a setting, of which services take no more
Values = dict[str, float]
Steps = dict[str, int]  # the last step of each series: "rounds", and "epochs/" and a module's name


class Name(Text):
    """A name of letters, digits and a few signs."""

    wanted = "letters, digits, spaces, '_', '-' or '.'"

    def fits(self, value: Any) -> bool:
        """Whether a value is such a name."""
        return isinstance(value, str) and re.fullmatch(r"\w[\w .-]*", value) is not None


_NAME = Name()


class Logger(Callback, ABC):
    """Abstract base of loggers, which say how a log is opened and how values are put into it.

    Parameters
    ----------
    pictures_every : int, optional
        After every how many rounds all pictures of the graph are drawn and kept, which takes
        seconds; none unless given.
    """

    packages: tuple[str, ...] = ()  # that it needs

    def __init__(self, *, pictures_every: int | None = None) -> None:
        for package in self.packages:
            if find_spec(package) is None:
                raise ImportError(f"{type(self).__name__} needs {package}: pip install {package}")
        range_ = Count(or_none=True)
        check_argument(type(self).__name__, "pictures_every", pictures_every, range_)
        self.pictures_every = pictures_every
        self._logged: Steps = {}
        self._is_open = False

    # -- to be filled in by a subclass ---------------------------------------------------------

    @abstractmethod
    def _open(self, graph: TrainedGraph) -> Steps:
        """Go on with the log of this training, or begin one; returns its last steps.

        Without what lies beyond `steps_of` the graph, if that can be taken out.
        """

    @abstractmethod
    def _put(self, series: str, step: int, values: Values) -> None:
        """Add the values of a step, which is not there yet."""

    @abstractmethod
    def _put_picture(self, name: str, step: int, figure: Figure) -> None:
        """Add a picture of a round."""

    @abstractmethod
    def _close(self) -> None:
        """Leave the log as it is; it may be opened again."""

    # -- what Graph.fit calls ------------------------------------------------------------------

    def on_start(self, graph: TrainedGraph, rounds: int) -> None:
        """Open the log, and add what the graph has and it lacks."""
        if not processes.is_first():
            return
        self._logged = self._open(graph)
        self._is_open = True
        for record in graph.history:
            self._log(ROUNDS, record["round"], values_of(record))
        for name, curve in curves_of(graph).items():
            for step, terms in enumerate(curve, start=1):
                self._log(f"epochs/{name}", step, terms)

    def on_epoch(
        self, graph: TrainedGraph, module: Module, epoch: int, terms: dict[str, float]
    ) -> None:
        """Add the terms of an epoch."""
        if self._is_open:
            is_counted = isinstance(getattr(module, "loss_curve_", None), list)
            step = n_epochs_of(module) + (0 if is_counted else epoch)
            self._log(f"epochs/{graph.name_of(module)}", step, terms)

    def on_round(self, graph: TrainedGraph, record: Record) -> None:
        """Add the numbers of a round, and its pictures if it is their turn."""
        if self._is_open:
            self._log(ROUNDS, record["round"], values_of(record))
        if self.pictures_every is not None and record["round"] % self.pictures_every == 0:
            for name, figure in graph.pictures().items():  # which all processes have to ask for
                self._put_picture(name, record["round"], figure)

    def on_end(self, graph: TrainedGraph) -> None:
        """Close the log."""
        if self._is_open:
            self._is_open = False
            self._close()

    def _log(self, series: str, step: int, values: Mapping[str, Any]) -> None:
        """Add the numbers of a step, unless it is there."""
        numbers = {name: float(v) for name, v in values.items() if is_number(v)}
        if step > self._logged.get(series, 0):
            self._put(series, step, numbers)
            self._logged[series] = step


def is_number(value: Any) -> bool:
    """Whether a value is a number to log; truth values are none."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def values_of(record: Record) -> Values:
    """The numbers of a round, as "gmm/accuracy", and "gmm/occupancy/0" where there are several.

    A module's second update in the round goes by "gmm.2".
    """
    values: Values = {}
    counts: Steps = {}
    for update in record["updates"]:
        counts[update["module"]] = number = counts.get(update["module"], 0) + 1
        name = update["module"] if number == 1 else f"{update['module']}.{number}"
        for key, value in update.items():
            entries = {"": value}
            if isinstance(value, list | tuple | np.ndarray):
                entries = {f"/{n}": v for n, v in enumerate(np.ravel(value).tolist())}
            for entry, number_ in entries.items():
                if is_number(number_):
                    values[f"{name}/{key}{entry}"] = float(number_)
    return values


def curves_of(graph: TrainedGraph) -> dict[str, list[dict[str, float]]]:
    """The loss terms of all epochs, by module."""
    curves = {name: getattr(node, "loss_curve_", None) for name, node in graph.names.items()}
    told = {name: [*curve] for name, curve in curves.items() if isinstance(curve, list)}
    return {n: [_terms(entry) for entry in curve] for n, curve in told.items()}


def _terms(entry: Mapping[str, float]) -> dict[str, float]:
    """An epoch's terms as `on_epoch` gets them, without the numbers of update and epoch."""
    return {name: value for name, value in entry.items() if name not in ("update", "epoch")}


def n_epochs_of(module: Module) -> int:
    """How many epochs a module has trained: entries of its loss curve, or what it has reported."""
    curve = getattr(module, "loss_curve_", None)
    if isinstance(curve, list):
        return len(curve)
    return int(sum(entry.get("epochs", 0) for entry in module.history_))


def steps_of(graph: TrainedGraph) -> Steps:
    """How far a graph is: the last step of each series."""
    modules = {n: node for n, node in graph.names.items() if isinstance(node, Module)}
    epochs = {f"epochs/{name}": n_epochs_of(module) for name, module in modules.items()}
    return {ROUNDS: len(graph.history), **epochs}


def _png(figure: Figure) -> bytes:
    """A picture as a file's content."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def told_by(graph: TrainedGraph) -> set[str]:
    """The series that a graph can tell again: its rounds, and epochs in loss curves."""
    return {ROUNDS, *(f"epochs/{name}" for name in curves_of(graph))}


def is_same(graph: TrainedGraph, step: int, values: Values) -> bool:
    """Whether values logged of a round are those of the graph's history: no other took as long."""
    if not 0 < step <= len(graph.history):
        return False
    own = values_of(graph.history[step - 1])
    pairs = np.array([(own[name], values[name]) for name in own.keys() & values.keys()])
    return len(pairs) > 0 and np.allclose(pairs[:, 0], pairs[:, 1], rtol=1e-5, equal_nan=True)


def settings_of(graph: TrainedGraph) -> dict[str, str]:
    """The modules as they are made, by name."""
    return {name: f"{node!r}"[:_LONGEST] for name, node in graph.names.items()}


# -- files -----------------------------------------------------------------------------------------


class CSVLogger(Logger):
    """Keep a training in a table, ``log.csv``, and pictures beside it, as ``round003_graph.png``.

    The table has a line a value: ``series`` ("rounds", or "epochs/" and a module's name), ``step``,
    ``name`` and ``value``. `pandas.read_csv` and ``pivot`` make columns of it.

    Parameters
    ----------
    folder : path
        Made if it is not there. The table of another training there is replaced.
    pictures_every : int, optional
        Pictures are drawn after every so many rounds; none unless given.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from serkit import Graph, Observation
    >>> from serkit.modules import GMM
    >>> from serkit.training.loggers import CSVLogger
    >>> gmm = GMM(1, random_state=0).connect(Observation(np.random.default_rng(0).random((9, 2))))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     graph = Graph(gmm).fit(2, callbacks=[CSVLogger(folder)], verbose=False)
    ...     lines = Path(folder, "log.csv").read_text().splitlines()
    >>> lines[0], lines[1].rpartition(",")[0]
    ('series,step,name,value', 'rounds,1,gmm/log_likelihood')
    """

    def __init__(self, folder: str | os.PathLike, *, pictures_every: int | None = None) -> None:
        check_argument("CSVLogger", "folder", folder, FilePath())
        super().__init__(pictures_every=pictures_every)
        self.folder = folder
        self._file: TextIO | None = None

    def _open(self, graph: TrainedGraph) -> Steps:
        """Begin with what the graph cannot tell again: epochs of modules without a loss curve."""
        path, done, told = Path(self.folder, "log.csv"), steps_of(graph), told_by(graph)
        rows = _rows_in(path)
        last = max((step for series, step, *_ in rows if series == ROUNDS), default=0)
        last = min(last, done[ROUNDS])
        values = {name: v for series, step, name, v in rows if (series, step) == (ROUNDS, last)}
        if not is_same(graph, last, values):
            rows = []
        kept = [r for r in rows if r[0] not in told and r[1] <= done.get(r[0], 0)]
        write_atomically(path, _lines([("series", "step", "name", "value"), *kept]).encode())
        with explained(path):
            self._file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        return {series: step for series, step, *_ in kept}

    def _put(self, series: str, step: int, values: Values) -> None:
        assert self._file is not None
        with explained(self._file.name):
            self._file.write(_lines([(series, step, name, v) for name, v in values.items()]))
            self._file.flush()

    def _put_picture(self, name: str, step: int, figure: Figure) -> None:
        write_atomically(Path(self.folder, f"round{step:03d}_{name}.png"), _png(figure))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _rows_in(path: Path) -> list[tuple[str, int, str, float]]:
    """The rows of a table, without its head and without any that are broken; none without one."""
    rows = []
    with contextlib.suppress(OSError, UnicodeDecodeError, csv.Error):
        for row in csv.reader(path.read_text("utf-8").splitlines()):
            with contextlib.suppress(ValueError):
                series, step, name, value = row
                rows.append((series, int(step), name, float(value)))
    return rows


def _lines(rows: Iterable[tuple]) -> str:
    """Rows as lines of a table."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class TensorBoardLogger(Logger):
    """Keep a training for TensorBoard: the runs "rounds", and "epochs/" and each module's name.

    It takes ``pip install '.[tensorboard]'``; look at it by ``tensorboard --logdir FOLDER``.

    Parameters
    ----------
    folder : path
        Made if it is not there. The events of another training there are deleted.
    pictures_every : int, optional
        Pictures are drawn after every so many rounds; none unless given.

    Examples
    --------
    >>> from serkit.training.loggers import TensorBoardLogger
    >>> logger = TensorBoardLogger("runs/digits", pictures_every=5)  # fit(callbacks=[logger])
    """

    packages = ("tensorboard",)

    def __init__(self, folder: str | os.PathLike, *, pictures_every: int | None = None) -> None:
        check_argument("TensorBoardLogger", "folder", folder, FilePath())
        super().__init__(pictures_every=pictures_every)
        self.folder = folder
        self._writers: dict[str, Any] = {}

    def _open(self, graph: TrainedGraph) -> Steps:
        """Go on behind the last step but one: of the last, values may be missing after a kill."""
        done = steps_of(graph)
        with explained(self.folder):
            known = {series: _events_in(Path(self.folder, series)) for series in done}
        last = max((s for s in known[ROUNDS] if s <= done[ROUNDS]), default=0)
        if not is_same(graph, last, known[ROUNDS].get(last, {})):
            with explained(self.folder):
                for series in done:
                    for path in Path(self.folder, series).glob("events.out.tfevents.*"):
                        path.unlink()
            return {}
        within = {n: [s for s in steps if s <= done[n]] for n, steps in known.items()}
        told = told_by(graph)
        return {n: max(steps, default=0) - (n in told) for n, steps in within.items()}

    def _writer(self, series: str, step: int) -> Any:
        """The writer of a series, which takes out what is there from its first step on."""
        if series not in self._writers:
            tensorboard = import_module("torch.utils.tensorboard")
            with explained(self.folder):
                place = os.path.join(self.folder, series)
                self._writers[series] = tensorboard.SummaryWriter(place, purge_step=step)
        return self._writers[series]

    def _put(self, series: str, step: int, values: Values) -> None:
        writer = self._writer(series, step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def _put_picture(self, name: str, step: int, figure: Figure) -> None:
        self._writer(ROUNDS, step).add_figure(name, figure, step)

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _events_in(folder: Path) -> dict[int, Values]:
    """The numbers of a run's events, by step."""
    steps: dict[int, Values] = {}
    if folder.is_dir():
        module = "tensorboard.backend.event_processing.event_accumulator"
        events = import_module(module).EventAccumulator(str(folder), {"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                steps.setdefault(event.step, {})[name] = event.value
    return steps


# -- services --------------------------------------------------------------------------------------


class MLflowLogger(Logger):
    """Keep a training as a run of MLflow: metrics "rounds/gmm/accuracy", "epochs/vae/loss", ...

    The modules' settings are the run's parameters. A training that goes on goes on in the latest
    run of the name; another one begins a run. It takes ``pip install mlflow``.

    Parameters
    ----------
    name : str
        Of the run.
    experiment : str
        Made if it is not there.
    tracking_uri : str, optional
        Where runs are kept; MLflow's own setting unless given.
    pictures_every : int, optional
        Pictures are drawn after every so many rounds; none unless given.

    Examples
    --------
    ::

        graph.fit(rounds=5, callbacks=[MLflowLogger("digits")], checkpoint="digits.safetensors")

    >>> from serkit.training.loggers import MLflowLogger
    >>> MLflowLogger.packages
    ('mlflow',)
    """

    packages = ("mlflow",)

    def __init__(
        self,
        name: str,
        *,
        experiment: str = "serkit",
        tracking_uri: str | None = None,
        pictures_every: int | None = None,
    ) -> None:
        check_argument("MLflowLogger", "name", name, _NAME)
        check_argument("MLflowLogger", "experiment", experiment, _NAME)
        check_argument("MLflowLogger", "tracking_uri", tracking_uri, Text(or_none=True))
        super().__init__(pictures_every=pictures_every)
        self.name, self.experiment, self.tracking_uri = name, experiment, tracking_uri

    def _open(self, graph: TrainedGraph) -> Steps:
        """The steps of the latest run of the name, if it is of this training; else a new run."""
        mlflow = import_module("mlflow")
        self._client = client = mlflow.MlflowClient(self.tracking_uri)
        found = client.get_experiment_by_name(self.experiment)
        place = client.create_experiment(self.experiment) if found is None else found.experiment_id
        filter_, latest = f"attributes.run_name = '{self.name}'", ["attributes.start_time DESC"]
        for run in client.search_runs([place], filter_, order_by=latest, max_results=1):
            self._run_id, metrics = run.info.run_id, run.data.metrics
            logged = {series: self._last_step(series, metrics) for series in steps_of(graph)}
            prefix = f"{ROUNDS}/"
            values = {n.removeprefix(prefix): v for n, v in metrics.items() if n.startswith(prefix)}
            if is_same(graph, logged[ROUNDS], values):
                client.update_run(self._run_id, status="RUNNING")
                return logged
        self._run_id = client.create_run(place, run_name=self.name).info.run_id
        for name, setting in settings_of(graph).items():
            client.log_param(self._run_id, name, setting)
        return {}

    def _last_step(self, series: str, metrics: Values) -> int:
        """The last step of a series in the run."""
        name = next((name for name in sorted(metrics) if name.startswith(f"{series}/")), None)
        history = [] if name is None else self._client.get_metric_history(self._run_id, name)
        return max((metric.step for metric in history), default=0)

    def _put(self, series: str, step: int, values: Values) -> None:
        metric, now = import_module("mlflow.entities").Metric, int(time.time() * 1000)
        metrics = [metric(f"{series}/{name}", v, now, step) for name, v in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def _put_picture(self, name: str, step: int, figure: Figure) -> None:
        self._client.log_figure(self._run_id, figure, f"round{step:03d}_{name}.png")

    def _close(self) -> None:
        self._client.set_terminated(self._run_id)


class WandbLogger(Logger):
    """Keep a training as a run of Weights & Biases, of the same names as `MLflowLogger`'s.

    The modules' settings are the run's configuration. A training that goes on goes on in the run
    of the name; another one begins a run, `name` and a number, such as "digits-2". Offline a run
    cannot go on: every call of `fit` begins one, with all rounds so far. It takes ``pip install
    wandb``.

    Parameters
    ----------
    name : str
        Of the run, and its id.
    project : str
    pictures_every : int, optional
        Pictures are drawn after every so many rounds; none unless given.

    Examples
    --------
    ::

        graph.fit(rounds=5, callbacks=[WandbLogger("digits")], checkpoint="digits.safetensors")

    >>> from serkit.training.loggers import WandbLogger
    >>> WandbLogger.packages
    ('wandb',)
    """

    packages = ("wandb",)

    def __init__(
        self, name: str, *, project: str = "serkit", pictures_every: int | None = None
    ) -> None:
        check_argument("WandbLogger", "name", name, _NAME)
        check_argument("WandbLogger", "project", project, _NAME)
        super().__init__(pictures_every=pictures_every)
        self.name, self.project = name, project

    def _open(self, graph: TrainedGraph) -> Steps:
        """The steps of the run of the name that is of this training; else a new run."""
        wandb, number, series = import_module("wandb"), 1, steps_of(graph)
        is_online = wandb.setup().settings.mode != "offline"
        while True:
            name = self.name if number == 1 else f"{self.name}-{number}"
            known = {"id": name, "resume": "allow"} if is_online else {}
            self._run = run = wandb.init(project=self.project, name=name, **known)
            logged = {s: int(run.summary.get(f"{s}/step") or 0) for s in series}
            values = {k.removeprefix(f"{ROUNDS}/"): v for k, v in dict(run.summary).items()}
            if not run.resumed or is_same(graph, logged[ROUNDS], values):
                break
            run.finish()
            number += 1
        run.config.update(settings_of(graph), allow_val_change=True)
        for one in series:
            run.define_metric(f"{one}/step", hidden=True)
            run.define_metric(f"{one}/*", step_metric=f"{one}/step")
        return logged if run.resumed else {}

    def _put(self, series: str, step: int, values: Values) -> None:
        named = {f"{series}/{name}": value for name, value in values.items()}
        self._run.log({f"{series}/step": step, **named})

    def _put_picture(self, name: str, step: int, figure: Figure) -> None:
        image = import_module("wandb").Image(Image.open(io.BytesIO(_png(figure))))
        self._run.log({f"{ROUNDS}/step": step, f"pictures/{name}": image})

    def _close(self) -> None:
        self._run.finish()
