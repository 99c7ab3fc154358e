"""A whole graph as an estimator: what scikit-learn does with it gives what the graph gives."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from serkit import Graph, GraphEstimator, Module, Observation, Posterior
from serkit.errors import GraphError, InputError
from serkit.messages import Data, Mixture
from serkit.modules import GMM, VAE

ROWS = np.random.default_rng(0).normal(size=(60, 4)) + 6 * np.eye(4)[np.arange(60) % 2]
ROWS = ROWS.astype(np.float32)
HELD_OUT = (ROWS[::3] + 0.1).astype(np.float32)


def build(observation):
    vae = VAE(2, likelihood="gaussian", epochs=2, hidden_sizes=(8,)).connect(observation)
    return GMM(3, n_init=1).connect(vae)


def mixture(observation):
    return GMM(2, n_init=1).connect(observation)


class Silent(Module):
    """Has no term of the joint objective."""

    sends_up = Data
    takes_from_children = (Mixture,)

    def learn(self, inputs, from_children):
        return {}

    def infer(self, inputs, from_children):
        return Posterior(up=inputs[0], down=(None,))


@pytest.fixture(scope="module")
def fitted():
    return GraphEstimator(build, rounds=2, random_state=4).fit(ROWS)


@pytest.fixture(scope="module")
def graph():
    return Graph(build(Observation(ROWS)), random_state=4).fit(2, verbose=False)


def test_it_gives_what_the_graph_gives(fitted, graph):
    prediction = graph.predict(HELD_OUT)
    np.testing.assert_array_equal(fitted.transform(HELD_OUT), prediction.latents)
    np.testing.assert_array_equal(fitted.predict_proba(HELD_OUT), prediction.probabilities)
    np.testing.assert_array_equal(fitted.predict(HELD_OUT), prediction.classes)
    np.testing.assert_array_equal(fitted.labels_, graph["gmm"].posterior.clusters)
    assert fitted.score(HELD_OUT) == graph.objective(HELD_OUT)
    assert fitted.n_features_in_ == 4


def test_the_bound_of_training_rows_is_the_joint_objective(graph):
    assert graph.objective(ROWS) == pytest.approx(graph.objective(), rel=1e-6)


def test_the_bound_of_new_rows_under_a_mixture_is_their_log_likelihood():
    estimator = GraphEstimator(mixture, rounds=1, random_state=0).fit(ROWS)
    assert estimator.score(HELD_OUT) == pytest.approx(estimator.graph_["gmm"].score(HELD_OUT))
    few, rest = HELD_OUT[:5], HELD_OUT[5:]
    parts = (5 * estimator.score(few) + 15 * estimator.score(rest)) / 20
    assert estimator.score(HELD_OUT) == pytest.approx(parts)


def test_arguments_of_modules_are_parameters():
    estimator = GraphEstimator(build, rounds=1, random_state=0, gmm__n_components=2)
    assert estimator.get_params()["gmm__n_components"] == 2
    copy = clone(estimator).set_params(gmm__n_components=4, vae__latent_dim=3, rounds=2)
    assert estimator.get_params()["gmm__n_components"] == 2
    copy.fit(ROWS)
    assert copy.predict_proba(ROWS).shape == (60, 4)
    assert copy.transform(ROWS).shape == (60, 3)
    assert len(copy.graph_.history) == 2
    assert "gmm__n_components=4" in repr(copy)


def test_a_fit_starts_afresh_and_copies_keep_everything(fitted, tmp_path):
    again = clone(fitted).fit(HELD_OUT).fit(ROWS)
    np.testing.assert_array_equal(again.transform(HELD_OUT), fitted.transform(HELD_OUT))
    joblib.dump(again, tmp_path / "estimator")
    for copy in (pickle.loads(pickle.dumps(again)), joblib.load(tmp_path / "estimator")):
        np.testing.assert_array_equal(copy.predict_proba(HELD_OUT), again.predict_proba(HELD_OUT))
    fresh = clone(fitted)
    np.testing.assert_array_equal(fresh.fit_predict(ROWS), fitted.predict(ROWS))
    np.testing.assert_array_equal(fresh.fit_transform(ROWS), fitted.transform(ROWS))


def test_names_of_columns_are_kept_and_checked():
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c", "d"])
    estimator = GraphEstimator(mixture, rounds=1).fit(frame)
    assert estimator.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="feature names"):
        estimator.predict(frame.rename(columns={"a": "e"}))


def test_callbacks_are_called_after_rounds():
    scores = []
    report = lambda graph, record: scores.append(graph.objective(HELD_OUT))  # noqa: E731
    GraphEstimator(mixture, rounds=2, random_state=0, callbacks=[report]).fit(ROWS)
    assert len(scores) == 2


def test_errors_say_what_to_do():
    estimator = GraphEstimator(build, rounds=1)
    with pytest.raises(NotFittedError, match=r"GraphEstimator is not fitted yet: call fit\(x\)"):
        estimator.predict(ROWS)
    with pytest.raises(InputError, match="expected one of 'observation', 'vae', 'gmm'"):
        clone(estimator).set_params(gm__tol=1).fit(ROWS)
    with pytest.raises(InputError, match="GMM has no argument 'k'; there are covariance"):
        clone(estimator).set_params(gmm__k=1).fit(ROWS)
    with pytest.raises(InputError, match="n_components must be an integer >= 1 or 'auto', got 0"):
        clone(estimator).set_params(gmm__n_components=0).fit(ROWS)
    with pytest.raises(GraphError, match="must connect modules to the observation it is given"):
        GraphEstimator(lambda observation: mixture(Observation(ROWS))).fit(ROWS)
    with pytest.raises(GraphError, match="must return a Graph or its leaf, got a NoneType"):
        GraphEstimator(lambda observation: None).fit(ROWS)
    with pytest.raises(InputError, match="build must be a function of observation, got 3"):
        GraphEstimator(3).fit(ROWS)
    silent = GraphEstimator(lambda o: mixture(Silent().connect(o)), rounds=1).fit(ROWS)
    with pytest.raises(GraphError, match="no term of the joint objective; give searches another"):
        silent.score(HELD_OUT)


def test_a_fit_that_cannot_say_what_it_is_asked_for_leaves_the_one_before():
    estimator = GraphEstimator(mixture, rounds=1, random_state=0).fit(ROWS)
    before = estimator.graph_
    with pytest.raises(GraphError, match="no module of this graph sends Gaussian messages"):
        estimator.fit_transform(ROWS)
    assert estimator.graph_ is before
    assert len(estimator.fit_predict(ROWS)) == 60
    assert estimator.graph_ is not before
