"""How many components: what several criteria say of each number, and how far they agree."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from ..arrays import as_rows
from ..errors import GraphError, InputError
from ..graph import Graph
from ..graph.restarting import classifier_of, seed_modules, seeds_of_run
from ..metrics import ari, stability
from ..module import Module
from ..observation import Observation
from ..options import (
    Count,
    Function,
    Randomness,
    RandomState,
    called,
    check_argument,
    in_words,
    seed_of,
)
from ..saving.format import public_class
from .runs import as_text, check_running, graph_of, pandas_for, run_all

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

Build = Callable[[int], Graph | Module]
LOWER_IS_BETTER = ("bic", "icl")
_OF_FITS = ("bic", "icl", "held_out", "stability_seeds", "stability_halves")
_OF_GRAPHS = ("held_out", "stability_seeds", "stability_halves")  # that may vote on a graph
_LEAST_STABLE = 0.5  # mean adjusted Rand index below which clusters are not found again
_EXPECTED = ".*(lost all their rows|lie on each other|has not converged)"  # of too many components


@dataclass(frozen=True, repr=False)
class Selection:
    """What criteria say of each number of components; see `select_components`, which makes it.

    Its text is a table, with a star at each criterion's choice, and the recommendation.

    Attributes
    ----------
    components : list of int
        The numbers tried, in order.
    values : dict of str to np.ndarray, shape (n numbers, n runs)
        By criterion, of each run; NaN where there is no number.
    votes : dict of str to int
        The number that each criterion chooses, of those that have a vote and use it.
    n_components : int
        The number recommended: that of most votes; of several the one that `stability_halves`
        chooses, or the smallest.
    agreement : float
        Share of the votes that it has, from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> import serkit as srk
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(150, 2)) + 9 * np.repeat([[0, 0], [1, 0], [0, 1]], 50, axis=0)
    >>> selection = srk.select_components(rows, range(1, 6))
    >>> selection.n_components, selection.sureness, selection.votes["bic"]
    (3, 'sure', 3)
    """

    components: list[int]
    values: dict[str, np.ndarray]
    votes: dict[str, int]
    n_components: int
    agreement: float

    @property
    def means(self) -> dict[str, np.ndarray]:
        """Each criterion by number of components, (n numbers,): mean of the runs; NaN for none."""
        return {name: _mean(values) for name, values in self.values.items()}

    @property
    def sureness(self) -> str:
        """In words: "sure" if at least 4 of 5 votes agree, "fairly sure" if 3 of 5, or "unsure"."""
        words = {"sure": 0.8, "fairly sure": 0.6}
        return next((word for word, least in words.items() if self.agreement >= least), "unsure")

    @property
    def recommendation(self) -> str:
        """A sentence: the number, how sure that is, and what speaks against it."""
        agree = [name for name, k in self.votes.items() if k == self.n_components]
        others = [f"{name} {k}" for name, k in self.votes.items() if k != self.n_components]
        plural = "s" if self.n_components > 1 else ""
        number = f"{self.n_components} component{plural}"
        text = f"{number}, {self.sureness}: {', '.join(agree) or 'no vote'}"
        text += f" against {', '.join(others)}" if others else ""
        if self.n_components == self.components[-1] and len(self.components) > 1:
            text += "; it is the largest number tried: try larger ones"
        return text

    def __repr__(self) -> str:
        columns = {name: [*map(_short, means)] for name, means in self.means.items()}
        for name, k in self.votes.items():
            columns[name][self.components.index(k)] += " *"
        for cells in columns.values():
            ends = [cell if cell.endswith("*") else f"{cell}  " for cell in cells]
            cells[:] = [cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in ends]
        rows = [
            [str(k), *(cells[number] for cells in columns.values())]
            for number, k in enumerate(self.components)
        ]
        header = ["components", *(f"{name}  " for name in columns)]
        table = as_text(header, rows).replace("\N{NO-BREAK SPACE}", " ")
        return "\n".join(line.rstrip() for line in [*table.split("\n"), self.recommendation])

    def to_frame(self) -> pandas.DataFrame:
        """A pandas frame: a row for each number of components, and a column for each criterion.

        Raises
        ------
        ImportError
            Without pandas.
        """
        frame = pandas_for("Selection.to_frame").DataFrame(self.means, index=self.components)
        return frame.rename_axis("n_components")

    def draw(self) -> Figure:
        """A picture: each criterion by number of components, its choice and the recommendation."""
        from ..plots import by_number

        better = {n: "lower" if n in LOWER_IS_BETTER else "higher" for n in self.values}
        titles = {name: f"{name} ({better[name]} is better)" for name in self.values}
        return by_number(
            self.components,
            {titles[name]: values for name, values in self.values.items()},
            choices={titles[name]: k for name, k in self.votes.items()},
            recommended=self.n_components,
            title=self.recommendation,
        )


def select_components(
    source: ArrayLike | Build,
    components: Iterable[int] = range(1, 13),
    *,
    model: Any = None,
    n_runs: int = 3,
    rounds: int = 5,
    n_jobs: int = 1,
    random_state: RandomState = 0,
    verbose: bool = False,
) -> Selection:
    """Try numbers of components, of a mixture on rows or of a whole graph, and recommend one.

    For each number K and each run there are three fits: to all rows from another seed, and to each
    half of the rows, drawn by chance, the same for every K. Criteria are

    - ``bic``, ``icl``: Bayesian information criterion of the topmost mixture on its own rows, and
      that plus twice the entropy of the responsibilities (Biernacki, Celeux and Govaert, 2000);
      lower is better. Parameters of components that lie apart count by those components' own rows
      (`MixtureDensity.penalty`). On a table the best run counts. On a graph they are shown and have
      no vote, as the latents follow the mixture and each other encoder has others.
    - ``held_out``: the log-likelihood of a mixture, or the joint bound of a graph, in nats per row,
      of the half that was not fitted. It chooses the smallest K that is within one standard error
      of the best (of differences between the same halves).
    - ``stability_seeds``, ``stability_halves``: mean adjusted Rand index of the classes of all
      rows, between fits from different seeds and between the two halves' (Lange, Roth, Braun and
      Buhmann, 2004). Each chooses the largest K within one standard error of the best, and 0.01,
      for clusters that are far apart can also be merged in a stable way; never K = 1, which is
      stable of itself, and neither if halves agree by less than 0.5 at best.
    - ``objective``, of graphs: the joint objective of all rows. It has no vote, as it does not pay
      for what it fits too closely.

    Parameters
    ----------
    source : array-like, shape (N, D), or callable
        A table, or latents; or a function from K to a new graph or its leaf, ``build(k)``. Its
        modules get new seeds in later runs, as by ``fit(restarts=)``, and those without
        `random_state` some made of the one given here.
    components : iterable of int
        The numbers K to try.
    model : GMM, optional
        For a table: its other arguments, ``GMM(1, covariance_type="diag")``; GMM's defaults unless
        given. Or any other module of `n_components` that fits a density.
    n_runs : int
        At least two.
    rounds : int
        Of a graph; a mixture by itself has one.
    n_jobs, verbose
        As in `repeat`.
    random_state : int, np.random.Generator or np.random.RandomState
        For halves and seeds.

    Raises
    ------
    InputError
        For numbers that are none, or more components than half of the rows.
    GraphError
        If a `build` returns something else, or a graph without classes.

    Examples
    --------
    >>> import numpy as np
    >>> import serkit as srk
    >>> from serkit.modules import GMM
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(120, 3)) + 6 * np.eye(3)[np.arange(120) % 2]
    >>> def build(k):
    ...     return GMM(k, covariance_type="diag").connect(srk.Observation(rows))
    >>> srk.select_components(build, [1, 2, 3], rounds=1, n_runs=2).n_components
    2
    """
    label = "select_components"
    numbers = _checked_numbers(components)
    check_argument(label, "n_runs", n_runs, Count(at_least=2))
    check_argument(label, "rounds", rounds, Count())
    check_argument(label, "random_state", random_state, Randomness())
    check_running(label, n_jobs, verbose)
    is_graph = callable(source)
    if is_graph:
        check_argument(label, "source", source, Function(of=("k",)))
        if model is not None:
            raise InputError(f"{label}: model= is for a table; build(k) makes its own")
        build: Any = source
    else:
        table: Any = source
        build, rounds = partial(_mixture_on, as_rows(table, label), _checked_model(model)), 1
    seed = seed_of(random_state)
    for k in numbers:
        _check_graph(_graph(build, k, seed), k)
    tasks = [(build, k, run, rounds, seed) for k in numbers for run in range(n_runs)]
    runs = [*run_all(_run, tasks, n_jobs, verbose, label)]
    return _selected(numbers, [runs[i : i + n_runs] for i in range(0, len(runs), n_runs)], is_graph)


def _checked_numbers(components: Any) -> list[int]:
    """Distinct numbers of components, in order."""
    several = [*components] if isinstance(components, Iterable) else []
    if not several or not all(map(Count().fits, several)) or isinstance(components, str):
        raise InputError(
            "select_components: components must be integers >= 1, as in range(1, 13), got "
            f"{in_words(components)}"
        )
    return sorted({int(k) for k in several})


def _checked_model(model: Any) -> Any:
    """A mixture to copy with other numbers of components."""
    model = public_class("serkit.modules.GMM")(1) if model is None else model  # type: ignore[misc]
    if not isinstance(model, Module) or "n_components" not in model.get_params(deep=False):
        raise InputError(
            "select_components: model must be a module with n_components, such as GMM(1), got "
            f"{in_words(model)}"
        )
    return model


def _mixture_on(rows: np.ndarray, model: Any, k: int) -> Module:
    return clone(model).set_params(n_components=k).connect(Observation(rows))


def _graph(build: Build, k: int, seed: int) -> Graph:
    """The graph of K components as a copy, so that none shares anything with what users hold."""
    graph = graph_of("select_components", called("build", build, k), f"build({k})")
    rows = {id(o.data): o.data for o in graph.observations}
    graph = copy.deepcopy(graph, rows)
    seed_modules(_learners(graph), seed)
    return graph


def _learners(graph: Graph) -> list[Module]:
    return [node for node in graph.modules if isinstance(node, Module)]


def _check_graph(graph: Graph, k: int) -> None:
    if classifier_of(graph.modules) is None:
        raise GraphError(f"select_components: no module of build({k}) has classes")
    n_rows = graph.observations[0].n_rows
    if 2 * k > n_rows:
        raise InputError(
            f"select_components: {k} components are more than half of the {n_rows} rows"
        )
    graph.check()


# -- runs ------------------------------------------------------------------------------------------


def _run(build: Build, k: int, run: int, rounds: int, seed: int) -> dict[str, Any]:
    """The numbers of a run, and the classes of all rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _EXPECTED)
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole = _fitted(_graph(build, k, seed), run, rounds)
        top: Any = classifier_of(whole.modules)
        objective = whole.objective()
        numbers: dict[str, Any] = {
            **_information(whole),
            "objective": np.nan if objective is None else objective,
            "clusters": top.posterior.clusters,
        }
        if not _is_ordered(whole):
            numbers |= _of_halves(build, k, run, rounds, seed)
    return numbers


def _fitted(graph: Graph, run: int, rounds: int) -> Graph:
    with seeds_of_run([m for m in _learners(graph) if not m.frozen], run):
        return graph.fit(rounds, verbose=False, keep_latents=False)


def _information(graph: Graph) -> dict[str, float]:
    """BIC and ICL of the topmost mixture on its own rows, if there is one."""
    mixtures = [
        m for m in reversed(_learners(graph)) if hasattr(m, "bic") and hasattr(m, "density")
    ]
    if not mixtures or not hasattr(mixtures[0], "responsibilities_"):
        return {}
    mixture: Any = mixtures[0]
    n_rows, r = len(mixture.responsibilities_), mixture.responsibilities_
    log_likelihood = n_rows * float(mixture.log_likelihood_[-1])
    bic = -2 * log_likelihood + mixture.density().penalty(n_rows)
    return {"bic": bic, "icl": bic + 2 * float(entr(r).sum())}


def _is_ordered(graph: Graph) -> bool:
    """Whether rows are in sequences, which random halves would break."""
    chain: Any = public_class("serkit.modules.MarkovModel")
    return any(isinstance(node, chain) for node in graph.modules)


def _of_halves(build: Build, k: int, run: int, rounds: int, seed: int) -> dict[str, float]:
    """Held-out bound and agreement of the fits to the two halves of a split."""
    every: list[Any] = [o.message_up for o in _graph(build, k, seed).observations]
    n_rows = every[0].n_rows
    order = np.random.default_rng([seed, run]).permutation(n_rows)
    halves = np.sort(order[: n_rows // 2]), np.sort(order[n_rows // 2 :])
    fits = [_fitted(_on_rows(_graph(build, k, seed), half), run, rounds) for half in halves]
    bounds = [
        fit.objective(*(_taken(message, half) for message in every))
        for fit, half in zip(fits, reversed(halves), strict=True)
    ]
    first, second = (fit.predict(*every).classes for fit in fits)
    held_out = np.nan if None in bounds else float(np.mean(bounds))  # type: ignore[arg-type]
    return {"held_out": held_out, "stability_halves": ari(first, second)}


def _taken(message: Any, rows: np.ndarray) -> Any:
    """Some rows of a message of data."""
    observed = None if message.observed is None else message.observed[rows]
    return type(message)(message.array[rows], observed=observed)


def _on_rows(graph: Graph, rows: np.ndarray) -> Graph:
    """A graph on some of its rows; what modules know of each row goes with these."""
    n_rows = graph.observations[0].n_rows
    fewer = {
        old: Observation(
            old.data[rows],  # type: ignore[index]
            observed=None if old.observed is None else old.observed[rows],
            image_shape=old.image_shape,
            name=old.name,
        )
        for old in graph.observations
    }
    for module in _learners(graph):
        module.connect(*(fewer.get(parent, parent) for parent in module.parents))
        for name in {"labels", "observed_labels", "sample_weight", "responsibilities_init"}:
            values = getattr(module, name, None)
            if values is not None and np.shape(values)[:1] == (n_rows,):
                module.set_params(**{name: np.asarray(values)[rows]})
    return Graph(*_learners(graph))


# -- choice ----------------------------------------------------------------------------------------


def _selected(numbers: list[int], runs: list[list[dict[str, Any]]], is_graph: bool) -> Selection:
    """What runs, by number of components, say and recommend."""
    for of_number in runs:
        for run, value in zip(
            of_number, stability([r["clusters"] for r in of_number]), strict=True
        ):
            run["stability_seeds"] = float(value)
    names = [*_OF_FITS, *(["objective"] if is_graph else [])]
    values = {
        name: np.array([[run.get(name, np.nan) for run in of_number] for of_number in runs])
        for name in names
    }
    values = {name: v for name, v in values.items() if not np.isnan(v).all()}
    voters = [name for name in (_OF_GRAPHS if is_graph else _OF_FITS) if name in values]
    choices = {name: _choice(name, numbers, values[name]) for name in voters}
    if choices.get("stability_halves", 1) is None:  # seeds may agree on what is not in the data
        choices["stability_seeds"] = None
    votes = {name: k for name, k in choices.items() if k is not None}
    counts = {k: [*votes.values()].count(k) for k in sorted({*votes.values()})}
    best = [k for k, count in counts.items() if count == max(counts.values())] or numbers[:1]
    tie = votes.get("stability_halves")
    chosen = tie if tie in best else best[0]
    agreement = counts.get(chosen, 0) / max(len(votes), 1)
    return Selection(numbers, values, votes, int(chosen), agreement)


def _choice(name: str, numbers: list[int], values: np.ndarray) -> int | None:
    """The number of components that a criterion chooses, None for no vote."""
    if name in LOWER_IS_BETTER:
        return numbers[int(np.nanargmin(np.nanmin(values, axis=1)))]
    tried = np.array(numbers)
    if name == "held_out":
        return int(tried[_near_best(values)].min())
    values, tried = values[tried > 1], tried[tried > 1]
    if not len(tried) or _mean(values).max() < _LEAST_STABLE:
        return None
    return int(tried[_near_best(values, at_most=0.01)].max())


def _near_best(values: np.ndarray, at_most: float = np.inf) -> np.ndarray:
    """Whether a number is within a standard error of the best: (n numbers, n runs) -> (n numbers,).

    Of differences between the same runs, which have the same rows.
    """
    gaps = values[np.argmax(_mean(values))] - values
    error = gaps.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    return gaps.mean(axis=1) <= np.minimum(error, at_most) + 1e-9


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over runs, NaN where one has no number."""
    return values.mean(axis=1)


def _short(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"
