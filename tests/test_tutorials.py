"""The tutorials and the README's code run, in a short setting."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def vae_gmm():
    return runpy.run_path(str(ROOT / "tutorials" / "vae_gmm.py"))


@pytest.mark.parametrize("preset", ["default", "serket", "best"])
def test_vae_gmm_prints_a_table_and_compares_frozen_with_joint(vae_gmm, preset, capsys):
    scores = vae_gmm["main"](["--quick", "--preset", preset, "--seeds", "2"])
    lines = capsys.readouterr().out.splitlines()
    rounds = [line.split() for line in lines if re.match(r" +[12] ", line)]
    assert len(rounds) == 4  # two seeds of two rounds
    assert [float(row[6]) for row in rounds[1::2]] == np.round(scores["joint"], 3).tolist()
    assert lines[-1].startswith(f"accuracy, 2 seeds: frozen {scores['frozen'].mean():.3f}")


def test_vae_gmm_writes_results_and_pictures(vae_gmm, tmp_path):
    vae_gmm["main"](["--quick", "--out", str(tmp_path)])
    assert (tmp_path / "module001_vae" / "z_learn.txt").exists()
    assert np.loadtxt(tmp_path / "module002_gmm" / "acc_learn.txt").shape == (2,)
    assert {"latents_vae_before.png", "confusion.png"} <= {p.name for p in tmp_path.iterdir()}


def test_own_module_is_saved_and_loaded(tmp_path, capsys):
    own_module = runpy.run_path(str(ROOT / "tutorials" / "own_module.py"))
    own_module["main"](["--save", str(tmp_path / "graph.safetensors")])
    assert "loaded again, same classes: True" in capsys.readouterr().out


def test_readme_code_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in BLOCKS:
        exec(block.replace("epochs=(100, 40)", "epochs=2"), namespace)
    graph = namespace["graph"]
    assert len(graph.history) == 2
    assert (tmp_path / "runs" / "digits" / "module002_gmm" / "class_learn.txt").exists()
    assert issubclass(namespace["PrincipalComponents"], namespace["srk"].Module)


def test_readme_shows_the_module_of_the_tutorial():
    shown = BLOCKS[-1][BLOCKS[-1].index("    def __init__") :]
    assert shown in (ROOT / "tutorials" / "own_module.py").read_text("utf-8")
