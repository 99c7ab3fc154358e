"""Training in several goes: checkpoints met again, frozen modules, other rows, odd arguments."""

import warnings

import numpy as np
import pytest

from serkit import Graph, Observation
from serkit.errors import InputError, SavedFileError
from serkit.graph import results
from serkit.metrics import accuracy
from serkit.modules import GMM, VAE
from serkit.training import Report, StopOnTolerance


@pytest.fixture
def graph(digits):
    vae = VAE(3, epochs=3, hidden_sizes=(16,), lr=1e-2, random_state=0)
    vae.connect(Observation(digits.x))
    return Graph(GMM(4, labels=digits.labels, random_state=0).connect(vae))


def latents(graph):
    return graph["vae"].message_up.mean


def test_a_checkpoint_never_takes_rounds_back(graph, tmp_path):
    path = tmp_path / "checkpoint"
    graph.fit(1, checkpoint=path, verbose=False)
    graph.fit(2, verbose=False)
    learnt = latents(graph)
    graph.fit(2, checkpoint=path, verbose=False)
    assert len(graph.history) == 3
    assert latents(graph) is learnt


def mixture(digits, random_state=0):
    gmm = GMM(4, n_init=1, random_state=random_state, name="mix")
    return Graph(gmm.connect(Observation(digits.x.reshape(200, 64))))


def test_updates_by_hand_do_not_give_way_to_a_checkpoint_in_silence(digits, tmp_path):
    path = tmp_path / "checkpoint"
    mixture(digits).fit(2, checkpoint=path, verbose=False)
    graph = mixture(digits)
    graph["mix"].update().update().fit(digits.x.reshape(200, 64))
    learnt = graph["mix"].means_
    text = r"checkpoint: to go on from it would lose updates made here by hand \(3 of GMM 'mix'\)"
    for rounds in (2, 3):
        with pytest.raises(SavedFileError, match=f"{text}.*another file name.*make the graph anew"):
            graph.fit(rounds, checkpoint=path, verbose=False)
    assert graph["mix"].means_ is learnt
    graph.fit(1, checkpoint=tmp_path / "other", verbose=False)
    assert len(graph["mix"].history_) == 4


def test_a_checkpoint_does_not_give_way_to_rounds_without_its_updates_by_hand(digits, tmp_path):
    path, trained = tmp_path / "checkpoint", mixture(digits)
    trained["mix"].update()
    trained.fit(1, checkpoint=path, verbose=False)
    whole = path.read_bytes()
    graph = mixture(digits).fit(1, verbose=False)
    with pytest.raises(SavedFileError, match=r"would overwrite updates made by hand \(1 of GMM"):
        graph.fit(2, checkpoint=path, verbose=False)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_script_that_begins_by_hand_goes_on_when_it_is_run_again(
    digits, tmp_path, random_state, frozen
):
    def script(rounds):
        graph = mixture(digits, random_state)
        graph["mix"].update()
        graph["mix"].frozen = frozen
        return graph.fit(rounds, checkpoint=tmp_path / "checkpoint", verbose=False)

    first = script(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if random_state == 0 else "ignore")
        again = script(2)
    np.testing.assert_array_equal(
        again["mix"].history_[0]["log_likelihood"], first["mix"].history_[0]["log_likelihood"]
    )
    assert len(again["mix"].history_) == (1 if frozen else 3)


def test_what_was_learnt_otherwise_is_named_when_it_gives_way(digits, tmp_path):
    path = tmp_path / "checkpoint"
    mixture(digits, None).fit(2, checkpoint=path, verbose=False)
    graph = mixture(digits, None).fit(1, verbose=False)
    with pytest.warns(
        UserWarning, match="takes the place of what GMM 'mix' learnt here, which was"
    ):
        graph.fit(3, checkpoint=path, verbose=False)


def test_freezing_between_checkpointed_fits_holds(graph, tmp_path):
    path = tmp_path / "checkpoint"
    graph.fit(1, checkpoint=path, verbose=False)
    graph["vae"].freeze()
    learnt = latents(graph)
    graph.fit(3, checkpoint=path, verbose=False)
    assert graph["vae"].frozen
    np.testing.assert_array_equal(latents(graph), learnt)


def test_a_module_frozen_in_the_script_may_be_resumed(graph, digits, tmp_path):
    path = tmp_path / "checkpoint"
    graph.fit(1, checkpoint=path, verbose=False)
    vae = VAE(3, epochs=3, hidden_sizes=(16,), lr=1e-2, random_state=0).freeze()
    again = Graph(
        GMM(4, labels=digits.labels, random_state=0).connect(vae.connect(Observation(digits.x)))
    )
    again.fit(2, checkpoint=path, verbose=False)
    np.testing.assert_array_equal(latents(again), latents(graph))


def test_first_latents_are_those_of_the_first_update(graph):
    graph.fit(1, schedule=["vae", "gmm", "vae", "gmm"], verbose=False)
    first, last = graph.first_latents["vae"], latents(graph)
    assert first.shape == last.shape
    assert not np.array_equal(first, last)
    later = Graph(graph["gmm"]).fit(1, verbose=False)
    assert later.first_latents == {}  # its first update was not this graph's


def test_a_frozen_mixture_is_scored_and_written_as_it_is_sent(graph, digits):
    graph.fit(1, verbose=False)
    gmm = graph["gmm"].freeze()
    graph.fit(2, verbose=False)
    sent = gmm.messages_down[0].log_prob.argmax(axis=1)
    update = graph.history[-1]["updates"][-1]
    assert update["accuracy"] == accuracy(digits.labels, sent)
    np.testing.assert_array_equal(results.text_files(gmm)["class_learn.txt"], sent)


def test_a_trained_chain_takes_fewer_rows(graph, digits):
    graph.fit(1, verbose=False)
    graph["gmm"].labels = None
    graph["vae"].connect(Observation(digits.x[:150]))
    fewer = Graph(graph["gmm"]).fit(1, verbose=False)
    assert fewer["gmm"].responsibilities_.shape == (150, 4)
    assert np.isfinite(fewer.history[0]["updates"][-1]["objective"])


def test_held_out_rows_see_the_epoch_of_the_others(digits):
    weights = [0.1, 0.5, 1.0]
    vae = VAE(2, epochs=3, validation_fraction=0.2, alpha=lambda update, epoch: weights[epoch])
    assert vae.fit(digits.x).history_[-1]["epochs"] == 3


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_a_fresh_start_that_breaks_off_changes_nothing(digits, error):
    vae = VAE(2, epochs=1, warm_start=False, random_state=0).fit(digits.x)
    before = vae.encode(digits.x)

    def breaks(batch):
        raise error

    vae.augment = breaks
    with pytest.raises(error):
        vae.fit(digits.x)
    np.testing.assert_array_equal(vae.encode(digits.x), before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"callbacks": print}, r"callbacks must be a list, as in callbacks=\[...\]"),
        ({"schedule": "gmm"}, "schedule must be a list of modules or their names, got 'gmm'"),
        ({"schedule": 5}, "schedule must be a list .* got 5"),
        ({"schedule": []}, r"schedule must be a list .* got \[\]"),
    ],
)
def test_odd_arguments_are_refused_before_training(graph, options, text):
    with pytest.raises(InputError, match=text):
        graph.fit(1, verbose=False, **options)
    assert graph.history == []


@pytest.mark.parametrize("tol", ["a", -1, float("nan")])
def test_a_tolerance_is_a_number(tol):
    with pytest.raises(InputError, match="tol must be a number >= 0"):
        StopOnTolerance(tol=tol)


def test_a_share_that_changed_is_compared_itself(graph):
    """Steady churn is no standstill, however little the share differs from round to round."""
    history = [
        {"round": r, "updates": [{"module": "gmm", "changed": share}]}
        for r, share in enumerate((0.4, 0.4, 0.001), start=2)
    ]
    rule = StopOnTolerance("changed", tol=0.01)
    graph.history = history[:2]
    assert not rule.on_round(graph, history[1])
    graph.history = history
    assert rule.on_round(graph, history[2])


def test_report_prints_what_modules_reported(digits, capsys):
    gmm = GMM(4, labels=digits.labels, random_state=0).connect(Observation(digits.x))
    graph = Graph(gmm).fit(2, callbacks=[Report()], verbose=False)
    titles, *lines = capsys.readouterr().out.splitlines()
    assert titles.split() == ["round", "gmm", "log-lik.", "gmm", "accuracy", "seconds"]
    for line, record in zip(lines, graph.history, strict=True):
        shown, update = line.split(), record["updates"][0]
        assert int(shown[0]) == record["round"]
        assert float(shown[1]) == pytest.approx(update["log_likelihood"], abs=5e-4)
        assert float(shown[2]) == pytest.approx(update["accuracy"], abs=5e-4)
