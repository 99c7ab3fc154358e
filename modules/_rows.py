"""Rows of several parents set side by side, and cut apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..messages import Data, Message
from ._gaussians import Rows


def flat(message: Message) -> np.ndarray:
    """Data or latent means as rows (N, D)."""
    rows = message.array if isinstance(message, Data) else message.mean
    return rows.reshape(len(rows), -1)


def join(inputs: Sequence[Data]) -> np.ndarray:
    """One parent's rows in their own shape, (N, ...); several parents' flat, side by side."""
    if len(inputs) == 1:
        return inputs[0].array
    return np.concatenate([flat(message) for message in inputs], axis=1)


def split_columns(rows: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Flat rows cut into consecutive groups of `sizes` columns."""
    return np.split(rows.reshape(len(rows), -1), np.cumsum(sizes)[:-1], axis=1)


def stack(inputs: list[Message]) -> Rows:
    """The parents' rows side by side; variances of those that sent none are 0."""
    means = [flat(message).astype(np.float64, copy=False) for message in inputs]
    variances = [getattr(message, "var", None) for message in inputs]
    x = np.concatenate(means, axis=1)
    if all(v is None for v in variances):
        return Rows(x)
    known = [np.zeros_like(m) if v is None else v for m, v in zip(means, variances, strict=True)]
    return Rows(x, np.concatenate(known, axis=1, dtype=np.float64))
