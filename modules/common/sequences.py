"""Sequences that rows belong to: by their lengths, or by a group per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ... import processes
from ...errors import InputError
from ...reading import array_in


@dataclass(frozen=True)
class Sequences:
    """Which rows follow which: the rows, sequence by sequence."""

    order: np.ndarray  # (N,) of int, the number of each row in the order of the sequences
    starts: np.ndarray  # (N,) of bool, which of that order are the first of a sequence

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of each row's sequence and of its step there, (N,) each, in that order."""
        numbers = np.cumsum(self.starts) - 1
        first = np.flatnonzero(self.starts)
        return numbers, np.arange(len(numbers)) - first[numbers]

    @property
    def last(self) -> np.ndarray:
        """Number of each sequence's last row."""
        return self.order[np.append(self.starts[1:], True)]

    def as_rows(self, values: np.ndarray) -> np.ndarray:
        """Values (N, ...) that stand in the order of the sequences, in that of the rows."""
        return values[np.argsort(self.order)]

    def padded(self, values: np.ndarray, n_steps: int = 1) -> np.ndarray:
        """Values (N, ...) of rows by sequence, (sequences, steps, ...), filled up with zeros.

        There are as many steps as the longest sequence has, and at least `n_steps`.
        """
        numbers, steps = self.places
        shape = (numbers[-1] + 1, max(steps.max() + 1, n_steps), *values.shape[1:])
        padded = np.zeros(shape, values.dtype)
        padded[numbers, steps] = values[self.order]
        return padded

    def unpadded(self, padded: np.ndarray) -> np.ndarray:
        """Back from (sequences, steps, ...) to the rows (N, ...)."""
        return self.as_rows(padded[self.places])


def sequences_of(
    label: str, lengths: ArrayLike | None, groups: ArrayLike | None, n_rows: int
) -> Sequences:
    """Sequences by lengths, those of all processes, or by a group per row; else one of all rows."""
    if lengths is not None and groups is not None:
        raise InputError(f"{label}: give lengths or groups, not both; set one to None")
    codes = np.zeros(n_rows, dtype=int)  # (N,), the number of each row's sequence
    if lengths is not None:
        numbers = _own_lengths(label, lengths, n_rows)
        codes = np.repeat(np.arange(len(numbers)), numbers)
    if groups is not None:
        codes = _group_codes(label, groups, n_rows)
    order = np.argsort(codes, kind="stable")
    return Sequences(order, np.diff(codes[order], prepend=-1) > 0)


def _own_lengths(label: str, lengths: ArrayLike, n_rows: int) -> np.ndarray:
    """Lengths of the sequences of all rows or of those that this process has, whichever fits."""
    numbers = array_in(lengths, f"{label}: lengths")
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers) or min(numbers) < 1:
        raise InputError(f"{label}: lengths must be a list of integers >= 1, got {lengths!r:.60}")
    numbers = numbers.astype(np.int64)
    total = int(numbers.sum())
    if total == n_rows:
        return numbers
    share, ends = processes.share(total, numbers.tolist()), np.cumsum([0, *numbers])
    if share.stop - share.start != n_rows:
        raise InputError(
            f"{label}: lengths add up to {total}, but there are {n_rows} rows; for other rows than "
            "in training call set_params(lengths=...) with theirs first"
        )
    return numbers[(ends[:-1] >= share.start) & (ends[1:] <= share.stop)]


def _group_codes(label: str, groups: ArrayLike, n_rows: int) -> np.ndarray:
    """Number of each row's group among the sorted groups, (N,)."""
    try:
        names = array_in(groups, f"{label}: groups")
        codes = np.unique(names, return_inverse=True)[1]
    except InputError:  # they were not saved
        raise
    except (TypeError, ValueError):
        raise InputError(
            f"{label}: groups must be all numbers or all strings, got {groups!r:.60}"
        ) from None
    if names.shape != (n_rows,):
        raise InputError(
            f"{label}: groups must hold one entry per row, got shape {names.shape} for {n_rows} "
            "rows; for other rows than in training call set_params(groups=...) with theirs first"
        )
    return codes
