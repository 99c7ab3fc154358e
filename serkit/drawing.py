"""Pictures of a graph: its modules and messages, and how its rounds went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .errors import InputError
from .module import Module
from .observation import Observation


def graph(names: dict[str, Module]) -> Figure:
    """Modules as boxes, observations at the bottom; messages up solid, down dotted.

    Parameters
    ----------
    names : dict of str to Module
        A graph's ``names``, parents before children.
    """
    levels: dict[int, list[str]] = {}
    depth: dict[int, int] = {}
    for name, module in names.items():
        depth[id(module)] = 1 + max((depth[id(p)] for p in module.parents), default=-1)
        levels.setdefault(depth[id(module)], []).append(name)
    widest = max(map(len, levels.values()))
    place = {
        id(names[name]): ((i + 0.5) * widest / len(level), 1.2 * height)
        for height, level in levels.items()
        for i, name in enumerate(level)
    }
    figure = Figure(figsize=(2.6 + 2.4 * widest, 1 + 1.7 * len(levels)), layout="constrained")
    axis = figure.subplots()
    for name, module in names.items():
        x, y = place[id(module)]
        colour = "#dddddd" if isinstance(module, Observation) else "#cfe2f3"
        box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.3"}
        size = "" if module.size is None else f" ({module.size})"
        caption = f"{name}\n{type(module).__name__}{size}"
        axis.text(x, y, caption, ha="center", va="center", bbox=box, zorder=3)
        for parent in module.parents:
            _messages(axis, place[id(parent)], (x, y), parent, module)
    axis.set(xlim=(-0.3, widest + 0.3), ylim=(-0.5, 1.2 * len(levels) - 0.7))
    axis.axis("off")
    return figure


def _messages(axis: Axes, below: tuple, above: tuple, parent: Module, child: Module) -> None:
    arrow = {"arrowstyle": "-|>", "color": "0.2", "shrinkA": 24, "shrinkB": 24}
    middle = ((below[0] + above[0]) / 2, (below[1] + above[1]) / 2)
    for side, start, end, kind, style in (
        (-0.12, below, above, parent.forward_kind, "-"),
        (0.12, above, below, child.backward_kind_to(parent), ":"),
    ):
        if kind is None:
            continue
        shifted = [(x + side, y) for x, y in (start, end)]
        axis.annotate("", shifted[1], shifted[0], arrowprops={**arrow, "linestyle": style})
        align = "right" if side < 0 else "left"
        axis.text(middle[0] + 1.3 * side, middle[1], kind.__name__, fontsize=8, ha=align)


def rounds(history: Sequence[dict[str, Any]]) -> Figure:
    """Scores, joint objective and share of rows that changed cluster, by round.

    Parameters
    ----------
    history : sequence of dict
        A graph's ``history``.
    """
    if not history:
        raise InputError("there are no rounds to draw: fit the graph first")
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    scores, objective, changed = figure.subplots(1, 3)
    _series(scores, history, ("accuracy", "nmi", "ari"))
    scores.set(xlabel="round", ylabel="score")
    _series(changed, history, ("changed",))
    changed.set(xlabel="round", ylabel="share of rows that changed cluster")
    _objective(objective, history)
    objective.set(xlabel="round", ylabel="joint objective after each update (nats a row)")
    return figure


def _series(axis: Axes, history: Sequence[dict], keys: Sequence[str]) -> None:
    """A line for each module and number, over the rounds in which it was reported."""
    found: dict[str, list] = {}
    for record in history:
        for update in record["updates"]:
            for key in keys:
                if key in update:
                    line = found.setdefault(f"{update['module']}: {key}", [])
                    line.append((record["round"], update[key]))
    for label, points in found.items():
        axis.plot(*zip(*points, strict=True), marker="o", label=label)
    _finish(axis)


def _objective(axis: Axes, history: Sequence[dict]) -> None:
    """One line through all updates, marked by module: who raises it, who lowers it."""
    points = [
        (record["round"] + i / len(record["updates"]), update["objective"], update["module"])
        for record in history
        for i, update in enumerate(record["updates"])
        if "objective" in update
    ]
    axis.plot([p[0] for p in points], [p[1] for p in points], color="0.6", linewidth=1)
    for module in dict.fromkeys(p[2] for p in points):
        own = [p for p in points if p[2] == module]
        axis.plot([p[0] for p in own], [p[1] for p in own], "o", label=f"after {module}")
    _finish(axis)


def _finish(axis: Axes) -> None:
    """Whole rounds on the x axis, and a legend if there is something to name."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend(fontsize="small")
