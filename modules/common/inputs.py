"""What modules make of their parents' messages: rows side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ... import arrays
from ...messages import Data, Message


def flat(message: Message) -> np.ndarray:
    """Data or latent means as rows (N, D)."""
    rows = message.array if isinstance(message, Data) else message.mean
    return rows.reshape(len(rows), -1)


def all_observed(inputs: Sequence[Message]) -> np.ndarray | None:
    """Rows that every parent saw, (N,) of bool; None if they saw all."""
    seen = np.logical_and.reduce([message.is_observed for message in inputs])
    return None if seen.all() else seen


def any_observed(inputs: Sequence[Message]) -> np.ndarray | None:
    """Rows that at least one parent saw, (N,) of bool; None if all were."""
    seen = np.logical_or.reduce([message.is_observed for message in inputs])
    return None if seen.all() else seen


def join(inputs: Sequence[Data]) -> np.ndarray:
    """One parent's rows in their own shape, (N, ...); several parents' flat, side by side."""
    if len(inputs) == 1:
        return inputs[0].array
    return side_by_side([flat(message) for message in inputs])


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Columns of several arrays (N, .) in one; in a memory-mapped file if one of them is."""
    if len(parts) == 1:
        return parts[0]
    width = sum(part.shape[1] for part in parts)
    joined = arrays.empty((len(parts[0]), width), np.result_type(*parts), *parts)
    return np.concatenate(parts, axis=1, out=joined)


def split_columns(rows: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Flat rows cut into consecutive groups of `sizes` columns."""
    return np.split(rows.reshape(len(rows), -1), np.cumsum(sizes)[:-1], axis=1)
