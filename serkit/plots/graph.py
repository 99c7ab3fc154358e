"""Pictures of a graph: its nodes and messages, and how its rounds went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..errors import InputError
from ..messages import Message
from ..module import Module, Node
from ..observation import Observation

_WIDTH, _HEIGHT = 2.4, 1.7  # inches between boxes: _places counts in these
_BESIDE = 0.25  # inches from the line between two boxes to each arrow along it


def graph(names: dict[str, Node]) -> Figure:
    """Draw nodes as boxes above their parents; messages up as solid arrows, down as dotted ones.

    Parameters
    ----------
    names : dict of str to Node
        A graph's ``names``, parents before children.
    """
    places = _places(list(names.values()))
    width, height = (max(place[i] for place in places.values()) for i in (0, 1))
    figure = Figure(figsize=(2 + width * _WIDTH, 1 + height * _HEIGHT), layout="constrained")
    axis = figure.subplots()
    boxes = {node: _box(axis, places[node], name, node) for name, node in names.items()}
    for node in names.values():
        for parent in node.parents:
            below, above = np.array(places[parent]), np.array(places[node])
            across = (below - above)[::-1] * (_HEIGHT / _WIDTH, -_WIDTH / _HEIGHT)
            across *= _BESIDE / np.hypot(*across * (_WIDTH, _HEIGHT))  # to the left of going up
            ends = below + across, above + across
            _arrow(axis, *ends, boxes[parent], boxes[node], parent.sends_up, "-")
            kind = node.sends_down_to(parent) if isinstance(node, Module) else None
            ends = above - across, below - across
            _arrow(axis, *ends, boxes[node], boxes[parent], kind, ":")
    axis.set(xlim=(-0.4, width + 0.4), ylim=(-0.3, height + 0.3))
    axis.axis("off")
    return figure


def _places(nodes: Sequence[Node]) -> dict[Node, tuple[float, float]]:
    """Where each node stands: above the middle of its parents, an observation below a child."""
    levels: dict[Node, int] = {}
    for node in nodes:
        levels[node] = 1 + max((levels[parent] for parent in node.parents), default=-1)
    for node in nodes:
        if not node.parents:
            levels[node] = min((levels[c] for c in node.children if c in levels), default=1) - 1
    columns = {node: i for i, node in enumerate(n for n in nodes if not n.parents)}
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


def _box(axis: Axes, place: tuple[float, float], name: str, node: Node) -> Patch:
    """A box with a node's name, class and number of outputs."""
    colour = "#dddddd" if isinstance(node, Observation) else "#cfe2f3"
    box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.3"}
    n_outputs = "" if node.n_outputs is None else f" ({node.n_outputs})"
    caption = f"{name}\n{type(node).__name__}{n_outputs}"
    text = axis.text(*place, caption, ha="center", va="center", bbox=box, zorder=3)
    patch = text.get_bbox_patch()
    assert patch is not None  # as it was given a box
    return patch


def _arrow(
    axis: Axes,
    start: np.ndarray,
    end: np.ndarray,
    first: Patch,
    last: Patch,
    kind: type[Message] | None,
    style: str,
) -> None:
    """An arrow from the edge of one box to that of another, named by the kind of its messages."""
    if kind is None:
        return
    arrow = {"arrowstyle": "-|>", "color": "0.2", "linestyle": style, "shrinkA": 2, "shrinkB": 2}
    arrow |= {"patchA": first, "patchB": last}
    axis.annotate("", tuple(end), tuple(start), arrowprops=arrow)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    x, y = 0.6 * start + 0.4 * end  # the other direction's name stands elsewhere
    axis.text(x, y, kind.__name__, fontsize=8, ha="center", va="center", bbox=background)


def rounds(history: Sequence[dict[str, Any]]) -> Figure:
    """Draw scores, joint objective and the fraction of rows that changed cluster, by round.

    Parameters
    ----------
    history : sequence of dict
        A graph's ``history``.

    Raises
    ------
    InputError
        If there are no rounds.

    Examples
    --------
    >>> from serkit import plots
    >>> updates = [{"module": "gmm", "accuracy": 0.8, "nmi": 0.7, "objective": -50.0}]
    >>> figure = plots.graph.rounds([{"round": 1, "updates": updates}])
    >>> [axis.get_ylabel() for axis in figure.axes[:2]]
    ['score', 'joint objective after each update (nats per row)']
    """
    if not history:
        raise InputError("there are no rounds to draw: fit the graph first")
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    scores, objective, changed = figure.subplots(1, 3)
    _series(scores, history, ("accuracy", "nmi", "ari"))
    scores.set(xlabel="round", ylabel="score")
    _series(changed, history, ("changed",))
    changed.set(xlabel="round", ylabel="fraction of rows that changed cluster")
    _objective(objective, history)
    objective.set(xlabel="round", ylabel="joint objective after each update (nats per row)")
    return figure


def _series(axis: Axes, history: Sequence[dict], keys: Sequence[str]) -> None:
    """A line for each module and number, over the updates by which it was reported."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for position, update in _updates(history):
        for key in keys:
            if key in update:
                line = lines.setdefault(f"{update['module']}: {key}", [])
                line.append((position, update[key]))
    for label, points in lines.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
    _finish(axis)


def _objective(axis: Axes, history: Sequence[dict]) -> None:
    """One line through all updates, marked by module: who raises it, who lowers it."""
    points = [(p, u["objective"], u["module"]) for p, u in _updates(history) if "objective" in u]
    axis.plot([p[0] for p in points], [p[1] for p in points], color="0.6", linewidth=1)
    for module in dict.fromkeys(p[2] for p in points):
        after = [p for p in points if p[2] == module]
        axis.plot([p[0] for p in after], [p[1] for p in after], "o", ms=4, label=f"after {module}")
    _finish(axis)


def _updates(history: Sequence[dict]) -> Iterator[tuple[float, dict]]:
    """Every update with its place: the last of round t at t, those before it on the way there."""
    for record in history:
        step = 1 / len(record["updates"])
        for i, update in enumerate(record["updates"], start=1):
            yield record["round"] - 1 + i * step, update


def _finish(axis: Axes) -> None:
    """Whole rounds on the x axis, and a legend if there is something to name."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend(fontsize="small")
