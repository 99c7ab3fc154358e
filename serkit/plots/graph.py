"""Pictures of a graph: its nodes and messages, and how its rounds went."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..errors import InputError
from ..messages import Message
from ..module import Module, Node
from ..observation import Observation
from ..options import Kind, Several, check_argument, in_words
from .style import (
    BESIDE,
    add_legend,
    finished,
    fits_inside,
    legend_beside,
    legend_width,
    panel,
    panels,
    shortened,
    style,
)

_WIDTH, _HEIGHT = 2.4, 1.7  # inches between boxes: _places counts in these
_BOX = 0.5, 0.32  # half of what a box takes, in the same
_BESIDE = 0.25  # inches from the line between two boxes to each arrow along it
_OBJECTIVE = "joint objective (nats per row)"
_PANELS = {  # of rounds: what is drawn, and the numbers of the history that tell it
    "score": ("accuracy", "nmi", "ari"),
    _OBJECTIVE: ("objective",),
    "fraction of rows that changed cluster": ("changed",),
}
_MOST_TICKS = 10
Place = tuple[float, float]


def graph(names: dict[str, Node], *, ax: Axes | None = None) -> Figure:
    """Draw nodes as boxes above their parents; messages up as solid arrows, down as dotted ones.

    Takes a graph's ``names``, parents before children; `ax`, a Matplotlib axis, is drawn into if
    there is one. Arrows between boxes that have others between them go round those.
    """
    check_argument("plots.graph.graph", "names", names, Kind(dict))
    if not names or not all(isinstance(node, Node) for node in names.values()):
        raise InputError("plots.graph.graph: names must be those of a graph, as in graph.names")
    places = _places(list(names.values()))
    bends = {
        (parent, node): _bend(
            places[parent], places[node], [places[n] for n in places if n not in (parent, node)]
        )
        for node in places
        for parent in node.parents
    }
    width, height = np.max(list(places.values()), axis=0)
    middles = [
        _path(np.array(places[parent]), np.array(places[node]), bend)[25, 0]
        for (parent, node), bend in bends.items()
    ]
    left, right = min([0.0, *middles]) - 0.4, max([width, *middles]) + 0.4
    size = 2 + (right - left - 0.8) * _WIDTH, 1 + height * _HEIGHT
    axis = panel(ax, size)
    boxes = {node: _box(axis, places[node], name, node) for name, node in names.items()}
    for (parent, node), bend in bends.items():
        _arrow(axis, boxes[parent], boxes[node], parent.sends_up, "-", bend)
        kind = node.sends_down_to(parent) if isinstance(node, Module) else None
        _arrow(axis, boxes[node], boxes[parent], kind, ":", -bend)
    axis.set(xlim=(left, right), ylim=(-0.3, height + 0.3))
    axis.axis("off")
    return finished(axis, ax)


def _bend(first: Place, last: Place, others: Sequence[Place]) -> float:
    """How much arrows from a box to one above bend to the right, or, negative, to the left.

    As little as leaves all other boxes free: 0 where none is between.
    """
    bends = [0.0, *(sign * size for size in (0.45, 0.6, 0.9, 1.2, 1.6) for sign in (1, -1))]
    for bend in bends:
        path = _path(np.array(first), np.array(last), bend)
        if not any((np.abs(path - other) < _BOX).all(axis=1).any() for other in others):
            return bend
    return bends[1]


def _path(start: np.ndarray, end: np.ndarray, bend: float, n: int = 51) -> np.ndarray:
    """Points (n, 2) on an arrow between two places, as Matplotlib's "arc3" draws it."""
    scale = np.array([_WIDTH, _HEIGHT])
    first, last = start * scale, end * scale
    middle = (first + last) / 2 + bend * (last - first)[::-1] * (1, -1)
    t = np.linspace(0, 1, n)[:, None]
    return ((1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last) / scale


def _places(nodes: Sequence[Node]) -> dict[Node, tuple[float, float]]:
    """Where each node stands: above the middle of its parents, an observation below a child."""
    levels: dict[Node, int] = {}
    for node in nodes:
        levels[node] = 1 + max((levels[parent] for parent in node.parents), default=-1)
    roots = [node for node in nodes if not node.parents]
    for node in roots:
        levels[node] = min((levels[c] for c in node.children if c in levels), default=1) - 1
    columns = {node: i for i, node in enumerate(roots)}
    across: dict[Node, float] = {}
    for level in range(max(levels.values()) + 1):
        here = [node for node in nodes if levels[node] == level]
        wanted = {n: float(np.mean([across[p] for p in n.parents] or columns[n])) for n in here}
        free = -np.inf
        for node in sorted(here, key=wanted.__getitem__):
            across[node] = max(wanted[node], free)
            free = across[node] + 1
    leftmost = min(across.values())
    return {node: (across[node] - leftmost, levels[node]) for node in nodes}


def _box(axis: Axes, place: tuple[float, float], name: str, node: Node) -> Text:
    """A box with a node's name, class and number of outputs."""
    colour = "#dddddd" if isinstance(node, Observation) else "#cfe2f3"
    box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.3"}
    n_outputs = "" if node.n_outputs is None else f" ({node.n_outputs})"
    caption = f"{shortened(name, 20)}\n{type(node).__name__}{n_outputs}"
    return axis.text(*place, caption, ha="center", va="center", bbox=box, zorder=3)


def _arrow(
    axis: Axes, first: Text, last: Text, kind: type[Message] | None, line: str, bend: float
) -> None:
    """An arrow from box to box, left of the line between, named by the kind of its messages."""
    if kind is None:
        return
    start, end = np.array(first.get_position()), np.array(last.get_position())
    left = (start - end)[::-1] * (_HEIGHT / _WIDTH, -_WIDTH / _HEIGHT)
    left *= _BESIDE / np.hypot(*left * (_WIDTH, _HEIGHT))
    if bend:  # the way down swings further
        bend *= 1.0 if line == "-" else 1.3
    else:
        start, end = start + left, end + left
    arrow = {"arrowstyle": "-|>", "color": "0.2", "linestyle": line, "shrinkA": 2, "shrinkB": 2}
    arrow |= {"patchA": first.get_bbox_patch(), "patchB": last.get_bbox_patch()}
    arrow |= {"connectionstyle": f"arc3,rad={bend}"} if bend else {}
    axis.annotate("", tuple(end), tuple(start), arrowprops=arrow)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    x, y = _path(start, end, bend)[20]  # the other direction's name stands elsewhere
    axis.text(x, y, kind.__name__, fontsize=8, ha="center", va="center", bbox=background)


def rounds(history: Sequence[dict[str, Any]], *, ax: Axes | None = None) -> Figure:
    """Draw scores, joint objective and the fraction of rows that changed cluster, by round.

    Takes a graph's ``history``; InputError if there are no rounds. What nothing reports, such as
    changes after a single round, has no panel. `ax`, a Matplotlib axis, is drawn into if there is
    one, and one panel.

    Examples
    --------
    >>> from serkit import plots
    >>> updates = [{"module": "gmm", "accuracy": 0.8, "nmi": 0.7, "objective": -50.0}]
    >>> figure = plots.graph.rounds([{"round": 1, "updates": updates}])
    >>> [axis.get_ylabel() for axis in figure.axes]
    ['score', 'joint objective (nats per row)']
    """
    _check_history("plots.graph.rounds", history)
    if not history:
        raise InputError("there are no rounds to draw: fit the graph first")
    told = {what: series for what, keys in _PANELS.items() if (series := _series(history, keys))}
    told = told or {"(nothing is reported)": {}}
    names = [_names_in(what, series) for what, series in told.items()]
    beside = max([legend_width(n) for n in names if not fits_inside(n)], default=0)
    axes = panels("plots.graph.rounds", ax, len(told), (4.4 + beside, 3.8))
    numbers = [record["round"] for record in history]
    step = math.ceil(len(numbers) / _MOST_TICKS)
    for axis, (what, series) in zip(axes, told.items(), strict=True):
        lines: dict[str, Artist] = {}
        is_objective = what == _OBJECTIVE
        if is_objective:
            axis.plot(*np.transpose(sorted(chain(*series.values()))), color="0.6", linewidth=1)
        names_here = zip(_names_in(what, series), series.values(), strict=True)
        for number, (name, points) in enumerate(names_here):
            how = {**style(number), "markersize": 4, "linestyle": "none" if is_objective else "-"}
            (lines[name],) = axis.plot(*np.transpose(points), **how)
        axis.set(xlabel="round", ylabel=what)
        axis.set_xticks([number for number in numbers if number % step == 0])
        if lines:
            add_legend(axis, lines, **({} if fits_inside([*lines]) else BESIDE))
    return finished(axes[0], ax)


def _names_in(what: str, series: Mapping[tuple[str, str], Any]) -> list[str]:
    """What a panel's legend says: who raises the objective, and who lowers it, or which scores."""
    is_objective = what == _OBJECTIVE
    return [f"after {module}" if is_objective else f"{module}: {key}" for module, key in series]


def runs(histories: Mapping[str, Sequence[dict[str, Any]]], *, ax: Axes | None = None) -> Figure:
    """Draw several runs side by side: losses, scores, the objective, changes, a curve a run.

    Takes graphs' histories by the names of the runs. Of a number that a module reports several
    times in a round the last one counts. `ax`, a Matplotlib axis, is drawn into if there is one,
    and one panel.

    Examples
    --------
    >>> from serkit import plots
    >>> updates = [{"module": "gmm", "accuracy": 0.8, "nmi": 0.7}]
    >>> history = [{"round": 1, "updates": updates}]
    >>> figure = plots.graph.runs({"seed0": history, "seed1": history})
    >>> [axis.get_title() for axis in figure.axes]
    ['gmm accuracy', 'gmm nmi']
    """
    check_argument("plots.graph.runs", "histories", histories, Kind(Mapping))
    if not histories:
        raise InputError("plots.graph.runs: there are no runs to draw")
    for name, history in histories.items():
        _check_history(f"plots.graph.runs: {in_words(name)}", history)
    keys = ("loss", "log_likelihood", *chain(*_PANELS.values()))
    curves = {str(name): _last_by_round(history, keys) for name, history in histories.items()}
    found = dict.fromkeys(key for series in curves.values() for key in series)
    told = sorted(found, key=lambda pair: keys.index(pair[1])) or [("(nothing", "is reported)")]
    width = legend_width([*curves])
    axes = panels("plots.graph.runs", ax, len(told), (4.2, 3.2), legend=width)
    lines: dict[str, Artist] = {}
    for axis, what in zip(axes, told, strict=True):
        for number, (name, series) in enumerate(curves.items()):
            points = series.get(what, [(np.nan, np.nan)])
            (lines[name],) = axis.plot(*np.transpose(points), markersize=4, **style(number))
        axis.set(xlabel="round", title=f"{shortened(what[0], 20)} {what[1].replace('_', ' ')}")
        axis.locator_params("x", integer=True)
    legend_beside(axes, lines)
    return finished(axes[0], ax)


def _last_by_round(history: Sequence[dict], keys: Sequence[str]) -> dict[tuple[str, str], list]:
    """Points (round, number) of each module and number; the objective is the graph's."""
    series: dict[tuple[str, str], dict] = defaultdict(dict)
    for record in history:
        for update in record["updates"]:
            for key in (key for key in keys if isinstance(update.get(key), Real)):
                module = "joint" if key == "objective" else update["module"]
                series[module, key][record["round"]] = update[key]
    return {key: [*points.items()] for key, points in series.items()}


def _check_history(label: str, history: Any) -> None:
    check_argument(label, "history", history, Several(Kind(dict)))
    if not all({"round", "updates"} <= record.keys() for record in history):
        raise InputError(f"{label}: history must be that of a graph, graph.history")


def _series(history: Sequence[dict], keys: Sequence[str]) -> dict[tuple[str, str], list]:
    """Points of each module and number: a round's last update at its number, others before."""
    series = defaultdict(list)
    for record in history:
        for i, update in enumerate(record["updates"], start=1):
            place = record["round"] - 1 + i / len(record["updates"])
            for key in (key for key in keys if key in update):
                series[update["module"], key].append((place, update[key]))
    return series
