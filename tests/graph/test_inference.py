"""Using a trained graph: predict, reconstruct and sample, which change nothing."""

import copy

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

from serkit import Graph, Module, Observation
from serkit.datasets import load_digits
from serkit.errors import GraphError, InputError, NotReadyError
from serkit.messages import Categorical, Data
from serkit.modules import AE, GMM, VAE, Features, GMMClassifier
from tests.helpers.modules import Teller
from tests.helpers.saved import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:.*lost all their rows")
NET = {"epochs": 4, "batch_size": 50, "lr": 3e-3, "hidden_sizes": (32,), "random_state": 0}
IMAGES = load_digits().images[:150]


def make(encoder=VAE, rounds=2, **options):
    low = encoder(3, **{**NET, **options}).connect(Observation(IMAGES, name="images"))
    return Graph(GMM(4, random_state=0).connect(low)).fit(rounds, verbose=False)


@pytest.fixture(scope="module")
def graph():
    """Trained once; every test leaves it as it is."""
    return make()


@pytest.fixture(scope="module")
def two():
    """Two observations, a VAE on each, one GMM on both."""
    rows = {"top": IMAGES[:, :4], "bottom": IMAGES[:, 4:].reshape(150, 32)}
    vaes = [VAE(2, **NET).connect(Observation(r, name=name)) for name, r in rows.items()]
    return Graph(GMM(4, random_state=0).connect(*vaes)).fit(1, verbose=False)


def states(graph):
    return copy.deepcopy([node.get_state() for node in graph.modules if isinstance(node, Module)])


@pytest.mark.parametrize(
    "use",
    [
        lambda graph: graph.predict(IMAGES[:9] ** 2),
        lambda graph: graph.reconstruct(IMAGES[:9] ** 2),
        lambda graph: graph.sample(5, component=1),
        lambda graph: graph.objective(),
        lambda graph: str(graph) + graph.mermaid(),
    ],
    ids=["predict", "reconstruct", "sample", "objective", "show"],
)
def test_using_a_graph_changes_nothing(graph, use):
    before, history = states(graph), copy.deepcopy(graph.history)
    use(graph)
    assert_same(before, states(graph))
    assert_same(history, graph.history)


@pytest.mark.parametrize("encoder", [VAE, AE])
def test_training_rows_are_predicted_as_they_were_learnt(encoder):
    graph = make(encoder)
    prediction = graph.predict(IMAGES)
    np.testing.assert_array_equal(prediction.latents, graph.modules[1].message_up.mean)
    np.testing.assert_allclose(prediction.probabilities, graph["gmm"].responsibilities_, atol=1e-9)
    np.testing.assert_array_equal(prediction.classes, prediction.probabilities.argmax(axis=1))
    assert_same(prediction.messages["gmm"], graph["gmm"].message_up)
    assert_same(prediction.messages["images"], Data(IMAGES))


def test_prediction_is_the_encoder_followed_by_the_mixture(graph):
    new = load_digits().images[150:170]
    prediction = graph.predict(new)
    vae, gmm = graph["vae"], graph["gmm"]
    np.testing.assert_array_equal(prediction.latents, vae.encode(new))
    density = np.empty((20, 4))
    for k, (mean, covariance) in enumerate(zip(gmm.means_, gmm.covariances_, strict=True)):
        density[:, k] = multivariate_normal(mean, covariance).logpdf(prediction.latents)
    joint = gmm.weights_ * np.exp(density - density.max(axis=1, keepdims=True))
    expected = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prediction.probabilities, expected, rtol=1e-5, atol=1e-9)


def test_one_row_is_predicted_as_among_others(graph):
    many, one = graph.predict(IMAGES[:8]), graph.predict(IMAGES[3:4])
    np.testing.assert_allclose(one.latents[0], many.latents[3], rtol=1e-4, atol=1e-5)
    assert one.classes.shape == (1,)


def test_prediction_takes_the_childrens_prior_in():
    gmm = GMM(2, random_state=0).connect(Observation(IMAGES[:, :2, 2]))
    graph = Graph(gmm).fit(1, verbose=False)
    own = graph.predict(IMAGES[:3, :2, 2]).probabilities
    said = np.log([[0.9, 0.1]] * 3)
    teller = Teller(Categorical(np.tile(said[:1], (150, 1)))).connect(gmm).update()
    teller.message = Categorical(said)
    told = Graph(teller).predict(IMAGES[:3, :2, 2])
    assert teller in gmm.children
    joint = own * np.exp(said)
    np.testing.assert_allclose(told.probabilities, joint / joint.sum(axis=1, keepdims=True))


def test_several_observations_are_predicted_in_order(two):
    rows = IMAGES[:6, :4], IMAGES[:6, 4:].reshape(6, 32)
    prediction = two.predict(*rows)
    assert prediction.probabilities.shape == (6, 4)
    np.testing.assert_array_equal(prediction.messages["vae"].mean, two["vae"].encode(rows[0]))
    reconstructed = two.reconstruct(*rows)
    assert {name: r.shape for name, r in reconstructed.items()} == {
        "top": (6, 4, 8),
        "bottom": (6, 32),
    }
    np.testing.assert_array_equal(reconstructed["top"], two["vae"].reconstruct(rows[0]))


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ((), r"expected rows for 1 observations \(images\), got 0"),
        ((IMAGES[:3], IMAGES[:3]), r"expected rows for 1 observations \(images\), got 2"),
        ((IMAGES[:3, :5],), r"images: expected rows of shape \(8, 8\), as in training, got \(5, 8"),
        ((IMAGES[0],), r"as in training, got \(8,\); give one row alone as row\[None\]"),
        ((IMAGES[:3] * 255,), r"VAE: likelihood='bernoulli' needs values in \[0, 1\], got \[0, 25"),
        ((IMAGES[0, 0],), r"images: expected at least one row"),
        (([["x"]],), "images: expected real numbers, got dtype <U1"),
    ],
    ids=["none", "too many", "shape", "one alone", "range", "one-dimensional", "strings"],
)
@pytest.mark.parametrize("method", ["predict", "reconstruct"])
def test_rows_that_do_not_fit_are_refused(graph, method, rows, text):
    before = states(graph)
    with pytest.raises(InputError, match=text):
        getattr(graph, method)(*rows)
    assert_same(before, states(graph))


def test_unequal_numbers_of_new_rows_are_refused(two):
    with pytest.raises(InputError, match="Observation 'top' has 6, Observation 'bottom' has 5"):
        two.predict(IMAGES[:6, :4], IMAGES[:5, 4:].reshape(5, 32))


@pytest.mark.parametrize(
    "use",
    [lambda g: g.predict(IMAGES[:3]), lambda g: g.reconstruct(IMAGES[:3]), lambda g: g.sample()],
    ids=["predict", "reconstruct", "sample"],
)
def test_untrained_graph_says_what_to_do(use):
    low = VAE(2, name="low").connect(Observation(IMAGES))
    with pytest.raises(NotReadyError, match=r"('low'|GMM).*(update|fit)\("):
        use(Graph(GMM(2).connect(low)))


def test_prediction_names_what_the_graph_lacks():
    prediction = (
        Graph(VAE(2, **NET).connect(Observation(IMAGES))).fit(1, verbose=False).predict(IMAGES[:3])
    )
    assert prediction.latents.shape == (3, 2)
    with pytest.raises(GraphError, match="no module of this graph sends Categorical messages"):
        prediction.classes  # noqa: B018


def test_graph_without_decoder_cannot_reconstruct():
    features = Features(np.tanh).connect(Observation(IMAGES[:, 2]))
    graph = Graph(GMM(2, random_state=0).connect(features))
    graph.fit(1, verbose=False)
    with pytest.raises(GraphError, match="no module of this graph reconstructs an observation"):
        graph.reconstruct(IMAGES[:3, 2])


def test_a_mixture_predicts_the_mean_of_its_components():
    rows = IMAGES[:, 2]
    gmm = GMM(2, random_state=0).connect(Observation(rows[:, :2]), Observation(rows[:, 2:]))
    graph = Graph(gmm)
    graph.fit(1, verbose=False)
    found = graph.reconstruct(rows[:, :2], None)
    p = gmm.density().marginal([0, 1]).responsibilities(rows[:, :2])
    for name, columns in (("observation", slice(0, 2)), ("observation2", slice(2, None))):
        np.testing.assert_allclose(found[name], p @ gmm.means_[:, columns], rtol=1e-6)


# -- sampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("component", [None, 0, 3])
def test_sample_goes_from_the_mixture_through_the_decoder(graph, component):
    images = graph.sample(6, component=component, random_state=5)
    latents, components = graph["gmm"].sample(6, component, random_state=5)
    assert images.shape == (6, 8, 8)
    assert component is None or set(components) == {component}
    np.testing.assert_array_equal(images, graph["vae"].decode(latents))
    assert 0 <= images.min() <= images.max() <= 1


def test_same_call_repeats_its_draw(graph):
    np.testing.assert_array_equal(graph.sample(4), graph.sample(4))
    one, other = (graph.sample(4, random_state=seed) for seed in (1, 2))
    assert not np.array_equal(one, other)


def test_sample_reaches_every_observation(two):
    drawn = two.sample(3, component=2)
    assert {name: r.shape for name, r in drawn.items()} == {"top": (3, 4, 8), "bottom": (3, 32)}


def test_sample_from_a_component_without_decoder_has_its_mean():
    rows = load_digits().images[:, 2, 2:6]
    gmm = GMM(3, random_state=0).connect(Observation(rows))
    drawn = Graph(gmm).fit(1, verbose=False).sample(4000, component=1)
    error = np.sqrt(np.diag(gmm.covariances_[1]) / 4000)
    assert (np.abs(drawn.mean(axis=0) - gmm.means_[1]) < 5 * error).all()


def test_leaf_chooses_among_several():
    vae = VAE(3, **NET).connect(Observation(IMAGES))
    leaves = GMM(4, name="a", random_state=0).connect(vae), GMM(2, name="b").connect(vae)
    graph = Graph(*leaves).fit(1, verbose=False)
    with pytest.raises(GraphError, match=r"several modules are at the top \((a, b|b, a)\); choose"):
        graph.sample(2)
    by_name = graph.sample(2, leaf="a", component=3)
    np.testing.assert_array_equal(by_name, graph.sample(2, leaf=leaves[0], component=3))
    np.testing.assert_array_equal(graph.sample(2, leaf="vae"), vae.sample(2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"component": 4}, "GMM: component=4 does not exist; they are 0 to 3"),
        ({"component": -1}, "component must be an integer >= 0, got -1"),
        ({"component": "a"}, "component must be an integer >= 0, got 'a'"),
        ({"leaf": "gnm"}, "no module is called 'gnm'"),
        ({"leaf": "images"}, "leaf=Observation 'images' is not a module that could be drawn from"),
        ({"leaf": "vae", "component": 1}, "VAE has no components; leave component=1 out"),
        ({"n_samples": 0}, "n_samples.* 0"),
        ({"n_samples": -2}, "n_samples.* -2"),
        ({"n_samples": 1.5}, r"n_samples.* 1\.5"),
        ({"random_state": "a"}, "random_state.*'a'"),
        ({"random_state": -1}, "random_state.*-1"),
    ],
    ids=str,
)
def test_samples_that_cannot_be_drawn_are_refused(graph, options, text):
    with pytest.raises((InputError, GraphError), match=text):
        graph.sample(**options)


def test_leaf_of_another_graph_is_refused(graph, two):
    with pytest.raises(GraphError, match=r"GMM.* not in this graph"):
        graph.sample(leaf=two["gmm"])


def test_graph_without_a_model_has_nothing_to_sample():
    with pytest.raises(GraphError, match="sample"):
        Graph(Observation(IMAGES)).sample()


# -- frames of results -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described():
    """A graph of a VAE and a classifier, trained on a frame with an index of names."""
    rng = np.random.default_rng(0)
    index = [f"row {number}" for number in range(40)]
    frame = pd.DataFrame(rng.random((40, 3)), index=index, columns=["a", "b", "c"])
    vae = VAE(2, epochs=1, hidden_sizes=(4,), random_state=0).connect(Observation(frame))
    names = np.where(frame["a"] > 0.5, "much", "little")
    top = GMMClassifier(1, labels=names, name="amount", random_state=0).connect(vae)
    return Graph(top).fit(1, verbose=False), frame


def test_a_frame_of_results_has_the_rows_index_and_speaking_names(described):
    graph, frame = described
    some = frame.iloc[[7, 3]]
    prediction = graph.predict(some)
    result = prediction.to_frame()
    assert result.index.tolist() == ["row 7", "row 3"]
    wanted = "vae_mean_0 vae_mean_1 vae_var_0 vae_var_1 amount_class amount_p_little amount_p_much"
    assert list(result) == wanted.split()
    np.testing.assert_array_equal(result[["vae_mean_0", "vae_mean_1"]], prediction.latents)
    np.testing.assert_array_equal(result.filter(like="_p_"), prediction.probabilities)
    assert result["amount_class"].tolist() == graph["amount"].classes_[prediction.classes].tolist()


def test_a_frame_of_results_of_an_array_numbers_its_rows(described):
    graph, frame = described
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        result = graph.predict(frame.to_numpy()).to_frame()
    assert result.index.tolist() == [*range(40)]
