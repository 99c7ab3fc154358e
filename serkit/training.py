"""What goes on beside a training: callbacks, progress, and diagnostics of the exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from scipy.special import entr
from tqdm.auto import tqdm

from . import processes
from .errors import InputError
from .messages import Categorical, Mixture
from .metrics import accuracy, matching
from .module import Module, Node
from .options import Count, Number, check_argument

_CHANGES = ("changed", "mean_shift")
_REPORTED = {"loss": "loss", "log_likelihood": "log-lik.", "accuracy": "accuracy"}
Record = dict[str, Any]


class TrainedGraph(Protocol):
    """What callbacks may ask of a `serkit.Graph`."""

    names: dict[str, Node]
    history: list[Record]

    def name_of(self, node: Node) -> str:
        """The name of a node in the graph."""


class Callback:
    """Base of what `Graph.fit` calls while it trains; override what you need.

    A true return value of `on_epoch` ends that module's update, one of `on_round` the training.
    """

    def on_start(self, graph: TrainedGraph, rounds: int) -> None:
        """Before the first update; `rounds` are to come."""

    def on_update(self, graph: TrainedGraph, module: Module) -> None:
        """Before each module's update."""

    def on_epoch(self, module: Module, terms: dict[str, float]) -> bool | None:
        """After each epoch of a module that trains in epochs, with its loss terms."""

    def on_round(self, graph: TrainedGraph, record: Record) -> bool | None:
        """After each round, with its entry in `graph.history`."""

    def on_end(self, graph: TrainedGraph) -> None:
        """After the last round, or when training ended with an error."""


class StopOnTolerance(Callback):
    """Stop once a number of the history changes by less than `tol` from round to round.

    "changed" and "mean_shift" are changes already and compared with `tol` themselves.

    Parameters
    ----------
    monitor : str
        What the last update of each round that reports it is asked for: "objective", "changed",
        "loss", "accuracy", ...
    tol : float
        Largest change that counts as none.
    patience : int
        Number of rounds in a row without change.
    """

    def __init__(self, monitor: str = "objective", tol: float = 1e-2, patience: int = 1) -> None:
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
        reported = [u[self.monitor] for u in record["updates"] if self.monitor in u]
        if not reported and record["round"] == 1 and self.monitor in _CHANGES:
            return math.nan  # there is nothing before to compare with
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
    """Prints a line a round: the losses, log-likelihoods and accuracies that modules report."""

    def __init__(self) -> None:
        self._titles: list[str] = []

    def on_round(self, graph: TrainedGraph, record: Record) -> None:
        """Print the round's numbers, below their names where those are new; in one process."""
        if not processes.is_first():
            return
        last = {update["module"]: update for update in record["updates"]}
        columns = {
            f"{module} {title}": update[key]
            for module, update in last.items()
            for key, title in _REPORTED.items()
            if key in update
        }
        columns["seconds"] = sum(u.get("seconds", 0.0) for u in record["updates"])
        if list(columns) != self._titles:
            self._titles = list(columns)
            print("round", *columns, sep="  ")
        numbers = (f"{value:>{len(name)}.3f}" for name, value in columns.items())
        print(f"{record['round']:5d}", *numbers, sep="  ", flush=True)


class Progress(Callback):
    """Two tqdm bars: one over the rounds, one over the epochs of the module in training."""

    def __init__(self) -> None:
        self._rounds: tqdm | None = None
        self._epochs: tqdm | None = None

    def on_start(self, graph: TrainedGraph, rounds: int) -> None:
        """Open the bar over rounds."""
        self._rounds = tqdm(total=rounds, desc="rounds", unit="round")

    def on_update(self, graph: TrainedGraph, module: Module) -> None:
        """Name the module; open its bar over epochs if it has some."""
        self._close_epochs()
        name = graph.name_of(module)
        if self._rounds is not None:
            self._rounds.set_postfix_str(name)
        if module.n_epochs is not None and not module.frozen:
            self._epochs = tqdm(total=module.n_epochs, desc=name, unit="epoch", leave=False)

    def on_epoch(self, module: Module, terms: dict[str, float]) -> None:
        """Advance, with the loss."""
        if self._epochs is not None:
            self._epochs.set_postfix(loss=f"{terms['loss']:.2f}", refresh=False)
            self._epochs.update()

    def on_round(self, graph: TrainedGraph, record: Record) -> None:
        """Advance."""
        self._close_epochs()
        if self._rounds is not None:
            self._rounds.update()

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
    """Callbacks as they are; functions as ones called after each round."""
    if not isinstance(several, Sequence):
        raise InputError(f"callbacks must be a list, as in callbacks=[...], got {several!r}")
    for given in several:
        if isinstance(given, type) or not (isinstance(given, Callback) or callable(given)):
            raise InputError(f"callbacks must be serkit Callbacks or functions, got {given!r}")
    return [given if isinstance(given, Callback) else _OnRound(given) for given in several]


def clusters_of(module: Module) -> Mixture | Categorical | None:
    """What a module last said about clusters, with their means where it sends them down."""
    if module.posterior is None:
        return None
    for message in module.posterior.down:
        if isinstance(message, Mixture):
            return message
    up = module.posterior.up
    return up if isinstance(up, Mixture | Categorical) else None


def exchange_diagnostics(
    before: Mixture | Categorical | None, after: Mixture | Categorical | None
) -> dict[str, Any]:
    """How clusters stand, and how far they moved since the message before.

    Returns
    -------
    dict
        ``occupancy``: share of rows assigned to each cluster; ``entropy``: mean entropy of the
        responsibilities, in nats; and if there was a message before, ``changed``: share of rows
        whose cluster changed after matching clusters; ``mean_shift``: mean distance between
        matched means. Empty for modules without clusters.
    """
    if after is None:
        return {}
    assigned = after.log_prob.argmax(axis=1)
    occupancy = processes.total(np.bincount(assigned, minlength=after.log_prob.shape[1]))
    entropy = float(entr(np.exp(after.log_prob)).sum(axis=1).mean())
    diagnostics = {
        "occupancy": (occupancy / occupancy.sum()).tolist(),
        "entropy": processes.mean(entropy, len(assigned)),
    }
    if before is None or before.log_prob.shape[0] != len(assigned):
        return diagnostics
    earlier, assigned = processes.pairs(before.log_prob.argmax(axis=1), assigned)
    diagnostics["changed"] = 1 - accuracy(earlier, assigned)
    if isinstance(after, Mixture) and isinstance(before, Mixture):
        pairs = matching(earlier, assigned)
        shifts = [np.linalg.norm(after.means[c] - before.means[e]) for c, e in pairs.items()]
        diagnostics["mean_shift"] = float(np.mean(shifts))
    return diagnostics
