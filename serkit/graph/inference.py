"""Uses of a trained graph: recognition of new rows, reconstruction, and sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import GraphError, InputError
from ..markup import element, fragment, table
from ..messages import Categorical, Data, Gaussian, Message, Mixture, product
from ..module import Module, Node, Posterior, check_rows, posterior_of, samples_of
from ..observation import Observation
from ..options import RandomState, seed_of

if TYPE_CHECKING:
    import pandas

_TITLES = {"log_prob": "classes"}
Kind = TypeVar("Kind", bound=Message)
Names = dict[str, Node]  # parents before children
MessagesUp = dict[Node, Message | None]


@dataclass(frozen=True, repr=False)
class Prediction:
    """What a graph infers of new rows: latents and class probabilities.

    Attributes
    ----------
    messages : dict of str to Message
        The message up of each module; class probabilities times the messages of its children.
    class_names : dict of str to list
        Names of the classes of modules that have some, such as a classifier's.
    index : pandas.Index or None
        Of the frame that the rows came in, if they did.

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
    class_names: dict[str, list[Any]] = field(default_factory=dict)
    index: Any = None

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}: {message}" for name, message in self.messages.items())
        return f"Prediction({listed})"

    def _repr_html_(self) -> str:
        """For notebooks: the first rows, by module."""
        first = {name: message.first_rows() for name, message in self.messages.items()}
        head = [(name, column) for name, rows in first.items() for column in next(iter(rows), {})]
        n_shown = max(map(len, first.values()), default=0)
        lines = [
            (f"{n}", *(first[name][n][c] if n < len(first[name]) else "" for name, c in head))
            for n in range(n_shown)
        ]
        titles = [f"{name}: {_TITLES.get(column, column)}" for name, column in head]
        return fragment(element("b", repr(self)), table(("row", *titles), lines))

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
        """Number of the most probable class of each row, (N,), in a classifier's `classes_`."""
        return self._last(Categorical).log_prob.argmax(axis=1)

    def to_frame(self) -> pandas.DataFrame:
        """Latents and classes as a pandas frame, a row per row, with the index that the rows had.

        Of latents there are the columns ``vae_mean_0``, ... and ``vae_var_0``, ..., where "vae" is
        the module's name; of classes ``gmm_class``, the most probable one, and ``gmm_p_0``, ...,
        the probability of each, numbered unless they have names. Modules that group rows are left
        out.

        Raises
        ------
        ImportError
            Without pandas.

        Examples
        --------
        >>> import pandas as pd
        >>> from serkit import Graph, Observation
        >>> from serkit.modules import GMM
        >>> frame = pd.DataFrame({"size": [1.0, 1.5, 8.0, 8.5]}, index=["a", "b", "c", "d"])
        >>> gmm = GMM(2, means_init=[[1.0], [8.0]], random_state=0).connect(Observation(frame))
        >>> Graph(gmm).fit(1, verbose=False).predict(frame.iloc[1:]).to_frame()["gmm_class"]
        b    0
        c    1
        d    1
        Name: gmm_class, dtype: int64
        """
        try:
            import pandas
        except ImportError:
            text = "to_frame needs pandas: pip install '.[frames]' in serkit's checkout"
            raise ImportError(text) from None
        n_rows = next(iter(self.messages.values())).n_rows
        columns: dict[str, np.ndarray] = {}
        for name, message in self.messages.items():
            if message.n_rows == n_rows:
                columns |= _columns(name, message, self.class_names.get(name))
        return pandas.DataFrame(columns, index=self.index)

    def _last(self, kind: type[Kind]) -> Kind:
        messages = [message for message in self.messages.values() if isinstance(message, kind)]
        if not messages:
            raise GraphError(f"no module of this graph sends {kind.__name__} messages")
        return messages[-1]


def _columns(name: str, message: Message, classes: list[Any] | None) -> dict[str, np.ndarray]:
    """A message's columns for a frame, by their names; none of data."""
    if isinstance(message, Gaussian):
        moments = {"mean": message.mean, "var": message.var}
        return {
            f"{name}_{moment}_{number}": column
            for moment, values in moments.items()
            if values is not None
            for number, column in enumerate(values.T)
        }
    if not isinstance(message, Categorical):
        return {}
    log_prob = message.log_prob
    classes = [*range(log_prob.shape[1])] if classes is None else classes
    columns = {f"{name}_class": np.array(classes)[log_prob.argmax(axis=1)]}
    return columns | {f"{name}_p_{c}": np.exp(p) for c, p in zip(classes, log_prob.T, strict=True)}


def recognise(names: Names, rows: Sequence) -> Prediction:
    """Pass new rows (of each observation, or None) up, and the children's messages down again."""
    up, posteriors = _pass_up(names, rows)
    from_children = _pass_down(names, up, posteriors, to_data=False)
    messages = {}
    for name, node in names.items():
        message = up[node]
        if isinstance(message, Categorical):
            factors: list[Message] = [message]
            if message.observed is not None:  # which makes P(k) of rows that are missing
                factors.append(Categorical.uniform(*message.log_prob.shape))
            message = product([*factors, *from_children[node]])
        if message is not None:
            messages[name] = message
    class_names = {n: [*node.classes_] for n, node in names.items() if hasattr(node, "classes_")}
    index = next((values.index for values in rows if hasattr(values, "iloc")), None)
    return Prediction(messages, class_names, index)


def reconstruct(names: Names, rows: Sequence) -> dict[str, np.ndarray]:
    """Each observation's reconstructed rows after a pass up and down, by name."""
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


def posteriors_of(names: Names, rows: Sequence) -> dict[Module, Posterior]:
    """Each module's posterior of new rows, by what its parents and its children say of them."""
    up, posteriors = _pass_up(names, rows)
    from_children: dict[Node, list[Message]] = {node: [] for node in names.values()}
    for node in reversed([*posteriors]):
        if from_children[node]:
            heard = product(from_children[node])
            posteriors[node] = posterior_of(node, _inputs(node, up), heard)
        pairs = [*zip(node.parents, posteriors[node].down, strict=True)]
        down = node.read([message if isinstance(p, Module) else None for p, message in pairs])
        for parent, message in zip(node.parents, down, strict=True):
            if message is not None:
                from_children[parent].append(parent.translated(node, message))
    return posteriors


def _pass_up(names: Names, rows: Sequence) -> tuple[MessagesUp, dict[Module, Posterior]]:
    """Messages up of new rows, and each module's posterior without its children's messages."""
    up: MessagesUp = {**_new_rows(names, rows)}
    posteriors = {}
    for node in names.values():
        if isinstance(node, Module):
            inputs = _inputs(node, up)
            check_rows(node.parents, [message.n_rows for message in inputs])
            posteriors[node] = posterior_of(node, inputs)
            up[node] = posteriors[node].up
    return up, posteriors


def _pass_down(
    names: Names, up: MessagesUp, posteriors: dict[Module, Posterior], *, to_data: bool
) -> dict[Node, list[Message]]:
    """The messages of children to each node, the topmost first.

    Only those that are needed are made: messages to observations where `to_data`, and messages to
    modules where one of those below has classes, or `to_data`.
    """
    from_children: dict[Node, list[Message]] = {node: [] for node in names.values()}
    wanted: set[Node] = set()  # whose messages from children are needed
    for node in names.values():
        below = any(parent in wanted for parent in node.parents)
        if isinstance(up[node], Categorical) or below or to_data:
            wanted.add(node)
    for node in reversed(names.values()):
        if not isinstance(node, Module) or not wanted.intersection(node.parents):
            continue
        posterior = posteriors[node]
        if from_children[node]:
            posterior = posterior_of(node, _inputs(node, up), product(from_children[node]))
        pairs = zip(node.parents, posterior.down, strict=True)
        down = node.read([message if parent in wanted else None for parent, message in pairs])
        for parent, message in zip(node.parents, down, strict=True):
            if message is not None:
                from_children[parent].append(parent.translated(node, message))
    return from_children


def _inputs(module: Module, up: MessagesUp) -> list[Message]:
    """The parents' messages of new rows; an observation without any sends missing rows."""
    known = [up[parent] for parent in module.parents if up.get(parent) is not None]
    n_rows = next(m.n_rows for m in [*known, *up.values()] if m is not None)
    for parent in module.parents:
        if parent not in up and isinstance(parent, Observation):
            up[parent] = parent.missing_rows(n_rows)
    return [message for parent in module.parents if (message := up[parent]) is not None]


def _new_rows(names: Names, rows: Sequence) -> dict[Node, Data]:
    """New rows as messages of their observations, without those for which there are none."""
    observations = {n: node for n, node in names.items() if isinstance(node, Observation)}
    if len(rows) != len(observations):
        raise InputError(
            f"expected rows for {len(observations)} observations ({', '.join(observations)}), "
            f"got {len(rows)}"
        )
    pairs = zip(observations.items(), rows, strict=True)
    messages = {node: node.new_rows(values, name) for (name, node), values in pairs}
    known = {node: message for node, message in messages.items() if message is not None}
    if not known:
        raise InputError("every modality is missing (None); give rows for at least one")
    return known


def mean_rows(
    messages: Sequence[Message], shape: Sequence[int], n_rows: int | None = None
) -> np.ndarray:
    """The mean of messages down as the (first) rows of an observation, (n, *shape)."""
    rows = [_predicted_rows(message)[:n_rows] for message in messages]
    return np.mean(rows, axis=0).reshape(-1, *shape)


def _predicted_rows(message: Message) -> np.ndarray:
    """What a message down predicts of an observation's rows, (N, D)."""
    if isinstance(message, Mixture):
        message = message.expected()
    rows = message.array if isinstance(message, Data) else message.mean  # type: ignore[attr-defined]
    return rows.reshape(len(rows), -1)


def log_standard_normal(mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """E[log N(z; 0, I)] of z ~ N(mean, var), both (N, D), in nats per row: (N,)."""
    return -0.5 * (mean**2 + var + math.log(2 * math.pi)).sum(axis=1)


def generate(
    names: Names, leaf: Module, n_samples: int, component: int | None, random_state: RandomState
) -> dict[str, np.ndarray]:
    """Draw at `leaf` and go down through the decoders: data-space rows by observation."""
    seed = leaf.seed() if random_state is None else seed_of(random_state)
    rng = np.random.default_rng(seed if component is None else [seed, component])
    samples: dict[Node, list[np.ndarray]] = {node: [] for node in names.values()}
    rows = samples_of(leaf, n_samples, rng, component=component)
    rng = np.random.default_rng([seed, 1])
    for node in reversed(names.values()):
        if node is not leaf:
            if not isinstance(node, Module) or not samples[node]:
                continue
            rows = samples_of(node, n_samples, rng, values=np.mean(samples[node], axis=0))
        for parent, parent_rows in zip(node.parents, rows, strict=True):
            samples[parent].append(parent_rows)
    return {
        name: np.mean(samples[node], axis=0).reshape(n_samples, *node.row_shape)
        for name, node in names.items()
        if isinstance(node, Observation) and samples[node]
    }
