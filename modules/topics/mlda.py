"""Multimodal latent Dirichlet allocation: topics that several modalities' counts share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from ... import processes
from ...errors import InputError, NotFittedError
from ...messages import Categorical, Data, Message
from ...metrics import scores_of
from ...module import Module
from ...options import (
    check_component,
    check_count,
    check_n_samples,
    check_number,
    check_option,
    check_random_state,
)
from ..common.inputs import any_observed, check_labels
from .lda import (
    Counts,
    Problem,
    Solution,
    counts_in,
    counts_of,
    cvb0,
    fold_in,
    gibbs_sampling,
    mean_tokens,
    normalised,
    plus_plus_starts,
    row_tokens,
    with_tokens,
)


def check_options(module: Any, n_parents: int, n_rows: int) -> None:
    """Raise InputError for arguments that cannot work with so many parents and rows."""
    check_count(module, "n_components", "n_init", "max_iter")
    check_random_state(module, module.random_state)
    check_option(module, "inference", ("cvb0", "gibbs"))
    check_number(module, "tol", at_least=0)
    for name in ("doc_topic_prior", "topic_word_prior"):
        if getattr(module, name) is not None:
            check_number(module, name, above=0)
    if module.n_components > n_rows:
        raise InputError(
            f"{module.label}: n_components={module.n_components} is more than the {n_rows} rows"
        )
    check_labels(module.label, module.labels, n_rows)
    if module.weights is not None and not _are_weights(module.weights, n_parents):
        raise InputError(
            f"{module.label}: weights must be a list of {n_parents} numbers > 0 or None, one a "
            f"modality, got {module.weights!r:.60}"
        )


def _are_weights(weights: Any, n_parents: int) -> bool:
    listed = isinstance(weights, Sequence) and len(weights) == n_parents
    return listed and all(w is None or (isinstance(w, Real) and 0 < w < np.inf) for w in weights)


def doc_topic_prior(module: Any) -> float:
    """The argument, or its default."""
    return 1 / module.n_components if module.doc_topic_prior is None else module.doc_topic_prior


def make_problem(module: Any, parts: Sequence[sparse.csr_array], prior: Message | None) -> Problem:
    """What MLDA with these arguments has to solve on the modalities' counts.

    Raises
    ------
    InputError
        For a message of another number of classes.
    """
    k = module.n_components
    row_prior = np.ones((parts[0].shape[0], k))
    if prior is not None:
        if prior.shape != (k,):
            raise InputError(
                f"{module.label}: its children sent probabilities of {prior.shape[0]} classes for "
                f"n_components={k}"
            )
        top = prior.log_prob.max(axis=1, keepdims=True)
        row_prior = np.exp(prior.log_prob - top)  # exactly 1 where it is uniform
    weights = module.weights or [None] * len(parts)
    weighted = [with_tokens(part, weight) for part, weight in zip(parts, weights, strict=True)]
    return Problem(
        sparse.hstack(weighted, format="csr"),
        tuple(part.shape[1] for part in parts),
        row_prior,
        doc_topic_prior(module),
        1 / k if module.topic_word_prior is None else module.topic_word_prior,
        module.max_iter,
        module.tol,
    )


class MLDA(Module):
    """Multimodal latent Dirichlet allocation.

    A row has one distribution over K topics, ``theta ~ Dirichlet(doc_topic_prior)``; each token of
    each of its modalities m comes from a topic k drawn from it, and is word w with probability
    phi_mkw, where ``phi_mk ~ Dirichlet(topic_word_prior)`` (Blei, Ng and Jordan, 2003, "Latent
    Dirichlet allocation"; Nakamura, Nagai and Iwahashi, 2009, "Grounding of word meanings in
    multimodal concepts using LDA").

    Takes histograms (`Data`, counts >= 0) or class probabilities (`Categorical`) from any number
    of parents, and sends theta up as `Categorical`: a row's class is its most probable topic. Down
    go P(k), in place of a mixture's own, to parents that send class probabilities, and predicted
    histograms to others. The message to a mixture leaves out what the mixture said. A modality
    that a row misses is inferred from the row's others. Usable by itself through `fit`.

    Parameters
    ----------
    n_components : int
        Number of topics K.
    weights : sequence of (float or None), optional
        One a parent: how many tokens each of its rows counts as. None leaves counts as they are;
        class probabilities then count as 50 tokens.
    doc_topic_prior, topic_word_prior : float, optional
        Concentrations of the Dirichlet priors on theta and phi; 1 / K unless given.
    inference : {"cvb0", "gibbs"}
        Collapsed variational inference (Asuncion, Welling, Smyth and Teh, 2009, "On smoothing and
        inference for topic models"), or `max_iter` sweeps of blocked Gibbs sampling, which rounds
        counts to integers and keeps the means over the second half.
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    n_init : int
        Number of k-means++ starts; the solution with the highest log-likelihood is kept.
    max_iter, tol : int, float
        CVB0 stops when the log-likelihood, in nats a token, changes by less than `tol`.
    warm_start : bool
        Later updates go on from the last topics, so that they keep their numbers.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    components_ : list of np.ndarray
        P(word | topic) of each modality, (K, W_m); rows add up to 1.
    topic_proportions_ : np.ndarray of shape (N, K)
        Posterior mean of theta, the children's prior included; of this process's rows.
    mean_tokens_ : np.ndarray of shape (M,)
        Mean number of tokens of the rows in which the modality was seen, `weights` aside.
    log_likelihood_ : np.ndarray
        Mean over tokens, in nats, by iteration. CVB0: each token predicted from all the others.
    converged_ : bool
        Whether CVB0 stopped by `tol`; always true of Gibbs sampling.
    """

    takes_from_parents = (Data, Categorical)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Data
    learns_from_shares = True
    row_attributes = ("topic_proportions_",)

    def __init__(
        self,
        n_components: int,
        *,
        weights: Sequence[float | None] | None = None,
        doc_topic_prior: float | None = None,
        topic_word_prior: float | None = None,
        inference: str = "cvb0",
        labels: ArrayLike | None = None,
        n_init: int = 5,
        max_iter: int = 200,
        tol: float = 3e-4,
        warm_start: bool = True,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.n_components = n_components
        self.weights = weights
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.inference = inference
        self.labels = labels
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start

    # -- module contract -----------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of topics K."""
        return self.n_components

    def sends_down_to(self, parent: Module) -> type[Message]:
        """`Categorical` to parents that send class probabilities, `Data` to others."""
        return Categorical if parent.sends_up is Categorical else Data

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options, labels or weights that cannot work with `n_rows` rows."""
        check_options(self, len(inputs), n_rows)

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit to the parents' counts, with the children's message as prior of the rows' topics."""
        return self._learn(counts_of(self, inputs), prior)

    def forward(self, inputs: list[Message]) -> Categorical:
        """Posterior mean of theta from the row alone: what the children said is left out."""
        theta = self._theta(counts_of(self, inputs))
        return Categorical(np.log(theta), observed=any_observed(inputs))

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Message]:
        """What is expected of each parent's rows: P(class), or counts.

        P(class) = sum_k theta_k phi_k, with theta from the children's message and the other
        parents' rows. Counts are theta phi times the row's number of tokens; times the mean of
        the training rows where the modality was not seen.
        """
        parts = counts_of(self, inputs)
        theta = self._theta(parts, prior)
        sent = []
        for m, message in enumerate(inputs):
            if isinstance(message, Categorical):
                others = [*parts[:m], sparse.csr_array(parts[m].shape), *parts[m + 1 :]]
                cavity = self._theta(others, prior)
                log_prob = np.log(normalised(cavity @ self.components_[m]))
                if prior is None and message.log_prior is not None:
                    silent = sum(part.sum(axis=1) for part in others) == 0
                    log_prob[silent] = message.log_prior  # nothing to add: the parent's own P(k)
                sent.append(Categorical(log_prob, is_prior=True))
            else:
                total = np.where(message.is_observed, parts[m].sum(axis=1), self.mean_tokens_[m])
                rows = total[:, None] * (theta @ self.components_[m])
                sent.append(Data(rows.reshape(len(rows), *message.shape)))
        return sent

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """What is expected of each parent for a theta drawn from its prior, or of one topic."""
        self._check_fitted()
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        rng = np.random.default_rng(self.seed_ if random_state is None else random_state)
        theta = rng.dirichlet(np.full(self.n_components, doc_topic_prior(self)), n_samples)
        if component is not None:
            check_component(self, component, self.n_components)
            theta = np.eye(self.n_components)[np.full(n_samples, component)]
        return self.top_down(theta, rng)

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Class probabilities or expected counts, for each parent, of topic probabilities."""
        self._check_fitted()
        kinds = [self.sends_down_to(parent) for parent in self.parents]
        tokens = np.where([kind is Categorical for kind in kinds], 1.0, self.mean_tokens_)
        return [n * (values @ phi) for n, phi in zip(tokens, self.components_, strict=True)]

    def clusters(self) -> np.ndarray | None:
        """Most probable topic of each row, (N,), by the messages last exchanged."""
        if self.message_up is None:
            return None
        told = self.received_from_children()
        message = self.message_up if told is None else self.message_up * told
        return message.log_prob.argmax(axis=1)

    def scores(self) -> dict[str, float]:
        """Accuracy, NMI and ARI of `clusters` against `labels`, if there are any."""
        return scores_of(self.labels, self.clusters())

    def artefacts(self) -> dict[str, np.ndarray]:
        """Classes, topic probabilities of rows, and word probabilities of each modality."""
        words = {f"phi_{m}.txt": phi for m, phi in enumerate(self.components_)}
        files = {"class_learn.txt": self.clusters(), "Pdz_learn.txt": self.topic_proportions_}
        return {**files, **words, "log_likelihood.txt": self.log_likelihood_}

    # -- fitting -------------------------------------------------------------------------------

    def fit(self, x: Counts | Sequence[Counts], y: None = None) -> MLDA:
        """Fit without a graph; returns self. `y` is ignored.

        Parameters
        ----------
        x : array-like or scipy.sparse of shape (N, W), or list of them
            Counts >= 0, not necessarily integers; a list holds one array a modality. A modality
            is taken to be missing in rows where it has only zeros.

        Raises
        ------
        InputError
            For negative counts, NaN, no tokens, or options that do not fit; nothing is changed.
        """
        parts = counts_in(self, x)
        n_rows = parts[0].shape[0]
        self.check(parts, n_rows)
        own = processes.share(n_rows)
        self.record(self._learn([part[own] for part in parts], None))
        return self

    def _learn(self, parts: list[sparse.csr_array], prior: Message | None) -> dict[str, Any]:
        problem = make_problem(self, parts, prior)
        if not processes.total(problem.n_tokens):
            n_rows = int(processes.total(parts[0].shape[0]))
            raise InputError(f"{self.label}: all counts are 0 in all {n_rows} rows")
        rng = self.rng()
        best = max(
            (self._solve(problem, start, rng) for start in self._starts(problem, rng)),
            key=lambda solution: solution.log_likelihood[-1],
        )
        self.components_ = np.split(best.topics, np.cumsum(problem.sizes)[:-1], axis=1)
        self.topic_proportions_ = best.proportions
        self.log_likelihood_ = np.array(best.log_likelihood)
        self.converged_ = best.converged
        self.mean_tokens_ = np.array([mean_tokens(part) for part in parts])
        report = {
            "log_likelihood": best.log_likelihood[-1],
            "perplexity": float(np.exp(-best.log_likelihood[-1])),
            "n_iter": len(best.log_likelihood),
        }
        return report | scores_of(self.labels, best.proportions.argmax(axis=1))

    def _solve(self, problem: Problem, start: np.ndarray, rng: np.random.Generator) -> Solution:
        if self.inference == "gibbs":
            return gibbs_sampling(problem, start, rng)
        return cvb0(problem, start)

    def _starts(self, problem: Problem, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """Topics (K, W): the last ones, if they are of as many topics and words."""
        if self.warm_start and hasattr(self, "components_"):
            last = [phi.shape for phi in self.components_]
            if last == [(self.n_components, size) for size in problem.sizes]:
                return [np.concatenate(self.components_, axis=1)]
        n_filled = int(processes.total((row_tokens(problem) > 0).any(axis=1).sum()))
        if n_filled < self.n_components:
            raise InputError(
                f"{self.label}: n_components={self.n_components}, but only {n_filled} rows have "
                "any tokens"
            )
        return plus_plus_starts(problem, self.n_init, rng)

    # -- what the topics tell ------------------------------------------------------------------

    def _theta(self, parts: list[sparse.csr_array], prior: Message | None = None) -> np.ndarray:
        problem, row_counts, _ = self._folded_in(parts, prior)
        return problem.proportions(row_counts)

    def _folded_in(
        self, parts: list[sparse.csr_array], prior: Message | None
    ) -> tuple[Problem, np.ndarray, float]:
        self._check_fitted()
        learnt, given = [phi.shape[1] for phi in self.components_], [p.shape[1] for p in parts]
        if learnt != given:
            raise InputError(f"{self.label}: fitted on modalities of {learnt} columns, got {given}")
        problem = make_problem(self, parts, prior)
        return problem, *fold_in(problem, np.concatenate(self.components_, axis=1))

    def _check_fitted(self) -> None:
        if not hasattr(self, "components_"):
            raise NotFittedError(f"{self.label} is not fitted yet: call update() or fit(x) first")

    def transform(self, x: Counts | Sequence[Counts]) -> np.ndarray:
        """Posterior mean of theta, (N, K): counts as in `fit`."""
        return self._theta(counts_in(self, x))

    def predict(self, x: Counts | Sequence[Counts]) -> np.ndarray:
        """Most probable topic of each row, (N,) of int: counts as in `fit`."""
        return self.transform(x).argmax(axis=1)

    def perplexity(self, x: Counts | Sequence[Counts]) -> float:
        """Exp of minus the mean log-likelihood of tokens, each predicted from its row's others.

        (scikit-learn's is the exponential of a bound instead, which is larger.) Counts as in
        `fit`, of rows seen in training or not.
        """
        problem, _, log_likelihood = self._folded_in(counts_in(self, x), None)
        if not problem.n_tokens:
            raise InputError(f"{self.label}.perplexity: all counts are 0")
        return float(np.exp(-log_likelihood / problem.n_tokens))
