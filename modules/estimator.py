"""Any scikit-learn estimator that learns without targets, as a module."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from ..errors import InputError
from ._estimators import described, is_clusterer, is_transformer
from .sklearn_clusterer import SklearnClusterer
from .sklearn_transformer import SklearnTransformer


def Sklearn(estimator: BaseEstimator, **options: Any) -> SklearnClusterer | SklearnTransformer:
    """A scikit-learn estimator as a module: ``Sklearn(KMeans(10))``, ``Sklearn(PCA(20))``.

    Anything in scikit-learn's style will do (a UMAP, say), if it learns without targets and takes
    new rows. What has `fit_predict` and `predict` becomes a `SklearnClusterer`, anything else with
    `transform` a `SklearnTransformer`.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Never changed: every update fits a copy afresh.
    **options
        Of the class it becomes: `name`, `random_state`, and `labels` of a clusterer or `invert` of
        a transformer.

    Raises
    ------
    InputError
        For an estimator that is neither.
    """
    if is_clusterer(estimator):
        return SklearnClusterer(estimator, **options)
    if is_transformer(estimator):
        return SklearnTransformer(estimator, **options)
    raise InputError(
        f"Sklearn: {described(estimator)} can neither put new rows into clusters (predict) nor "
        "turn them into latents (transform), learning without targets; take one that can, such as "
        "KMeans(10) or PCA(20). Those that learn from targets go into Supervised"
    )
