"""Split-and-merge EM: ways out of optima with two components in one cluster and one over two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, islice

import numpy as np

from ... import processes
from ...density import MixtureDensity
from .em import Problem, Solution, expectation_maximisation, plus_plus_starts
from .rows import Rows
from .statistics import log_likelihoods, log_posterior, log_weights_of

_SPLIT_ITERATIONS = 10  # of EM within one component, before EM over all of them
_NEGLIGIBLE = 1e-3  # rows of smaller responsibilities are not asked how to split a component


def split_and_merge(
    problem: Problem, solution: Solution, n_tries: int, rng: np.random.Generator
) -> Solution:
    """The best solution that `n_tries` exchanges of components lead to; the given one at worst.

    In a try components i and j become one and k becomes two, so that their number stays, and so do
    the numbers of the others; EM goes on from there. What it comes to is taken if its
    log-likelihood, by which starts are chosen as well, is higher by more than the problem's `tol`,
    and the next tries are made from it. The most promising triples are tried first (`exchanges`).
    With messages from children nothing is tried: they speak of components by number.

    N. Ueda, R. Nakano, Z. Ghahramani, G. E. Hinton (2000). SMEM algorithm for mixture models.
    *Neural Computation* 12(9).

    Parameters
    ----------
    problem : Problem
    solution : Solution
        Of `expectation_maximisation`.
    n_tries : int
        At least 0.
    rng : np.random.Generator
        Equal in all processes.

    Returns
    -------
    Solution

    Examples
    --------
    Three pairs of points, from two means in the first pair and one between the others:

    >>> import numpy as np
    >>> from serkit.modules.mixture import em
    >>> from serkit.modules.mixture.rows import Rows
    >>> from serkit.modules.mixture.split_merge import split_and_merge
    >>> x = np.array([[0.0], [0.1], [8.0], [8.1], [12.0], [12.1]])
    >>> problem = em.Problem(Rows(x), None, 3, "spherical", None, 1e-2, max_iter=50, tol=1e-3)
    >>> start = em.start_from_means(problem, np.array([[0.0], [0.1], [10.0]]))
    >>> stuck = em.expectation_maximisation(problem, start)
    >>> np.sort(stuck.density.means[:, 0]).round()
    array([ 0.,  0., 10.])
    >>> found = split_and_merge(problem, stuck, 3, np.random.default_rng(0))
    >>> np.sort(found.density.means[:, 0]).round()
    array([ 0.,  8., 12.])
    """
    if problem.from_children is not None:
        return solution
    n_left = n_tries
    while n_left > 0:
        for start in islice(exchanges(problem, solution.density, rng), n_left):
            n_left -= 1
            other = _solution_from(problem, start)
            if other is not None and _is_better(problem, other, solution):
                solution = other
                break
        else:  # each has been tried
            break
    return solution


def exchanges(
    problem: Problem, density: MixtureDensity, rng: np.random.Generator
) -> Iterator[MixtureDensity]:
    """Mixtures with i and j merged into i, and k split into j and k, the most promising first.

    That is by what the split of k gains in log-likelihood, at least, less what the merger loses.
    (Ueda et al. rank by the overlap of i and j and by how far k is from its rows. The latter, with
    the rows as points, comes to k's volume per row whatever their shape; on latents of images as
    many tries gained less in that order.)
    """
    beliefs = Beliefs.of(problem.rows, density)
    pairs = list(combinations(range(problem.n_components), 2))
    unions = {pair: merged(density, pair) for pair in pairs}
    splits = [split(problem, beliefs, k, rng) for k in range(problem.n_components)]
    losses = {pair: loss_of_merger(beliefs, pair, union) for pair, union in unions.items()}
    triples = [
        (losses[pair] - found.gain, pair, k)
        for k, found in enumerate(splits)
        for pair in pairs
        if found is not None and k not in pair
    ]
    for _, pair, k in processes.of_first(sorted(triples)):  # processors may round differently
        found = splits[k]
        assert found is not None
        yield exchanged(density, (*pair, k), unions[pair], found.halves)


@dataclass(frozen=True)
class Beliefs:
    """What a mixture says of rows, which merging and splitting its components starts from."""

    rows: Rows
    log_likelihood: np.ndarray  # log N(x_n; mu_k, Sigma_k), (N, K)
    responsibilities: np.ndarray  # P(k | x_n), (N, K)
    log_evidence: np.ndarray  # log p(x_n), (N,)

    @classmethod
    def of(cls, rows: Rows, density: MixtureDensity) -> Beliefs:
        """Those of a mixture."""
        log_likelihood = log_likelihoods(rows, density)
        log_prob, log_evidence = log_posterior(log_likelihood, log_weights_of(density))
        return cls(rows, log_likelihood, np.exp(log_prob, out=log_prob), log_evidence)


@dataclass(frozen=True)
class Split:
    """Two components in place of one, and what they gain."""

    halves: MixtureDensity  # of two components
    gain: float  # a lower bound of what the mixture's log-likelihood gains by it, in nats


# -- merging ---------------------------------------------------------------------------------------


def merged(density: MixtureDensity, pair: tuple[int, int]) -> MixtureDensity:
    """One component with the weight, mean and covariance of two, in their covariance type."""
    two = density.permuted(np.array(pair))
    matrix = two.covariance()
    covariances = {
        "full": matrix[None],
        "tied": density.covariances,
        "diag": np.diag(matrix)[None],
        "spherical": np.diag(matrix).mean(keepdims=True),
    }
    weight = density.weights[list(pair)].sum(keepdims=True)
    return MixtureDensity(
        weight,
        two.mean()[None],
        covariances[density.covariance_type],
        density.covariance_type,
        checked=False,
    )


def loss_of_merger(beliefs: Beliefs, pair: tuple[int, int], union: MixtureDensity) -> float:
    """What the log-likelihood loses with components i and j as one, m, in nats.

    ``-sum_n w_n log(1 - r_ni - r_nj + (pi_i + pi_j) N(x_n; mu_m, Sigma_m) / p(x_n))``.
    """
    others = 1 - beliefs.responsibilities[:, pair].sum(axis=1)
    joint = log_likelihoods(beliefs.rows, union)[:, 0] + log_weights_of(union)
    with np.errstate(divide="ignore"):
        change = np.logaddexp(np.log(np.maximum(others, 0)), joint - beliefs.log_evidence)
    return -processes.total(float(beliefs.rows.weights @ change))


# -- splitting -------------------------------------------------------------------------------------


def split(problem: Problem, beliefs: Beliefs, k: int, rng: np.random.Generator) -> Split | None:
    """Two components that EM fits to the rows of component k, by their responsibilities.

    With q the halves' density, the mixture gains at least ``sum_n w_n r_nk (log q(x_n) -
    log N(x_n; mu_k, Sigma_k))`` (Jensen). None if k has no rows or EM finds no two components.
    """
    r = beliefs.responsibilities[:, k]
    mine = np.flatnonzero(r > _NEGLIGIBLE)
    rows = replace(beliefs.rows, weight=beliefs.rows.weights * r, origin=beliefs.rows.centre)[mine]
    before = processes.total(float(rows.weights @ beliefs.log_likelihood[mine, k]))
    part = replace(problem, rows=rows, n_components=2, max_iter=_SPLIT_ITERATIONS)
    if not part.total_weight > 0:
        return None
    found = _solution_from(part, next(plus_plus_starts(part, 1, rng)))
    if found is None:
        return None
    return Split(found.density, found.log_likelihood * part.total_weight - before)


# -- both ------------------------------------------------------------------------------------------


def exchanged(
    density: MixtureDensity,
    triple: tuple[int, int, int],
    union: MixtureDensity,
    halves: MixtureDensity,
) -> MixtureDensity:
    """The mixture with a union for i and halves of k for j and k; a tied covariance stays."""
    numbers = list(triple)
    weights, means = density.weights.copy(), density.means.copy()
    weights[numbers] = [*union.weights, *density.weights[triple[2]] * halves.weights]
    means[numbers] = np.concatenate([union.means, halves.means])
    covariances = density.covariances
    if density.covariance_type != "tied":
        covariances = covariances.copy()
        covariances[numbers] = np.concatenate([union.covariances, halves.covariances])
    return replace(density, weights=weights, means=means, covariances=covariances, checked=False)


def _solution_from(problem: Problem, density: MixtureDensity) -> Solution | None:
    """EM's solution, None where a covariance is not positive definite: a try spoils no fit."""
    try:
        return expectation_maximisation(problem, density)
    except np.linalg.LinAlgError:
        return None


def _is_better(problem: Problem, other: Solution, solution: Solution) -> bool:
    """Whether a log-likelihood is higher by more than the tolerance; the same in all processes."""
    return processes.any_of(other.log_likelihood > solution.log_likelihood + problem.tol)
