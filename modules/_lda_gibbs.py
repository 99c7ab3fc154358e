"""Latent Dirichlet allocation by Gibbs sampling, on arrays: the model is that of `_lda`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .. import processes
from ._lda import START_STEPS, Batch, Problem, Solution, batches, fold_in, normalised


def gibbs_sampling(problem: Problem, topics: np.ndarray, rng: np.random.Generator) -> Solution:
    """`max_iter` sweeps: theta and phi given all tokens' topics, then all topics given those.

    A blocked sampler of the same posterior, vectorised over tokens; counts are rounded to
    integers. The solution holds the posterior means over the second half of the sweeps, from
    expected counts.
    """
    counts = problem.counts.copy()
    counts.data = np.rint(counts.data)
    counts.eliminate_zeros()
    problem = replace(problem, counts=counts)
    parts, burn_in = list(batches(problem)), problem.max_iter // 2
    own_rng = processes.generator(rng)
    theta = problem.proportions(fold_in(problem, topics, START_STEPS)[0])
    likelihoods, row_sum, word_sum = [], 0.0, 0.0
    for sweep in range(problem.max_iter):
        row_counts, word_counts, likelihood = _draw_topics(problem, parts, theta, topics, own_rng)
        likelihoods.append(likelihood)
        if sweep >= burn_in:
            row_sum, word_sum = row_sum + row_counts, word_sum + word_counts
        theta = normalised(problem.row_prior * _gamma(row_counts + problem.alpha, own_rng))
        weights = _gamma(word_counts + problem.beta, rng)
        topics = (weights / problem.per_word(weights)).T
    n_kept = problem.max_iter - burn_in
    return Solution(
        problem.topics(word_sum / n_kept), problem.proportions(row_sum / n_kept), likelihoods, True
    )


def _draw_topics(
    problem: Problem,
    parts: Sequence[Batch],
    theta: np.ndarray,
    topics: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw every token's topic: counts by row (N, K) and by word (W, K), log-likelihood a token."""
    row_counts, word_counts, total = np.empty_like(theta), np.zeros_like(topics.T), 0.0
    for part in parts:
        joint = theta[part.rows][part.row] * topics.T[part.word]
        likelihood = joint.sum(axis=1)
        drawn = rng.multinomial(part.counts.astype(np.int64), joint / likelihood[:, None])
        shares = drawn / part.counts[:, None]
        row_counts[part.rows] = part.by_row @ shares
        word_counts += part.by_word @ shares
        total += part.counts @ np.log(likelihood)
    mean = processes.total(total) / processes.total(problem.n_tokens)
    return row_counts, processes.total(word_counts), float(mean)


def _gamma(shape: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws which normalise to Dirichlet ones; small shapes would underflow to all 0."""
    return np.maximum(rng.standard_gamma(shape), np.finfo(np.float64).tiny)
