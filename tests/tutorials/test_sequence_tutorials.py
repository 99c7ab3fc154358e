"""The tutorials of sequences and of few labels run, in a short setting."""

import runpy
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "tutorials"


def load(name):
    """What a tutorial defines."""
    return runpy.run_path(str(FOLDER / f"{name}.py"))


def run(name, *options):
    """A tutorial's scores."""
    return load(name)["main"](["--quick", *map(str, options)])


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_hidden_markov_model_is_better_than_its_mixture(tmp_path, capsys):
    scores = run("hmm", "--out", tmp_path)
    assert scores["GMM + Markov"] > scores["GMM alone"] + 0.05
    assert scores["nats gained"] > 0
    assert scores["next class"] > 0.5  # of four classes, one of which follows with 0.8
    assert f"{scores['Viterbi path'][0]:.3f}" in capsys.readouterr().out
    pictures = {"paths.png", "transition_true.png", "transition_learnt.png", "log_likelihood.png"}
    assert pictures | {"module002_markov"} <= names_in(tmp_path)


def test_hmm_means_over_seeds(capsys):
    scores = run("hmm", "--seeds", 2)
    assert all(values.shape == (2,) for values in scores.values())
    *_, mean, std = capsys.readouterr().out.splitlines()
    assert mean.split()[1] == f"{scores['GMM alone'].mean():.3f}"
    assert std.split()[2] == f"{scores['GMM + Markov'].std():.3f}"


def test_an_order_of_rows_tells_the_clusters(tmp_path, capsys):
    ordered = run("vae_gmm_mm", "--out", tmp_path)
    assert ordered["with"] > ordered["without"] + 0.05
    out = capsys.readouterr().out
    assert "seed 0: observation -> vae -> gmm -> markov" in out
    assert f"gained {(ordered['with'] - ordered['without'])[0]:+.3f}" in out
    assert {"transition.png", "samples_markov_observation.png", "confusion.png"} <= names_in(
        tmp_path
    )


def test_shuffled_digits_are_the_same_rows_in_another_order():
    tutorial = load("vae_gmm_mm")
    ordered, shuffled = (tutorial["load"]("digits", shuffled=s) for s in (False, True))
    assert np.array_equal(ordered.labels[:12], [*range(10), 0, 1])
    assert not np.array_equal(ordered.labels, shuffled.labels)
    for labels in np.unique(ordered.labels):
        of_label = [np.sort(d.images[d.labels == labels], axis=0) for d in (ordered, shuffled)]
        assert np.array_equal(*of_label)


def test_labels_of_one_row_in_a_hundred(tmp_path, capsys):
    scores = run("vae_gmm_nn", "--out", tmp_path)
    assert set(scores) == {"none", "told", "started", "named"}
    assert scores["started"] > scores["none"]
    assert {"known.png", "named.png", "module003_supervised"} <= names_in(tmp_path)
    out = capsys.readouterr().out
    assert f"started {scores['started'][0]:.3f}" in out


def test_one_label_in_a_hundred_is_known_of_each_class():
    pick_known = load("vae_gmm_nn")["pick_known"]
    labels = np.repeat(np.arange(10), 300)
    known = pick_known(labels, seed=0)
    assert (np.bincount(labels[known]) == 3).all()
    assert np.array_equal(known, pick_known(labels, seed=0))
    assert not np.array_equal(known, pick_known(labels, seed=1))
