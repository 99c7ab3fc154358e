"""Latent Dirichlet allocation of rows with several modalities, on arrays.

The modalities' counts stand side by side in one sparse matrix (N, W). A row n has one distribution
over the K topics, ``theta_n ~ Dirichlet(alpha)``, for all of its tokens, and a topic k one
distribution over the words of each modality m, ``phi_km ~ Dirichlet(beta)``. A prior message m_n
multiplies the probability of the topic of each of the row's tokens:
``p(z = k) ~ m_nk theta_nk phi_kw``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .. import processes
from ._plus_plus import plus_plus_centres

_BATCH = 2**17  # numbers in a batch: a few megabytes stay near the processor
_FOLD_IN_STEPS, START_STEPS, _FOLD_IN_TOL = 200, 3, 1e-3


@dataclass(frozen=True)
class Problem:
    """What stays the same over all starts of one fit, of the rows of this process.

    Attributes
    ----------
    counts : scipy.sparse.csr_array, shape (N, W)
        Counts >= 0, not necessarily integers, of all modalities side by side.
    sizes : tuple of int
        Number of words of each modality; they add up to W.
    row_prior : np.ndarray, shape (N, K)
        m, up to a factor a row; 1 where nothing is known.
    alpha, beta : float
        Concentrations of the Dirichlet priors on theta and phi.
    """

    counts: sparse.csr_array
    sizes: tuple[int, ...]
    row_prior: np.ndarray
    alpha: float
    beta: float
    max_iter: int
    tol: float

    @property
    def n_components(self) -> int:
        """Number of topics K."""
        return self.row_prior.shape[1]

    @property
    def n_tokens(self) -> float:
        """Sum of all counts."""
        return self.counts.data.sum()

    def proportions(self, row_counts: np.ndarray) -> np.ndarray:
        """Each row's distribution over topics given its tokens' topics: (N, K) -> (N, K)."""
        return normalised(self.row_prior * (row_counts + self.alpha))

    def topics(self, word_counts: np.ndarray) -> np.ndarray:
        """E[phi] given the tokens' topics: (W, K) -> (K, W), 1 in sum over each modality."""
        smoothed = word_counts + self.beta
        return (smoothed / self.per_word(smoothed)).T

    def per_word(self, word_counts: np.ndarray) -> np.ndarray:
        """For each word its modality's total: (W, K) -> (W, K)."""
        starts = np.cumsum((0, *self.sizes[:-1]))
        return np.repeat(np.add.reduceat(word_counts, starts, axis=0), self.sizes, axis=0)


@dataclass(frozen=True)
class Solution:
    """Topics learnt from rows.

    Attributes
    ----------
    topics : (K, W)
        Word probabilities, which add up to 1 over each modality.
    proportions : (N, K)
        Topic probabilities of each row, its prior included.
    log_likelihood : list of float
        Mean over tokens, in nats, by iteration.
    """

    topics: np.ndarray
    proportions: np.ndarray
    log_likelihood: list[float]
    converged: bool


@dataclass(frozen=True)
class Batch:
    """Consecutive rows' n entries other than 0.

    Attributes
    ----------
    rows : slice
    row, word : (n,) of int
        Row of each entry, counted from the batch's first, and column.
    counts : (n,)
    by_row, by_word : sparse matrices (rows, n) and (W, n)
        They sum each entry's topic probabilities, times its count, over rows or words.
    """

    rows: slice
    row: np.ndarray
    word: np.ndarray
    counts: np.ndarray
    by_row: sparse.csr_array
    by_word: sparse.csr_array

    @property
    def one_token(self) -> np.ndarray:
        """How much of an entry is left out when one of its tokens is looked at: (n, 1)."""
        return np.minimum(self.counts, 1.0)[:, None]


def normalised(values: np.ndarray) -> np.ndarray:
    """Rows divided by their sums."""
    return values / values.sum(axis=1, keepdims=True)


def batches(problem: Problem) -> Iterator[Batch]:
    """The problem's rows in parts of about equal work."""
    n_rows, n_words = problem.counts.shape
    per_row = problem.counts.nnz / n_rows * problem.n_components
    step = max(int(_BATCH / max(per_row, 1)), 1)
    for start in range(0, n_rows, step):
        part = problem.counts[start : start + step]
        entries = np.arange(part.nnz)
        yield Batch(
            slice(start, start + part.shape[0]),
            np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)),
            part.indices,
            part.data,
            sparse.csr_array((part.data, entries, part.indptr), shape=(part.shape[0], part.nnz)),
            sparse.csr_array((part.data, (part.indices, entries)), shape=(n_words, part.nnz)),
        )


def cvb0(problem: Problem, topics: np.ndarray) -> Solution:
    """Collapsed variational inference of order zero, from the given topics (K, W).

    The topic probabilities of a token are updated from expected counts that leave it out,
    ``gamma_nwk ~ m_nk (N_nk + alpha) (N_wk + beta) / (N_k + W_m beta)``, for all tokens of a batch
    of rows at once (Asuncion, Welling, Smyth and Teh, 2009, "On smoothing and inference for topic
    models"); the tokens of an entry share their probabilities. Stops when the log-likelihood of
    tokens, each predicted from all the others, changes by less than `tol` a token. Memory: K
    numbers for each entry of `counts` that is not 0.

    Of several processes each goes over its own rows and hears of the others' once an iteration
    (Newman, Asuncion, Smyth and Welling, 2009, "Distributed algorithms for topic models").
    """
    parts = list(batches(problem))
    row_counts, _ = fold_in(problem, topics, START_STEPS)
    word_counts, gammas = np.zeros_like(topics.T), []
    for part in parts:
        gammas.append(_start(problem, part, row_counts, topics))
        row_counts[part.rows] = part.by_row @ gammas[-1]
        word_counts += part.by_word @ gammas[-1]
    word_counts, n_tokens = processes.total(word_counts), processes.total(problem.n_tokens)
    likelihoods, converged = [], False
    while len(likelihoods) < problem.max_iter and not converged:
        total, before = 0.0, word_counts.copy()
        for i, part in enumerate(parts):
            new, log_p = _reassign_both(problem, part, gammas[i], row_counts, word_counts)
            row_counts[part.rows] = part.by_row @ new
            word_counts += part.by_word @ (new - gammas[i])
            gammas[i] = new
            total += part.counts @ log_p
        word_counts = processes.merged(before, word_counts)
        likelihoods.append(float(processes.total(total) / n_tokens))
        converged = len(likelihoods) > 1 and abs(likelihoods[-1] - likelihoods[-2]) < problem.tol
    return Solution(
        problem.topics(word_counts), problem.proportions(row_counts), likelihoods, converged
    )


def _start(problem: Problem, part: Batch, row_counts: np.ndarray, topics: np.ndarray) -> np.ndarray:
    prior = problem.row_prior[part.rows] * (row_counts[part.rows] + problem.alpha)
    return normalised(prior[part.row] * topics.T[part.word])


def _reassign_both(
    problem: Problem,
    part: Batch,
    gamma: np.ndarray,
    row_counts: np.ndarray,
    word_counts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """`_reassign` by topics that leave the token out too."""
    smoothed = word_counts + problem.beta
    left_out = part.one_token * gamma  # (n, K)
    likelihood = smoothed.take(part.word, axis=0) - left_out
    likelihood /= problem.per_word(smoothed).take(part.word, axis=0) - left_out
    return _reassign(problem, part, left_out, row_counts, likelihood)


def _reassign(
    problem: Problem,
    part: Batch,
    left_out: np.ndarray,
    row_counts: np.ndarray,
    likelihood: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """New topic probabilities (n, K), and each entry's log-likelihood (n,) a token."""
    prior = (row_counts[part.rows] + problem.alpha).take(part.row, axis=0) - left_out
    prior *= problem.row_prior[part.rows].take(part.row, axis=0)
    joint = prior * likelihood
    ones = np.ones(problem.n_components)  # a product is several times faster than sum(axis=1)
    total = joint @ ones
    joint /= total[:, None]
    return joint, np.log(total / (prior @ ones))


def fold_in(
    problem: Problem, topics: np.ndarray, max_steps: int = _FOLD_IN_STEPS
) -> tuple[np.ndarray, float]:
    """Topics of the rows' tokens by CVB0, with the topics' words (K, W) given.

    Returns
    -------
    row_counts : np.ndarray, shape (N, K)
        Expected number of tokens of each topic.
    log_likelihood : float
        Sum over tokens, in nats, each predicted from its row's others.
    """
    row_counts = np.zeros((problem.counts.shape[0], problem.n_components))
    log_likelihood = 0.0
    for part in batches(problem):
        likelihood = topics.T[part.word]  # (n, K)
        gamma = _start(problem, part, row_counts, topics)
        row_counts[part.rows] = part.by_row @ gamma
        for _ in range(max_steps):
            left_out = part.one_token * gamma
            gamma, log_p = _reassign(problem, part, left_out, row_counts, likelihood)
            before = row_counts[part.rows].copy()
            row_counts[part.rows] = part.by_row @ gamma
            if _largest_change(before, row_counts[part.rows]) < _FOLD_IN_TOL:
                break
        log_likelihood += part.counts @ log_p
    return row_counts, float(log_likelihood)


def _largest_change(before: np.ndarray, after: np.ndarray) -> float:
    """Of any topic's share in any row."""
    tokens = np.maximum(after.sum(axis=1, keepdims=True), 1.0)
    return float((np.abs(after - before) / tokens).max(initial=0.0))


def plus_plus_starts(
    problem: Problem, n_init: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Topics (K, W) of rows grouped around k-means++ centres.

    Distances are Hellinger's, between the rows' relative frequencies. Centres are rows of all
    modalities where there are enough, so that rows are not grouped by what they miss.
    """
    tokens = row_tokens(problem)  # (N, M)
    complete, filled = (tokens > 0).all(axis=1), (tokens > 0).any(axis=1)
    enough = processes.total(complete.sum()) >= problem.n_components
    chosen = complete if enough else filled
    roots = problem.counts.multiply(1 / np.maximum(tokens.sum(axis=1), 1e-300)[:, None]).tocsr()
    roots.data = np.sqrt(roots.data)
    for _ in range(n_init):
        seed = int(rng.integers(2**31))
        centres = plus_plus_centres(
            roots[chosen], np.ones(chosen.sum()), problem.n_components, seed
        )
        nearest = (roots @ centres.T).argmax(axis=1)
        word_counts = problem.counts.T @ np.eye(problem.n_components)[nearest]
        yield problem.topics(processes.total(word_counts))


def row_tokens(problem: Problem) -> np.ndarray:
    """Number of tokens of each row in each modality, (N, M)."""
    words = np.arange(problem.counts.shape[1])
    owner = np.repeat(np.arange(len(problem.sizes)), problem.sizes)
    columns = sparse.csr_array((np.ones(len(words)), (words, owner)))
    return (problem.counts @ columns).toarray()
