"""Graphs: connected modules, trained, used, saved and shown as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .. import processes
from ..errors import GraphError, InputError, OutputError, SavedFileError, SerkitError
from ..messages import Gaussian, Message
from ..module import Module, Node, bound_of, naming, posterior_of, source_of_rows
from ..observation import Observation
from ..options import (
    Choice,
    Count,
    FilePath,
    Function,
    Kind,
    Randomness,
    RandomState,
    Several,
    called,
    check_argument,
    in_words,
    seed_of,
)
from ..saving import snapshot
from ..saving.atomic import check_writable
from ..saving.snapshot import Run
from ..saving.spec import from_spec, to_spec
from ..stopping import AllOrNothing, Terminated, raises_on_sigterm, tell, what_is_kept
from ..training import (
    Callback,
    Progress,
    Record,
    as_callbacks,
    clusters_of,
    exchange_diagnostics,
)
from . import checks, exporting, inference, restarting, results, structure
from .hearing import every_warning_anew, hearing_warnings
from .inference import Prediction
from .state import keep_share, kept_of, write_once

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Schedule = Sequence[Node | str] | Callable[[int], Sequence[Node | str]]


class Graph:
    """Connected modules as one model: some leaves, and everything below them.

    Modules that are connected but neither leaves nor below are not part of it: they are not trained
    and their messages not heard, and a warning names them.

    Parameters
    ----------
    *leaves : Module
        The topmost modules.
    random_state : int, np.random.Generator or np.random.RandomState, optional
        One seed for the whole graph: modules that have learnt nothing yet and have no
        `random_state` of their own get a seed each that is made of it, see
        `serkit.graph.restarting.seed_modules`.

    Attributes
    ----------
    modules : list of Node
        Observations and modules, parents before children.
    names : dict of str to Node
        Distinct names, in the same order: a module's own or its class's, numbered where needed.
        ``graph["vae"]`` is the module of that name, ``"vae" in graph`` says whether there is one,
        and a graph is iterated by names.
    history : list of dict
        An entry for each round: ``{"round": 1, "updates": [...]}``, each update with ``module``,
        what the module reported (losses, scores, seconds), the diagnostics of
        `serkit.training.exchange_diagnostics`, the texts of ``warnings`` if it gave some, and the
        joint ``objective`` where the terms of all modules are of the messages last sent: after the
        last update of a round.
    first_latents : dict of str to np.ndarray
        Latent means (N, D) of each module after its first update, before any joint training, if
        that update was one of this graph's.
    latents_by_round : list of dict
        What ``fit(keep_latents=True)`` kept, an entry a round: ``{"round": 1, "rows": (n,),
        "latents": {"vae": (n, D)}, "clusters": {"gmm": (n,)}}``, of at most 2,000 rows (their
        numbers are in ``rows``), all of them unless there are more.

    Raises
    ------
    GraphError
        If a module has no parents and is not an Observation.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit import Graph, Observation
    >>> from serkit.modules import GMM
    >>> rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> gmm = GMM(2, random_state=0).connect(Observation(rows))
    >>> graph = Graph(gmm).fit(rounds=2, verbose=False)
    >>> list(graph), "gmm" in graph, len(graph.history)
    (['observation', 'gmm'], True, 2)
    """

    def __init__(self, *leaves: Node, random_state: RandomState = None) -> None:
        check_argument("Graph", "random_state", random_state, Randomness())
        self.modules = structure.find_nodes(leaves)
        if random_state is not None:
            restarting.seed_modules(self._learners, processes.of_first(seed_of(random_state)))
        self.names = structure.name_nodes(self.modules)
        self.history: list[Record] = []
        self.first_latents: dict[str, np.ndarray] = {}
        self.latents_by_round: list[Record] = []
        structure.warn_of_unheard(self.modules)

    def __getitem__(self, name: str) -> Node:
        if not isinstance(name, str) or name not in self.names:
            raise GraphError(f"no module is called {name!r}; there are {', '.join(self.names)}")
        return self.names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, str):
            return item in self.names
        return any(item is node for node in self.modules)  # it may be an array

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return structure.describe(self.names)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return structure.diagram(self.names)

    def name_of(self, node: Node) -> str:
        """The name of a module or observation in this graph."""
        for name, known in self.names.items():
            if known is node:
                return name
        listed = ", ".join(self.names)
        raise GraphError(f"{_described(node)} is not in this graph; there are {listed}")

    @property
    def observations(self) -> list[Observation]:
        """The nodes that hold data, in the order in which `predict` takes new rows."""
        return [node for node in self.modules if isinstance(node, Observation)]

    @property
    def _learners(self) -> list[Module]:
        """The nodes that can learn, parents before children."""
        return [node for node in self.modules if isinstance(node, Module)]

    def children_of(self, node: Node) -> list[Module]:
        """The children of a node that are in this graph: those whose messages it gets."""
        return [m for m in self._learners if any(node is parent for parent in m.parents)]

    # -- training ------------------------------------------------------------------------------

    def check(self, *, files: bool = False) -> None:
        """Check every edge, every module's options and the numbers of rows; `fit` does so first.

        Parameters
        ----------
        files : bool
            Whether to check too that files can hold what will be learnt, as `fit` does where it is
            to write some.

        Raises
        ------
        SerkitError
            Naming the module and the values that do not fit.
        """
        check_argument("Graph.check", "files", files, Choice(False, True))
        checks.check_nodes(self.modules)
        if files:
            snapshot.check(self._run())

    def fit(
        self,
        rounds: int = 5,
        *,
        schedule: Schedule | None = None,
        callbacks: Sequence[Callback | Callable] = (),
        checkpoint: str | os.PathLike | None = None,
        out: str | os.PathLike | None = None,
        out_each_round: bool = False,
        verbose: bool = True,
        restarts: int = 1,
        choose: restarting.Choose = None,
        keep_latents: bool | None = None,
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
            File written after each round, and continued from if it is there. A graph that has more
            rounds stays as it is.
        out : path, optional
            Folder for results, pictures and ``report.html``, a page that shows them all, see
            `serkit.graph.results`. What an earlier run has written there is deleted.
        out_each_round : bool
            Whether to write the results of every round too, below `out`.
        verbose : bool
            Whether to show progress bars.
        restarts : int
            Number of runs from different seeds, of which the best is kept, for a graph that has
            learnt nothing yet (frozen modules may have). Run 0 has the modules' own seeds, later
            ones those of `serkit.graph.restarting.seed_of_run`; `random_state` stays as it is. The
            last entry of the history has the runs' scores, and the number of the one kept, as
            ``"chosen": {"run": 2, "scores": [...]}``. With a checkpoint each run has a file,
            ``checkpoint`` and ``.run0``, ``.run1``, ...; the same call goes on after a kill and
            chooses again.
        choose : "stability", "likelihood" or callable, optional
            By what, never by labels. The mean adjusted Rand index of the topmost module's classes
            with those of the other runs, of which there must be at least two (stability; what is
            used unless given); the log-likelihood of the topmost module that has
            ``log_likelihood_`` (used where there is a `MarkovModel`, whose it is); or a function
            of the graph after a run, which returns a number: the larger the better. The joint
            objective tells nothing here: its runs are of different latents.
        keep_latents : bool, optional
            Whether to keep latents and clusters of some rows after each round, in
            `latents_by_round`, so that `explore` shows how they moved. Where there is `out`, unless
            given.

        Raises
        ------
        SerkitError
            Before any training for whatever can be known then (see `check`, a damaged checkpoint,
            one that would lose updates made by hand, a file that cannot be written); TrainingError
            while training; OutputError for what cannot be written later on, once it is learnt. The
            round under way is undone, and what was learnt before stays; with `restarts` the graph
            is again as before the call.
        KeyboardInterrupt
            On Ctrl-C, after a line that says what is kept, as on SIGTERM, which ends the process.
            The same call with a checkpoint, or one for the rounds that are left, gives the bits of
            a training never stopped.
        """
        for name, count in {"rounds": rounds, "restarts": restarts}.items():
            check_argument("Graph.fit", name, count, Count())
        for name, flag in {"out_each_round": out_each_round, "verbose": verbose}.items():
            check_argument("Graph.fit", name, flag, Choice(False, True))
        check_argument("Graph.fit", "keep_latents", keep_latents, Choice(False, True, None))
        for name, path in {"checkpoint": checkpoint, "out": out}.items():
            check_argument("Graph.fit", name, path, FilePath(or_none=True))
        if restarts > 1 and out_each_round:
            raise InputError("Graph.fit: out_each_round=True writes one run; leave it or restarts=")
        hooks = as_callbacks(callbacks)
        hooks += [Progress()] if verbose and processes.is_first() else []
        self._updates_of_round(schedule, len(self.history))  # raises now if it is wrong
        if out is not None or checkpoint is not None:
            snapshot.check(self._run())
            hooks += as_callbacks([_check_savable])
        places = restarting.checkpoints(checkpoint, restarts)
        folder = None if out is None else Path(out)
        if folder is not None and processes.is_first():
            results.prepare(folder, self._least_bytes())
        for place in filter(None, places):
            if not os.path.isfile(place):  # or else it may hold a finished run
                self._check_place(place)
        goal = rounds if checkpoint is not None else len(self.history) + rounds
        try:
            with raises_on_sigterm(), hearing_warnings() as heard:
                every_warning_anew()
                keeps = out is not None if keep_latents is None else bool(keep_latents)
                fit = partial(self._fit_once, rounds, schedule, hooks, keeps)
                if restarts > 1:
                    self._fit_best_of(choose, places, fit)
                else:
                    fit(places[0], folder if out_each_round else None)
                if folder is not None:
                    write_once(self._run(), partial(results.write, folder=folder, heard=heard))
        except (KeyboardInterrupt, Terminated) as stop:
            tell(stop, what_is_kept(len(self.history), goal, checkpoint, restarts))
            raise stop.with_traceback(None) from None
        return self

    def _check_place(self, checkpoint: Path) -> None:
        """Raise OutputError, in the first process, if a checkpoint is certain to fail later."""
        if processes.is_first():
            check_writable(checkpoint, self._least_bytes())

    def _least_bytes(self) -> int:
        """What a file of this graph takes at least: the largest message up, in float32."""
        sizes = [0]
        for module in self._learners:
            source, width = source_of_rows(module), module.n_outputs
            if isinstance(source, Observation) and isinstance(width, int | np.integer):
                sizes.append(4 * source.n_rows * int(width))
        return max(sizes)

    def _fit_once(
        self,
        rounds: int,
        schedule: Schedule | None,
        hooks: Sequence[Callback],
        keeps: bool,
        checkpoint: Path | None,
        folder: Path | None = None,
    ) -> None:
        """Go on from the checkpoint, if there, check, and train."""
        last = len(self.history) + rounds if checkpoint is None else rounds
        finished = checkpoint is not None and self._resume(checkpoint) == last
        self.check()
        if finished:
            return
        if checkpoint is not None and len(self.history) < last:
            self._check_place(checkpoint)
        self._train(last, schedule, hooks, keeps, checkpoint, folder)

    def _train(
        self,
        last: int,
        schedule: Schedule | None,
        hooks: Sequence[Callback],
        keeps: bool,
        checkpoint: str | os.PathLike | None,
        folder: Path | None,
    ) -> None:
        """Train round by round until the history has `last` rounds, or a hook stops it."""

        def on_epoch(module: Module, epoch: int, terms: dict[str, float]) -> bool:
            answers = (hook.on_epoch(self, module, epoch, terms) for hook in hooks)
            return processes.any_of(_any_wants(answers))

        save = None if checkpoint is None else partial(snapshot.save, checkpoint, encoded={})
        try:
            for hook in hooks:
                hook.on_start(self, max(last - len(self.history), 0))
            for module in self._learners:
                module.on_epoch = on_epoch
            while len(self.history) < last:
                with self._undone_on_error():
                    record = self._round(schedule, hooks)
                    if keeps:
                        self._keep_latents(record["round"])
                    problem = self._write_round(folder)
                if save is not None:
                    write_once(self._run(), save)
                if problem is not None:
                    raise problem
                if processes.any_of(_any_wants(hook.on_round(self, record) for hook in hooks)):
                    if save is not None:
                        write_once(replace(self._run(), stopped_before=last), save)
                    break
        finally:
            for module in self._learners:
                module.on_epoch = None
            for hook in hooks:
                hook.on_end(self)

    def _write_round(self, folder: Path | None) -> OutputError | None:
        """Write the results of a round; returns the error if they cannot be, as it has learnt."""
        if folder is not None:
            try:
                write_once(self._run(), partial(results.write_round, folder=folder))
            except OutputError as problem:
                return problem
        return None

    def _fit_best_of(
        self,
        choose: restarting.Choose,
        checkpoints: Sequence[Path | None],
        fit: Callable[[Path | None], None],
    ) -> None:
        """Train from different seeds in turn and keep the best run; no run if one breaks off."""
        judge = restarting.judge_for(choose, self.modules, len(checkpoints))
        restarting.check_untrained(self._learners, len(self.history))
        to_train = [module for module in self._learners if not module.frozen]
        for module in to_train:
            module.seed()  # a generator is drawn from once, whatever breaks off later
        untrained = restarting.attributes_of(self._learners)
        runs, seen = [], []
        try:
            for number, checkpoint in enumerate(checkpoints):
                self._hold([], {}, [], untrained)
                with restarting.seeds_of_run(to_train, number):
                    fit(checkpoint)
                seen.append(judge.look(self))
                learnt = restarting.attributes_of(self._learners)
                runs.append((self.history, self.first_latents, self.latents_by_round, learnt))
            scores = [float(score) for score in judge.score(seen)]
            best = processes.of_first(int(np.argmax(scores)))
            self._hold(*runs[best])
            self.history[-1]["chosen"] = {"run": best, "scores": scores}
        except BaseException:
            self._hold([], {}, [], untrained)
            raise

    def _hold(
        self,
        history: list[Record],
        first_latents: dict[str, np.ndarray],
        latents_by_round: list[Record],
        attributes: restarting.Attributes,
    ) -> None:
        """Have what a run left: the graph itself, and its modules."""
        self.history, self.first_latents = history, first_latents
        self.latents_by_round = latents_by_round
        for module, held in attributes.items():
            module.__dict__.clear()
            module.__dict__.update(held)

    def _undone_on_error(self) -> AllOrNothing:
        """Within it modules learn and rounds are added; if that breaks off, all is as before."""
        before = {"history": [*self.history], "first_latents": {**self.first_latents}}
        before["latents_by_round"] = [*self.latents_by_round]
        return AllOrNothing(*self._learners, also=partial(vars(self).update, before))

    def _round(self, schedule: Schedule | None, hooks: Sequence[Callback]) -> Record:
        """Update the modules in turn; returns the round's entry, which is now in the history."""
        updates = []
        for module in self._updates_of_round(schedule, len(self.history)):
            for hook in hooks:
                hook.on_update(self, module)
            before = clusters_of(module)
            with hearing_warnings() as heard:
                module.update(self.children_of(module))
            name = self.name_of(module)
            if isinstance(module.message_up, Gaussian) and len(module.history_) == 1:
                self.first_latents.setdefault(name, module.message_up.mean)
            entry = {"module": name, "frozen": module.frozen}
            entry |= module.scores() if module.frozen else module.history_[-1]
            entry |= exchange_diagnostics(before, clusters_of(module))
            entry |= {"warnings": heard} if heard else {}
            objective = self._objective(stated_only=True)
            updates.append(entry if objective is None else {**entry, "objective": objective})
            for hook in hooks:
                hook.on_update_end(self, module, updates[-1])
        record = {"round": len(self.history) + 1, "updates": updates}
        self.history.append(record)
        return record

    def _keep_latents(self, round_: int) -> None:
        """Keep latents and clusters of some rows as they are after a round."""
        before = self.latents_by_round[-1]["rows"] if self.latents_by_round else None
        self.latents_by_round.append({"round": round_, **kept_of(self.names, before)})

    def _updates_of_round(self, schedule: Schedule | None, round_: int) -> list[Module]:
        """The modules to update in a round, in order: those of the graph unless scheduled."""
        if schedule is None:
            schedule = self.modules
        entries: Any = schedule
        if callable(schedule):
            check_argument("Graph.fit", "schedule", schedule, Function(of=("round",)))
            entries = called("Graph.fit: schedule", schedule, round_)
        return [n for n in self._listed("schedule", entries) if isinstance(n, Module)]

    def _listed(self, argument: str, entries: Any) -> list[Node]:
        """The nodes that an argument lists, each by itself or its name; raise for anything else."""
        if isinstance(entries, str) or not isinstance(entries, Sequence) or not entries:
            raise InputError(
                f"{argument} must be a list of modules or their names, got {in_words(entries)}"
            )
        nodes = [self[entry] if isinstance(entry, str) else entry for entry in entries]
        for node in nodes:
            if node not in self:
                raise GraphError(f"{argument} names {_described(node)}, which is not in this graph")
        return nodes

    def objective(self, *rows: ArrayLike) -> float | None:
        """The joint objective, the evidence lower bound of the whole graph, in nats per row.

        The sum of all modules' terms. For Observation, VAE and GMM it is
        ``E_q(z)[log p(x | z)] - sum_k r_k KL(q(z) || N(mu_k, Sigma_k)) - KL(r || pi)``, whatever
        target the VAE itself is trained to, so that one sees which update raises it. (A mixture
        with ``use_variance=False`` is fitted to the means, so it is narrower than the latents
        whose prior it is here, and its updates may lower this.) Latents that no child explains
        have the prior N(0, I).

        Parameters
        ----------
        *rows : array-like of shape (M, ...), Data or None
            New rows for each observation, as for `predict`, such as some that were held out. Those
            of training unless given.

        Returns
        -------
        float or None
            None until every module has messages from its parents, and where a module has no term.

        Raises
        ------
        InputError, NotReadyError
            As `predict`, for new rows.
        """
        if not rows:
            return self._objective()
        with processes.alone():
            posteriors = inference.posteriors_of(self.names, rows)
            total = 0.0
            for module, posterior in posteriors.items():
                with naming(module, "infer"):
                    bound = bound_of(posterior)
                if bound is None:
                    return None
                total += bound
            return total + _unexplained({m: p.up for m, p in posteriors.items()})

    def _objective(self, *, stated_only: bool = False) -> float | None:
        """The joint objective; with `stated_only` None too if a term is of older messages."""
        modules = self._learners
        if any(parent.message_up is None for module in modules for parent in module.parents):
            return None
        if stated_only and not all(module.history_ and module.is_current for module in modules):
            return None
        learnt = [module for module in modules if module.history_]
        total = 0.0
        for module in learnt:
            inputs = module.received_from_parents()
            posterior = module.posterior if module.is_current else None
            if posterior is None:
                from_children = module.received_from_children(self.children_of(module))
                posterior = posterior_of(module, inputs, from_children)
            with naming(module, "infer"):
                bound = bound_of(posterior)
            if bound is None:
                return None
            total += processes.mean(bound, inputs[0].n_rows)
        total += _unexplained({module: module.message_up for module in learnt})
        return total

    # -- new data ------------------------------------------------------------------------------

    def predict(self, *rows: ArrayLike) -> Prediction:
        """Infer latents and class probabilities of new rows, changing nothing that was learnt.

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
            return inference.recognise(self.names, rows)

    def reconstruct(self, *rows: ArrayLike) -> np.ndarray | dict[str, np.ndarray]:
        """Reconstruct new rows by a pass up and down; by name if there are several observations.

        Takes and raises what `predict` does. A modality that is missing is predicted from the
        others.
        """
        with processes.alone():
            return self._by_observation(inference.reconstruct(self.names, rows))

    def sample(
        self,
        n_samples: int = 1,
        component: int | None = None,
        *,
        leaf: Module | str | None = None,
        random_state: RandomState = None,
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Draw rows: at the top, then down through the decoders to data space.

        Parameters
        ----------
        n_samples : int
        component : int, optional
            The cluster to draw from, of a classifier the number of the class; by the mixing weights
            unless given.
        leaf : Module or str, optional
            Where to start; needed if several modules are at the top.
        random_state : int, np.random.Generator or np.random.RandomState, optional
            Seed of the draw; unless given the module's own, so that the same call repeats its draw.

        Returns
        -------
        np.ndarray of shape (n_samples, ...)
            Or a dict by observation, if several are reached.
        """
        range_ = Count(each=sum(observation.n_outputs for observation in self.observations))
        check_argument("Graph.sample", "n_samples", n_samples, range_)
        check_argument("Graph.sample", "component", component, Count(at_least=0, or_none=True))
        check_argument("Graph.sample", "random_state", random_state, Randomness())
        senders = [module for module in self._learners if module.sends_up is not None]
        tops = [m for m in senders if not any(child in senders for child in self.children_of(m))]
        if leaf is None and len(tops) > 1:
            listed = ", ".join(self.name_of(top) for top in tops)
            raise GraphError(f"several modules are at the top ({listed}); choose one with leaf=")
        if not tops:
            raise GraphError("there is nothing to sample: no module is connected to the data")
        top = tops[0] if leaf is None else self[leaf] if isinstance(leaf, str) else leaf
        if top not in self:
            raise GraphError(f"leaf={_described(top)} is not in this graph")
        if not isinstance(top, Module):
            raise GraphError(f"leaf={top.label} is not a module that could be drawn from")
        with processes.alone():
            rows = inference.generate(self.names, top, n_samples, component, random_state)
        return self._by_observation(rows)

    def _by_observation(self, rows: dict[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        """Rows by name, or those of the only observation."""
        return rows if len(self.observations) > 1 else next(iter(rows.values()))

    # -- keeping and showing -------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write the graph to one file, without the observations' rows and without your code.

        Raises
        ------
        OutputError
            If it cannot be written; an older file of that name stays whole.
        """
        check_argument("Graph.save", "path", path, FilePath())
        write_once(self._run(), lambda run: snapshot.save(path, run))

    def _resume(self, path: Path) -> int | None:
        """Go on from a checkpoint, if there; returns its `stopped_before`, see `Run`."""
        if not processes.of_first(path.exists()):
            return None
        before = len(self.history)
        with self._undone_on_error():
            run = snapshot.resume(path, self._run())
            run = keep_share(run) if len(run.history) > before else run
            self.history, self.first_latents = run.history, run.first_latents
            self.latents_by_round = run.latents_by_round
        return run.stopped_before

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
        check_argument("Graph.load", "path", path, FilePath())
        check_argument("Graph.load", "data", data, Kind(Sequence, or_none=True))
        check_argument("Graph.load", "custom", custom, Kind(dict, or_none=True))
        run = keep_share(snapshot.load(path, data, custom))
        try:
            graph = cls(*run.names.values())
        except SerkitError as error:
            raise SavedFileError(f"{path}: {error}") from error
        graph.history, graph.first_latents = run.history, run.first_latents
        graph.latents_by_round = run.latents_by_round
        return graph

    def to_spec(self) -> dict[str, Any]:
        """What the graph is made of as a plain dict, which YAML and JSON can hold.

        Observations and modules by name, with their classes, parents, and the arguments that are
        not as they are unless given. Neither rows nor what was learnt are in it (see `save`), and
        of code there is ``{"custom": its name}``.

        Returns
        -------
        dict
            ``{"observations": {name: {...}}, "modules": {name: {"class": ..., "parents": [...],
            "arguments": {...}}}}``.

        Examples
        --------
        >>> import numpy as np
        >>> from serkit import Graph, Observation
        >>> from serkit.modules import GMM
        >>> graph = Graph(GMM(2, tol=0.01).connect(Observation(np.zeros((9, 4)))))
        >>> spec = graph.to_spec()
        >>> spec["observations"]
        {'observation': {'row_shape': [4]}}
        >>> spec["modules"]["gmm"]["arguments"]
        {'n_components': 2, 'tol': 0.01}
        """
        return to_spec(self.names)

    @classmethod
    def from_spec(
        cls,
        spec: Mapping[str, Any],
        data: Mapping[str, Any] | None = None,
        *,
        classes: Sequence[type] = (),
        custom: Mapping[str, Any] | None = None,
        random_state: RandomState = None,
    ) -> Graph:
        """Build a new graph from a spec; nothing in it is executed.

        Parameters
        ----------
        spec : dict
            As `to_spec` gives it.
        data : dict of str to array-like or Data, optional
            Rows of each observation, by its name (``Data(rows, observed=mask)`` if some are
            missing), and arrays for arguments that are ``{"data":
            name}``, such as labels. With data the graph is checked as by `check`. Without, it is
            there to be looked at; observations must then state their ``row_shape``.
        classes : sequence of type
            Classes that are not in `serkit.modules`: own modules, scikit-learn's estimators.
        custom : dict, optional
            Code that arguments stand for, such as ``{"vae.encoder": net}``.
        random_state : int, np.random.Generator or np.random.RandomState, optional
            As of `Graph`.

        Raises
        ------
        SerkitError
            With the texts of the constructors, `connect` and `check`; InputError, which says where,
            for what is no spec, unknown classes and names, and what is not given.

        Examples
        --------
        >>> import numpy as np
        >>> from serkit import Graph
        >>> gmm = {"class": "GMM", "parents": ["rows"], "arguments": {"n_components": 2}}
        >>> spec = {"observations": {"rows": {}}, "modules": {"gmm": gmm}}
        >>> rows = np.random.default_rng(0).normal(size=(60, 2))
        >>> graph = Graph.from_spec(spec, {"rows": rows}, random_state=0)
        >>> len(graph.fit(2, verbose=False).history)
        2
        """
        label = "Graph.from_spec"
        for name, value in {"data": data, "custom": custom}.items():
            check_argument(label, name, value, Kind(Mapping, or_none=True))
        check_argument(label, "classes", classes, Several(Kind(type)))
        check_argument(label, "random_state", random_state, Randomness())
        graph = cls(*from_spec(spec, data, classes, custom).values(), random_state=random_state)
        if data is not None:
            graph.check()
        return graph

    def _run(self) -> Run:
        kept = (self.history, self.first_latents)
        return Run(self.names, *kept, latents_by_round=self.latents_by_round)

    def explore(
        self,
        path: str | os.PathLike,
        *,
        rows: Sequence | None = None,
        labels: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        max_rows: int = 10_000,
        title: str | None = None,
        runtime: str | os.PathLike | None = None,
    ) -> Path:
        """Write a page that shows the graph in a browser: one file, without server or network.

        It draws the graph, its latents by cluster, label or any column, each row beside its
        reconstruction, how the rounds went (see ``fit(keep_latents=True)``), and decodes live:
        by sliders, one a latent dimension, by draws from clusters, paths between rows, walks, and
        what is drawn with the mouse. The nets run in the page, each checked against torch when it
        is written and when it is opened.

        Parameters
        ----------
        path : path
            Such as "page.html".
        rows : sequence of array-like or None, optional
            New rows for each observation, as for `predict`, in place of the training rows.
        labels : array-like, shape (N,), optional
            Those by which modules score, unless given.
        columns : dict of str to array-like, shape (N,), optional
            What else points can be coloured by: classes (words, integers) or numbers.
        max_rows : int
            How many rows are shown; of more they are chosen by chance, the same every time. Large
            rows leave room for fewer.
        title : str, optional
        runtime : path, optional
            Folder in which ``npm install onnxruntime-web`` was called, for nets with layers that
            the page does not have: it then contains that too, about 5 MB.

        Returns
        -------
        pathlib.Path
            The path.

        Raises
        ------
        NotReadyError
            If a module has not learnt yet, or the graph was loaded without rows.
        InputError
            For a net with a layer that the page does not have, which is named.
        ImportError
            Without plotly, out of whose package the page takes plotly.js.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from serkit import Graph, Observation
        >>> from serkit.modules import GMM
        >>> rows = np.random.default_rng(0).normal(size=(60, 3)) + 9 * np.eye(3)[np.arange(60) % 3]
        >>> graph = Graph(GMM(3, random_state=0).connect(Observation(rows))).fit(1, verbose=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = graph.explore(f"{folder}/page.html", columns={"number": np.arange(60)})
        ...     page.stat().st_size > 1e6
        True
        """
        from .. import explore

        def recognise(*of_each: ArrayLike) -> dict[str, Message]:
            return inference.recognise(self.names, of_each).messages

        def reconstruct(*of_each: ArrayLike) -> dict[str, np.ndarray]:
            return inference.reconstruct(self.names, of_each)

        return explore.write(
            path,
            self._run(),
            recognise,
            reconstruct,
            rows=rows,
            labels=labels,
            columns=columns,
            max_rows=max_rows,
            title=title,
            runtime=runtime,
        )

    def export(
        self,
        folder: str | os.PathLike,
        *,
        modules: Sequence[Module | str] | None = None,
        format: str = "onnx",
    ) -> None:
        """Write the functions that modules have learnt for other programs, each in a file.

        Encoders, decoders, the posteriors of mixtures, and nets: what a module has in its method
        `parts`. Each takes any number of rows, and is checked against the module itself, in
        onnxruntime, before anything is written: they differ by at most 1e-5 (of values above 1, of
        the largest). Beside them are ``predict.py``, which runs them all and needs no serkit, and
        ``README.md``, a model card made of the history.

        Probabilities are those of `Posterior.up`: of a row by itself, without what the module's
        children say. Rows must be complete.

        Parameters
        ----------
        folder : path
            Made if it is not there. Files of the same names are replaced.
        modules : sequence of modules or names, optional
            Those to write; all unless given.
        format : {"onnx", "torch"}
            ONNX (``pip install '.[export]'``), or ``.pt2``, the files of `torch.export`.

        Raises
        ------
        GraphError
            For modules that cannot be exported, such as a `MarkovModel`; each says why.
        InputError
            For a net that cannot, or whose file gives other values.
        NotReadyError
            If a module has not learnt yet.
        ImportError
            If a package is missing.
        OutputError
            If a file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from serkit import Graph, Observation
        >>> from serkit.modules import GMM
        >>> rows = np.random.default_rng(0).normal(size=(60, 2))
        >>> graph = Graph(GMM(2, random_state=0).connect(Observation(rows))).fit(1, verbose=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     graph.export(folder, format="torch")
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['README.md', 'gmm_posterior.pt2', 'predict.py']
        """
        check_argument("Graph.export", "folder", folder, FilePath())
        check_argument("Graph.export", "format", format, Choice(*exporting.ENDINGS))
        nodes = self.modules if modules is None else self._listed("modules", modules)
        chosen = [module for module in self._learners if module in nodes]
        exporting.check_installed(format)
        write = partial(exporting.export, folder=Path(folder), modules=chosen, kind=format)
        write_once(self._run(), write)

    def pictures(self) -> dict[str, Figure]:
        """Every picture that `fit(out=...)` writes, by name; what cannot be drawn is warned of.

        Of several processes each has to call it; the first gets the pictures, of the rows of all.
        """
        figures: dict[str, Figure] = {}
        write_once(self._run(), lambda run: figures.update(results.pictures(run)))
        return figures

    def draw(self) -> Figure:
        """A picture of the modules and the messages between them."""
        from ..plots import graph as pictures

        return pictures.graph(self.names)

    def mermaid(self) -> str:
        """The modules and the messages between them as Mermaid text, for a README."""
        return structure.mermaid(self.names)


def _unexplained(sent: Mapping[Module, Message | None]) -> float:
    """E[log p(z)] of latents that are without a prior in some child's term, in nats per row."""
    explained, total = {parent for module in sent for parent in module.parents}, 0.0
    for module, q in sent.items():
        if module not in explained and isinstance(q, Gaussian) and q.var is not None:
            log_prior = inference.log_standard_normal(q.mean, q.var)  # (N,)
            log_prior = np.where(q.is_observed, log_prior, 0.0)
            total += processes.mean(float(log_prior.mean()), q.n_rows)
    return total


def _described(node: Any) -> str:
    """A node as errors call it, and what is none as it is."""
    return node.label if isinstance(node, Node) else in_words(node)


def _check_savable(graph: Graph, record: Record) -> None:
    """After the first round, raise InputError if files cannot hold what was learnt."""
    if record["round"] == 1:
        graph.check(files=True)


def _any_wants(answers: Iterator[bool | None]) -> bool:
    """Whether any of the answers is true; all are asked for, none is skipped."""
    return sum(map(bool, answers)) > 0
