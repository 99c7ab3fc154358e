"""Random messages of every kind that multiplies."""

import numpy as np

from serkit.messages import Categorical, Gaussian, Mixture

N, K, D = 5, 3, 2


def log_probabilities(seed, n=N, k=K):
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(k), n))


def make(kind, seed):
    rng = np.random.default_rng(seed)
    if kind is Categorical:
        return Categorical(log_probabilities(seed))
    if kind is Gaussian:
        return Gaussian(rng.normal(size=(N, D)), rng.gamma(2.0, size=(N, D)))
    roots = rng.normal(size=(K, D, D))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(D)
    weights = np.log(rng.dirichlet(np.ones(K)))
    return Mixture(log_probabilities(seed), rng.normal(size=(K, D)), covariances, weights)
