"""Counts of one or several modalities as sparse matrices, from messages or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from .. import processes
from ..errors import InputError
from ..messages import Categorical, Message
from ..rows import as_rows
from ._rows import flat

TOKENS_OF_PROBABILITIES = 50.0

Counts = ArrayLike | sparse.sparray | sparse.spmatrix


def counts_of(module: Any, messages: Sequence[Message]) -> list[sparse.csr_array]:
    """Each parent's counts, (N, W_m): class probabilities count as 50 tokens, unseen rows as 0.

    Raises
    ------
    InputError
        For negative counts.
    """
    found = []
    for message in messages:
        if isinstance(message, Categorical):
            rows = TOKENS_OF_PROBABILITIES * np.exp(message.log_prob)
        else:
            rows = flat(message)
        rows = np.where(message.seen[:, None], rows, 0.0)
        found.append(_checked(module, sparse.csr_array(rows, dtype=np.float64)))
    return found


def counts_in(module: Any, x: Counts | Sequence[Counts]) -> list[sparse.csr_array]:
    """The counts of an array or sparse matrix (N, W), or of each in a list of them.

    Raises
    ------
    InputError
        For negative counts, NaN, other shapes, or arrays of different numbers of rows.
    """
    several = isinstance(x, (list, tuple)) and all(sparse.issparse(a) or np.ndim(a) > 1 for a in x)
    found = [_as_sparse(module, part) for part in (x if several else [x])]
    rows = [part.shape[0] for part in found]
    if len(set(rows)) != 1:
        raise InputError(f"{module.label}: expected modalities of equally many rows, got {rows}")
    return found


def _as_sparse(module: Any, x: Counts) -> sparse.csr_array:
    if not sparse.issparse(x):
        rows = as_rows(x, module.label)
        return _checked(module, sparse.csr_array(rows.reshape(len(rows), -1), dtype=np.float64))
    if 0 in x.shape or x.dtype.kind not in "biuf" or not np.isfinite(x.data).all():
        raise InputError(
            f"{module.label}: expected finite counts of shape (N, W), got {x.shape} of {x.dtype}"
        )
    counts = sparse.csr_array(x, dtype=np.float64, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return _checked(module, counts)


def _checked(module: Any, counts: sparse.csr_array) -> sparse.csr_array:
    if counts.nnz and counts.data.min() < 0:
        row = np.searchsorted(counts.indptr, counts.data.argmin(), side="right") - 1
        raise InputError(
            f"{module.label}: expected counts >= 0, got {counts.data.min():g} in row {row}; "
            "MLDA takes histograms or class probabilities"
        )
    return counts


def with_tokens(counts: sparse.csr_array, n_tokens: float | None) -> sparse.csr_array:
    """The same relative frequencies with `n_tokens` tokens a row; None: as they are."""
    if n_tokens is None:
        return counts
    total = counts.sum(axis=1)
    factor = np.divide(n_tokens, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_array(sparse.diags_array(factor) @ counts)


def mean_tokens(counts: sparse.csr_array) -> float:
    """Mean number of tokens of the rows that have any, of all processes; 0 if none has."""
    tokens = counts.sum(axis=1)
    return float(processes.total(tokens.sum()) / max(processes.total((tokens > 0).sum()), 1))
