"""Hidden Markov chains on arrays: forward-backward, Viterbi paths, fitting, draws."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from .. import processes
from ._chain_scan import (
    MAX,
    SUM,
    Blocks,
    backward,
    best_sources,
    entering,
    finite,
    forward,
    leaving,
    log_sum,
    passages,
    transition_counts,
)


@dataclass(frozen=True)
class Chain:
    """A Markov chain.

    Attributes
    ----------
    transition : (K, K)
        P(k_t = j | k_{t-1} = i).
    initial : (K,)
        P(k of the first row).
    """

    transition: np.ndarray
    initial: np.ndarray

    def draw(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """One sequence of states, (n_samples,) of int."""
        limits = np.vstack([self.transition, self.initial]).cumsum(axis=1)  # (K + 1, K)
        limits = (limits / limits[:, -1:]).tolist()
        path, state = [], -1
        for uniform in rng.random(n_samples).tolist():
            state = bisect(limits[state], uniform)
            path.append(state)
        return np.array(path)


@dataclass(frozen=True)
class ChainPrior:
    """Dirichlet priors of a chain: concentrations (K, K) and (K,), at least 1."""

    transition: np.ndarray
    initial: np.ndarray

    def log_density(self, chain: Chain) -> float:
        """Log prior density up to a constant."""
        transition = xlogy(self.transition - 1, chain.transition).sum()
        return float(transition + xlogy(self.initial - 1, chain.initial).sum())

    def mode(
        self, transition_counts: np.ndarray, initial_counts: np.ndarray, chain: Chain
    ) -> Chain:
        """The most probable chain given counts (K, K) and (K,); as in `chain` what had none."""
        return Chain(
            _normalised(transition_counts + self.transition - 1, chain.transition),
            _normalised(initial_counts + self.initial - 1, chain.initial),
        )


def _normalised(counts: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, total, out=otherwise.copy(), where=total > 0)


@dataclass(frozen=True)
class Smoothed:
    """What forward-backward finds.

    If a row is impossible given those before it, its `log_normalisers` is -inf and nothing else
    here means anything.

    Attributes
    ----------
    log_normalisers : (N,)
        Log p(row t | earlier rows of its sequence) in nats; their sum is the log-likelihood.
    log_posterior : (N, K)
        Log P(k_t | all rows of the sequence).
    log_cavity : (N, K)
        Log P(k_t | all rows of the sequence but row t).
    transition_counts : (K, K)
        Expected number of transitions from i to j.
    initial_counts : (K,)
        Expected number of sequences that begin with k.
    """

    log_normalisers: np.ndarray
    log_posterior: np.ndarray
    log_cavity: np.ndarray
    transition_counts: np.ndarray
    initial_counts: np.ndarray


def forward_backward(evidence: np.ndarray, chain: Chain, starts: np.ndarray) -> Smoothed:
    """Posteriors of the hidden states (Rabiner, 1989, "A tutorial on hidden Markov models").

    Parameters
    ----------
    evidence : (N, K)
        Log p(row t | k), up to a constant a row; 0 throughout a row that was not observed.
    chain : Chain
    starts : (N,) of bool
        Whether a row is the first of its sequence; row 0 is.
    """
    blocks = Blocks.of(evidence, chain.transition, chain.initial, starts)
    through = passages(blocks, SUM)
    before = entering(through, SUM)  # (K, B)
    predicted, filtered, log_normalisers = forward(blocks, before, SUM)
    future = backward(blocks, leaving(through))  # (S, K, B)

    joint = predicted + blocks.evidence + future  # (S, K, B)
    total = finite(log_sum(joint, axis=1))  # (S, 1, B)
    cavity = predicted + future  # (S, K, B)
    posterior = blocks.rows(joint - total)
    previous = np.concatenate([before[None], filtered[:-1]])  # (S, K, B)
    return Smoothed(
        blocks.rows(log_normalisers + blocks.peak)[:, 0],
        posterior,
        blocks.rows(cavity - finite(log_sum(cavity, axis=1))),
        transition_counts(blocks, previous, blocks.evidence + future - total),
        np.exp(posterior[starts]).sum(axis=0),
    )


def viterbi(evidence: np.ndarray, chain: Chain, starts: np.ndarray) -> tuple[np.ndarray, float]:
    """The most probable states together, and log p(rows, those states) (Viterbi, 1967).

    Arguments as in `forward_backward`; returns ((N,) of int, nats), -inf if no path is possible.
    """
    blocks = Blocks.of(evidence, chain.transition, chain.initial, starts)
    before = entering(passages(blocks, MAX), MAX)  # (K, B)
    _, best, log_normalisers = forward(blocks, before, MAX)
    sources = best_sources(blocks, np.concatenate([before[None], best[:-1]]))  # (S, K, B)
    came_from = blocks.rows(sources)  # (N, K)
    path = np.empty(len(evidence), dtype=np.intp)
    path[-1] = blocks.rows(best)[-1].argmax()
    for t in range(len(path) - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path, float(blocks.rows(log_normalisers + blocks.peak).sum())


@dataclass(frozen=True)
class ChainSolution:
    """One fitted chain.

    Attributes
    ----------
    log_likelihood, lower_bound : list of float
        Log-likelihood a row in nats, and the same plus the chain's log prior, an iteration.
    """

    chain: Chain
    smoothed: Smoothed
    log_likelihood: list[float]
    lower_bound: list[float]
    converged: bool


def expectation_maximisation(
    smooth: Callable[[Chain], Smoothed], chain: Chain, prior: ChainPrior, max_iter: int, tol: float
) -> ChainSolution:
    """Alternate `smooth` and counting from `chain` until the bound gains less than `tol`.

    The bound never falls (Baum, Petrie, Soules and Weiss, 1970; evidence held fixed). Of several
    processes each smooths its own sequences, and counts are added up.
    """
    likelihoods, bounds = [], []
    for iteration in range(max_iter + 1):
        found = smooth(chain)
        own = len(found.log_normalisers)
        n_rows = processes.total(own)
        likelihoods.append(processes.mean(float(found.log_normalisers.mean()), own))
        bounds.append(likelihoods[-1] + prior.log_density(chain) / n_rows)
        gains_little = iteration > 0 and bounds[-1] - bounds[-2] < tol
        converged = processes.any_of(gains_little)  # processors may round differently
        if converged or iteration == max_iter:
            break
        counts = processes.total(found.transition_counts), processes.total(found.initial_counts)
        chain = prior.mode(*counts, chain)
    return ChainSolution(chain, found, likelihoods, bounds, converged)
