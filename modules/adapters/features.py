"""Features that something already trained, or a function, takes out of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ...arrays import as_rows
from ...errors import InputError
from ...messages import Categorical, Data, Gaussian, Message, Mixture
from ...module import Part, Posterior
from ..common.inputs import all_observed, flat, join
from ..nets.architectures import Whole
from ..nets.device import in_blocks
from .sklearn import Invertible


@dataclass(eq=False, repr=False)
class Features(Invertible):
    """A frozen feature extractor: it learns nothing and listens to nobody.

    Sends what the extractor makes of its parents' rows up, and down, if it is a transformer with
    an `inverse_transform` and the parent takes `Data`, the rows that its children's message stands
    for, or else its own features.

    Parameters
    ----------
    extractor : torch.nn.Module, scikit-learn transformer or callable
        From rows (N, ...) to as many rows of features (N, ...). A net runs in evaluation mode,
        without gradients, on blocks of float32 rows, on its own device; a transformer must be
        fitted, and takes flat rows (N, D); any other callable gets the array at once (of several
        processes each its share). Several parents' rows are set side by side, flat.
    name, random_state
        See `serkit.Module`. Nothing is random here.

    Attributes
    ----------
    row_shapes_ : list of tuple of int
        Shapes of the parents' rows.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Observation
    >>> from serkit.modules import Features
    >>> rows = Observation([[1.0, 4.0], [9.0, 16.0]])
    >>> Features(np.sqrt).connect(rows).update().message_up.array
    array([[1., 2.],
           [3., 4.]])
    """

    extractor: nn.Module | BaseEstimator | Callable[[np.ndarray], np.ndarray]

    takes_from_parents = (Data,)
    why_no_parts = "its extractor is no torch.nn.Module"
    takes_from_children = (Data, Gaussian, Categorical, Mixture)
    sends_up = Data
    learns_from_shares = True

    def __sklearn_clone__(self) -> Self:
        """An unconnected copy for `sklearn.base.clone`, its extractor as trained as it was."""
        return type(self)(**self.get_params(deep=False))

    @property
    def n_outputs(self) -> int | None:
        """Number of features, once there are any."""
        return None if self.message_up is None else math.prod(self.message_up.shape)

    @property
    def inverse(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The extractor's `inverse_transform`, if it has one."""
        return getattr(self.extractor, "inverse_transform", None)

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

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Learn nothing but the shapes of the rows."""
        self.row_shapes_ = [message.shape for message in inputs]
        return {}

    def parts(self) -> list[Part]:
        """The extractor, if it is a net."""
        if not isinstance(self.extractor, nn.Module):
            return super().parts()

        def truth(*arrays: np.ndarray) -> list[np.ndarray]:
            return [self._features(join([Data(array, checked=False) for array in arrays]))]

        takes = tuple((parent, "array") for parent in self.parents)
        return [Part("features", Whole(self.extractor), takes, ("array",), truth)]

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send the features up, and the rows that they or the children's stand for down."""
        up = Data(self._features(join(inputs)), observed=all_observed(inputs), checked=False)
        return Posterior(up, self.messages_of(flat(up), up.observed, from_children))

    def _features(self, rows: np.ndarray) -> np.ndarray:
        """What the extractor makes of rows, checked: (N, ...) -> (N, ...)."""
        extractor: Any = self.extractor
        try:
            if isinstance(extractor, nn.Module):
                values = in_blocks(extractor, self._by_net, rows, row_shape=rows.shape[1:])
            elif hasattr(extractor, "transform"):
                values = extractor.transform(rows.reshape(len(rows), -1))
            else:
                values = extractor(rows)
        except Exception as error:  # of the extractor's own code
            raise InputError(
                f"{self.label}: the extractor cannot take rows of shape {rows.shape[1:]}: {error}"
            ) from error
        features = as_rows(values, f"{self.label}: what the extractor returned")
        if len(features) != len(rows):
            raise InputError(
                f"{self.label}: the extractor must return as many rows as it gets, but made "
                f"{len(features)} of {len(rows)}"
            )
        return features

    def _by_net(self, rows: Tensor) -> Tensor:
        features = cast(nn.Module, self.extractor)(rows)
        if not isinstance(features, Tensor):
            raise TypeError(f"it returned a {type(features).__name__}, not a tensor")
        return features
