"""Hidden Markov chains on arrays: posteriors of the states, best paths, learning, draws.

Loops over N rows would be slow in Python. So the rows stand in B blocks of S rows each, both about
the square root of N. One pass finds the matrix that leads through each block, all blocks side by
side; multiplied from block to block they give the state in front of each; a second pass, side by
side again, finds the states within.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from ... import processes

_TINY = 1e-280  # a sum of products below this may have lost factors to underflow


# -- the chain -------------------------------------------------------------------------------------


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

    def m_step(
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


# -- inference -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoothed:
    """Posteriors of the states of all rows.

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
        Log p(row t | k), up to a constant per row; 0 throughout a row that was not observed.
    chain : Chain
    starts : (N,) of bool
        Whether a row is the first of its sequence; row 0 is.
    """
    blocks = Blocks.of(evidence, chain, starts)
    through = passages(blocks, SUM)  # (K, K, B)
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
    blocks = Blocks.of(evidence, chain, starts)
    before = entering(passages(blocks, MAX), MAX)  # (K, B)
    _, best, log_normalisers = forward(blocks, before, MAX)
    sources = best_sources(blocks, np.concatenate([before[None], best[:-1]]))  # (S, K, B)
    came_from = blocks.rows(sources)  # (N, K)
    path = np.empty(len(evidence), dtype=np.intp)
    path[-1] = blocks.rows(best)[-1].argmax()
    for t in range(len(path) - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path, float(blocks.rows(log_normalisers + blocks.peak).sum())


# -- learning --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChainSolution:
    """A chain learnt from rows, and what it says of them.

    Attributes
    ----------
    log_likelihood, lower_bound : list of float
        Log-likelihood in nats per row, and the same plus the chain's log prior, by iteration.
    """

    chain: Chain
    smoothed: Smoothed
    log_likelihood: list[float]
    lower_bound: list[float]
    converged: bool


def expectation_maximisation(
    e_step: Callable[[Chain], Smoothed], chain: Chain, prior: ChainPrior, max_iter: int, tol: float
) -> ChainSolution:
    """Alternate `e_step` and `ChainPrior.m_step` from `chain` until the bound gains under `tol`.

    The bound never falls (Baum, Petrie, Soules and Weiss, 1970; evidence held fixed). Of several
    processes each smooths its own sequences, and counts are added up.
    """
    likelihoods: list[float] = []
    bounds: list[float] = []
    for iteration in range(max_iter + 1):
        smoothed = e_step(chain)
        n_rows = len(smoothed.log_normalisers)
        likelihoods.append(processes.mean(float(smoothed.log_normalisers.mean()), n_rows))
        bounds.append(likelihoods[-1] + prior.log_density(chain) / processes.total(n_rows))
        gains_little = iteration > 0 and bounds[-1] - bounds[-2] < tol
        converged = processes.any_of(gains_little)  # processors may round differently
        if converged or iteration == max_iter:
            break
        transition_counts = processes.total(smoothed.transition_counts)
        chain = prior.m_step(transition_counts, processes.total(smoothed.initial_counts), chain)
    return ChainSolution(chain, smoothed, likelihoods, bounds, converged)


# -- blocks of rows --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """The chain in B blocks of S rows, filled up with rows that are sequences without evidence.

    Attributes
    ----------
    evidence : (S, K, B)
        Less its largest value in each row.
    peak : (S, 1, B)
        Those largest values.
    starts : (S, B)
    log_transition, log_initial, n_rows : (K, K), (K,), int
    """

    evidence: np.ndarray
    peak: np.ndarray
    starts: np.ndarray
    log_transition: np.ndarray
    log_initial: np.ndarray
    n_rows: int

    @classmethod
    def of(cls, evidence: np.ndarray, chain: Chain, starts: np.ndarray) -> Blocks:
        """Blocks of evidence (N, K), and of where sequences start (N,)."""
        n, k = evidence.shape
        n_steps = math.isqrt(n - 1) + 1
        n_blocks = -(-n // n_steps)
        filled = np.zeros((n_blocks * n_steps, k))
        first = np.ones(n_blocks * n_steps, dtype=bool)
        filled[:n], first[:n] = evidence, starts
        filled = np.ascontiguousarray(filled.reshape(n_blocks, n_steps, k).transpose(1, 2, 0))
        first = first.reshape(n_blocks, n_steps).T
        peak = finite(filled.max(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            logs = np.log(chain.transition), np.log(chain.initial)
        return cls(filled - peak, peak, first, *logs, n)

    def rows(self, values: np.ndarray) -> np.ndarray:
        """From (S, K, B) back to (N, K)."""
        return values.transpose(2, 0, 1).reshape(-1, values.shape[1])[: self.n_rows]

    def step(self, state: np.ndarray, s: int, semiring: Semiring) -> np.ndarray:
        """From the row before step s of each block to that step, its evidence left out.

        `state` and the result: (K, B), or (K, K, B) for the matrices through the blocks.
        """
        after = semiring.product(self.log_transition.T, state)
        first = self.starts[s]
        if first.any():
            initial = self.log_initial.reshape(-1, *[1] * (state.ndim - 1))
            after[..., first] = semiring.sum(state[..., first]) + initial
        return after


def passages(blocks: Blocks, semiring: Semiring) -> np.ndarray:
    """Matrices from the row before each block to its last: (K to, K from, B), largest entry 0."""
    k, n_blocks = blocks.evidence.shape[1:]
    state = np.full((k, k, n_blocks), -np.inf)
    state[np.arange(k), np.arange(k)] = 0
    for s, evidence in enumerate(blocks.evidence):
        state = blocks.step(state, s, semiring) + evidence[:, None]
        state -= finite(state.max(axis=(0, 1)))
    return state


def entering(through: np.ndarray, semiring: Semiring) -> np.ndarray:
    """State of the row before each block, given all rows up to it: (K, B)."""
    anything = np.zeros(len(through))  # the first row of all forgets it
    states = [anything - semiring.sum(anything)]
    for passage in np.moveaxis(through, 2, 0)[:-1]:
        state = semiring.sum(passage.T + states[-1][:, None])[0]
        states.append(state - finite(semiring.sum(state)))
    return np.stack(states, axis=1)


def leaving(through: np.ndarray) -> np.ndarray:
    """Log p(all rows after a block | the state of its last row), up to a constant: (K, B)."""
    futures = [np.zeros(len(through))]
    for passage in np.moveaxis(through, 2, 0)[:0:-1]:
        future = log_sum(passage + futures[-1][:, None])[0]
        futures.append(future - finite(future.max()))
    return np.stack(futures[::-1], axis=1)


def forward(
    blocks: Blocks, entering: np.ndarray, semiring: Semiring
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """State of each row given those before it, and given itself too (S, K, B); normalisers.

    The normalisers, (S, 1, B), are log p(row | rows before it).
    """
    predicted, filtered = np.empty_like(blocks.evidence), np.empty_like(blocks.evidence)
    log_normalisers = np.empty_like(blocks.peak)
    state = entering
    for s, evidence in enumerate(blocks.evidence):
        predicted[s] = blocks.step(state, s, semiring)
        joint = predicted[s] + evidence
        log_normalisers[s] = semiring.sum(joint)
        state = filtered[s] = joint - finite(log_normalisers[s])
    return predicted, filtered, log_normalisers


def backward(blocks: Blocks, leaving: np.ndarray) -> np.ndarray:
    """Log p(later rows of the sequence | state of each row), up to a constant: (S, K, B)."""
    future = np.empty_like(blocks.evidence)
    future[-1] = leaving
    for s in range(len(future) - 1, 0, -1):
        before = log_product(blocks.log_transition, blocks.evidence[s] + future[s])
        before[:, blocks.starts[s]] = 0
        future[s - 1] = before - finite(before.max(axis=0))
    return future


def transition_counts(blocks: Blocks, previous: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Expected transitions (K, K), from the state before each row and what it and later rows say.

    `previous` and `future`: (S, K, B), such that their joint probabilities of a row add up to 1.
    """
    counts = np.zeros_like(blocks.log_transition)
    for before, after, first in zip(previous, future, blocks.starts, strict=True):
        after = np.where(first, -np.inf, after)
        joint = before[:, None] + blocks.log_transition[..., None] + after  # (K, K, B)
        counts += np.exp(joint).sum(axis=2)
    return counts


def best_sources(blocks: Blocks, previous: np.ndarray) -> np.ndarray:
    """The best state before each state of each row: (S, K, B) to (S, K, B) of int."""
    sources = np.empty(previous.shape, dtype=np.intp)
    for s, before in enumerate(previous):
        into = np.where(blocks.starts[s], 0, blocks.log_transition[..., None])  # (K, K, B)
        sources[s] = (before[:, None] + into).argmax(axis=0)
    return sources


# -- sums and products of logs ---------------------------------------------------------------------


@dataclass(frozen=True)
class Semiring:
    """What stands for addition: (K, ...) -> (1, ...); and the product of a matrix with columns."""

    sum: Callable[[np.ndarray], np.ndarray]
    product: Callable[[np.ndarray, np.ndarray], np.ndarray]


def finite(values: np.ndarray) -> np.ndarray:
    """Values with zeros in place of -inf, to subtract."""
    return np.where(values > -np.inf, values, 0.0)


def log_sum(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Log of the sum of exps over an axis, which stays with length 1."""
    top = values.max(axis=axis, keepdims=True)
    return np.log(_exp(values - finite(top)).sum(axis=axis, keepdims=True)) + top


def log_product(log_matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Log of exp(log_matrix) (J, K) @ exp(values) (K, ...), exact at any range of values.

    By an ordinary product, but for sums so small that factors underflowed, which are done again.
    """
    columns = values.reshape(len(values), -1)  # (K, M)
    top = finite(columns.max(axis=0))  # (M,)
    total = _product(np.exp(log_matrix), _exp(columns - top))  # (J, M)
    logs = np.log(np.maximum(total, _TINY)) + top
    small = total < _TINY
    if small.any():
        logs[small] = -np.inf
        possible = _product((log_matrix > -np.inf) * 1.0, (columns > -np.inf) * 1.0) > 0
        j, m = np.nonzero(small & possible)
        terms = np.take(log_matrix, j, axis=0).T + np.take(columns, m, axis=1)
        logs[j, m] = log_sum(terms)[0]
    return logs.reshape(-1, *values.shape[1:])


def _product(matrix: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(J, K) times (K, M), not by BLAS: waking its threads takes longer than so small a product."""
    return np.einsum("jk,km->jm", matrix, columns)


def _exp(values: np.ndarray) -> np.ndarray:
    """Exps of values up to 0, at least 1e-304: numbers close to underflow take far longer."""
    return np.exp(np.maximum(values, -700.0))


def max_product(log_matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The largest of log_matrix (J, K) + values (K, ...) over K: (J, ...)."""
    columns = log_matrix.T.reshape(*log_matrix.T.shape, *[1] * (values.ndim - 1))  # (K, J, ...)
    return functools.reduce(np.maximum, (c + v for c, v in zip(columns, values, strict=True)))


SUM = Semiring(log_sum, log_product)
MAX = Semiring(functools.partial(np.max, axis=0, keepdims=True), max_product)
