"""What training leaves behind that does not finish: everything as before, and a line that says so.

An update, a fit or a graph's round counts as a whole or not at all (`AllOrNothing`). Whoever is
stopped by Ctrl-C or SIGTERM says what is kept (`raises_on_sigterm`, `tell`).
"""

from __future__ import annotations

import copy
import inspect
import os
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator

from . import processes
from .arrays import is_mapped
from .options import Options

WayBack = Callable[[], object]


# -- all or nothing --------------------------------------------------------------------------------


class AllOrNothing:
    """Within it modules learn; whatever breaks that off, Ctrl-C too, leaves them as before.

    What has one row per data row (`row_attributes`, messages) is not copied, nor are the rows of
    memory-mapped files: updates replace it. All else may be changed in place, see `ways_back`.

    Parameters
    ----------
    *modules : Module
    also : function without arguments, optional
        Puts back what else is changed.
    """

    def __init__(self, *modules: Any, also: WayBack | None = None) -> None:
        met: set[int] = set()
        self.back = [way for module in modules for way in _ways_back_of(module, met)]
        self.back += [also] if also is not None else []

    # No generator: one that Ctrl-C keeps from being entered would be closed later, and undo then.
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with _undisturbed():
                for way in self.back:
                    way()


def _ways_back_of(module: Any, met: set[int]) -> Iterator[WayBack]:
    attributes = dict(vars(module))
    yield partial(_refill, vars(module), attributes)
    arguments = inspect.signature(type(module).__init__).parameters
    fixed = {"parents", "children", "posterior", *module.row_attributes}
    for name, value in attributes.items():
        if name not in fixed and (name not in arguments or _is_generator(value)):
            yield from ways_back(value, met)


def ways_back(value: Any, met: set[int]) -> Iterator[WayBack]:
    """Functions that put a value, and what it holds, back into the state it is in now.

    That is done in place, so that whoever else holds it finds it unchanged as well. Followed are
    lists, tuples, dicts, arrays, tensors, random generators, scikit-learn's estimators, and what
    has torch's `state_dict` and `load_state_dict`; other values count as immutable, and so do the
    dicts in a list of them, which are records.

    Parameters
    ----------
    value
    met : set of int
        The `id` of every value followed so far, none of which is followed again.
    """
    if id(value) in met:
        return
    met.add(id(value))
    if isinstance(value, list):
        yield partial(value.__setitem__, slice(None), [*value])
        if not all(isinstance(item, dict) for item in value):
            yield from (way for item in value for way in ways_back(item, met))
    elif isinstance(value, tuple):
        yield from (way for item in value for way in ways_back(item, met))
    elif isinstance(value, dict | set):
        yield partial(_refill, value, copy.copy(value))
        items = value.values() if isinstance(value, dict) else ()
        yield from (way for item in items for way in ways_back(item, met))
    elif isinstance(value, np.ndarray):
        if value.flags.writeable and not is_mapped(value):
            yield partial(np.copyto, value, value.copy())
    elif isinstance(value, torch.Tensor):
        yield partial(value.detach().copy_, value.detach().clone())
    elif isinstance(value, np.random.Generator):
        bits = value.bit_generator
        yield partial(setattr, bits, "state", bits.state)
    elif isinstance(value, np.random.RandomState | torch.Generator):
        yield partial(value.set_state, value.get_state())  # type: ignore[arg-type]
    elif isinstance(value, random.Random):
        yield partial(value.setstate, value.getstate())
    elif hasattr(value, "load_state_dict") and not isinstance(value, type):
        yield partial(value.load_state_dict, copy.deepcopy(value.state_dict()))
    elif isinstance(value, BaseEstimator) and not isinstance(value, Options):
        yield from ways_back(vars(value), met)


def _is_generator(value: Any) -> bool:
    kinds = (np.random.Generator, np.random.RandomState, torch.Generator, random.Random)
    return isinstance(value, kinds)


def _refill(container: Any, items: Any) -> None:
    container.clear()
    container.update(items)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Within it a second Ctrl-C counts for nothing, so that what is put back is put back whole."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or not _in_main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- a line instead of a traceback -----------------------------------------------------------------


class Terminated(BaseException):
    """SIGTERM has come; what is under way ends as on Ctrl-C."""


@contextmanager
def raises_on_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated`; not in a thread, nor where a program handles it."""
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise Terminated
        _die_of(number)  # a process forked meanwhile, which is not the one that is told

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def what_is_kept(n_rounds: int, goal: int, path: str | os.PathLike | None, n_runs: int) -> str:
    """What is left of a training that was stopped after some rounds, and how to go on: a line."""
    if n_rounds:
        line = f"the graph keeps {n_rounds} of {goal} rounds"
    elif n_runs > 1:
        line = "the graph is as before the call, since it takes over one of the whole runs"
    else:
        line = "the graph is as before the call, since no round was whole"
    if path is not None and not n_rounds and n_runs == 1 and not os.path.exists(path):
        line += "; the same call starts again"
    elif path is not None:
        files = f"{path}.run0, ..., have" if n_runs > 1 else f"{path} has"
        line += f", and {files} the rounds that were saved; the same call goes on from there"
    elif n_runs == 1 and 0 < n_rounds < goal:
        line += f" but no file has them; fit({goal - n_rounds}) goes on from there"
    if path is None:
        line += "; with checkpoint=... the same call goes on, in a new process too"
    return f"Graph.fit stopped: {line}"


def tell(stop: BaseException, line: str) -> None:
    """Print what is kept, then end the process if it was terminated.

    On Ctrl-C the caller raises `stop` again; a script that does not catch it ends as scripts do on
    Ctrl-C, but without its traceback.
    """
    if processes.is_first():
        print(line, file=sys.stderr, flush=True)
    if isinstance(stop, Terminated):
        sys.stdout.flush()
        _die_of(signal.SIGTERM)
    if _in_script():
        _end_quietly(stop)


def _die_of(number: int) -> None:
    """End this process as a signal does that nobody handles."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _in_script() -> bool:
    """Whether nobody sits at a prompt, and errors that nobody catches are printed by Python."""
    is_interactive = hasattr(sys, "ps1") or sys.flags.interactive
    return not is_interactive and sys.excepthook is sys.__excepthook__


class _Quiet:
    """Marks an error whose traceback is not to be printed."""


def _end_quietly(error: BaseException) -> None:
    """Have Python print no traceback of an error; all is as before once the error is gone."""

    def hook(kind: type[BaseException], raised: BaseException, traceback: Any) -> None:
        if not hasattr(raised, "_quiet"):
            sys.__excepthook__(kind, raised, traceback)

    def unhook() -> None:
        if sys.excepthook is hook:
            sys.excepthook = sys.__excepthook__

    mark = _Quiet()
    error._quiet = mark  # type: ignore[attr-defined]
    weakref.finalize(mark, unhook).atexit = False
    sys.excepthook = hook
