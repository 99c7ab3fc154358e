"""Sklearn: which estimators can be modules, what they send, and what is said of the others."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.cluster import DBSCAN, AffinityPropagation, Birch, KMeans, MeanShift
from sklearn.decomposition import NMF, PCA, KernelPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.manifold import TSNE, Isomap
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serkit import Graph, Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Categorical, Data, Mixture
from serkit.modules import GMM, VAE, Sklearn
from serkit.modules.adapters.sklearn import (
    SklearnClusterer,
    SklearnTransformer,
    declared_size,
    is_clusterer,
    matching_order,
    mixture_of,
)
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same


def on(rows, estimator, **options):
    options = {"random_state": 0, "name": "own"} | options
    return Sklearn(estimator, **options).connect(Observation(rows)).update()


def test_the_estimator_given_is_never_changed(blobs):
    given = make_pipeline(StandardScaler(), KMeans(3))
    module = on(blobs.x, given)
    assert not hasattr(given[-1], "cluster_centers_")
    assert given[-1].random_state is None
    assert module.estimator_[-1].random_state is not None
    assert on(blobs.x, KMeans(3, random_state=4)).estimator_.random_state == 4


@pytest.mark.parametrize(
    ("estimator", "size"),
    [
        (PCA(3), 3),
        (PCA(), None),
        (KMeans(4), 4),
        (make_pipeline(PCA(2), KMeans(5)), 5),
        (PCA(0.9), None),
    ],
)
def test_declared_sizes(estimator, size):
    assert declared_size(estimator) == size
    assert Sklearn(estimator).n_outputs == size


def test_kinds_of_estimators():
    assert type(Sklearn(Birch())) is SklearnClusterer
    assert type(Sklearn(PCA())) is SklearnTransformer
    assert not is_clusterer(IsolationForest())


@pytest.mark.parametrize(
    "estimator",
    [DBSCAN(), TSNE(), LinearDiscriminantAnalysis(), IsolationForest(), KMeans, "kmeans"],
    ids=str,
)
def test_what_cannot_be_a_module_is_told_at_once(estimator):
    name = type(estimator).__name__ if hasattr(estimator, "fit") else repr(estimator)
    name = repr(estimator) if isinstance(estimator, type) else name
    with pytest.raises(InputError) as error:
        Sklearn(estimator)
    assert f"Sklearn: {name} can neither put new rows into clusters" in str(error.value)
    assert "Supervised" in str(error.value)


@pytest.mark.parametrize(
    ("estimator", "options", "text"),
    [
        (KMeans(3), {"estimator": KMeans(121)}, r"KMeans\.fit failed: n_samples=120 should be"),
        (KMeans(3), {"estimator": PCA(2)}, "PCA is no clusterer"),
        (KMeans(3), {"labels": [0, 1]}, "labels has 2 entries for 120 rows"),
        (
            KMeans(3),
            {"random_state": -1},
            "random_state must be an integer >= 0 or a NumPy random generator",
        ),
        (PCA(2), {"estimator": PCA(5)}, r"PCA\.fit failed: n_components=5 must be between"),
        (PCA(2), {"estimator": KMeans}, "is no transformer that learns without targets"),
        (PCA(2), {"invert": "no"}, "unknown invert='no'; expected one of False, True"),
    ],
)
def test_arguments_that_cannot_work_lose_nothing(estimator, options, text, blobs):
    module = on(blobs.x, estimator)
    learnt = {k: v for k, v in module.get_state().items() if k != "posterior"}
    with pytest.raises(InputError, match=rf"'own': .*{text}"):
        module.set_params(**options).update()
    assert_same(learnt, {k: v for k, v in module.get_state().items() if k != "posterior"})


@pytest.mark.parametrize("estimator", [PCA(2), KMeans(2)])
def test_nothing_can_be_asked_before_learning(estimator, blobs):
    with pytest.raises(NotReadyError, match="has learnt nothing yet: call update"):
        Sklearn(estimator).infer([Data(blobs.x)], None)


@pytest.mark.parametrize("estimator", [PCA(2), KMeans(2)])
def test_rows_of_another_length_or_none_observed_are_errors(estimator, blobs):
    module = on(blobs.x, estimator)
    with pytest.raises(InputError, match=r"'own': \w+\.\w+ failed: X has 3 features, but"):
        module.infer([Data(blobs.x[:, :3])], None)
    nothing = [Data(blobs.x, observed=np.zeros(120, dtype=bool))]
    with pytest.raises(InputError, match="'own': no row was observed by all of its parents"):
        module.learn(nothing, None)


# -- transformers: latents are the estimator's own, and go down by its inverse ---------------------


def alone(module, rows):
    """The estimator by itself, with the seed it was given in the graph."""
    estimator = clone(module.estimator)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=module.estimator_.random_state)
    return estimator.fit(rows.reshape(len(rows), -1).astype(float))


@pytest.mark.parametrize(
    "estimator",
    [PCA(3), NMF(2, max_iter=900), Isomap(n_neighbors=25), make_pipeline(StandardScaler(), PCA(2))],
)
def test_latents_are_the_estimators_own(estimator, digits):
    module = on(digits.x, estimator)
    x = digits.x.reshape(200, -1).astype(float)
    expected = module.estimator_.transform(x)
    np.testing.assert_array_equal(module.message_up.mean, expected)
    if not hasattr(estimator, "steps"):
        np.testing.assert_allclose(alone(module, x).transform(x), expected, atol=1e-9)
    assert module.message_up.var is None
    assert module.n_outputs == expected.shape[1]


def test_rows_of_several_parents_are_set_side_by_side_and_turned_back(digits):
    top, bottom = digits.x[:, :3], digits.x[:, 3:]
    module = Sklearn(PCA(5), random_state=0).connect(Observation(top), Observation(bottom))
    up = module.update().message_up.mean
    x = np.concatenate([top.reshape(200, -1), bottom.reshape(200, -1)], axis=1).astype(float)
    pca = PCA(5, random_state=0).fit(x)
    np.testing.assert_allclose(np.abs(up), np.abs(pca.transform(x)), atol=1e-6)
    back = pca.inverse_transform(pca.transform(x))
    first, second = module.messages_down
    np.testing.assert_allclose(first.array, back[:, :24].reshape(top.shape), atol=1e-6)
    np.testing.assert_allclose(second.array, back[:, 24:].reshape(bottom.shape), atol=1e-6)


def test_only_observed_rows_train_and_others_are_decoded_from_the_childrens_means(blobs):
    observed = np.arange(120) >= 30
    rows = np.where(observed[:, None], blobs.x, np.nan)
    module = Sklearn(PCA(2), random_state=0).connect(Observation(rows, observed=observed)).update()
    pca = PCA(2).fit(blobs.x[observed])
    np.testing.assert_allclose(module.estimator_.mean_, pca.mean_)
    np.testing.assert_array_equal(module.message_up.observed, observed)
    means = np.array([[1.0, 2.0], [3.0, -1.0]])
    told = Mixture(np.log(np.full((120, 2), 0.5)), means, np.stack([np.eye(2)] * 2))
    (down,) = module.infer(module.received_from_parents(), told).down
    (down,) = module.read([down])
    expected = module.estimator_.inverse_transform(np.tile(means.mean(axis=0), (30, 1)))
    np.testing.assert_allclose(down.array[~observed], expected)
    own = module.estimator_.inverse_transform(module.estimator_.transform(blobs.x[observed]))
    np.testing.assert_allclose(down.array[observed], own)


def test_samples_go_down_through_the_inverse(digits):
    pca = Sklearn(PCA(4), random_state=0, name="pca").connect(Observation(digits.x))
    graph = Graph(GMM(3, random_state=0).connect(pca)).fit(1, verbose=False)
    drawn = graph.sample(6, random_state=1)
    assert drawn.shape == (6, 8, 8)
    flat = drawn.reshape(6, -1)
    inside = pca.estimator_.inverse_transform(pca.estimator_.transform(flat))
    np.testing.assert_allclose(flat, inside, atol=1e-6)  # in the plane that PCA decodes to


def test_one_pass_goes_up_and_down_and_back_only_when_it_is_read(digits, monkeypatch):
    calls = []
    for name in ("transform", "inverse_transform"):
        method = getattr(PCA, name)

        def count(self, x, method=method, name=name):
            calls.append((name, len(x)))
            return method(self, x)

        monkeypatch.setattr(PCA, name, count)
    module = Sklearn(PCA(3), random_state=0).connect(Observation(digits.x))
    module.update()
    fitting = [("transform", 1), ("inverse_transform", 1)]  # whether a row can be turned back
    assert calls == [*fitting, ("transform", 200)]
    first, second = module.messages_down, module.messages_down
    assert first[0] is second[0]
    assert calls[3:] == [("inverse_transform", 200)]


def test_a_clusterer_is_asked_once_for_up_and_down(blobs, monkeypatch):
    module, sizes = on(blobs.x, GaussianMixture(3)), []
    method = GaussianMixture.predict_proba

    def count(self, x):
        sizes.append(len(x))
        return method(self, x)

    monkeypatch.setattr(GaussianMixture, "predict_proba", count)
    module.freeze().update()
    assert sizes == [120]


def test_another_estimator_takes_effect_at_the_next_update(blobs):
    module = on(blobs.x, KMeans(3))
    assert module.set_params(estimator=KMeans(4)).n_outputs == 4
    assert module.message_up is None  # it had three classes
    assert module.update().message_up.shape == (4,)
    assert module.set_params(estimator__n_clusters=2).n_outputs == 2
    assert module.update().message_up.shape == (2,)


def test_latents_turned_back_go_only_where_data_is_taken(digits):
    vae = VAE(3, epochs=1, random_state=0).connect(Observation(digits.x))
    module = Sklearn(PCA(2), random_state=0).connect(vae)
    graph = Graph(module).fit(1, verbose=False)
    assert module.messages_down == (None,)
    assert graph.predict(digits.x[:4]).latents.shape == (4, 2)


def test_an_inverse_that_cannot_work_or_is_not_wanted(blobs):
    with pytest.raises(InputError, match=r"'own': KernelPCA\.inverse_transform failed.*invert=Fal"):
        on(blobs.x, KernelPCA(2))
    module = on(blobs.x, KernelPCA(2), invert=False)
    assert module.messages_down == (None,)
    assert module.sends_down_to(*module.parents) is None
    module = on(blobs.x, KernelPCA(2, fit_inverse_transform=True))
    assert module.sends_down_to(*module.parents) is Data


# -- clusterers: what they send is the estimator's own; clusters keep their numbers ----------------


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
    assert module.n_outputs == len(means) == 3
    assert module.scores()["accuracy"] > 0.95
    np.testing.assert_allclose(module.weights_, np.bincount(clusters)[module.order_] / 120)


class Moody(KMeans):
    """It stays silent until it is asked, and then raises what is no ValueError."""

    def predict(self, rows):
        raise KeyError("no such luck")


class Named(KMeans):
    """Its clusters have names."""

    def predict(self, rows):
        return np.array(["a", "b", "c"])[super().predict(rows)]


@pytest.mark.parametrize(
    ("estimator", "text"),
    [
        (
            AffinityPropagation(max_iter=1, convergence_iter=1),
            r"AffinityPropagation.predict must give each row the number .* got \[-1\]",
        ),
        (
            Named(3),
            r"Named.predict must give each row the number of a cluster, .* got \['a', 'b', ",
        ),
        (Moody(3), "Moody.predict failed: 'no such luck'"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_clusterers_that_give_rows_no_cluster_are_told(estimator, text, blobs):
    with pytest.raises(InputError, match=f"^SklearnClusterer 'own': {text}"):
        on(blobs.x, estimator)


def test_scores_are_the_estimators_own(blobs):
    module = Sklearn(KMeans(3), random_state=0).fit(blobs.x)
    assert module.score(blobs.x) == pytest.approx(-module.estimator_.inertia_)
    assert module.score(blobs.x[:7]) > module.score(blobs.x)  # a sum, and no mean, over rows
    mixture = Sklearn(GaussianMixture(3), random_state=0).fit(blobs.x)
    assert mixture.score(blobs.x) == pytest.approx(mixture.estimator_.score(blobs.x))
    assert not hasattr(Sklearn(Birch()), "score")


def test_the_method_that_was_given_bad_rows_is_named(blobs):
    module = Sklearn(KMeans(3), random_state=0).fit(blobs.x)
    for method in ("predict", "predict_proba", "score"):
        with pytest.raises(InputError, match=rf"SklearnClusterer\.{method}: .*NaN"):
            getattr(module, method)(np.full((2, 2), np.nan))


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
    (down,) = module.infer(module.received_from_parents(), told).down
    own = module.estimator_
    expected = own.predict_proba(x)[:, module.order_] / module.weights_ * [0.4, 0.6]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(down.log_prob), expected, rtol=1e-6)


def test_clusters_keep_their_numbers_from_update_to_update(blobs):
    module = on(blobs.x, KMeans(3, n_init=1))
    clusters, seeds, orders = module.posterior.clusters, set(), []
    for _ in range(6):
        module.update()
        np.testing.assert_array_equal(module.posterior.clusters, clusters)
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


def test_only_observed_rows_are_clustered_and_scored(blobs):
    observed = np.arange(120) % 4 > 0
    rows = Observation(np.where(observed[:, None], blobs.x, 99.0), observed=observed)
    labels = np.where(observed, blobs.labels, 7)
    module = Sklearn(KMeans(3), labels=labels, random_state=0).connect(rows).update()
    assert module.responsibilities_.shape == (90, 3)
    assert module.history_[0]["accuracy"] > 0.95
    np.testing.assert_allclose(module.message_up.log_prob[~observed], -np.log(3))


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
    (rows,) = module.generate(4000, np.random.default_rng(0), picked)
    np.testing.assert_allclose(rows[:2000].mean(axis=0), module.means_[0], atol=0.1)
    np.testing.assert_allclose(rows[2000:].mean(axis=0), module.means_[2], atol=0.1)
