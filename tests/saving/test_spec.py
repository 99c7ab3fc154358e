"""Graphs as plain values: round trips, what a spec may name, and errors that say where."""

import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

import serkit as srk
from serkit import Graph, Observation
from serkit.errors import GraphError, InputError
from serkit.messages import Data
from serkit.modules import GMM, VAE, Compose, RandomAffine, RandomIntensity, SklearnTransformer
from tests.helpers.modules import Classes

N = 40
IMAGES = np.random.default_rng(0).random((N, 4, 4)).astype(np.float32)
QUICK = {"epochs": 1, "hidden_sizes": (4,), "random_state": 0}


def spec(observations=None, **modules):
    gmm = {"class": "GMM", "parents": ["rows"], "arguments": {"n_components": 2}}
    return {"observations": observations or {"rows": {}}, "modules": modules or {"gmm": gmm}}


def changed(**entry):
    return spec(gmm={**spec()["modules"]["gmm"], **entry})


def test_a_graph_comes_back_from_json_and_learns_the_same():
    augment = Compose([RandomAffine(scale=(0.9, 1.1)), RandomIntensity()])
    images = Observation(IMAGES, name="images", lengths=[N - 10, 10])
    vae = VAE(2, name="encoder", augment=augment, **QUICK).connect(images)
    labels = np.array(["ape", "bee"])[np.arange(N) % 2]
    gmm = GMM(2, labels=labels, covariance_prior=0.1 * np.eye(2), random_state=1).connect(vae)
    graph = Graph(gmm)
    stated = json.loads(json.dumps(graph.to_spec()))
    assert stated["observations"] == {"images": {"row_shape": [4, 4], "lengths": [N - 10, 10]}}
    assert stated["modules"]["encoder"]["parents"] == ["images"]
    assert stated["modules"]["gmm"]["arguments"]["labels"] == labels.tolist()
    again = Graph.from_spec(stated, {"images": IMAGES})
    assert again.to_spec() == stated
    for one in (graph, again):
        one.fit(2, verbose=False)
    np.testing.assert_array_equal(again["gmm"].means_, graph["gmm"].means_)
    assert list(again) == ["images", "encoder", "gmm"]
    assert again["gmm"].name is None


def test_without_rows_it_is_there_to_be_looked_at():
    stated = Graph(GMM(2).connect(Observation(IMAGES))).to_spec()
    graph = Graph.from_spec(stated)
    assert "observation -->" in graph.mermaid()
    assert graph.to_spec() == stated
    with pytest.raises(InputError, match=r"observations.rows: its rows are missing: give data="):
        Graph.from_spec(spec())


def test_classes_that_are_handed_over_and_code_that_is_given():
    rows = Observation(IMAGES, name="rows")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    vae = VAE(2, encoder=net, **QUICK).connect(rows)
    pca = SklearnTransformer(PCA(3)).connect(rows)
    stated = Graph(
        GMM(2).connect(vae), GMM(2, name="top").connect(pca), Classes(2).connect(rows)
    ).to_spec()
    assert stated["modules"]["vae"]["arguments"]["encoder"] == {"custom": "Sequential"}
    known = {"classes": [PCA, Classes], "custom": {"vae.encoder": net}}
    again = Graph.from_spec(stated, {"rows": IMAGES}, **known)
    assert again["sklearntransformer"].estimator.n_components == 3
    assert again["vae"].encoder is net
    with pytest.raises(InputError, match=r"encoder is code .*custom={'vae\.encoder': "):
        Graph.from_spec(stated, {"rows": IMAGES}, classes=[PCA, Classes])
    with pytest.raises(InputError, match="or of one in classes=, got 'PCA'"):
        Graph.from_spec(stated, {"rows": IMAGES}, **{**known, "classes": [Classes]})


def test_rows_may_miss_a_modality():
    mask = np.arange(N) > 3
    graph = Graph.from_spec(spec(), {"rows": Data(IMAGES, observed=mask)})
    np.testing.assert_array_equal(graph["rows"].observed, mask)


def test_arrays_stand_beside_and_one_seed_is_for_all():
    labels = np.arange(N) % 2
    stated = changed(arguments={"n_components": 2, "labels": {"data": "kinds"}})
    graph = Graph.from_spec(stated, {"rows": IMAGES, "kinds": labels}, random_state=0)
    assert graph["gmm"].labels is labels
    same = Graph(GMM(2).connect(Observation(IMAGES)), random_state=0)
    assert graph["gmm"].seed() == same["gmm"].seed()


@pytest.mark.parametrize(
    ("stated", "error", "text"),
    [
        ([], InputError, "expected a dict with observations and modules, got"),
        ({"module": {}}, InputError, "unknown key='module'; expected one of 'observations'"),
        (spec(rows={"class": "GMM"}), InputError, "rows is an observation and a module"),
        (changed(kind=1), InputError, "modules.gmm: unknown key='kind'; expected one of 'class'"),
        (changed(**{"class": "os.system"}), InputError, "one in serkit.modules.*'os.system'"),
        (changed(**{"class": "mixture"}), InputError, "one in serkit.modules.*'mixture'"),
        (changed(**{"class": "HAC"}), InputError, "modules.gmm: HAC is no module"),
        (changed(parents=["raws"]), GraphError, "no module is called 'raws'; there are rows, gmm"),
        (changed(parents="rows"), InputError, "parents must be a list, each a string"),
        (changed(parents=[]), GraphError, "needs at least one parent"),
        (changed(parents=["gmm"]), GraphError, "gmm|GMM"),
        (changed(arguments={}), InputError, "modules.gmm: .*missing.*'n_components'"),
        (changed(arguments={"n_component": 2}), InputError, "did you mean 'n_components'?"),
        (
            changed(arguments={"n_components": 0}),
            InputError,
            "GMM: n_components must be an integer",
        ),
        (changed(arguments={"n_components": 99}), InputError, "GMM: n_components=99 is more than"),
        (spec({"rows": {"row_shape": ["a"]}}), InputError, "row_shape must be a sequence of int"),
        (spec({"rows": {"lengths": 3}}), InputError, "lengths must be a sequence of integers"),
        (spec({"rows": {"row_shape": [9]}}), InputError, r"expected rows of shape \(9,\), got"),
        (
            changed(arguments={"n_components": 2, "labels": {"data": "kinds"}}),
            InputError,
            "modules.gmm.labels: expected data={'kinds': ...}; there is rows",
        ),
    ],
)
def test_errors_say_where(stated, error, text):
    with pytest.raises(error, match=text):
        Graph.from_spec(stated, {"rows": IMAGES})


def test_what_is_given_has_a_place():
    with pytest.raises(InputError, match="data= names images, and the spec asks for rows"):
        Graph.from_spec(spec(), {"images": IMAGES})
    with pytest.raises(InputError, match=r"custom= names gmm\.net, and the spec asks for nothing"):
        Graph.from_spec(spec(), {"rows": IMAGES}, custom={"gmm.net": 1})
    for wrong in ({"data": IMAGES}, {"classes": ["GMM"]}, {"custom": []}, {"random_state": "0"}):
        with pytest.raises(InputError, match=f"Graph.from_spec: {next(iter(wrong))} must be"):
            srk.Graph.from_spec(spec(), **{"data": {"rows": IMAGES}, **wrong})
