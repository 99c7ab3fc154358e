"""Graphs whose rows several processes share: what is written, once, and what goes on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serkit import Graph, datasets
from tests.helpers import several

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows():
    images, labels = datasets.load_digits()
    return images[:200], labels[:200]


def test_one_process_writes_what_all_have_learnt(tmp_path, rows):
    outputs = several.run("train", tmp_path, 2, "2", "out")
    seen = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in range(2)]
    assert seen[0] == seen[1]
    assert seen[0]["asked"] == [1, 2]
    assert not any(outputs)

    assert seen[0]["scores"]["accuracy"] == seen[0]["history"][-1]["accuracy"]
    again = Graph.load(tmp_path / "again")
    whole = Graph.load(tmp_path / "graph", data=[rows[0]])
    np.testing.assert_array_equal(again["gmm"].responsibilities_, whole["gmm"].responsibilities_)
    vae, gmm = whole["vae"], whole["gmm"]
    assert gmm.responsibilities_.shape == (200, 10)
    latents = vae.infer(vae.received_from_parents(), None).up.mean
    np.testing.assert_allclose(vae.message_up.mean, latents, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(
        gmm.responsibilities_, gmm.predict_proba(vae.message_up.mean), atol=1e-6
    )
    assert gmm.scores()["accuracy"] == pytest.approx(seen[0]["history"][-1]["accuracy"])
    assert whole.objective() == pytest.approx(seen[0]["history"][-1]["objective"], rel=0.01)
    classes = np.loadtxt(tmp_path / "out" / "module002_gmm" / "class_learn.txt")
    np.testing.assert_array_equal(classes, gmm.posterior.clusters)
    assert (tmp_path / "out" / "reconstructions_observation.png").exists()


def test_training_goes_on_with_another_number_of_processes(tmp_path, rows):
    several.run("train", tmp_path, 2, "1")
    several.run("train", tmp_path, 3, "2")
    seen = json.loads((tmp_path / "seen-2.json").read_text())
    assert [update["module"] for update in seen["history"]] == ["vae", "gmm"] * 2
    assert seen["asked"] == [2]
    graph = several.graph_of(*rows)
    graph.fit(3, checkpoint=tmp_path / "checkpoint", verbose=False)
    assert len(graph.history) == 3
    assert graph["gmm"].responsibilities_.shape == (200, 10)
    assert graph.history[-1]["updates"][-1]["changed"] < 0.5  # clusters kept their numbers
    several.run("train", tmp_path, 2, "3")
    seen = json.loads((tmp_path / "seen-1.json").read_text())
    assert seen["asked"] == []


def test_one_that_wants_to_stop_stops_all(tmp_path):
    assert several.run("stop", tmp_path, 2) == ["rounds 1\n"] * 2


def test_a_process_that_dies_ends_the_run_which_goes_on_from_its_checkpoint(tmp_path, rows):
    (status, output), (died, _) = several.launch("die", tmp_path, 2)
    assert died == 7
    assert status == 1
    assert "TrainingError: process 0 of 2 lost touch with the others" in output
    assert "fit(checkpoint=...)" in output
    graph = several.graph_of(*rows).fit(2, checkpoint=tmp_path / "checkpoint", verbose=False)
    assert len(graph.history) == 2


def test_the_tutorial_runs_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = ["tutorials/vae_gmm.py", "--quick", "--preset", "fashion", "--out", str(tmp_path)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run 3 of 3: loss") == 1
    assert done.stdout.count("accuracy, 1 seeds") == 1
    assert len(np.loadtxt(tmp_path / "module001_vae" / "z_learn.txt")) == 500  # of both processes
