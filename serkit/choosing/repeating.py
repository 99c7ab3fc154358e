"""The same graph from several seeds: whether joint training pays, and what hangs on the seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, SavedFileError
from ..graph import Graph
from ..graph.restarting import classifier_of, seed_modules
from ..metrics import scores_of, stability
from ..module import Module
from ..options import Choice, Count, FilePath, Function, called, check_argument, in_words
from ..reading import labels_in
from ..saving import format
from ..saving.atomic import check_writable
from ..training import Callback, Record, TrainedGraph
from .runs import as_text, check_running, graph_of, log_likelihood_of, pandas_for, run_all

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Build = Callable[[int], Graph | Module]
ARMS = {"frozen": 0, "joint": -1}  # and the number of the round after which it is looked at
_UNITS = {"log_likelihood": " (nats per row)", "objective": " (nats per row)"}


@dataclass(frozen=True, repr=False)
class Repeats:
    """Runs of a graph from several seeds; see `repeat`, which makes it.

    Its text is a table: for each criterion mean, standard deviation and worst seed of the frozen
    and of the joint graph, and of what each seed gains by joint training, with the standard error
    of the mean gain.

    Attributes
    ----------
    seeds : list of int
    values : dict of str to np.ndarray, shape (n seeds, n rounds)
        By criterion, the higher the better; NaN where there is no number. With labels ``accuracy``,
        ``nmi`` and ``ari``; without any ``stability``, the mean adjusted Rand index of a seed's
        classes with those of the other seeds after the same round, ``log_likelihood`` of the
        topmost module that has one, and ``objective``, the joint one.
    clusters : np.ndarray of int, shape (n seeds, n rounds, N)
        The topmost classifying module's class of each row; N is 0 without such a module.
    seconds : np.ndarray, shape (n seeds,)
        What each run took.

    Examples
    --------
    >>> import numpy as np
    >>> import serkit as srk
    >>> from serkit.modules import GMM
    >>> rows = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0], [1]], 30, axis=0)
    >>> def build(seed):
    ...     return GMM(2, random_state=seed).connect(srk.Observation(rows))
    >>> repeats = srk.repeat(build, seeds=[0, 1, 2], rounds=2)
    >>> repeats.values["stability"].shape, repeats.best()
    ((3, 2), 0)
    """

    seeds: list[int]
    values: dict[str, np.ndarray]
    clusters: np.ndarray
    seconds: np.ndarray

    def of(self, criterion: str, arm: str = "joint") -> np.ndarray:
        """A criterion by seed, (n seeds,), of one arm: "frozen" (round 1) or "joint" (the last).

        Raises
        ------
        InputError
            For a criterion that there is not, or another arm.
        """
        check_argument("Repeats", "criterion", criterion, Choice(*self.values))
        check_argument("Repeats", "arm", arm, Choice(*ARMS))
        return self.values[criterion][:, ARMS[arm]]

    def best(self, criterion: str = "stability") -> int:
        """The seed whose joint graph is best by a criterion; without labels, unless you say so.

        ``srk.Graph(build(seed), random_state=seed).fit(rounds)`` trains it again.
        """
        return self.seeds[int(np.nanargmax(self.of(criterion)))]

    def __repr__(self) -> str:
        n_rounds = self.clusters.shape[1]
        first = (
            f"{len(self.seeds)} seeds ({_listed(self.seeds)}); frozen: after round 1, in which "
            f"nobody hears a child; joint: after round {n_rounds}; gain: of each seed"
        )
        header = ["", "frozen", "worst", "joint", "worst", "gain", "worst", "seeds that gain"]
        return f"{first}\n{as_text(header, [self._line(name) for name in self.values])}"

    def _line(self, name: str) -> list[str]:
        frozen, joint = self.of(name, "frozen"), self.of(name)
        gain, n = joint - frozen, len(self.seeds)
        error = gain.std(ddof=1) / np.sqrt(n)
        cells = [name]
        for values in (frozen, joint):
            cells += [f"{values.mean():.3f} ± {values.std(ddof=1):.3f}", f"{values.min():.3f}"]
        cells += [f"{gain.mean():+.3f} ± {error:.3f}", f"{gain.min():+.3f}"]
        return [*cells, f"{(gain > 0).sum()} of {n}"]

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame with a row for each seed and round, and a column for each criterion.

        Columns ``seed``, ``round``, ``arm`` ("frozen" in round 1, "joint" in the last one, else
        "") and the criteria.

        Raises
        ------
        ImportError
            Without pandas.
        """
        n_seeds, n_rounds, _ = self.clusters.shape
        arms = ["frozen", *[""] * (n_rounds - 2), "joint"]
        columns = {
            "seed": np.repeat(self.seeds, n_rounds),
            "round": np.tile(np.arange(1, n_rounds + 1), n_seeds),
            "arm": arms * n_seeds,
        }
        numbers = {name: values.ravel() for name, values in self.values.items()}
        return pandas_for("Repeats.to_frame").DataFrame({**columns, **numbers})

    def draw(self) -> Figure:
        """A picture: each criterion by round, a line for each seed, their mean, and the worst."""
        from ..plots import by_round

        titles = {f"{name}{_UNITS.get(name, '')}": v for name, v in self.values.items()}
        names = [f"seed {seed}" for seed in self.seeds]
        return by_round(titles, names, title="after round 1 (frozen) to the last (joint)")


def repeat(
    build: Build,
    seeds: Iterable[int] = range(10),
    rounds: int = 5,
    *,
    labels: ArrayLike | None = None,
    n_jobs: int = 1,
    folder: str | os.PathLike | None = None,
    verbose: bool = False,
) -> Repeats:
    """Train a graph from several seeds, and compare frozen with joint, seed by seed.

    *Frozen* is a graph after its first round, in which parents learn first and nobody has heard a
    child: the modules trained one after another, as with an encoder that is frozen afterwards.
    *Joint* is the same graph after the last round. So both come of the same run, and their
    difference is free of what differs between seeds. (The joint graph has also trained for longer.)

    Parameters
    ----------
    build : callable
        From a seed to a new `Graph`, or its leaf: ``build(seed)``. Modules without `random_state`
        get seeds that are made of it, as by ``Graph(..., random_state=seed)``.
    seeds : iterable of int
        At least two that differ.
    rounds : int
        At least two.
    labels : array-like, shape (N,), optional
        True classes, for scores; unless given those of the topmost module that has `labels`.
    n_jobs : int
        How many processes train, a seed each; -1 for as many as processors. Each run has one
        thread, so that any number of processes gives the same bits. Scripts need the usual
        ``if __name__ == "__main__":``.
    folder : path, optional
        Where each seed has a file once it is finished. The same call goes on after a kill, and with
        more seeds trains those that are missing.
    verbose : bool
        Whether to show a bar of progress.

    Raises
    ------
    InputError
        For seeds that are no distinct integers from 0 on, or a `build` that gives the same graph
        whatever the seed.
    GraphError
        If `build` returns something else, or modules that have learnt already.
    SavedFileError
        For a file in the folder that is damaged, or of another graph, data or number of rounds.

    Examples
    --------
    >>> import numpy as np
    >>> import serkit as srk
    >>> from serkit.modules import GMM, VAE
    >>> digits = srk.datasets.load_digits()
    >>> def build(seed):
    ...     observation = srk.Observation(digits.images[:200])
    ...     vae = VAE(5, epochs=5, hidden_sizes=(32,)).connect(observation)
    ...     return srk.Graph(GMM(10).connect(vae), random_state=seed)
    >>> repeats = srk.repeat(build, seeds=range(3), rounds=2, labels=digits.labels[:200])
    >>> list(repeats.values)
    ['accuracy', 'nmi', 'ari', 'stability', 'log_likelihood', 'objective']
    >>> repeats.of("accuracy", "frozen").shape
    (3,)
    """
    check_argument("repeat", "build", build, Function(of=("seed",)))
    seeds = _checked_seeds(seeds)
    check_argument("repeat", "rounds", rounds, Count(at_least=2))
    check_argument("repeat", "folder", folder, FilePath(or_none=True))
    check_running("repeat", n_jobs, verbose)
    first, second = (_built(build, seed) for seed in seeds[:2])
    _check_differ(first, second)
    labels = _labels_of(first, labels)
    files = [None if folder is None else Path(folder) / f"seed{seed}.safetensors" for seed in seeds]
    runs: dict[int, Record] = {}
    for seed, file in zip(seeds, files, strict=True):
        if file is not None and file.exists():
            runs[seed] = _read(file, _made_of(_built(build, seed), rounds))
        elif file is not None:
            check_writable(file, 8 * rounds * first.observations[0].n_rows)
    tasks = [
        (build, seed, rounds, file)
        for seed, file in zip(seeds, files, strict=True)
        if seed not in runs
    ]
    for run in run_all(_run, tasks, n_jobs, verbose, "repeat"):
        runs[run["seed"]] = run
    return _gathered([runs[seed] for seed in seeds], labels)


def _checked_seeds(seeds: Any) -> list[int]:
    """Distinct seeds, at least two."""
    several = [*seeds] if isinstance(seeds, Iterable) and not isinstance(seeds, str) else []
    fit = all(map(Count(at_least=0).fits, several))
    if not fit or len(several) < 2 or len({*several}) < len(several):
        raise InputError(
            "repeat: seeds must be at least two distinct integers >= 0, as in range(10), got "
            f"{in_words(seeds)}"
        )
    return [int(seed) for seed in several]


def _built(build: Build, seed: int) -> Graph:
    """The graph of a seed, each of whose modules has one."""
    graph = graph_of("repeat", called("repeat: build", build, seed), f"build({seed})")
    seed_modules([node for node in graph.modules if isinstance(node, Module)], seed)
    return graph


def _check_differ(first: Graph, second: Graph) -> None:
    """Raise InputError if two graphs of different seeds are the same, or share modules."""
    learners = [
        [n for n in graph.modules if isinstance(n, Module) and not n.frozen]
        for graph in (first, second)
    ]
    if any(node in learners[1] for node in learners[0]):
        raise InputError("repeat: build returned the same modules twice; make new ones in it")
    if len({tuple(node.seed() for node in nodes) for nodes in learners}) == 1:
        raise InputError(
            "repeat: build gives the same random_state whatever the seed; give it on, as in "
            "GMM(10, random_state=seed), or leave random_state out"
        )


def _labels_of(graph: Graph, labels: Any) -> Any:
    """Labels to score by, checked; None for none."""
    if labels is None:
        own = (getattr(node, "labels", None) for node in reversed(graph.modules))
        return next((some for some in own if some is not None), None)
    codes = labels_in(labels, "repeat: labels").codes
    top = classifier_of(graph.modules)
    n_rows = graph.observations[0].n_rows
    if top is None or len(codes) != n_rows:
        wanted = "a module with classes" if top is None else f"a label for each of {n_rows} rows"
        raise InputError(f"repeat: labels need {wanted}, got {len(codes)} labels")
    return labels


# -- runs ------------------------------------------------------------------------------------------


class _Look(Callback):
    """Keeps classes and criteria after each round."""

    def __init__(self) -> None:
        self.clusters: list[np.ndarray] = []
        self.log_likelihood: list[float] = []
        self.objective: list[float] = []

    def on_round(self, graph: TrainedGraph, record: Record) -> None:
        assert isinstance(graph, Graph)
        top = classifier_of(graph.modules)
        clusters = None if top is None or top.posterior is None else top.posterior.clusters
        self.clusters.append(np.empty(0, dtype=int) if clusters is None else clusters)
        self.log_likelihood.append(log_likelihood_of(graph))
        self.objective.append(record["updates"][-1].get("objective", np.nan))


def _run(build: Build, seed: int, rounds: int, file: Path | None) -> Record:
    """Train the graph of a seed; what is kept of it, also in its file."""
    graph, look = _built(build, seed), _Look()
    made_of = _made_of(graph, rounds) if file is not None else {}
    graph.fit(rounds, callbacks=[look], verbose=False, keep_latents=False)
    seconds = sum(u.get("seconds", 0.0) for r in graph.history for u in r["updates"])
    run = {
        "seed": seed,
        "clusters": np.array(look.clusters),  # (rounds, N)
        "log_likelihood": np.array(look.log_likelihood),
        "objective": np.array(look.objective),
        "seconds": seconds,
    }
    if file is not None:
        format.write(file, {"run": run, "made_of": made_of})
    return run


def _made_of(graph: Graph, rounds: int) -> Record:
    """What a file of a run must be of: rounds, modules with their arguments, and rows."""
    modules = {name: repr(node) for name, node in graph.names.items()}
    return {
        "rounds": rounds,
        "modules": modules,
        "rows": [observation.fingerprint() for observation in graph.observations],
    }


def _read(file: Path, made_of: Record) -> Record:
    """The run in a file; SavedFileError if it is of anything else."""
    saved = format.read(file)
    try:
        run, of = saved["run"], saved["made_of"]
        shapes = {np.shape(run[name]) for name in ("log_likelihood", "objective")}
        is_run = shapes == {(of["rounds"],)} and len(run["clusters"]) == of["rounds"]
    except (TypeError, KeyError):
        is_run = False
    if not is_run:
        raise SavedFileError(f"{file} holds no run of repeat; give another folder")
    differ = [what for what in made_of if of.get(what) != made_of[what]]
    if differ:
        raise SavedFileError(
            f"{file} holds a run of other {' and '.join(differ)}; give another folder, or delete it"
        )
    return run


def _gathered(runs: list[Record], labels: Any) -> Repeats:
    """Runs as arrays over seeds and rounds, with their scores."""
    clusters = np.array([run["clusters"] for run in runs])  # (seeds, rounds, N)
    values: dict[str, np.ndarray] = {}
    if labels is not None and clusters.shape[2]:
        scores = [[scores_of(labels, one) for one in rounds] for rounds in clusters]
        for name in scores[0][0]:
            values[name] = np.array([[one[name] for one in rounds] for rounds in scores])
    if clusters.shape[2]:
        by_round = [stability([*clusters[:, number]]) for number in range(clusters.shape[1])]
        values["stability"] = np.transpose(by_round)
    for name in ("log_likelihood", "objective"):
        numbers = np.array([run[name] for run in runs])
        if not np.isnan(numbers).all():
            values[name] = numbers
    return Repeats([run["seed"] for run in runs], values, clusters, _seconds(runs))


def _seconds(runs: list[Record]) -> np.ndarray:
    return np.array([run["seconds"] for run in runs])


def _listed(seeds: list[int]) -> str:
    """Seeds in few words."""
    if len(seeds) > 2 and seeds == [*range(seeds[0], seeds[0] + len(seeds))]:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds[:10])) + (", ..." if len(seeds) > 10 else "")
