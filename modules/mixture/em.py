"""Fitting a mixture: EM, Gibbs sampling, their starts, and EM on batches of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.special import rel_entr

from ... import processes
from ...density import DIAGONAL_TYPES, MixtureDensity
from ...errors import TrainingError
from ...messages import Categorical
from ..common.estimators import share_of_batch
from ..common.plus_plus import k_means, nearest, plus_plus_centres
from .components import Prior, drawn_density, log_prior, m_step
from .on_device import RowsOnDevice, is_worth_it
from .rows import Rows
from .statistics import (
    Responsibilities,
    Statistics,
    e_step,
    gibbs_step,
    kept_features,
    packed,
    responsibilities_of,
    statistics_of,
)

CPU = torch.device("cpu")
_ROWS_TO_START_FROM = 2**16
_ENDS_OF_TRIALS = 10, 20  # steps of EM after which half of the starts is given up, ...
_FEWEST_STARTS = 3  # ... but for these
_UNSETTLED = 0.05  # share of rows that may change their component in a mixture that has settled


class Score(NamedTuple):
    """A mixture's mean log-likelihood per row, and that plus the parameters' log prior."""

    log_likelihood: float
    bound: float


@dataclass(frozen=True)
class Problem:
    """What stays the same over all starts of one fit.

    Statistics are of the rows of all processes that share them, and so are the mixtures.
    """

    rows: Rows  # this process's
    from_children: Categorical | None  # what the children say about the rows' classes
    n_components: int
    covariance_type: str
    prior: Prior | None  # None for maximum likelihood
    reg_covar: float
    max_iter: int
    tol: float
    device: torch.device = CPU

    @cached_property
    def total_weight(self) -> float:
        """Sum of the weights of all processes' rows."""
        return processes.total(self.rows.weights.sum())

    @cached_property
    def features(self) -> np.ndarray | None:
        """The rows' features (F, N) where they are few enough to be kept for all steps."""
        return kept_features(self.rows, self.covariance_type)

    @cached_property
    def on_device(self) -> RowsOnDevice | None:
        """The rows on the device, where E-steps take less time there."""
        kind = self.n_components, self.covariance_type
        if not is_worth_it(self.rows, *kind, self.device):
            return None
        return RowsOnDevice.of(self.rows, self.from_children, self.device)

    def score(self, statistics: Statistics, density: MixtureDensity) -> Score:
        """Score of a mixture, by the statistics under its responsibilities."""
        log_likelihood = statistics.log_likelihood / self.total_weight
        per_row = log_prior(density, self.prior) / self.total_weight
        return Score(log_likelihood, log_likelihood + per_row)


@dataclass
class Solution:
    """One fitted mixture, and how it came about."""

    density: MixtureDensity
    curve: list[Score]  # one an iteration, the start's first
    converged: bool

    @property
    def log_likelihood(self) -> float:
        """Mean log-likelihood per row of the fitted mixture."""
        return self.curve[-1].log_likelihood

    @property
    def gain(self) -> float:
        """By how much the last step raised the bound; infinite before there was one."""
        return self.curve[-1].bound - self.curve[-2].bound if len(self.curve) > 1 else np.inf


# -- fitting ---------------------------------------------------------------------------------------


def expectation_maximisation(problem: Problem, *starts: MixtureDensity) -> Solution:
    """The likeliest mixture that E- and M-steps in turn make of some starts.

    They go on until the bound, log-likelihood plus log prior, gains less than `tol`; it never falls
    (Dempster, Laird and Rubin, 1977). The starts take their steps together. The less likely half
    is given up after 10 steps, and half of the rest after 20, but three go on.
    """
    solutions = [Solution(start, [], converged=False) for start in starts]
    on_device = problem.on_device
    e_step_of = partial(
        e_step,
        problem.rows,
        from_children=problem.from_children,
        features=problem.features,
        totals_on_device=on_device.totals if on_device else None,
    )
    for iteration in range(problem.max_iter + 1):
        going = [solution for solution in solutions if not solution.converged]
        densities = [solution.density for solution in going]
        every = e_step_of(densities)
        for solution, statistics in zip(going, every, strict=True):
            solution.curve.append(problem.score(statistics, solution.density))
        gain_little = processes.of_first([bool(abs(s.gain) < problem.tol) for s in going])
        for solution, converged in zip(going, gain_little, strict=True):
            solution.converged = converged
        if iteration in _ENDS_OF_TRIALS:
            solutions = best_first(solutions)[: max(-(-len(solutions) // 2), _FEWEST_STARTS)]
        if iteration == problem.max_iter or all(solution.converged for solution in solutions):
            break
        for solution, statistics in zip(going, every, strict=True):
            if not solution.converged:
                solution.density = m_step(statistics, problem.prior, problem.reg_covar)
    return best_first(solutions)[0]


def best_first(solutions: Sequence[Solution]) -> list[Solution]:
    """Solutions in the order of their log-likelihoods, the highest first; the same everywhere.

    Of solutions that are equal but for rounding the earlier start comes first, on any processor.
    """
    order = np.argsort(
        [-round(solution.log_likelihood, 9) for solution in solutions], kind="stable"
    )
    return [solutions[i] for i in processes.of_first(order.tolist())]


def gibbs_sampling(problem: Problem, density: MixtureDensity, rng: np.random.Generator) -> Solution:
    """`max_iter` sweeps: all classes given the parameters, then all parameters given those.

    A blocked sampler, vectorised over rows. The solution is the mode of the parameters given the
    last sweep's classes.
    """
    assert problem.prior is not None
    curve, rng_of_rows = [], processes.generator(rng)
    for _ in range(problem.max_iter):
        statistics = gibbs_step(problem.rows, density, problem.from_children, rng_of_rows)
        curve.append(problem.score(statistics, density))
        density = drawn_density(statistics, problem.prior, rng)
    density = m_step(statistics, problem.prior, problem.reg_covar)
    [statistics] = e_step(problem.rows, [density], problem.from_children)
    return Solution(density, [*curve, problem.score(statistics, density)], True)


def align(
    problem: Problem, solution: Solution, responsibilities: np.ndarray, reference: np.ndarray
) -> tuple[Solution, np.ndarray]:
    """Number the components as in `reference` (N, K): the matching that shares most mass.

    Returns the solution and its responsibilities (N, K), with other numbers where they differed.
    The numbers stay as they are where the children's messages speak for them.
    """
    shared = processes.total(reference.T @ responsibilities)  # (K, K)
    _, order = linear_sum_assignment(shared, maximize=True)
    if (np.diff(order) == 1).all():  # the numbers agree
        return solution, responsibilities
    density = solution.density.permuted(order)
    if problem.from_children is not None:
        [statistics] = e_step(problem.rows, [density], problem.from_children)
        if statistics.log_likelihood / problem.total_weight < solution.log_likelihood - 1e-6:
            return solution, responsibilities
    aligned = responsibilities_of(problem.rows, density, problem.from_children)
    return replace(solution, density=density), aligned


def are_settled(problem: Problem, density: MixtureDensity, previous: np.ndarray) -> bool:
    """Whether hardly any row is of another component than by the last responsibilities (N, K)."""
    now = responsibilities_of(problem.rows, density, problem.from_children)
    differ = now.argmax(axis=1) != previous.argmax(axis=1)
    changed = processes.total(float(problem.rows.weights @ differ))
    return changed <= _UNSETTLED * problem.total_weight


def are_degenerate(problem: Problem, density: MixtureDensity, counts: np.ndarray) -> np.ndarray:
    """Whether maximum likelihood has shrunk components of these numbers of rows: (K,), (K,).

    They rest on two rows a dimension or less, or are as narrow as `reg_covar` in more directions
    than all components together are, or the data are in some column. With a prior none can be, nor
    with a common covariance.
    """
    kind = density.covariance_type
    if problem.prior is not None or kind == "tied":
        return np.zeros(len(counts), dtype=bool)
    narrow, covariance = 2 * problem.reg_covar, density.covariance()
    n_narrow = (np.linalg.eigvalsh(density.full_covariances()) <= narrow).sum(axis=1)
    n_narrow_in_all = (np.linalg.eigvalsh(covariance) <= narrow).sum()
    variances = np.diag(covariance)
    varies = variances > (1 + 1e-9) * problem.reg_covar  # a constant column tells nothing
    n_few = 2 * density.n_dims if kind == "full" else 2
    swallowed = (varies & (variances <= narrow)).any()
    return (counts <= n_few) | (n_narrow > n_narrow_in_all) | swallowed


def check_finite(label: str, score: Score) -> None:
    """Raise TrainingError unless a likelihood is finite."""
    if not np.isfinite(score.bound):
        raise TrainingError(
            f"{label}: the likelihood became {score.bound}; scale the data, or choose a prior "
            "closer to it. What was learnt before is kept"
        )


@contextmanager
def explained(label: str, reg_covar: float) -> Iterator[None]:
    """Say what to do where a covariance matrix is not positive definite."""
    try:
        yield
    except np.linalg.LinAlgError:
        raise TrainingError(
            f"{label}: a covariance matrix is not positive definite; raise "
            f"reg_covar={reg_covar}, or use inference='map' or covariance_type='diag'"
        ) from None


# -- starts ----------------------------------------------------------------------------------------


def start_from(problem: Problem, responsibilities: Responsibilities) -> MixtureDensity:
    """The mixture of given responsibilities: from a slice of the rows to (n, K)."""
    kinds = problem.n_components, problem.covariance_type
    statistics = statistics_of(problem.rows, responsibilities, *kinds, problem.features)
    return m_step(statistics, problem.prior, problem.reg_covar)


def start_from_means(problem: Problem, means: np.ndarray) -> MixtureDensity:
    """The mixture of the assignment of every row to its nearest mean."""
    classes, rows = np.eye(problem.n_components), problem.rows
    centred_means = means - rows.centre

    def of_nearest(tile: slice) -> np.ndarray:
        return classes[nearest(rows.centred(tile), centred_means)]

    return start_from(problem, of_nearest)


def starts_from_children(problem: Problem, classes: Categorical) -> list[MixtureDensity]:
    """The mixture of the classes that the children's message makes probable; none if it tells none.

    A row counts by what the message says of it in particular, so that rows of which it says nothing
    do not draw all components to the middle.
    """
    information = information_of(classes)
    if processes.total(information.sum()) < problem.n_components:
        return []

    def informed(tile: slice) -> np.ndarray:
        return information[tile, None] * np.exp(classes.log_prob[tile])

    return [start_from(problem, informed)]


def information_of(classes: Categorical) -> np.ndarray:
    """KL(P(k | n) || mean of P(k | n) over rows) / log K, (N,), of each row: from 0 up.

    Its mean over rows is the mutual information of row and class as a share of the most there can
    be.
    """
    probabilities = np.exp(classes.log_prob)
    mean = processes.total(probabilities.sum(axis=0)) / processes.total(len(probabilities))
    return rel_entr(probabilities, mean).sum(axis=1) / np.log(max(len(mean), 2))


def plus_plus_starts(
    problem: Problem, n_init: int, rng: np.random.Generator
) -> Iterator[MixtureDensity]:
    """Mixtures of `n_init` assignments to the centres of k-means, which k-means++ starts.

    Of many rows the centres are found among some, drawn at random.
    """
    rows, weight = problem.rows, problem.rows.weights
    counting = np.flatnonzero(weight)
    place, n_counting = processes.place(len(counting)), int(processes.total(len(counting)))
    for _ in range(n_init):
        seed, some = int(rng.integers(2**31)), counting
        if n_counting > _ROWS_TO_START_FROM:
            draw = np.random.default_rng(seed).choice
            drawn = draw(n_counting, _ROWS_TO_START_FROM, replace=False)
            here = np.sort(drawn[(drawn >= place.start) & (drawn < place.stop)])
            some = counting[here - place.start]
        x = rows.centred(some)
        centres = plus_plus_centres(x, weight[some], problem.n_components, seed)
        centres = k_means(x, weight[some], centres)
        start = start_from_means(problem, centres + rows.centre)
        yield start if problem.from_children is None else numbered_by_children(problem, start)


def numbered_by_children(problem: Problem, density: MixtureDensity) -> MixtureDensity:
    """The mixture with its components numbered as the children's message does, as far as it can."""
    assert problem.from_children is not None
    responsibilities = responsibilities_of(problem.rows, density, None)
    shared = processes.total(np.exp(problem.from_children.log_prob).T @ responsibilities)  # (K, K)
    _, order = linear_sum_assignment(shared, maximize=True)
    gain = shared[np.arange(len(order)), order].sum() - np.trace(shared)
    return density.permuted(order) if gain > 1e-9 * shared.sum() else density  # else rounding


# -- batches of a stream ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """What is kept of all batches so far."""

    sums: np.ndarray  # statistics per row, (K, F)
    centre: np.ndarray  # (D,), mean of the rows fitted first: of the statistics and of the prior
    variances: np.ndarray  # (D,), theirs by the mixture, for the prior
    weight: float  # number of rows so far
    n_batches: int


def stream_of(density: MixtureDensity, n_rows: float) -> Stream:
    """What a mixture that was fitted to n_rows rows says of them, as the first batch."""
    centre = density.weights @ density.means
    x = density.means - centre
    second = density.variances() + x**2  # (K, D)
    variances = density.weights @ second
    if density.covariance_type not in DIAGONAL_TYPES:
        matrices = density.full_covariances() + x[:, :, None] * x[:, None]
        second = packed(matrices, diagonal=False)
    features = np.concatenate([second, x, np.ones((len(x), 1))], axis=1)  # (K, F)
    return Stream(density.weights[:, None] * features, centre, variances, float(n_rows), 1)


def learn_batch(
    problem: Problem, density: MixtureDensity, stream: Stream, step_size: float | None
) -> tuple[MixtureDensity, Stream, Score]:
    """Take one step of stepwise EM: new mixture, new stream, and the old mixture's score.

    Statistics become ``(1 - s) old + s new`` with s = (t + 1)^-0.6 for batch t = 2, 3, ... unless
    `step_size` gives s. The M-step takes them as those of all rows so far, against which a prior
    weighs less and less.

    O. Cappé, E. Moulines (2009). On-line expectation-maximization algorithm for latent data models.
    *Journal of the Royal Statistical Society B* 71(3).
    """
    [statistics], t = e_step(problem.rows, [density]), stream.n_batches + 1
    step = share_of_batch(t, step_size)
    sums = (1 - step) * stream.sums + step * statistics.sums / problem.total_weight
    stream = replace(stream, sums=sums, weight=stream.weight + problem.total_weight, n_batches=t)
    whole = replace(statistics, sums=stream.weight * sums)
    log_likelihood = statistics.log_likelihood / problem.total_weight
    bound = log_likelihood + log_prior(density, problem.prior) / stream.weight
    return m_step(whole, problem.prior, problem.reg_covar), stream, Score(log_likelihood, bound)
