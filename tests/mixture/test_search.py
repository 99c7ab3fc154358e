"""The number of components: what mergers lose, what is found, and how a graph keeps it."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler

from serkit import Graph, Observation
from serkit.errors import InputError
from serkit.messages import Categorical
from serkit.modules import GMM
from serkit.modules.mixture import search
from serkit.modules.mixture.split_merge import merged
from tests.helpers.mixtures import all_types, matrices_of, some_density


def blobs(k, n_each=40, d=3):
    """Rows about corners of a grid, 10 standard deviations apart."""
    rng = np.random.default_rng(k)
    centres = 10 * np.array([*np.ndindex(*[3] * d)])[rng.permutation(3**d)[:k]]
    return rng.normal(size=(k * n_each, d)) + np.repeat(centres, n_each, axis=0)


def classified(density):
    """Mean log-likelihood of rows whose components are known, but for a constant."""
    _, log_det = np.linalg.slogdet(matrices_of(density))
    return density.weights @ (np.log(density.weights) - 0.5 * log_det)


@all_types
def test_what_mergers_lose_is_what_the_likelihood_of_known_components_does(covariance_type):
    density = some_density(covariance_type)
    pairs, losses = search.losses_of_mergers(density)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    for (i, j), loss in zip(pairs.tolist(), losses, strict=True):
        after = search.with_merger(density, (i, j))
        if covariance_type == "tied":  # what lies between the two goes into the common matrix
            w, offset = density.weights, density.means[i] - density.means[j]
            between = w[i] * w[j] / (w[i] + w[j]) * np.outer(offset, offset)
            _, log_det = np.linalg.slogdet(density.covariances + between)
            lower = after.weights @ np.log(after.weights) - 0.5 * log_det
        else:
            lower = classified(after)
        assert loss == pytest.approx(classified(density) - lower, rel=1e-9)


@all_types
def test_a_merger_takes_the_place_of_the_first(covariance_type):
    density = some_density(covariance_type)
    after, union = search.with_merger(density, (0, 2)), merged(density, (0, 2))
    np.testing.assert_array_equal(after.means, [union.means[0], density.means[1]])
    assert after.weights.tolist() == [union.weights[0], density.weights[1]]
    np.testing.assert_array_equal(matrices_of(after)[0], matrices_of(union)[0])


@all_types
@pytest.mark.parametrize("k", [1, 6])
def test_blobs_are_counted(covariance_type, k):
    gmm = GMM("auto", covariance_type=covariance_type, random_state=0).fit(blobs(k))
    assert gmm.n_components_ == gmm.n_outputs == len(gmm.means_) == k
    assert gmm.history_[-1]["n_components"] == k


def test_wine_has_three_kinds():
    rows = StandardScaler().fit_transform(load_wine(return_X_y=True)[0])
    assert GMM("auto", covariance_type="diag", random_state=0).fit(rows).n_components_ == 3


def test_there_are_no_more_than_asked_for_and_of_many_rows_some_are_looked_at(monkeypatch):
    monkeypatch.setattr(search, "_MOST_ROWS", 100)
    rows = np.random.default_rng(0).permutation(blobs(4))
    assert GMM("auto", random_state=0).fit(rows).n_components_ == 4
    assert GMM("auto", max_components=2, random_state=0).fit(rows).n_components_ == 2


def test_a_graph_keeps_the_number_and_a_new_fit_finds_another():
    gmm = GMM("auto", random_state=0).connect(Observation(blobs(3)))
    assert gmm.n_outputs is None
    graph = Graph(gmm).fit(1, verbose=False)
    assert graph["gmm"].message_up.shape == (3,)
    gmm.connect(Observation(blobs(5))).update()
    assert gmm.n_components_ == 3
    gmm.set_params(n_components=5).update()
    gmm.set_params(n_components="auto")  # whose number was not found, but given
    assert gmm.n_outputs is None
    afresh = GMM("auto", warm_start=False, random_state=0)
    assert [afresh.fit(blobs(k)).n_components_ for k in (3, 5)] == [3, 5]


def test_children_who_have_spoken_say_how_many():
    rows = Observation(blobs(3))
    gmm = GMM("auto", random_state=0).connect(rows)
    gmm.learn([rows.message_up], Categorical.uniform(120, 4))
    assert gmm.n_components_ == 4


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"n_components": "Auto"}, "n_components must be an integer >= 1 or 'auto', got 'Auto'"),
        ({"max_components": 0}, "max_components must be an integer >= 1, got 0"),
        (
            {"means_init": [[0.0]], "weights_init": [1.0]},
            "leave weights_init and means_init out, or give the number of components",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        GMM(**{"n_components": "auto", **arguments}).fit(blobs(2))
