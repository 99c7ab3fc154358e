"""Starts of clusters, against scikit-learn's."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.cluster import kmeans_plusplus

from serkit.modules.common.plus_plus import plus_plus_centres


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
