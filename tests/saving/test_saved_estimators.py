"""scikit-learn's estimators in files: they predict as before, and nothing else gets in or out."""

import importlib
import io
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import Birch, BisectingKMeans, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KDTree, KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from serkit import Graph, Observation
from serkit.errors import InputError, SavedFileError
from serkit.modules import Sklearn
from serkit.saving import estimators, format
from tests.helpers.saved import assert_same

ESTIMATORS = [
    PCA(2, random_state=0),
    KMeans(3, random_state=0),
    GaussianMixture(2, random_state=0),
    BayesianGaussianMixture(n_components=3, covariance_type="tied", random_state=0),
    LogisticRegression(),
    MLPClassifier((5,), max_iter=3, random_state=0),
    MLPClassifier((5,), max_iter=3, solver="sgd", random_state=0),
    make_pipeline(StandardScaler(), PCA(2), KMeans(3, random_state=0)),
    BisectingKMeans(3, random_state=0),
    GaussianProcessRegressor(1.0 * RBF() + WhiteKernel(), optimizer=None),
    make_pipeline(SelectKBest(k=1), CalibratedClassifierCV(LogisticRegression(), cv=2)),
    GridSearchCV(KNeighborsClassifier(algorithm="kd_tree"), {"n_neighbors": [1, 2]}, cv=2),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(3, random_state=0),
    VotingClassifier([("forest", ExtraTreesClassifier(2, random_state=0))]),
    IsolationForest(n_estimators=2, max_features=1, random_state=0),
    BaggingClassifier(DecisionTreeClassifier(), 2, max_features=1, random_state=0),
    GradientBoostingClassifier(n_estimators=2, random_state=0),
    HistGradientBoostingClassifier(max_iter=2, categorical_features=[0], random_state=0),
    HistGradientBoostingRegressor(max_iter=2, random_state=0),
    KNeighborsRegressor(algorithm="ball_tree", metric="manhattan"),
]


class Foreign(BaseEstimator):
    """An estimator of no known library."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


def written(path, estimator):
    format.write(path, {"estimator": estimator})
    return format.read(path)["estimator"]


def kind(value):
    return type(value).__name__


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=kind)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_what_an_estimator_answers_survives(estimator, blobs, tmp_path):
    fitted = clone(estimator).fit(blobs.x, blobs.labels)
    assert_same(estimator, written(tmp_path / "file", estimator))
    found = written(tmp_path / "file", fitted)
    assert type(found) is type(fitted)
    for method in ("predict", "predict_proba", "transform", "inverse_transform", "score_samples"):
        if hasattr(fitted, method):
            given = blobs.x if method != "inverse_transform" else fitted.transform(blobs.x)
            answers = (getattr(e, method)(given) for e in (fitted, found))
            np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("estimator", [*ESTIMATORS[:5], ESTIMATORS[7]], ids=kind)
def test_equal_estimators_are_the_same_and_others_are_not(estimator, blobs, tmp_path):
    fitted = clone(estimator).fit(blobs.x, blobs.labels)
    assert format.same(estimator, written(tmp_path / "file", estimator))
    assert format.same(fitted, written(tmp_path / "file", fitted))
    assert not format.same(fitted, estimator)
    assert not format.same(fitted, clone(estimator).fit(blobs.x[1:], blobs.labels[1:]))
    assert not format.same(estimator, None)
    assert not format.same(PCA(2), PCA(3))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            Foreign(),
            r"a Foreign, of which skops can make no safe file \(it holds tests\.saving\.test",
        ),
        (
            make_pipeline(Foreign()),
            r"a Pipeline, of which .* \(it holds tests\.saving\.test.*Foreign",
        ),
        (FunctionTransformer(print), r"a FunctionTransformer, .* \(it holds builtins\.print"),
        (Birch(), r"a Birch, of which .* \(Objects of type Birch are not supported"),
    ],
    ids=["foreign", "inside", "function", "not supported"],
)
def test_what_cannot_be_loaded_safely_is_not_saved(value, text):
    with pytest.raises(format.Unsupported, match=text):
        format.encode(value, format.Contents())
    assert isinstance(format.described(value), format.Custom)


def test_a_graph_tells_which_module_holds_it(blobs, tmp_path):
    graph = Graph(Sklearn(Foreign(), name="top").connect(Observation(blobs.x)))
    graph.fit(1, verbose=False)
    with pytest.raises(InputError, match=r"'top': estimator_ is a Foreign, of which skops"):
        graph.save(tmp_path / "graph")


def test_a_killed_run_goes_on_only_with_the_same_estimator(blobs, tmp_path):
    def graph(estimator):
        return Graph(Sklearn(estimator, name="top", random_state=0).connect(Observation(blobs.x)))

    path = tmp_path / "graph"
    graph(KMeans(3)).fit(1, checkpoint=path, verbose=False)
    again = graph(KMeans(3)).fit(2, checkpoint=path, verbose=False)
    whole = graph(KMeans(3)).fit(2, verbose=False)
    assert_same(whole["top"].get_state(), again["top"].get_state())
    with pytest.raises(SavedFileError, match=r"saved with estimator=KMeans.*'top', which now has"):
        graph(KMeans(4)).fit(3, checkpoint=path, verbose=False)


# -- what files of others may do -------------------------------------------------------------------


def altered(estimator, **changes):
    """The bytes of an estimator's file, the entry of the estimator itself changed."""
    source, target = io.BytesIO(skops.io.dumps(estimator)), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                content = json.dumps({**json.loads(content), **changes}).encode()
            new.writestr(name, content)
    return np.frombuffer(target.getvalue(), dtype=np.uint8)


def crafted(path, dumped, monkeypatch):
    """A file whose checksum is right, holding these bytes for an estimator."""
    with monkeypatch.context() as patched:
        patched.setattr(estimators, "dump", lambda estimator: dumped)
        format.write(path, {"estimator": PCA()})


@pytest.mark.parametrize("name", ["os.system", "antigravity.geohash", f"{__name__}.Foreign"])
def test_a_file_cannot_name_what_is_to_be_loaded(name, tmp_path, monkeypatch):
    module, _, kind = name.rpartition(".")
    crafted(tmp_path / "file", altered(PCA(2), __module__=module, __class__=kind), monkeypatch)
    imported, load = [], importlib.import_module

    def watched(name, package=None):
        imported.append(name)
        return load(name, package)

    monkeypatch.setattr(importlib, "import_module", watched)
    with pytest.raises(SavedFileError, match=rf"file: .*cannot be read safely .*{name}"):
        format.read(tmp_path / "file")
    assert module not in imported


@pytest.mark.parametrize("content", [bytes(9), pickle.dumps(PCA())])
def test_bytes_that_are_no_estimator_are_refused(content, tmp_path, monkeypatch):
    crafted(tmp_path / "file", np.frombuffer(content, np.uint8), monkeypatch)
    with pytest.raises(SavedFileError, match=r"file: .*estimator that cannot be read safely"):
        format.read(tmp_path / "file")


def nodes_of(fitted):
    """The nodes of the first tree of something fitted, and the names of its children."""
    if isinstance(fitted, HistGradientBoostingRegressor):
        return fitted._predictors[0][0].nodes, "left"
    tree = fitted.tree_ if hasattr(fitted, "tree_") else fitted.estimators_[0].tree_
    return tree.__getstate__()["nodes"], "left_child"


@pytest.mark.parametrize("number", [-5, 0, 10**9])
@pytest.mark.parametrize("field", ["children", "feature"])
@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(max_depth=2),
        RandomForestClassifier(2),
        HistGradientBoostingRegressor(max_iter=1),
    ],
    ids=kind,
)
def test_trees_that_lead_out_of_themselves_are_refused(estimator, field, number, blobs, tmp_path):
    fitted = clone(estimator).fit(blobs.x, blobs.labels)
    nodes, children = nodes_of(fitted)
    name = children if field == "children" else next(n for n in nodes.dtype.names if "feature" in n)
    wrong = blobs.x.shape[1] if (field, number) == ("feature", 0) else number
    nodes[name][0] = np.array(wrong).astype(nodes.dtype[name])  # -5 is much, where it has no sign
    format.write(tmp_path / "file", fitted)
    with pytest.raises(SavedFileError, match=r"file: .*(nodes|columns).* not there"):
        format.read(tmp_path / "file")


def test_trees_and_forests_that_contradict_themselves_are_refused(blobs, tmp_path):
    forest = RandomForestClassifier(2).fit(blobs.x, blobs.labels)
    wide = np.hstack([blobs.x, blobs.x])
    forest.estimators_[1] = RandomForestClassifier(1).fit(wide, blobs.labels).estimators_[0]
    neighbours = KNeighborsClassifier(algorithm="kd_tree").fit(blobs.x, blobs.labels)
    neighbours._tree.__setstate__(
        (*KDTree(blobs.x[:9]).__getstate__()[:1], *neighbours._tree.__getstate__()[1:])
    )
    for fitted, text in ((forest, "a forest has other trees"), (neighbours, "tree of neighbours")):
        format.write(tmp_path / "file", fitted)
        with pytest.raises(SavedFileError, match=text):
            format.read(tmp_path / "file")


def test_bytes_that_unpack_to_more_are_refused(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", " " * 10**6)
    crafted(tmp_path / "file", np.frombuffer(packed.getvalue(), np.uint8), monkeypatch)
    with pytest.raises(SavedFileError, match="unpack to more than is in the file"):
        format.read(tmp_path / "file")


def test_nothing_is_unpickled(blobs, tmp_path, monkeypatch):
    fitted = KMeans(3, random_state=0).fit(blobs.x)
    format.write(tmp_path / "file", fitted)

    def forbidden(*args, **kwargs):
        raise AssertionError("called while loading")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    found = format.read(tmp_path / "file")
    monkeypatch.undo()
    assert_same(fitted, found)


def test_without_skops_the_extra_is_named(tmp_path, monkeypatch):
    format.write(tmp_path / "file", PCA(2))
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(SavedFileError, match=r"file: .*pip install '\.\[estimators\]'"):
        format.read(tmp_path / "file")
    with pytest.raises(format.Unsupported, match=r"a PCA, .*'\.\[estimators\]'"):
        format.encode(PCA(2), format.Contents())
