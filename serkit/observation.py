"""Observation: the module at the bottom of a graph, which holds the data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import processes
from .arrays import as_array, as_observed, as_rows, finite_rows
from .errors import GraphError, InputError, NotReadyError
from .messages import Categorical, Data, Gaussian, Message, Mixture
from .module import Module


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
    lengths : sequence of int, optional
        Numbers of rows of consecutive sequences, which add up to N: each stays in one process where
        several share the rows, as a Markov model needs it.
    name : str, optional
        How errors and tables call it.

    Attributes
    ----------
    n_rows : int
        Number of rows N of all processes.
    part : slice
        The rows that this process holds, all N unless there are several (see
        `serkit.processes`).
    data : np.ndarray
        Those rows; so does `message_up`.

    Raises
    ------
    InputError
        For NaN or infinity (the rows are named), no or one row, values that are not numbers, a
        mask that leaves no row, or fewer rows or sequences than processes.
    """

    takes_from_parents = ()
    takes_from_children = (Data, Gaussian, Categorical, Mixture)
    sends_up = Data
    learns_from_shares = True

    def __init__(
        self,
        data: ArrayLike,
        *,
        observed: ArrayLike | None = None,
        lengths: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        array = as_array(data, self.label)
        if array.shape[0] < 2:
            raise InputError(f"{self.label}: expected at least two rows, got {array.shape}")
        self.n_rows, self.row_shape = array.shape[0], tuple(array.shape[1:])
        self.lengths = None if lengths is None else np.asarray(lengths).tolist()
        self.part = processes.share(self.n_rows, self.lengths)
        mask = as_observed(observed, self.n_rows, self.label)
        if mask is not None and not mask.any():
            raise InputError(f"{self.label}: observed is false in all {self.n_rows} rows")
        self.data = finite_rows(array, self.part, self.label, mask)
        self.observed = None if mask is None else mask[self.part]
        self.message_up = Data(self.data, observed=self.observed)

    @classmethod
    def without_rows(
        cls,
        *,
        name: str | None,
        n_rows: int,
        row_shape: Sequence[int],
        lengths: Sequence[int] | None,
        fingerprint: str,
    ) -> Observation:
        """What a saved graph keeps of an observation: enough to use it, not to train on."""
        observation = cls.__new__(cls)
        Module.__init__(observation, name=name)
        observation.data = observation.observed = None
        observation.n_rows, observation.lengths = n_rows, lengths
        observation.part = processes.share(n_rows, lengths)
        observation.row_shape = tuple(row_shape)
        observation._fingerprint = fingerprint
        return observation

    def __repr__(self) -> str:
        return f"{self.label}({self.n_rows} rows of {self.row_shape})"

    def arguments(self) -> dict[str, Any]:
        """Name, number and shape of rows, lengths, and a fingerprint of their values."""
        return {
            "name": self.name,
            "n_rows": self.n_rows,
            "row_shape": list(self.row_shape),
            "lengths": self.lengths,
            "fingerprint": self.fingerprint(),
        }

    def fingerprint(self) -> str:
        """Sum of the SHA-256 of all numbered rows, by which a saved graph knows its data again.

        A sum, so that it is the same however the rows are shared among processes.
        """
        if not hasattr(self, "_fingerprint"):
            seen, first = self.message_up.seen.tolist(), self.part.start
            digests = (
                hashlib.sha256((2 * number + s).to_bytes(8) + row.tobytes()).digest()
                for number, (row, s) in enumerate(zip(self.data, seen, strict=True), first)
            )
            own = sum(map(int.from_bytes, digests))
            whole = sum(processes.gather(np.array([own], dtype=object)).tolist())
            self._fingerprint = f"{self.data.dtype}-{whole % 2**256:064x}"
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
        return self.message_up

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Message | None]:
        """No parents, no messages."""
        return []
