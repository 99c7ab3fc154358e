"""Ensembles: chains that learn alone, then agree; votes, stability, files."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from serkit import Ensemble, Graph, Observation, ensemble
from serkit.errors import GraphError, InputError, NotReadyError
from serkit.metrics import stability
from serkit.modules import AE, GMM, VAE, Supervised
from tests.helpers.saved import assert_same

SEEDS = (3, 5, 8)


def chain(rows, seed):
    """A small VAE and a mixture, which are trained so little that no two seeds find the same."""
    vae = VAE(2, likelihood="gaussian", epochs=3, hidden_sizes=(8,), random_state=seed)
    gmm = GMM(3, n_init=1, random_state=seed).connect(vae.connect(Observation(rows)))
    return Graph(gmm)


@pytest.fixture
def build(x):
    return lambda seed: chain(x, seed)


@pytest.fixture
def joined(build):
    return ensemble(build, SEEDS, start=2)


def own_classes(graph, name):
    return graph[name].message_up.log_prob.argmax(axis=1)


def test_chains_are_joined_at_the_top_and_take_their_rows_once(joined):
    vaes, gmms = (["vae", "vae2", "vae3"], ["gmm", "gmm2", "gmm3"])
    assert list(joined) == ["observation", *vaes, *gmms, "labelalignment"]
    assert [chain.random_state for chain in joined.chains] == [*SEEDS]
    assert joined.alignment is joined["labelalignment"]
    assert joined.alignment.start == 2
    assert joined["observation"].children == tuple(joined[name] for name in vaes)
    joined.check()


def test_each_chain_learns_as_alone_until_the_start_and_then_hears(joined, build):
    alone = [build(seed) for seed in SEEDS]
    for round_ in range(1, 4):
        joined.fit(1, verbose=False)
        for graph, top in zip(alone, joined.chains, strict=True):
            graph.fit(1, verbose=False)
            equal = np.array_equal(
                graph["gmm"].posterior.classes.log_prob, top.posterior.classes.log_prob
            )
            assert equal is (round_ < 3)


def test_chains_agree_more_after_they_have_heard_each_other(joined):
    joined.fit(2, verbose=False)
    before = joined.stability_
    joined.fit(4, verbose=False)
    assert joined.stability_.mean() > before.mean()


def test_stability_is_the_mean_rand_index_of_what_each_says_itself(joined):
    joined.fit(3, verbose=False)
    classes = [own_classes(joined, name) for name in ("gmm", "gmm2", "gmm3")]
    first, second, third = (
        adjusted_rand_score(classes[i], classes[j]) for i, j in ((0, 1), (0, 2), (1, 2))
    )
    expected = [(first + second) / 2, (first + third) / 2, (second + third) / 2]
    np.testing.assert_allclose(joined.stability_, expected)


def test_one_clustering_has_no_stability():
    with pytest.raises(InputError, match="stability compares at least two clusterings, got 1"):
        stability([[0, 1]])


def test_votes_and_stability_wait_for_training(joined):
    for ask in (joined.vote, lambda: joined.stability_):
        with pytest.raises(NotReadyError, match="LabelAlignment got no message from GMM"):
            ask()


def test_it_is_saved_and_loaded(joined, x, tmp_path):
    joined.fit(3, verbose=False).save(tmp_path / "graph")
    loaded = Ensemble.load(tmp_path / "graph", data=[x])
    assert list(loaded) == list(joined)
    assert_same(loaded.vote(), joined.vote())
    assert_same(loaded.stability_, joined.stability_)
    assert_same(loaded.predict(x[:9]).messages, joined.predict(x[:9]).messages)
    assert_same(loaded.fit(1, verbose=False).vote(), joined.fit(1, verbose=False).vote())
    assert type(Graph.load(tmp_path / "graph")) is Graph


def test_it_goes_on_from_a_checkpoint_across_the_start(build, tmp_path):
    whole = ensemble(build, SEEDS, start=2).fit(3, verbose=False)
    path = tmp_path / "checkpoint"
    ensemble(build, SEEDS, start=2).fit(1, checkpoint=path, verbose=False)
    again = ensemble(build, SEEDS, start=2).fit(3, checkpoint=path, verbose=False)
    assert_same(again.history, whole.history)
    assert_same(again.vote(), whole.vote())


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))]
)
def test_copies_stand_by_themselves(joined, duplicate):
    joined.fit(1, verbose=False)
    twin = duplicate(joined)
    assert twin.alignment is twin["labelalignment"] is not joined.alignment
    before = joined.vote()
    twin.fit(3, verbose=False)
    assert_same(joined.vote(), before)
    assert_same(twin.vote(), joined.fit(3, verbose=False).vote())


def test_only_equal_observations_become_one(x):
    def build(seed):
        rows = Observation(x[:, :2], name="rows")
        other = Observation(x + seed, name="other")  # noise of one's own, say
        return GMM(2, random_state=seed).connect(rows, other)

    assert [*ensemble(build, [0, 1])][:3] == ["rows", "other", "other2"]
    shared = Observation(x)
    joined = ensemble(lambda seed: GMM(2, random_state=seed).connect(shared), [0, 1])
    assert joined.observations == [shared]
    missing = np.arange(len(x)) > 3

    def with_missing_rows(seed):
        return GMM(2).connect(Observation(x, observed=None if seed else missing))

    assert len(ensemble(with_missing_rows, [0, 1]).observations) == 2


def test_leaves_beside_the_classes_stay_in_it(x):
    def build(seed):
        gmm = GMM(2, random_state=seed).connect(Observation(x, name="rows"))
        known = Observation(np.arange(len(x))[:, None] % 2, observed=np.arange(len(x)) < 9)
        return Graph(Supervised(random_state=0).connect(gmm, known), gmm)

    joined = ensemble(build, [0, 1], start=0).fit(1, verbose=False)
    assert [*joined] == [
        *("rows", "observation", "gmm", "gmm2", "supervised", "supervised2", "labelalignment")
    ]
    assert joined.chains == (joined["gmm"], joined["gmm2"])


def test_options_reach_the_alignment(build):
    options = {"start": 7, "message_weight": 0.5, "labels": np.arange(150) % 4}
    alignment = ensemble(build, SEEDS, **options).alignment
    assert options.items() <= alignment.get_params().items()


def test_trained_chains_can_be_joined(build):
    graphs = {seed: build(seed).fit(2, verbose=False) for seed in SEEDS}
    said = [graph["gmm"].message_up for graph in graphs.values()]
    joined = ensemble(graphs.get, SEEDS, start=0)
    assert [top.message_up for top in joined.chains] == said  # nothing is forgotten
    joined.alignment.update()
    assert joined.vote().shape == (150,)


# -- errors ------------------------------------------------------------------------------------


def test_one_seed_is_too_few(build):
    with pytest.raises(InputError, match=r"ensemble: seeds must be at least two, .* got \[4\]"):
        ensemble(build, [4])


def test_what_is_built_must_be_a_chain_with_classes(x):
    with pytest.raises(GraphError, match=r"build\(0\) must return a Graph or its leaf, got None"):
        ensemble(lambda seed: None, [0, 1])
    with pytest.raises(GraphError, match=r"no module of build\(0\) sends class probabilities up"):
        ensemble(lambda seed: AE(2).connect(Observation(x)), [0, 1])


def test_modules_in_two_chains_are_refused(x):
    vae = VAE(2, name="common").connect(Observation(x))
    with (
        pytest.warns(UserWarning, match="common"),
        pytest.raises(GraphError, match="build returned VAE 'common' for several seeds; make new"),
    ):
        ensemble(lambda seed: GMM(2).connect(vae), [0, 1])


def test_without_an_alignment_it_is_no_ensemble(x):
    with pytest.raises(GraphError, match="takes chains joined by a LabelAlignment; see ensemble"):
        Ensemble(GMM(2).connect(Observation(x)))
