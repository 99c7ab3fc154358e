"""Ensembles: chains of modules that learn from different seeds, joined at the top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import GraphError, InputError
from ..metrics import stability
from ..module import Module, Node
from ..observation import Observation
from ..options import Function, RandomState, check_argument, in_words
from ..saving.format import public_class
from .graph import Graph
from .restarting import classifier_of

Build = Callable[[int], Graph | Module]


class Ensemble(Graph):
    """A graph of several chains under one `LabelAlignment`; see `ensemble`, which makes it.

    Trained, saved and used like any graph; ``Ensemble.load(path)`` reads a file of one.

    Parameters
    ----------
    *leaves : Module
        The topmost modules, a `LabelAlignment` among them or below them.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        One seed for all modules that have none, see `Graph`.

    Attributes
    ----------
    alignment : LabelAlignment
        The topmost one, which joins the chains.

    Raises
    ------
    GraphError
        If there is no `LabelAlignment`.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Ensemble, Observation
    >>> from serkit.modules import GMM, LabelAlignment
    >>> rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> seen = Observation(rows)
    >>> chains = [GMM(2, name=f"gmm{s}", random_state=s).connect(seen) for s in range(2)]
    >>> graph = Ensemble(LabelAlignment().connect(*chains)).fit(1, verbose=False)
    >>> graph.vote().shape, graph.stability_.tolist()
    ((60,), [1.0, 1.0])
    """

    def __init__(self, *leaves: Node, random_state: RandomState = None) -> None:
        super().__init__(*leaves, random_state=random_state)
        joining = [node for node in self.modules if isinstance(node, _label_alignment())]
        if not joining:
            raise GraphError("Ensemble() takes chains joined by a LabelAlignment; see ensemble()")
        self.alignment: Any = joining[-1]

    @property
    def chains(self) -> tuple[Node, ...]:
        """The topmost classifying module of each chain, in the order of the seeds."""
        return self.alignment.parents

    def vote(self) -> np.ndarray:
        """The class of each row, (N,) of int, that the chains find most probable in the mean.

        The mean is of what each chain says itself, its classes aligned; for new rows see
        `predict`, whose ``classes`` are by what the alignment sends up.

        Raises
        ------
        NotReadyError
            Before the chains have learnt.
        """
        return self.alignment.vote()

    @property
    def stability_(self) -> np.ndarray:
        """Mean adjusted Rand index of each chain's own classes with the other chains', (n,).

        It tells without labels which chain to trust, as long as they have not heard each other.

        Raises
        ------
        NotReadyError
            Before the chains have learnt.
        """
        messages = self.alignment.received_from_parents()
        return stability([message.log_prob.argmax(axis=1) for message in messages])


def ensemble(
    build: Build,
    seeds: Iterable[int],
    *,
    start: int = 5,
    message_weight: float | None = None,
    labels: ArrayLike | None = None,
) -> Ensemble:
    """Chains of different seeds that come to agree, as one graph (late consensus).

    The chains share nothing but data. Each learns on its own for `start` rounds, as it would alone;
    then the `LabelAlignment` that joins their topmost classifying modules tells each in its own
    numbers of classes what the others say. From the first round on it would only spread the
    mistakes of chains that have not settled.

    Parameters
    ----------
    build : callable
        From a seed to a new `Graph`, or its leaf: ``build(seed)``. Observations that hold the same
        rows become one, so that `Graph.predict` takes these once.
    seeds : iterable of int
        At least two.
    start, message_weight, labels
        See `serkit.modules.LabelAlignment`.

    Returns
    -------
    Ensemble
        Modules are named and numbered as in any graph: ``vae``, ``vae2``, ..., ``gmm``, ...

    Raises
    ------
    InputError
        For fewer than two seeds.
    GraphError
        If `build` returns something else, a chain without classes, or modules a second time.

    Examples
    --------
    >>> import numpy as np
    >>> import serkit as srk
    >>> from serkit.modules import GMM
    >>> rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> def build(seed):
    ...     return srk.Graph(GMM(2, random_state=seed).connect(srk.Observation(rows)))
    >>> graph = srk.ensemble(build, seeds=[0, 1, 2]).fit(6, verbose=False)
    >>> list(graph)
    ['observation', 'gmm', 'gmm2', 'gmm3', 'labelalignment']
    >>> graph.vote().shape, graph.stability_.tolist(), graph.predict(rows[:5]).classes.shape
    ((60,), [1.0, 1.0, 1.0], (5,))
    """
    check_argument("ensemble", "build", build, Function(of=("seed",)))
    if not isinstance(seeds, Iterable) or len(seeds := [*seeds]) < 2:
        got = in_words(seeds)
        raise InputError(f"ensemble: seeds must be at least two, as in range(4), got {got}")
    chains = [_chain(build, seed) for seed in seeds]
    modules = [node for chain in chains for node in chain.modules if isinstance(node, Module)]
    _check_distinct(modules)
    for chain in chains[1:]:
        _share_observations(chains[0].observations, chain.observations)
    alignment = _label_alignment()(start=start, message_weight=message_weight, labels=labels)
    alignment.connect(*(classifier_of(chain.modules) for chain in chains))
    return Ensemble(*modules, alignment)


def _label_alignment() -> Any:
    return public_class("serkit.modules.LabelAlignment")


def _chain(build: Build, seed: int) -> Graph:
    """The graph that is built from a seed, which sends class probabilities."""
    chain = build(seed)
    if not isinstance(chain, Graph | Module):
        raise GraphError(f"ensemble: build({seed}) must return a Graph or its leaf, got {chain!r}")
    chain = chain if isinstance(chain, Graph) else Graph(chain)
    if classifier_of(chain.modules) is None:
        raise GraphError(f"ensemble: no module of build({seed}) sends class probabilities up")
    return chain


def _check_distinct(modules: Sequence[Module]) -> None:
    """Raise GraphError if a module is there twice, and so in several chains."""
    twice = {module.label for module in modules if modules.count(module) > 1}
    if twice:
        raise GraphError(
            f"ensemble: build returned {', '.join(sorted(twice))} for several seeds; make new "
            "modules in it each time"
        )


def _share_observations(first: Sequence[Observation], others: Sequence[Observation]) -> None:
    """Let what is connected to an observation of the same rows as the first chain's be on that."""
    for kept, other in zip(first, others, strict=False):
        if kept is other or kept.arguments() != other.arguments():
            continue
        for child in other.children:
            child.parents = tuple(kept if node is other else node for node in child.parents)
        kept.children, other.children = (*kept.children, *other.children), ()
