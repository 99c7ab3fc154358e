"""The number of components, searched for by mergers.

EM starts with more components than there are clusters, and two of them are merged into one, again
and again, until one is left. Of all the mixtures on the way that one is taken which has the highest
log-likelihood for the parameters it needs (`MixtureDensity.penalty`). Mergers lead past the optima
in which EM stays from few starting points: too many components cover every cluster.

N. Ueda, Z. Ghahramani (2002). Bayesian model search for mixture models based on optimizing
variational bounds. *Neural Networks* 15.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ... import processes
from ...density import MixtureDensity
from .em import Problem, Solution, expectation_maximisation, plus_plus_starts
from .split_merge import merged

_N_STARTS = 2  # each with its way down
_MOST_ROWS = 10_000  # of which the number is found
_MOST_STEPS = 30  # of EM between two mergers
_WIDER = 0.01  # of kappa: means may lie far from the middle, however narrow their clusters are


def find_components(problem: Problem, at_most: int, rng: np.random.Generator) -> MixtureDensity:
    """The mixture of as many components as the rows tell of, `at_most` at most.

    Parameters
    ----------
    problem : Problem
        Whose number of components does not count.
    at_most : int
        Fewer where that is not two rows for each parameter of a mean.
    rng : np.random.Generator
        Equal in all processes.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules.mixture import em
    >>> from serkit.modules.mixture.rows import Rows
    >>> from serkit.modules.mixture.search import find_components
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(90, 2)) + 9 * np.repeat([[0, 0], [1, 0], [0, 1]], 30, axis=0)
    >>> problem = em.Problem(Rows(x), None, 1, "spherical", None, 1e-2, max_iter=50, tol=1e-3)
    >>> find_components(problem, 12, rng)
    MixtureDensity(3 components of 2 dimensions, spherical)
    """
    problem = _on_some_rows(problem)
    if problem.prior is not None:
        prior = replace(problem.prior, kappa=_WIDER * problem.prior.kappa)
        problem = replace(problem, prior=prior)
    n_rows = problem.total_weight
    at_most = max(min(at_most, int(n_rows / (2 * problem.rows.n_columns))), 1)
    task = replace(problem, n_components=at_most, max_iter=_MOST_STEPS)
    by_cost = [
        (solution.density.penalty(n_rows) - 2 * n_rows * solution.log_likelihood, solution.density)
        for start in plus_plus_starts(task, _N_STARTS, rng)
        for solution in mergers(task, start)
    ]
    best = processes.of_first(int(np.argmin([cost for cost, _ in by_cost])))
    return by_cost[best][1]


def mergers(problem: Problem, density: MixtureDensity) -> Iterator[Solution]:
    """What EM makes of a mixture, of that with its two most similar components as one, and so on.

    Those are merged that lose least by it (`losses_of_mergers`), down to one component.
    """
    while True:
        problem = replace(problem, n_components=density.n_components)
        solution = expectation_maximisation(problem, density)
        yield solution
        if density.n_components == 1:
            return
        pairs, losses = losses_of_mergers(solution.density)
        best = processes.of_first(int(losses.argmin()))
        density = with_merger(solution.density, tuple(pairs[best].tolist()))


def losses_of_mergers(density: MixtureDensity) -> tuple[np.ndarray, np.ndarray]:
    """What rows lose in log-likelihood with two components as one: pairs (P, 2), and (P,) in nats.

    Per row, and as if each row were known to be of one component:
    ``sum_k pi_k (log pi_k - log det(Sigma_k) / 2)``, before less after.
    """
    pairs = np.stack(np.triu_indices(density.n_components, 1), axis=1)
    i, j = pairs.T
    weights, (_, log_det) = density.weights + np.finfo(float).tiny, density.whitening
    of_pair, means = weights[i] + weights[j], density.means
    between, offsets = weights[i] * weights[j] / of_pair, means[i] - means[j]  # (P,), (P, D)
    shares = _entropy(weights[i]) + _entropy(weights[j]) - _entropy(of_pair)
    if density.covariance_type == "tied":
        white = density.whitening[0][0]
        return pairs, 0.5 * np.log1p(between * np.square(offsets @ white).sum(axis=1)) - shares
    full = density.covariance_type == "full"
    covariances = density.covariances if full else density.variances()
    squares = offsets[:, :, None] * offsets[:, None] if full else offsets**2

    def share(values: np.ndarray) -> np.ndarray:
        return (values / of_pair).reshape(-1, *[1] * (covariances.ndim - 1))

    union = share(weights[i]) * covariances[i] + share(weights[j]) * covariances[j]
    union = union + share(between) * squares
    if density.covariance_type == "spherical":
        union = np.broadcast_to(union.mean(axis=1, keepdims=True), union.shape)
    after = np.linalg.slogdet(union)[1] if full else np.log(union).sum(axis=1)
    before = weights[i] * log_det[i] + weights[j] * log_det[j]
    return pairs, 0.5 * (of_pair * after - before) - shares


def _entropy(weights: np.ndarray) -> np.ndarray:
    return -weights * np.log(weights)


def with_merger(density: MixtureDensity, pair: tuple[int, int]) -> MixtureDensity:
    """The mixture with components i < j as one, in i's place."""
    i, j = pair
    union = merged(density, pair)
    weights, means = density.weights.copy(), density.means.copy()
    covariances = density.covariances.copy()
    weights[i], means[i] = union.weights[0], union.means[0]
    kept = np.delete(np.arange(density.n_components), j)
    if density.covariance_type != "tied":
        covariances[i] = union.covariances[0]
        covariances = covariances[kept]
    kind = density.covariance_type
    return MixtureDensity(weights[kept], means[kept], covariances, kind, checked=False)


def _on_some_rows(problem: Problem) -> Problem:
    """The problem of every second, third, ... row, so that there are not too many."""
    n_rows = int(processes.total(len(problem.rows)))
    step = -(-n_rows // _MOST_ROWS)
    if step == 1:
        return problem
    rows = replace(problem.rows, origin=problem.rows.centre)[np.arange(0, len(problem.rows), step)]
    return replace(problem, rows=rows)
