"""What is typical of each cluster in a table: its columns' means and their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..arrays import as_rows
from ..errors import InputError
from .style import (
    BESIDE,
    Picture,
    add_legend,
    by_cluster,
    legend_width,
    names_of,
    one_group,
)

_MOST_PANELS = 36
_SPREAD = "mean, and one standard deviation to either side"


class Profile(NamedTuple):
    """A cluster's means and standard deviations, (D,) each, and how it is drawn."""

    means: np.ndarray
    deviations: np.ndarray
    style: dict[str, Any]


def profiles(
    rows: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    labels: ArrayLike | None = None,
    names: Sequence | None = None,
    title: str = "",
) -> Figure:
    """Draw what is typical of each cluster in a table: means of its columns, with their spread.

    Each column has a panel, in its own unit, with a point and a bar of one standard deviation to
    either side for each cluster; of more than 36 columns the means are curves, in shades that are
    as wide.

    Parameters
    ----------
    rows : array-like, shape (N, D)
    clusters : array-like, shape (N,), optional
        All rows are one cluster unless given.
    labels : array-like, shape (N,), optional
        Only for colours and the legend: a cluster has the colour of its matched label, and names
        it, as in `latents`.
    names : sequence, optional
        One for each column; 0 to D - 1 unless given.
    title : str

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import plots
    >>> rows = np.array([[1.7, 60], [1.9, 80], [1.2, 30], [1.3, 34]])
    >>> figure = plots.profiles(rows, [0, 0, 1, 1], names=["height (m)", "weight (kg)"])
    >>> [axis.get_title() for axis in figure.axes]
    ['height (m)', 'weight (kg)']
    """
    table = as_rows(rows, "profiles")
    if table.ndim != 2:
        raise InputError(f"expected a table of shape (N, D), got {table.shape}")
    titles = names_of(range(table.shape[1]) if names is None else names, table.shape[1], "names")
    n_rows = len(table)
    groups = one_group(n_rows) if clusters is None else by_cluster(clusters, n_rows, labels)
    of_clusters = {
        name: Profile(x.mean(axis=0), x.std(axis=0), how) for name, how, x in groups.split(table)
    }
    draw = _panels if len(titles) <= _MOST_PANELS else _curves
    return draw(of_clusters, titles).titled(title)


def _panels(of_clusters: dict[str, Profile], titles: Sequence[str]) -> Picture:
    """A panel for each column, with a point and a bar for each cluster."""
    n_across = math.ceil(math.sqrt(len(titles)))
    n_down = math.ceil(len(titles) / n_across)
    size = max(2.2 * n_across, 4) + legend_width([*of_clusters]), max(1.7 * n_down + 0.4, 4)
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.subplots(n_down, n_across, squeeze=False).ravel()
    for column, (axis, title) in enumerate(zip(axes, titles, strict=False)):
        points = {
            name: axis.errorbar(
                place, profile.means[column], profile.deviations[column], ms=4, **profile.style
            )
            for place, (name, profile) in enumerate(of_clusters.items())
        }
        axis.set_title(title, fontsize="small")
        axis.tick_params(labelsize="small")
        axis.set_xticks([])
        axis.set_xlim(-0.7, len(of_clusters) - 0.3)
    for axis in axes[len(titles) :]:
        axis.remove()
    figure.supxlabel(f"in each panel: {_SPREAD}", fontsize="small")
    if len(of_clusters) > 1:
        add_legend(figure, points, loc="outside center right")
    return figure


def _curves(of_clusters: dict[str, Profile], titles: Sequence[str]) -> Picture:
    """A curve over all columns for each cluster, in a shade of one standard deviation."""
    figure = Picture(figsize=(9 + legend_width([*of_clusters]), 4.5), layout="constrained")
    axis, places = figure.subplots(), np.arange(len(titles))
    lines = {}
    for name, (means, deviations, how) in of_clusters.items():
        (lines[name],) = axis.plot(means, linewidth=1, markevery=max(len(titles) // 20, 1), **how)
        low, high = means - deviations, means + deviations
        axis.fill_between(places, low, high, color=how["color"], alpha=0.15, linewidth=0)
    step = math.ceil(len(titles) / 40)
    axis.set_xticks(places[::step], titles[::step], rotation=90, fontsize="small")
    axis.set(ylabel=_SPREAD)
    if len(of_clusters) > 1:
        add_legend(axis, lines, **BESIDE)
    return figure
