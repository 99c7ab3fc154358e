"""Every benchmark runs, in its quick setting, and prints a table."""

import importlib.util
import re
from functools import partial

import numpy as np
import pytest
import torch

from tests.benchmarks import __main__ as command
from tests.benchmarks import exchange, table
from tests.benchmarks.__main__ import BENCHMARKS, main
from tutorials import animals, cross_modal, vae_gmm_mlda, vae_gmm_mm, vae_gmm_nn

PEERS = {"vade": "clustpy", "dec": "clustpy"}
# Tutorials that have tests of their own, which say that their scores have these names.
TUTORIALS = {
    "markov": (vae_gmm_mm, ["without", "with"]),
    "semi_supervised": (vae_gmm_nn, ["none", "told", "started", "named"]),
    "speech": (vae_gmm_mlda, ["images", "speech", "both"]),
    "hidden": (cross_modal, ["images, hidden", "speech, hidden"]),
    "animals": (animals, ["CNN on pixels, test accuracy"]),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_prints_a_table(name, capsys, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # in seconds
    if name in TUTORIALS:
        tutorial, names = TUTORIALS[name]
        scores = dict.fromkeys(names, 0.5 if name == "animals" else np.array([0.5]))
        monkeypatch.setattr(tutorial, "main", lambda arguments: scores)
    BENCHMARKS[name](1, quick=True)
    printed = capsys.readouterr().out
    if importlib.util.find_spec(PEERS.get(name, "serkit")):
        assert "\n| --- |" in printed
        assert not re.search(r"^\|.*\bnan\b", printed, re.MULTILINE)
    else:
        assert "is not installed" in printed


@pytest.mark.parametrize(
    "build", [exchange.vae_gmm_markov, exchange.vae_gmm_mlda, exchange.gmm_markov]
)
def test_joint_training_pays(build):
    """Rounds gain 0.04 to 0.2 here, so that rounding of other processors decides nothing."""
    parts, first, *_, last = exchange.accuracies_by_round(build, seed=0, n_rounds=3, n_rows=400)
    assert last >= parts
    assert last >= first - 0.02


def test_a_wrong_name_is_told_with_those_there_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "gmms"])
    with pytest.raises(SystemExit):
        main()
    assert "choose from gmm, vae" in capsys.readouterr().err


def test_what_is_recorded_stands_on_the_page(monkeypatch, tmp_path, capsys):
    def two(n_seeds, quick):
        """A benchmark; target: 3."""
        table.show("Twos", ["a", "b"], [(n_seeds, 2.0)])
        table.say("median 2")

    monkeypatch.setitem(BENCHMARKS, "gmm", two)
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(command, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(command, "start_afresh", lambda n_threads: None)
    monkeypatch.setattr("sys.argv", ["benchmarks", "gmm", "--seeds", "4", "--record"])
    main()
    page = (tmp_path / "page.md").read_text()
    for part in ("## gmm", "target: 3", "| 4 | 2.0 |", "median 2", "--seeds 4", "load ", "commit "):
        assert part in page
    assert "| 4 | 2.0 |" in capsys.readouterr().out


def test_variables_that_slow_a_peer_down_are_left_out(monkeypatch):
    started = []
    monkeypatch.setattr("os.execve", lambda *command: started.append(command))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    command.start_afresh(2)
    [(_, words, environment)] = started
    assert words[1:3] == ["-m", "tests.benchmarks"]
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment["OMP_NUM_THREADS"] == "2"
    # what scikit-learn writes when it is loaded must not start it again and again
    monkeypatch.setattr("os.environ", environment | {"KMP_INIT_AT_FORK": "FALSE"})
    command.start_afresh(2)
    assert len(started) == 1


def test_a_machine_that_is_not_quiet_is_told_of(monkeypatch, capsys):
    monkeypatch.setitem(BENCHMARKS, "gmm", lambda n_seeds, quick: None)
    monkeypatch.setattr("os.getloadavg", lambda: (3.0, 3.0, 3.0))
    command.measured("gmm", 1, quick=False)
    assert "not quiet (load 3.0)" in capsys.readouterr().out
