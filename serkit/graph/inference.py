"""Using a trained graph: recognition of new rows, and generation from the top down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import GraphError, InputError
from ..messages import Categorical, Data, Gaussian, Message, Mixture, product
from ..module import Module, check_rows
from ..observation import Observation

Received = dict[int, list[Message]]


@dataclass(frozen=True)
class Prediction:
    """What a graph recognised in new rows.

    Attributes
    ----------
    messages : dict of str to Message
        By module: its message up, and for class probabilities that times its children's prior.
    """

    messages: dict[str, Message]

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

    def _last(self, kind: type[Message]) -> Message:
        found = [message for message in self.messages.values() if isinstance(message, kind)]
        if not found:
            raise GraphError(f"no module of this graph sends {kind.__name__} messages")
        return found[-1]


def recognise(names: dict[str, Module], rows: Sequence, *, reconstruct: bool = False) -> tuple:
    """Pass new rows up through the modules, and what the children say down again.

    Parameters
    ----------
    names : dict of str to Module
        Parents before children.
    rows : sequence of array-like, Data or None
        New rows for each Observation, in order; None where a modality is missing in all rows.
    reconstruct : bool
        Whether to go down to the observations too.

    Returns
    -------
    prediction : Prediction
    received : dict
        From a module's id to the messages its children sent it.
    """
    up = _up(names, rows)
    received: Received = {id(module): [] for module in names.values()}
    for module in reversed(names.values()):
        latent_parents = any(not isinstance(p, Observation) for p in module.parents)
        if module.parents and (latent_parents or reconstruct):
            inputs = [up[id(p)] for p in module.parents]
            sent = module.backward(inputs, product(received[id(module)]))
            for parent, message in zip(module.parents, sent, strict=True):
                if message is not None:
                    received[id(parent)].append(message)
    posterior = {}
    for name, module in names.items():
        message, told = up[id(module)], received[id(module)]
        if isinstance(message, Categorical) and message.observed is not None:
            told = [Categorical.uniform(message.n_rows, *message.shape), *told]  # P(k) if unseen
        if isinstance(message, Categorical):
            message = product([message, *told])
        posterior[name] = message
    return Prediction(posterior), received


def _up(names: dict[str, Module], rows: Sequence) -> dict[int, Message]:
    observations = {n: m for n, m in names.items() if isinstance(m, Observation)}
    if len(rows) != len(observations):
        raise InputError(
            f"expected rows for {len(observations)} observations ({', '.join(observations)}), "
            f"got {len(rows)}"
        )
    given = dict(zip(observations, rows, strict=True))
    messages = {id(observations[n]): observations[n].check_rows(r, n) for n, r in given.items()}
    up: dict[int, Message] = {key: m for key, m in messages.items() if m is not None}
    if not up:
        raise InputError("every modality is missing (None); give rows for at least one")
    n_rows = next(iter(up.values())).n_rows
    for module in names.values():
        if isinstance(module, Observation):
            continue
        beside = [up[id(p)].n_rows for p in module.parents if id(p) in up]
        for parent in module.parents:
            if id(parent) not in up:  # an observation whose rows are all missing
                up[id(parent)] = parent.unseen_rows(beside[0] if beside else n_rows)
        inputs = [up[id(parent)] for parent in module.parents]
        check_rows(module.parents, [message.n_rows for message in inputs])
        up[id(module)] = module.forward(inputs)
    return up


def mean_rows(
    messages: Sequence[Message], shape: Sequence[int], n_rows: int | None = None
) -> np.ndarray:
    """What messages down say of the (first) rows of an observation, on average: (n, *shape)."""
    rows = [_as_rows(message)[:n_rows] for message in messages]
    return np.mean(rows, axis=0).reshape(-1, *shape)


def _as_rows(message: Message) -> np.ndarray:
    """What a message down predicts of an observation's rows, (N, D)."""
    if isinstance(message, Mixture):
        message = message.expected()
    rows = message.array if isinstance(message, Data) else message.mean
    return rows.reshape(len(rows), -1)


def reconstruct(names: dict[str, Module], rows: Sequence) -> dict[str, np.ndarray]:
    """Each observation's rows after a pass up and down, by name."""
    _, received = recognise(names, rows, reconstruct=True)
    found = {
        name: mean_rows(received[id(module)], module.row_shape)
        for name, module in names.items()
        if isinstance(module, Observation) and received[id(module)]
    }
    if not found:
        raise GraphError("no module of this graph reconstructs an observation")
    return found


def generate(
    names: dict[str, Module],
    leaf: Module,
    n_samples: int,
    component: int | None,
    random_state: int | None,
) -> dict[str, np.ndarray]:
    """Sample at `leaf` and go down through the decoders: data-space rows by observation."""
    reached: dict[int, list[np.ndarray]] = {id(module): [] for module in names.values()}
    drawn = leaf.generate(n_samples, component, random_state)
    rng = np.random.default_rng([leaf.seed_ if random_state is None else random_state, 1])
    for parent, rows in zip(leaf.parents, drawn, strict=True):
        reached[id(parent)].append(rows)
    for module in reversed(names.values()):
        if module.parents and reached[id(module)]:
            mean = np.mean(reached[id(module)], axis=0)
            for parent, rows in zip(module.parents, module.top_down(mean, rng), strict=True):
                reached[id(parent)].append(rows)
    return {
        name: np.mean(reached[id(m)], axis=0).reshape(n_samples, *m.row_shape)
        for name, m in names.items()
        if isinstance(m, Observation) and reached[id(m)]
    }
