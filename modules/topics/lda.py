"""Latent Dirichlet allocation on arrays: counts, starts, CVB0, Gibbs sampling, topics of new rows.

Each token of row n has a topic k, drawn from the row's ``theta_n ~ Dirichlet(alpha)``, and is a
word drawn from the topic's ``phi_k ~ Dirichlet(beta)``, which adds up to 1 over each modality's
words. What the children say of a row is an observation more: of a class c, drawn from theta_n as
the tokens' topics are, it has seen something of likelihood m_nc, all in all ``theta_n . m_n``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, log_softmax

from ... import processes
from ...arrays import as_rows
from ...errors import InputError
from ...messages import Categorical, Message
from ...reading import array_in
from ..common.estimators import share_of_batch
from ..common.inputs import flat
from ..common.plus_plus import k_means, nearest, plus_plus_centres

Counts: TypeAlias = ArrayLike | sparse.sparray | sparse.spmatrix
Modalities: TypeAlias = list[sparse.csr_array]  # counts (N, W_m) of each

TOKENS_OF_CLASSES = 50.0  # where no counts stand beside them that say how long a row is
_MOST_TOKENS = 2.0**53  # the last integer that float64 tells from the next
BLOCK_NUMBERS = 2**17  # in a block: a few megabytes stay near the processor
START_STEPS = 3
HEARD_STEPS = 5
FOLD_IN_STEPS, FOLD_IN_TOL = 200, 1e-3


# -- counts ----------------------------------------------------------------------------------------


def counts_of(
    label: str, messages: Sequence[Message], class_tokens: float, clip_negative: bool = False
) -> Modalities:
    """Each parent's counts, (N, W_m): P(class) times `class_tokens`; 0 in missing rows."""
    counts = []
    for message in messages:
        if isinstance(message, Categorical):
            rows = class_tokens * np.exp(message.log_prob)
        else:
            rows = flat(message)
        rows = np.where(message.is_observed[:, None], rows, 0.0)
        counts.append(_checked(label, sparse.csr_array(rows, dtype=np.float64), clip_negative))
    return counts


def counts_in(label: str, x: Any, clip_negative: bool = False) -> Modalities:
    """The counts of an array or sparse matrix (N, W), or of each in a list of them."""
    several = isinstance(x, (list, tuple)) and all(
        sparse.issparse(a) or array_in(a, label).ndim > 1 for a in x
    )
    counts = [_as_sparse(label, m, clip_negative) for m in (x if several else [x])]
    n_rows = [modality.shape[0] for modality in counts]
    if len(set(n_rows)) != 1:
        raise InputError(f"{label}: expected modalities of equally many rows, got {n_rows}")
    return counts


def columns_in(counts: Modalities) -> np.ndarray:
    """Rows as wide as all modalities together, (N, W), of nothing: by which columns are counted."""
    n_words = sum(modality.shape[1] for modality in counts)
    return np.broadcast_to(0.0, (counts[0].shape[0], n_words))


def _as_sparse(label: str, x: Any, clip_negative: bool) -> sparse.csr_array:
    if not sparse.issparse(x):
        rows = as_rows(x, label)
        counts = sparse.csr_array(rows.reshape(len(rows), -1), dtype=np.float64)
        return _checked(label, counts, clip_negative)
    fits = x.ndim == 2 and 0 not in x.shape and x.dtype.kind in "biuf"
    counts = sparse.csr_array(x, dtype=np.float64, copy=True) if fits else None
    if counts is None or not np.isfinite(counts.data).all():
        raise InputError(
            f"{label}: expected finite counts of shape (N, W), got {x.shape} of {x.dtype}"
        )
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return _checked(label, counts, clip_negative)


def _checked(label: str, counts: sparse.csr_array, clip_negative: bool) -> sparse.csr_array:
    """Counts that are 0 or above: those below become 0 if wanted, and are an InputError if not."""
    if clip_negative:
        np.maximum(counts.data, 0, out=counts.data)
        counts.eliminate_zeros()
    if counts.nnz and counts.data.max() > _MOST_TOKENS / counts.nnz:
        row = np.searchsorted(counts.indptr, counts.data.argmax(), side="right") - 1
        raise InputError(
            f"{label}: counts up to {counts.data.max():g} (row {row}) may add up to more than "
            f"{_MOST_TOKENS:g}, which cannot be counted one by one; divide them by a number"
        )
    if counts.nnz and counts.data.min() < 0:
        row = np.searchsorted(counts.indptr, counts.data.argmin(), side="right") - 1
        raise InputError(
            f"{label}: Negative values in data: expected counts >= 0, got {counts.data.min():g} in "
            f"row {row}; MLDA takes histograms or class probabilities, and features if "
            "clip_negative=True"
        )
    return counts


def with_tokens(counts: sparse.csr_array, n_tokens: float | None) -> sparse.csr_array:
    """The same relative frequencies with `n_tokens` tokens per row; None: as they are."""
    if n_tokens is None:
        return counts
    totals = np.repeat(counts.sum(axis=1), np.diff(counts.indptr))  # of each entry's row
    weighted = counts.copy()
    weighted.data = n_tokens * (counts.data / totals)
    return weighted


def tokens_beside(counts: Modalities, weights: Sequence[float | None]) -> float:
    """Mean number of tokens, over modalities of counts and their rows; 50 where there are none.

    So many tokens a class counts as, which stands for a whole modality.
    """
    weighted = (with_tokens(*pair) for pair in zip(counts, weights, strict=True))
    tokens = [mean_tokens(modality) for modality in weighted]
    return float(np.mean(tokens)) if any(tokens) else TOKENS_OF_CLASSES


def mean_tokens(counts: sparse.csr_array) -> float:
    """Mean number of tokens of the rows that have any, of all processes; 0 if none has."""
    tokens = counts.sum(axis=1)
    return float(processes.total(tokens.sum()) / max(processes.total((tokens > 0).sum()), 1))


# -- the model -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What stays the same over all starts of one fit, of the rows of this process."""

    counts: sparse.csr_array  # (N, W), >= 0, maybe no integers, all modalities side by side
    sizes: tuple[int, ...]  # number of words of each modality; they add up to W
    from_children: np.ndarray  # (N, K), m, up to a factor per row
    n_heard: np.ndarray  # (N,), observations that m counts as; 0 where it says nothing
    alpha: float  # concentration of the Dirichlet prior on theta
    beta: float  # the same of phi
    max_iter: int
    tol: float  # nats per token

    @property
    def n_components(self) -> int:
        """Number of topics K."""
        return self.from_children.shape[1]

    @property
    def n_tokens(self) -> float:
        """Sum of all counts."""
        return self.counts.data.sum()

    @property
    def row_tokens(self) -> np.ndarray:
        """Number of tokens of each row in each modality, (N, M)."""
        return self.counts @ np.repeat(np.eye(len(self.sizes)), self.sizes, axis=0)

    def proportions(self, row_counts: np.ndarray) -> np.ndarray:
        """E[theta] given the tokens' topics and what the children say: (N, K) -> (N, K)."""
        return normalised(self.with_heard(row_counts + self.alpha))

    def classes(self, theta: np.ndarray) -> np.ndarray:
        """P(c) of the one class that parents and children speak of, by theta and the children."""
        return normalised(theta * self.from_children ** self.n_heard[:, None])

    def with_heard(
        self, dirichlet: np.ndarray, rows: slice | np.ndarray = slice(None)
    ) -> np.ndarray:
        """Concentrations (n, K) of some rows' theta, with what the children say of these rows."""
        n_heard = self.n_heard[rows]
        if not n_heard.any():
            return dirichlet
        return dirichlet + heard_counts(dirichlet, self.from_children[rows], n_heard)

    def total(self, per_token: float, row_counts: np.ndarray) -> float:
        """Log-likelihood of all rows' tokens, and of messages given those, in nats."""
        theta = normalised(row_counts + self.alpha)
        of_messages = self.n_heard @ np.log((theta * self.from_children).sum(axis=1))
        return float(processes.total(self.n_tokens * per_token + of_messages))

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
    """Topics learnt from rows."""

    topics: np.ndarray  # (K, W), word probabilities, which add up to 1 over each modality
    proportions: np.ndarray  # (N, K), E[theta], what the children say included
    log_likelihood: list[float]  # mean over tokens, in nats, by iteration
    total: float  # log-likelihood of all tokens and of what the children say, by which to choose
    converged: bool


def normalised(values: np.ndarray) -> np.ndarray:
    """Rows divided by their sums."""
    return values / values.sum(axis=1, keepdims=True)


def heard_counts(dirichlet: np.ndarray, message: np.ndarray, n_heard: np.ndarray) -> np.ndarray:
    """Expected observations of each topic that a message adds to Dirichlet(a), (n, K).

    As w observations a message m has the likelihood ``(theta . m)^w``: each is of a class drawn
    from theta, which is k with probability ``r_k ~ m_k (a_k + (w - 1) r_k)`` by the tokens and the
    other w - 1 of them, if there are any. Then ``E[theta] ~ a + w r``. That is exact for w = 1,
    where ``E[theta_k] ~ a_k (a . m + m_k)``, and where m leaves one class; a uniform m makes r
    proportional to a, and changes nothing.
    """
    others = np.maximum(n_heard - 1, 0)[:, None]
    probability = normalised(message * dirichlet)
    for _ in range(HEARD_STEPS if others.any() else 0):
        probability = normalised(message * (dirichlet + others * probability))
    return n_heard[:, None] * probability


def log_prob_of_classes(dirichlet: np.ndarray, phi: np.ndarray, n_tokens: float) -> np.ndarray:
    """Log probability of each class of a parent that counts as w tokens: (N, K), (K, C) -> (N, C).

    A row's class c is w tokens of the word c, so that ``P(c) ~ E[(theta . phi_c)^w]`` for theta of
    Dirichlet(a). The C numbers theta . phi_c are about Dirichlet(a') with ``a' = a phi`` (exactly
    if each topic has one class), under which the expectation is ``Gamma(a'_c + w) / Gamma(a'_c)``
    up to a factor: Pólya's urn. One token makes it the mean of theta . phi_c.
    """
    concentrations = dirichlet @ phi  # (N, C)
    return log_softmax(gammaln(concentrations + n_tokens) - gammaln(concentrations), axis=1)


def one_to_one(phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """P(class | topic) where every topic has a class of its own, (K, K) of 0 and 1.

    Of all such tables the one that leaves most tokens in the class they have, by P(class | topic)
    (K, K) and the topics' weights (K,).
    """
    return np.eye(len(phi))[linear_sum_assignment(-weights[:, None] * phi)[1]]


@dataclass(frozen=True)
class Block:
    """Some rows' n entries other than 0."""

    rows: np.ndarray  # (B,) of int, numbers of the rows
    row: np.ndarray  # (n,) of int, place of each entry's row among these
    word: np.ndarray  # (n,) of int, its column
    counts: np.ndarray  # (n,)
    by_row: sparse.csr_array  # (B, n), sums over rows what entries have, times their counts
    n_words: int

    @classmethod
    def of(cls, problem: Problem, rows: np.ndarray) -> Block:
        """The entries of rows with these numbers."""
        counts = problem.counts[rows]
        n_rows, n_words = counts.shape
        row = np.repeat(np.arange(n_rows), np.diff(counts.indptr))
        entries = (counts.data, np.arange(counts.nnz), counts.indptr)
        by_row = sparse.csr_array(entries, shape=(n_rows, counts.nnz))
        return cls(rows, row, counts.indices, counts.data, by_row, n_words)

    @cached_property
    def by_word(self) -> sparse.csr_array:
        """(W, n), sums over words what entries have, times their counts."""
        places = self.word, np.arange(len(self.word))
        return sparse.csr_array((self.counts, places), shape=(self.n_words, len(self.word)))

    @cached_property
    def is_whole(self) -> bool:
        """Whether every entry has a token or more."""
        return bool((self.counts >= 1).all())

    def one_token(self, gamma: np.ndarray) -> np.ndarray:
        """What is left out of expected counts when a token of an entry is looked at: (n, K).

        Only to be read, as it may be gamma itself.
        """
        return gamma if self.is_whole else np.minimum(self.counts, 1.0)[:, None] * gamma


def blocks_of(problem: Problem) -> Iterator[Block]:
    """The problem's rows in blocks of about equal work."""
    n_rows = problem.counts.shape[0]
    per_row = problem.counts.nnz / n_rows * problem.n_components
    step = max(int(BLOCK_NUMBERS / max(per_row, 1)), 1)
    for start in range(0, n_rows, step):
        yield Block.of(problem, np.arange(start, min(start + step, n_rows)))


def plus_plus_starts(
    problem: Problem, n_init: int, rng: Generator, alone: Sequence[int] = ()
) -> Iterator[np.ndarray]:
    """Topics (K, W) of rows grouped around the centres of k-means, `n_init` times.

    Every second start groups rows by one of the modalities `alone`, in turn, whose topics are found
    first: a modality as sure of itself as class probabilities are would decide all other starts.
    Groups get the numbers of the children's classes with which they share most rows.
    """
    modalities = cycle([of_modality(problem, m) for m in alone if len(problem.sizes) > 1])
    for i in range(n_init):
        part = next(modalities, None) if i % 2 else None
        groups = plus_plus_groups(problem, rng) if part is None else groups_by_topics(part, rng)
        shared = processes.total(groups.T @ groups_of_message(problem))
        _, numbers = linear_sum_assignment(-shared)  # as they are where nothing is shared
        yield topics_of_groups(problem, groups[:, np.argsort(numbers)])


def plus_plus_groups(problem: Problem, rng: Generator) -> np.ndarray:
    """The nearest of K centres for each row, by k-means from k-means++: (N, K) of 0 and 1.

    Distances are Hellinger's, between the rows' relative frequencies. Centres are rows of all
    modalities where there are enough, so that rows are not grouped by what they miss.
    """
    tokens = problem.row_tokens  # (N, M)
    complete, filled = (tokens > 0).all(axis=1), (tokens > 0).any(axis=1)
    candidates = complete if processes.total(complete.sum()) >= problem.n_components else filled
    total = np.maximum(tokens.sum(axis=1), 1e-300)[:, None]
    roots = problem.counts.multiply(1 / total).tocsr().sqrt()
    rows, weight = roots[candidates], np.ones(candidates.sum())
    centres = plus_plus_centres(rows, weight, problem.n_components, int(rng.integers(2**31)))
    centres = k_means(rows, weight, centres)
    return np.eye(problem.n_components)[nearest(roots, centres)]


def groups_by_topics(problem: Problem, rng: Generator) -> np.ndarray:
    """Each row's proportions of the topics found from one start by k-means, (N, K).

    0 for rows without tokens.
    """
    solution = cvb0(problem, topics_of_groups(problem, plus_plus_groups(problem, rng)))
    return solution.proportions * (problem.row_tokens > 0)


def of_modality(problem: Problem, number: int) -> Problem:
    """The problem of one modality alone."""
    stop = sum(problem.sizes[: number + 1])
    size = problem.sizes[number]
    return replace(problem, counts=problem.counts[:, stop - size : stop], sizes=(size,))


def start_of_message(problem: Problem) -> np.ndarray:
    """Topics (K, W) of the rows grouped as the children say."""
    return topics_of_groups(problem, groups_of_message(problem))


def groups_of_message(problem: Problem) -> np.ndarray:
    """Each row's probabilities of topics by the children alone, (N, K), 0 where they are silent."""
    return normalised(problem.from_children) * (problem.n_heard > 0)[:, None]


def topics_of_groups(problem: Problem, groups: np.ndarray) -> np.ndarray:
    """Topics (K, W) by the words of all rows in each of K groups, given as (N, K)."""
    return problem.topics(processes.total(problem.counts.T @ groups))


# -- inference -------------------------------------------------------------------------------------


def cvb0(problem: Problem, topics: np.ndarray) -> Solution:
    """Collapsed variational inference of order zero, from the given topics (K, W).

    The topic probabilities of a token are updated from expected counts that leave it out,
    ``gamma_nwk ~ (N_nk + w r_nk + alpha) (N_wk + beta) / (N_k + W_m beta)``, for all tokens of a
    block of rows at once (Asuncion, Welling, Smyth and Teh, 2009, "On smoothing and inference for
    topic models"); w r_n is what the children's message adds, see `heard_counts`. The tokens of an
    entry of `counts` share their K probabilities, which are kept. Stops when the log-likelihood of
    tokens, each predicted from all the others, changes by less than `tol`. Of several processes
    each hears of the others' rows once an iteration (Newman, Asuncion, Smyth and Welling, 2009,
    "Distributed algorithms for topic models").
    """
    blocks = list(blocks_of(problem))
    row_counts, _ = fold_in(problem, topics, START_STEPS)
    word_counts, gammas = np.zeros_like(topics.T), []
    for block in blocks:
        gammas.append(_start_of(problem, block, row_counts, topics))
        row_counts[block.rows] = block.by_row @ gammas[-1]
        word_counts += block.by_word @ gammas[-1]
    word_counts, n_tokens = processes.total(word_counts), processes.total(problem.n_tokens)
    likelihoods: list[float] = []
    converged = False
    while len(likelihoods) < problem.max_iter and not converged:
        total, before = 0.0, word_counts.copy()
        for i, block in enumerate(blocks):
            left_out = block.one_token(gammas[i])  # (n, K)
            smoothed = word_counts + problem.beta  # (W, K)
            p_word = smoothed.take(block.word, axis=0)  # (n, K)
            p_word -= left_out
            of_modality = problem.per_word(smoothed).take(block.word, axis=0)
            of_modality -= left_out
            p_word /= of_modality
            gamma, log_p = reassign(problem, block, row_counts, left_out, p_word)
            row_counts[block.rows] = block.by_row @ gamma
            change = np.subtract(gamma, gammas[i], out=gammas[i])
            word_counts += block.by_word @ change
            gammas[i] = gamma
            total += block.counts @ log_p
        word_counts = processes.merged(before, word_counts)
        likelihoods.append(float(processes.total(total) / n_tokens))
        converged = len(likelihoods) > 1 and abs(likelihoods[-1] - likelihoods[-2]) < problem.tol
    return Solution(
        problem.topics(word_counts),
        problem.proportions(row_counts),
        likelihoods,
        problem.total(likelihoods[-1], row_counts),
        converged,
    )


def fold_in(
    problem: Problem, topics: np.ndarray, max_steps: int = FOLD_IN_STEPS
) -> tuple[np.ndarray, float]:
    """CVB0 with the topics' words (K, W) given: expected tokens by row and topic, (N, K).

    Beside them the sum of tokens' log-likelihoods, in nats, each predicted from its row's others.
    """
    row_counts = np.zeros((problem.counts.shape[0], problem.n_components))
    log_likelihood = 0.0
    for block in blocks_of(problem):
        p_word = topics.T.take(block.word, axis=0)  # (n, K)
        gamma = _start_of(problem, block, row_counts, topics)
        row_counts[block.rows] = block.by_row @ gamma
        for steps_left in reversed(range(max_steps)):
            left_out = block.one_token(gamma)
            gamma, log_p = reassign(problem, block, row_counts, left_out, p_word)
            before, after = row_counts[block.rows], block.by_row @ gamma
            row_counts[block.rows] = after
            tokens = np.maximum(after.sum(axis=1), 1.0)
            moving = np.abs(after - before).max(axis=1) / tokens >= FOLD_IN_TOL
            moving &= steps_left > 0
            goes_on = moving[block.row]  # no row waits for another's end
            log_likelihood += float(block.counts[~goes_on] @ log_p[~goes_on])
            if not moving.any():
                break
            if not moving.all():
                block = Block.of(problem, block.rows[moving])
                gamma, p_word = gamma[goes_on], p_word[goes_on]
    return row_counts, log_likelihood


def reassign(
    problem: Problem, block: Block, row_counts: np.ndarray, left_out: np.ndarray, p_word: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """New topic probabilities (n, K) of a block's tokens, from those of their rows' other tokens.

    Of the rows' counts (N, K), `left_out` (n, K) is what a token itself adds; `p_word` (n, K) is
    P(word | topic). Also returns log p(word | the row's other tokens), (n,), of one token each.
    """
    prior = (row_counts[block.rows] + problem.alpha).take(block.row, axis=0)
    prior -= left_out
    prior = problem.with_heard(prior, block.rows[block.row])
    ones = np.ones(problem.n_components)  # a product is several times faster than sum(axis=1)
    of_row = prior @ ones
    joint = np.multiply(prior, p_word, out=prior)
    total = joint @ ones
    joint /= total[:, None]
    return joint, np.log(total / of_row)


def _start_of(problem: Problem, block: Block, counts: np.ndarray, topics: np.ndarray) -> np.ndarray:
    """Topic probabilities of a block's tokens, (n, K), by rows' counts (N, K) and topics (K, W)."""
    prior = problem.with_heard(counts[block.rows] + problem.alpha, block.rows)
    return normalised(prior[block.row] * topics.T[block.word])


# -- batches of a stream ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """What is kept of all batches so far."""

    word_counts: np.ndarray  # (W, K), expected tokens by word and topic
    n_batches: int


def stream_of(
    components: Sequence[np.ndarray], theta: np.ndarray, mean_tokens: np.ndarray
) -> Stream:
    """What topics that were fitted to rows say of these, as the first batch.

    P(word | topic) (K, W_m) of each modality, theta (N, K) and mean tokens (M,) of its rows.
    """
    rows = processes.total(theta.sum(axis=0))  # (K,)
    pairs = zip(mean_tokens, components, strict=True)
    return Stream(np.concatenate([n * (rows[:, None] * phi).T for n, phi in pairs]), 1)


def learn_batch(
    problem: Problem, topics: np.ndarray, stream: Stream, step_size: float | None
) -> tuple[Stream, np.ndarray, float]:
    """A step of stochastic CVB0 from topics (K, W): new stream, theta (n, K), log-likelihood.

    Word counts become ``(1 - s) old + s new``, the new ones scaled to as many tokens as there have
    been, with s = (t + 1)^-0.6 for batch t = 2, 3, ... unless `step_size` gives s. The
    log-likelihood is per token, in nats, and by the old topics.
    """
    row_counts, log_likelihood = fold_in(problem, topics)
    word_counts = np.zeros_like(stream.word_counts)
    for block in blocks_of(problem):
        word_counts += block.by_word @ _start_of(problem, block, row_counts, topics)
    word_counts, n_tokens = processes.total(word_counts), processes.total(problem.n_tokens)
    n_batches, n_before = stream.n_batches + 1, stream.word_counts.sum()
    step = share_of_batch(n_batches, step_size)
    shares = (1 - step) * stream.word_counts / n_before + step * word_counts / n_tokens
    stream = Stream((n_before + n_tokens) * shares, n_batches)
    return stream, problem.proportions(row_counts), processes.total(log_likelihood) / n_tokens


# -- Gibbs sampling --------------------------------------------------------------------------------


def gibbs_sampling(problem: Problem, topics: np.ndarray, rng: Generator) -> Solution:
    """`max_iter` sweeps: all topics given theta and phi, then those given all tokens' topics.

    A blocked sampler of the same posterior, of counts rounded to integers. The classes of which the
    children speak are drawn as topics are; where they count as no whole number of observations, as
    the one above or below, at random. The solution holds means over the second half of the sweeps.
    """
    counts = problem.counts.rint()
    counts.eliminate_zeros()
    problem = replace(problem, counts=counts)
    blocks, burn_in = list(blocks_of(problem)), problem.max_iter // 2
    own_rng = processes.generator(rng)
    theta = problem.proportions(fold_in(problem, topics, START_STEPS)[0])
    row_sum, word_sum = np.zeros_like(theta), np.zeros_like(topics.T)
    likelihoods = []
    for sweep in range(problem.max_iter):
        row_counts, word_counts, likelihood = gibbs_step(problem, blocks, theta, topics, own_rng)
        likelihoods.append(likelihood)
        observations = row_counts + draw_heard(problem, theta, own_rng)
        if sweep >= burn_in:
            row_sum, word_sum = row_sum + observations, word_sum + word_counts
        theta = normalised(_gamma(observations + problem.alpha, own_rng))
        weights = _gamma(word_counts + problem.beta, rng)
        topics = (weights / problem.per_word(weights)).T
    n_kept = problem.max_iter - burn_in
    return Solution(
        problem.topics(word_sum / n_kept),
        normalised(row_sum / n_kept + problem.alpha),
        likelihoods,
        problem.total(likelihoods[-1], row_counts),
        True,
    )


def gibbs_step(
    problem: Problem, blocks: list[Block], theta: np.ndarray, topics: np.ndarray, rng: Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draw every token's topic: counts by row (N, K) and word (W, K), log-likelihood per token."""
    row_counts, word_counts, total = np.empty_like(theta), np.zeros_like(topics.T), 0.0
    for block in blocks:
        joint = theta[block.rows][block.row] * topics.T[block.word]  # (n, K)
        likelihood = joint.sum(axis=1)
        drawn = rng.multinomial(block.counts.astype(np.int64), joint / likelihood[:, None])
        gamma = drawn / block.counts[:, None]
        row_counts[block.rows] = block.by_row @ gamma
        word_counts += block.by_word @ gamma
        total += block.counts @ np.log(likelihood)
    mean = processes.total(total) / processes.total(problem.n_tokens)
    return row_counts, processes.total(word_counts), float(mean)


def draw_heard(problem: Problem, theta: np.ndarray, rng: Generator) -> np.ndarray:
    """Draw the classes of which the children speak given theta: their numbers, (N, K)."""
    n_heard = np.floor(problem.n_heard) + rng.binomial(1, problem.n_heard % 1)
    return rng.multinomial(n_heard.astype(np.int64), normalised(theta * problem.from_children))


def _gamma(shape: np.ndarray, rng: Generator) -> np.ndarray:
    """Draws which normalise to Dirichlet ones; small shapes would underflow to all 0."""
    return np.maximum(rng.standard_gamma(shape), np.finfo(np.float64).tiny)
