"""Using a trained graph: recognition of new rows, reconstruction, and draws from the top down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import GraphError, InputError
from ..messages import Categorical, Data, Gaussian, Message, Mixture, product
from ..module import Module, Node, Posterior, check_rows
from ..observation import Observation

Kind = TypeVar("Kind", bound=Message)


@dataclass(frozen=True)
class Prediction:
    """What a graph recognised in new rows.

    Attributes
    ----------
    messages : dict of str to Message
        By module: its message up, and for class probabilities that times its children's messages.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Graph, Observation
    >>> from serkit.modules import GMM
    >>> rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> gmm = GMM(2, random_state=0).connect(Observation(rows))
    >>> prediction = Graph(gmm).fit(1, verbose=False).predict(rows[:5])
    >>> prediction.probabilities.shape, len(set(prediction.classes.tolist()))
    ((5, 2), 1)
    """

    messages: dict[str, Message]

    def __repr__(self) -> str:
        kinds = [f"{n}: {type(m).__name__}{(m.n_rows, *m.shape)}" for n, m in self.messages.items()]
        return f"Prediction({', '.join(kinds)})"

    @property
    def latents(self) -> np.ndarray:
        """Latent means (N, D) of the topmost module that has latents."""
        return self._last(Gaussian).mean

    @property
    def probabilities(self) -> np.ndarray:
        """Class probabilities (N, K) of the topmost module that has classes."""
        return np.exp(self._last(Categorical).log_prob)

    @property
    def classes(self) -> np.ndarray:
        """Number of the most probable class of each row, (N,); of a classifier's `classes_`."""
        return self._last(Categorical).log_prob.argmax(axis=1)

    def _last(self, kind: type[Kind]) -> Kind:
        messages = [message for message in self.messages.values() if isinstance(message, kind)]
        if not messages:
            raise GraphError(f"no module of this graph sends {kind.__name__} messages")
        return messages[-1]


def recognise(names: dict[str, Node], rows: Sequence) -> Prediction:
    """Pass new rows up through the modules, and what the children say of classes down again.

    Parameters
    ----------
    names : dict of str to Node
        Parents before children.
    rows : sequence of array-like, Data or None
        New rows for each Observation, in order; None where a modality is missing in all rows.
    """
    up, posteriors = _pass_up(names, rows)
    from_children = _pass_down(names, up, posteriors, to_data=False)
    messages = {}
    for name, node in names.items():
        message = up[node]
        if isinstance(message, Categorical):
            n_rows, k = message.log_prob.shape
            factors = [message, *from_children[node]]
            if message.observed is not None:  # P(k) in rows that are missing
                factors.insert(1, Categorical.uniform(n_rows, k))
            message = product(factors)
        if message is not None:
            messages[name] = message
    return Prediction(messages)


def reconstruct(names: dict[str, Node], rows: Sequence) -> dict[str, np.ndarray]:
    """Each observation's rows after a pass up and down, by name."""
    up, posteriors = _pass_up(names, rows)
    from_children = _pass_down(names, up, posteriors, to_data=True)
    reconstructions = {
        name: mean_rows(from_children[node], node.row_shape)
        for name, node in names.items()
        if isinstance(node, Observation) and from_children[node]
    }
    if not reconstructions:
        raise GraphError("no module of this graph reconstructs an observation")
    return reconstructions


def _pass_up(
    names: dict[str, Node], rows: Sequence
) -> tuple[dict[Node, Message | None], dict[Module, Posterior]]:
    """Messages up, and what each module believes of the new rows before its children speak."""
    up: dict[Node, Message | None] = dict(_new_rows(names, rows))
    posteriors = {}
    for node in names.values():
        if isinstance(node, Module):
            inputs = _inputs(node, up)
            check_rows(node.parents, [message.n_rows for message in inputs])
            posteriors[node] = node.infer(inputs, None)
            up[node] = posteriors[node].up
    return up, posteriors


def _pass_down(
    names: dict[str, Node],
    up: dict[Node, Message | None],
    posteriors: dict[Module, Posterior],
    *,
    to_data: bool,
) -> dict[Node, list[Message]]:
    """What the children say to each node, the topmost first.

    Messages that only observations would get are made where `to_data` asks for them; what modules
    say of latents, where one of those below has classes or data are asked for.
    """
    from_children: dict[Node, list[Message]] = {node: [] for node in names.values()}
    wanted: set[Node] = set()  # nodes of whose rows somebody asks what their children say
    for node in names.values():
        below = any(parent in wanted for parent in node.parents)
        if isinstance(up[node], Categorical) or below or to_data:
            wanted.add(node)
    for node in reversed(names.values()):
        if not isinstance(node, Module) or not wanted.intersection(node.parents):
            continue
        heard = product(from_children[node])
        posterior = posteriors[node] if heard is None else node.infer(_inputs(node, up), heard)
        pairs = zip(node.parents, posterior.down, strict=True)
        down = node.read([message if parent in wanted else None for parent, message in pairs])
        for parent, message in zip(node.parents, down, strict=True):
            if message is not None:
                from_children[parent].append(message)
    return from_children


def _inputs(module: Module, up: dict[Node, Message | None]) -> list[Message]:
    """The parents' messages of new rows; no row is observed where an observation got none."""
    known = [up[parent] for parent in module.parents if up.get(parent) is not None]
    n_rows = next(m.n_rows for m in [*known, *up.values()] if m is not None)
    for parent in module.parents:
        if parent not in up and isinstance(parent, Observation):
            up[parent] = parent.missing_rows(n_rows)
    return [message for parent in module.parents if (message := up[parent]) is not None]


def _new_rows(names: dict[str, Node], rows: Sequence) -> dict[Node, Data]:
    """New rows as messages, by observation; of those for which there are any."""
    observations = {n: node for n, node in names.items() if isinstance(node, Observation)}
    if len(rows) != len(observations):
        raise InputError(
            f"expected rows for {len(observations)} observations ({', '.join(observations)}), "
            f"got {len(rows)}"
        )
    pairs = zip(observations.items(), rows, strict=True)
    messages = {node: node.new_rows(values, name) for (name, node), values in pairs}
    known: dict[Node, Data] = {node: m for node, m in messages.items() if m is not None}
    if not known:
        raise InputError("every modality is missing (None); give rows for at least one")
    return known


def mean_rows(
    messages: Sequence[Message], shape: Sequence[int], n_rows: int | None = None
) -> np.ndarray:
    """What messages down say of the (first) rows of an observation, on average: (n, *shape)."""
    rows = [predicted_rows(message)[:n_rows] for message in messages]
    return np.mean(rows, axis=0).reshape(-1, *shape)


def predicted_rows(message: Message) -> np.ndarray:
    """What a message down predicts of an observation's rows, (N, D)."""
    if isinstance(message, Mixture):
        message = message.expected()
    rows = message.array if isinstance(message, Data) else message.mean  # type: ignore[attr-defined]
    return rows.reshape(len(rows), -1)


def log_standard_normal(latents: Gaussian) -> float:
    """E[log N(z; 0, I)] of latents, nats per row, as a mean over rows; missing rows count 0."""
    variance = 0.0 if latents.var is None else latents.var
    terms = -0.5 * (latents.mean**2 + variance + math.log(2 * math.pi)).sum(axis=1)
    return float(np.where(latents.is_observed, terms, 0.0).mean())


def generate(
    names: dict[str, Node],
    leaf: Module,
    n_samples: int,
    component: int | None,
    random_state: int | None,
) -> dict[str, np.ndarray]:
    """Draw at `leaf` and go down through the decoders: data-space rows by observation."""
    seed = getattr(leaf, "seed_", 0) if random_state is None else random_state
    rng = np.random.default_rng(seed if component is None else [seed, component])
    reached: dict[Node, list[np.ndarray]] = {node: [] for node in names.values()}
    drawn = leaf.generate(n_samples, rng, component=component)
    rng = np.random.default_rng([seed, 1])
    for node in reversed(names.values()):
        if node is not leaf:
            if not isinstance(node, Module) or not reached[node]:
                continue
            drawn = node.generate(n_samples, rng, values=np.mean(reached[node], axis=0))
        for parent, rows in zip(node.parents, drawn, strict=True):
            reached[parent].append(rows)
    return {
        name: np.mean(reached[node], axis=0).reshape(n_samples, *node.row_shape)
        for name, node in names.items()
        if isinstance(node, Observation) and reached[node]
    }
