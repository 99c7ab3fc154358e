"""SklearnClusterer: what it sends is the estimator's own, and clusters keep their numbers."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import Birch, KMeans, MeanShift
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_estimator import on
from test_module import Teller
from test_persistence import assert_same

from serkit import Graph, Observation
from serkit.messages import Categorical, Mixture
from serkit.modules import VAE, Sklearn
from serkit.modules.adapters.sklearn import matching_order, mixture_of


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("kind", [GaussianMixture, BayesianGaussianMixture])
def test_mixtures_send_their_own_parameters(kind, covariance_type, blobs):
    module = on(blobs.x, kind(n_components=3, covariance_type=covariance_type, n_init=2))
    own = module.estimator_
    down, up = module.messages_down[0], module.message_up
    np.testing.assert_allclose(np.exp(up.log_prob), own.predict_proba(blobs.x)[:, module.order_])
    np.testing.assert_allclose(down.means, own.means_[module.order_])
    precisions = {
        "full": lambda: own.precisions_,
        "tied": lambda: np.stack([own.precisions_] * 3),
        "diag": lambda: np.stack([np.diag(p) for p in own.precisions_]),
        "spherical": lambda: np.stack([np.eye(4) * p for p in own.precisions_]),
    }[covariance_type]()
    identity = down.covariances @ precisions[module.order_]
    np.testing.assert_allclose(identity, np.stack([np.eye(4)] * 3), atol=1e-6)
    np.testing.assert_allclose(np.exp(up.log_prior), own.weights_[module.order_])


def test_k_means_sends_its_centres_certain_classes_and_its_inertia(blobs):
    module = on(blobs.x, KMeans(3, n_init=3, tol=0))
    own, (down,) = module.estimator_, module.messages_down
    np.testing.assert_allclose(down.means, own.cluster_centers_[module.order_], atol=1e-9)
    np.testing.assert_allclose(down.covariances, np.stack([np.eye(4) * own.inertia_ / 480] * 3))
    nearest = cdist(blobs.x, down.means).argmin(axis=1)
    np.testing.assert_array_equal(np.exp(module.message_up.log_prob), np.eye(3)[nearest])
    assert module.message_up.log_prior is None


@pytest.mark.parametrize(
    "estimator",
    [Birch(n_clusters=3), MeanShift(bandwidth=6.0), make_pipeline(StandardScaler(), KMeans(3))],
)
def test_other_clusterers_send_the_means_of_their_clusters_rows(estimator, blobs):
    module = on(blobs.x, estimator, labels=blobs.labels)
    clusters = module.estimator_.predict(blobs.x)
    means = np.stack([blobs.x[clusters == k].mean(axis=0) for k in module.order_])
    np.testing.assert_allclose(module.messages_down[0].means, means)
    assert module.size == len(means) == 3
    assert module.scores()["accuracy"] > 0.95
    np.testing.assert_allclose(module.weights_, np.bincount(clusters)[module.order_] / 120)


def test_an_empty_cluster_lies_at_the_mean_of_all_rows():
    x = np.array([[0.0, 0.0], [2.0, 4.0]])
    mixture = mixture_of(KMeans(2), x, np.array([[1.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(mixture.means, [[1.0, 2.0], [1.0, 2.0]])
    np.testing.assert_allclose(mixture.weights, [1.0, 0.0])
    np.testing.assert_allclose(mixture.covariances, (1 + 4) / 2)  # mean square, a dimension


def test_the_childrens_message_counts_in_what_goes_down_and_not_in_what_goes_up(x):
    module = on(x, GaussianMixture(3))
    before = module.message_up
    told = Categorical(np.log(np.tile([0.7, 0.2, 0.1], (150, 1))))
    Teller(told).connect(module).update()
    module.freeze().update()
    assert_same(before, module.message_up)
    expected = np.exp(before.log_prob) * [0.7, 0.2, 0.1]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(module.messages_down[0].log_prob), expected, atol=1e-12)


def test_a_childs_prior_stands_in_place_of_the_mixtures_weights(x):
    module = on(x, GaussianMixture(2))
    told = Categorical(np.log(np.tile([0.4, 0.6], (150, 1))), is_prior=True)
    (down,) = module.backward(module.received_from_parents(), told)
    own = module.estimator_
    expected = own.predict_proba(x)[:, module.order_] / module.weights_ * [0.4, 0.6]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(down.log_prob), expected, rtol=1e-6)


def test_clusters_keep_their_numbers_from_update_to_update(blobs):
    module = on(blobs.x, KMeans(3, n_init=1))
    clusters, seeds, orders = module.clusters(), set(), []
    for _ in range(6):
        module.update()
        np.testing.assert_array_equal(module.clusters(), clusters)
        seeds.add(module.estimator_.random_state)
        orders.append(tuple(module.order_))
    assert len(seeds) == 6
    assert len(set(orders)) > 1  # the estimator's own numbers did change


def test_matching_undoes_any_renumbering():
    r = np.random.default_rng(0).dirichlet([0.3] * 4, size=50)
    renumbering = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(r[:, renumbering][:, matching_order(r, r[:, renumbering])], r)
    np.testing.assert_array_equal(matching_order(r[:7], r), np.arange(4))


def test_a_mixture_under_a_vae_is_the_mixture_on_its_latents(digits):
    vae = VAE(2, epochs=2, random_state=0).connect(Observation(digits.x))
    module = Sklearn(GaussianMixture(3, random_state=5), labels=digits.labels).connect(vae)
    Graph(module).fit(2, verbose=False)
    z = vae.message_up.mean.astype(float)
    direct = GaussianMixture(3, random_state=5).fit(z)
    np.testing.assert_allclose(module.means_, direct.means_[module.order_], rtol=1e-6)
    assert isinstance(vae.received_from_children(), Mixture)
    assert set(module.scores()) == {"accuracy", "nmi", "ari"}


def test_only_seen_rows_are_clustered_and_scored(blobs):
    seen = np.arange(120) % 4 > 0
    rows = Observation(np.where(seen[:, None], blobs.x, 99.0), observed=seen)
    labels = np.where(seen, blobs.labels, 7)
    module = Sklearn(KMeans(3), labels=labels, random_state=0).connect(rows).update()
    assert module.responsibilities_.shape == (90, 3)
    assert module.history_[0]["accuracy"] > 0.95
    np.testing.assert_allclose(module.message_up.log_prob[~seen], -np.log(3))


def test_samples_are_of_the_mixture_sent_down(blobs):
    graph = Graph(on(blobs.x, GaussianMixture(3)))
    module = graph["own"]
    one = graph.sample(4000, component=1, random_state=3)
    np.testing.assert_allclose(one.mean(axis=0), module.means_[1], atol=0.1)
    np.testing.assert_allclose(np.cov(one.T), module.covariances_[1], atol=0.15)
    np.testing.assert_allclose(
        graph.sample(4000, random_state=3).mean(axis=0), blobs.x.mean(axis=0), atol=0.3
    )
    picked = np.repeat(np.eye(3), [2000, 0, 2000], axis=0)
    (rows,) = module.top_down(picked, np.random.default_rng(0))
    np.testing.assert_allclose(rows[:2000].mean(axis=0), module.means_[0], atol=0.1)
    np.testing.assert_allclose(rows[2000:].mean(axis=0), module.means_[2], atol=0.1)
