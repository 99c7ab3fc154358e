"""Pictures from arrays: latents, images, losses, confusions.

Arrays of another shape than is said, or names of another number, raise InputError.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .. import metrics
from ..arrays import as_rows
from ..density import MixtureDensity
from ..errors import InputError
from ..options import Count, Kind, Several, as_numbers, check_argument
from .images import picture, pixels_in, tiled
from .projection import LINEAR, Projection, linear_map, name_of, project
from .style import (
    BESIDE,
    LARGEST,
    Groups,
    Picture,
    add_legend,
    by_cluster,
    by_label,
    finished,
    legend_width,
    names_of,
    one_group,
    panel,
    panels,
    point_size,
    shortened,
    style,
)

if TYPE_CHECKING:
    from plotly import graph_objects

_MOST_TICKS, _MOST_LINES = 10, 40  # of rounds
_SYMBOLS = {  # what plotly has for markers
    "s": "square",
    "^": "diamond",
    "v": "cross",
    "D": "x",
    "P": "circle-open",
    "X": "square-open",
    "<": "diamond-open",
}


def latents(
    z: ArrayLike,
    labels: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    projection: Projection = "pca",
    density: MixtureDensity | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw latents in two dimensions, coloured by label and by cluster.

    Parameters
    ----------
    z : array-like, shape (N, D)
    labels : array-like, shape (N,), optional
        True labels, for a panel that is coloured by them; rows of unknown label are grey.
    clusters : array-like, shape (N,), optional
        For another panel. Without labels give them by name, ``latents(z, clusters=...)``. With
        labels a cluster has the colour of the label that it is matched to, and names it in the
        legend: "3 (label 7)".
    projection : {"pca", "lda", "umap", "tsne"} or callable
        Principal components, linear discriminants of the labels, which "lda" needs, UMAP (needs
        umap-learn), t-SNE, or a function from (N, D) to (N, 2).
    density : MixtureDensity, optional
        A mixture over the latents, such as ``gmm.density()``: a cross at each mean, and an ellipse
        of two standard deviations. For "pca" and "lda", which are linear.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into, for a single panel: one of labels and clusters, or neither.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import plots
    >>> z = np.random.default_rng(0).normal(size=(30, 5))
    >>> figure = plots.latents(z, labels=np.arange(30) % 3, clusters=np.arange(30) % 2)
    >>> [axis.get_title() for axis in figure.axes]
    ['by true label', 'by cluster']
    """
    plane, name = project(z, labels, projection, 2), name_of(projection)
    check_argument("plots.latents", "density", density, Kind(MixtureDensity, or_none=True))
    ellipses = [] if density is None else _ellipses(z, plane, projection, density)
    colourings: dict[str, Groups] = {}
    if labels is not None:
        colourings["by true label"] = by_label(labels, len(plane))
    if clusters is not None:
        colourings["by cluster"] = by_cluster(clusters, len(plane), labels)
    colourings = colourings or {"": one_group(len(plane))}
    if ax is not None and len(colourings) > 1:
        raise InputError("plots.latents: ax= is for one panel; give labels or clusters, not both")
    widths = [5.0 + legend_width(groups.names) for groups in colourings.values()]
    if len(colourings) == 1:
        axes = [panel(ax, (sum(widths), 5))]
    else:
        figure = Picture(figsize=(sum(widths), 5), layout="constrained")
        axes = list(figure.subplots(1, len(colourings), width_ratios=widths))
    for axis, (what, groups) in zip(axes, colourings.items(), strict=True):
        size = point_size(len(plane), groups)
        clouds = {
            value: axis.scatter(points[:, 0], points[:, 1], s=size, linewidths=0, **how)
            for value, how, points in groups.split(plane)
        }
        for mean, outline in ellipses:
            axis.plot(*outline, color="black", linewidth=0.8)
            axis.plot(*mean, marker="+", color="black", markersize=7)
        if what:
            add_legend(axis, clouds, **BESIDE, markerscale=6 / math.sqrt(size))
        axis.set(xlabel=f"{name} 1", ylabel=f"{name} 2", title=what)
    return finished(axes[0], ax, title)


def _ellipses(
    z: ArrayLike, plane: np.ndarray, projection: Projection, density: MixtureDensity
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Means (2,) and outlines (2, n) at two standard deviations of a mixture's components."""
    if projection not in LINEAR:
        raise InputError(
            "plots.latents: density= needs projection 'pca' or 'lda', which are linear"
        )
    n_dims = np.shape(z)[1]
    if density.n_dims != n_dims:
        raise InputError(
            f"plots.latents: density is of {density.n_dims} dimensions, the latents of {n_dims}"
        )
    matrix, shift = linear_map(z, plane)
    angles = np.linspace(0, 2 * np.pi, 100)
    circle = 2 * np.array([np.cos(angles), np.sin(angles)])
    found = []
    for mean, covariance in zip(density.means, density.full_covariances(), strict=True):
        values, vectors = np.linalg.eigh(matrix.T @ covariance @ matrix)
        centre = mean @ matrix + shift
        root = vectors * np.sqrt(np.maximum(values, 0))
        found.append((centre, centre[:, None] + root @ circle))
    return found


def latents_3d(
    z: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    projection: Projection = "pca",
    title: str = "",
) -> graph_objects.Figure:
    """Draw latents in three dimensions, to turn with the mouse: a plotly figure.

    Takes what `latents` takes; a click on a class in the legend hides it. ImportError without
    plotly. ``figure.write_html("latents.html")`` makes a page that opens with no network.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import plots
    >>> z = np.random.default_rng(0).normal(size=(30, 5))
    >>> figure = plots.latents_3d(z, labels=np.arange(30) % 3)
    >>> [trace.name for trace in figure.data]
    ['0', '1', '2']
    """
    try:
        from plotly import graph_objects
    except ImportError:
        needed = "latents_3d needs plotly: pip install '.[interactive]' in serkit's checkout"
        raise ImportError(needed) from None
    space, name = project(z, labels, projection, 3), name_of(projection)
    axes = {f"{axis}axis": {"title": f"{name} {i}"} for i, axis in enumerate("xyz", 1)}
    layout = {"title": _without_markup(title), "scene": axes, "legend": {"itemsizing": "constant"}}
    figure = graph_objects.Figure(layout=layout)
    groups = one_group(len(space)) if labels is None else by_label(labels, len(space))
    for value, how, points in groups.split(space):
        places = dict(zip("xyz", points.T, strict=True))
        symbol = _SYMBOLS.get(how["marker"], "circle")
        marker = {"size": 2, "color": to_hex(how["color"]), "symbol": symbol}
        text = {"name": _without_markup(shortened(value)), "showlegend": labels is not None}
        figure.add_scatter3d(**places, mode="markers", marker=marker, **text)
    return figure


def _without_markup(text: str) -> str:
    """Text that plotly shows letter by letter, HTML and LaTeX too."""
    return html.escape(str(text), quote=False).replace("$", "&#36;")


def image_grid(
    images: ArrayLike,
    *,
    row_titles: Sequence | None = None,
    column_titles: Sequence | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw a grid of images.

    Parameters
    ----------
    images : array-like, shape (rows, columns, H, W), (rows, columns, C, H, W) or flat and square
        Grey (one channel) or RGB, in [0, 1]; values beyond are clipped.
    row_titles, column_titles : sequence, optional
        One for each row, one for each column.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into.

    Examples
    --------
    >>> from serkit import datasets, plots
    >>> images = datasets.load_digits().images[:12].reshape(2, 6, 8, 8)
    >>> figure = plots.image_grid(images, row_titles=["first", "second"])
    >>> figure.axes[0].images[0].get_array().shape  # with a white pixel between two
    (17, 53)
    """
    images = pixels_in(images, "image_grid")
    if images.ndim < 3 or not images.size:
        raise InputError(f"expected images of shape (rows, columns, ...), got {images.shape}")
    pictures = np.array([[picture(image) for image in row] for row in images])
    n_rows, n_columns, height, width = pictures.shape[:4]
    row_titles = names_of(row_titles, n_rows, "row titles")
    column_titles = names_of(column_titles, n_columns, "column titles")
    gap = max(1, height // 16)
    tiles = tiled(pictures, gap)
    size = 0.7 / np.sqrt(height * width) * np.array(tiles.shape[1::-1])
    size = size * min(1, LARGEST / size.max()) + (0.2, 0.5)
    size += 0.08 * np.array([max(map(len, names)) for names in (row_titles, column_titles)])
    title = shortened(title, 80)
    axis = panel(ax, np.maximum(size, (0.12 * len(title), 0)), "compressed")
    axis.imshow(tiles, cmap="gray", vmin=0, vmax=1)
    axis.set_yticks(np.arange(n_rows) * (height + gap) + (height - 1) / 2, row_titles)
    axis.set_xticks(np.arange(n_columns) * (width + gap) + (width - 1) / 2, column_titles)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.tick_params("x", rotation=_rotation(column_titles))
    axis.set_frame_on(False)
    return finished(axis, ax, title)


def _rotation(names: Sequence) -> int:
    """The angle of names below or above columns: upright where they are too long."""
    return 90 if max(len(str(name)) for name in names) > 6 else 0


def reconstructions(
    rows: ArrayLike, reconstructed: ArrayLike, *, n_shown: int = 10, ax: Axes | None = None
) -> Figure:
    """Draw the first rows above their reconstructions: images (N, ...), as for `image_grid`."""
    check_argument("plots.reconstructions", "n_shown", n_shown, Count())
    data = pixels_in(rows, "reconstructions: rows")
    copies = pixels_in(reconstructed, "reconstructions: reconstructed")
    if data.shape[1:] != copies.shape[1:] or not (data.size and copies.size):
        raise InputError(
            f"reconstructions: rows {data.shape} and reconstructed {copies.shape} differ in shape"
        )
    n_shown = min(n_shown, len(data), len(copies))
    pairs = np.stack([data[:n_shown], copies[:n_shown]])
    names = ["data", "reconstruction"]
    return image_grid(pairs, row_titles=names, title="reconstructions", ax=ax)


def samples(images: ArrayLike, *, names: Sequence | None = None, ax: Axes | None = None) -> Figure:
    """Draw samples of each cluster, or class, a row of images for each.

    Takes images (K, n, ...) as `image_grid` does; names are "cluster 0" and so on unless given.
    """
    images = pixels_in(images, "samples")
    titles = [f"cluster {k}" for k in range(len(np.atleast_1d(images)))] if names is None else names
    return image_grid(images, row_titles=titles, title="samples", ax=ax)


def losses(
    curve: Sequence[Mapping[str, float]], *, title: str = "losses", ax: Axes | None = None
) -> Figure:
    """Draw loss terms by epoch, a panel for each; dotted lines part the updates.

    Parameters
    ----------
    curve : sequence of dict
        A ``loss_curve_``; ``held_out_loss``, where present, shares the panel of the loss.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into, for a curve of one term.

    Examples
    --------
    >>> from serkit import plots
    >>> curve = [{"update": 1, "epoch": e, "loss": 100 / e, "kl": 2.0 * e} for e in (1, 2, 3)]
    >>> [axis.get_ylabel() for axis in plots.losses(curve).axes]
    ['loss (nats per row)', 'kl (nats per row)']
    """
    check_argument("plots.losses", "curve", curve, Several(Kind(dict)))
    if not curve or not all("epoch" in entry for entry in curve):
        raise InputError("plots.losses: there are no epochs to draw: train first")
    terms = dict.fromkeys(key for entry in curve for key in entry if key not in ("update", "epoch"))
    drawn = [term for term in terms if not term.startswith("held_out_")]
    if not drawn:
        raise InputError("plots.losses: the epochs have no loss to draw")
    starts = [i for i, entry in enumerate(curve) if i and entry["epoch"] == 1]
    axes = panels("plots.losses", ax, len(drawn), (4.2, 3.6))
    for axis, term in zip(axes, drawn, strict=True):
        lines = {
            key.replace("_", " "): axis.plot(
                [entry.get(key, np.nan) for entry in curve], marker=".", markersize=3
            )[0]
            for key in (term, f"held_out_{term}")
            if key in terms
        }
        if len(lines) > 1:
            add_legend(axis, lines)
        for start in starts:
            axis.axvline(start, color="0.7", linestyle=":", linewidth=1)
        axis.locator_params("x", integer=True)
        axis.set(xlabel="epoch", ylabel=term if term == "accuracy" else f"{term} (nats per row)")
    return finished(axes[0], ax, title)


Curves = ArrayLike | Mapping[str, ArrayLike]


def log_likelihood(
    curves: Curves | Sequence[Curves],
    *,
    rounds: Sequence[int] | None = None,
    per: str = "row",
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw a mixture's ``log_likelihood_`` by iteration of EM, or those of several by name.

    Parameters
    ----------
    curves : array-like, shape (n iterations,), dict of such by name, or a list of either
        Of a list, such as a module's ``log_likelihoods_``, each is an update's. All updates are
        equally wide then, and points are iterations.
    rounds : sequence of int, optional
        Of a list: the round that each update is of. Dotted lines part the rounds.
    per : str
        What the nats are counted by, such as the tokens of an `MLDA`.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into.

    Examples
    --------
    >>> from serkit import plots
    >>> figure = plots.log_likelihood({"cats": [-3.0, -2.0, -1.9], "dogs": [-4.0, -2.5]})
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['cats', 'dogs']

    >>> figure = plots.log_likelihood([[-3.0, -2.0, -1.9], [-1.5, -1.4]], rounds=[1, 2])
    >>> figure.axes[0].get_xlabel(), [len(line.get_xdata()) for line in figure.axes[0].lines[:2]]
    ('round', [3, 2])
    """
    label = "plots.log_likelihood"
    several = [curves]
    if of_updates := isinstance(curves, list | tuple) and not all(map(np.isscalar, curves)):
        several = [*curves]
    updates = [_named_curves(label, one) for one in several]
    numbers = _rounds_of(label, rounds, len(updates) if of_updates else None)
    names = [*dict.fromkeys(name for update in updates for name in update)]
    axis = panel(ax, (5 + (legend_width(names) if any(names) else 0), 3.6))
    lines: dict[str, Artist] = {}
    for before, update in enumerate(updates):
        for name, curve in update.items():
            places = np.arange(len(curve)) if not of_updates else _within(before, len(curve))
            how = style(names.index(name))
            (lines[name],) = axis.plot(places, curve, markersize=3, **how)
    if any(names):
        add_legend(axis, lines, **BESIDE)
    if of_updates:
        ends = [n for n in range(1, len(numbers) + 1) if numbers[n - 1 : n] != numbers[n : n + 1]]
        for end in ends[:-1] if len(ends) <= _MOST_LINES else []:
            axis.axvline(end, color="0.7", linestyle=":", linewidth=1)
        shown = ends[:: math.ceil(len(ends) / _MOST_TICKS)]
        axis.set_xticks(shown, [str(numbers[end - 1]) for end in shown])
    else:
        axis.locator_params("x", integer=True)
    what = "iteration" if not of_updates else "update" if rounds is None else "round"
    axis.set(xlabel=what, ylabel=f"log-likelihood (nats per {per})", title=shortened(title))
    return finished(axis, ax)


def _within(before: int, n: int) -> np.ndarray:
    """Places (n,) of an update's iterations, of which the last stands at the update's number."""
    return before + np.arange(1, n + 1) / n


def _rounds_of(label: str, rounds: Sequence[int] | None, n_updates: int | None) -> list[int]:
    """The round that each update is of; the updates' own numbers unless given."""
    check_argument(label, "rounds", rounds, Several(Count(), or_none=True))
    if rounds is None:
        return [*range(1, (n_updates or 0) + 1)]
    if len(rounds) != n_updates:
        wanted = "needs curves to be a list" if n_updates is None else f"must be {n_updates}"
        raise InputError(f"{label}: rounds {wanted}, one for each update, got {len(rounds)}")
    return [*map(int, rounds)]


def _named_curves(label: str, curves: Any) -> dict[str, np.ndarray]:
    """The curves of an update by name, of which a single one has none."""
    several = curves if isinstance(curves, Mapping) else {"": curves}
    named = {name: as_numbers(label, "curves", curve) for name, curve in several.items()}
    if any(curve.ndim != 1 for curve in named.values()):
        raise InputError(
            f"{label}: curves must be a list of numbers, several by name, or a list of either"
        )
    return named


def confusion(labels: ArrayLike, clusters: ArrayLike, *, ax: Axes | None = None) -> Figure:
    """Draw the confusion matrix of labels (N,) and clusters (N,), matched ones on the diagonal.

    `ax`, a Matplotlib axis, is drawn into if there is one.

    Examples
    --------
    >>> from serkit import plots
    >>> plots.confusion(["cat", "cat", "dog"], [1, 1, 0]).axes[0].get_title()
    'accuracy 1.000'
    """
    counts, classes, columns = metrics.confusion(labels, clusters)
    names = [shortened(name) for name in classes], [shortened(name) for name in columns]
    axis = _cells(counts, lambda count: str(count) if count else "", *names, ax)
    title = f"accuracy {metrics.accuracy(labels, clusters):.3f}"
    axis.set(xlabel="cluster", ylabel="true label", title=title)
    return finished(axis, ax)


def heat_map(
    matrix: ArrayLike,
    names: Sequence | None = None,
    *,
    title: str = "",
    label: str = "",
    xlabel: str = "",
    ylabel: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw a number for each pair of classes, such as their Kullback-Leibler divergence.

    Parameters
    ----------
    matrix : array-like, shape (C, C)
        Written in the cells to three digits.
    names : sequence, optional
        One for each class; 0 to C - 1 unless given.
    title : str
    label : str
        What the numbers are, beside the colour bar.
    xlabel, ylabel : str
        What the classes of columns and of rows are.
    ax : matplotlib.axes.Axes, optional
        To draw into.

    Examples
    --------
    >>> from serkit import plots
    >>> figure = plots.heat_map([[0, 1.5], [2.25, 0]], ["cat", "dog"], label="KL (nats)")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['0', '1.5', '2.25', '0']
    """
    values = as_rows(matrix, "heat_map")
    n_classes = len(values)
    if values.shape != (n_classes, n_classes):
        raise InputError(f"expected a matrix (C, C) over C classes, got shape {values.shape}")
    names = names_of(range(n_classes) if names is None else names, n_classes, "names")
    axis = _cells(values, "{:.3g}".format, names, names, ax)
    axis.figure.colorbar(axis.images[0], ax=axis, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return finished(axis, ax, title)


def _cells(
    matrix: np.ndarray,
    text: Callable[..., str],
    rows: Sequence[str],
    columns: Sequence[str],
    ax: Axes | None,
) -> Axes:
    """Draw a matrix as shades of blue, with a text in each cell and names of rows and columns.

    Of large ones only shades, with as many names as there is room for.
    """
    side = min(0.5, LARGEST / 2 / max(matrix.shape))  # inches
    step = math.ceil(0.2 / side)  # a name is so high
    rotation = _rotation(columns) if step == 1 else 90
    margins = np.array([1.6 + 0.08 * max(map(len, rows)), 1.2])
    margins[1] += 0.08 * max(map(len, columns)) if rotation else 0.0
    size = margins + side * np.array(matrix.shape[::-1])
    axis = panel(ax, size, "compressed")
    middle = sum(axis.imshow(matrix, cmap="Blues").get_clim()) / 2
    if side > 0.3:
        for (i, j), value in np.ndenumerate(matrix):
            colour = "white" if value > middle else "black"
            axis.text(j, i, text(value), ha="center", va="center", color=colour, fontsize=8)
    n_rows, n_columns = matrix.shape
    axis.set_xticks(range(0, n_columns, step), columns[::step], rotation=rotation)
    axis.set_yticks(range(0, n_rows, step), rows[::step])
    return axis
