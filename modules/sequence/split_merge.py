"""Split-and-merge for chains: ways out of optima with two classes in one state and one in two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice

import numpy as np
from scipy.special import xlogy

from ... import processes
from .chains import (
    Chain,
    ChainPrior,
    ChainSolution,
    Smoothed,
    expectation_maximisation,
    forward_backward,
    log_product,
)


@dataclass(frozen=True)
class Regrouping:
    """States that stand for other classes than those whose evidence came, and a chain over them."""

    log_shares: np.ndarray  # (K states, K classes), log P(class | state)
    chain: Chain

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Regrouping:
        """From what `as_dict` returned."""
        return cls(arrays["log_shares"], Chain(arrays["transition"], arrays["initial"]))

    def as_dict(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {"log_shares": self.log_shares, **vars(self.chain)}

    def evidence(self, evidence: np.ndarray) -> np.ndarray:
        """Log p(row | state) from log p(row | class), (N, K) both: ``log sum_c P(c | k) p(c)``."""
        return log_product(self.log_shares, evidence.T).T


def split_and_merge(
    evidence: np.ndarray, starts: np.ndarray, solution: ChainSolution, problem: Problem
) -> Regrouping | None:
    """The best chain that exchanges of states lead to, if it is much likelier than the given one.

    In a try states a and b become one, whose rows are of class a or b, and s becomes two, both of
    class s, so that their number stays. Baum-Welch goes on from there. A mixture with two classes
    in one component and one class in two gives itself away by what comes before and after its rows:
    those of s have two contexts, and those of a and b share one. The chain that a try comes to is
    taken if its log-likelihood is higher by more than the Bayesian information criterion charges
    for the ``2 (K - 1)`` transitions of a state, so that chance does not do; the next tries are
    made from it. After Ueda, Nakano, Ghahramani and Hinton (2000), "SMEM algorithm for mixture
    models", *Neural Computation* 12(9), whose components are split by their rows.

    Parameters
    ----------
    evidence : np.ndarray of shape (N, K)
        Log p(row t | class), rows in the order of their sequences.
    starts : np.ndarray of shape (N,)
        True in the first rows of sequences.
    solution : ChainSolution
        Of the problem on that evidence.
    problem : Problem

    Returns
    -------
    Regrouping or None
        None if no try is taken.

    Examples
    --------
    Classes 0, 1, 2, 1 in turn. Class 1 has two contexts, and class 2 was found in two parts, 2 and
    3. With a state for both, one is left for the second context:

    >>> import numpy as np
    >>> from functools import partial
    >>> from serkit.modules.sequence.chains import Chain, ChainPrior, forward_backward
    >>> from serkit.modules.sequence.split_merge import Problem, split_and_merge
    >>> found = np.tile([0, 1, 2, 1, 0, 1, 3, 1], 20)
    >>> evidence = np.log(0.97 * np.eye(4) + 0.01)[found]
    >>> starts = np.arange(len(found)) == 0
    >>> problem = Problem(ChainPrior(np.array(1.0), np.array(1.0)), 50, 1e-6, n_tries=4)
    >>> start = Chain(np.full((4, 4), 0.25), np.full(4, 0.25))
    >>> stuck = problem.solve(partial(forward_backward, evidence, starts=starts), start)
    >>> found = split_and_merge(evidence, starts, stuck, problem)
    >>> np.exp(found.log_shares).round(2)
    array([[1. , 0. , 0. , 0. ],
           [0. , 1. , 0. , 0. ],
           [0. , 0. , 0.5, 0.5],
           [0. , 1. , 0. , 0. ]])
    """
    n_rows = processes.total(len(evidence))
    k = evidence.shape[1]
    charge = (k - 1) * math.log(n_rows) / n_rows
    with np.errstate(divide="ignore"):
        current = Regrouping(np.log(np.eye(k)), solution.chain)
    best, bound, n_left = None, solution.lower_bound[-1], problem.n_tries
    while n_left > 0:
        smoothed = forward_backward(current.evidence(evidence), current.chain, starts)
        promising = exchanges(current, smoothed, starts, problem.prior, charge * n_rows / 2)
        for regrouping in islice(promising, n_left):
            n_left -= 1
            e_step = partial(forward_backward, regrouping.evidence(evidence), starts=starts)
            other = problem.solve(e_step, regrouping.chain)
            if processes.any_of(other.lower_bound[-1] > bound + charge):
                bound = other.lower_bound[-1]
                best = current = Regrouping(regrouping.log_shares, other.chain)
                break
        else:  # each has been tried
            break
    return best


@dataclass(frozen=True)
class Problem:
    """What stays the same over all tries."""

    prior: ChainPrior
    max_iter: int
    tol: float
    n_tries: int

    def solve(self, e_step: Callable[[Chain], Smoothed], chain: Chain) -> ChainSolution:
        """What Baum-Welch makes of a chain."""
        return expectation_maximisation(e_step, chain, self.prior, self.max_iter, self.tol)


def exchanges(
    current: Regrouping, smoothed: Smoothed, starts: np.ndarray, prior: ChainPrior, least: float
) -> Iterator[Regrouping]:
    """Chains with states a and b as one and s as two, the most promising first.

    The state s may also be the union of a and b. Only those where the split gains `least` nats more
    than the merger loses, both estimated from how often which state comes before and after which.
    (On digits Baum-Welch then gained 1 to 20 % more than that.)
    """
    posterior = np.exp(smoothed.log_posterior)
    follows = ~starts[1:]
    weights = processes.total(posterior.sum(axis=0))
    counts = processes.total(smoothed.transition_counts)
    around = contexts(posterior, follows)
    losses: dict[tuple[int, int], float] = {}
    splits: dict[tuple[int, ...], Split] = {(s,): split_of(n) for s, n in enumerate(around)}
    for a, b in combinations(range(len(counts)), 2):
        losses[a, b] = loss_of_merger(counts, a, b)
        splits[a, b] = split_of(around[a] + around[b])
    promising = [
        (loss - split.gain, pair, source)
        for pair, loss in losses.items()
        for source, split in splits.items()
        if split.gain - loss > least
        and (source == pair or (len(source) == 1 and source[0] not in pair))
    ]
    for _, pair, source in processes.of_first(sorted(promising)):  # processors round differently
        shares = np.concatenate([[0.0], posterior[:-1, splits[source].previous] * follows])  # (N,)
        states = regrouped(posterior, pair, source, shares)
        log_shares = exchanged(current.log_shares, weights, pair, source)
        yield Regrouping(log_shares, chain_of(states, follows, starts, prior, current.chain))


def regrouped(
    posterior: np.ndarray, pair: tuple[int, int], source: tuple[int, ...], shares: np.ndarray
) -> np.ndarray:
    """P(state), (N, K), with a pair as one and the source as two, b getting `shares` (N,) of it."""
    a, b = pair
    states = posterior.copy()
    split = posterior[:, list(source)].sum(axis=1)
    states[:, a] = posterior[:, [a, b]].sum(axis=1)
    states[:, b] = split * shares
    states[:, a if source == pair else source[0]] = split * (1 - shares)
    return states


def exchanged(
    log_shares: np.ndarray, weights: np.ndarray, pair: tuple[int, int], source: tuple[int, ...]
) -> np.ndarray:
    """Log P(class | state), (K, K), with the union of a and b for a, and the source for b."""
    a, b = pair
    log_shares = log_shares.copy()
    of_pair = np.maximum(weights[[a, b]], np.finfo(float).tiny)  # states without rows have equal
    of_pair = np.log(of_pair / of_pair.sum())
    log_shares[a] = np.logaddexp(*(log_shares[[a, b]] + of_pair[:, None]))
    log_shares[b] = log_shares[a if source == pair else source[0]]
    return log_shares


def chain_of(
    posterior: np.ndarray, follows: np.ndarray, starts: np.ndarray, prior: ChainPrior, chain: Chain
) -> Chain:
    """The chain of states that rows have with these probabilities (N, K), each by itself.

    To every transition a K-th of one is added, which keeps it possible.
    """
    transitions = processes.total((posterior[:-1] * follows[:, None]).T @ posterior[1:])
    initials = processes.total(posterior[starts].sum(axis=0))
    least = 1 / len(initials)
    return prior.m_step(transitions + least, initials + least, chain)


# -- what mergers lose and splits gain -------------------------------------------------------------


def contexts(posterior: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """How often each state has which state before and which after it, (K, K before, K after)."""
    inner = (follows[:-1] & follows[1:])[:, None]
    before, after = posterior[:-2] * inner, posterior[2:]
    counts = [(before * state[:, None]).T @ after for state in posterior[1:-1].T]
    return processes.total(np.stack(counts))


def loss_of_merger(counts: np.ndarray, a: int, b: int) -> float:
    """Nats that one state for a and b loses, of what comes after and before: counts (K, K)."""
    return gain_of(counts[[a, b]]) + gain_of(counts.T[[a, b]])


@dataclass(frozen=True)
class Split:
    """A state as two: one for its rows with a certain state before them, one for the others."""

    gain: float
    previous: int


def split_of(counts: np.ndarray) -> Split:
    """The split of a state that tells most of what follows: counts (K before, K after) of it."""
    total = counts.sum(axis=0)
    gains = [gain_of(np.stack([row, total - row])) for row in counts]
    previous = int(np.argmax(gains))
    return Split(gains[previous], previous)


def gain_of(counts: np.ndarray) -> float:
    """Nats gained by a distribution for each row of counts (2, K) over one for both."""
    return (
        log_likelihood_of(counts[0]) + log_likelihood_of(counts[1]) - log_likelihood_of(sum(counts))
    )


def log_likelihood_of(counts: np.ndarray) -> float:
    """The largest log-likelihood that a distribution gives to counts (K,)."""
    counts = np.maximum(counts, 0)  # less rounding
    return float(xlogy(counts, counts).sum() - xlogy(counts.sum(), counts.sum()))
