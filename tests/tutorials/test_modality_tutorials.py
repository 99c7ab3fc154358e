"""The tutorials of several modalities run, in a short setting, and write what they promise."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.notebooks import main_of

SPOKEN = os.environ.get("SERKIT_DATA") and Path(os.environ["SERKIT_DATA"], "spoken_digits")


def run(name, *options, quick=True):
    """A tutorial's scores."""
    return main_of(name)([*(["--quick"] if quick else []), *map(str, options)])


def are_shares(scores):
    """Whether there is one share of rows a seed, for a single seed."""
    return all(values.shape == (1,) and 0 <= values[0] <= 1 for values in scores.values())


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_mlda_on_both_modalities_is_better_than_on_either(tmp_path, capsys):
    scores = run("mlda_multimodal", "--out", tmp_path)
    assert are_shares(scores)
    assert scores["both"] > max(scores["ink"], scores["speech"])
    assert f"both {scores['both'][0]:.3f}" in capsys.readouterr().out
    assert {"topics.png", "ink_from_speech.png", "module001_mlda"} <= names_in(tmp_path)


def test_vae_gmm_mlda_compares_both_with_each_alone(tmp_path, capsys):
    scores = run("vae_gmm_mlda", "--out", tmp_path)
    assert set(scores) == {"images", "speech", "both"}
    assert are_shares(scores)
    assert {"samples.png", "confusion.png", "module003_mlda"} <= names_in(tmp_path)
    gain = (scores["both"] - np.maximum(scores["images"], scores["speech"])).mean()
    assert f"both above the better one: {gain:.3f}" in capsys.readouterr().out


def test_the_markov_model_hears_from_mlda_and_says_what_follows(tmp_path):
    scores = run("vae_gmm_mlda_mm", "--out", tmp_path)
    assert set(scores) == {"image", "image and speech", "sequence"}
    assert are_shares(scores)
    assert {"transitions.png", "module004_markovmodel"} <= names_in(tmp_path)


def test_cross_modal_classifies_and_predicts_what_was_hidden(tmp_path, capsys):
    scores = run("cross_modal", "--out", tmp_path)
    for modality in ("images", "speech"):
        own = {name.split(", ")[1]: v for name, v in scores.items() if name.startswith(modality)}
        assert are_shares({name: own[name] for name in ("complete", "hidden", "all without")})
        assert own["ratio"] == own["hidden"] / own["complete"]
        assert own["correlation"] > own["of the mean"]  # the other modality tells something
    assert "images hidden in a fifth of 300 rows" in capsys.readouterr().out
    assert names_in(tmp_path) == {"predicted_images.png", "predicted_speech.png"}


def test_hac_mlda_finds_the_words(tmp_path):
    pytest.importorskip("librosa")
    scores = run("hac_mlda", "--out", tmp_path)
    assert are_shares(scores)
    assert scores["accuracy"] > 0.8
    assert {"topics.png", "confusion.png"} <= names_in(tmp_path)


@pytest.mark.skipif(
    not (SPOKEN and SPOKEN.exists()), reason="needs the folder spoken_digits in SERKIT_DATA"
)
def test_hac_mlda_takes_recordings():
    pytest.importorskip("librosa")
    assert run("hac_mlda", "--data", "spoken", quick=False)["accuracy"] > 0.6


def test_hac_mlda_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "librosa", None)  # importing it fails
    with pytest.raises(SystemExit):
        run("hac_mlda")
    assert "pip install '.[audio]'" in capsys.readouterr().err
