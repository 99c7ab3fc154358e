"""Parameters of mixtures, and the options their tests run with."""

import numpy as np
import pytest

from serkit.density import COVARIANCE_TYPES, MixtureDensity
from serkit.modules.mixture.components import Prior
from tests.helpers import oracles

all_types = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
all_inference = pytest.mark.parametrize("inference", ["map", "ml", "gibbs"])
unsure = pytest.mark.parametrize("with_variances", [False, True], ids=["exact", "unsure"])


def some_density(covariance_type="full", seed=1, k=3, d=2, spread=1.0):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, d, d))
    matrices = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(d)
    covariances = oracles.as_type(matrices, np.ones(k), covariance_type)
    weights = rng.dirichlet(np.full(k, 3.0))
    return MixtureDensity(weights, spread * rng.normal(size=(k, d)), covariances, covariance_type)


def some_prior(d=2):
    scale = np.diag([0.3, 0.8]) + 0.1 if d == 2 else np.eye(d)
    return Prior(np.linspace(0.5, 1.0, d), 1.5, d + 2.5, scale, 3.0)


def matrices_of(parameters):
    return oracles.as_matrices(
        parameters.covariances, parameters.covariance_type, *parameters.means.shape
    )
