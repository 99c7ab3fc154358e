"""Features that something already trained, or a function, takes out of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ...arrays import as_rows
from ...errors import InputError
from ...messages import Categorical, Data, Gaussian, Message, Mixture
from ...module import Module
from ..common.inputs import all_observed, flat, join, split_columns
from ..nets.device import in_chunks
from .sklearn import ask, expected_rows


class Features(Module):
    """A frozen feature extractor: it learns nothing and listens to nobody.

    Sends what the extractor makes of its parents' rows up, and down, if it is a transformer with
    an `inverse_transform`, the rows that its children's message stands for.

    Parameters
    ----------
    extractor : torch.nn.Module, scikit-learn transformer or callable
        From rows (N, ...) to as many rows of features (N, ...). A net is run in evaluation mode,
        without gradients, on chunks of float32 rows, and on the device it is on; a transformer
        must be fitted, and takes flat rows (N, D); any other callable gets the array at once (of
        several processes each its share). Several parents' rows are set side by side, flat.
    name : str, optional
        See `serkit.Module`.
    """

    takes_from_parents = (Data,)
    takes_from_children = (Data, Gaussian, Categorical, Mixture)
    sends_up = Data
    learns_from_shares = True

    def __init__(
        self,
        extractor: nn.Module | BaseEstimator | Callable[[np.ndarray], np.ndarray],
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.extractor = extractor

    @property
    def size(self) -> int | None:
        """Number of features, once there are any."""
        return None if self.message_up is None else math.prod(self.message_up.shape)

    @property
    def sends_down(self) -> type[Message] | None:
        """Data, if features can be turned back."""
        return Data if hasattr(self.extractor, "inverse_transform") else None

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for something that extracts no features, or not yet."""
        if not (callable(self.extractor) or hasattr(self.extractor, "transform")):
            raise InputError(
                f"{self.label}: extractor must be a torch.nn.Module, a fitted scikit-learn "
                f"transformer or a function from rows to rows, got {self.extractor!r:.60}"
            )
        if isinstance(self.extractor, BaseEstimator):
            try:
                check_is_fitted(self.extractor)
            except NotFittedError:
                kind = type(self.extractor).__name__
                raise InputError(
                    f"{self.label}: the {kind} is not fitted; call its fit first, or let "
                    f"Sklearn({kind}(...)) learn in the graph"
                ) from None

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Nothing to learn."""
        return {}

    def forward(self, inputs: list[Data]) -> Data:
        """The features; those of rows that not all parents saw say nothing."""
        array = join(inputs)
        try:
            found = self._extract(array)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise InputError(
                f"{self.label}: the extractor cannot take rows of shape {array.shape[1:]}: {error}"
            ) from error
        features = as_rows(found, f"{self.label}: what the extractor returned")
        if len(features) != len(array):
            raise InputError(
                f"{self.label}: the extractor must return as many rows as it gets, but made "
                f"{len(features)} of {len(array)}"
            )
        return Data(features, observed=all_observed(inputs))

    def backward(self, inputs: list[Data], prior: Message | None) -> list[Data | None]:
        """The rows that features stand for: the children's reconstruction, or else the own.

        Rows that were not seen are taken from the children's message of any kind.
        """
        if self.sends_down is None:
            return [None for _ in inputs]
        own = self.forward(inputs)
        used = np.zeros(own.n_rows, dtype=bool) if isinstance(prior, Data) else own.is_observed
        told = expected_rows(prior, own.n_rows, math.prod(own.shape))
        features = np.where(used[:, None], flat(own), told)
        parts = self._turned_back(features, [math.prod(message.shape) for message in inputs])
        return [Data(part.reshape(m.array.shape)) for part, m in zip(parts, inputs, strict=True)]

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Features turned back, for each parent."""
        if self.sends_down is None:
            return super().top_down(values, rng)
        return self._turned_back(values, [parent.size for parent in self.parents])

    def _extract(self, array: np.ndarray) -> np.ndarray:
        extractor = self.extractor
        if isinstance(extractor, nn.Module):
            return in_chunks(extractor, self._features_of, array, row_shape=array.shape[1:])
        if hasattr(extractor, "transform"):
            return extractor.transform(array.reshape(len(array), -1))
        return extractor(array)

    def _features_of(self, rows: Tensor) -> Tensor:
        features = self.extractor(rows)
        if not isinstance(features, Tensor):
            raise TypeError(f"it returned a {type(features).__name__}, not a tensor")
        return features

    def _turned_back(self, features: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
        """Features (N, n) as rows, cut into groups of columns of these sizes."""
        rows = ask(self.label, self.extractor.inverse_transform, features)
        return split_columns(rows, sizes)
