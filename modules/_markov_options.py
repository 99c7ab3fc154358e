"""MarkovModel's arguments: their checks, and what they make of given rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import processes
from ..errors import InputError
from ..module import source_of_rows
from ._chains import Chain, ChainPrior
from ._mixture_options import check_labels
from ._options import as_numbers, check_count, check_number, check_random_state


def check_options(module: Any, n_rows: int, n_classes: int | None) -> None:
    """Raise InputError for arguments that cannot work with these numbers of rows and classes."""
    check_count(module, "max_iter")
    check_number(module, "tol", at_least=0)
    check_random_state(module, module.random_state)
    check_labels(module, n_rows)
    sequences(module, n_rows)
    if processes.count() > 1 and module.lengths is None:
        raise InputError(
            f"{module.label}: {processes.count()} processes share whole sequences; sort the rows "
            "by sequence, and give lengths=... here and to the Observation"
        )
    if processes.count() > 1 and module.parents:
        source = source_of_rows(module)
        if source.part != processes.share(n_rows, module.lengths):
            raise InputError(
                f"{module.label}: {source.label} cuts its rows elsewhere than between the "
                "sequences that lengths tell of; give the same lengths=... to both"
            )
    for name, n_dims in (("transition", 2), ("initial", 1)):
        shape = None if n_classes is None else (n_classes,) * n_dims
        _check_prior(module, f"{name}_prior", shape)
        _check_init(module, f"{name}_init", shape)


def _check_prior(module: Any, name: str, shape: tuple[int, ...] | None) -> None:
    given = as_numbers(module, name)
    fits = given.ndim == 0 or shape is None or given.shape == shape
    if not fits or given.size == 0 or given.min() < 1:
        raise InputError(
            f"{module.label}: {name} must be a number >= 1 or {_words(shape)} of them, got "
            f"{getattr(module, name)!r:.60}"
        )


def _check_init(module: Any, name: str, shape: tuple[int, ...] | None) -> None:
    if getattr(module, name) is None or shape is None:
        return
    given = as_numbers(module, name)
    if given.shape != shape or given.min() < 0 or not np.allclose(given.sum(axis=-1), 1, atol=1e-3):
        raise InputError(
            f"{module.label}: {name} must be {_words(shape)} of probabilities that add up to 1, "
            f"each row by itself, got {getattr(module, name)!r:.60}"
        )


def _words(shape: tuple[int, ...] | None) -> str:
    return "an array" if shape is None else f"an array {shape}"


def make_start(module: Any, n_classes: int) -> Chain:
    """The chain that learning starts from: the arguments, normalised, or uniform."""
    arguments = (module.transition_init, (n_classes, n_classes)), (module.initial_init, n_classes)
    given = [np.asarray(np.ones(shape) if a is None else a, float) for a, shape in arguments]
    return Chain(*(p / p.sum(axis=-1, keepdims=True) for p in given))


def make_prior(module: Any, n_classes: int) -> ChainPrior:
    """The Dirichlet priors of the arguments."""
    return ChainPrior(
        np.broadcast_to(as_numbers(module, "transition_prior"), (n_classes, n_classes)),
        np.broadcast_to(as_numbers(module, "initial_prior"), (n_classes,)),
    )


def sequences(module: Any, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows sequence by sequence: their order (N,), and which of that order begin one (N,).

    Raises
    ------
    InputError
        If `lengths` or `groups` are not of so many rows, or both are given.
    """
    if module.lengths is not None and module.groups is not None:
        raise InputError(f"{module.label}: give lengths or groups, not both; set one to None")
    if module.groups is not None:
        codes = _group_codes(module, n_rows)
        order = np.argsort(codes, kind="stable")
        return order, np.diff(codes[order], prepend=-1) > 0
    starts = np.zeros(n_rows, dtype=bool)
    starts[np.cumsum([0, *_lengths(module, n_rows)])[:-1]] = True
    return np.arange(n_rows), starts


def _lengths(module: Any, n_rows: int) -> np.ndarray:
    if module.lengths is None:
        return np.array([n_rows])
    lengths = np.asarray(module.lengths)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths) or min(lengths) < 1:
        raise InputError(
            f"{module.label}: lengths must be a list of integers >= 1, got {module.lengths!r:.60}"
        )
    if lengths.sum() == n_rows:
        return lengths
    part, ends = processes.share(lengths.sum(), lengths), np.cumsum([0, *lengths])
    if part.stop - part.start != n_rows:
        raise InputError(
            f"{module.label}: lengths add up to {lengths.sum()}, but there are {n_rows} rows; for "
            "other rows than in training call set_params(lengths=...) with theirs first"
        )
    return lengths[(ends[:-1] >= part.start) & (ends[1:] <= part.stop)]


def _group_codes(module: Any, n_rows: int) -> np.ndarray:
    groups = np.asarray(module.groups)
    if groups.ndim != 1 or len(groups) != n_rows:
        raise InputError(
            f"{module.label}: groups must hold one entry a row, got shape {groups.shape} for "
            f"{n_rows} rows; for other rows than in training call set_params(groups=...) with "
            "theirs first"
        )
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError:
        raise InputError(
            f"{module.label}: groups must be all numbers or all strings, got {module.groups!r:.60}"
        ) from None


def as_evidence(log_likelihood: ArrayLike, what: str) -> np.ndarray:
    """Log p(row | k) as float64 (N, K); `what` is how error texts name it.

    Raises
    ------
    InputError
        For another number of axes, no rows, NaN or +inf.
    """
    try:
        evidence = np.asarray(log_likelihood, dtype=np.float64)
    except (TypeError, ValueError):
        evidence = np.array(np.nan)
    if evidence.ndim != 2 or evidence.size == 0 or not (evidence < np.inf).all():
        raise InputError(
            f"{what}: expected log-likelihoods (N, K), finite or -inf, got shape {evidence.shape}: "
            f"{log_likelihood!r:.60}"
        )
    return evidence
