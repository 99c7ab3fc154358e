"""Pictures of many runs: criteria by round and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..errors import InputError
from ..options import as_numbers, in_words
from .style import add_legend, finished, names_of, panels, shortened

_SIZE = 4.0, 3.3  # inches of a panel
_WORST, _MEAN, _PALE = "#d62728", "black", "#9db8d2"


def by_round(
    values: Mapping[str, ArrayLike],
    names: Sequence | None = None,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw criteria of several runs by round: a panel each, a line for each run, and their mean.

    The run that ends lowest is drawn in red, and named.

    Parameters
    ----------
    values : dict of str to array-like, shape (n runs, n rounds)
        By the panel's title; NaN where there is no number.
    names : sequence, optional
        One for each run; "run 0" and so on unless given.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into, for a single criterion.

    Examples
    --------
    >>> from serkit import plots
    >>> figure = plots.by_round({"accuracy": [[0.7, 0.8], [0.6, 0.9]]}, ["seed 3", "seed 4"])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['mean', 'seed 3']
    """
    arrays = _arrays_of("plots.by_round", values)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise InputError(
            "plots.by_round: values must be a dict of arrays (n runs, n rounds) of one shape, got "
            f"shapes {sorted(map(str, shapes)) or 'of none'}"
        )
    n_runs, n_rounds = shapes.pop()
    runs = names_of(
        [f"run {n}" for n in range(n_runs)] if names is None else names, n_runs, "names"
    )
    rounds = np.arange(1, n_rounds + 1)
    axes = panels("plots.by_round", ax, len(arrays), _SIZE)
    for axis, (name, curves) in zip(axes, arrays.items(), strict=True):
        known = np.flatnonzero(np.isfinite(curves[:, -1]))
        worst = known[curves[known, -1].argmin()] if len(known) else None
        for number, curve in enumerate(curves):
            how: dict[str, Any] = {"color": _PALE, "linewidth": 1, "marker": ".", "markersize": 4}
            if number == worst:
                how |= {"color": _WORST, "linewidth": 1.5, "zorder": 3}
            (line,) = axis.plot(rounds, curve, **how)
            if number == worst:
                worst_line = line
        (mean,) = axis.plot(rounds, _means(curves), color=_MEAN, linewidth=2.5, zorder=4)
        legend = {"mean": mean} | ({} if worst is None else {runs[worst]: worst_line})
        add_legend(axis, legend, loc="best")
        axis.locator_params("x", integer=True)
        axis.set(xlabel="round", title=shortened(name))
    return finished(axes[0], ax, title)


def by_number(
    numbers: Sequence[int],
    values: Mapping[str, ArrayLike],
    *,
    choices: Mapping[str, int] | None = None,
    recommended: int | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Draw criteria by a number, such as that of components: a panel each, runs and their mean.

    Parameters
    ----------
    numbers : sequence of int
    values : dict of str to array-like, shape (n numbers, n runs)
        By the panel's title; NaN where there is no number.
    choices : dict of str to int, optional
        By the panel's title: the number that a star marks.
    recommended : int, optional
        The number that a line marks in each panel.
    title : str
    ax : matplotlib.axes.Axes, optional
        To draw into, for a single criterion.

    Examples
    --------
    >>> from serkit import plots
    >>> bic = [[9.0, 9.5], [4.0, 4.1], [5.0, 5.5]]
    >>> figure = plots.by_number([1, 2, 3], {"bic": bic}, choices={"bic": 2}, recommended=2)
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['mean', 'choice', 'recommended']
    """
    label = "plots.by_number"
    places = as_numbers(label, "numbers", numbers)
    arrays = _arrays_of(label, values)
    if (
        not arrays
        or places.ndim != 1
        or any(array.ndim != 2 or len(array) != len(places) for array in arrays.values())
    ):
        raise InputError(
            f"{label}: values must be a dict of arrays (n numbers, n runs), here of "
            f"{len(np.atleast_1d(places))} rows, got {in_words(values)}"
        )
    for name, choice in {"recommended": recommended, **(choices or {})}.items():
        if choice is not None and choice not in places:
            raise InputError(f"{label}: {name} must be one of numbers, got {in_words(choice)}")
    axes = panels(label, ax, len(arrays), _SIZE)
    for axis, (name, runs) in zip(axes, arrays.items(), strict=True):
        shown = _means(runs.T)
        axis.plot(places, runs, ".", color=_PALE, markersize=5)
        (mean,) = axis.plot(places, shown, color=_MEAN, linewidth=2)
        legend = {"mean": mean}
        if name in (choices or {}):
            place = np.flatnonzero(places == choices[name])[0]  # type: ignore[index]
            how: dict[str, Any] = {"color": _WORST, "markersize": 14, "zorder": 4}
            (legend["choice"],) = axis.plot(places[place], shown[place], "*", **how)
        if recommended is not None:
            legend["recommended"] = axis.axvline(recommended, color="0.6", linestyle=":")
        add_legend(axis, legend, loc="best")
        axis.locator_params("x", integer=True)
        axis.set(xlabel="number of components", title=shortened(name))
    return finished(axes[0], ax, title)


def _arrays_of(label: str, values: Any) -> dict[str, np.ndarray]:
    """Criteria by name as arrays; none of anything else than a dict."""
    named = values.items() if isinstance(values, Mapping) else []
    return {n: as_numbers(label, "values", v, "numbers", finite=False) for n, v in named}


def _means(curves: np.ndarray) -> np.ndarray:
    """Means over runs, NaN where there is no number."""
    known = np.isfinite(curves)
    with np.errstate(invalid="ignore"):
        return np.where(known, curves, 0).sum(axis=0) / known.sum(axis=0)
