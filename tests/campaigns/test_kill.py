"""The campaign of kills in a small setting, in a process of its own, as it forks."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_stopped_runs_go_on_to_the_same_bits():
    numbers = ["--kills", "7", "--interruptions", "2"]  # a kill at each place
    command = [sys.executable, "-m", "tests.campaigns.kill", "joint", *numbers]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\S+) \| joint \| (.*) \|$", done.stdout, re.MULTILINE)
    assert rows == [("SIGKILL", "7 | 7 | 7 | 0"), ("Ctrl-C", "2 | 2 | 2 | 0")], done.stderr
