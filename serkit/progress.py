"""Progress bars where they can move: in terminals and notebooks; elsewhere lines of text."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Literal

from tqdm.std import tqdm

Output = Literal["terminal", "widgets", "notebook", "lines", "nothing"]


def output() -> Output:
    """What progress can be shown by.

    "widgets" in a notebook with ipywidgets, and "notebook" in one without, where only one bar can
    move; "terminal"; "lines" where what is written stays, as in a log file; "nothing" without
    stderr, as in services, or where it is closed.
    """
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is not None:
        return "widgets" if find_spec("ipywidgets") else "notebook"
    if sys.stderr is None:
        return "nothing"
    try:
        return "terminal" if sys.stderr.isatty() else "lines"
    except (OSError, ValueError, AttributeError):  # it is closed, or no file
        return "nothing"


def bar(total: int | None, title: str, *, shown: bool = True, **options: Any) -> tqdm:
    """A tqdm bar, which shows nothing where it cannot move, or is not `shown`."""
    kind = output()
    if kind == "widgets":
        from tqdm.notebook import tqdm as tqdm_notebook

        return tqdm_notebook(total=total, desc=title, disable=not shown, **options)
    hidden = not shown or kind in ("lines", "nothing")
    return tqdm(total=total, desc=title, disable=hidden, **options)


def line(text: str) -> None:
    """A line on stderr, where bars cannot move; it is no error if nobody can read it."""
    if output() == "lines":
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
