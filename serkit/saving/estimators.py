"""scikit-learn's estimators, fitted or not, as bytes in the format of `skops`.

That is a zip of JSON and arrays. Only types that skops, or `_TRUSTED` here, knows to be harmless
are written and read: a file cannot name anything else to be imported or called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import InputError, SavedFileError

# Plain holders of numbers inside fitted neural nets, which skops has not listed yet.
_TRUSTED = [
    f"sklearn.neural_network._stochastic_optimizers.{name}"
    for name in ("AdamOptimizer", "SGDOptimizer")
]


class Unsupported(InputError):
    """A value that files have no form for."""


def is_foreign(value: Any) -> bool:
    """Whether a value is an estimator, and not one of serkit's."""
    return isinstance(value, BaseEstimator) and not type(value).__module__.startswith("serkit.")


def dump(estimator: BaseEstimator) -> np.ndarray:
    """The bytes of an estimator, (n,) of uint8; Unsupported unless all in it is harmless."""
    kind = type(estimator).__name__
    try:
        from skops import io
    except ImportError:
        raise Unsupported(
            f"a {kind}, which only skops can save: pip install 'serkit[estimators]'"
        ) from None
    try:
        dumped = io.dumps(estimator)
        unknown = sorted({*io.get_untrusted_types(data=dumped)} - {*_TRUSTED})
    except Exception as error:  # what a foreign object raises when it is taken apart varies
        raise Unsupported(f"a {kind}, of which skops can make no safe file ({error})") from None
    if unknown:
        raise Unsupported(
            f"a {kind}, of which skops can make no safe file (it holds {', '.join(unknown)})"
        )
    return np.frombuffer(dumped, dtype=np.uint8)


def load(dumped: np.ndarray) -> BaseEstimator:
    """The estimator whose bytes these are; SavedFileError unless all in it is harmless."""
    try:
        from skops import io
    except ImportError:
        raise SavedFileError(
            "it holds scikit-learn estimators, which are read by skops: "
            "pip install 'serkit[estimators]'"
        ) from None
    try:
        estimator = io.loads(dumped.tobytes(), trusted=_TRUSTED)
        if not isinstance(estimator, BaseEstimator):
            raise TypeError(f"it is a {type(estimator).__name__}")
        return estimator
    except Exception as error:  # a file made by others can be wrong in any way
        raise SavedFileError(
            f"it holds a scikit-learn estimator that cannot be read safely ({error}); save it "
            "again, with the versions of scikit-learn and skops that are installed here"
        ) from None
