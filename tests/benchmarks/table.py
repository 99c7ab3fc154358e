"""Times of pairs in turn, and Markdown tables of medians and spreads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

_shown: list[str] = []  # since `shown` was asked last


def arguments(data: str, n_seeds: int, quick: bool) -> list[str]:
    """What a tutorial's `main` takes for this data, or for a quick run on the embedded digits."""
    return [*(["--quick"] if quick else ["--data", data]), "--seeds", str(n_seeds)]


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turn(functions: Sequence[Callable[[], object]], repeats: int) -> np.ndarray:
    """Seconds of each function, (functions, repeats): one after the other, again and again.

    Before, each is called once that does not count.
    """
    for function in functions:
        function()
    rounds = [[seconds(function) for function in functions] for _ in range(repeats)]
    return np.transpose(rounds)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median (minimum to maximum)."""
    low, middle, high = (f"{f(values):.{digits}f}" for f in (np.min, np.median, np.max))
    return f"{middle} ({low} to {high})"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    lines = [f"### {title}", "", _line(header), "|" + " --- |" * len(header), *map(_line, rows)]
    say("\n".join(lines))


def say(text: str) -> None:
    """Print a paragraph that belongs to the tables."""
    print(f"{text}\n", flush=True)
    _shown.append(text)


def shown() -> str:
    """The tables and paragraphs since this was asked last."""
    text = "\n\n".join(_shown)
    _shown.clear()
    return text


def _line(values: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def accuracies(title: str, scores: dict[str, np.ndarray]) -> None:
    """Mean, standard deviation, lowest and highest over seeds."""
    rows = [
        (name, f"{v.mean():.3f} ± {v.std():.3f}", f"{v.min():.3f}", f"{v.max():.3f}")
        for name, v in scores.items()
    ]
    n_seeds = len(next(iter(scores.values())))
    print()
    show(f"{title}, {n_seeds} seeds", ["", "mean ± std", "lowest", "highest"], rows)
