"""Rows of classes that overlap, and classifiers for them."""

from functools import partial

import numpy as np

from serkit.modules import GMMClassifier

NAMES = np.array(["ape", "bee", "cat"])
FAR = np.array([[1e3, -1e3, 1e3], [1e150, 0, 0], [1e300, 1e300, 1e300]])
classifier = partial(GMMClassifier, 2, random_state=0)
unregularised = partial(GMMClassifier, 1, inference="ml", reg_covar=0.0)


def overlapping(n=180, seed=0):
    """Rows (n, 3) of three Gaussian classes that overlap: 3/6, 2/6 and 1/6 of the rows."""
    roots = np.random.default_rng(99).normal(size=(3, 3, 3))
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat([0, 1, 2], [n // 2, n // 3, n // 6]))
    noise = rng.normal(size=(n, 1, 3)) @ roots[codes]
    return noise[:, 0] + 1.5 * codes[:, None], NAMES[codes]
