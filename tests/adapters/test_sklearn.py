"""Sklearn: which estimators can be modules, and what is said of those that cannot."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN, Birch, KMeans
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_persistence import assert_same

from serkit import Observation
from serkit.errors import InputError, NotReadyError
from serkit.messages import Data
from serkit.modules import Sklearn
from serkit.modules.adapters.sklearn import (
    SklearnClusterer,
    SklearnTransformer,
    declared_size,
    is_clusterer,
)


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
    assert Sklearn(estimator).size == size


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
        (KMeans(3), {"random_state": -1}, "random_state must be an integer >= 0"),
        (PCA(2), {"estimator": PCA(5)}, r"PCA\.fit failed: n_components=5 must be between"),
        (PCA(2), {"estimator": KMeans}, "is no transformer that learns without targets"),
        (PCA(2), {"invert": "no"}, "unknown invert='no'; expected one of False, True"),
    ],
)
def test_arguments_that_cannot_work_lose_nothing(estimator, options, text, blobs):
    module = on(blobs.x, estimator)
    before = module.get_state()
    with pytest.raises(InputError, match=rf"'own': .*{text}"):
        module.set_params(**options).update()
    assert_same(before, module.get_state())


@pytest.mark.parametrize("estimator", [PCA(2), KMeans(2)])
def test_nothing_can_be_asked_before_learning(estimator, blobs):
    with pytest.raises(NotReadyError, match="has learnt nothing yet: call update"):
        Sklearn(estimator).forward([Data(blobs.x)])


@pytest.mark.parametrize("estimator", [PCA(2), KMeans(2)])
def test_rows_of_another_length_or_none_seen_are_errors(estimator, blobs):
    module = on(blobs.x, estimator)
    with pytest.raises(InputError, match=r"'own': \w+\.\w+ failed: X has 3 features, but"):
        module.forward([Data(blobs.x[:, :3])])
    nothing = [Data(blobs.x, observed=np.zeros(120, dtype=bool))]
    with pytest.raises(InputError, match="'own': no row was seen by all of its parents"):
        module.learn(nothing, None)
