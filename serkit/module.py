"""Nodes of a graph and their connections; modules, the nodes that learn and pass messages.

A module states what it takes and sends, and fills in two methods: `Module.learn` trains it on its
parents' messages and on the product of its children's, `Module.infer` gives its `Posterior` for
any rows. `Module.update` calls both, and keeps the posterior for its neighbours.
"""

from __future__ import annotations

import inspect
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from numbers import Integral, Number, Real
from typing import Any, Concatenate, ParamSpec, Self, TypeAlias, TypeVar

import numpy as np
from numpy.random import Generator
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from . import processes
from .errors import GraphError, InputError, NotReadyError, SerkitError
from .markup import Markup, element, fragment, table
from .messages import Categorical, Data, Deferred, Message, product
from .metrics import scores_of
from .options import Kind, Name, Options, Seed, Several, check_argument, seed_of
from .reading import keep_names
from .stopping import AllOrNothing

Values: TypeAlias = np.ndarray | None  # rows for `Module.generate` to start from, if any
_ERRORS: Any = {
    "divide": "warn",
    "over": "warn",
    "under": "ignore",
    "invalid": "warn",
}  # NumPy's own
_REPORTABLE = (str, Number, np.generic, np.ndarray, list, tuple, dict, type(None))
WITHOUT_ROWS = (
    "it was loaded without its rows; to train on, give them: Graph.load(path, data=[rows])"
)


@dataclass(frozen=True)
class Posterior:
    """What a module infers of its rows: messages for its neighbours, and its term of the bound.

    Attributes
    ----------
    up : Message or None
        For the children. It never contains what they said.
    down : tuple of (Message or None)
        One for each parent, what the children said included. A `Deferred` stands for a message
        that takes long to make, and is made when it is read.
    bound : float, function without arguments, or None
        The module's term of the joint evidence lower bound, in nats per row, as a mean over this
        process's rows; None if it has none. A function is called when the term is asked for.
    classes : Categorical or None
        P(class | row) by all that is known, what the children said included, for scores and
        pictures. Unless given it is `up`, if that is `Categorical`.

    Examples
    --------
    >>> from serkit import Posterior
    >>> from serkit.messages import Categorical
    >>> Posterior(up=Categorical.uniform(5, 3)).clusters
    array([0, 0, 0, 0, 0])
    """

    up: Message | None = None
    down: tuple[Message | None, ...] = ()
    bound: float | Callable[[], float] | None = None
    classes: Categorical | None = None

    def __post_init__(self) -> None:
        if self.classes is None and isinstance(self.up, Categorical):
            object.__setattr__(self, "classes", self.up)

    @property
    def clusters(self) -> np.ndarray | None:
        """Number of the most probable class of each row, (N,); None without classes."""
        if self.classes is None:
            return None
        check_argument("Posterior", "classes", self.classes, Kind(Categorical))
        return self.classes.log_prob.argmax(axis=1)


@dataclass(frozen=True)
class Part:
    """A function that a module has learnt, such as an encoder, as a net for `Graph.export`.

    Attributes
    ----------
    name : str
        What it is, such as "encoder"; the file's name has it.
    net : torch.nn.Module
        In evaluation mode, on the CPU; from one tensor (B, ...) for each of `takes` to a tuple of
        float32 tensors (B, ...), one for each of `gives`. B may be any number.
    takes : tuple of (Node, str)
        Whose message goes in, and what of it: "array" of `Data`, "mean" or "var" of `Gaussian`,
        "probabilities" of `Categorical`. The module itself stands for its own message up.
    gives : tuple of str
        What comes out: of the message up, in the same words, or anything else.
    truth : callable
        What the module itself makes of as many arrays: a list of arrays, one for each of `gives`.
    exact : bool
        Whether float64 data go in as they are; otherwise as float32.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from serkit import Graph, Observation
    >>> from serkit.modules import GMM
    >>> rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> gmm = GMM(2, random_state=0).connect(Observation(rows)).update()
    >>> (part,) = gmm.parts()
    >>> part.name, part.gives
    ('posterior', ('probabilities',))
    >>> (probabilities,) = part.net(torch.tensor(rows))
    >>> bool(np.allclose(probabilities, gmm.predict_proba(rows), atol=1e-6))
    True
    """

    name: str
    net: nn.Module
    takes: tuple[tuple[Node, str], ...]
    gives: tuple[str, ...]
    truth: Callable[..., Sequence[np.ndarray]]
    exact: bool = False


def content_of(message: Message, name: str) -> np.ndarray:
    """What a `Part` takes or gives of a message: an attribute, or a Categorical's probabilities."""
    if name == "probabilities" and isinstance(message, Categorical):
        return np.exp(message.log_prob)
    return getattr(message, name)


def _check_stated(cls: type[Node]) -> None:
    """Raise GraphError unless a class states kinds of messages, or finds them in properties."""
    for name in ("takes_from_parents", "takes_from_children"):
        kinds = getattr(cls, name)
        several = isinstance(kinds, tuple) and all(map(_is_kind, kinds))
        if not several and not isinstance(kinds, property):
            raise GraphError(
                f"{cls.__name__}.{name} must be a tuple of kinds of messages, such as (Data,), got "
                f"{kinds!r:.60}"
            )
    for name in ("sends_up", "sends_down"):
        kind = getattr(cls, name, None)
        if not (kind is None or _is_kind(kind) or isinstance(kind, property)):
            raise GraphError(
                f"{cls.__name__}.{name} must be a kind of message, such as Data, or None, got "
                f"{kind!r:.60}"
            )


def _is_kind(value: Any) -> bool:
    """Whether a value is a class of messages."""
    return isinstance(value, type) and issubclass(value, Message)


class Node(Options, ABC):
    """Abstract base of what a graph is made of: connections, and the message sent up.

    Attributes
    ----------
    name : str or None
        How errors, tables and histories call it; the class's name if None.
    parents, children : tuple of Node
    """

    takes_from_parents: tuple[type[Message], ...] = ()
    takes_from_children: tuple[type[Message], ...] = ()
    sends_up: type[Message] | None = None
    learns_from_shares: bool = False  # whether it can where processes share the rows

    # The state of a new node; class attributes, so that constructors only store arguments.
    name: str | None = None
    parents: tuple[Node, ...] = ()
    children: tuple[Node, ...] = ()
    n_sent_: int = 0  # how often the message up has changed, by which others know whether it has

    @property
    @abstractmethod
    def message_up(self) -> Message | None:
        """The message last sent up, the same to every child; None before any."""

    @property
    def n_outputs(self) -> int | None:
        """Length of one row of the message up, where known before training."""
        return None

    def translated(self, child: Node, message: Message) -> Message:
        """A child's message in the terms of what is sent up now, if the child has not heard it yet.

        For modules that give what they send up another meaning; the same message elsewhere.
        """
        return message

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_stated(cls)

    # -- connections ---------------------------------------------------------------------------

    def connect(self, *parents: Node) -> Self:
        """Make `parents` the nodes this one takes its data from; returns self.

        A later call replaces the parents. Messages of this node and of those above it were about
        other rows, and are forgotten.

        Raises
        ------
        GraphError
            For no parents, something that is not a node, the same parent twice, or a cycle.

        Warns
        -----
        UserWarning
            If a parent that learns already has a child of this class: it will hear both.
        """
        _check_parents(self, parents)
        if parents != self.parents:
            for parent in parents:
                _warn_of_rivals(self, parent)
            self.disconnect()
            for parent in parents:
                parent.children = (*parent.children, self)
            self.parents = parents
        return self

    def disconnect(self) -> Self:
        """Cut the connections to all parents, which no longer hear this node; returns self."""
        for parent in self.parents:
            parent.children = tuple(child for child in parent.children if child is not self)
        self.parents = ()
        self._forget_messages()
        return self

    def ancestors(self) -> list[Node]:
        """Parents, their parents and so on, each once, those further away first."""
        paths = ((*parent.ancestors(), parent) for parent in self.parents)
        return list(dict.fromkeys(node for path in paths for node in path))

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments; if these change `n_outputs`, messages are forgotten."""
        before = repr(self.n_outputs)  # which may be odd until it is checked
        super().set_params(**params)
        if repr(self.n_outputs) != before:
            self._forget_messages()
        return self

    def _repr_html_(self) -> str:
        """For notebooks."""
        return fragment(box_of(self, self.name or type(self).__name__.lower()))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """For notebooks, which would take scikit-learn's."""
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _forget_messages(self) -> None:
        """Forget the messages of this node and of those above it."""
        for child in self.children:
            child._forget_messages()


@dataclass(eq=False, repr=False, kw_only=True)
class Arguments(Options):
    """Constructor arguments of every module; see `Module`."""

    name: Name = None
    random_state: Seed = None


class Module(Arguments, Node):
    """Abstract base of models that learn from their parents' and their children's messages.

    A subclass states which kinds of message it takes and sends, and fills in `learn` and `infer`;
    `update` does the rest. What is learnt is kept in attributes that end in an underscore, so that
    saving and loading work without further code.

    Parameters
    ----------
    name : str, optional
        How errors, tables and histories call this module; the class's name unless given.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        Seed. Update number u draws from a generator seeded with (random_state, u). From a generator
        the first update draws the seed; None takes a fresh one from the operating system.

    Attributes
    ----------
    parents, children : tuple of Node
    posterior : Posterior or None
        What the module inferred of its rows at its last update; None before any.
    history_ : list of dict
        What `learn` reported and the seconds it took, one entry per update.
    log_likelihoods_ : list
        ``log_likelihood_`` of each update, of modules that have one.

    Examples
    --------
    >>> import numpy as np
    >>> import serkit as srk
    >>> from serkit.messages import Data
    >>> class Centred(srk.Module):
    ...     sends_up = Data
    ...     def learn(self, inputs, from_children):
    ...         self.mean_ = inputs[0].array.mean(axis=0)
    ...         return {}
    ...     def infer(self, inputs, from_children):
    ...         return srk.Posterior(up=Data(inputs[0].array - self.mean_), down=(None,))
    >>> centred = Centred().connect(srk.Observation(np.arange(6.0).reshape(3, 2)))
    >>> centred.update().message_up.array.tolist()
    [[-2.0, -2.0], [0.0, 0.0], [2.0, 2.0]]
    """

    takes_from_parents: tuple[type[Message], ...] = (Data,)
    sends_down: type[Message] | None = None
    can_regroup: bool = False  # whether it fits anew to a `Categorical` that regroups its classes
    learns_classes: bool = False  # whether its updates learn anew what its parents' classes mean
    why_no_parts: str = "its class has no method parts()"  # see `parts`
    # What is learnt with one row per data row; `learn` replaces it, and never changes it in place.
    row_attributes: tuple[str, ...] = ()

    posterior: Posterior | None = None
    history_: Sequence[dict[str, Any]] = ()
    frozen: bool = False
    seed_: int  # see `seed`
    on_epoch: Callable[[Module, int, dict[str, float]], bool] | None = None
    heard_: tuple[int, ...] = ()  # the parents' `n_sent_` at the last of them
    learnt_from_: tuple[int, ...] = ()  # the same at the last that it learnt by

    # -- to be filled in by a subclass ---------------------------------------------------------

    @abstractmethod
    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Train on the parents' messages and the product of the children's.

        If it raises, `update` undoes what it has changed.

        Parameters
        ----------
        inputs : list of Message
            One for each parent.
        from_children : Message or None
            The product of the children's messages; None stands for the neutral one.

        Returns
        -------
        dict
            Numbers to report for this update, such as ``{"loss": 1.2}``.
        """

    @abstractmethod
    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """The posterior of any rows, of training or not, for the parameters of `learn`.

        Changes nothing in the module.
        """

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise if training cannot work; called before it, after `check_options`.

        Messages not yet sent are None; n_rows is the number of rows of all processes.
        """

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Draw what the parents might have sent: `n_samples` rows for each.

        Parameters
        ----------
        n_samples : int
        rng : np.random.Generator
        values : np.ndarray, shape (n_samples, ...), optional
            Rows of this module's own message up to start from, such as class probabilities; from
            its prior unless given.
        component : int, optional
            The cluster or class to draw from where no `values` are given.
        """
        raise GraphError(
            f"{self.label} cannot generate samples; give its class a method "
            "generate(n_samples, rng, values=None, component=None)"
        )

    def sends_down_to(self, parent: Node) -> type[Message] | None:
        """The kind of message sent down to a parent; `sends_down` unless overridden."""
        return self.sends_down

    def rows_sent(self, n_rows: int) -> int:
        """Number of rows of the message up for a number of rows of the parents' messages.

        The same unless overridden; `InputError` if the module cannot take as many.
        """
        return n_rows

    @property
    def templates(self) -> dict[str, Any]:
        """Estimators of which fitted copies will be learnt, by name; see `Graph.check`."""
        return {}

    @property
    def n_epochs(self) -> int | None:
        """Most epochs that the next update runs; None for modules that do not count them."""
        return None

    def parts(self) -> list[Part]:
        """What `Graph.export` writes of the module: the functions it has learnt, as nets.

        Unless overridden GraphError, which says why there are none.
        """
        raise GraphError(f"{self.label} cannot be exported: {self.why_no_parts}")

    def scores(self) -> dict[str, float]:
        """Scores of the last posterior's classes against the argument `labels`, if there is one."""
        labels = getattr(self, "labels", None)
        if labels is None or self.posterior is None or self.posterior.clusters is None:
            return {}
        return scores_of(labels, self.posterior.clusters)

    # -- exchange ------------------------------------------------------------------------------

    def update(self, children: Sequence[Node] | None = None) -> Self:
        """Learn from the neighbours' messages, then send new ones; returns self.

        Parameters
        ----------
        children : sequence of Node, optional
            The children whose messages count, as in a graph those that are in it; all unless given.

        Raises
        ------
        NotReadyError
            If nothing is connected, a parent has sent nothing yet, or the module is frozen
            before it has learnt anything.
        SerkitError
            Whatever `check`, `learn` and `infer` raise. The module, and the messages it has sent,
            are as before then, as they are after Ctrl-C.
        """
        several = Several(Kind(Node), or_none=True)
        check_argument(f"{self.label}.update", "children", children, several)
        inputs = self.received_from_parents()
        from_children = self.received_from_children(children)
        n_rows = inputs[0].n_rows
        if from_children is not None and from_children.n_rows != self.rows_sent(n_rows):
            raise InputError(
                f"{self.label}: its children sent messages for {from_children.n_rows} rows, its "
                f"parents for {n_rows}"
            )
        check_ready(self, inputs, int(processes.total(n_rows)))
        with AllOrNothing(self):
            if not self.frozen:
                start = time.perf_counter()
                with naming(self, "learn"):
                    report = self.learn(inputs, from_children)
                _check_report(self, report)
                self.record({**report, "seconds": time.perf_counter() - start})
                if hasattr(self, "log_likelihood_"):
                    before = getattr(self, "log_likelihoods_", [])
                    self.log_likelihoods_ = [*before, self.log_likelihood_]
                names = [getattr(parent, "feature_names_in_", []) for parent in self.parents]
                keep_names(self, np.concatenate(names) if all(map(len, names)) else None)
                self.learnt_from_ = self._heard_now()
                from_children = self.received_from_children(children)  # by the classes as they are
            posterior = posterior_of(self, inputs, from_children)
            with naming(self, "infer"):
                bound = bound_of(posterior)
            if not (self.frozen and self.is_current):  # else it sends up what it sent before
                self.n_sent_ += 1
            self.posterior = replace(posterior, bound=bound)
            self.heard_ = self._heard_now()
        return self

    @property
    def message_up(self) -> Message | None:
        """The message last sent up, the same to every child; None before any."""
        return None if self.posterior is None else self.posterior.up

    @property
    def messages_down(self) -> tuple[Message | None, ...]:
        """The messages last sent down, one per parent; () before any. Makes `Deferred` ones."""
        if self.posterior is None:
            return ()
        if any(isinstance(message, Deferred) for message in self.posterior.down):
            self.posterior = replace(self.posterior, down=self.read(self.posterior.down))
        return self.posterior.down

    def read(self, down: Sequence[Message | None]) -> tuple[Message | None, ...]:
        """Messages down, one per parent: as they are, or made now where `Deferred`."""
        deferred = {message for message in down if isinstance(message, Deferred)}  # once if shared
        made = {message: getattr(self, message.method)(message.values) for message in deferred}
        return tuple(made[m][i] if isinstance(m, Deferred) else m for i, m in enumerate(down))

    @property
    def is_current(self) -> bool:
        """Whether the last posterior is that of the messages which the parents sent last."""
        return self.posterior is not None and self.heard_ == self._heard_now()

    def _heard_now(self) -> tuple[int, ...]:
        return tuple(parent.n_sent_ for parent in self.parents)

    def record(self, report: dict[str, Any]) -> None:
        """Add an entry to the history, which counts as an update."""
        self.history_ = [*self.history_, report]

    def received_from_parents(self) -> list[Message]:
        """The parents' messages, if of kinds this module takes and of equally many rows."""
        if not self.parents:
            raise NotReadyError(
                f"{self.label} is not connected: call connect(parent) before update()"
            )
        messages = []
        for parent in self.parents:
            message = parent.message_up
            if message is None:
                remedy = "update that one first" if parent.parents else WITHOUT_ROWS
                raise NotReadyError(f"{self.label} got no message from {parent.label}: {remedy}")
            check_kind(parent, type(message), self.takes_from_parents, self)
            messages.append(message)
        check_rows(self.parents, [message.n_rows for message in messages])
        return messages

    def received_from_children(self, children: Sequence[Node] | None = None) -> Message | None:
        """The product of the last messages of the children (all unless given); None for none.

        Of rows that were added to the data since, they say nothing. A message that regroups classes
        is for one who learns and hears no other; else it does not count.
        """
        messages = []
        for child in self.children if children is None else children:
            is_old = isinstance(child, Module) and not (self.is_current and child.is_current)
            for message in messages_to(self, [child]):
                n_rows = self.rows_sent(self.received_from_parents()[0].n_rows) if is_old else 0
                messages.append(message.extended(n_rows) if message.n_rows < n_rows else message)
        if self.frozen or len(messages) > 1:
            messages = [m for m in messages if not (isinstance(m, Categorical) and m.regroups)]
        return product(messages)

    # -- state ---------------------------------------------------------------------------------

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments, see `Node.set_params`; a new generator gives a new seed."""
        super().set_params(**params)
        if isinstance(params.get("random_state"), Generator | np.random.RandomState):
            self.__dict__.pop("seed_", None)
        return self

    def freeze(self) -> Self:
        """Let later updates pass messages but learn nothing; returns self."""
        self.frozen = True
        return self

    def unfreeze(self) -> Self:
        """Let later updates learn again; returns self."""
        self.frozen = False
        return self

    def rng(self) -> Generator:
        """The generator of the next update, seeded by (seed, number of updates so far)."""
        return np.random.default_rng([self.seed(), len(self.history_)])

    def seed(self) -> int:
        """The seed of all that the module draws: `random_state`, or what that gave at first."""
        if isinstance(self.random_state, Integral):
            self.seed_ = int(self.random_state)
        elif not hasattr(self, "seed_"):
            self.seed_ = processes.of_first(seed_of(self.random_state))
        return self.seed_

    def get_state(self) -> dict[str, Any]:
        """What was learnt (attributes that end in an underscore), the posterior, whether frozen."""
        learnt = {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}
        return {**learnt, "posterior": self.posterior, "frozen": self.frozen}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` returned."""
        self.__dict__.update(state)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the callback of a training that is under way."""
        return {name: value for name, value in vars(self).items() if name != "on_epoch"}

    def _forget_messages(self) -> None:
        self.posterior = None
        super()._forget_messages()


def description_of(node: Node) -> dict[str, str]:
    """Class, messages up and down with their shapes, and state of a node, in words."""
    return {
        "class": type(node).__name__,
        "sends up": _shape_of(node.sends_up, node.message_up, node.n_outputs),
        "sends down": _sends_down(node),
        "state": _state(node),
    }


def _sends_down(node: Node) -> str:
    if not isinstance(node, Module) or not node.parents:
        return "-"
    message = node.posterior.down[0] if node.posterior is not None else None
    if isinstance(message, Deferred):  # like the parent's, and not to be made only for this
        message = node.parents[0].message_up
    return _shape_of(node.sends_down_to(node.parents[0]), message, None)


def _shape_of(kind: type[Message] | None, message: Message | None, n_outputs: int | None) -> str:
    if kind is None:
        return "-"
    if message is None:
        return f"{kind.__name__}(N, {n_outputs or '?'})"
    return f"{type(message).__name__}({', '.join(map(str, (message.n_rows, *message.shape)))})"


def _state(node: Node) -> str:
    if not isinstance(node, Module):
        return "data"
    n_updates = len(node.history_)
    plural = "" if n_updates == 1 else "s"
    state = f"learnt, {n_updates} update{plural}" if n_updates else "new"
    return f"{state}, frozen" if node.frozen else state


def box_of(node: Node, name: str, **more: str) -> Markup:
    """A node for notebooks: name, class and state, and all else at a click."""
    told = description_of(node)
    kind, state = told.pop("class"), told.pop("state")
    changed = node.arguments_in_words(changed=True)
    title = element("summary", element("b", name), f" {kind}", element("small", state))
    return element("details", title, table(("", ""), {**more, **told, **changed}.items()))


Learner = TypeVar("Learner", bound=Module)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def learns(
    method: Callable[Concatenate[Learner, Given], Result],
) -> Callable[Concatenate[Learner, Given], Result]:
    """Decorate a module's method that learns from arrays, such as `fit`, as `update` does it.

    A frozen module refuses, and if the method raises, the module is as before. The caller's
    ``np.seterr`` does not count.
    """

    @wraps(method)
    def whole(self: Learner, /, *args: Given.args, **options: Given.kwargs) -> Result:
        if self.frozen:
            raise NotReadyError(
                f"{self.label}.{method.__name__}: it is frozen and would learn nothing; call "
                "unfreeze() first"
            )
        with AllOrNothing(self), np.errstate(**_ERRORS):
            return method(self, *args, **options)

    return whole


@contextmanager
def naming(module: Module, method: str) -> Iterator[None]:
    """Have errors in a method of a module, which may be a user's, say whose it is.

    The caller's ``np.seterr`` does not count within, which has NumPy's own settings.
    """
    where = f"{module.label}.{method}"
    try:
        with np.errstate(**_ERRORS):
            yield
    except SerkitError as error:
        if module.label in str(error):
            raise
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        _, *arguments = inspect.signature(getattr(Module, method)).parameters  # but self
        error.add_note(f"raised in {where}, which is called with ({', '.join(arguments)})")
        raise


def posterior_of(
    module: Module, inputs: list[Message], from_children: Message | None = None
) -> Posterior:
    """What a module infers of any rows; GraphError if that is not what its class promises."""
    with naming(module, "infer"):
        posterior = module.infer(inputs, from_children)
    _check_posterior(module, posterior, inputs)
    return posterior


def bound_of(posterior: Posterior) -> float | None:
    """A posterior's term of the joint evidence lower bound, in nats per row; None for none."""
    bound = posterior.bound() if callable(posterior.bound) else posterior.bound
    if bound is None or (isinstance(bound, Real) and math.isfinite(bound)):
        return bound if bound is None else float(bound)
    raise GraphError(
        f"the bound is {_described(bound)}; return a finite number of nats per row, or None for no "
        "term of the joint objective"
    )


def samples_of(
    module: Module,
    n_samples: int,
    rng: Generator,
    values: Values = None,
    component: int | None = None,
) -> list[np.ndarray]:
    """What a module generates; GraphError unless that is `n_samples` rows for each parent."""
    with naming(module, "generate"):
        rows = module.generate(n_samples, rng, values=values, component=component)
    shapes = [(n_samples, parent.n_outputs) for parent in module.parents]
    is_sequence = isinstance(rows, list | tuple)
    if not (is_sequence and len(rows) == len(shapes) and all(map(_has_rows, rows, shapes))):
        found = f"a list of {[*map(np.shape, rows)]}" if is_sequence else _described(rows)
        raise GraphError(
            f"{module.label}.generate returned {found}; return a list with one array for each "
            f"parent, of shapes {shapes}"
        )
    return [*rows]


def _has_rows(array: Any, shape: tuple[int, int | None]) -> bool:
    """Whether an array has so many rows of so many values, any if that is None."""
    n_rows, n_values = shape
    if n_values is None:
        return np.shape(array)[:1] == (n_rows,)
    return np.size(array) == n_rows * n_values


def messages_to(node: Node, children: Sequence[Node] | None = None) -> list[Message]:
    """The messages that children (all unless given) last sent down to a node."""
    messages = []
    for child in node.children if children is None else children:
        down = child.messages_down if isinstance(child, Module) else ()
        for parent, message in zip(child.parents, down, strict=False):  # () before an update
            if parent is node and message is not None:
                check_kind(child, type(message), node.takes_from_children, node)
                messages.append(node.translated(child, message))
    return messages


def warn_unless_converged(module: Any, converged_before: bool) -> None:
    """Warn, as scikit-learn does, that a module's learning was stopped by its `max_iter`.

    In a graph, where the next update goes on from there, only if the last one had converged: not in
    every round.
    """
    goes_on = bool(module.parents)
    if np.all(module.converged_) or (goes_on and not converged_before) or not processes.is_first():
        return
    remedy = "raise max_iter or tol" + (", or update it again" if goes_on else "")
    warnings.warn(
        f"{module.label} stopped at max_iter={module.max_iter}, before an iteration changed its "
        f"likelihood by less than tol={module.tol:g}: it has not converged; {remedy}",
        ConvergenceWarning,
        stacklevel=4,
    )


# -- checks ----------------------------------------------------------------------------------------


def check_kind(
    sender: Node, kind: type[Message] | None, accepted: tuple[type[Message], ...], to: Node
) -> None:
    """Raise GraphError if `to` does not accept messages of `kind` from `sender`."""
    if kind is None or not issubclass(kind, accepted):
        messages = "no message" if kind is None else f"{kind.__name__} messages"
        wanted = " or ".join(k.__name__ for k in accepted) or "none"
        raise GraphError(f"{sender.label} sends {messages} to {to.label}, which takes {wanted}")


def check_rows(senders: Sequence[Node], numbers: Sequence[int]) -> None:
    """Raise InputError unless the senders' numbers of rows are equal."""
    if len(set(numbers)) > 1:
        sources = [source_of_rows(sender).label for sender in senders]
        listed = ", ".join(f"{s} has {n}" for s, n in zip(sources, numbers, strict=True))
        raise InputError(f"numbers of rows differ: {listed}; give each the same rows, in order")


def check_ready(module: Module, inputs: Sequence[Message | None], n_rows: int) -> None:
    """Raise what keeps a module from an update: its state, its options, its parents' messages."""
    if module.frozen and not module.history_:
        raise NotReadyError(
            f"{module.label} is frozen but has learnt nothing yet: update() it first, or unfreeze"
        )
    check_shares(module)
    module.check_options()
    with naming(module, "check"):
        module.check([*inputs], n_rows)


def check_shares(module: Module) -> None:
    """Raise GraphError where several processes share the rows and a module cannot learn so."""
    if processes.count() == 1:
        return
    shared = f"rows that {processes.count()} processes share"
    if _regroups(module):
        raise GraphError(
            f"{module.label} cannot put together {shared}: some of a group may be elsewhere; do "
            "so beforehand, or start the script without torchrun"
        )
    if not (module.learns_from_shares or module.frozen):
        raise GraphError(
            f"{module.label} cannot learn from {shared}; train it in one process, load and "
            "freeze it, or start the script without torchrun"
        )


def source_of_rows(node: Node) -> Node:
    """The node that decides on a node's number of rows: the data below, or what groups its rows."""
    while node.parents and not _regroups(node):
        node = node.parents[0]
    return node


def _regroups(node: Node) -> bool:
    """Whether a node sends another number of rows than it gets."""
    return isinstance(node, Module) and type(node).rows_sent is not Module.rows_sent


def _check_report(module: Module, report: Any) -> None:
    """Raise GraphError unless `learn` returned what a history can hold."""
    where = f"{module.label}.learn returned {_described(report)}"
    if not isinstance(report, dict):
        raise GraphError(f"{where}; return a dict of numbers to report, {{}} for none")
    for name, value in report.items():
        if not isinstance(name, str) or not isinstance(value, _REPORTABLE):
            raise GraphError(
                f"{where} with {name!r:.40}: {_described(value)}; name numbers to report by "
                'strings, as in {"loss": 1.2} (of a tensor: float(loss))'
            )


def _check_posterior(module: Module, posterior: Any, inputs: Sequence[Message]) -> None:
    """Raise GraphError unless `infer` returned the messages that the module's class promises."""
    where, n_rows = f"{module.label}.infer returned", inputs[0].n_rows
    if not isinstance(posterior, Posterior):
        raise GraphError(
            f"{where} {_described(posterior)}; return a serkit.Posterior(up=..., down=(...,))"
        )
    down, n_sent = posterior.down, module.rows_sent(n_rows)
    is_sequence = isinstance(down, list | tuple)
    if not is_sequence or len(down) != len(inputs):
        found = f"{len(down)} messages down" if is_sequence else f"down={_described(down)}"
        raise GraphError(
            f"{where} {found} for {len(inputs)} parents; return a tuple with one per parent (None "
            "for no message)"
        )
    _check_sent(where, "up", posterior.up, module.sends_up, n_sent, module.n_outputs)
    if posterior.up is None and module.sends_up is not None:
        raise GraphError(
            f"{where} up=None; return a {module.sends_up.__name__} message, or state sends_up = "
            "None"
        )
    if posterior.classes is not None:
        _check_sent(where, "of classes", posterior.classes, Categorical, n_sent)
    for parent, message, received in zip(module.parents, down, inputs, strict=False):
        if not isinstance(message, Deferred):
            kind, what = module.sends_down_to(parent), f"down to {parent.label}"
            alike = isinstance(received, Categorical) or not isinstance(message, Categorical)
            n_values = math.prod(received.factor_shape) if alike else None
            _check_sent(where, what, message, kind, n_rows, n_values)


def _check_sent(
    where: str,
    what: str,
    message: Any,
    kind: type[Message] | None,
    n_rows: int,
    n_values: int | None = None,
) -> None:
    """Raise GraphError for a message of another kind than stated, or of other numbers."""
    if message is None:
        return
    if kind is None or not isinstance(message, kind):
        stated = "None" if kind is None else f"a {kind.__name__}"
        raise GraphError(
            f"{where} {_described(message)} as its message {what}, where its class states "
            f"{stated}; return that, or state another kind in sends_up or sends_down"
        )
    n_found = math.prod(message.factor_shape)
    if message.n_rows != n_rows or n_values not in (None, n_found):
        width = "" if n_values is None else f" of {n_values} values"
        raise GraphError(
            f"{where} {message.n_rows} rows of {n_found} values as its message {what}; return "
            f"{n_rows} rows{width}, one for each that it gets"
        )


def _described(value: Any) -> str:
    """A value in a few words, for errors: None, or its type and, where it has one, its shape."""
    shape = getattr(value, "shape", None)
    kind = "None" if value is None else f"a {type(value).__name__}"
    if isinstance(value, list | tuple):
        return f"{kind} of {len(value)}"
    if shape:
        return kind if isinstance(value, Message) else f"{kind} of shape {tuple(shape)}"
    return f"{value!r:.40}" if isinstance(value, Number) else kind


def _check_parents(node: Node, parents: Sequence[Node]) -> None:
    """Raise GraphError if a node cannot be connected to some of the parents."""
    if not parents:
        raise GraphError(f"{node.label}.connect() needs at least one parent")
    for parent in parents:
        if not isinstance(parent, Node):
            raise GraphError(
                f"{node.label}.connect(): expected serkit modules, got a "
                f"{type(parent).__name__}; wrap arrays as serkit.Observation(array)"
            )
        if parent is node:
            raise GraphError(f"{node.label} cannot be connected to itself")
        if node in parent.ancestors():
            raise GraphError(
                f"connecting {node.label} to {parent.label} makes a cycle: "
                f"{parent.label} already gets messages from {node.label}"
            )
    if len(set(map(id, parents))) < len(parents):
        raise GraphError(f"{node.label}.connect(): the same parent is given twice")


def _warn_of_rivals(node: Node, parent: Node) -> None:
    """Warn if a parent that learns already has a child of the same class."""
    rivals = [c.label for c in parent.children if type(c) is type(node) and c is not node]
    if rivals and isinstance(parent, Module):
        warnings.warn(
            f"{parent.label} already has {', '.join(rivals)} connected to it and will hear "
            f"{node.label} too; if the new one replaces the old (a notebook cell run again), call "
            "disconnect() of the old one",
            stacklevel=3,
        )
