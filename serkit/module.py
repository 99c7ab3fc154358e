"""What every module is: its contract, its connections, and the update that exchanges messages."""

from __future__ import annotations

import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from . import processes
from .errors import GraphError, InputError, NotReadyError
from .messages import Data, Message, Mixture, product


class Module(BaseEstimator, ABC):
    """A model that learns from its parents' and its children's messages.

    A subclass states which kinds of message it takes and sends, and implements `learn`,
    `forward` and `backward`; `update` does the rest. What is learnt is kept in attributes that
    end in an underscore, so that saving and loading work without further code.

    Parameters
    ----------
    name : str, optional
        How errors, tables and histories call this module; the class's name unless given.
    random_state : int, optional
        Seed. Update number u draws from a generator seeded with (random_state, u); None takes a
        fresh seed from the operating system.

    Attributes
    ----------
    parents : tuple of Module
    message_up : Message or None
        The message last sent up, the same to every child.
    messages_down : tuple of (Message or None)
        The messages last sent down, one a parent.
    history_ : list of dict
        What `learn` reported and the seconds it took, one entry an update.
    """

    takes_from_parents: tuple[type[Message], ...] = (Data,)
    takes_from_children: tuple[type[Message], ...] = ()
    sends_up: type[Message] | None = None
    sends_down: type[Message] | None = None
    learns_from_shares = False  # whether `learn` adds up over processes that share the rows
    row_attributes: tuple[str, ...] = ()  # what is learnt with a row a data row

    # The state of a new module; class attributes, so that constructors only store arguments.
    parents: tuple[Module, ...] = ()
    message_up: Message | None = None
    messages_down: tuple[Message | None, ...] = ()
    history_: Sequence[dict[str, Any]] = ()
    frozen = False
    on_epoch: Callable[[Module, dict[str, float]], bool] | None = None
    _children: tuple[weakref.ref[Module], ...] = ()

    def __init__(self, *, name: str | None = None, random_state: int | None = None) -> None:
        self.name = name
        self.random_state = random_state

    # -- to be filled in by a subclass ---------------------------------------------------------

    @abstractmethod
    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Train on the parents' messages and the product of the children's.

        Parameters
        ----------
        inputs : list of Message
            One message a parent.
        prior : Message or None
            The product of the children's messages; None stands for the neutral one.

        Returns
        -------
        dict
            Numbers to report for this update, such as ``{"loss": 1.2}``.
        """

    @abstractmethod
    def forward(self, inputs: list[Message]) -> Message | None:
        """The message up for any rows; it never contains what the children said."""

    @abstractmethod
    def backward(self, inputs: list[Message], prior: Message | None) -> list[Message | None]:
        """The messages down for any rows, one a parent."""

    def objective(self, inputs: list[Message], prior: Message | None) -> float:
        """The module's term of the joint objective (ELBO), in nats a row; 0 if it has none."""
        return 0.0

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise if training cannot work; called before any.

        Unsent messages are None; n_rows is the number of rows of all processes.
        """

    @property
    def size(self) -> int | None:
        """Length of one row of the message up, where known before training."""
        return None

    def sends_down_to(self, parent: Module) -> type[Message] | None:
        """The kind of message sent down to this parent; `sends_down` unless overridden."""
        return self.sends_down

    def rows_sent(self, n_rows: int) -> int:
        """Number of rows of the message up, given that of the parents'; the same unless overridden.

        Raises
        ------
        InputError
            If the module cannot take as many rows.
        """
        return n_rows

    @property
    def backward_size(self) -> int | None:
        """Number of classes K of a categorical message down, where it is fixed beforehand."""
        return None

    @property
    def n_epochs(self) -> int | None:
        """Epochs the coming update runs at most; None for modules that do not count them."""
        return None

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Draw what the parents might have sent: `n_samples` rows for each."""
        raise GraphError(f"{self.label} cannot generate samples")

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """From values of this module's message up to rows for each parent, in sampling."""
        raise GraphError(f"{self.label} cannot turn its messages back into its parents'")

    def scores(self) -> dict[str, float]:
        """Scores of the message last sent against known labels, if the module has any."""
        return {}

    def clusters(self) -> np.ndarray | None:
        """Cluster or class number of each row, (N,), by the message last sent; None without any."""
        sent = [message for message in self.messages_down if isinstance(message, Mixture)]
        return sent[0].log_prob.argmax(axis=1) if sent else None

    def artefacts(self) -> dict[str, np.ndarray]:
        """What was learnt, as arrays to be written to text files of these names."""
        return {}

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        return self.get_params(deep=False)

    # -- state ---------------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Everything learnt: attributes that end in an underscore, messages, whether frozen."""
        learnt = {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}
        messages = {
            "message_up": self.message_up,
            "messages_down": list(self.messages_down),
        }
        return {**learnt, **messages, "frozen": self.frozen}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` gave."""
        vars(self).update(state)
        self.messages_down = tuple(state.get("messages_down", ()))

    # -- connections ---------------------------------------------------------------------------

    def connect(self, *parents: Module) -> Module:
        """Make `parents` the modules this one takes its data from; returns self.

        A later call replaces the parents. A module is kept alive by its children and by whoever
        holds it, not by its parents: one that nobody holds any longer leaves the graph.

        Raises
        ------
        GraphError
            For no parents, something that is not a module, the same parent twice, or a cycle.
        """
        if not parents:
            raise GraphError(f"{self.label}.connect() needs at least one parent")
        for parent in parents:
            if not isinstance(parent, Module):
                raise GraphError(
                    f"{self.label}.connect(): expected serkit modules, got a "
                    f"{type(parent).__name__}; wrap arrays as serkit.Observation(array)"
                )
            if parent is self:
                raise GraphError(f"{self.label} cannot be connected to itself")
            if self in parent.ancestors():
                raise GraphError(
                    f"connecting {self.label} to {parent.label} makes a cycle: "
                    f"{parent.label} already gets messages from {self.label}"
                )
        if len(set(map(id, parents))) < len(parents):
            raise GraphError(f"{self.label}.connect(): the same parent is given twice")
        if parents != self.parents:
            for parent in self.parents:
                parent._children = tuple(c for c in parent._children if c() is not self)
            for parent in parents:
                parent._children += (weakref.ref(self),)
            self.parents = parents
            for module in (self, *self.descendants()):  # what they said was of other rows
                module.message_up, module.messages_down = None, ()
        return self

    @property
    def children(self) -> tuple[Module, ...]:
        """The modules connected to this one, in the order of their connection."""
        alive = (child() for child in self._children)
        return tuple(child for child in alive if child is not None)

    def order_children(self, children: Sequence[Module]) -> None:
        """Put the children, all of them already connected, into the given order."""
        self._children = tuple(weakref.ref(child) for child in children)

    def ancestors(self) -> list[Module]:
        """Parents, their parents and so on, each once."""
        found: list[Module] = []
        for parent in self.parents:
            for module in (*parent.ancestors(), parent):
                if module not in found:
                    found.append(module)
        return found

    def descendants(self) -> list[Module]:
        """Children, their children and so on, each once."""
        found: list[Module] = []
        for child in self.children:
            for module in (child, *child.descendants()):
                if module not in found:
                    found.append(module)
        return found

    # -- exchange ------------------------------------------------------------------------------

    @property
    def remedy_for_silence(self) -> str:
        """What to do where this module has sent no message yet."""
        return "update that one first"

    @property
    def label(self) -> str:
        """Class and name, as error texts use them."""
        kind = type(self).__name__
        return f"{kind} '{self.name}'" if self.name else kind

    def freeze(self) -> Module:
        """From now on only pass messages, learn nothing; returns self."""
        self.frozen = True
        return self

    def unfreeze(self) -> Module:
        """Learn again; returns self."""
        self.frozen = False
        return self

    def check_frozen(self) -> None:
        """Raise NotReadyError if the module is frozen before it has learnt anything."""
        if self.frozen and not self.history_:
            raise NotReadyError(
                f"{self.label} is frozen but has learnt nothing yet: update() it first, or unfreeze"
            )

    def check_shares(self) -> None:
        """Raise GraphError where several processes share the rows and the module cannot."""
        if processes.count() == 1:
            return
        shared = f"rows that {processes.count()} processes share"
        if type(self).rows_sent is not Module.rows_sent:
            raise GraphError(
                f"{self.label} cannot put together {shared}: some of a group may be elsewhere; do "
                "so beforehand, or start the script without torchrun"
            )
        if not (self.learns_from_shares or self.frozen):
            raise GraphError(
                f"{self.label} cannot learn from {shared}; train it in one process, load and "
                "freeze it, or start the script without torchrun"
            )

    def update(self) -> Module:
        """Learn from the neighbours' messages, then send new ones; returns self.

        Raises
        ------
        NotReadyError
            If nothing is connected, a parent has sent nothing yet, or the module is frozen
            before it has learnt anything.
        SerkitError
            Whatever `check` and `learn` raise; the messages sent before stay as they are.
        """
        inputs, prior = self.received_from_parents(), self.received_from_children()
        n_rows = inputs[0].n_rows
        if prior is not None and prior.n_rows != self.rows_sent(n_rows):
            raise InputError(
                f"{self.label}: its children sent messages for {prior.n_rows} rows, its parents "
                f"for {n_rows}"
            )
        self.check(inputs, int(processes.total(n_rows)))
        self.check_frozen()
        self.check_shares()
        if not self.frozen:
            start = time.perf_counter()
            report = self.learn(inputs, prior)
            self.record({**report, "seconds": time.perf_counter() - start})
        forward, backward = self.forward(inputs), tuple(self.backward(inputs, prior))
        if len(backward) != len(self.parents):
            raise GraphError(
                f"{self.label}.backward returned {len(backward)} messages for "
                f"{len(self.parents)} parents; return one a parent (None for no message)"
            )
        self.message_up, self.messages_down = forward, backward
        return self

    def record(self, report: dict[str, Any]) -> None:
        """Add an entry to the history, which counts as an update."""
        self.history_ = [*self.history_, report]

    def received_from_parents(self) -> list[Message]:
        """The parents' messages, checked to be of a kind this module takes and equal in rows."""
        if not self.parents:
            raise NotReadyError(
                f"{self.label} is not connected: call connect(parent) before update()"
            )
        for parent in self.parents:
            if parent.message_up is None:
                raise NotReadyError(
                    f"{self.label} got no message from {parent.label}: {parent.remedy_for_silence}"
                )
            check_kind(parent, type(parent.message_up), self.takes_from_parents, self)
        messages = [parent.message_up for parent in self.parents]
        check_rows(self.parents, [message.n_rows for message in messages])
        return messages

    def received_from_children(self) -> Message | None:
        """The product of the messages the children have sent so far; None if there are none."""
        return product(self.messages_from_children())

    def messages_from_children(self) -> list[Message]:
        """What the children last sent, checked to be of a kind this module takes."""
        received = []
        for child in self.children:
            for parent, message in zip(child.parents, child.messages_down, strict=False):
                if parent is self and message is not None:
                    check_kind(child, type(message), self.takes_from_children, self)
                    received.append(message)
        return received

    def rng(self) -> np.random.Generator:
        """The generator of the coming update: seeded by (random_state, number of updates)."""
        if self.random_state is not None:
            self.seed_ = int(self.random_state)
        elif not hasattr(self, "seed_"):
            self.seed_ = processes.of_first(int(np.random.SeedSequence().generate_state(1)[0]))
        return np.random.default_rng([self.seed_, len(self.history_)])


def check_kind(
    sender: Module, kind: type[Message] | None, accepted: tuple[type[Message], ...], to: Module
) -> None:
    """Raise GraphError if `to` cannot take messages of `kind` from `sender`."""
    if kind is None or not issubclass(kind, accepted):
        sent = "no message" if kind is None else f"{kind.__name__} messages"
        wanted = " or ".join(k.__name__ for k in accepted) or "none"
        raise GraphError(f"{sender.label} sends {sent} to {to.label}, which takes {wanted}")


def check_rows(senders: Sequence[Module], numbers: Sequence[int]) -> None:
    """Raise InputError unless all senders have equally many rows; names where they come from."""
    if len(set(numbers)) > 1:
        sources = [source_of_rows(sender).label for sender in senders]
        listed = ", ".join(f"{s} has {n}" for s, n in zip(sources, numbers, strict=True))
        raise InputError(f"numbers of rows differ: {listed}; give each the same rows, in order")


def source_of_rows(module: Module) -> Module:
    """The module below that decides on the number of rows: without parents, or one that groups."""
    while module.parents and type(module).rows_sent is Module.rows_sent:
        module = module.parents[0]
    return module
