"""Stepwise EM: a Gaussian mixture learnt from batches that come one after the other.

O. Cappé, E. Moulines (2009). On-line expectation-maximization algorithm for latent data models.
*Journal of the Royal Statistical Society B* 71(3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import pairwise_distances_argmin

from ... import arrays, processes
from ...density import DIAGONAL_TYPES, MixtureDensity
from ...messages import Categorical
from ..common.plus_plus import plus_plus_centres
from .components import Prior, draw, log_prior, maximise
from .rows import Rows
from .statistics import (
    Statistics,
    assign,
    expect,
    log_joint,
    packed,
    summarise,
    to_log_probabilities,
    totals,
)

_ROWS_TO_START_FROM = 2**16


@dataclass(frozen=True)
class Problem:
    """What stays the same over all starts of one fit.

    Statistics are of the rows of all processes that share them, and so are the mixtures.

    Attributes
    ----------
    rows : Rows
        x (N, D), with variances or without: this process's.
    weight : (N,)
        Sample weights.
    told : Categorical or None
        What the children say about the rows' classes.
    """

    rows: Rows
    weight: np.ndarray
    told: Categorical | None
    n_components: int
    covariance_type: str
    prior: Prior | None
    reg_covar: float
    max_iter: int
    tol: float

    def expect(self, parameters: MixtureDensity) -> Statistics:
        """The E-step."""
        return totals(expect(self.rows, self.weight, parameters, self.told))

    def assign(self, parameters: MixtureDensity, rng: np.random.Generator) -> Statistics:
        """The same with one class drawn for each row."""
        return totals(assign(self.rows, self.weight, parameters, self.told, rng))

    def maximise(self, statistics: Statistics) -> MixtureDensity:
        """The M-step."""
        return maximise(statistics, self.covariance_type, self.prior, self.reg_covar)

    def start(self, responsibilities: Callable[[slice], np.ndarray]) -> MixtureDensity:
        """The mixture of given responsibilities: from a slice of the rows to (n, K)."""
        options = self.n_components, self.covariance_type
        return self.maximise(totals(summarise(self.rows, self.weight, responsibilities, *options)))

    def responsibilities(self, parameters: MixtureDensity) -> np.ndarray:
        """P(k | row) with what the children say, (N, K)."""
        log_prob = to_log_probabilities(log_joint(self.rows, parameters, self.told))
        return np.exp(log_prob, out=log_prob)

    def log_prior(self, parameters: MixtureDensity) -> float:
        """The parameters' log prior, a row, so that it adds to the mean log-likelihood."""
        return log_prior(parameters, self.prior) / self.total_weight

    @cached_property
    def total_weight(self) -> float:
        """Sum of the weights of all processes' rows."""
        return processes.total(self.weight.sum())


@dataclass(frozen=True)
class Solution:
    """One fitted mixture.

    Attributes
    ----------
    log_likelihood, lower_bound : list of float
        Mean log-likelihood a row, and the same plus the parameters' log prior, an iteration.
    """

    parameters: MixtureDensity
    log_likelihood: list[float] = field(default_factory=list)
    lower_bound: list[float] = field(default_factory=list)
    converged: bool = False


def draw_classes(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class for each row of probabilities (N, K): (N,)."""
    limits = probabilities.cumsum(axis=1)
    return (limits < rng.random((len(limits), 1)) * limits[:, -1:]).sum(axis=1)


def neutral_bound(rows: Rows) -> float:
    """The same of the neutral message: mean over rows of E[log N(x; 0, I)] of what was seen."""
    total = 0.0
    for part in arrays.blocks(rows.x):
        second_moment = rows.block(part) ** 2 + (
            0 if rows.variances is None else rows.variances[part]
        )
        terms = -0.5 * (second_moment + np.log(2 * np.pi))
        total += np.where(True if rows.seen is None else rows.seen[part], terms, 0).sum()
    return float(total / len(rows))


def expectation_maximisation(problem: Problem, parameters: MixtureDensity) -> Solution:
    """Alternate E- and M-steps from `parameters` until the bound gains less than `tol`.

    The bound, log-likelihood plus log prior, never falls (Dempster, Laird and Rubin, 1977).
    """
    likelihoods, bounds = [], []
    for iteration in range(problem.max_iter + 1):
        statistics = problem.expect(parameters)
        likelihoods.append(statistics.log_likelihood / statistics.weight)
        bounds.append(likelihoods[-1] + problem.log_prior(parameters))
        gains_little = iteration > 0 and abs(bounds[-1] - bounds[-2]) < problem.tol
        converged = processes.any_of(gains_little)  # processors may round differently
        if converged or iteration == problem.max_iter:
            break
        parameters = problem.maximise(statistics)
    return Solution(parameters, likelihoods, bounds, converged)


def gibbs_sampling(
    problem: Problem, parameters: MixtureDensity, rng: np.random.Generator
) -> Solution:
    """`max_iter` sweeps: all assignments given the parameters, then all parameters given those.

    A blocked sampler, vectorised over rows. The solution holds the mode of the parameters given
    the last sweep's assignments.
    """
    likelihoods, bounds = [], []

    def note(statistics: Statistics) -> None:
        likelihoods.append(statistics.log_likelihood / statistics.weight)
        bounds.append(likelihoods[-1] + problem.log_prior(parameters))

    rng_of_rows = processes.generator(rng)
    for _ in range(problem.max_iter):
        statistics = problem.assign(parameters, rng_of_rows)
        note(statistics)
        parameters = draw(statistics, problem.covariance_type, problem.prior, rng)
    parameters = problem.maximise(statistics)
    note(problem.expect(parameters))
    return Solution(parameters, likelihoods, bounds, True)


def plus_plus_starts(
    problem: Problem, n_init: int, rng: np.random.Generator
) -> Iterable[MixtureDensity]:
    """Mixtures of `n_init` assignments to k-means++ centres.

    Of many rows the centres are found among some, drawn at random.
    """
    x, weight = problem.rows.x, problem.weight
    counting = np.flatnonzero(weight)
    place = processes.place(len(counting))
    n_counting = int(processes.total(len(counting)))
    for _ in range(n_init):
        seed, some = int(rng.integers(2**31)), counting
        if n_counting > _ROWS_TO_START_FROM:
            drawn = np.random.default_rng(seed).choice(
                n_counting, _ROWS_TO_START_FROM, replace=False
            )
            own = np.sort(drawn[(drawn >= place.start) & (drawn < place.stop)])
            some = counting[own - place.start]
        centres = plus_plus_centres(x[some], weight[some], problem.n_components, seed)
        yield start_from_means(problem, centres)


def start_from_means(problem: Problem, means: np.ndarray) -> MixtureDensity:
    """The mixture of the assignment of every row to its nearest mean."""
    classes = np.eye(problem.n_components)

    def nearest(part: slice) -> np.ndarray:
        return classes[pairwise_distances_argmin(problem.rows.block(part), means)]

    return problem.start(nearest)


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
    aligned = replace(solution, parameters=solution.parameters.permuted(order))
    if problem.told is not None:
        statistics = problem.expect(aligned.parameters)
        if statistics.log_likelihood / statistics.weight < solution.log_likelihood[-1] - 1e-6:
            return solution, responsibilities
    return aligned, problem.responsibilities(aligned.parameters)


_DECAY = 0.6  # between 0.5 and 1 the steps add up to infinity and their squares do not


@dataclass(frozen=True)
class Stream:
    """What is kept of all batches so far.

    Attributes
    ----------
    sums : (K, F)
        Statistics a row.
    centre : (D,)
        Mean of the rows fitted first: what statistics are about, and where the prior stands.
    weight : float
        Number of rows so far.
    n_batches : int
    """

    sums: np.ndarray
    centre: np.ndarray
    weight: float
    n_batches: int


def stream_of(density: MixtureDensity, n_rows: int) -> Stream:
    """What a mixture that was fitted to n_rows rows says of them, as the first batch."""
    centre = density.weights @ density.means
    x, diagonal = density.means - centre, density.covariance_type in DIAGONAL_TYPES
    if diagonal:
        second = density.variances() + x**2
    else:
        second = packed(density.full_covariances() + x[:, :, None] * x[:, None], diagonal)
    features = np.concatenate([second, x, np.ones((len(x), 1))], axis=1)  # (K, F)
    return Stream(density.weights[:, None] * features, centre, float(n_rows), 1)


def learn_batch(
    problem: Problem, density: MixtureDensity, stream: Stream, step_size: float | None
) -> tuple[MixtureDensity, Stream, float]:
    """One step: new mixture, new stream, and the batch's log-likelihood a row before it.

    Statistics become ``(1 - s) old + s new`` with s = (t + 1)^-0.6 for batch t = 2, 3, ... unless
    `step_size` gives s. The M-step takes them as those of all rows so far, against which a prior
    weighs less and less.
    """
    found = problem.expect(density)
    t = stream.n_batches + 1
    share = (t + 1) ** -_DECAY if step_size is None else step_size
    sums = (1 - share) * stream.sums + share * found.sums / found.weight
    stream = Stream(sums, stream.centre, stream.weight + found.weight, t)
    whole = replace(found, sums=stream.weight * sums)
    return problem.maximise(whole), stream, found.log_likelihood / found.weight
