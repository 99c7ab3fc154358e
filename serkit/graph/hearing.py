"""Warnings that are given while a graph learns: shown as ever, and kept."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_listeners = list[tuple[int, list[str]]]()  # thread, and texts that it has heard
_shows: list[Any] = []  # what shows warnings while somebody listens, if that is not `_hear`


def every_warning_anew() -> None:
    """Have warnings shown though they were before, by filters that show them once."""
    with warnings.catch_warnings():  # to enter it is to forget which were shown
        pass


@contextmanager
def hearing_warnings() -> Iterator[list[str]]:
    """Gather the texts of warnings that this thread gives, each once, in the order they come in.

    Those which filters leave out, or turn to errors, are not among them.
    """
    texts: list[str] = []
    listener = (threading.get_ident(), texts)
    with _lock:
        if warnings.showwarning is not _hear:
            _shows[:] = [warnings.showwarning]
            warnings.showwarning = _hear
        _listeners.append(listener)
    try:
        yield texts
    finally:
        with _lock:
            _listeners[:] = [other for other in _listeners if other[1] is not texts]
            if not _listeners and warnings.showwarning is _hear:
                warnings.showwarning = _shows[0]


def _hear(message: Any, *where: Any, **more: Any) -> None:
    """What shows a warning while somebody listens."""
    for thread, texts in [*_listeners]:
        if thread == threading.get_ident() and str(message) not in texts:
            texts.append(str(message))
    _shows[0](message, *where, **more)
