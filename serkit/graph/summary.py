"""What there is to say of a run, as tables for a model card, a report, or a comparison."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..observation import Observation
from ..saving.snapshot import Run

ROUNDS_TOLD = 12
_TOLD = ("loss", "log_likelihood", "accuracy", "nmi", "ari", "changed", "objective")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the reprs of functions, another each time
History = Sequence[dict[str, Any]]


class Table(NamedTuple):
    """Titles of columns, and rows of as many texts."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def data(run: Run) -> Table:
    """The observations: numbers of rows, shapes, ranges."""
    rows = list[tuple[str, ...]]()
    for name, node in run.names.items():
        if isinstance(node, Observation):
            values = "not at hand"
            if node.data is not None:
                values = f"{node.data.min():.6g} to {node.data.max():.6g}"
            if node.observed is not None:
                values += f", {node.observed.mean():.0%} of the rows observed"
            rows.append((name, f"{node.n_rows}", f"{node.row_shape}", values))
    return Table(("observation", "rows", "shape of a row", "values"), rows)


def settings(run: Run) -> dict[str, dict[str, str]]:
    """Every argument of every module, in a line each."""
    return {
        name: {k: _ADDRESS.sub("", text) for k, text in module.arguments_in_words().items()}
        for name, module in run.modules.items()
    }


def rounds(history: History) -> Table:
    """What was reported by round, of many rounds some."""
    last = [last_reports([record]) for record in history]
    columns = dict.fromkeys(column for reports in last for column in reports)
    n_told = min(len(last), ROUNDS_TOLD)
    told = np.unique(np.linspace(0, len(last) - 1, n_told).round().astype(int)).tolist()
    rows = [(f"{n + 1}", *(in_digits(last[n].get(column)) for column in columns)) for n in told]
    return Table(("round", *(f"{module} {key}" for module, key in columns)), rows)


def last_reports(history: History) -> dict[tuple[str, str], float]:
    """The last loss, scores and so on that each module reported, by module and name."""
    updates = {u["module"]: u for record in history[-1:] for u in record["updates"]}
    return {
        (module, key): update[key]
        for module, update in updates.items()
        for key in _TOLD
        if isinstance(update.get(key), Real)
    }


def clusters(history: History) -> Table:
    """Of the clusters of each module after the last round: how large, certain and settled."""
    rows = list[tuple[str, ...]]()
    for update in history[-1]["updates"] if history else []:
        if "occupancy" in update:
            shares = update["occupancy"]
            sizes = (f"{100 * share:.1f} %" for share in (min(shares), max(shares)))
            told = (update.get(key) for key in ("entropy", "changed", "mean_shift"))
            rows.append((update["module"], f"{len(shares)}", *sizes, *map(in_digits, told)))
    head = ("module", "clusters", "smallest", "largest", "entropy (nats per row)")
    return Table((*head, "rows that changed", "means moved by"), rows)


def seconds(history: History) -> dict[str, float]:
    """How long each module has learnt, in all rounds."""
    spent: dict[str, float] = {}
    for update in (u for record in history for u in record["updates"]):
        name = update["module"]
        spent[name] = spent.get(name, 0.0) + update.get("seconds", 0.0)
    return spent


def warnings_in(history: History) -> Iterator[tuple[str, str]]:
    """When and by whom, and the text, of each warning that updates gave; one text once."""
    texts = set[str]()
    for record in history:
        for update in record["updates"]:
            for text in update.get("warnings", ()):
                if text not in texts:
                    yield f"round {record['round']}, {update['module']}", text
                texts.add(text)


def versions(*packages: str) -> dict[str, str]:
    """Versions of serkit, Python, what every graph uses, and further packages."""
    own, python = import_module("serkit").__version__, platform.python_version()
    needed = ("numpy", "scikit-learn", "torch", *packages)
    return {"serkit": own, "python": python, **{package: version(package) for package in needed}}


def in_digits(value: Any) -> str:
    """A number to four digits; nothing where there is none."""
    return f"{value:.4g}" if isinstance(value, Real) else ""
