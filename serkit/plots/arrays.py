"""Pictures from arrays: latents, images, losses, confusions.

Arrays of another shape than is said, or names of another number, raise InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .. import metrics
from ..arrays import as_rows
from ..errors import InputError
from ..options import Count, check_argument
from ..reading import Labels, labels_in
from .images import picture, tiled
from .projection import one_per_row, project

if TYPE_CHECKING:
    from plotly import graph_objects


def latents(
    z: ArrayLike,
    labels: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    *,
    projection: str = "pca",
    title: str = "",
) -> Figure:
    """Draw latents in two dimensions, coloured by label and by cluster.

    Parameters
    ----------
    z : array-like, shape (N, D)
    labels, clusters : array-like, shape (N,), optional
        A panel coloured by each that is given; matched labels and clusters share a colour, and
        rows of unknown label are grey.
    projection : {"pca", "lda"}
        Principal components, or linear discriminants of the labels, which "lda" needs.
    title : str

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import plots
    >>> z = np.random.default_rng(0).normal(size=(30, 5))
    >>> figure = plots.latents(z, labels=np.arange(30) % 3, clusters=np.arange(30) % 2)
    >>> [axis.get_title() for axis in figure.axes]
    ['by true label', 'by cluster']
    """
    panels: list[tuple[str, ArrayLike | None]] = [("true label", labels), ("cluster", clusters)]
    panels = [panel for panel in panels if panel[1] is not None] or [("", None)]
    colours = {}
    if labels is not None and clusters is not None:
        classes = labels_in(labels, "labels").classes.tolist()
        matches = metrics.matching(labels, clusters).items()
        colours = {cluster: f"C{classes.index(label) % 10}" for cluster, label in matches}
    plane, name = project(z, labels, projection, 2), projection.upper()
    figure = Figure(figsize=(5.5 * len(panels), 5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (what, groups) in zip(axes, panels, strict=True):
        groups = labels_in(groups, what) if what == "true label" else groups
        for value, colour, points in _classes(plane, groups, colours if what == "cluster" else {}):
            axis.scatter(*points.T, s=4, color=colour, label=value)
        if groups is not None:
            axis.legend(markerscale=3, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
        axis.set(xlabel=f"{name} 1", ylabel=f"{name} 2", title=f"by {what}" if what else "")
    figure.suptitle(title)
    return figure


def latents_3d(
    z: ArrayLike, labels: ArrayLike | None = None, *, projection: str = "pca", title: str = ""
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
        raise ImportError("latents_3d needs plotly: pip install 'serkit[interactive]'") from None
    space, name = project(z, labels, projection, 3), projection.upper()
    axes = {f"{axis}axis": {"title": f"{name} {i}"} for i, axis in enumerate("xyz", 1)}
    layout = {"title": title, "scene": axes, "legend": {"itemsizing": "constant"}}
    figure = graph_objects.Figure(layout=layout)
    groups = None if labels is None else labels_in(labels, "labels")
    for value, colour, points in _classes(space, groups, {}):
        places = dict(zip("xyz", points.T, strict=True))
        style = {"mode": "markers", "marker": {"size": 2, "color": to_hex(colour)}}
        figure.add_scatter3d(**places, **style, name=value, showlegend=labels is not None)
    return figure


def _classes(
    points: np.ndarray, groups: ArrayLike | Labels | None, colours: dict[Any, str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, colour and points of each class; all points at once if there are none."""
    if not isinstance(groups, Labels):
        groups = np.full(len(points), "") if groups is None else groups
        classes, codes = np.unique(np.asarray(groups), return_inverse=True)
        groups = Labels(codes, classes)
    codes = one_per_row(groups.codes, len(points))
    if not groups.known.all():
        yield "unknown", "lightgrey", points[codes < 0]
    for i, value in enumerate(groups.classes.tolist()):
        yield str(value), colours.get(value, f"C{i % 10}"), points[codes == i]


def image_grid(
    images: ArrayLike,
    *,
    row_titles: Sequence | None = None,
    column_titles: Sequence | None = None,
    title: str = "",
) -> Figure:
    """Draw a grid of images.

    Parameters
    ----------
    images : array-like, shape (rows, columns, H, W), (rows, columns, C, H, W) or flat and square
        Grey (one channel) or RGB, in [0, 1]; values beyond are clipped.
    row_titles, column_titles : sequence, optional
        One for each row, one for each column.
    title : str

    Examples
    --------
    >>> from serkit import datasets, plots
    >>> images = datasets.load_digits().images[:12].reshape(2, 6, 8, 8)
    >>> figure = plots.image_grid(images, row_titles=["first", "second"])
    >>> figure.axes[0].images[0].get_array().shape  # with a white pixel between two
    (17, 53)
    """
    images = np.asarray(images)
    if images.ndim < 3 or not images.size:
        raise InputError(f"expected images of shape (rows, columns, ...), got {images.shape}")
    pictures = np.array([[picture(image) for image in row] for row in images])
    n_rows, n_columns, height, width = pictures.shape[:4]
    row_titles = _names(row_titles, n_rows, "row titles")
    column_titles = _names(column_titles, n_columns, "column titles")
    gap = max(1, height // 16)
    tiles = tiled(pictures, gap)
    size = 0.7 / np.sqrt(height * width) * np.array(tiles.shape[1::-1]) + (0.2, 0.5)
    size += 0.08 * np.array([max(map(len, names)) for names in (row_titles, column_titles)])
    figure = Figure(figsize=np.maximum(size, (0.12 * len(title), 0)), layout="compressed")
    axis = figure.subplots()
    axis.imshow(tiles, cmap="gray", vmin=0, vmax=1)
    axis.set_yticks(np.arange(n_rows) * (height + gap) + (height - 1) / 2, row_titles)
    axis.set_xticks(np.arange(n_columns) * (width + gap) + (width - 1) / 2, column_titles)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.tick_params("x", rotation=_rotation(column_titles))
    axis.set_frame_on(False)
    figure.suptitle(title)
    return figure


def _names(names: Sequence | None, n: int, what: str) -> list[str]:
    """Names as text, `n` of them; empty ones unless given."""
    names = [""] * n if names is None else [str(name) for name in names]
    if len(names) != n:
        raise InputError(f"expected {n} {what}, got {len(names)}: {', '.join(names)}")
    return names


def _rotation(names: Sequence) -> int:
    """The angle of names below or above columns: upright where they are too long."""
    return 90 if max(len(str(name)) for name in names) > 6 else 0


def reconstructions(rows: ArrayLike, reconstructed: ArrayLike, *, n_shown: int = 10) -> Figure:
    """Draw the first rows above their reconstructions: images (N, ...), as for `image_grid`."""
    check_argument("plots.reconstructions", "n_shown", n_shown, Count())
    pairs = np.stack([np.asarray(rows)[:n_shown], np.asarray(reconstructed)[:n_shown]])
    return image_grid(pairs, row_titles=["data", "reconstruction"], title="reconstructions")


def samples(images: ArrayLike, *, names: Sequence | None = None) -> Figure:
    """Draw samples of each cluster, or class, a row of images for each.

    Takes images (K, n, ...) as `image_grid` does; names are "cluster 0" and so on unless given.
    """
    images = np.asarray(images)
    titles = [f"cluster {k}" for k in range(len(images))] if names is None else names
    return image_grid(images, row_titles=titles, title="samples")


def losses(curve: Sequence[Mapping[str, float]], *, title: str = "losses") -> Figure:
    """Draw loss terms by epoch, a panel for each; dotted lines part the updates.

    Parameters
    ----------
    curve : sequence of dict
        A ``loss_curve_``; ``held_out_loss``, where present, shares the panel of the loss.
    title : str

    Examples
    --------
    >>> from serkit import plots
    >>> curve = [{"update": 1, "epoch": e, "loss": 100 / e, "kl": 2.0 * e} for e in (1, 2, 3)]
    >>> [axis.get_ylabel() for axis in plots.losses(curve).axes]
    ['loss (nats per row)', 'kl (nats per row)']
    """
    if not curve:
        raise InputError("there are no epochs to draw: train first")
    terms = dict.fromkeys(key for entry in curve for key in entry if key not in ("update", "epoch"))
    panels = [term for term in terms if not term.startswith("held_out_")]
    starts = [i for i, entry in enumerate(curve) if i and entry["epoch"] == 1]
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for axis, term in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key in [key for key in (term, f"held_out_{term}") if key in terms]:
            values = [entry.get(key, np.nan) for entry in curve]
            axis.plot(values, marker=".", markersize=3, label=key.replace("_", " "))
        if len(axis.lines) > 1:
            axis.legend(fontsize="small")
        for start in starts:
            axis.axvline(start, color="0.7", linestyle=":", linewidth=1)
        axis.locator_params("x", integer=True)
        axis.set(xlabel="epoch", ylabel=term if term == "accuracy" else f"{term} (nats per row)")
    figure.suptitle(title)
    return figure


def log_likelihood(curves: ArrayLike | Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Draw a mixture's ``log_likelihood_`` by iteration of EM, or those of several by name.

    Examples
    --------
    >>> from serkit import plots
    >>> figure = plots.log_likelihood({"cats": [-3.0, -2.0, -1.9], "dogs": [-4.0, -2.5]})
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['cats', 'dogs']
    """
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    curves = curves if isinstance(curves, Mapping) else {"": curves}
    for name, curve in curves.items():
        axis.plot(np.asarray(curve), marker=".", markersize=3, label=name)
    if any(curves):
        axis.legend(fontsize="small")
    axis.locator_params("x", integer=True)
    axis.set(xlabel="iteration", ylabel="log-likelihood (nats per row)", title=title)
    return figure


def confusion(labels: ArrayLike, clusters: ArrayLike) -> Figure:
    """Draw the confusion matrix of labels (N,) and clusters (N,), matched ones on the diagonal.

    Examples
    --------
    >>> from serkit import plots
    >>> plots.confusion(["cat", "cat", "dog"], [1, 1, 0]).axes[0].get_title()
    'accuracy 1.000'
    """
    counts, classes, columns = metrics.confusion(labels, clusters)
    size = 1.8 + 0.45 * max(counts.shape)
    figure = Figure(figsize=(size + 0.8, size), layout="compressed")
    names = classes.tolist(), columns.tolist()
    axis = _cells(figure, counts, lambda count: str(count) if count else "", *names)
    title = f"accuracy {metrics.accuracy(labels, clusters):.3f}"
    axis.set(xlabel="cluster", ylabel="true label", title=title)
    return figure


def heat_map(
    matrix: ArrayLike, names: Sequence | None = None, *, title: str = "", label: str = ""
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
    names = _names(range(n_classes) if names is None else names, n_classes, "names")
    size = 1.5 + 0.5 * n_classes + 0.08 * max(map(len, names))
    figure = Figure(figsize=(max(size + 1, 0.12 * len(title)), size), layout="compressed")
    axis = _cells(figure, values, "{:.3g}".format, names, names)
    figure.colorbar(axis.images[0], label=label)
    figure.suptitle(title)
    return figure


def _cells(
    figure: Figure, matrix: np.ndarray, text: Callable[..., str], rows: Sequence, columns: Sequence
) -> Axes:
    """Draw a matrix as shades of blue, with a text in each cell and names of rows and columns."""
    axis = figure.subplots()
    middle = sum(axis.imshow(matrix, cmap="Blues").get_clim()) / 2
    for (i, j), value in np.ndenumerate(matrix):
        colour = "white" if value > middle else "black"
        axis.text(j, i, text(value), ha="center", va="center", color=colour, fontsize=8)
    axis.set_xticks(range(len(columns)), columns, rotation=_rotation(columns))
    axis.set_yticks(range(len(rows)), rows)
    return axis
