"""Hidden Markov chains on arrays: posteriors of the states, best paths, learning.

Loops over N rows would be slow in Python. So the rows stand in B blocks of S rows each, both about
the square root of N, and a pass takes a row of every block at each step. Blocks of short sequences
begin where a sequence does, so nothing leads from one to the next. For long ones a first pass finds
the matrix that leads through each block; multiplied from block to block these give the state in
front of each. Rows t come in order, classes are k, and all logs are natural.
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
# Sequences of up to so many times the square root of N stay whole: more steps, and no passages.
_LONGEST = 4


# -- the chain -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    """A Markov chain."""

    transition: np.ndarray  # (K, K), P(k_t = j | k_{t-1} = i)
    initial: np.ndarray  # (K,), P(k of the first row)

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
    """Dirichlet priors of a chain: concentrations of at least 1, one for all or of its shapes."""

    transition: np.ndarray
    initial: np.ndarray

    def log_density(self, chain: Chain) -> float:
        """Log prior density up to a constant."""
        transition = xlogy(self.transition - 1, chain.transition).sum()
        return float(transition + xlogy(self.initial - 1, chain.initial).sum())

    def m_step(self, transitions: np.ndarray, initials: np.ndarray, chain: Chain) -> Chain:
        """The most probable chain given counts (K, K) and (K,); as in `chain` what had none."""
        counts = transitions + self.transition - 1, initials + self.initial - 1
        return Chain(*map(_normalised, counts, (chain.transition, chain.initial)))


def _normalised(counts: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, total, out=otherwise.copy(), where=total > 0)


# -- inference and learning ------------------------------------------------------------------------


@dataclass(frozen=True)
class Smoothed:
    """Posteriors of the states of all rows; only `log_normalisers` if one of those is -inf."""

    log_normalisers: np.ndarray  # (N,), log p(row t | earlier rows of the sequence)
    log_posterior: np.ndarray  # (N, K), log P(k_t | all rows of the sequence)
    log_cavity: np.ndarray  # (N, K), log P(k_t | all rows of the sequence but row t)
    transition_counts: np.ndarray  # (K, K), expected number of transitions from i to j
    initial_counts: np.ndarray  # (K,), expected number of sequences that begin with k


def forward_backward(evidence: np.ndarray, chain: Chain, starts: np.ndarray) -> Smoothed:
    """Posteriors of the hidden states (Rabiner, 1989, "A tutorial on hidden Markov models").

    `evidence` (N, K) is log p(row t | k) up to a constant per row, 0 throughout a row that was not
    observed; `starts` (N,) tells the first rows of sequences, of which row 0 is one.
    """
    blocks = Blocks.of(evidence, chain, starts)
    before, after = around(blocks, SUM)  # (K, B) each
    predicted, filtered, log_normalisers = forward(blocks, before, SUM)
    future = backward(blocks, after)  # (S, K, B)

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
    """The most probable path (N,), and log p(rows, path) in nats, maybe -inf (Viterbi, 1967)."""
    blocks = Blocks.of(evidence, chain, starts)
    before, _ = around(blocks, MAX)  # (K, B)
    _, best, log_normalisers = forward(blocks, before, MAX)
    states = blocks.rows(best)  # (N, K)
    path = np.empty(len(evidence), dtype=np.intp)
    path[-1] = states[-1].argmax()
    for t in range(len(path) - 1, 0, -1):
        into = 0 if starts[t] else blocks.log_transition[:, path[t]]
        path[t - 1] = (states[t - 1] + into).argmax()
    return path, float(blocks.rows(log_normalisers + blocks.peak).sum())


@dataclass(frozen=True)
class ChainSolution:
    """A chain learnt from rows, and what it says of them."""

    chain: Chain
    smoothed: Smoothed
    log_likelihood: list[float]  # nats per row, by iteration
    lower_bound: list[float]  # the same plus the chain's log prior
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
        transitions = processes.total(smoothed.transition_counts)
        chain = prior.m_step(transitions, processes.total(smoothed.initial_counts), chain)
    return ChainSolution(chain, smoothed, likelihoods, bounds, converged)


# -- blocks of rows --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blocks:
    """The chain in B blocks of S rows, filled up with rows that are sequences without evidence."""

    evidence: np.ndarray  # (S, K, B), less its largest value in each row
    peak: np.ndarray  # (S, 1, B), those largest values
    starts: np.ndarray  # (S, B)
    log_transition: np.ndarray  # (K, K)
    log_initial: np.ndarray  # (K,)
    is_row: np.ndarray  # (B S,), False where a block was filled up

    @classmethod
    def of(cls, evidence: np.ndarray, chain: Chain, starts: np.ndarray) -> Blocks:
        """Blocks of evidence (N, K), and of where sequences start (N,)."""
        bounds, k = bounds_of_blocks(starts), evidence.shape[1]
        sizes = np.diff(bounds)
        is_row = (np.arange(sizes.max()) < sizes[:, None]).ravel()
        filled, first = np.zeros((len(is_row), k)), np.ones(len(is_row), dtype=bool)
        filled[is_row], first[is_row] = evidence, starts
        filled = np.ascontiguousarray(filled.reshape(len(sizes), -1, k).transpose(1, 2, 0))
        first = np.ascontiguousarray(first.reshape(len(sizes), -1).T)
        peak = finite(filled.max(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            logs = np.log(chain.transition), np.log(chain.initial)
        return cls(filled - peak, peak, first, *logs, is_row)

    def rows(self, values: np.ndarray) -> np.ndarray:
        """From (S, K, B) back to (N, K)."""
        return values.transpose(2, 0, 1).reshape(-1, values.shape[1])[self.is_row]

    def step(self, state: np.ndarray, s: int, semiring: Semiring) -> np.ndarray:
        """State (K, ..., B) at step s of each block, its evidence left out, from that before it."""
        after = semiring.product(self.log_transition.T, state)
        first = self.starts[s]
        if first.any():
            initial = self.log_initial.reshape(-1, *[1] * (state.ndim - 1))
            after[..., first] = semiring.sum(state[..., first]) + initial
        return after


def bounds_of_blocks(starts: np.ndarray) -> np.ndarray:
    """Where blocks begin, and the number of rows: at starts of sequences (N,) unless some is long.

    Examples
    --------
    >>> bounds_of_blocks(np.arange(9) % 2 == 0)  # blocks of at most three rows
    array([0, 2, 4, 6, 9])
    """
    n_rows = len(starts)
    ends = np.append(np.flatnonzero(starts)[1:], n_rows)  # of sequences
    size, longest = math.isqrt(n_rows - 1) + 1, int(np.diff(ends, prepend=0).max())
    if longest > _LONGEST * size:
        return np.append(np.arange(0, n_rows, size), n_rows)
    bounds = [0]
    while bounds[-1] < n_rows:
        number = np.searchsorted(ends, bounds[-1] + max(size, longest), side="right")
        bounds.append(int(ends[number - 1]))
    return np.array(bounds)


def around(blocks: Blocks, semiring: Semiring) -> tuple[np.ndarray, np.ndarray]:
    """What is known of the row before each block by all before, and of its last by all after.

    As the state that `forward` begins from and the future that `backward` does, (K, B) each.
    """
    k, n_blocks = blocks.evidence.shape[1:]
    if blocks.starts[0].all():
        anything = np.zeros((k, n_blocks))
        return anything - semiring.sum(anything), anything
    through = passages(blocks, semiring)  # (K, K, B)
    return entering(through, semiring), leaving(through, semiring)


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


def leaving(through: np.ndarray, semiring: Semiring) -> np.ndarray:
    """Log p(all rows after a block | the state of its last row), up to a constant: (K, B)."""
    futures = [np.zeros(len(through))]
    for passage in np.moveaxis(through, 2, 0)[:0:-1]:
        future = semiring.sum(passage + futures[-1][:, None])[0]
        futures.append(future - finite(future.max()))
    return np.stack(futures[::-1], axis=1)


def forward(blocks: Blocks, state: np.ndarray, semiring: Semiring) -> tuple[np.ndarray, ...]:
    """From the `state` that enters each block, (K, B), the states and normalisers of all rows.

    Log P(k | rows before), the same given the row too, (S, K, B); log p(row | rows before).
    """
    predicted, filtered = np.empty_like(blocks.evidence), np.empty_like(blocks.evidence)
    log_normalisers = np.empty_like(blocks.peak)
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
    """Expected transitions (K, K): by states before each row, and what it and later rows say."""
    counts = np.zeros_like(blocks.log_transition)
    for before, after, first in zip(previous, future, blocks.starts, strict=True):
        after = np.where(first, -np.inf, after)
        joint = before[:, None] + blocks.log_transition[..., None] + after  # (K, K, B)
        counts += np.exp(joint).sum(axis=2)
    return counts


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
    # not by BLAS: waking its threads takes longer than so small a product
    total = np.einsum("jk,km->jm", np.exp(log_matrix), _exp(columns - top))  # (J, M)
    logs = np.log(np.maximum(total, _TINY)) + top
    small = total < _TINY
    if small.any():
        logs[small] = -np.inf
        possible = (log_matrix > -np.inf) @ (columns > -np.inf)  # (J, M) of bool
        j, m = np.nonzero(small & possible)
        terms = np.take(log_matrix, j, axis=0).T + np.take(columns, m, axis=1)
        logs[j, m] = log_sum(terms)[0]
    return logs.reshape(-1, *values.shape[1:])


def _exp(values: np.ndarray) -> np.ndarray:
    """Exps of values up to 0, at least 1e-304: numbers close to underflow take far longer."""
    return np.exp(np.maximum(values, -700.0))


def max_product(log_matrix: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The largest of log_matrix (J, K) + values (K, ...) over K: (J, ...)."""
    columns = log_matrix.T.reshape(*log_matrix.T.shape, *[1] * (values.ndim - 1))  # (K, J, ...)
    return functools.reduce(np.maximum, (c + v for c, v in zip(columns, values, strict=True)))


SUM = Semiring(log_sum, log_product)
MAX = Semiring(functools.partial(np.max, axis=0, keepdims=True), max_product)
