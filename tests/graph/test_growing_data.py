"""Rows added to observations between updates: what modules go on from, and what they say."""

import numpy as np
import pytest

from serkit import Graph, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical
from serkit.modules import GMM, MLDA, VAE, Features, MarkovModel
from tests.helpers.modules import Teller

N, ADDED, K = 60, 30, 3


def blobs(n=N, seed=0):
    """Rows (n, 4) in [0, 1] of three kinds in turn."""
    centres = np.array([[0.1, 0.9, 0.5, 0.2], [0.9, 0.2, 0.4, 0.8], [0.5, 0.4, 0.9, 0.1]])
    noise = np.random.default_rng(seed).normal(0, 0.05, (n, 4))
    return (centres[np.arange(n) % K] + noise).clip(0, 1)


def words(n=N, seed=0):
    """Counts (n, 6) of the same kinds."""
    topics = np.full((K, 6), 0.05) + 0.35 * np.eye(K).repeat(2, axis=1)
    rng = np.random.default_rng(seed)
    return rng.multinomial(30, topics[np.arange(n) % K]).astype(float)


def gaussians(rows, **options):
    return GMM(K, **{"random_state": 0} | options).connect(Observation(rows))


# -- the observation -------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [(None, None), (None, 1), (1, None), (1, 1)])
def test_an_observation_that_grew_is_one_of_all_rows(masks):
    rows, new = blobs(), blobs(ADDED, seed=1)
    some = [
        None if m is None else np.arange(n) % 3 > 0 for m, n in zip(masks, (N, ADDED), strict=True)
    ]
    grown = Observation(rows, observed=some[0], lengths=[20, 40]).append(new, observed=some[1])
    known = [np.ones(n, bool) if s is None else s for s, n in zip(some, (N, ADDED), strict=True)]
    whole = Observation(
        np.concatenate([rows, new]), observed=np.concatenate(known), lengths=[20, 40, ADDED]
    )
    np.testing.assert_array_equal(grown.message_up.array, whole.message_up.array)
    np.testing.assert_array_equal(grown.message_up.is_observed, whole.message_up.is_observed)
    assert grown.arguments() == whole.arguments()  # a fingerprint of all rows included
    assert not grown.data.flags.writeable
    assert (grown.n_rows, grown.share) == (N + ADDED, slice(0, N + ADDED))


@pytest.mark.parametrize(
    ("rows", "observed", "text"),
    [
        (np.ones((2, 5)), None, r"'x': expected rows of shape \(4,\), as those .*, got \(5,\)"),
        ([[1, 2, 3, np.nan]], None, "'x': NaN or infinity in 1 of 1 rows"),
        (np.ones((2, 4)), [True], "observed must hold one boolean for each of the 2 rows"),
        (np.ones((0, 4)), None, "at least one row"),
        ("more", None, "expected real numbers"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_change_nothing(rows, observed, text):
    observation = Observation(blobs(), name="x")
    message = observation.message_up
    with pytest.raises(InputError, match=text):
        observation.append(rows, observed=observed)
    assert observation.message_up is message
    assert observation.n_rows == N


def test_an_observation_without_its_rows_cannot_grow(tmp_path):
    Graph(gaussians(blobs())).fit(1, verbose=False).save(tmp_path / "graph")
    (observation,) = Graph.load(tmp_path / "graph").observations
    with pytest.raises(NotReadyError, match="was loaded without its rows"):
        observation.append(blobs(2))


# -- what modules do -------------------------------------------------------------------------------


def test_old_messages_say_nothing_of_new_rows():
    """As if the child had said it of all rows, and nothing of those that came later."""
    said = Categorical(np.log(np.tile([0.5, 0.3, 0.2], (N, 1))), is_prior=True)
    gmm = gaussians(blobs()).update()
    Teller(said).connect(gmm).update()
    (observation,) = gmm.parents
    observation.append(blobs(ADDED, seed=1))
    heard = gmm.received_from_children()
    np.testing.assert_array_equal(heard.log_prob[:N], said.log_prob)
    assert heard.observed.tolist() == [True] * N + [False] * ADDED
    gmm.freeze().update()
    alone = gmm.infer([observation.message_up], None)
    beliefs = gmm.posterior.classes.log_prob
    np.testing.assert_allclose(beliefs[N:], alone.classes.log_prob[N:], rtol=1e-12)
    assert np.abs(beliefs[:N] - alone.classes.log_prob[:N]).max() > 0.1  # the prior replaces pi_k


def test_a_mixture_goes_on_and_keeps_its_numbers():
    """Of k-means++ starts too; the numbers of old rows' clusters stay those of before."""
    gmm = gaussians(blobs()).update()
    before = gmm.posterior.clusters
    gmm.parents[0].append(blobs(ADDED, seed=1))
    assert not gmm.is_current
    after = gmm.set_params(random_state=5).update().posterior.clusters
    np.testing.assert_array_equal(after[:N], before)
    np.testing.assert_array_equal(after[N:], before[:ADDED])  # the kinds come in turn


def test_nets_go_on_from_their_weights():
    vae = VAE(2, hidden_sizes=(8,), epochs=3, random_state=0, device="cpu")
    vae.connect(Observation(blobs())).update()
    weights = {name: value.clone() for name, value in vae.nets_.state_dict().items()}
    vae.parents[0].append(blobs(ADDED, seed=1))
    vae.set_params(lr=1e-30).update()
    for name, value in vae.nets_.state_dict().items():
        assert (value == weights[name]).all(), name
    assert (vae.message_up.n_rows, len(vae.loss_curve_)) == (N + ADDED, 6)


def test_a_whole_graph_grows_and_is_saved(tmp_path):
    vae = VAE(2, hidden_sizes=(8,), epochs=3, random_state=0).connect(Observation(blobs()))
    gmm = GMM(K, labels=np.arange(N) % K, random_state=0).connect(vae)
    mlda = MLDA(K, random_state=0).connect(Observation(words(), name="words"), gmm)
    graph = Graph(MarkovModel(random_state=0).connect(mlda)).fit(1, verbose=False)
    named = dict(graph.names)
    named["observation"].append(blobs(ADDED, seed=1))
    with pytest.raises(InputError, match="GMM: labels has 60 entries for 90 rows"):
        graph.fit(1, verbose=False)
    gmm.set_params(labels=np.arange(N + ADDED) % K)
    with pytest.raises(InputError, match=r"words' has 60, Observation has 90; give each the same"):
        graph.fit(1, verbose=False)
    named["words"].append(words(ADDED, seed=1))
    graph.fit(1, out=tmp_path, verbose=False)
    modules = [graph[name] for name in ("gmm", "mlda", "markovmodel")]
    assert [module.posterior.classes.n_rows for module in modules] == [N + ADDED] * 3
    assert len(np.loadtxt(tmp_path / "module002_gmm" / "class_learn.txt")) == N + ADDED
    assert (tmp_path / "latents_vae_before.png").exists()  # of the rows there were
    graph.save(tmp_path / "graph")
    data = [observation.data for observation in graph.observations]
    loaded = Graph.load(tmp_path / "graph", data=data)
    for each in (graph, loaded):
        each.fit(1, verbose=False)
    expected = graph["markovmodel"].message_up.log_prob
    np.testing.assert_array_equal(loaded["markovmodel"].message_up.log_prob, expected)


def test_topics_of_features_that_come_one_by_one():
    """As in the original's loop over a robot's pictures."""
    pictures = Observation(blobs(K))
    features = Features(lambda rows: rows - 0.4).connect(pictures)
    mlda = MLDA(K, weights=[100], clip_negative=True, random_state=0).connect(features)
    for row in blobs(12)[K:]:
        pictures.append(row[None])
        features.update()
        mlda.update()
    assert mlda.posterior.clusters.tolist() == mlda.posterior.clusters[:K].tolist() * 4
    assert len(set(mlda.posterior.clusters)) == K


# -- parameters that are given ---------------------------------------------------------------------


def test_a_mixture_that_is_given_is_used_frozen_or_learnt_on():
    density = gaussians(blobs()).update().density()
    given = gaussians(blobs()).set_density(density).freeze()
    graph = Graph(given).fit(1, verbose=False)
    expected = density.responsibilities(blobs())
    np.testing.assert_allclose(graph.predict(blobs()).probabilities, expected, rtol=1e-6)
    given.unfreeze().set_params(n_init=(1, 0), max_iter=1, inference="ml").update()
    step = GMM(K, inference="ml", max_iter=1, responsibilities_init=expected).fit(blobs())
    np.testing.assert_allclose(given.means_, step.means_, rtol=1e-5)  # rows are float32 in one


def test_a_mixture_that_is_given_learns_from_batches():
    """A step of stepwise EM, the mixture given counting as the first batch."""
    density = gaussians(blobs()).update().density()
    rows = density.sample(2000, random_state=0)[0]
    gmm = GMM(K, random_state=0).fit(blobs()).set_density(density).partial_fit(rows)
    error = 10 * 0.05 / np.sqrt(2000 / K)  # ten standard errors of the mean of a cluster's rows
    np.testing.assert_allclose(gmm.means_, density.means, atol=error)
    assert np.abs(gmm.means_ - density.means).max() > 0
    assert len(gmm.log_likelihood_) == 1  # not that of the fit before


def test_a_mixture_of_another_kind_is_refused():
    density = gaussians(blobs()).update().density()
    for options in ({"n_components": 2}, {"covariance_type": "diag"}):
        gmm = GMM(**{"n_components": K} | options)
        with pytest.raises(InputError, match=r"GMM: expected a density of .*, got 3 and 'full'"):
            gmm.set_density(density)
        assert not hasattr(gmm, "means_")
