"""The tutorials of one modality run, in a short setting, and write what they promise."""

import re

import numpy as np
import pytest

from tests.helpers.notebooks import main_of
from tutorials import own_module


@pytest.mark.parametrize("preset", ["serket", "best", "fashion"])
def test_vae_gmm_prints_a_table_and_compares_frozen_with_joint(preset, capsys):
    scores = main_of("vae_gmm")(["--quick", "--preset", preset, "--seeds", "2"])
    printed = capsys.readouterr().out
    lines, runs = printed.splitlines(), ["1", "2", "3"] * 2 if preset == "fashion" else []
    assert re.findall(r"run (\d) of 3: loss", printed) == runs
    rounds = [line.split() for line in lines if re.match(r" +[12] ", line)]
    assert len(rounds) == 4  # two seeds of two rounds
    assert [float(row[6]) for row in rounds[1::2]] == np.round(scores["joint"], 3).tolist()
    assert lines[-1].startswith(f"accuracy, 2 seeds: frozen {scores['frozen'].mean():.3f}")


def test_vae_gmm_writes_results_pictures_and_a_page(tmp_path, capsys):
    pytest.importorskip("plotly", reason="the explorer's page is made of plotly")
    scores = main_of("vae_gmm")(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert scores["joint"].shape == (1,)
    assert (tmp_path / "module001_vae" / "z_learn.txt").exists()
    assert np.loadtxt(tmp_path / "module002_gmm" / "acc_learn.txt").shape == (2,)
    assert {"latents_vae_before.png", "confusion.png"} <= {p.name for p in tmp_path.iterdir()}
    pages = [tmp_path / name for name in ("report.html", "explorer.html")]
    assert printed.splitlines()[-2:] == [f"open in a browser: {page}" for page in pages]
    assert "GMM" in pages[0].read_text("utf-8")
    assert '"round": 2' in (tmp_path / "explorer.html").read_text("utf-8")


def test_own_module_is_saved_and_loaded(tmp_path, capsys):
    own_module.main(["--save", str(tmp_path / "graph.safetensors")])
    assert "loaded again, same classes: True" in capsys.readouterr().out


def run_quickly(name, out, *options):
    """A tutorial's scores and the names of the pictures it wrote."""
    scores = main_of(name)(["--quick", "--out", str(out), *options])
    return scores, {path.name for path in out.iterdir()}


def test_gmm_per_class_classifies_rejects_and_draws(tmp_path, capsys):
    scores, written = run_quickly("gmm_per_class", tmp_path)
    shares = {name: values for name, values in scores.items() if name != "seconds"}
    assert all(0 <= value <= 1 for values in shares.values() for value in values)
    assert scores["test"] > 0.5
    assert f"{scores['test'][0]:.4f}" in capsys.readouterr().out
    ways = ("pixels", "straight", "spherical", "densest", "classes", "draws")
    expected = {"samples.png", "styles.png", "samples_uniform.png", "kl.png", "walk.gif"}
    assert expected | {f"morphs_{way}.png" for way in ways} <= written


def test_conv_latent_7d_reconstructs_and_writes_a_page(tmp_path, capsys):
    pytest.importorskip("plotly", reason="the explorer's page is made of plotly")
    page = tmp_path / "page.html"
    scores, written = run_quickly("conv_latent_7d", tmp_path, "--explore", str(page))
    assert 0 < scores["MSE test"] < 0.2
    assert {"latents_lda.png", "latents_lda_3d.html", "samples.png", "called.png"} <= written
    assert "draws as meant" in capsys.readouterr().out
    assert '"sliders": [0, 1, 2, 3, 4, 5, 6]' in page.read_text("utf-8")


def test_animals_measures_everything_it_names(tmp_path, capsys):
    report, written = run_quickly("animals", tmp_path)
    assert {"CNN on pixels, test accuracy", "MLP on VAE latents, test accuracy"} <= set(report)
    assert sum(name.startswith("NMI of") for name in report) == 4
    assert {"vae_samples.png", "vae_losses.png", "beta_vae_2.0.png"} <= written
    assert {"pixels_log_likelihood.png", "ae_mixture_samples.png"} <= written
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("plain_autoencoder", "beta_vaes"))
