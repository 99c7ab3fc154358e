"""Fitting a Gaussian mixture: starts, expectation-maximisation and Gibbs sampling, on arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics import pairwise_distances_argmin

from ..density import MixtureDensity
from ..messages import Categorical
from ._gaussians import (
    Prior,
    Rows,
    draw,
    log_prior,
    maximise,
)


@dataclass(frozen=True)
class Problem:
    """What stays the same over all starts of one fit.

    Attributes
    ----------
    rows : Rows
        x (N, D), float64, with variances or without.
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

    def maximise(
        self, responsibilities: np.ndarray, parameters: MixtureDensity | None = None
    ) -> MixtureDensity:
        """The M-step on weighted responsibilities; `parameters` are those before it, if any."""
        return maximise(
            self.rows,
            responsibilities * self.weight[:, None],
            self.covariance_type,
            self.prior,
            self.reg_covar,
            parameters,
        )

    def expect(self, parameters: MixtureDensity) -> tuple[np.ndarray, float]:
        """The E-step: responsibilities (N, K) and the mean log-likelihood a row, in nats."""
        joint = log_joint(self.rows, parameters, self.told)
        top = joint.max(axis=1, keepdims=True)  # (N, 1)
        scaled = np.exp(joint - top)  # (N, K)
        total = scaled.sum(axis=1, keepdims=True)  # (N, 1)
        rows = (np.log(total) + top)[:, 0]
        return scaled / total, float(self.weight @ rows / self.weight.sum())

    def log_prior(self, parameters: MixtureDensity) -> float:
        """The parameters' log prior, a row, so that it adds to the mean log-likelihood."""
        return log_prior(parameters, self.prior) / self.weight.sum()


@dataclass(frozen=True)
class Solution:
    """One fitted mixture.

    Attributes
    ----------
    responsibilities : (N, K)
    log_likelihood, lower_bound : list of float
        Mean log-likelihood a row, and the same plus the parameters' log prior, an iteration.
    """

    parameters: MixtureDensity
    responsibilities: np.ndarray
    log_likelihood: list[float] = field(default_factory=list)
    lower_bound: list[float] = field(default_factory=list)
    converged: bool = False

    def permuted(self, order: np.ndarray) -> Solution:
        """The same solution with its components in another order."""
        return replace(
            self,
            parameters=self.parameters.permuted(order),
            responsibilities=self.responsibilities[:, order],
        )


def log_joint(
    rows: Rows, parameters: MixtureDensity, told: Categorical | None = None
) -> np.ndarray:
    """Log N(x_n; mu_k, Sigma_k) and the log prior of k, shape (N, K)."""
    return rows.log_gaussians(parameters) + log_class_prior(np.log(parameters.weights), told)


def log_class_prior(log_weights: np.ndarray, told: Categorical | None) -> np.ndarray:
    """What is known of a row's class without the row, (K,) or (N, K).

    The own log pi_k, which a prior from the children replaces, and to which their evidence
    P(k | n) adds log P(k | n) K, so that a uniform message adds exactly nothing.
    """
    if told is None:
        return log_weights
    if told.is_prior:
        return told.log_prob
    return log_weights + (told.log_prob + np.log(told.shape[0]))


def draw_classes(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class for each row of probabilities (N, K): (N,)."""
    limits = probabilities.cumsum(axis=1)
    return (limits < rng.random((len(limits), 1)) * limits[:, -1:]).sum(axis=1)


def bound(joint: np.ndarray, log_responsibilities: np.ndarray) -> float:
    """Mean over rows of sum_k r_nk (log p(x_n, k) - log r_nk), in nats: joint, log r (N, K)."""
    r = np.exp(log_responsibilities)
    gap = np.subtract(joint, log_responsibilities, where=r > 0, out=np.zeros_like(joint))
    return float((r * gap).sum(axis=1).mean())


def neutral_bound(rows: Rows) -> float:
    """The same of the neutral message: mean over rows of E[log N(x; 0, I)] of what was seen."""
    second_moment = rows.x**2 + (0 if rows.variances is None else rows.variances)
    terms = -0.5 * (second_moment + np.log(2 * np.pi))
    return float(np.where(True if rows.seen is None else rows.seen, terms, 0).sum(axis=1).mean())


def expectation_maximisation(problem: Problem, parameters: MixtureDensity) -> Solution:
    """Alternate E- and M-steps from `parameters` until the bound gains less than `tol`.

    The bound, log-likelihood plus log prior, never falls (Dempster, Laird and Rubin, 1977).
    """
    likelihoods, bounds = [], []
    for iteration in range(problem.max_iter + 1):
        responsibilities, likelihood = problem.expect(parameters)
        likelihoods.append(likelihood)
        bounds.append(likelihood + problem.log_prior(parameters))
        converged = iteration > 0 and abs(bounds[-1] - bounds[-2]) < problem.tol
        if converged or iteration == problem.max_iter:
            break
        parameters = problem.maximise(responsibilities, parameters)
    return Solution(parameters, responsibilities, likelihoods, bounds, converged)


def gibbs_sampling(
    problem: Problem, parameters: MixtureDensity, rng: np.random.Generator
) -> Solution:
    """`max_iter` sweeps: all assignments given the parameters, then all parameters given those.

    A blocked sampler, vectorised over rows (Gumbel-max). The solution holds the mode of the
    parameters given the last sweep's assignments.
    """
    likelihoods, bounds = [], []
    one_hot = np.eye(problem.n_components)
    for _ in range(problem.max_iter):
        joint = log_joint(problem.rows, parameters, problem.told)
        rows = logsumexp(joint, axis=1)
        likelihoods.append(float(np.average(rows, weights=problem.weight)))
        bounds.append(likelihoods[-1] + problem.log_prior(parameters))
        assigned = one_hot[(joint + rng.gumbel(size=joint.shape)).argmax(axis=1)]  # (N, K)
        weighted = assigned * problem.weight[:, None]
        parameters = draw(problem.rows, weighted, problem.covariance_type, problem.prior, rng)
    parameters = problem.maximise(assigned)
    responsibilities, likelihood = problem.expect(parameters)
    likelihoods.append(likelihood)
    bounds.append(likelihood + problem.log_prior(parameters))
    return Solution(parameters, responsibilities, likelihoods, bounds, True)


def plus_plus_starts(
    problem: Problem, n_init: int, rng: np.random.Generator
) -> Iterable[MixtureDensity]:
    """Mixtures of `n_init` assignments to k-means++ centres (Arthur and Vassilvitskii, 2007)."""
    for _ in range(n_init):
        seed = int(rng.integers(2**31))
        centres, _ = kmeans_plusplus(
            problem.rows.x, problem.n_components, sample_weight=problem.weight, random_state=seed
        )
        yield start_from_means(problem, centres)


def start_from_means(problem: Problem, means: np.ndarray) -> MixtureDensity:
    """The mixture of the assignment of every row to its nearest mean."""
    nearest = pairwise_distances_argmin(problem.rows.x, means)
    return problem.maximise(np.eye(problem.n_components)[nearest])


def align(problem: Problem, solution: Solution, reference: np.ndarray) -> Solution:
    """Number the components as in `reference` (N, K): the matching that shares most mass.

    The numbers stay as they are where the children's messages speak for them.
    """
    shared = reference.T @ solution.responsibilities  # (K, K)
    _, order = linear_sum_assignment(shared, maximize=True)
    aligned = solution.permuted(order)
    _, likelihood = problem.expect(aligned.parameters)
    return aligned if likelihood > solution.log_likelihood[-1] - 1e-6 else solution
