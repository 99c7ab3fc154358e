"""The graph: all connected modules, trained, used, kept and shown as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .. import processes, training
from ..errors import GraphError, InputError
from ..module import Module
from ..observation import Observation
from ..plots import graph
from ..saving import snapshot
from . import checks, inference, results
from .inference import Prediction
from .state import keep_own, write_once

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Graph:
    """Every module connected to the given ones, directly or not.

    Parameters
    ----------
    *leaves : Module
        One module of the graph is enough; usually the topmost.

    Attributes
    ----------
    modules : list of Module
        Parents before children.
    names : dict of str to Module
        Distinct names, in the same order: a module's own or its class's, numbered where needed.
        ``graph["vae"]`` is the module of that name.
    history : list of dict
        An entry a round: ``{"round": 1, "updates": [...]}``, each update with ``module``, what
        the module reported (losses, scores, seconds), the joint ``objective`` after it, and the
        diagnostics of `serkit.training.exchange_diagnostics`.
    first_latents : dict of str to np.ndarray
        Latent means (N, D) of each module after its first update, before any joint training, if
        that update was one of this graph's.

    Raises
    ------
    GraphError
        If a module has no parents and is not an Observation.
    """

    def __init__(self, *leaves: Module) -> None:
        self.modules = checks.find_modules(leaves)
        self.names = checks.name_modules(self.modules)
        self.history: list[dict[str, Any]] = []
        self.first_latents: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> Module:
        if name not in self.names:
            raise GraphError(f"no module is called {name!r}; there are {', '.join(self.names)}")
        return self.names[name]

    def __repr__(self) -> str:
        return checks.describe(self.names)

    def name_of(self, module: Module) -> str:
        """The name of a module in this graph."""
        return next(name for name, known in self.names.items() if known is module)

    @property
    def observations(self) -> list[Observation]:
        """The modules that hold data, in the order `predict` takes new rows."""
        return [m for m in self.modules if isinstance(m, Observation)]

    def check(self) -> None:
        """Check every edge, every module's options and the numbers of rows; `fit` does so first.

        Raises
        ------
        SerkitError
            Naming the module and the values that do not fit.
        """
        checks.check_modules(self.modules)

    def fit(
        self,
        rounds: int = 5,
        *,
        schedule: training.Schedule | None = None,
        callbacks: Sequence[training.Callback | Callable] = (),
        checkpoint: str | os.PathLike | None = None,
        out: str | os.PathLike | None = None,
        out_each_round: bool = False,
        verbose: bool = True,
    ) -> Graph:
        """Check the graph, then train it for some rounds; returns self.

        Under torchrun every process makes the same call and learns from its share of the rows (see
        `serkit.processes`). Callbacks are called in all of them; one that wants to stop stops all.
        What is written is written by the first, with the rows of all.

        Parameters
        ----------
        rounds : int
            Rounds to add to those already done. With a checkpoint: rounds in all, so that the
            same call goes on after a kill and does nothing when it had finished.
        schedule : sequence of modules or names, or callable, optional
            The updates of a round, in order, repeats allowed; a callable gets the round's number
            from 0. Every module once, parents first, unless given.
        callbacks : sequence
            `serkit.training.Callback` objects, or functions of (graph, record) called after each
            round; a true return value stops.
        checkpoint : path, optional
            File written after each round, and continued from if it is there.
        out : path, optional
            Folder for results and pictures, see `serkit.artefacts`.
        out_each_round : bool
            Whether to write the results of every round too, below `out`.
        verbose : bool
            Whether to show progress bars.

        Raises
        ------
        SerkitError
            Before any training for whatever can be known then (see `check`, a damaged
            checkpoint, a folder that cannot be written); TrainingError while training. What was
            learnt before stays.
        """
        _check_count("rounds", rounds)
        hooks = training.as_callbacks(callbacks)
        hooks += [training.Progress()] if verbose and processes.is_first() else []
        training.modules_of_round(self, schedule, len(self.history))
        folder = None if out is None else _prepare(Path(out))
        last = rounds if checkpoint is not None else len(self.history) + rounds
        stopped = False
        if checkpoint is not None and processes.of_first(Path(checkpoint).exists()):
            stopped = snapshot.resume(checkpoint, self) == last
        elif checkpoint is not None:
            _prepare(Path(checkpoint).parent)
        self.check()
        if not stopped:
            try:
                each_round = folder if out_each_round else None
                self._sweep_until(last, schedule, hooks, checkpoint, each_round)
            finally:
                for module in self.modules:
                    module.on_epoch = None
                for hook in hooks:
                    hook.on_end(self)
        if folder is not None:
            write_once(self, lambda: results.write(self, folder))
        return self

    def _sweep_until(self, last, schedule, hooks, checkpoint, folder) -> None:
        for hook in hooks:
            hook.on_start(self, max(last - len(self.history), 0))

        def on_epoch(module: Module, terms: dict[str, float]) -> bool:
            asked = [bool(hook.on_epoch(module, terms)) for hook in hooks]
            return processes.any_of(any(asked))

        for module in self.modules:
            module.on_epoch = on_epoch
        while len(self.history) < last:
            modules = training.modules_of_round(self, schedule, len(self.history))
            record = training.sweep(self, modules, hooks)
            self.history.append(record)
            if folder is not None:
                place = folder / f"round{len(self.history):03d}"
                write_once(self, partial(results.write_modules, self, place))
            if checkpoint is not None:
                snapshot.save(checkpoint, self)
            asked = [bool(hook.on_round(self, record)) for hook in hooks]
            if processes.any_of(any(asked)):
                if checkpoint is not None:
                    snapshot.save(checkpoint, self, stopped_before=last)
                break

    def objective(self) -> float | None:
        """The joint objective in nats a row: the sum of all modules' terms.

        For Observation, VAE and GMM it is the evidence lower bound of the joint model,
        ``E_q(z)[log p(x | z)] - sum_k r_k KL(q(z) || N(mu_k, Sigma_k)) - KL(r || pi)``, whatever
        target the VAE itself is trained to, so that one sees which update raises it. (A mixture
        with ``use_variance=False`` is fitted to the means, so it is narrower than the latents
        whose prior it is here, and its updates may lower this.) None until every module has
        messages from its parents.
        """
        total = 0.0
        for module in self.modules:
            if not module.parents:
                continue
            if any(parent.message_up is None for parent in module.parents):
                return None
            if module.history_ or not module.children:
                inputs, prior = module.received_from_parents(), module.received_from_children()
                total += processes.mean(module.objective(inputs, prior), inputs[0].n_rows)
        return total

    # -- new data ------------------------------------------------------------------------------

    def predict(self, *rows: ArrayLike) -> Prediction:
        """Recognise new rows, changing nothing that was learnt.

        Parameters
        ----------
        *rows : array-like of shape (M, ...), Data or None
            New rows for each observation, in the order of `observations`. None where a modality is
            missing in all rows; ``Data(rows, observed=mask)`` where in some.

        Returns
        -------
        Prediction
            With ``latents`` (M, D), ``probabilities`` (M, K), ``classes`` (M,) and all
            ``messages`` by module.

        Raises
        ------
        InputError
            For rows of another shape or range than in training, or unequal numbers.
        NotReadyError
            If a module has not learnt yet.
        """
        with processes.alone():
            return inference.recognise(self.names, rows)[0]

    def reconstruct(self, *rows: ArrayLike) -> np.ndarray | dict[str, np.ndarray]:
        """New rows after a pass up and down: like the rows; by name if there are several.

        A modality that is missing (see `predict`) is predicted from the others.
        """
        with processes.alone():
            return self._by_observation(inference.reconstruct(self.names, rows))

    def sample(
        self,
        n_samples: int = 1,
        component: int | None = None,
        *,
        leaf: Module | str | None = None,
        random_state: int | None = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Draw at the top and go down through the decoders to data space.

        Parameters
        ----------
        n_samples : int
        component : int, optional
            The cluster to draw from, of a classifier the number of the class; by the mixing weights
            unless given.
        leaf : Module or str, optional
            Where to start; needed if several modules have no children.
        random_state : int, optional
            Seed of the draw; the same call repeats its draw.

        Returns
        -------
        np.ndarray of shape (n_samples, ...)
            Or a dict by observation, if several are reached.
        """
        _check_count("n_samples", n_samples)
        sending = [m for m in self.modules if m.parents and m.sends_up is not None]
        tops = [m for m in sending if not any(child in sending for child in m.children)]
        if leaf is None and len(tops) > 1:
            listed = ", ".join(self.name_of(top) for top in tops)
            raise GraphError(f"several modules are at the top ({listed}); choose one with leaf=")
        if not tops:
            raise GraphError("there is nothing to sample: no module is connected to the data")
        top = self[leaf] if isinstance(leaf, str) else leaf or tops[0]
        if top not in self.modules:
            raise GraphError(f"leaf={getattr(top, 'label', top)} is not in this graph")
        with processes.alone():
            drawn = inference.generate(self.names, top, n_samples, component, random_state)
        return self._by_observation(drawn)

    def _by_observation(self, found: dict[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        """By name, but of a single observation as it is."""
        return found if len(self.observations) > 1 else next(iter(found.values()))

    # -- keeping and showing -------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the whole graph to one file, but for the observations' rows and code you gave.

        Raises
        ------
        OutputError
            If it cannot be written; an older file of that name stays whole.
        """
        snapshot.save(path, self)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        data: Sequence | None = None,
        custom: dict[str, Any] | None = None,
    ) -> Graph:
        """Rebuild a saved graph; nothing in the file is executed.

        Parameters
        ----------
        path : path
        data : sequence of array-like or Data, optional
            The rows of each observation, the same as when it was saved (as ``Data(rows,
            observed=mask)`` if some were missing); needed to train on, not to predict, sample and
            reconstruct.
        custom : dict, optional
            Code that was passed to constructors, such as ``{"vae.encoder": net}``.

        Raises
        ------
        SavedFileError
            For a damaged file, an unknown class or other rows.
        InputError
            If code in `custom` is missing.
        """
        modules, tree = snapshot.load(path, data, custom)
        graph = cls(*modules)
        graph.history, graph.first_latents = tree["history"], tree["first_latents"]
        keep_own(graph)
        return graph

    def draw(self) -> Figure:
        """A picture of the modules and the messages between them."""
        return graph.graph(self.names)

    def mermaid(self) -> str:
        """The same as Mermaid text, for a README."""
        return checks.mermaid(self.names)


def _prepare(folder: Path) -> Path:
    """Make a folder that the first process can write to."""
    return results.prepare(folder) if processes.is_first() else folder


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} must be an integer >= 1, got {value!r}")
