"""What progress is shown by: a terminal, a notebook, a log file, nothing."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from serkit import Graph, Observation, progress
from serkit.choosing.runs import run_all
from serkit.modules import AE, GMM


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Broken(io.StringIO):
    """A log whose reader is gone."""

    def write(self, text):
        raise BrokenPipeError


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def notebook(monkeypatch, widgets):
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress, "find_spec", lambda name: widgets or None)


def fit():
    rows = np.random.default_rng(0).random((30, 3))
    low = AE(2, epochs=2, hidden_sizes=(4,), random_state=0).connect(Observation(rows))
    return Graph(GMM(1, random_state=0).connect(low)).fit(2)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Terminal, "terminal"),
        (io.StringIO, "lines"),
        (closed, "nothing"),
        (lambda: None, "nothing"),
        (object, "nothing"),
    ],
)
def test_kind_of_output(monkeypatch, stream, expected):
    monkeypatch.setattr(sys, "stderr", stream())
    assert progress.output() == expected


@pytest.mark.parametrize(("widgets", "expected"), [(True, "widgets"), (False, "notebook")])
def test_notebooks_are_known_by_their_kernel(monkeypatch, widgets, expected):
    notebook(monkeypatch, widgets)
    assert progress.output() == expected


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch):
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress.output() == "terminal"


@pytest.mark.parametrize("stream", [lambda: None, closed, Broken, object])
def test_training_needs_no_stderr(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    assert len(fit().history) == 2


def test_a_log_file_gets_a_line_a_round(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    graph = fit()
    first, second = sys.stderr.getvalue().splitlines()
    assert first.startswith("round 1 of 2, ae loss ")
    assert f"gmm log-lik. {graph.history[1]['updates'][1]['log_likelihood']:.3f}" in second
    assert "\r" not in sys.stderr.getvalue()
    graph.fit(1)
    assert sys.stderr.getvalue().splitlines()[2].startswith("round 3 of 3, ")


def test_many_runs_are_told_as_a_round_is(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert [*run_all(abs, [(-1,), (-2,)], 1, True, "runs")] == [1, 2]
    assert sys.stderr.getvalue() == "runs: 1 of 2\nruns: 2 of 2\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert [*run_all(abs, [(-1,)], 1, True, "runs"), *run_all(abs, [(-1,)], 1, False, "no")] == [
        1,
        1,
    ]
    assert "runs: 100%" in sys.stderr.getvalue()
    assert "no" not in sys.stderr.getvalue()


def test_a_terminal_gets_bars(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    fit()
    for text in ("rounds: 100%", "2/2", "gmm", "ae:"):
        assert text in sys.stderr.getvalue()
    assert "round 1 of 2" not in sys.stderr.getvalue()


def test_a_notebook_without_widgets_gets_one_bar(monkeypatch):
    notebook(monkeypatch, widgets=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # which is no terminal there
    fit()
    assert "rounds: 100%" in sys.stderr.getvalue()
    assert "ae:" not in sys.stderr.getvalue()
    assert "\x1b" not in sys.stderr.getvalue()  # nothing moves up a line


def test_a_notebook_with_widgets_gets_its_bars(monkeypatch):
    notebook(monkeypatch, widgets=True)
    made = []
    monkeypatch.setattr(
        "tqdm.notebook.tqdm", lambda **options: made.append(options) or progress.tqdm(disable=True)
    )
    fit()
    titles = [options["desc"] for options in made]
    assert titles == ["rounds", "ae", "ae"]
    assert not any(options["disable"] for options in made)
