"""Observation: the module at the bottom of a graph, which holds the data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .errors import GraphError, InputError, NotReadyError
from .messages import Categorical, Data, Gaussian, Message, Mixture
from .module import Module
from .rows import as_observed, as_rows


class Observation(Module):
    """Rows of data at the bottom of a graph.

    Parameters
    ----------
    data : array-like or torch.Tensor, shape (N, ...)
        At least two rows of finite real numbers. Images as (N, H, W), (N, C, H, W) or flat
        (N, D); scale them to [0, 1] for a Bernoulli likelihood.
    observed : array-like of bool, shape (N,), optional
        False for rows in which this modality is missing, whatever stands there (NaN, say). Such
        rows are inferred from the graph's other observations, and predicted by `Graph.reconstruct`.
    name : str, optional
        How errors and tables call it.

    Raises
    ------
    InputError
        For NaN or infinity (the rows are named), no or one row, values that are not numbers, or
        a mask that leaves no row.
    """

    accepts_forward = ()
    accepts_backward = (Data, Gaussian, Categorical, Mixture)
    forward_kind = Data

    def __init__(
        self, data: ArrayLike, *, observed: ArrayLike | None = None, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.observed = None if observed is None else as_observed(observed, len(data), self.label)
        if self.observed is not None and not self.observed.any():
            raise InputError(f"{self.label}: observed is false in all {len(data)} rows")
        self.data = as_rows(data, self.label, self.observed)
        if len(self.data) < 2:
            raise InputError(f"{self.label}: expected at least two rows, got {self.data.shape}")
        self.n_rows = len(self.data)
        self.row_shape = self.data.shape[1:]
        self.forward_message = Data(self.data, observed=self.observed)

    @classmethod
    def without_rows(
        cls, *, name: str | None, n_rows: int, row_shape: Sequence[int], fingerprint: str
    ) -> Observation:
        """What a saved graph keeps of an observation: enough to use it, not to train on."""
        observation = cls.__new__(cls)
        Module.__init__(observation, name=name)
        observation.data = observation.observed = None
        observation.n_rows = n_rows
        observation.row_shape = tuple(row_shape)
        observation._fingerprint = fingerprint
        return observation

    def __repr__(self) -> str:
        return f"{self.label}({self.n_rows} rows of {self.row_shape})"

    def arguments(self) -> dict[str, Any]:
        """Name, number and shape of rows, and a fingerprint of their values."""
        return {
            "name": self.name,
            "n_rows": self.n_rows,
            "row_shape": list(self.row_shape),
            "fingerprint": self.fingerprint(),
        }

    def fingerprint(self) -> str:
        """SHA-256 of the rows, by which a saved graph knows its data again."""
        if not hasattr(self, "_fingerprint"):
            rows = np.ascontiguousarray(self.data)
            digest = hashlib.sha256(str(rows.dtype).encode() + rows.data)
            digest.update(b"" if self.observed is None else self.observed.tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def check_rows(self, rows: ArrayLike | Data | None, name: str) -> Data | None:
        """New rows as a message, if they are like those of training; None for none.

        Raises
        ------
        InputError
            For rows of another shape, NaN or infinity.
        """
        if rows is None:
            return None
        message = rows if isinstance(rows, Data) else Data(as_rows(rows, name))
        if message.shape != self.row_shape:
            raise InputError(
                f"{name}: expected rows of shape {self.row_shape}, as in training, got "
                f"{message.shape}"
            )
        return message

    def unseen_rows(self, n_rows: int) -> Data:
        """The message of a modality that is missing in all rows."""
        rows = np.zeros((n_rows, *self.row_shape), dtype=np.float32)
        return Data(rows, observed=np.zeros(n_rows, dtype=bool))

    def get_state(self) -> dict[str, Any]:
        """Nothing is learnt, and the rows are not kept."""
        return {}

    @property
    def size(self) -> int:
        """Number of values in a row."""
        return int(np.prod(self.row_shape))

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise NotReadyError if the rows were left behind by loading."""
        if self.data is None:
            raise NotReadyError(f"{self.label}: {self.remedy_for_silence}")

    @property
    def remedy_for_silence(self) -> str:
        """What to do where there are no rows."""
        return (
            "it was loaded without its rows; to train on, give them: Graph.load(path, data=[rows])"
        )

    def connect(self, *parents: Module) -> Module:
        """An observation has no parents: always raises GraphError."""
        raise GraphError(f"{self.label} holds data and takes no parents")

    def update(self) -> Observation:
        """Nothing to learn; returns self, so that scripts may update every module."""
        return self

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Nothing to learn."""
        return {}

    def forward(self, inputs: list[Message]) -> Message | None:
        """The data."""
        return self.forward_message

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Message | None]:
        """No parents, no messages."""
        return []
