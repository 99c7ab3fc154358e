"""GMMClassifier among other modules: messages, objective, predictions, samples, files."""

import numpy as np
import pytest
from scipy.special import log_softmax

from serkit import Graph, Observation
from serkit.datasets import load_digits
from serkit.errors import InputError
from serkit.messages import Categorical, Data, Gaussian, Mixture
from serkit.module import bound_of
from serkit.modules import VAE, GMMClassifier
from serkit.modules.mixture.rows import Rows
from tests.helpers import oracles
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same

IMAGES, DIGITS = (values[:200] for values in load_digits())
WORDS = np.array(["nil", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
NET = {"epochs": 3, "batch_size": 50, "hidden_sizes": (16,), "random_state": 0}
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture
def close(blobs):
    """The blobs drawn together, so that classes and components overlap."""
    noise = np.random.default_rng(0).normal(size=blobs.x.shape)
    return blobs._replace(x=blobs.x / 6 + noise)


def on_rows(blobs, **options):
    """A classifier of three components a class, on the rows themselves, updated once."""
    classifier = GMMClassifier(3, labels=blobs.labels, random_state=0, **options)
    return classifier.connect(Observation(blobs.x)).update()


def joint(labels=DIGITS, **options):
    """Observation, VAE and classifier, not trained yet."""
    vae = VAE(3, **NET).connect(Observation(IMAGES))
    return Graph(GMMClassifier(2, labels=labels, random_state=0, **options).connect(vae))


@pytest.fixture(scope="module")
def trained():
    return joint(WORDS[DIGITS]).fit(2, verbose=False)


def soft(n, k=3, seed=1):
    return Categorical(np.log(np.random.default_rng(seed).dirichlet(np.ones(k), n)))


def by_scipy(classifier, x):
    """Log P(c(m)) pi_m N(x; mu_m, Sigma_m), (N, M)."""
    weights = classifier.priors_[classifier.component_classes_] * classifier.weights_
    kind = "full" if classifier.covariance_type == "tied" else classifier.covariance_type
    matrices = oracles.as_matrices(classifier.covariances_, kind, *classifier.means_.shape)
    return oracles.log_joint(x, weights, classifier.means_, matrices), matrices


def summed(classifier, probabilities):
    """Of components (N, M) to of classes (N, C)."""
    return probabilities @ np.eye(len(classifier.classes_))[classifier.component_classes_]


# -- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_the_message_up_leaves_the_childrens_out_and_that_down_uses_it(close, covariance_type):
    classifier = on_rows(close, covariance_type=covariance_type)
    from_children = soft(120)
    teller = Teller(from_children).connect(classifier)
    teller.update()
    classifier.update()
    own, matrices = by_scipy(classifier, close.x)
    both = own + from_children.log_prob[:, classifier.component_classes_]
    (down,) = classifier.messages_down
    up = summed(classifier, np.exp(log_softmax(own, axis=1)))
    np.testing.assert_allclose(np.exp(classifier.message_up.log_prob), up, atol=1e-12)
    np.testing.assert_allclose(np.exp(down.log_prob), np.exp(log_softmax(both, axis=1)), atol=1e-12)
    np.testing.assert_allclose(down.means, classifier.means_)
    np.testing.assert_allclose(down.covariances, matrices)
    weights = classifier.priors_[classifier.component_classes_] * classifier.weights_
    np.testing.assert_allclose(np.exp(down.log_weights), weights)
    posterior = up * np.exp(from_children.log_prob)
    posterior /= posterior.sum(axis=1, keepdims=True)
    found = classifier.posterior.classes
    np.testing.assert_allclose(np.exp(found.log_prob), posterior, atol=1e-12)
    accuracy = (posterior.argmax(axis=1) == close.labels).mean()
    assert classifier.scores() == {"accuracy": accuracy}
    assert accuracy < 1


def test_several_parents_get_their_own_dimensions(blobs):
    parents = Observation(blobs.x[:, :1]), Observation(blobs.x[:, 1:].reshape(120, 3, 1))
    classifier = GMMClassifier(2, labels=blobs.labels, random_state=0).connect(*parents).update()
    first, second = classifier.messages_down
    np.testing.assert_array_equal(first.means, classifier.means_[:, :1])
    np.testing.assert_array_equal(second.means, classifier.means_[:, 1:])
    np.testing.assert_array_equal(second.covariances, classifier.covariances_[:, 1:, 1:])
    found = Graph(classifier).predict(blobs.x[:, :1], blobs.x[:, 1:].reshape(120, 3, 1)).classes
    np.testing.assert_array_equal(found, classifier.predict(blobs.x))


def test_a_joint_graph_sends_what_it_declares(trained):
    vae, classifier = trained["vae"], trained["gmmclassifier"]
    (down,) = classifier.messages_down
    assert (type(classifier.message_up), type(down)) == (Categorical, Mixture)
    assert classifier.message_up.log_prob.shape == (200, 10) == (200, classifier.n_outputs)
    n_components = len(classifier.means_)
    assert 10 <= n_components <= 20
    assert down.log_prob.shape == (200, n_components)
    assert down.means.shape == (n_components, 3)
    assert vae.received_from_children() is down
    assert len(classifier.history_) == len(vae.history_) == 2
    assert classifier.history_[-1]["accuracy"] == classifier.scores()["accuracy"]
    found = classifier.classes_[trained.predict(IMAGES).classes]
    np.testing.assert_array_equal(found, classifier.predict(vae.message_up.mean))


def test_the_joint_density_is_evaluated_once(close, monkeypatch):
    """From it both messages, the classes and the bound."""
    classifier, log_gaussians, n_rows = on_rows(close), Rows.log_gaussians, []

    def counting(rows, density):
        n_rows.append(len(rows))
        return log_gaussians(rows, density)

    monkeypatch.setattr(Rows, "log_gaussians", counting)
    rows = Gaussian(close.x, np.full(close.x.shape, 0.1))
    bound_of(classifier.infer([rows], soft(120)))
    assert sum(n_rows) == 120


def test_arguments_that_change_take_effect(blobs):
    """Also under a child, which spoke of other classes."""
    classifier = on_rows(blobs)
    Teller(soft(120)).connect(classifier).update()
    classifier.set_params(n_components=1, covariance_type="diag").update()
    assert classifier.covariances_.shape == (3, 4)
    with pytest.raises(InputError, match="sent probabilities of 2 classes for n_classes=3"):
        classifier.infer([Data(blobs.x)], soft(120, 2))
    labels = np.where(blobs.labels == 2, np.arange(120) % 2 + 2, blobs.labels)
    classifier.set_params(labels=labels).update()
    assert classifier.message_up.shape == (4,)


def test_rows_beyond_floating_point_get_the_priors(blobs):
    """As from predict_proba."""
    found = Graph(on_rows(blobs, priors=[0.2, 0.3, 0.5])).predict([[1e300] * 4, [1e150] * 4])
    np.testing.assert_allclose(found.probabilities[0], [0.2, 0.3, 0.5])
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("kl_target", ["assigned", "mixture"])
def test_a_class_of_prior_zero_trains_on(kl_target):
    vae = VAE(3, kl_target=kl_target, **NET).connect(Observation(IMAGES))
    priors = np.r_[0.0, np.full(9, 1 / 9)]
    top = GMMClassifier(2, labels=DIGITS, priors=priors, random_state=0).connect(vae)
    graph = Graph(top).fit(2, verbose=False)
    assert (graph.predict(IMAGES).probabilities[:, 0] == 0).all()
    assert np.isfinite(graph.objective())
    assert np.isfinite(vae.history_[-1]["loss"])


# -- objective ---------------------------------------------------------------------------------


def test_the_objective_is_the_components_lower_bound(close):
    """E_q(z)[log p(z, m) + log P(c(m) | n) C - log r(m)], row by row and component by component."""
    classifier, from_children = on_rows(close), soft(120)
    rows = Gaussian(close.x, np.random.default_rng(0).gamma(2.0, 0.1, size=(120, 4)))
    found = classifier.infer([rows], from_children)
    (down,) = found.down
    own, matrices = by_scipy(classifier, close.x)
    expected = 0.0
    for n in range(120):
        for m, code in enumerate(classifier.component_classes_):
            r = np.exp(down.log_prob[n, m])
            if r > 0:
                unsure = np.trace(np.linalg.inv(matrices[m]) @ np.diag(rows.var[n])) / 2
                prior = from_children.log_prob[n, code] + np.log(3)
                expected += r * (own[n, m] - unsure + prior - down.log_prob[n, m]) / 120
    assert bound_of(found) == pytest.approx(expected)
    sure = bound_of(classifier.infer([Data(close.x)], None))
    assert sure == pytest.approx(classifier.score_samples(close.x).mean())  # the bound is tight


def test_the_joint_objective_is_the_sum_of_the_terms(trained):
    vae, classifier = trained["vae"], trained["gmmclassifier"]
    (latents,) = classifier.received_from_parents()
    own, matrices = by_scipy(classifier, latents.mean.astype(np.float64))
    precisions = np.stack([np.diag(np.linalg.inv(matrix)) for matrix in matrices])  # (M, D)
    log_r = classifier.messages_down[0].log_prob
    bound = own - latents.var.astype(np.float64) @ precisions.T / 2 - log_r
    expected = (np.exp(log_r) * np.where(np.isfinite(log_r), bound, 0)).sum(axis=1).mean()
    likelihood = bound_of(vae.infer(vae.received_from_parents(), None))
    assert trained.objective() == pytest.approx(likelihood + expected)


# -- use ---------------------------------------------------------------------------------------


def test_predicted_classes_are_numbers_of_the_sorted_classes(blobs):
    names = np.array(["z", "x", "y"])[blobs.labels]
    graph = Graph(on_rows(blobs._replace(labels=names)))
    found = graph.predict(blobs.x)
    np.testing.assert_array_equal(np.array(["x", "y", "z"])[found.classes], names)
    np.testing.assert_allclose(found.probabilities, graph.modules[-1].predict_proba(blobs.x))


def test_a_graph_samples_from_the_class_of_a_number(blobs):
    graph = Graph(on_rows(blobs))
    for k in range(3):
        rows = graph.sample(2000, component=k, random_state=0)
        assert oracles.within(rows, graph.modules[-1].density(k).mean()).all()
    everything = graph.sample(2000, random_state=0)
    assert oracles.within(everything, graph.modules[-1].density().mean()).all()
    with pytest.raises(InputError, match=r"component=3 does not exist.*0 to 2"):
        graph.sample(component=3)


def test_a_joint_graph_samples_images(trained):
    assert trained.sample(4, component=9, random_state=0).shape == (4, 8, 8)


@pytest.mark.parametrize("labels", [WORDS[DIGITS], DIGITS % 2 == 0, list(DIGITS)])
def test_saved_and_loaded_graphs_are_the_same(labels, tmp_path):
    graph = joint(labels)
    graph.fit(1, verbose=False).save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph", data=[IMAGES])
    one, other = graph["gmmclassifier"], loaded["gmmclassifier"]
    assert_same(one.get_state(), other.get_state())
    assert other.classes_.dtype == one.classes_.dtype
    np.testing.assert_array_equal(other.labels, labels)
    assert_same(graph.predict(IMAGES).messages, loaded.predict(IMAGES).messages)
    assert_same(one.update().get_state(), other.update().get_state())


def test_thresholds_are_learnt_and_saved_too(blobs, tmp_path):
    graph = Graph(on_rows(blobs, validation_fraction=0.25))
    graph.save(tmp_path / "graph")
    loaded = Graph.load(tmp_path / "graph").modules[-1]
    rows = np.concatenate([blobs.x, np.full((1, 4), 1e3)])
    expected = graph.modules[-1].predict(rows, reject=True)
    np.testing.assert_array_equal(loaded.predict(rows, reject=True), expected)
    assert expected[-1] == -1


def test_frozen_it_passes_on_any_rows(blobs):
    classifier = on_rows(blobs).freeze()
    means = classifier.means_.copy()
    classifier.connect(Observation(blobs.x[:7])).update()
    np.testing.assert_array_equal(classifier.means_, means)
    found = np.exp(classifier.message_up.log_prob)
    np.testing.assert_allclose(found, classifier.predict_proba(blobs.x[:7]))
    assert classifier.scores() == {}  # the labels are of other rows
    classifier.unfreeze()
    with pytest.raises(InputError, match="labels has 120 entries for 7 rows"):
        classifier.update()


def test_fitted_beforehand_it_needs_no_labels(blobs):
    classifier = GMMClassifier(2, random_state=0).fit(blobs.x, blobs.labels).freeze()
    found = Graph(classifier.connect(Observation(blobs.x))).fit(1, verbose=False).predict(blobs.x)
    np.testing.assert_array_equal(found.classes, blobs.labels)


def test_results_are_written_as_text_and_pictures(tmp_path):
    graph = joint(WORDS[DIGITS]).fit(1, verbose=False, out=tmp_path)
    classifier = graph["gmmclassifier"]
    folder = tmp_path / "module002_gmmclassifier"
    classes = np.loadtxt(folder / "class_learn.txt", dtype=int)
    np.testing.assert_array_equal(classes, classifier.posterior.clusters)
    posterior = summed(classifier, np.exp(classifier.messages_down[0].log_prob))
    np.testing.assert_allclose(np.loadtxt(folder / "Pdz_learn.txt"), posterior, rtol=1e-7)
    np.testing.assert_allclose(np.loadtxt(folder / "mu_learn.txt"), classifier.means_, rtol=1e-7)
    owners = np.loadtxt(folder / "component_classes.txt", dtype=int)
    np.testing.assert_array_equal(owners, classifier.component_classes_)
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert {"confusion", "latents_vae_after", "samples_gmmclassifier_observation"} <= pictures


@pytest.mark.parametrize(
    "options",
    [
        {"labels": None},
        {"labels": DIGITS[:5]},
        {"covariance_type": "round"},
        {"covariance_prior": "pool"},
        {"n_init": 0},
        {"priors": [0.5, 0.5]},
        {"sample_weight": np.ones(5)},
        {"random_state": -1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_cannot_work_is_known_before_anything_is_trained(options):
    graph = joint()
    graph["gmmclassifier"].set_params(**options)
    with pytest.raises(InputError, match="GMMClassifier"):
        graph.fit(1, verbose=False)
    assert not graph["vae"].history_


def test_a_second_update_on_the_same_rows_stays_put(blobs):
    module = GMMClassifier(3, labels=blobs.labels, tol=1e-8, random_state=0)
    module.connect(Observation(blobs.x))
    before = module.update().means_
    history = Graph(module).fit(2, verbose=False).history
    np.testing.assert_allclose(module.means_, before, atol=1e-2)
    assert history[-1]["updates"][-1]["changed"] == 0
