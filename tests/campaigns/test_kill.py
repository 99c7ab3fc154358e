"""The campaign of kills in a small setting, in a process of its own, as it forks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.campaigns import kill

ROOT = Path(__file__).parents[2]


def test_stopped_runs_go_on_to_the_same_bits():
    numbers = ["--kills", "7", "--interruptions", "2"]  # a kill at each place
    command = [sys.executable, "-m", "tests.campaigns.kill", "joint", *numbers]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\S+) \| joint \| (.*) \|$", done.stdout, re.MULTILINE)
    assert rows == [("SIGKILL", "7 | 7 | 7 | 0"), ("Ctrl-C", "2 | 2 | 2 | 0")], done.stderr


def test_every_event_of_every_place_that_is_reached_may_be_chosen():
    plan = kill.planned({"once": 1, "thrice": 3, "never": 0}, 100, np.random.default_rng(0))
    assert set(plan) == {("once", 1), ("thrice", 1), ("thrice", 2), ("thrice", 3)}
    assert sum(place == "once" for place, _ in plan) == 50


@pytest.mark.parametrize(
    ("counts", "status"),
    [((7, 7, 7, 0), 0), ((7, 6, 7, 0), 1), ((7, 7, 6, 0), 1), ((7, 7, 7, 1), 1)],
    ids=["good", "not stopped", "not equal", "files left over"],
)
def test_the_exit_status_tells_what_went_wrong(counts, status, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kill", "chain"])
    monkeypatch.setattr(kill, "trials", lambda *_, **__: [["SIGKILL", "chain", *counts]])
    with pytest.raises(SystemExit) as ended:
        kill.main()
    assert ended.value.code == status


def test_unknown_graphs_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kill", "chian"])
    with pytest.raises(SystemExit, match="2"):
        kill.main()
    assert "there is no graph chian" in capsys.readouterr().err


def test_without_a_name_all_graphs_are_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(sys, "argv", ["kill"])
    monkeypatch.setattr(kill, "trials", lambda build, *_, **__: tried.append(build) or [])
    with pytest.raises(SystemExit, match="0"):
        kill.main()
    assert tried == list(kill.GRAPHS.values())
