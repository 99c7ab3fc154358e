"""Several runs of one graph from different seeds, and the choice among them without labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import GraphError, InputError
from ..messages import Categorical
from ..metrics import stability
from ..module import Module, Node
from ..options import Choice, Number, called, check_argument
from ..saving.format import public_class

Choose = str | Callable[[Any], float] | None
Attributes = dict[Module, dict[str, Any]]


class Judge(NamedTuple):
    """How runs are judged: a graph is looked at after each run, and all runs are scored at the end.

    The largest score is the best.
    """

    look: Callable[[Any], Any]
    score: Callable[[Sequence[Any]], Iterable[float]] = list


def judge_for(choose: Choose, nodes: Sequence[Node], n_runs: int) -> Judge:
    """The judge of a graph's runs: unless chosen, the likelihood where there is a Markov chain.

    Raises
    ------
    InputError
        For an unknown word, or two runs judged by stability, which is equal for both.
    GraphError
        If stability has no classes to compare.
    """
    range_ = Choice("stability", "likelihood", None, or_function_of=("graph",))
    check_argument("Graph.fit", "choose", choose, range_)
    if callable(choose):
        return Judge(partial(_number_by, choose))
    if choose is None:
        chain: Any = public_class("serkit.modules.MarkovModel")
        choose = "likelihood" if any(isinstance(node, chain) for node in nodes) else "stability"
    if choose == "likelihood":
        return Judge(log_likelihood_of)
    if classifier_of(nodes) is None:
        raise GraphError(
            "Graph.fit: choose='stability' compares classes, and no module of this graph sends "
            "class probabilities up; give a function, choose=lambda graph: ..."
        )
    if n_runs == 2:
        raise InputError(
            "Graph.fit: restarts=2 with choose='stability' cannot choose, as two runs agree with "
            "each other equally; give at least 3 restarts, or another choose="
        )
    return Judge(clusters_of_top, stability)


def classifier_of(nodes: Sequence[Node]) -> Module | None:
    """The topmost module that sends class probabilities up; None if there is none."""
    senders = [n for n in nodes if isinstance(n, Module) and n.sends_up is Categorical]
    return senders[-1] if senders else None


def clusters_of_top(graph: Any) -> np.ndarray:
    """The number of each row's class by the topmost module that has classes, (N,)."""
    top = classifier_of(graph.modules)
    if top is None or top.posterior is None or top.posterior.clusters is None:
        raise GraphError(
            "Graph.fit: choose='stability' found no classes of the topmost module after a run; "
            "does the schedule update it?"
        )
    return top.posterior.clusters


def log_likelihood_of(graph: Any) -> float:
    """The log-likelihood, in nats per row, of the topmost module that has a curve of it."""
    curves = (getattr(node, "log_likelihood_", None) for node in reversed(graph.modules))
    for curve in curves:
        if isinstance(curve, np.ndarray):
            return float(curve[-1])
    raise GraphError(
        "Graph.fit: choose='likelihood' found no module with log_likelihood_; give another choose="
    )


def _number_by(choose: Callable[[Any], float], graph: Any) -> float:
    score = called("Graph.fit: choose", choose, graph)
    check_argument("Graph.fit", "what choose(graph) returns", score, Number())
    return float(score)


# -- runs ------------------------------------------------------------------------------------------


def checkpoints(path: str | os.PathLike | None, n_runs: int) -> list[Path | None]:
    """The file of each run: the path itself if there is only one."""
    if path is None:
        return [None] * n_runs
    names = [f"{os.fspath(path)}.run{number}" for number in range(n_runs)]
    return [Path(name) for name in (names if n_runs > 1 else [path])]


def check_untrained(modules: Sequence[Module], n_rounds: int) -> None:
    """Raise InputError unless every module is as constructed, or frozen."""
    learnt = [module.label for module in modules if module.history_ and not module.frozen]
    if learnt or n_rounds:
        raise InputError(
            f"Graph.fit: restarts= trains from the start, but {', '.join(learnt) or 'the graph'} "
            "has learnt already; make it anew, or freeze what must stay"
        )


def seed_of_run(seed: int, run: int) -> int:
    """The seed of a module in a run: its own in run 0, and one drawn from both in later ones.

    That is the first word of ``np.random.SeedSequence([seed, run])``, so that graphs of
    neighbouring seeds have no run in common.
    """
    return int(np.random.SeedSequence([seed, run]).generate_state(1)[0]) if run else seed


def seed_modules(modules: Sequence[Module], seed: int) -> None:
    """Give a seed to each module that has learnt nothing and has no `random_state` of its own.

    That of number j, parents before children, is the first word of ``np.random.SeedSequence(seed,
    spawn_key=(j,))``: no two modules of a graph have the same, nor one of those of `seed_of_run`.

    >>> from serkit.graph.restarting import seed_modules
    >>> from serkit.modules import GMM, VAE
    >>> modules = [VAE(2), GMM(3, random_state=7), GMM(3)]
    >>> seed_modules(modules, 0)
    >>> [module.seed() for module in modules]
    [3757552657, 7, 3241444873]
    """
    for number, module in enumerate(modules):
        if module.random_state is None and not module.history_:
            sequence = np.random.SeedSequence(seed, spawn_key=(number,))
            module.seed_ = int(sequence.generate_state(1)[0])


@contextmanager
def seeds_of_run(modules: Sequence[Module], run: int) -> Iterator[None]:
    """Modules with the seeds of a run, and with the arguments they had again afterwards."""
    arguments = {module: module.random_state for module in modules}
    try:
        for module, argument in arguments.items():
            module.seed_ = seed_of_run(module.seed(), run)
            if isinstance(argument, Integral):
                module.random_state = module.seed_
        yield
    finally:
        for module, argument in arguments.items():
            module.random_state = argument


def attributes_of(modules: Sequence[Module]) -> Attributes:
    """What each module holds now."""
    return {module: dict(vars(module)) for module in modules}
