"""Split-and-merge EM: ways out of optima with two components in one cluster and one over two."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.special import rel_entr

from ... import processes
from ...density import MixtureDensity
from ...messages import Categorical
from ..common.inputs import log_class_prior
from .em import Problem, Solution, expectation_maximisation, plus_plus_starts
from .rows import Rows
from .statistics import log_likelihoods, log_posterior, log_weights_of

Triple: TypeAlias = tuple[int, int, int]

_SPLIT_ITERATIONS = 10  # of EM within one component, before EM over all of them
_NEGLIGIBLE = 1e-3  # rows of smaller responsibilities are not asked how to split a component


class Exchange(NamedTuple):
    """Components i and j become one, with the number i, and k becomes two, j and k."""

    i: int
    j: int
    k: int
    share: float  # of what was k, now j

    @property
    def triple(self) -> Triple:
        """The components i, j and k."""
        return self.i, self.j, self.k

    @np.errstate(divide="ignore")
    def translated(self, classes: Categorical) -> Categorical:
        """What children say of the components as they were, said of them as they are now."""
        log_prob = classes.log_prob.copy()
        log_prob[:, self.i] = np.logaddexp(log_prob[:, self.i], log_prob[:, self.j])
        log_prob[:, self.j] = log_prob[:, self.k] + np.log(self.share)
        log_prob[:, self.k] += np.log1p(-self.share)
        return replace(classes, log_prob=log_prob, checked=False)


def split_and_merge(
    problem: Problem,
    solution: Solution,
    n_tries: int,
    rng: np.random.Generator,
    earlier: Collection[Triple] = (),
) -> tuple[Problem, Solution, list[Exchange]]:
    """The best solution that `n_tries` exchanges of components lead to; the given one at worst.

    In a try components i and j become one and k becomes two, so that their number stays, and so do
    the numbers of the others; EM goes on from there. What it comes to is taken if its
    log-likelihood, by which starts are chosen as well, is higher by more than the problem's `tol`,
    and the next tries are made from it. The most promising triples are tried first (`candidates`).

    A prior from children is translated to the new components (`Exchange.translated`): a row is of
    the union with the sum of the probabilities that it is of i and of j, and of the halves of k
    with shares of that of k. If two components share a class, children and rows often divide its
    rows differently, and a merger gains by not having to agree. What the children knew of who is i
    and who is j is lost by it, and charged (`lost_information`). Only exchanges that promise to pay
    are tried then, and no component twice, as the children have to learn what the new ones mean.

    N. Ueda, R. Nakano, Z. Ghahramani, G. E. Hinton (2000). SMEM algorithm for mixture models.
    *Neural Computation* 12(9).

    Parameters
    ----------
    problem : Problem
        Nothing is tried where children send evidence that is no prior.
    solution : Solution
        Of `expectation_maximisation`.
    n_tries : int
        At least 0.
    rng : np.random.Generator
        Equal in all processes.
    earlier : collection of (int, int, int)
        Triples that are not tried: those of exchanges the children have heard of before.

    Returns
    -------
    problem : Problem
        With the children's message translated.
    solution : Solution
    exchanges : list of Exchange
        That led to it, in their order.

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
    >>> _, found, exchanges = split_and_merge(problem, stuck, 3, np.random.default_rng(0))
    >>> np.sort(found.density.means[:, 0]).round()
    array([ 0.,  8., 12.])
    >>> [exchange.triple for exchange in exchanges]
    [(0, 1, 2)]
    """
    made: list[Exchange] = []
    n_left = n_tries
    if problem.from_children is not None and not problem.from_children.is_prior:
        n_left = 0
    while n_left > 0:
        promising = candidates(problem, solution.density, made, rng)
        allowed = (c for c in promising if c.exchange.triple not in earlier)
        for candidate in islice(allowed, n_left):
            n_left -= 1
            other = candidate.problem_of(problem)
            found = _solution_from(other, candidate.start)
            if found is not None and _is_better(problem, found, solution, candidate.lost):
                problem, solution, made = other, found, [*made, candidate.exchange]
                break
        else:  # each has been tried
            break
    return problem, solution, made


class Candidate(NamedTuple):
    """An exchange that may be tried."""

    exchange: Exchange
    start: MixtureDensity
    lost: float  # information, in nats

    def problem_of(self, problem: Problem) -> Problem:
        """The same problem, of the components after the exchange."""
        told = problem.from_children
        if told is None:
            return problem
        return replace(problem, from_children=self.exchange.translated(told))


def candidates(
    problem: Problem, density: MixtureDensity, made: list[Exchange], rng: np.random.Generator
) -> Iterator[Candidate]:
    """Exchanges after those `made`, the most promising first.

    That is by what the split of k gains in log-likelihood, at least, less what the merger loses.
    (Ueda et al. rank by the overlap of i and j and by how far k is from its rows. The latter, with
    the rows as points, comes to k's volume per row whatever their shape; on latents of images as
    many tries gained less in that order.)
    """
    if problem.n_components < 3:
        return
    told = problem.from_children
    beliefs = Beliefs.of(problem.rows, density, told)
    pairs = list(combinations(range(problem.n_components), 2))
    unions = {pair: merged(density, pair) for pair in pairs}
    splits = [split(problem, beliefs, k, rng) for k in range(problem.n_components)]
    lost = {pair: lost_information(problem.rows, told, pair) for pair in pairs}
    losses = {pair: loss_of_merger(beliefs, pair, unions[pair]) + lost[pair] for pair in pairs}
    new = {number for exchange in made for number in exchange.triple}
    triples = [
        (losses[pair] - found.gain, pair, k)
        for k, found in enumerate(splits)
        for pair in pairs
        if found is not None
        and k not in pair
        and (told is None or (losses[pair] < found.gain and new.isdisjoint((*pair, k))))
    ]
    for _, pair, k in processes.of_first(sorted(triples)):  # processors may round differently
        found = splits[k]
        assert found is not None
        exchange = Exchange(*pair, k, float(found.halves.weights[0]))
        start = exchanged(density, exchange.triple, unions[pair], found.halves)
        yield Candidate(exchange, start, lost[pair])


@dataclass(frozen=True)
class Beliefs:
    """What a mixture says of rows, which merging and splitting its components starts from."""

    rows: Rows
    log_likelihood: np.ndarray  # log N(x_n; mu_k, Sigma_k), (N, K)
    log_prior: np.ndarray  # log pi_k, (1, K), or what children know of each row instead, (N, K)
    responsibilities: np.ndarray  # P(k | x_n), (N, K)
    log_evidence: np.ndarray  # log p(x_n), (N,)

    @classmethod
    def of(cls, rows: Rows, density: MixtureDensity, told: Categorical | None = None) -> Beliefs:
        """Those of a mixture, and of its children, if they send a prior."""
        log_likelihood, log_weights = log_likelihoods(rows, density), log_weights_of(density)
        log_prior = log_class_prior(log_weights, told)
        log_prob, log_evidence = log_posterior(log_likelihood, log_weights, told)
        responsibilities = np.exp(log_prob, out=log_prob)
        return cls(rows, log_likelihood, log_prior, responsibilities, log_evidence)


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

    ``-sum_n w_n log(1 - r_ni - r_nj + (pi_i + pi_j) N(x_n; mu_m, Sigma_m) / p(x_n))``, where a
    prior from children stands in place of pi.
    """
    others = 1 - beliefs.responsibilities[:, pair].sum(axis=1)
    of_pair = np.logaddexp(*beliefs.log_prior[:, list(pair)].T)  # (1,) or (N,)
    joint = log_likelihoods(beliefs.rows, union)[:, 0] + of_pair
    with np.errstate(divide="ignore"):
        change = np.logaddexp(np.log(np.maximum(others, 0)), joint - beliefs.log_evidence)
    return -processes.total(float(beliefs.rows.weights @ change))


def lost_information(rows: Rows, told: Categorical | None, pair: tuple[int, int]) -> float:
    """What children know of who is i and who is j, in nats; 0 where there are none.

    Of the information that their prior P_n has of the rows' components, ``sum_n w_n KL(P_n || P)``
    with the rows' mean P, the part that is lost if i and j are one.
    """
    if told is None:
        return 0.0
    weights = rows.weights * told.is_observed
    counted = weights > 0  # others may have components that none of these has
    weights, each = weights[counted], np.exp(told.log_prob[:, list(pair)][counted])  # (n,), (n, 2)
    mean = processes.total(weights @ each) / max(processes.total(weights.sum()), 1e-300)
    apart = rel_entr(each, mean).sum(axis=1)
    together = rel_entr(each.sum(axis=1), mean.sum())
    return processes.total(float(weights @ (apart - together)))


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
    untold = replace(problem, rows=rows, from_children=None)
    part = replace(untold, n_components=2, max_iter=_SPLIT_ITERATIONS)
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


def _is_better(problem: Problem, other: Solution, solution: Solution, lost: float) -> bool:
    """Whether a log-likelihood is higher by more than the tolerance and what was lost for it.

    The same in all processes.
    """
    least = problem.tol + lost / problem.total_weight
    return processes.any_of(other.log_likelihood > solution.log_likelihood + least)
