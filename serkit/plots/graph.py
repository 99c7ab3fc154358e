"""Pictures of a graph: its modules and messages, and how its rounds went."""

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
from ..module import Module
from ..observation import Observation

_WIDTH, _HEIGHT = 2.4, 1.7  # inches between boxes: _places counts in these
_BESIDE = 0.25  # inches from the line between two boxes to each arrow along it


def graph(names: dict[str, Module]) -> Figure:
    """Modules as boxes above their parents; messages up solid, down dotted.

    Parameters
    ----------
    names : dict of str to Module
        A graph's ``names``, parents before children.
    """
    places = _places(list(names.values()))
    width, height = (max(place[i] for place in places.values()) for i in (0, 1))
    figure = Figure(figsize=(2 + width * _WIDTH, 1 + height * _HEIGHT), layout="constrained")
    axis = figure.subplots()
    boxes = {id(module): _box(axis, places[module], name, module) for name, module in names.items()}
    for module in names.values():
        for parent in module.parents:
            below, above = (np.array(places[m]) for m in (parent, module))
            across = (below - above)[::-1] * (_HEIGHT / _WIDTH, -_WIDTH / _HEIGHT)
            across *= _BESIDE / np.hypot(*across * (_WIDTH, _HEIGHT))  # to the left of going up
            ends = below + across, above + across
            _arrow(axis, *ends, boxes[id(parent)], boxes[id(module)], parent.sends_up, "-")
            kind = module.sends_down_to(parent)
            ends = above - across, below - across
            _arrow(axis, *ends, boxes[id(module)], boxes[id(parent)], kind, ":")
    axis.set(xlim=(-0.4, width + 0.4), ylim=(-0.3, height + 0.3))
    axis.axis("off")
    return figure


def _places(modules: Sequence[Module]) -> dict[Module, tuple[float, float]]:
    """Where each module stands: above the middle of its parents, an observation below a child."""
    levels: dict[Module, int] = {}
    for module in modules:
        levels[module] = 1 + max((levels[parent] for parent in module.parents), default=-1)
    for module in modules:
        if not module.parents:
            levels[module] = min((levels[c] for c in module.children if c in levels), default=1) - 1
    columns = {module: i for i, module in enumerate(m for m in modules if not m.parents)}
    across: dict[Module, float] = {}
    for level in range(max(levels.values()) + 1):
        here = [module for module in modules if levels[module] == level]
        wanted = {m: np.mean([across[p] for p in m.parents] or columns[m]) for m in here}
        free = -np.inf
        for module in sorted(here, key=wanted.get):
            across[module] = max(wanted[module], free)
            free = across[module] + 1
    leftmost = min(across.values())
    return {module: (float(across[module] - leftmost), levels[module]) for module in modules}


def _box(axis: Axes, place: tuple[float, float], name: str, module: Module) -> Patch:
    colour = "#dddddd" if isinstance(module, Observation) else "#cfe2f3"
    box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "0.3"}
    size = "" if module.size is None else f" ({module.size})"
    caption = f"{name}\n{type(module).__name__}{size}"
    text = axis.text(*place, caption, ha="center", va="center", bbox=box, zorder=3)
    return text.get_bbox_patch()


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
    axis.annotate("", end, start, arrowprops={**arrow, "patchA": first, "patchB": last})
    background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    middle = 0.6 * start + 0.4 * end  # the other direction's name stands elsewhere
    axis.text(*middle, kind.__name__, fontsize=8, ha="center", va="center", bbox=background)


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
    """A line for each module and number, over the updates by which it was reported."""
    found: dict[str, list] = {}
    for position, update in _updates(history):
        for key in keys:
            if key in update:
                line = found.setdefault(f"{update['module']}: {key}", [])
                line.append((position, update[key]))
    for label, points in found.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
    _finish(axis)


def _objective(axis: Axes, history: Sequence[dict]) -> None:
    """One line through all updates, marked by module: who raises it, who lowers it."""
    points = [(p, u["objective"], u["module"]) for p, u in _updates(history) if "objective" in u]
    axis.plot([p[0] for p in points], [p[1] for p in points], color="0.6", linewidth=1)
    for module in dict.fromkeys(p[2] for p in points):
        own = [p for p in points if p[2] == module]
        axis.plot([p[0] for p in own], [p[1] for p in own], "o", ms=4, label=f"after {module}")
    _finish(axis)


def _updates(history: Sequence[dict]) -> Iterator[tuple[float, dict]]:
    """Every update with its place: the last of round t at t, those before it on the way there."""
    for record in history:
        share = 1 / len(record["updates"])
        for i, update in enumerate(record["updates"], start=1):
            yield record["round"] - 1 + i * share, update


def _finish(axis: Axes) -> None:
    """Whole rounds on the x axis, and a legend if there is something to name."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend(fontsize="small")
