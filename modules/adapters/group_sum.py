"""Sums over groups of rows: the module between rows and the episodes they belong to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ...errors import GraphError, InputError, MessageError
from ...messages import Categorical, Data, Message
from ...module import Module, Node, Posterior, Values
from ...reading import array_in


@dataclass(eq=False, repr=False)
class GroupSum(Module):
    """Sum the rows of each group upward, and copy what is said of a group down to its rows.

    For rows that belong together, such as the images of one episode: a module above has one row
    per group, in the order in which the groups first appear, and as many labels. Of data it gets
    the sums; of class probabilities the expected counts ``sum_n P(k | n)``, a bag of words for a
    topic model (Blei, Ng and Jordan, 2003, "Latent Dirichlet allocation").

    Down, a `Categorical` message of a group is copied to each of its rows. Predicted counts
    (`Data`) become class probabilities, in place of the parent's own P(k); predicted sums of data
    are shared out equally. Nothing is learnt. What a topic model predicts of a group holds what
    the group's rows said: each hears itself again, the more so the smaller the group.

    Parameters
    ----------
    groups : array-like of shape (N,)
        The group of each row: numbers or names. Before `Graph.predict` of other rows, set theirs:
        ``group_sum.set_params(groups=...)``.
    name, random_state
        See `serkit.Module`. Nothing is random here.

    Examples
    --------
    >>> from serkit import Observation
    >>> from serkit.modules import GroupSum
    >>> rows = Observation([[1.0, 0.0], [2.0, 1.0], [0.0, 5.0]])
    >>> GroupSum(["a", "b", "a"]).connect(rows).update().message_up.array
    array([[1., 5.],
           [2., 1.]])
    """

    groups: ArrayLike

    takes_from_parents = (Data, Categorical)
    why_no_parts = "what it sends are sums over several rows"
    takes_from_children = (Data, Categorical)
    sends_up = Data

    @property
    def n_outputs(self) -> int | None:
        """Length of a parent's row, where it is known before training."""
        return self.parents[0].n_outputs if self.parents else None

    def sends_down_to(self, parent: Node) -> type[Message]:
        """`Data` to a parent that sends data, else `Categorical`."""
        return Data if parent.sends_up is Data else Categorical

    def rows_sent(self, n_rows: int) -> int:
        """Number of groups G."""
        return int(self._index(n_rows).max()) + 1

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise for several parents, or unless there is one group per row."""
        if len(inputs) > 1:
            raise GraphError(
                f"{self.label} takes one parent, got {len(inputs)}; give each one of its own"
            )
        self._index(n_rows)

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Nothing to learn."""
        return {}

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send sums (G, ...) or counts (G, K) up, and what is said of a group down to its rows.

        Rows that are missing add 0; a group is missing if all its rows are.
        """
        (message,) = inputs
        index, observed = self._index(message.n_rows), message.is_observed
        if isinstance(message, Categorical):
            rows = np.exp(message.log_prob) * observed[:, None]  # (N, K)
        else:
            rows = cast(Data, message).array  # (N, ...), 0 where missing
        present = sum_groups(observed, index) > 0  # (G,)
        up = Data(sum_groups(rows, index), observed=present, checked=False)
        down: Message | None = None
        if isinstance(from_children, Categorical):
            log_prob, is_prior = from_children.log_prob[index], from_children.is_prior
            down = Categorical(log_prob, is_prior=is_prior, checked=False)
        elif isinstance(from_children, Data) and isinstance(message, Categorical):
            log_prob = self._log_shares(from_children.array)[index]  # (N, K)
            down = Categorical(log_prob, is_prior=True, checked=False)
        elif isinstance(from_children, Data):
            down = Data(share_out(from_children.array, index, observed), checked=False)
        return Posterior(up, (down,))

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """From sums or counts (n, ...) one row of each group: its mean, or class probabilities."""
        if values is None:
            return super().generate(n_samples, rng, values, component)
        if self.parents[0].sends_up is Data:
            index = self._index(len(np.asarray(self.groups)))
            return [values * (index.max() + 1) / len(index)]
        return [np.exp(self._log_shares(values))]

    def _index(self, n_rows: int) -> np.ndarray:
        """Number of each row's group in the order of first appearance, (N,)."""
        groups = array_in(self.groups, f"{self.label}: groups")
        if groups.shape != (n_rows,):
            raise InputError(
                f"{self.label}: expected the group of each of {n_rows} rows, got groups of shape "
                f"{groups.shape}; for other rows, give theirs: set_params(groups=...)"
            )
        names, numbers = groups.tolist(), dict[Any, int]()
        for row, name in enumerate(names):
            if not isinstance(name, Hashable):
                raise InputError(
                    f"{self.label}: groups must be numbers or names, got {name!r:.60} in row {row}"
                )
            if name is None or type(name).__name__ == "NAType" or name != name:
                raise InputError(f"{self.label}: the group of row {row} is missing")
            numbers.setdefault(name, len(numbers))
        return np.array([numbers[name] for name in names])

    def _log_shares(self, counts: np.ndarray) -> np.ndarray:
        """Log of counts (G, K) as probabilities; equal where nothing is counted."""
        if counts.min() < 0:
            raise MessageError(
                f"{self.label}: its children predict negative counts (down to {counts.min():.3g}), "
                "which make no class probabilities; use a module of counts there, such as MLDA"
            )
        counts = np.where(counts.sum(axis=1, keepdims=True) > 0, counts, 1.0)
        with np.errstate(divide="ignore"):  # a count may be 0
            return np.log(counts / counts.sum(axis=1, keepdims=True))


def sum_groups(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sums of the rows of each group: (N, ...), (N,) -> (G, ...), float64."""
    sums = np.zeros((index.max() + 1, *rows.shape[1:]))
    np.add.at(sums, index, rows)
    return sums


def share_out(sums: np.ndarray, index: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Each row's share of its group's sum, which is of its observed rows, if any: (N, ...)."""
    n_observed, n_rows = sum_groups(observed, index), np.bincount(index)  # (G,)
    return (sums.T / np.where(n_observed > 0, n_observed, n_rows)).T[index]
