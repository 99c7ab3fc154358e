"""A whole graph as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClusterMixin, TransformerMixin

from ..errors import GraphError, InputError, NotFittedError
from ..graph import Graph
from ..graph.inference import Prediction
from ..module import Module
from ..observation import Observation
from ..options import (
    Choice,
    Count,
    Function,
    Options,
    Randomness,
    RandomState,
    called,
    check_argument,
)
from ..reading import keep_names, names_in
from ..training import Callback
from .runs import graph_of


class GraphEstimator(ClusterMixin, TransformerMixin, Options):
    """A whole graph as one estimator, for pipelines, searches, cross-validation and `clone`.

    ``build(observation)`` connects new modules to the rows that `fit` is given, and arguments of
    modules are parameters of the estimator: ``gmm__n_components`` is that of the module which the
    graph calls "gmm".

    Parameters
    ----------
    build : callable
        From an `Observation` to a new graph on it, or its leaf.
    rounds : int
        Of joint training; 1 for modules that are trained one after another.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        Seed of all modules that have none of their own, as of ``Graph(..., random_state=)``. (A
        generator is drawn from in each fit.)
    callbacks : sequence
        As in `Graph.fit`.
    **arguments
        Arguments of modules, ``name__argument``, in place of what `build` gives them.

    Attributes
    ----------
    graph_ : Graph
        What was fitted, with everything that graphs can do.
    labels_ : np.ndarray of int, shape (N,)
        The class of each row of training, by all that is known, as `predict` gives those of new
        rows; only of graphs with classes.
    n_features_in_, feature_names_in_
        Number and names of the columns; names only of frames.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import GraphEstimator
    >>> from serkit.modules import GMM, VAE
    >>> rows = np.random.default_rng(0).normal(size=(60, 4)) + 9 * np.eye(4)[np.arange(60) % 2]
    >>> def build(observation):
    ...     vae = VAE(2, likelihood="gaussian", epochs=3, hidden_sizes=(8,)).connect(observation)
    ...     return GMM(3).connect(vae)
    >>> estimator = GraphEstimator(build, rounds=2, random_state=0, gmm__n_components=2).fit(rows)
    >>> estimator.transform(rows).shape, estimator.predict_proba(rows[:5]).shape
    ((60, 2), (5, 2))
    >>> list(estimator.graph_)
    ['observation', 'vae', 'gmm']
    """

    graph_: Graph

    def __init__(
        self,
        build: Callable[[Observation], Graph | Module],
        *,
        rounds: int = 5,
        random_state: RandomState = None,
        callbacks: Sequence[Callback | Callable] = (),
        **arguments: Any,
    ) -> None:
        self.build = build
        self.rounds = rounds
        self.random_state = random_state
        self.callbacks = callbacks
        self.arguments = arguments

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name, those of modules too as far as they are given here."""
        return {**super().get_params(deep=False), **self.arguments}

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments, those of modules by ``name__argument``; returns self."""
        of_modules = {name: value for name, value in params.items() if "__" in name}
        super().set_params(**{n: value for n, value in params.items() if n not in of_modules})
        self.arguments = {**self.arguments, **of_modules}
        return self

    def fit(self, x: ArrayLike, y: Any = None) -> Self:
        """Build the graph on rows x (N, ...) and train it; returns self. `y` is ignored.

        Starts afresh whenever it is called.

        Raises
        ------
        InputError
            For arguments of modules that there are not, or out of their ranges.
        GraphError
            If `build` returns anything but a graph on the one observation it was given.
        """
        label = "GraphEstimator"
        check_argument(label, "build", self.build, Function(of=("observation",)))
        check_argument(label, "rounds", self.rounds, Count())
        check_argument(label, "random_state", self.random_state, Randomness())
        observation = Observation(x)
        built = graph_of(label, called(f"{label}: build", self.build, observation), "build(x)")
        if built.observations != [observation]:
            raise GraphError(f"{label}: build must connect modules to the observation it is given")
        for name, value in self.arguments.items():
            self._set_argument(built, name, value)
        leaves = [node for node in built.modules if isinstance(node, Module)]
        graph = Graph(*leaves, random_state=self.random_state)
        graph.fit(self.rounds, callbacks=self.callbacks, verbose=False)
        self.graph_, self.n_features_in_ = graph, observation.n_outputs
        keep_names(self, names_in(x, label))
        self.__dict__.pop("labels_", None)
        top = [n for n in leaves if n.posterior is not None and n.posterior.clusters is not None]
        if top and top[-1].posterior is not None:
            self.labels_ = top[-1].posterior.clusters
        return self

    def _set_argument(self, graph: Graph, name: str, value: Any) -> None:
        """Set the argument ``name__argument`` of a module; InputError if there is none."""
        module, _, argument = name.partition("__")
        check_argument("GraphEstimator", name, module, Choice(*graph.names))
        known = graph[module].get_params()
        if argument not in known:
            raise InputError(
                f"GraphEstimator: {name}: {graph[module].label} has no argument {argument!r}; "
                f"there are {', '.join(known)}"
            )
        graph[module].set_params(**{argument: value})

    def _predicted(self, x: ArrayLike) -> Prediction:
        return self._fitted().predict(x)

    def _fitted(self) -> Graph:
        if not hasattr(self, "graph_"):
            raise NotFittedError("GraphEstimator is not fitted yet: call fit(x) first")
        return self.graph_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "graph_")

    def transform(self, x: ArrayLike) -> np.ndarray:
        """Latent means of the topmost module that has latents: (N, ...) -> (N, D)."""
        return self._predicted(x).latents

    def predict(self, x: ArrayLike) -> np.ndarray:
        """The most probable class of each row: (N, ...) -> (N,) of int."""
        return self._predicted(x).classes

    def predict_proba(self, x: ArrayLike) -> np.ndarray:
        """P(class | row) of the topmost module that has classes: (N, ...) -> (N, K)."""
        return self._predicted(x).probabilities

    def fit_transform(self, x: ArrayLike, y: Any = None) -> np.ndarray:
        """Fit, and tell the latent means of each row: (N, ...) -> (N, D)."""
        with self._as_before_if_it_fails():
            return self.fit(x).transform(x)

    def fit_predict(self, x: ArrayLike, y: Any = None) -> np.ndarray:
        """Fit, and tell the most probable class of each row: (N, ...) -> (N,) of int."""
        with self._as_before_if_it_fails():
            return self.fit(x).predict(x)

    @contextmanager
    def _as_before_if_it_fails(self) -> Iterator[None]:
        """Keep the graph fitted before, if the new one cannot say what it is asked for."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def score(self, x: ArrayLike, y: Any = None) -> float:
        """The joint bound of rows (N, ...), in nats per row; higher is better. `y` is ignored.

        Rows that were not fitted tell which of several graphs is the better model of the data; see
        `Graph.objective`.

        Raises
        ------
        GraphError
            If a module has no term of the joint objective.
        """
        bound = self._fitted().objective(x)
        if bound is None:
            raise GraphError(
                "GraphEstimator.score: a module of the graph has no term of the joint objective; "
                "give searches another scoring="
            )
        return bound
