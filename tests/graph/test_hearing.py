"""Warnings that are heard while something runs."""

import threading
import warnings

import pytest

from serkit.graph.hearing import every_warning_anew, hearing_warnings


def test_warnings_are_heard_and_shown():
    with warnings.catch_warnings(record=True) as shown, hearing_warnings() as heard:
        warnings.simplefilter("always")
        warnings.warn("first", stacklevel=1)
        with hearing_warnings() as inner:
            warnings.warn("second", stacklevel=1)
            warnings.warn("second", stacklevel=1)
        warnings.warn("third", stacklevel=1)
    assert heard == ["first", "second", "third"]
    assert inner == ["second"]
    assert [str(w.message) for w in shown] == ["first", "second", "second", "third"]


def test_what_is_left_out_or_an_error_is_not_heard():
    with warnings.catch_warnings(), hearing_warnings() as heard:
        warnings.simplefilter("ignore")
        warnings.warn("ignored", stacklevel=1)
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="an error"):
            warnings.warn("an error", stacklevel=1)
    assert heard == []


def test_hearing_ends_and_leaves_nothing_behind():
    before = warnings.showwarning
    with pytest.raises(ZeroDivisionError), hearing_warnings():
        raise ZeroDivisionError
    assert warnings.showwarning is before


def test_a_caller_that_sets_how_warnings_are_shown_within_keeps_that():
    shown = []
    with warnings.catch_warnings():
        with hearing_warnings() as heard:
            warnings.showwarning = lambda message, *_: shown.append(str(message))
        warnings.warn("later", stacklevel=1)
        with hearing_warnings() as again:
            warnings.warn("again", stacklevel=1)
    assert (heard, again, shown) == ([], ["again"], ["later", "again"])


def test_each_thread_hears_its_own():
    barrier, heard = threading.Barrier(2, timeout=30), {}

    def run(name):
        with hearing_warnings() as heard[name]:
            barrier.wait()
            warnings.warn(f"of the other {name}", stacklevel=1)
            barrier.wait()

    with warnings.catch_warnings():
        warnings.showwarning = lambda *_: None
        threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard == {name: [f"of the other {name}"] for name in "ab"}


def test_what_was_shown_once_is_shown_anew():
    shown, registry = [], {}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_: shown.append(str(message))
        for _ in range(3):
            warnings.warn_explicit("once", UserWarning, "here.py", 1, registry=registry)
        every_warning_anew()
        warnings.warn_explicit("once", UserWarning, "here.py", 1, registry=registry)
    assert shown == ["once", "once"]
