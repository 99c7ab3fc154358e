"""How pictures look: figures that notebooks show, text that is no markup, classes told apart."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from numpy.typing import ArrayLike

from .. import metrics
from ..colours import COLOURS
from ..errors import InputError
from ..options import in_words
from ..reading import clusters_in, labels_in

BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
MARKERS = "osD^XvP<*>dphH8"
LARGEST = 50.0  # inches that a picture measures, so that it has less than 2^16 pixels
_LONGEST, _IN_A_COLUMN, _LISTED = 40, 20, 100  # of names: letters, and how many a legend has
_INSIDE = 6, 26  # the same of one that lies in a panel
_LETTER = 0.075  # inches that a letter of a legend is wide


class Picture(Figure):
    """A Matplotlib figure that notebooks show by themselves, without ``%matplotlib inline``."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

    def titled(self, title: str = "") -> Picture:
        """Itself, with a title; all text so far is shown letter by letter, never as markup."""
        self.suptitle(shortened(title, 2 * _LONGEST))
        _letter_by_letter(self)
        return self


def panel(
    ax: Axes | None,
    size: Sequence[float] | np.ndarray,
    layout: Literal["constrained", "compressed"] = "constrained",
) -> Axes:
    """The axis of a picture with one panel: `ax` if there is one, else of a new picture."""
    if not isinstance(ax, Axes | None):
        raise InputError(
            f"ax must be a Matplotlib axis, such as figure.axes[0], got {in_words(ax)}"
        )
    width, height = size
    return Picture(figsize=(width, height), layout=layout).subplots() if ax is None else ax


def panels(
    label: str,
    ax: Axes | None,
    n: int,
    size: tuple[float, float],
    n_across: int = 3,
    legend: float = 0.0,
    share: bool = False,
) -> list[Axes]:
    """The axes of a picture of n panels of a size, `n_across` beside each other: `ax`, if for one.

    `legend` inches are left for one beside them; `share`: all have the same limits.
    """
    if ax is not None and n > 1:
        raise InputError(f"{label}: ax= is for one panel, and here are {n}; leave it out")
    if n == 1:
        return [panel(ax, (size[0] + legend, size[1]))]
    n_down = math.ceil(n / n_across)
    n_across = math.ceil(n / n_down)
    whole = size[0] * n_across + legend, size[1] * n_down + 0.4
    figure = Picture(figsize=whole, layout="constrained")
    axes = figure.subplots(n_down, n_across, squeeze=False, sharex=share, sharey=share).ravel()
    for axis in axes[n:]:
        axis.remove()
    return [*axes[:n]]


def finished(axis: Axes, ax: Axes | None, title: str = "") -> Figure:
    """The figure of its panels, with a title; all its text is shown letter by letter.

    Of an axis of the caller's own nothing else in its figure is touched.
    """
    if ax is None and isinstance(axis.figure, Picture):
        return axis.figure.titled(title)
    if title:
        axis.set_title(shortened(title, 2 * _LONGEST))
    _letter_by_letter(axis)
    figure = axis.get_figure(root=True)
    assert figure is not None
    return figure


def _letter_by_letter(artist: Artist) -> None:
    """Have no text in an artist taken for markup, and take fonts that have its letters."""
    for text in artist.findobj(Text):
        text.set_parse_math(False)
        text.set_usetex(False)
        usual = font_manager.get_font(font_manager.findfont(text.get_fontproperties()))
        rare = {letter for letter in text.get_text() if not usual.get_char_index(ord(letter))}
        others = {family for letter in rare if (family := _family_with(letter))}
        if others:
            text.set_fontfamily([*text.get_fontfamily(), *sorted(others)])


@cache
def _family_with(letter: str) -> str | None:
    """An installed font that has a letter which the usual one lacks, as those of East Asia."""
    fonts = (font for font in font_manager.fontManager.ttflist if "Last Resort" not in font.name)
    has = (f.name for f in fonts if font_manager.get_font(f.fname).get_char_index(ord(letter)))
    return next(has, None)


def shortened(name: Any, longest: int = _LONGEST) -> str:
    """A name in one line; of a long one the beginning and the end."""
    text = " ".join(str(name).split())
    if len(text) <= longest:
        return text
    end = longest // 3
    return f"{text[: longest - end - 1]}…{text[-end:]}"


def told_apart(names: Sequence) -> list[str]:
    """Names in one line each; of long ones what they begin and end with alike goes."""
    texts = [" ".join(str(name).split()) for name in names]
    short = [shortened(text) for text in texts]
    if len(set(short)) == len(set(texts)):
        return short
    shortest = min(map(len, texts))
    first = _n_alike(texts, shortest)
    last = _n_alike([text[::-1] for text in texts], shortest - first)
    middles = [text[first : len(text) - last] for text in texts]
    before, after = "…" if first else "", "…" if last else ""
    return [f"{before}{shortened(middle)}{after}" for middle in middles]


def _n_alike(texts: Sequence[str], most: int) -> int:
    """How many letters texts begin with alike."""
    return next((n for n in range(most) if len({text[n] for text in texts}) > 1), most)


def style(number: int) -> dict[str, Any]:
    """Colour and marker of class number 0, 1, ...: 150 that differ, the first 10 in colour."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number // len(COLOURS) % len(MARKERS)],
    }


class Groups(NamedTuple):
    """The group of each row, (N,), as a number that counts names and styles of the groups."""

    codes: np.ndarray
    names: list[str]
    styles: list[dict[str, Any]]

    def split(self, rows: np.ndarray) -> Iterator[tuple[str, dict[str, Any], np.ndarray]]:
        """Name, style and rows of each group."""
        for code, (name, how) in enumerate(zip(self.names, self.styles, strict=True)):
            yield name, how, rows[self.codes == code]


def point_size(n_rows: int, groups: Groups) -> float:
    """Area of a point, in square points: of few rows, or of markers to be told apart, larger."""
    least = 4.0 if len(groups.names) <= len(COLOURS) else 12.0
    return min(max(least, 6000 / max(n_rows, 1)), 16.0)


def one_group(n_rows: int) -> Groups:
    """All rows as one group without a name."""
    return Groups(np.zeros(n_rows, dtype=int), [""], [style(0)])


def by_label(labels: ArrayLike, n_rows: int) -> Groups:
    """Rows by their labels; those of unknown ones come last, in grey and below."""
    codes, classes = labels_in(labels, "plots")
    one_per_row(codes, n_rows)
    is_whole = classes.dtype.kind == "f" and (classes % 1 == 0).all()  # beside NaN, integers float
    names = [str(label) for label in (classes.astype(int) if is_whole else classes).tolist()]
    styles = [*map(style, range(len(classes)))]
    if (codes < 0).any():
        codes = np.where(codes < 0, len(classes), codes)
        names, styles = (
            [*names, "unknown"],
            [*styles, {"color": "0.8", "marker": "o", "zorder": 0.5}],
        )
    return Groups(codes, names, styles)


def by_cluster(clusters: ArrayLike, n_rows: int, labels: ArrayLike | None = None) -> Groups:
    """Rows by their clusters; one that is matched to a label names it and looks like it."""
    values, codes = np.unique(one_per_row(clusters, n_rows), return_inverse=True)
    classes = [] if labels is None else labels_in(labels, "plots").classes.tolist()
    matches = {} if labels is None else metrics.matching(labels, clusters)
    free = count(len(classes))
    numbers = [
        classes.index(matches[cluster]) if cluster in matches else next(free)
        for cluster in values.tolist()
    ]
    names = [
        f"{cluster} (label {matches[cluster]})" if cluster in matches else str(cluster)
        for cluster in values.tolist()
    ]
    return Groups(codes, names, [*map(style, numbers)])


def one_per_row(groups: ArrayLike, n_rows: int) -> np.ndarray:
    """Labels or clusters as an array (N,), after a check of their number."""
    groups = clusters_in(groups, "plots")
    if groups.shape != (n_rows,):
        raise InputError(f"expected a label for each of {n_rows} rows, got shape {groups.shape}")
    return groups


def names_of(names: Sequence | None, n: int, what: str) -> list[str]:
    """Names as texts that are not long, `n` of them; empty ones unless given."""
    if not (names is None or np.iterable(names)):
        raise InputError(f"expected {n} {what}, got {in_words(names)}")
    texts = [""] * n if names is None else told_apart(list(names))
    if len(texts) != n:
        raise InputError(f"expected {n} {what}, got {len(texts)}: {', '.join(texts):.200}")
    return texts


def add_legend(where: Axes | Figure, handles: Mapping[Any, Any], **place: Any) -> None:
    """A legend of artists by name: in columns, and of more than 100 the last entry counts the rest.

    `place` is what Matplotlib's own function takes; `BESIDE` puts it to the right of an axis, where
    it needs `legend_width`.
    """
    names, artists = _listed(list(handles)), list(handles.values())[:_LISTED]
    if len(handles) > _LISTED:
        artists[-1] = Line2D([], [], linestyle="none")
    placeholders = ["x"] * len(names)
    box = where.legend(artists, placeholders, ncols=_columns(names), fontsize="small", **place)
    for text, name in zip(box.get_texts(), names, strict=True):  # a name may begin with "_"
        text.set_text(name)


def legend_beside(axes: Sequence[Axes], handles: Mapping[Any, Any], **options: Any) -> None:
    """A legend to the right of all panels, for which `panels` has left `legend_width`."""
    if len(axes) == 1:
        add_legend(axes[0], handles, **BESIDE, **options)
    else:
        figure = axes[0].get_figure(root=True)
        assert figure is not None
        add_legend(figure, handles, loc="outside center right", **options)


def fits_inside(names: Sequence) -> bool:
    """Whether a legend of these names leaves room for curves in its panel."""
    listed = _listed(names)
    return len(listed) <= _INSIDE[0] and max(map(len, listed), default=0) <= _INSIDE[1]


def legend_width(names: Sequence) -> float:
    """Inches that a legend of these names takes."""
    listed = _listed(names)
    return _columns(listed) * (0.5 + _LETTER * max(map(len, listed), default=0))


def _listed(names: Sequence) -> list[str]:
    """What a legend of these names says."""
    listed = told_apart(names[:_LISTED])
    if len(names) > _LISTED:
        listed[-1] = f"and {len(names) - _LISTED + 1} more"
    return listed


def _columns(names: Sequence) -> int:
    return math.ceil(len(names) / _IN_A_COLUMN) or 1
