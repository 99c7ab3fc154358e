"""How latents and clusters moved in a joint training: a panel a round, or a GIF."""

from __future__ import annotations

import math
import os
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from ..errors import InputError, OutputError
from ..module import Node
from ..options import Count, FilePath, Text, check_argument, in_words
from .projection import LINEAR, Projection, linear_map, name_of, project
from .style import (
    Groups,
    by_cluster,
    by_label,
    finished,
    legend_beside,
    legend_width,
    one_group,
    panels,
    point_size,
)

_LABEL = "plots.evolution"
_MOST_PANELS = 12


class KeptGraph(Protocol):
    """The part of a `serkit.Graph` that is drawn."""

    @property
    def names(self) -> dict[str, Node]:
        """Nodes by name."""

    @property
    def latents_by_round(self) -> list[dict[str, Any]]:
        """What `Graph.fit` kept of each round."""


def evolution(
    graph: KeptGraph,
    module: str | None = None,
    *,
    labels: ArrayLike | None = None,
    projection: Projection = "pca",
    path: str | os.PathLike | None = None,
    duration: int = 600,
    ax: Axes | None = None,
) -> Figure:
    """Draw the latents of each round that ``fit(keep_latents=True)`` kept, in the same plane.

    Points are coloured by cluster, or by label where nothing has clusters. Of more than 12 rounds
    some have a panel; a GIF has them all.

    Parameters
    ----------
    graph : Graph
    module : str, optional
        Name of the module whose latents are drawn; the topmost one unless given.
    labels : array-like, shape (N,), optional
        Labels of all rows; a cluster has the colour of its matched label. Those by which a module
        scores unless given.
    projection : {"pca", "lda", "umap", "tsne"} or callable
        As in `latents`: that of the last round, or of all rounds together where it is not linear.
    path : path, optional
        File for a GIF, a frame a round, which is written besides.
    duration : int
        Milliseconds per frame.
    ax : matplotlib.axes.Axes, optional
        To draw into, for a single round.

    Raises
    ------
    InputError
        If no latents have been kept.
    OutputError
        If the GIF cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Graph, Observation, plots
    >>> from serkit.modules import AE, GMM
    >>> rows = np.random.default_rng(0).random((40, 5))
    >>> ae = AE(2, epochs=2, hidden_sizes=(8,), random_state=0).connect(Observation(rows))
    >>> graph = Graph(GMM(2, random_state=0).connect(ae))
    >>> graph = graph.fit(3, keep_latents=True, verbose=False)
    >>> [axis.get_title() for axis in plots.evolution(graph).axes]
    ['round 1', 'round 2', 'round 3']
    """
    check_argument(_LABEL, "module", module, Text(or_none=True))
    check_argument(_LABEL, "path", path, FilePath(or_none=True))
    check_argument(_LABEL, "duration", duration, Count())
    if duration > 655_350:  # which GIF can hold
        raise InputError(f"{_LABEL}: duration must be at most 655350, got {duration}")
    kept = getattr(graph, "latents_by_round", None)
    if not isinstance(kept, list):
        raise InputError(f"{_LABEL}: graph must be a Graph, got {in_words(graph)}")
    if not kept:
        raise InputError(f"{_LABEL}: no latents are kept; fit the graph with keep_latents=True")
    name = _name_of_latents(kept, module)
    rounds = [record for record in kept if name in record["latents"]]
    if labels is None:
        labels = _labels_of(graph)
    of_rounds = [_labels_of_rows(labels, record["rows"]) for record in rounds]
    points = _projected([record["latents"][name] for record in rounds], of_rounds, projection)
    plane = np.vstack(points)
    groups = [_groups(r, known_r) for r, known_r in zip(rounds, of_rounds, strict=True)]
    drawn = [*zip([r["round"] for r in rounds], points, groups, strict=True)]
    if path is not None:
        _write_gif(drawn, plane, name_of(projection), path, duration)
    shown = np.unique(np.linspace(0, len(drawn) - 1, min(len(drawn), _MOST_PANELS)).astype(int))
    axes = _panels([drawn[i] for i in shown], plane, name_of(projection), ax)
    return finished(axes[0], ax, name)


Drawn = tuple[int, np.ndarray, Groups]  # a round, its points in the plane, and their groups


def _name_of_latents(kept: list[dict[str, Any]], module: str | None) -> str:
    names = dict.fromkeys(name for record in kept for name in record["latents"])
    if not names:
        raise InputError(f"{_LABEL}: no module of the graph sends latents")
    if module is not None and module not in names:
        raise InputError(f"{_LABEL}: no latents of {module!r} are kept, but of {', '.join(names)}")
    return [*names][-1] if module is None else module


def _labels_of(graph: KeptGraph) -> ArrayLike | None:
    """The labels by which a module scores."""
    every = (getattr(node, "labels", None) for node in graph.names.values())
    return next((labels for labels in every if labels is not None), None)


def _labels_of_rows(labels: ArrayLike | None, rows: np.ndarray) -> np.ndarray | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) <= rows.max():
        raise InputError(
            f"{_LABEL}: labels must be of all rows, {rows.max() + 1} or more, got shape "
            f"{array.shape}"
        )
    return array[rows]


def _projected(
    latents: list[np.ndarray], labels: list[np.ndarray | None], projection: Projection
) -> list[np.ndarray]:
    """The latents of each round in one plane: that of the last round if it is linear."""
    if projection in LINEAR:
        last = project(latents[-1], labels[-1], projection, 2)
        matrix, shift = linear_map(latents[-1], last)
        return [z @ matrix + shift for z in latents[:-1]] + [last]
    together = project(np.vstack(latents), None, projection, 2)
    return np.split(together, np.cumsum([len(z) for z in latents])[:-1])


def _groups(record: dict[str, Any], labels: np.ndarray | None) -> Groups:
    """Rows by the last module's clusters, else by label."""
    n_rows = len(record["rows"])
    clusters = [*record["clusters"].values()]
    if clusters:
        return by_cluster(clusters[-1], n_rows, labels)
    return one_group(n_rows) if labels is None else by_label(labels, n_rows)


def _panels(
    drawn: list[Drawn], plane: np.ndarray, title: str, ax: Axes | None = None
) -> list[Axes]:
    """A panel a round, with the same axes, and the last round's legend."""
    names = drawn[-1][2].names
    axes = panels(_LABEL, ax, len(drawn), (3, 3), 4, legend=legend_width(names), share=True)
    for axis, (number, points, groups) in zip(axes, drawn, strict=True):
        clouds = _cloud(axis, points, groups)
        axis.set(title=f"round {number}", **_limits(plane))
        axis.tick_params(labelbottom=True)
    if len(axes) == 1:
        axes[0].set(xlabel=f"{title} 1", ylabel=f"{title} 2")
    else:
        axes[0].figure.supxlabel(f"{title} 1", fontsize="medium")
        axes[0].figure.supylabel(f"{title} 2", fontsize="medium")
    if any(names):
        size = point_size(2 * len(points), groups)
        legend_beside(axes, clouds, markerscale=6 / math.sqrt(size))
    return axes


def _cloud(axis: Axes, points: np.ndarray, groups: Groups) -> dict[str, Any]:
    size = point_size(2 * len(points), groups)  # in a small panel
    return {
        value: axis.scatter(rows[:, 0], rows[:, 1], s=size, linewidths=0, **how)
        for value, how, rows in groups.split(points)
    }


def _limits(plane: np.ndarray) -> dict[str, Any]:
    low, high = plane.min(axis=0), plane.max(axis=0)
    margin = np.maximum(0.05 * (high - low), 1e-6)
    ends = np.stack([low - margin, high + margin], axis=1)
    return {"xlim": ends[0], "ylim": ends[1]}


def _write_gif(
    drawn: list[Drawn], plane: np.ndarray, title: str, path: str | os.PathLike, duration: int
) -> None:
    frames = []
    for one in drawn:
        canvas = FigureCanvasAgg(finished(_panels([one], plane, title)[0], None))
        canvas.figure.set_size_inches(5.5 + legend_width(drawn[-1][2].names), 5)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    try:
        frames[0].save(
            path, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0
        )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
