"""What is typical: of clusters in a table columns' means and spread, of topics their words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..arrays import as_rows
from ..errors import InputError
from ..options import as_numbers
from .style import (
    by_cluster,
    finished,
    legend_beside,
    legend_width,
    names_of,
    one_group,
    panel,
    panels,
    shortened,
)

_MOST_PANELS = 36
_MOST_WORDS, _TOP_WORDS = 40, 3  # of topics: columns before those that tell little go, and how many
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
    ax: Axes | None = None,
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
    ax : matplotlib.axes.Axes, optional
        To draw into, for a single column or more than 36.

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
    return finished(draw(of_clusters, titles, ax)[0], ax, title)


def _panels(of_clusters: dict[str, Profile], titles: Sequence[str], ax: Axes | None) -> list[Axes]:
    """A panel for each column, with a point and a bar for each cluster."""
    n_across = math.ceil(math.sqrt(len(titles)))
    n_down = math.ceil(len(titles) / n_across)
    size = max(2.2, 4 / n_across), max(1.7, 3.6 / n_down)
    width = legend_width([*of_clusters]) if len(of_clusters) > 1 else 0
    axes = panels("plots.profiles", ax, len(titles), size, n_across, legend=width)
    for column, (axis, title) in enumerate(zip(axes, titles, strict=True)):
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
    if len(axes) == 1:
        axes[0].set_xlabel(_SPREAD, fontsize="small")
    else:
        axes[0].figure.supxlabel(f"in each panel: {_SPREAD}", fontsize="small")
    if len(of_clusters) > 1:
        legend_beside(axes, points)
    return axes


def _curves(of_clusters: dict[str, Profile], titles: Sequence[str], ax: Axes | None) -> list[Axes]:
    """A curve over all columns for each cluster, in a shade of one standard deviation."""
    width = legend_width([*of_clusters]) if len(of_clusters) > 1 else 0
    axis, places = panel(ax, (9 + width, 4.5)), np.arange(len(titles))
    lines, shade = {}, min(0.15, 1 / len(of_clusters))
    for name, (means, deviations, how) in of_clusters.items():
        (lines[name],) = axis.plot(means, linewidth=1, markevery=max(len(titles) // 20, 1), **how)
        low, high = means - deviations, means + deviations
        axis.fill_between(places, low, high, color=how["color"], alpha=shade, linewidth=0)
    step = math.ceil(len(titles) / 40)
    axis.set_xticks(places[::step], titles[::step], rotation=90, fontsize="small")
    axis.set(ylabel=_SPREAD)
    if len(of_clusters) > 1:
        legend_beside([axis], lines)
    return [axis]


def topics(
    components: ArrayLike | Mapping[str, ArrayLike],
    *,
    words: Mapping[str, Sequence | None] | Sequence | None = None,
    names: Sequence | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw topics by their words: P(word | topic) in shades, a panel for each modality.

    Of more than 40 words that have names, columns are the three of each topic that tell most of it:
    those with the largest share in its Kullback-Leibler divergence from the mean of all topics.

    Parameters
    ----------
    components : array-like, shape (K, W), or dict of such by modality
        Such as ``mlda.components_[0]``.
    words : sequence of W names, or dict of such by modality, optional
        Numbers unless given.
    names : sequence, optional
        One for each topic; 0 to K - 1 unless given.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into, for a single modality.

    Examples
    --------
    >>> from serkit import plots
    >>> figure = plots.topics([[0.5, 0.4, 0.1], [0.1, 0.2, 0.7]], words=["cat", "paw", "car"])
    >>> [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    ['cat', 'paw', 'car']
    """
    label = "plots.topics"
    by_modality = components if isinstance(components, Mapping) else {"": components}
    named = words if isinstance(words, Mapping) else dict.fromkeys(by_modality, words)
    tables = {n: as_numbers(label, "components", phi) for n, phi in by_modality.items()}
    n_topics = {len(np.atleast_1d(table)) for table in tables.values()}
    is_table = all(table.ndim == 2 and table.size for table in tables.values())
    if len(n_topics) != 1 or not is_table:
        raise InputError(f"{label}: components must be (K, W), of as many topics K by modality")
    k = n_topics.pop()
    rows = names_of(range(k) if names is None else names, k, "names")
    shown = {name: _telling(table, named.get(name)) for name, table in tables.items()}
    widths = [table.shape[1] for table, _ in shown.values()]
    size = min(max(2.6 + 0.2 * max(widths), 5.0), 18.0), 1.3 + 0.22 * len(rows)
    axes = panels(label, ax, len(shown), size, n_across=1)
    for axis, (name, (table, columns)) in zip(axes, shown.items(), strict=True):
        image = axis.imshow(table, cmap="Blues", aspect="auto", vmin=0, interpolation="nearest")
        axis.figure.colorbar(image, ax=axis, label="P(word | topic)")
        if columns is not None:
            axis.set_xticks(
                range(len(columns)), columns, rotation=0 if named.get(name) is None else 90
            )
        axis.set_yticks(range(len(rows)), rows)
        axis.tick_params(labelsize="small")
        axis.set(ylabel="topic", xlabel="word", title=shortened(name))
    return finished(axes[0], ax, title)


def _telling(table: np.ndarray, words: Sequence | None) -> tuple[np.ndarray, list[str] | None]:
    """The columns of a table that are drawn, and their names; None for too many to have some."""
    n_words = table.shape[1]
    names = None if words is None else names_of(words, n_words, "words")
    if n_words <= _MOST_WORDS:
        return table, names_of(range(n_words), n_words, "words") if names is None else names
    if names is None:
        return table, None
    tiny = np.finfo(float).tiny
    share = table * np.log(np.maximum(table, tiny) / np.maximum(table.mean(axis=0), tiny))
    columns = list(dict.fromkeys(np.argsort(-share, axis=1)[:, :_TOP_WORDS].ravel().tolist()))
    return table[:, columns], [names[column] for column in columns]
