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


def all_seen(inputs: Sequence[Message]) -> np.ndarray | None:
    """Rows that every parent saw, (N,) of bool; None if they saw all."""
    seen = np.logical_and.reduce([message.seen for message in inputs])
    return None if seen.all() else seen


def any_seen(inputs: Sequence[Message]) -> np.ndarray | None:
    """Rows that at least one parent saw, (N,) of bool; None if all were."""
    seen = np.logical_or.reduce([message.seen for message in inputs])
    return None if seen.all() else seen


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
    given = [getattr(message, "var", None) for message in inputs]
    x, variances = np.concatenate(means, axis=1), None
    if any(v is not None for v in given):
        known = [np.zeros_like(m) if v is None else v for m, v in zip(means, given, strict=True)]
        variances = np.concatenate(known, axis=1, dtype=np.float64)
    if all(message.observed is None for message in inputs):
        return Rows(x, variances)
    masks = [
        np.repeat(message.seen[:, None], m.shape[1], 1)
        for message, m in zip(inputs, means, strict=True)
    ]
    seen = np.concatenate(masks, axis=1)  # (N, D)
    centre = x.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)  # unseen values are 0
    return Rows(
        np.where(seen, x, centre), None if variances is None else np.where(seen, variances, 0), seen
    )
