"""What modules made of scikit-learn estimators that learn without targets share."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import InputError, NotFittedError
from ..messages import Data, Gaussian, Message
from ..module import Module
from ._estimators import ask, declared_size, seeded
from ._rows import all_seen, split_columns, stack


class EstimatorModule(Module):
    """Abstract base of SklearnClusterer and SklearnTransformer.

    Fits a copy of an estimator to the rows that all parents saw, side by side.
    """

    accepts_forward = (Data, Gaussian)

    @property
    def size(self) -> int | None:
        """Number of clusters or latent dimensions; before learning as the estimator says it."""
        return getattr(self, "size_", declared_size(self.estimator))

    def _fitted(self, x: np.ndarray) -> BaseEstimator:
        estimator = seeded(self.estimator, self.rng())
        ask(self.label, estimator.fit, x)
        return estimator

    def _check_learnt(self) -> None:
        if not hasattr(self, "estimator_"):
            raise NotFittedError(f"{self.label} has learnt nothing yet: call update() first")

    def _seen_rows(self, inputs: list[Message]) -> np.ndarray:
        x, seen = stack(inputs).block(), all_seen(inputs)
        if seen is not None and not seen.any():
            raise InputError(
                f"{self.label}: no row was seen by all of its parents, so there is nothing to "
                "learn from"
            )
        return x if seen is None else x[seen]

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        return split_columns(rows, [parent.size for parent in self.parents])
