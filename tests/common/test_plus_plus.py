"""Starts of clusters, against scikit-learn's."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import KMeans, kmeans_plusplus

from serkit.modules.common.plus_plus import k_means, plus_plus_centres


@pytest.mark.parametrize("seed", range(5))
def test_starts_are_scikit_learns(x, seed):
    weight = np.random.default_rng(seed).random(len(x))
    expected, _ = kmeans_plusplus(x, 4, sample_weight=weight, random_state=seed)
    np.testing.assert_array_equal(plus_plus_centres(x, weight, 4, seed), expected)


@pytest.mark.parametrize("seed", range(5))
def test_sparse_rows_start_as_dense_ones_do(x, seed):
    counts, weight = np.floor(np.abs(x)), np.ones(len(x))
    found = plus_plus_centres(sparse.csr_array(counts), weight, 4, seed)
    np.testing.assert_array_equal(found, plus_plus_centres(counts, weight, 4, seed))


@pytest.mark.parametrize("seed", range(5))
def test_rows_without_weight_are_never_drawn(x, seed):
    weight = (np.arange(len(x)) < 6).astype(float)
    centres = plus_plus_centres(x, weight, 6, seed)
    np.testing.assert_array_equal(np.sort(centres, axis=0), np.sort(x[:6], axis=0))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_iter", [1, 3, 100])
def test_centres_move_as_scikit_learns_do(x, seed, max_iter):
    weight, start = np.random.default_rng(seed).random(len(x)), x[10 * seed : 10 * seed + 4]
    peer = KMeans(4, init=start, n_init=1, max_iter=max_iter, tol=0, algorithm="lloyd")
    expected = peer.fit(x, sample_weight=weight).cluster_centers_
    # One pass over the rows, in another order of summing, is some 1e-15 off.
    np.testing.assert_allclose(k_means(x, weight, start, max_iter), expected, rtol=1e-10)


def test_a_centre_without_rows_stays(x):
    far = np.vstack([x[:2], np.full(x.shape[1], 1e3)])
    centres = k_means(x, np.ones(len(x)), far, 5)
    np.testing.assert_array_equal(centres[2], far[2])
    assert not np.array_equal(centres[:2], far[:2])
