"""Rows of several parents set side by side, read block by block, and cut apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .. import processes, storage
from ..density import MixtureDensity
from ..messages import Data, Message
from ._missing import log_gaussians_of_seen


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to fit: x (N, D), their variances (N, D) where the sender is unsure, or None.

    With variances every sufficient statistic is an expectation over N(x_n, diag(variances_n)).
    `seen` (N, D) is false where a value is missing, None where none is. float32 rows stay float32:
    only blocks of them are converted. `origin` (D,) is what statistics are about, the mean of x
    unless given.
    """

    x: np.ndarray
    variances: np.ndarray | None = None
    seen: np.ndarray | None = None
    origin: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def n_columns(self) -> int:
        """Number of columns D."""
        return self.x.shape[1]

    def any_seen(self) -> np.ndarray | bool:
        """Rows of which anything was seen, (N,); True if all was of all."""
        return True if self.seen is None else self.seen.any(axis=1)

    def block(self, part: slice = slice(None)) -> np.ndarray:
        """Some of x, or all, in float64: (n, D)."""
        return self.x[part].astype(np.float64, copy=False)

    def mean(self, weight: np.ndarray | None = None) -> np.ndarray:
        """Mean of x over all processes, weighted if weights (N,) are given: (D,)."""
        weight = np.ones(len(self)) if weight is None else weight
        sums = (weight[part] @ self.block(part) for part in storage.blocks(self.x))
        own = sum(sums, np.zeros(self.n_columns))
        return processes.total(own) / processes.total(weight.sum())

    @cached_property
    def centre(self) -> np.ndarray:
        """What is subtracted from x before sums are taken, (D,)."""
        return self.mean() if self.origin is None else self.origin

    @cached_property
    def reach(self) -> np.ndarray:
        """How far x gets from its centre in each column, (D,)."""
        if not len(self):
            return np.zeros(self.n_columns)
        ends = self.x.max(axis=0) - self.centre, self.centre - self.x.min(axis=0)
        return np.maximum(*ends)

    def log_gaussians(self, density: MixtureDensity, part: slice = slice(None)) -> np.ndarray:
        """Log density of what was seen of some rows under each component, (n, K)."""
        variances = None if self.variances is None else self.variances[part]
        seen = None if self.seen is None else self.seen[part]
        return log_gaussians_of_seen(self.block(part), density, variances, seen)


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
    return side_by_side([flat(message) for message in inputs])


def side_by_side(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Columns of several arrays (N, .) in one; in a memory-mapped file if one of them is."""
    if len(parts) == 1:
        return parts[0]
    width = sum(part.shape[1] for part in parts)
    joined = storage.empty((len(parts[0]), width), np.result_type(*parts), *parts)
    return np.concatenate(parts, axis=1, out=joined)


def split_columns(rows: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """Flat rows cut into consecutive groups of `sizes` columns."""
    return np.split(rows.reshape(len(rows), -1), np.cumsum(sizes)[:-1], axis=1)


def stack(inputs: list[Message]) -> Rows:
    """The parents' rows side by side; variances of those that sent none are 0."""
    means = [flat(message) for message in inputs]
    given = [getattr(message, "var", None) for message in inputs]
    x, variances = side_by_side(means), None
    if any(v is not None for v in given):
        known = [np.zeros_like(m) if v is None else v for m, v in zip(means, given, strict=True)]
        variances = side_by_side(known)
    if all(message.observed is None for message in inputs):
        return Rows(x, variances)
    masks = [
        np.repeat(message.seen[:, None], m.shape[1], 1)
        for message, m in zip(inputs, means, strict=True)
    ]
    return Rows(x, variances, np.concatenate(masks, axis=1))


def filled(rows: Rows) -> Rows:
    """The rows with what was not seen set to its column's mean (of all processes), variance 0."""
    if not processes.any_of(rows.seen is not None):
        return rows
    seen = np.ones(rows.x.shape, dtype=bool) if rows.seen is None else rows.seen
    sums = np.sum(rows.x, axis=0, dtype=np.float64, where=seen)
    centre = processes.total(sums) / np.maximum(processes.total(seen.sum(axis=0)), 1)
    if rows.seen is None:
        return rows
    x = storage.empty(rows.x.shape, rows.x.dtype, rows.x)
    for part in storage.blocks(x):
        x[part] = np.where(seen[part], rows.x[part], centre)
    variances = rows.variances
    if variances is not None:
        variances = storage.copy(variances)
        variances[~seen] = 0
    return replace(rows, x=x, variances=variances)
