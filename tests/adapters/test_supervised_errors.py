"""Supervised: what is said of arguments, targets and parents that cannot work."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from test_persistence import assert_same
from test_supervised import K, N, certain, graph_of, source, taught, undecided
from torch import nn

from serkit import Observation
from serkit.errors import GraphError, InputError
from serkit.modules import Supervised


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"task": "guess"}, "unknown task='guess'; expected one of 'classification', 'regression'"),
        (
            {"estimator": Ridge()},
            "task='classification' needs a scikit-learn classifier.*got Ridge",
        ),
        ({"estimator": KMeans}, "needs a scikit-learn classifier or a torch.nn.Module, got <class"),
        (
            {"estimator": LogisticRegression(), "task": "regression"},
            "task='regression' needs a scikit-learn regressor.*got LogisticRegression",
        ),
        ({"estimator": RidgeClassifier()}, "RidgeClassifier has no predict_proba"),
        (
            {"estimator": LogisticRegression(C=-1.0)},
            r"LogisticRegression\.fit failed: The 'C' parameter",
        ),
        ({"estimator": nn.Linear(K, 9)}, r"net must return \(N, 3\) for 3 classes"),
        ({"random_state": -1}, "random_state must be an integer >= 0, got -1"),
    ],
)
def test_arguments_that_cannot_work_lose_nothing(options, text):
    message, classes = certain()
    module = taught(message, 4 + classes, name="top")
    before = module.get_state()
    module.set_params(**options)
    with pytest.raises(InputError, match=rf"Supervised 'top': .*{text}"):
        module.update()
    assert_same(before, module.get_state())


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.arange(N) / 2, r"classes must be whole numbers, one a row.*got 0\.5; number them"),
        (np.zeros((N, 2)), "classes must be whole numbers, one a row.*got 2 columns"),
        (
            np.zeros(N),
            r"two different targets or more to learn from, got 90 known targets: \[0\.\]",
        ),
    ],
)
def test_targets_that_teach_nothing_are_told(y, text):
    with pytest.raises(InputError, match=text):
        taught(undecided(), y)


@pytest.mark.parametrize("parents", ["one", "three", "order", "two observations"])
def test_parents_are_a_module_and_an_observation_of_targets(parents):
    module, targets = source(undecided()), Observation(np.zeros((N, 1)), name="targets")
    rows = Observation(np.zeros((N, 1)), name="rows")
    given = {
        "one": [module],
        "three": [module, rows, targets],
        "order": [targets, module],
        "two observations": [rows, targets],
    }[parents]
    with pytest.raises(GraphError, match=r"expected two parents.*connect\(gmm, Observation"):
        Supervised().connect(*given).update()


def test_a_target_never_learnt_is_an_error(blobs):
    graph = graph_of(blobs.x, blobs.labels, None).fit(1, verbose=False)
    with pytest.raises(InputError, match=r"Supervised 'top': targets \[7.0\] were not among those"):
        graph.reconstruct(blobs.x[:2], [[7], [1]])
