"""The tutorials of sequences and of few labels run, in a short setting."""

import numpy as np

from tests.helpers.notebooks import main_of
from tutorials import vae_gmm_mm, vae_gmm_nn


def run(name, *options):
    """A tutorial's scores."""
    return main_of(name)(["--quick", *map(str, options)])


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_hidden_markov_model_is_better_than_its_mixture(tmp_path, capsys):
    scores = run("hmm", "--seeds", 2, "--out", tmp_path)
    assert all(values.shape == (2,) for values in scores.values())
    assert (scores["GMM + Markov"] > scores["GMM alone"] + 0.05).all()
    assert (scores["nats gained"] > 0).all()
    assert (scores["next class"] > 0.5).all()  # of four classes, one of which follows with 0.8
    *_, first, _, mean, std = capsys.readouterr().out.splitlines()
    assert first.split()[3] == f"{scores['Viterbi path'][0]:.3f}"
    assert mean.split()[1] == f"{scores['GMM alone'].mean():.3f}"
    assert std.split()[2] == f"{scores['GMM + Markov'].std():.3f}"
    pictures = {"paths.png", "transition_true.png", "transition_learnt.png", "log_likelihood.png"}
    assert pictures | {"module002_markov"} <= names_in(tmp_path)


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
    ordered, shuffled = (vae_gmm_mm.load("digits", shuffled=s) for s in (False, True))
    assert np.array_equal(ordered.labels[:12], [*range(10), 0, 1])
    assert not np.array_equal(ordered.labels, shuffled.labels)
    for labels in np.unique(ordered.labels):
        of_label = [np.sort(d.images[d.labels == labels], axis=0) for d in (ordered, shuffled)]
        assert np.array_equal(*of_label)


def test_labels_of_one_row_in_a_hundred(tmp_path, capsys):
    scores = run("vae_gmm_nn", "--out", tmp_path)
    assert set(scores) == {"none", "told", "started", "named"}
    assert all(0.3 < shares[0] <= 1 for shares in scores.values())  # chance is 0.1
    assert {"known.png", "named.png", "module003_supervised"} <= names_in(tmp_path)
    out = capsys.readouterr().out
    assert f"started {scores['started'][0]:.3f}" in out


def test_one_label_in_a_hundred_is_known_of_each_class():
    labels = np.repeat(np.arange(10), 300)
    known = vae_gmm_nn.pick_known(labels, seed=0)
    assert (np.bincount(labels[known]) == 3).all()
    assert np.array_equal(known, vae_gmm_nn.pick_known(labels, seed=0))
    assert not np.array_equal(known, vae_gmm_nn.pick_known(labels, seed=1))
