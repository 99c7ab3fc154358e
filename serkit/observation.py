"""Observations: the nodes at the bottom of a graph, which hold the data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from . import processes
from .arrays import as_array, as_observed, as_rows, empty, finite_rows
from .errors import GraphError, InputError, NotReadyError
from .messages import Categorical, Data, Gaussian, Mixture
from .module import WITHOUT_ROWS, Node
from .options import Counts, Text, check_argument
from .reading import check_names, keep_names, names_in


class Observation(Node):
    """Rows of data at the bottom of a graph.

    Parameters
    ----------
    data : array-like, frame, torch.Tensor, or torch Dataset or DataLoader, shape (N, ...)
        Finite real numbers, a row or more. Images as (N, H, W), (N, C, H, W) or flat (N, D) with
        their `image_shape`; scale them to [0, 1] for a Bernoulli likelihood. A data set is read by
        index, of pairs the rows (`serkit.datasets.rows_and_labels` gives the labels too).
    observed : array-like of bool, shape (N,), optional
        False for rows in which this modality is missing, whatever values they hold (NaN, say).
        Such rows are inferred from the graph's other observations, and predicted by
        `Graph.reconstruct`.
    lengths : sequence of int, optional
        Numbers of rows of consecutive sequences, which add up to N: each stays in one process where
        several share the rows, as a Markov model needs it.
    image_shape : sequence of int, optional
        (H, W), (1, H, W) or (3, H, W) where flat rows are images, so that results show them as
        such; rows that have such a shape are images anyway.
    name : str, optional
        The name in errors and tables; the class's unless given.

    Attributes
    ----------
    n_rows : int
        Number of rows N of all processes.
    row_shape : tuple of int
    image_shape : tuple of int or None
        Shape of a row as an image; None for a table.
    share : slice
        Which rows this process holds, all N unless there are several (see `serkit.processes`).
    data : np.ndarray or None
        Those rows, as in `message_up`; None after `Graph.load` without data.
    observed : np.ndarray of bool or None
        Their mask; None where all are observed.
    feature_names_in_ : np.ndarray of str, shape (D,)
        The names of the columns, if the data are a frame whose names are strings. `Graph.predict`
        checks those of new rows.

    Raises
    ------
    InputError
        For NaN or infinity (the rows are named), no row, values that are not numbers, a mask that
        leaves no row, or fewer rows or sequences than processes.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Observation
    >>> Observation(np.zeros((100, 28, 28)), name="images")
    Observation 'images'(100 rows of (28, 28))
    """

    takes_from_children = (Data, Gaussian, Categorical, Mixture)
    sends_up = Data
    learns_from_shares = True
    data: np.ndarray | None
    observed: np.ndarray | None
    _message: Data | None

    def __init__(
        self,
        data: ArrayLike,
        *,
        observed: ArrayLike | None = None,
        lengths: Sequence[int] | None = None,
        image_shape: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name
        check_argument(type(self).__name__, "name", name, Text(or_none=True))
        array = as_array(data, self.label)
        self.n_rows, self.row_shape = array.shape[0], tuple(array.shape[1:])
        self.image_shape = _image_shape(self.row_shape, image_shape, self.label)
        self.lengths = lengths.tolist() if isinstance(lengths, np.ndarray) else lengths
        check_argument(self.label, "lengths", self.lengths, Counts(or_none=True))
        self.share = processes.share(self.n_rows, self.lengths)
        mask = as_observed(observed, self.n_rows, self.label)
        if mask is not None and not mask.any():
            raise InputError(f"{self.label}: observed is false in all {self.n_rows} rows")
        self.data = finite_rows(array, self.share, self.label, mask)
        self.observed = None if mask is None else mask[self.share]
        self._message = Data(self.data, observed=self.observed, checked=False)
        keep_names(self, names_in(data, self.label))

    def append(self, rows: ArrayLike, *, observed: ArrayLike | None = None) -> Self:
        """Add rows at the end, for data that grow between updates; returns self.

        Modules go on from what they have learnt. What they said before the rows were there says
        nothing of these. Other observations of the graph need as many rows, and arguments with an
        entry per row, such as `labels`, too: ``gmm.set_params(labels=...)``. With `lengths` the
        rows added are one sequence more.

        Parameters
        ----------
        rows : array-like or torch.Tensor, shape (M, ...)
            One row or more, of the shape of those that are there.
        observed : array-like of bool, shape (M,), optional
            As in the constructor.

        Raises
        ------
        InputError
            For rows of another shape, NaN or infinity, or where several processes share the rows.
        NotReadyError
            After `Graph.load` without data.

        Examples
        --------
        >>> from serkit import Observation
        >>> Observation([[1.0], [2.0]]).append([[3.0]])
        Observation(3 rows of (1,))
        """
        if self.data is None:
            raise NotReadyError(f"{self.label}: {WITHOUT_ROWS}")
        if processes.count() > 1:
            raise InputError(
                f"{self.label}: rows that {processes.count()} processes share cannot grow; make an "
                "Observation of all of them"
            )
        array = as_array(rows, self.label)
        check_names(self, rows, self.label)
        if array.shape[1:] != self.row_shape:
            raise InputError(
                f"{self.label}: expected rows of shape {self.row_shape}, as those that are there, "
                f"got {array.shape[1:]}"
            )
        n_added = array.shape[0]
        mask = as_observed(observed, n_added, self.label)
        added = finite_rows(array, slice(0, n_added), self.label, mask)
        shape = (self.n_rows + n_added, *self.row_shape)
        data = empty(shape, np.result_type(self.data, added), self.data, added)
        np.concatenate([self.data, added], out=data)
        data.flags.writeable = False
        if mask is not None or self.observed is not None:
            masks = [np.ones(self.n_rows, bool), np.ones(n_added, bool)]
            pairs = zip((self.observed, mask), masks, strict=True)
            self.observed = np.concatenate([m if m is not None else every for m, every in pairs])
        self.data, self.n_rows, self.share = data, len(data), slice(0, len(data))
        if self.lengths is not None:
            self.lengths = [*self.lengths, n_added]
        self._message = Data(self.data, observed=self.observed, checked=False)
        self.__dict__.pop("_fingerprint", None)
        return self

    @property
    def n_sent_(self) -> int:  # type: ignore[override]
        """Another number whenever the message up is another one: rows are only ever added."""
        return self.n_rows

    @classmethod
    def without_rows(
        cls,
        *,
        name: str | None,
        n_rows: int,
        row_shape: Sequence[int],
        lengths: Sequence[int] | None,
        fingerprint: str,
        feature_names: Sequence[str] | None = None,
        image_shape: Sequence[int] | None = None,
    ) -> Observation:
        """An observation whose rows are not at hand, as saved: enough to use, not to train on."""
        observation = cls.__new__(cls)
        observation.name, observation.n_rows, observation.lengths = name, n_rows, lengths
        observation.row_shape = tuple(row_shape)
        observation.image_shape = _image_shape(row_shape, image_shape, observation.label)
        observation.share = processes.share(n_rows, lengths)
        observation.data = observation.observed = observation._message = None
        observation._fingerprint = fingerprint
        if feature_names is not None:
            keep_names(observation, np.array(feature_names, dtype=object))
        return observation

    def __sklearn_clone__(self) -> Observation:
        """A copy that holds this process's rows, for `sklearn.base.clone`."""
        return type(self)(**self.get_params())

    def __repr__(self) -> str:
        return f"{self.label}({self.n_rows} rows of {self.row_shape})"

    @property
    def message_up(self) -> Data | None:
        """The rows; None if they were left behind by loading."""
        return self._message

    @property
    def n_outputs(self) -> int:
        """Number of values in a row."""
        return int(np.prod(self.row_shape))

    def connect(self, *parents: Node) -> Self:
        """An observation has no parents: always raises GraphError."""
        raise GraphError(f"{self.label} holds data and takes no parents")

    def update(self, children: Sequence[Node] | None = None) -> Self:
        """Do nothing, as there is nothing to learn, so that scripts may update every node."""
        return self

    def new_rows(self, rows: ArrayLike | Data | None, name: str) -> Data | None:
        """New rows as a message, if their shape is that of training; None for none.

        Raises
        ------
        InputError
            For rows of another shape, columns of other names, NaN or infinity.
        """
        if rows is None:
            return None
        message = rows if isinstance(rows, Data) else Data(as_rows(rows, name), checked=False)
        if message is not rows:
            check_names(self, rows, name)
        if message.shape != self.row_shape:
            is_alone = message.array.shape == self.row_shape
            raise InputError(
                f"{name}: expected rows of shape {self.row_shape}, as in training, got "
                f"{message.shape}{'; give one row alone as row[None]' if is_alone else ''}"
            )
        return message

    def as_images(self, rows: np.ndarray) -> np.ndarray:
        """Rows as images: (n, ...) -> (n, *image_shape)."""
        return rows.reshape(-1, *(self.image_shape or self.row_shape))

    def missing_rows(self, n_rows: int) -> Data:
        """A message of rows in all of which this modality is missing."""
        rows = np.zeros((n_rows, *self.row_shape), dtype=np.float32)
        return Data(rows, observed=np.zeros(n_rows, dtype=bool), checked=False)

    def arguments(self) -> dict[str, Any]:
        """What a saved graph holds: the arguments of `without_rows`."""
        names = getattr(self, "feature_names_in_", None)
        arguments = {
            "name": self.name,
            "n_rows": self.n_rows,
            "row_shape": list(self.row_shape),
            "lengths": self.lengths,
            "fingerprint": self.fingerprint(),
        }
        if names is not None:
            arguments["feature_names"] = names.tolist()
        if self.image_shape not in (None, self.row_shape):
            arguments["image_shape"] = list(self.image_shape)
        return arguments

    def fingerprint(self) -> str:
        """Sum of the SHA-256 of all numbered rows, by which a saved graph recognises its data.

        A sum, so that it is the same however the rows are shared among processes.
        """
        message = self._message
        if not hasattr(self, "_fingerprint") and message is not None:
            rows = zip(message.array, message.is_observed.tolist(), strict=True)
            digests = (
                hashlib.sha256((2 * number + is_observed).to_bytes(8) + row.tobytes()).digest()
                for number, (row, is_observed) in enumerate(rows, self.share.start)
            )
            share_sum = sum(map(int.from_bytes, digests))
            total = sum(processes.gather(np.array([share_sum], dtype=object)).tolist())
            self._fingerprint = f"{message.array.dtype}-{total % 2**256:064x}"
        return self._fingerprint


def _image_shape(
    row_shape: Sequence[int], image_shape: Sequence[int] | None, label: str
) -> tuple[int, ...] | None:
    """The shape of rows as images: as stated, or their own if it is one of images; or None."""
    check_argument(label, "image_shape", image_shape, Counts(or_none=True))
    shape = tuple(map(int, row_shape if image_shape is None else image_shape))
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))
    if image_shape is None:
        return shape if is_image else None
    if not is_image or math.prod(shape) != math.prod(row_shape):
        raise InputError(
            f"{label}: image_shape={shape} does not suit rows of shape {tuple(row_shape)}; "
            "expected (H, W), (1, H, W) or (3, H, W) of as many values"
        )
    return shape
