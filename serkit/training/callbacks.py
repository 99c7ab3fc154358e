"""Callbacks of `Graph.fit`, progress bars, and diagnostics of the exchange of messages."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import entr

from .. import processes
from ..errors import InputError
from ..messages import Categorical, Mixture
from ..metrics import accuracy, matching
from ..module import Module, Node
from ..options import Count, Function, Kind, Number, Text, check_argument, in_words
from ..progress import bar, line, output

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tqdm import tqdm

_CHANGES = ("changed", "mean_shift")
_REPORTED = {"loss": "loss", "log_likelihood": "log-lik.", "accuracy": "accuracy"}
Record = dict[str, Any]


class TrainedGraph(Protocol):
    """The part of a `serkit.Graph` that callbacks may use."""

    names: dict[str, Node]
    history: list[Record]

    def name_of(self, node: Node) -> str:
        """The name of a node in the graph."""

    def pictures(self) -> dict[str, Figure]:
        """Every picture that there are data for."""


class Callback:
    """Base of callbacks, whose methods `Graph.fit` calls while it trains; all do nothing here.

    A true return value of `on_epoch` ends that module's update, one of `on_round` the training.
    Where `Graph.fit` keeps a checkpoint, it is written before `on_round`.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Graph, Observation
    >>> from serkit.modules import GMM
    >>> from serkit.training import Callback
    >>> class Twice(Callback):
    ...     def on_round(self, graph, record):
    ...         return record["round"] == 2
    >>> gmm = GMM(1, random_state=0).connect(Observation(np.random.default_rng(0).random((9, 2))))
    >>> len(Graph(gmm).fit(5, callbacks=[Twice()], verbose=False).history)
    2
    """

    def on_start(self, graph: TrainedGraph, rounds: int) -> None:
        """Called before the first of `rounds` rounds."""

    def on_update(self, graph: TrainedGraph, module: Module) -> None:
        """Called before each module's update."""

    def on_epoch(
        self, graph: TrainedGraph, module: Module, epoch: int, terms: dict[str, float]
    ) -> bool | None:
        """Called after each epoch of an update, numbered from 1, with its loss terms."""

    def on_update_end(self, graph: TrainedGraph, module: Module, report: Record) -> None:
        """Called after each module's update, with its entry of the round's record."""

    def on_round(self, graph: TrainedGraph, record: Record) -> bool | None:
        """Called after each round, with its entry in `graph.history`."""

    def on_end(self, graph: TrainedGraph) -> None:
        """Called after the last round, or when training ends with an error."""


class StopOnTolerance(Callback):
    """Stop once a number of the history changes by less than `tol` from round to round.

    "changed" and "mean_shift" are changes themselves, and compared with `tol` as they are. By
    default training stops once less than a hundredth of the rows change their cluster.

    Parameters
    ----------
    monitor : str
        Name of the number, taken from the last update of each round that reports it: "changed",
        "loss", "accuracy", ..., or "objective", which may fall where a VAE is pulled to assigned
        means (see the guide's page on joint training).
    tol : float
        At least 0; smaller changes count as none.
    patience : int
        Number of consecutive rounds without change, at least 1.
    """

    def __init__(self, monitor: str = "changed", tol: float = 1e-2, patience: int = 1) -> None:
        check_argument("StopOnTolerance", "monitor", monitor, Text())
        check_argument("StopOnTolerance", "patience", patience, Count())
        check_argument("StopOnTolerance", "tol", tol, Number(at_least=0))
        self.monitor = monitor
        self.tol = tol
        self.patience = patience

    def on_round(self, graph: TrainedGraph, record: Record) -> bool:
        """True if the last `patience` changes were all below `tol`."""
        values = [self._value(entry) for entry in graph.history[-self.patience - 1 :]]
        changes = values[1:] if self.monitor in _CHANGES else np.diff(values)
        return len(values) > self.patience and bool((np.abs(changes) < self.tol).all())

    def _value(self, record: Record) -> float:
        """The number monitored, as reported last in a round."""
        reported = [u[self.monitor] for u in record["updates"] if self.monitor in u]
        is_first = any("occupancy" in u and "changed" not in u for u in record["updates"])
        if not reported and is_first and self.monitor in _CHANGES:
            return math.nan  # of these rows there is nothing before to compare with
        if not reported:
            known = sorted({key for update in record["updates"] for key in update})
            raise InputError(
                f"StopOnTolerance: nothing reports {self.monitor!r}; there is {', '.join(known)}"
            )
        return reported[-1]


class _OnRound(Callback):
    """A plain function (graph, record), called after each round."""

    def __init__(self, function: Callable[[TrainedGraph, Record], bool | None]) -> None:
        self.function = function

    def on_round(self, graph: TrainedGraph, record: Record) -> bool | None:
        return self.function(graph, record)


class Report(Callback):
    """Print a line per round: the losses, log-likelihoods and accuracies that modules report."""

    def __init__(self) -> None:
        self._titles: list[str] = []

    def on_round(self, graph: TrainedGraph, record: Record) -> None:
        """Print the round's numbers, below their names where those changed; in one process."""
        if not processes.is_first():
            return
        columns = _numbers_of(record)
        if list(columns) != self._titles:
            self._titles = list(columns)
            print("round", *columns, sep="  ")
        numbers = (f"{value:>{len(name)}.3f}" for name, value in columns.items())
        print(f"{record['round']:5d}", *numbers, sep="  ", flush=True)


def _numbers_of(record: Record) -> dict[str, float]:
    """What modules reported last in a round, by what it is called, and the seconds of them all."""
    last = {update["module"]: update for update in record["updates"]}
    columns = {
        f"{module} {title}": update[key]
        for module, update in last.items()
        for key, title in _REPORTED.items()
        if key in update
    }
    return {**columns, "seconds": sum(u.get("seconds", 0.0) for u in record["updates"])}


class Progress(Callback):
    """Show two tqdm bars: one over the rounds, one over the epochs of the module in training.

    Where bars cannot move, as in log files, a line a round; without stderr nothing.
    """

    def __init__(self) -> None:
        self._rounds: tqdm | None = None
        self._epochs: tqdm | None = None
        self._last = 0

    def on_start(self, graph: TrainedGraph, rounds: int) -> None:
        """Open the bar over rounds."""
        self._rounds = bar(rounds, "rounds", unit="round")
        self._last = len(graph.history) + rounds

    def on_update(self, graph: TrainedGraph, module: Module) -> None:
        """Show the module's name; open its bar over epochs if it has some."""
        self._close_epochs()
        name = graph.name_of(module)
        if self._rounds is not None:
            self._rounds.set_postfix_str(name)
        if module.n_epochs is not None and not module.frozen:
            both = output() != "notebook"  # without widgets one bar alone can move there
            self._epochs = bar(module.n_epochs, name, shown=both, unit="epoch", leave=False)

    def on_epoch(
        self, graph: TrainedGraph, module: Module, epoch: int, terms: dict[str, float]
    ) -> None:
        """Advance the bar over epochs, with the loss."""
        if self._epochs is not None:
            self._epochs.set_postfix(loss=f"{terms['loss']:.2f}", refresh=False)
            self._epochs.update()

    def on_round(self, graph: TrainedGraph, record: Record) -> None:
        """Advance the bar over rounds, or write a line."""
        self._close_epochs()
        if self._rounds is not None:
            self._rounds.update()
        numbers = "".join(f", {name} {value:.3f}" for name, value in _numbers_of(record).items())
        line(f"round {record['round']} of {self._last}{numbers}")

    def on_end(self, graph: TrainedGraph) -> None:
        """Close both bars."""
        self._close_epochs()
        if self._rounds is not None:
            self._rounds.close()

    def _close_epochs(self) -> None:
        if self._epochs is not None:
            self._epochs.close()
            self._epochs = None


def as_callbacks(several: Sequence[Callback | Callable]) -> list[Callback]:
    """Callbacks as they are; functions as callbacks that call them after each round."""
    if not isinstance(several, Sequence):
        raise InputError(
            f"callbacks must be a list, as in callbacks=[...], got {in_words(several)}"
        )
    for one in several:
        if not (isinstance(one, Callback) or Function(of=("graph", "record")).fits(one)):
            raise InputError(
                "callbacks must be serkit Callbacks or functions of graph and record, got "
                f"{in_words(one)}"
            )
        if isinstance(one, Callback):
            _check_methods(one)
    return [one if isinstance(one, Callback) else _OnRound(one) for one in several]


def _check_methods(callback: Callback) -> None:
    """Raise InputError unless each method can be called with what it will be called with."""
    for name, method in vars(Callback).items():
        if name.startswith("on_"):
            _, *arguments = inspect.signature(method).parameters  # but self
            if not Function(of=tuple(arguments)).fits(getattr(callback, name)):
                raise InputError(
                    f"callbacks: {type(callback).__name__}.{name} must be a function of "
                    f"{', '.join(arguments)}"
                )


def clusters_of(module: Module) -> Mixture | Categorical | None:
    """A module's last message about clusters, the one with their means where it sends such down."""
    check_argument("clusters_of", "module", module, Kind(Module))
    if module.posterior is None:
        return None
    down = [message for message in module.posterior.down if isinstance(message, Mixture)]
    message = down[0] if down else module.posterior.up
    return message if isinstance(message, Mixture | Categorical) else None


def exchange_diagnostics(
    before: Mixture | Categorical | None, after: Mixture | Categorical | None
) -> dict[str, Any]:
    """Sizes and certainty of clusters, and how far they moved since the message before.

    Returns
    -------
    dict
        ``occupancy``: fraction of rows assigned to each cluster; ``entropy``: mean entropy of the
        responsibilities, in nats per row; and if there was a message before, ``changed``: fraction
        of rows whose cluster changed after matching clusters; ``mean_shift``: mean distance between
        matched means. Empty for modules without clusters.
    """
    for name, message in {"before": before, "after": after}.items():
        if not isinstance(message, Mixture | Categorical | None):
            raise InputError(
                f"exchange_diagnostics: {name} must be a Mixture or Categorical message, got "
                f"{in_words(message)}"
            )
    if after is None:
        return {}
    assigned = after.log_prob.argmax(axis=1)
    occupancy = processes.total(np.bincount(assigned, minlength=after.log_prob.shape[1]))
    entropy = float(entr(np.exp(after.log_prob)).sum(axis=1).mean())
    diagnostics = {
        "occupancy": (occupancy / occupancy.sum()).tolist(),
        "entropy": processes.mean(entropy, len(assigned)),
    }
    if before is None or before.n_rows != after.n_rows:
        return diagnostics
    earlier, assigned = processes.pairs(before.log_prob.argmax(axis=1), assigned)
    diagnostics["changed"] = 1 - accuracy(earlier, assigned)
    if isinstance(after, Mixture) and isinstance(before, Mixture):
        pairs = matching(earlier, assigned)
        shifts = [np.linalg.norm(after.means[c] - before.means[e]) for c, e in pairs.items()]
        diagnostics["mean_shift"] = float(np.mean(shifts))
    return diagnostics
