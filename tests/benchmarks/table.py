"""Markdown tables of medians and spreads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median (minimum to maximum)."""
    low, middle, high = (f"{f(values):.{digits}f}" for f in (np.min, np.median, np.max))
    return f"{middle} ({low} to {high})"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + " --- |" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print(flush=True)
