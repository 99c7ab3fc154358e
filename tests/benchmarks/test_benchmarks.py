"""Every benchmark runs, in its quick setting, and prints a table."""

import importlib.util
import re
from functools import partial

import numpy as np
import pytest
import torch

from tests.benchmarks import exchange
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
