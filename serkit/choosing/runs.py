"""Many trainings, each by itself: in a row or over processes, with the same bits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pickle import PicklingError
from typing import Any

import joblib
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from .. import progress
from ..errors import GraphError, InputError
from ..graph import Graph
from ..module import Module
from ..options import Choice, Count, check_argument

ALL = -1  # as in joblib: as many processes as processors


def check_running(label: str, n_jobs: int, verbose: bool) -> None:
    """Raise InputError for a number of processes, or a flag, that cannot be."""
    check_argument(label, "verbose", verbose, Choice(False, True))
    if isinstance(n_jobs, bool) or not (isinstance(n_jobs, int) and n_jobs == ALL):
        check_argument(label, "n_jobs", n_jobs, Count())


def graph_of(label: str, built: Any, call: str) -> Graph:
    """What a user's function has built, as a graph that has learnt nothing."""
    if not isinstance(built, Graph | Module):
        kind = type(built).__name__
        raise GraphError(f"{label}: {call} must return a Graph or its leaf, got a {kind}")
    graph = built if isinstance(built, Graph) else Graph(built)
    learnt = [node for node in graph.modules if getattr(node, "history_", ())]
    names = [node.label for node in learnt if not node.frozen]
    if names:
        raise GraphError(
            f"{label}: {call} returned {', '.join(names)}, which has learnt already; make new "
            "modules in it each time, or freeze what must stay"
        )
    return graph


def run_all(
    function: Callable[..., Any], tasks: Sequence[tuple], n_jobs: int, verbose: bool, what: str
) -> Iterator[Any]:
    """What a function gives for each task, in order, with a bar of progress if `verbose`.

    Each runs on one thread, here or in another process, so that it gives the same bits.
    """
    n_jobs = min((os.cpu_count() or 1) if n_jobs == ALL else n_jobs, max(len(tasks), 1))
    parallel = joblib.Parallel(n_jobs=n_jobs, backend="loky", return_as="generator")
    try:
        results = parallel(joblib.delayed(_on_one_thread)(function, *task) for task in tasks)
        with progress.bar(len(tasks), what, shown=verbose) as bar:
            for number, result in enumerate(results, start=1):
                bar.update()
                if verbose:
                    progress.line(f"{what}: {number} of {len(tasks)}")
                yield result
    except (PicklingError, AttributeError, TypeError) as error:
        if "pickle" not in str(error):
            raise
        raise InputError(
            f"{what}: build cannot go to other processes ({error!s:.100}); use n_jobs=1, or make "
            "in it whatever it holds"
        ) from error


def _on_one_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return function(*arguments)
    finally:
        torch.set_num_threads(n_threads)


def log_likelihood_of(graph: Graph) -> float:
    """The log-likelihood, in nats per row, of the topmost module that has one; NaN for none."""
    curves = (getattr(node, "log_likelihood_", None) for node in reversed(graph.modules))
    return next((float(c[-1]) for c in curves if isinstance(c, np.ndarray) and len(c)), np.nan)


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def pandas_for(what: str) -> Any:
    """The package pandas; ImportError, which says what to install, without it."""
    try:
        import pandas
    except ImportError:
        text = f"{what} needs pandas: pip install '.[frames]' in serkit's checkout"
        raise ImportError(text) from None
    return pandas
