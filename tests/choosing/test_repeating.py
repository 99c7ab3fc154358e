"""Runs of a graph from several seeds: paired, the same bits anyhow, going on after a kill."""

import pickle

import numpy as np
import pytest

import serkit as srk
from serkit import Graph, Observation
from serkit.errors import GraphError, InputError, SavedFileError
from serkit.graph.restarting import seed_of_run
from serkit.metrics import accuracy, stability
from serkit.modules import GMM, VAE, Sklearn

LABELS = np.arange(60) % 3
ROWS = (np.random.default_rng(0).normal(size=(60, 4)) + 3 * np.eye(4)[LABELS]).astype(np.float32)
SEEDS = [5, 0, 3]
VAE_OPTIONS = {"likelihood": "gaussian", "epochs": 2, "hidden_sizes": (8,)}


def build(seed, rows=ROWS):
    vae = VAE(2, random_state=seed, **VAE_OPTIONS).connect(Observation(rows))
    return GMM(3, n_init=1, random_state=seed, labels=LABELS).connect(vae)


@pytest.fixture(scope="module")
def repeats():
    return srk.repeat(build, SEEDS, rounds=2)


def assert_equal(first, second):
    assert first.seeds == second.seeds
    assert list(first.values) == list(second.values)
    for name in first.values:
        np.testing.assert_array_equal(first.values[name], second.values[name])
    np.testing.assert_array_equal(first.clusters, second.clusters)


def test_arms_are_the_first_and_the_last_round_of_each_seed(repeats):
    for number, seed in enumerate(SEEDS):
        graph = Graph(build(seed))
        for round_, arm in enumerate(["frozen", "joint"]):
            graph.fit(1, verbose=False)
            gmm = graph["gmm"]
            assert repeats.of("log_likelihood", arm)[number] == gmm.log_likelihood_[-1]
            assert repeats.of("objective", arm)[number] == graph.objective()
            clusters = gmm.posterior.clusters
            np.testing.assert_array_equal(repeats.clusters[number, round_], clusters)
            assert repeats.of("accuracy", arm)[number] == accuracy(LABELS, clusters)


def test_frozen_is_what_modules_learn_one_after_another_without_a_child(repeats):
    gmm = build(5)
    (vae,) = gmm.parents
    vae.update([]).freeze()
    np.testing.assert_array_equal(gmm.update().posterior.clusters, repeats.clusters[0, 0])


def test_stability_is_between_seeds_after_the_same_round(repeats):
    for number, arm in enumerate(["frozen", "joint"]):
        expected = stability([*repeats.clusters[:, number]])
        np.testing.assert_array_equal(repeats.of("stability", arm), expected)


def test_a_run_goes_on_with_the_seeds_that_are_missing(repeats, tmp_path):
    trained = []

    def breaking(seed):
        if seed == 3 and 0 in trained and len(trained) < 6:
            raise KeyboardInterrupt
        trained.append(seed)
        return build(seed)

    with pytest.raises(KeyboardInterrupt):
        srk.repeat(breaking, SEEDS, rounds=2, folder=tmp_path)
    files = ["seed0.safetensors", "seed5.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    before = [(tmp_path / file).read_bytes() for file in files]
    assert_equal(srk.repeat(build, SEEDS, rounds=2, folder=tmp_path), repeats)
    assert [(tmp_path / file).read_bytes() for file in files] == before
    assert_equal(srk.repeat(build, SEEDS, rounds=2, folder=tmp_path), repeats)


def test_files_of_other_runs_are_refused(tmp_path):
    srk.repeat(build, [0, 1], rounds=2, folder=tmp_path)
    with pytest.raises(SavedFileError, match=r"seed0.* of other rounds; give another folder"):
        srk.repeat(build, [0, 1], rounds=3, folder=tmp_path)
    with pytest.raises(SavedFileError, match="of other rows"):
        srk.repeat(lambda seed: build(seed, ROWS + 1), [0, 1], rounds=2, folder=tmp_path)
    with pytest.raises(SavedFileError, match="of other modules"):
        srk.repeat(lambda seed: build(seed + 1), [0, 1], rounds=2, folder=tmp_path)
    srk.save(GMM(2).fit(ROWS), tmp_path / "seed0.safetensors")
    with pytest.raises(SavedFileError, match="holds no run of repeat"):
        srk.repeat(build, [0, 1], rounds=2, folder=tmp_path)


def test_table_and_frame_and_picture_hold_the_numbers(repeats):
    gain = repeats.of("accuracy") - repeats.of("accuracy", "frozen")
    error = gain.std(ddof=1) / np.sqrt(3)
    line = next(line for line in repr(repeats).splitlines() if line.startswith("accuracy"))
    assert f"{gain.mean():+.3f} ± {error:.3f}" in line
    assert f"{(gain > 0).sum()} of 3" in line
    assert f"{repeats.of('accuracy').min():.3f}" in line
    frame = repeats.to_frame()
    assert frame["seed"].tolist() == [5, 5, 0, 0, 3, 3]
    joint = frame[frame["arm"] == "joint"]
    np.testing.assert_array_equal(joint["objective"], repeats.of("objective"))
    figure = repeats.draw()
    assert len(figure.axes) == len(repeats.values)
    assert [len(axis.lines) for axis in figure.axes] == [4] * len(figure.axes)


def test_the_best_seed_by_a_criterion(repeats):
    assert repeats.best("objective") == SEEDS[int(np.argmax(repeats.of("objective")))]
    with pytest.raises(InputError, match="unknown criterion='loss'; expected one of 'accuracy'"):
        repeats.best("loss")


def test_graphs_without_classes_or_bounds_have_fewer_criteria():
    def ae(seed):
        return VAE(2, random_state=seed, **VAE_OPTIONS).connect(Observation(ROWS))

    assert list(srk.repeat(ae, [0, 1], 2).values) == ["objective"]


def test_what_cannot_be_compared_is_refused_before_anything_is_trained():
    def never(seed):
        pytest.fail("it was called")

    for seeds in ([0], [1, 1], [0, -1], "01", 3, [0.5, 1], [True, 0]):
        with pytest.raises(InputError, match="seeds must be at least two distinct integers"):
            srk.repeat(never, seeds)
    with pytest.raises(InputError, match="rounds must be an integer >= 2, got 1"):
        srk.repeat(never, [0, 1], 1)
    with pytest.raises(InputError, match="n_jobs must be an integer >= 1, got 0"):
        srk.repeat(never, [0, 1], n_jobs=0)
    with pytest.raises(GraphError, match=r"build\(0\) must return a Graph or its leaf, got a int"):
        srk.repeat(lambda seed: 3, [0, 1])
    with pytest.raises(InputError, match="the same random_state whatever the seed"):
        srk.repeat(lambda seed: build(0), [0, 1])
    with pytest.raises(InputError, match="a label for each of 60 rows, got 5 labels"):
        srk.repeat(build, [0, 1], labels=LABELS[:5])
    with pytest.raises(GraphError, match="GMM, which has learnt already"):
        srk.repeat(lambda seed: GMM(2).connect(Observation(ROWS)).update(), [0, 1])
    one = build(0)
    with pytest.raises(InputError, match="the same modules twice"):
        srk.repeat(lambda seed: one, [0, 1])


# -- one seed for a graph --------------------------------------------------------------------------


def unseeded(**options):
    return GMM(3, n_init=1, **options).connect(VAE(2, **VAE_OPTIONS).connect(Observation(ROWS)))


def test_one_seed_for_a_graph_gives_the_same_bits():
    first, again, other = (
        Graph(unseeded(), random_state=seed).fit(2, verbose=False) for seed in (4, 4, 5)
    )
    first_z, again_z, other_z = (graph["vae"].message_up.mean for graph in (first, again, other))
    np.testing.assert_array_equal(first_z, again_z)
    assert not np.allclose(first_z, other_z)


def test_modules_get_seeds_that_all_differ_and_keep_their_own():
    graphs = [Graph(unseeded(), random_state=seed) for seed in range(20)]
    seeds = {graph[name].seed() for graph in graphs for name in ("vae", "gmm")}
    of_runs = {seed_of_run(seed, run) for seed in range(20) for run in range(20)}
    assert len(seeds) == 40
    assert not seeds & of_runs
    assert Graph(unseeded(random_state=8), random_state=1)["gmm"].seed() == 8
    learnt = unseeded()
    Graph(learnt).fit(1, verbose=False)
    before = learnt.seed()
    assert Graph(learnt, random_state=1)["gmm"].seed() == before


def test_a_seeded_graph_keeps_its_seed_in_copies_and_files(tmp_path):
    graph = Graph(unseeded(), random_state=4).fit(1, verbose=False)
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[ROWS])
    copies = [loaded, pickle.loads(pickle.dumps(graph))]
    latents = [g.fit(1, verbose=False)["vae"].message_up.mean for g in [graph, *copies]]
    for others in latents[1:]:
        np.testing.assert_array_equal(latents[0], others)


def test_estimators_inside_get_the_seed_too():
    from sklearn.cluster import KMeans

    def clusters(seed):
        leaf = Sklearn(KMeans(8, n_init=1)).connect(Observation(ROWS))
        graph = Graph(leaf, random_state=seed).fit(1, verbose=False)
        return graph["sklearnclusterer"].posterior.clusters

    np.testing.assert_array_equal(clusters(0), clusters(0))


def test_a_seed_that_is_none_is_refused_by_a_graph():
    with pytest.raises(InputError, match="Graph: random_state must be an integer >= 0"):
        Graph(unseeded(), random_state=-1)
