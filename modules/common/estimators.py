"""Modules as scikit-learn estimators: fits to arrays, and the columns that new rows must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from ... import processes
from ...arrays import as_rows
from ...errors import InputError
from ...messages import Data
from ...module import Module, Node, learns
from ...options import Number, check_argument

Rows: TypeAlias = np.ndarray | sparse.csr_array

_DECAY = 0.6  # between 0.5 and 1 the steps add up to infinity and their squares do not
_GRAPHS_OWN = ("n_sent_", "heard_", "learnt_from_")  # what neighbours in a graph know a module by


class ArrayEstimator(Module):
    """Abstract base of modules that learn from arrays too, as scikit-learn's estimators do."""

    @learns
    def fit(self, x: ArrayLike, y: None = None) -> Self:
        """Fit to an array x (N, ...) without a graph; returns self. `y` is ignored.

        Goes on from what was learnt before only if there is an argument `warm_start`, and it is
        True. New rows must then have as many columns as x, and the same names if x has any. Raises
        what an update raises, and changes nothing then.
        """
        rows = as_rows(x, f"{self.label}.fit")
        self.begin_fit(x, rows)
        share = Data(rows[processes.share(len(rows))], checked=False)
        self.check([share], len(rows))
        self.record(self.learn([share], None))
        return self

    def begin_fit(self, x: Any, rows: Rows) -> None:
        """Forget what was learnt, unless with `warm_start`, and keep the columns of x.

        Of a method that learns, which puts everything back if it fails (`serkit.module.learns`).
        """
        self.check_options()
        if not getattr(self, "warm_start", False):
            for name in [n for n in vars(self) if n.endswith("_") and n not in _GRAPHS_OWN]:
                del self.__dict__[name]
        check_columns(self.label, self, x, rows, reset=True)

    def update(self, children: Sequence[Node] | None = None) -> Self:
        """Learn from the neighbours' messages, then send new ones, see `serkit.Module.update`."""
        super().update(children)
        if not self.frozen:
            self.__dict__.pop("n_features_in_", None)  # of arrays
        return self

    def new_rows(self, x: ArrayLike, method: str) -> np.ndarray:
        """Rows that a method is given, checked: of the columns of those that `fit` was given."""
        rows = as_rows(x, f"{self.label}.{method}")
        check_columns(f"{self.label}.{method}", self, x, rows)
        return rows


def forget(module: Module, *names: str) -> None:
    """Drop attributes of what a module learnt before, and the columns of arrays."""
    for name in (*names, "n_features_in_", "feature_names_in_"):
        module.__dict__.pop(name, None)


def check_batches(module: Module, step_size: float | None, *of_fixed_rows: str) -> None:
    """Raise InputError for arguments that learning from batches has no use for."""
    for name in of_fixed_rows:
        if getattr(module, name) is not None:
            raise InputError(
                f"{module.label}: {name} belong to fixed rows, which batches are not; leave them "
                "out for partial_fit"
            )
    range_ = Number(above=0, at_most=1, or_none=True)
    check_argument(module.label, "step_size", step_size, range_)


def share_of_batch(n_batches: int, step_size: float | None) -> float:
    """What a batch counts for beside the t before it: (t + 1)^-0.6 unless given."""
    return (n_batches + 1) ** -_DECAY if step_size is None else step_size


def columns_of(label: str, x: Any, rows: Rows) -> dict[str, Any]:
    """Number and names of the columns of x, as attributes of a scikit-learn estimator."""
    fitted = BaseEstimator()
    check_columns(label, fitted, x, rows, reset=True)
    return vars(fitted)


def check_columns(
    label: str, estimator: BaseEstimator, x: Any, rows: Rows, *, reset: bool = False
) -> None:
    """Raise InputError unless x has the columns that an estimator was fitted to; reset keeps them.

    The names are x's, their number that of the values in each of its rows (N, ...).
    """
    flat = rows if rows.ndim == 2 else rows.reshape(rows.shape[0], -1)
    table = x if hasattr(x, "columns") else flat
    try:
        validate_data(estimator, table, reset=reset, skip_check_array=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{label}: {error}") from None
