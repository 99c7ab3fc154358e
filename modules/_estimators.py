"""scikit-learn's estimators, asked what modules need: what they are, and what they found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone, is_outlier_detector
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from ..density import MixtureDensity
from ..errors import InputError
from ..messages import Data, Gaussian, Message, Mixture


def is_clusterer(estimator: Any) -> bool:
    """Whether it finds clusters without targets, and puts new rows into them."""
    return (
        _learns_alone(estimator)
        and hasattr(estimator, "fit_predict")
        and hasattr(estimator, "predict")
        and not is_outlier_detector(estimator)
    )


def is_transformer(estimator: Any) -> bool:
    """Whether it learns without targets to turn rows, new ones too, into others."""
    return _learns_alone(estimator) and hasattr(estimator, "transform")


def _learns_alone(estimator: Any) -> bool:
    return isinstance(estimator, BaseEstimator) and not get_tags(estimator).target_tags.required


def described(estimator: Any) -> str:
    """How error texts call an estimator, or what was given for one."""
    return type(estimator).__name__ if isinstance(estimator, BaseEstimator) else repr(estimator)


def declared_size(estimator: BaseEstimator) -> int | None:
    """The number of clusters or components it is made to find; None where it says none."""
    final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    for name in ("n_clusters", "n_components"):
        size = getattr(final, name, None)
        if isinstance(size, int | np.integer):
            return int(size)
    return None


def seeded(estimator: BaseEstimator, rng: np.random.Generator) -> BaseEstimator:
    """An unfitted copy, the seeds left open in it and in its parts drawn from `rng`."""
    copy = clone(estimator)
    for name, value in sorted(copy.get_params().items()):
        if name.split("__")[-1] == "random_state" and value is None:
            copy.set_params(**{name: int(rng.integers(2**31))})
    return copy


def ask(label: str, method: Callable, *data: np.ndarray) -> Any:
    """Call a method of an estimator on arrays.

    Raises
    ------
    InputError
        With the module's name, for what the estimator says of its arguments or the arrays.
    """
    try:
        return method(*data)
    except (ValueError, TypeError) as error:
        kind = type(method.__self__).__name__
        raise InputError(f"{label}: {kind}.{method.__name__} failed: {error}") from error


def expected_rows(prior: Message | None, n_rows: int, size: int) -> np.ndarray:
    """Rows (N, size) as the children's message alone has them; 0 where it tells of none."""
    if isinstance(prior, Data):
        return prior.array.reshape(n_rows, size)
    if isinstance(prior, Gaussian):
        return prior.mean
    if isinstance(prior, Mixture):
        return prior.expected().mean
    return np.zeros((n_rows, size))


def is_mixture(estimator: BaseEstimator) -> bool:
    """Whether a fitted clusterer is a Gaussian mixture, with parameters of its own."""
    names = ("weights_", "means_", "covariances_", "covariance_type")
    return all(hasattr(estimator, name) for name in names)


def mixture_of(
    estimator: BaseEstimator, x: np.ndarray, responsibilities: np.ndarray
) -> MixtureDensity:
    """The mixture that a fitted clusterer stands for: x (N, D), responsibilities (N, K).

    Its own if it is one; else the model of k-means, with the clusters' means and one variance for
    all clusters and dimensions. An empty cluster lies at the mean of all rows.
    """
    if is_mixture(estimator):
        parameters = (estimator.weights_, estimator.means_, estimator.covariances_)
        return MixtureDensity(*parameters, estimator.covariance_type)
    counts = responsibilities.sum(axis=0)  # (K,)
    sums = np.where(counts[:, None] > 0, responsibilities.T @ x, x.mean(axis=0))  # (K, D)
    means = sums / np.where(counts > 0, counts, 1)[:, None]
    pairs = zip(responsibilities.T, means, strict=True)
    squares = sum(r @ ((x - mean) ** 2).sum(axis=1) for r, mean in pairs)
    variance = max(squares / x.size, np.finfo(float).eps)
    return MixtureDensity(counts / counts.sum(), means, np.full(len(counts), variance), "spherical")


def one_hot(clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Cluster numbers (N,) as certain probabilities (N, K), K being at least `n_clusters`."""
    return np.eye(max(n_clusters, clusters.max() + 1))[clusters]


def matching_order(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The order (K,) of clusters in which they share most mass with those before.

    Responsibilities (N, K) before and now; if they are of other rows or clusters, the order stays.
    """
    if before.shape != now.shape:
        return np.arange(now.shape[1])
    return linear_sum_assignment(before.T @ now, maximize=True)[1]
