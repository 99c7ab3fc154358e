"""Pictures: functions that take arrays and return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA

from . import metrics
from .errors import InputError
from .module import Module
from .observation import Observation


def latents(
    z: ArrayLike,
    labels: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    title: str = "",
) -> Figure:
    """Latents in two dimensions by principal component analysis.

    Parameters
    ----------
    z : array-like, shape (N, D)
    labels, clusters : array-like, shape (N,), optional
        A panel coloured by each that is given; matched labels and clusters share a colour.
    title : str

    Returns
    -------
    Figure
    """
    z = np.asarray(z)
    panels = [("true label", labels), ("cluster", clusters)]
    panels = [(what, groups) for what, groups in panels if groups is not None] or [("", None)]
    matched = {} if len(panels) < 2 else metrics.matching(labels, clusters)
    plane = PCA(2).fit_transform(z) if z.shape[1] > 2 else np.pad(z, ((0, 0), (0, 2 - z.shape[1])))
    figure = Figure(figsize=(5.5 * len(panels), 5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (what, groups) in zip(axes, panels, strict=True):
        _scatter(axis, plane, groups, _colours(labels, matched if what == "cluster" else {}))
        axis.set(xlabel="first component", ylabel="second component")
        axis.set_title(f"by {what}" if what else "")
    figure.suptitle(title)
    return figure


def _colours(labels: ArrayLike | None, matched: dict) -> dict:
    """A colour a label, and that of its label for each matched cluster."""
    colours = {} if labels is None else {v: f"C{i % 10}" for i, v in enumerate(np.unique(labels))}
    return {c: colours[label] for c, label in matched.items()} if matched else colours


def _scatter(axis: Axes, plane: np.ndarray, groups: ArrayLike | None, colours: dict) -> None:
    if groups is None:
        axis.scatter(*plane.T[:2], s=4)
        return
    groups = np.asarray(groups)
    for i, value in enumerate(np.unique(groups)):
        points = plane[groups == value]
        colour = colours.get(value, f"C{i % 10}")
        axis.scatter(points[:, 0], points[:, 1], s=4, color=colour, label=str(value))
    axis.legend(markerscale=3, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def image_grid(
    images: ArrayLike, *, row_titles: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """A grid of pictures.

    Parameters
    ----------
    images : array-like, shape (rows, columns, H, W), (rows, columns, C, H, W) or flat and square
        Grey (one channel) or RGB, in [0, 1].
    row_titles : sequence of str, optional
        One a row.
    title : str

    Raises
    ------
    InputError
        For rows that cannot be shown as images.
    """
    images = np.asarray(images)
    n_rows, n_columns = images.shape[:2]
    figure = Figure(figsize=(0.7 * n_columns + 1, 0.7 * n_rows + 0.6), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for i in range(n_rows):
        for j in range(n_columns):
            axes[i, j].imshow(_picture(images[i, j]), cmap="gray", vmin=0, vmax=1)
            axes[i, j].set(xticks=[], yticks=[])
        if row_titles is not None:
            axes[i, 0].set_ylabel(row_titles[i], rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure


def _picture(row: np.ndarray) -> np.ndarray:
    """One row as (H, W) or (H, W, 3)."""
    if row.ndim == 1:
        side = int(np.sqrt(row.size))
        if side**2 != row.size:
            raise InputError(f"cannot show rows of {row.size} values as square images")
        return row.reshape(side, side)
    if row.ndim == 2:
        return row
    if row.ndim == 3 and len(row) in (1, 3):
        return row[0] if len(row) == 1 else np.moveaxis(row, 0, -1)
    raise InputError(f"cannot show rows of shape {row.shape} as images")


def reconstructions(rows: ArrayLike, reconstructed: ArrayLike, *, n_shown: int = 10) -> Figure:
    """The first rows above their reconstructions, both (N, ...) images."""
    pairs = np.stack([np.asarray(rows)[:n_shown], np.asarray(reconstructed)[:n_shown]])
    return image_grid(pairs, row_titles=["data", "reconstruction"], title="reconstructions")


def samples(images: ArrayLike) -> Figure:
    """Samples of each cluster, (K, n, ...): a row of images a cluster."""
    images = np.asarray(images)
    titles = [f"cluster {k}" for k in range(len(images))]
    return image_grid(images, row_titles=titles, title="samples")


def losses(curve: Sequence[dict[str, float]], *, title: str = "losses") -> Figure:
    """Loss terms by epoch, a panel a term; dotted lines part the updates.

    Parameters
    ----------
    curve : sequence of dict
        A module's ``loss_curve_``.
    title : str
    """
    if not curve:
        raise InputError("there are no epochs to draw: train first")
    terms = [key for key in curve[0] if key not in ("update", "epoch")]
    starts = [i for i, entry in enumerate(curve) if i and entry["epoch"] == 1]
    figure = Figure(figsize=(4.2 * len(terms), 3.6), layout="constrained")
    for axis, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        axis.plot([entry[term] for entry in curve])
        for start in starts:
            axis.axvline(start, color="0.7", linestyle=":", linewidth=1)
        axis.set(xlabel="epoch", ylabel=f"{term} (nats a row)")
    figure.suptitle(title)
    return figure


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


def log_likelihood(curve: ArrayLike) -> Figure:
    """A mixture's ``log_likelihood_`` by iteration."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.asarray(curve))
    axis.set(xlabel="iteration", ylabel="log-likelihood (nats a row)")
    return figure


def confusion(labels: ArrayLike, clusters: ArrayLike) -> Figure:
    """Confusion matrix of labels and clusters, matched ones on the diagonal."""
    counts, classes, columns = metrics.confusion(labels, clusters)
    size = 1.8 + 0.45 * max(counts.shape)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axis = figure.subplots()
    axis.imshow(counts, cmap="Blues")
    for (i, j), count in np.ndenumerate(counts):
        if count:
            colour = "white" if count > counts.max() / 2 else "black"
            axis.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(classes)), classes)
    share = metrics.accuracy(labels, clusters)
    axis.set(xlabel="cluster", ylabel="true label", title=f"accuracy {share:.3f}")
    return figure


def graph(names: dict[str, Module]) -> Figure:
    """Modules as boxes, observations at the bottom; messages up solid, down dotted."""
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
        (0.12, above, below, child.backward_kind, ":"),
    ):
        if kind is None:
            continue
        shifted = [(x + side, y) for x, y in (start, end)]
        axis.annotate("", shifted[1], shifted[0], arrowprops={**arrow, "linestyle": style})
        align = "right" if side < 0 else "left"
        axis.text(middle[0] + 1.3 * side, middle[1], kind.__name__, fontsize=8, ha=align)
