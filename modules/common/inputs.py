"""What modules make of their parents' messages and of class numbers; checks of both."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d

from ... import arrays
from ...errors import InputError
from ...messages import Categorical, Data, Gaussian, Message
from ...options import as_numbers
from ...reading import Labels, array_in, labels_in


def flat(message: Message) -> np.ndarray:
    """Data or latent means as rows (N, D)."""
    rows = message.array if isinstance(message, Data) else cast(Gaussian, message).mean
    return rows.reshape(len(rows), -1)


def all_observed(inputs: Sequence[Message]) -> np.ndarray | None:
    """Rows that are observed in every message, (N,) of bool; None if all are."""
    observed = np.logical_and.reduce([message.is_observed for message in inputs])
    return None if observed.all() else observed


def any_observed(inputs: Sequence[Message]) -> np.ndarray | None:
    """Rows that are observed in at least one message, (N,) of bool; None if all are."""
    observed = np.logical_or.reduce([message.is_observed for message in inputs])
    return None if observed.all() else observed


def checked_classes(label: str, message: Message | None, n: int, name: str) -> Categorical | None:
    """What children say of the classes; InputError if not of `n` of them."""
    if message is not None and message.shape != (n,):
        raise InputError(
            f"{label}: its children sent probabilities of {message.shape[0]} classes for {name}={n}"
        )
    return cast(Categorical | None, message)


def log_class_prior(
    log_weights: np.ndarray, from_children: Categorical | None, block: slice = slice(None)
) -> np.ndarray:
    """What is known of some rows' classes without the rows, (1, K) or (n, K).

    The own log pi_k, which a prior from the children replaces in the rows it knows, and to which
    their evidence P(k | n) adds log P(k | n) K, so that a uniform message adds exactly nothing.
    """
    if from_children is None:
        return log_weights[None]
    if from_children.is_prior:
        log_prob, observed = from_children.log_prob[block], from_children.observed
        return (
            log_prob if observed is None else np.where(observed[block, None], log_prob, log_weights)
        )
    return log_weights + (from_children.log_prob[block] + np.log(from_children.shape[0]))


def join(inputs: Sequence[Message]) -> np.ndarray:
    """One parent's data in its own shape, (N, ...); several parents' flat, side by side."""
    if len(inputs) == 1:
        return cast(Data, inputs[0]).array
    return side_by_side([flat(message) for message in inputs])


def flat_rows(inputs: Sequence[Message]) -> np.ndarray:
    """All parents' data or latent means, flat and side by side: (N, D), float64."""
    return side_by_side([flat(message) for message in inputs]).astype(np.float64, copy=False)


def side_by_side(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Columns of several arrays (N, .) in one; in a memory-mapped file if one of them is."""
    if len(tables) == 1:
        return tables[0]
    width = sum(table.shape[1] for table in tables)
    joined = arrays.empty((len(tables[0]), width), np.result_type(*tables), *tables)
    return np.concatenate(tables, axis=1, out=joined)


def split_columns(rows: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Flat rows cut into consecutive groups of `sizes` columns."""
    return np.split(rows.reshape(len(rows), -1), np.cumsum(sizes)[:-1], axis=1)


def with_children(classes: Categorical, from_children: Message | None) -> Categorical:
    """Class probabilities times what the children say of the classes."""
    return classes if from_children is None else cast(Categorical, classes * from_children)


def check_labels(label: str, labels: ArrayLike | None, n_rows: int) -> None:
    """Raise InputError unless `labels` is None or one class, known or not, per row, (n_rows,)."""
    if labels is None:
        return
    n_labels = len(labels_in(labels, label).codes)
    if n_labels != n_rows:
        raise InputError(f"{label}: labels has {n_labels} entries for {n_rows} rows")


def checked_targets(
    label: str, y: ArrayLike | None, sample_weight: ArrayLike | None, n_rows: int
) -> tuple[Labels, np.ndarray]:
    """Classes and weights of rows, (n_rows,) each, the weight 0 where the class is not known.

    InputError for what scikit-learn refuses.
    """
    if y is None:
        raise InputError(f"{label} requires y to be passed, but the target y is None")
    y = array_in(y, label) if isinstance(y, torch.Tensor) else y
    if sample_weight is not None:
        sample_weight = as_numbers(label, "sample_weight", sample_weight)
        sample_weight = sample_weight if sample_weight.ndim else float(sample_weight)
    try:
        labels = labels_in(column_or_1d(y, warn=True) if getattr(y, "ndim", 1) == 2 else y, label)
        if labels.classes.dtype.kind == "S":  # which scikit-learn takes or not, by its version
            raise InputError(
                f"{label}: classes must be numbers, text or booleans, got bytes "
                f"{labels.classes[:2].tolist()!r:.60}; give them as text, y.astype(str)"
            )
        check_classification_targets(labels.classes)
        rows = np.empty((n_rows, 1))
        weight = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: of what is no array
        raise InputError(f"{label}: {error}") from None
    if labels.classes.dtype.kind in "mMO":  # which files could not hold
        raise InputError(
            f"{label}: classes must be numbers, text or booleans, got {labels.classes[:2]!r:.60}; "
            "give dates as text"
        )
    if len(labels.codes) != n_rows:
        raise InputError(f"{label}: y has {len(labels.codes)} entries for {n_rows} rows")
    weight = np.where(labels.known, weight, 0.0)
    if not weight.any():
        raise InputError(f"{label}: every sample_weight of a known class is 0")
    return labels, weight


def check_component(label: str, component: int, n_components: int, name: str = "component") -> None:
    """Raise InputError unless there is a component of that number; `name` is the argument's."""
    is_number = isinstance(component, Integral) and not isinstance(component, bool)
    if not is_number or component not in range(n_components):
        raise InputError(
            f"{label}: {name}={component!r:.60} does not exist; they are 0 to {n_components - 1}"
        )


def draw_classes(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a class for each row of probabilities (N, K): (N,) of int."""
    limits = probabilities.cumsum(axis=1)
    return (limits < rng.random((len(limits), 1)) * limits[:, -1:]).sum(axis=1)
