"""Multimodal latent Dirichlet allocation: topics that several modalities' counts share."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags

from ... import processes
from ...errors import InputError, NotFittedError, TrainingError
from ...messages import Categorical, Data, Deferred, Message
from ...metrics import scores_of
from ...module import Node, Posterior, learns, warn_unless_converged
from ...observation import Observation
from ...options import Choice, Flag, Number, PositiveInt
from ..common.estimators import ArrayEstimator, check_batches, check_columns
from ..common.inputs import (
    any_observed,
    check_component,
    check_labels,
    checked_classes,
    split_columns,
)
from . import lda
from .lda import Counts, Modalities, Problem, columns_in


@dataclass(eq=False, repr=False)
class MLDA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ArrayEstimator):
    """Multimodal latent Dirichlet allocation.

    A row has one distribution over K topics, ``theta ~ Dirichlet(doc_topic_prior)``; each token of
    each of its modalities m comes from a topic k drawn from it, and is word w with probability
    phi_mkw, where ``phi_mk ~ Dirichlet(topic_word_prior)`` (Blei, Ng and Jordan, 2003, "Latent
    Dirichlet allocation"; Nakamura, Nagai and Iwahashi, 2009, "Grounding of word meanings in
    multimodal concepts using LDA").

    Takes histograms (`Data`, counts >= 0) or class probabilities (`Categorical`) from any number
    of parents, and sends theta up as `Categorical`: a row's class is its most probable topic. Down
    go predicted histograms, or, to parents that send class probabilities, P(k) in place of their
    own, without what they said. A modality that a row misses is inferred from the row's others.

    What children say of a row, m, is one observation of theta beside the tokens: of a class that is
    drawn from theta they have seen something of likelihood m_k, so that ``p(m | theta) = sum_k
    theta_k m_k``. Then each token has the topic probabilities ``(N_k + alpha) (S + m_k) p(w | k)``,
    where N_k counts the row's other tokens and ``S = sum_k (N_k + alpha) m_k``. A uniform m changes
    nothing, and in a row of 100 tokens any m is outvoted where these are sure. Once children have
    spoken, each fit also starts from the words of the rows which they put into each topic, so that
    it depends on old topics no more than these are worth, and gets the children's numbers.

    Parameters
    ----------
    n_components : int
        Number of topics K.
    weights : sequence of (float or None), optional
        Tokens that each row counts as, for each parent. None leaves counts as they are, and lets
        class probabilities, which stand for a whole modality, count as many tokens as rows of the
        modalities of counts have in the mean; 50 where there are none.
    doc_topic_prior, topic_word_prior : float, optional
        Concentrations of the Dirichlet priors on theta and phi; 1 / K unless given.
    match_classes : bool
        Whether a topic speaks to a mixture of as many classes of one class alone, each topic of
        another: see `lda.one_to_one`. Otherwise two topics whose rows a mixture holds in one class
        both speak of that one, and it never learns to tell them apart. Frozen mixtures hear of the
        classes they have.
    message_weight : float
        Observations w of theta that what the children say of a row counts as, above 0, 1 by the
        model: ``p(m | theta) = (sum_k theta_k m_k)^w``. To mixtures it goes down as m^w.
    inference : {"cvb0", "gibbs"}
        Collapsed variational inference (Asuncion et al., 2009, "On smoothing and inference for
        topic models"), or the means over the second half of `max_iter` sweeps of blocked Gibbs
        sampling, of counts rounded to integers.
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    n_init : int
        Number of starts by k-means; the solution with the highest log-likelihood of tokens and
        messages is kept.
    max_iter, tol : int, float
        CVB0 stops when the log-likelihood, in nats per token, changes by less than `tol`.
    clip_negative : bool
        Whether negative values count as 0 tokens, as Serket has it, so that features of any sign
        can stand for counts; unless wanted they are an error.
    warm_start : bool
        Later updates go on from the last topics, so that they keep their numbers, or start from
        what the children say, whichever ends with the higher log-likelihood.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    components_ : list of np.ndarray
        P(word | topic) of each modality, (K, W_m); rows add up to 1.
    topic_proportions_ : np.ndarray of shape (N, K)
        Posterior mean of theta by the topics learnt, as `transform` finds it of any rows, what the
        children said included; of this process's rows.
    topic_weights_ : np.ndarray of shape (K,)
        Mean of theta over all rows; of the rows of all processes.
    mean_tokens_ : np.ndarray of shape (M,)
        Mean number of tokens of the rows that have the modality, `weights` aside.
    class_tokens_ : float
        Tokens that class probabilities counted as, where `weights` do not say.
    log_likelihood_ : np.ndarray
        Mean over tokens, in nats, by iteration. CVB0: each token predicted from all the others.
    converged_ : bool
        Whether CVB0 stopped by `tol`; always true of Gibbs sampling.
    n_iter_ : int
        Iterations of CVB0, or sweeps.
    stream_ : dict
        What `partial_fit` keeps of all batches so far.

    Examples
    --------
    >>> from serkit.modules import MLDA
    >>> counts = [[9, 3, 0, 0], [0, 0, 8, 4], [7, 4, 1, 0], [0, 1, 9, 2]]
    >>> mlda = MLDA(2, random_state=0).fit(counts)
    >>> mlda.predict(counts)
    array([1, 0, 1, 0])
    >>> mlda.components_[0].argmax(axis=1)
    array([2, 0])
    """

    n_components: PositiveInt
    _: KW_ONLY
    weights: Sequence[float | None] | None = None
    doc_topic_prior: Annotated[float | None, Number(above=0, or_none=True)] = None
    topic_word_prior: Annotated[float | None, Number(above=0, or_none=True)] = None
    match_classes: Flag = True
    message_weight: Annotated[float, Number(above=0)] = 1.0
    inference: Annotated[str, Choice("cvb0", "gibbs")] = "cvb0"
    labels: ArrayLike | None = None
    n_init: PositiveInt = 5
    max_iter: PositiveInt = 200
    tol: Annotated[float, Number(at_least=0)] = 3e-4
    clip_negative: Flag = False
    warm_start: Flag = True

    takes_from_parents = (Data, Categorical)
    why_no_parts = "what it says of a row is found by repeated steps until they change nothing"
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Data
    learns_from_shares = True
    can_regroup = True
    learns_classes = True
    row_attributes = ("topic_proportions_",)
    class_tokens_ = lda.TOKENS_OF_CLASSES  # until some parent sends classes

    # -- module contract -----------------------------------------------------------------------

    @property
    def n_outputs(self) -> int:
        """Number of topics K."""
        return self.n_components

    def sends_down_to(self, parent: Node) -> type[Message]:
        """`Categorical` to parents that send class probabilities, `Data` to others."""
        return Categorical if parent.sends_up is Categorical else Data

    def check(self, inputs: Sequence[Any], n_rows: int) -> None:
        """Raise InputError for options that cannot work with `n_rows` rows of these modalities."""
        k = self.n_components
        if k > n_rows:
            raise InputError(f"{self.label}: n_components={k} is more than the {n_rows} rows")
        check_labels(self.label, self.labels, n_rows)
        self._weights(len(inputs))

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit to the parents' counts, and to what the children say of the rows' topics."""
        class_tokens = self.class_tokens_
        if any(isinstance(message, Categorical) for message in inputs):
            pairs = zip(inputs, self._weights(len(inputs)), strict=True)
            beside = [(m, weight) for m, weight in pairs if not isinstance(m, Categorical)]
            counts = self._counts_of([m for m, _ in beside], class_tokens)
            class_tokens = lda.tokens_beside(counts, [weight for _, weight in beside])
        report = self._learn(self._counts_of(inputs, class_tokens), from_children)
        self.class_tokens_ = class_tokens
        return report

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Topics of the rows, and what they let expect of each parent's rows.

        Up goes the posterior mean of theta from the row alone; the classes are that by the row and
        what the children say of it. Down goes P(class) to mixtures, by the other parents' rows and
        the children, who speak of the same class; a class counts down as many tokens as it counts
        up, but to another MLDA as one. To others go counts, see `predicted_counts`.
        """
        counts = self._counts_of(inputs, self.class_tokens_)
        theta = theta_by_all = self._theta(counts)
        up = classes = Categorical(np.log(theta), observed=any_observed(inputs), checked=False)
        if isinstance(from_children, Categorical):
            theta_by_all = self._theta(counts, from_children)
            classes = Categorical(np.log(theta_by_all), checked=False)
        modalities = zip(inputs, counts, self.mean_tokens_, strict=True)
        tokens = [np.where(m.is_observed, c.sum(axis=1), mean) for m, c, mean in modalities]
        values = np.column_stack([theta_by_all, *tokens])
        predicted = Deferred(values, "predicted_counts", checked=False)
        down: list[Message] = [predicted] * len(inputs)
        for number, message in enumerate(inputs):
            if isinstance(message, Categorical):
                down[number] = self._expected_classes(number, message, counts, from_children)
        return Posterior(up=up, down=tuple(down), classes=classes)

    def _expected_classes(
        self, number: int, message: Categorical, counts: Modalities, from_children: Message | None
    ) -> Categorical:
        """P(class) for the parent of that number, in place of its own."""
        others = [*counts]
        others[number] = sparse.csr_array(counts[number].shape)
        problem = self._problem(others, from_children)
        total = problem.row_tokens.sum(axis=1) + problem.alpha * self.n_components  # (N,)
        dirichlet = total[:, None] * problem.classes(self._theta(others))
        n_tokens = self._weights(len(counts))[number] or self.class_tokens_
        phi, parent = self.components_[number], self.parents[number] if self.parents else None
        if isinstance(parent, MLDA):
            n_tokens = 1.0  # what topics hear is of one draw from a row's theta, not of its class
        elif self.match_classes and len(phi) == len(phi.T) and not (parent and parent.frozen):
            phi = lda.one_to_one(phi, self.topic_weights_)
        log_prob = lda.log_prob_of_classes(dirichlet, phi, n_tokens)
        if from_children is None and message.log_prior is not None:
            silent = problem.row_tokens.sum(axis=1) == 0
            log_prob[silent] = message.log_prior  # nothing to add: the parent's own P(k)
        return Categorical(log_prob, is_prior=True, checked=False)

    def predicted_counts(self, values: np.ndarray) -> list[Data]:
        """Counts theta phi, times the row's number of tokens, for each parent.

        `values` (N, K + M): theta and the tokens of each modality, their mean where it is missing.
        """
        theta, tokens = np.split(values, [self.n_components], axis=1)
        messages = []
        for number, phi in enumerate(self.components_):
            rows = tokens[:, number, None] * (theta @ phi)  # (N, W)
            messages.append(Data(rows.reshape(-1, *self._row_shape(number)), checked=False))
        return messages

    def _row_shape(self, number: int) -> tuple[int, ...]:
        """Shape of one row of the parent of that number, flat if that is not known."""
        parent = self.parents[number] if self.parents else None
        if isinstance(parent, Observation):
            return parent.row_shape
        message = None if parent is None else parent.message_up
        return message.shape if isinstance(message, Data) else self.components_[number].shape[1:]

    def generate(
        self,
        n_samples: int,
        rng: np.random.Generator,
        values: np.ndarray | None = None,
        component: int | None = None,
    ) -> list[np.ndarray]:
        """Class probabilities or mean counts, for each parent, of a theta or of one topic.

        Theta is drawn from its prior unless given as `values`.
        """
        self._check_fitted()
        if component is not None:
            check_component(self.label, component, self.n_components)
            values = np.eye(self.n_components)[np.full(n_samples, component)]
        if values is None:
            values = rng.dirichlet(np.full(self.n_components, self._concentrations[0]), n_samples)
        are_classes = [self.sends_down_to(parent) is Categorical for parent in self.parents]
        tokens = np.where(are_classes, 1.0, self.mean_tokens_)
        return [n * (values @ phi) for n, phi in zip(tokens, self.components_, strict=True)]

    # -- fitting -------------------------------------------------------------------------------

    @learns
    def fit(self, x: Counts | Sequence[Counts], y: None = None) -> Self:
        """Fit without a graph; returns self. `y` is ignored.

        Parameters
        ----------
        x : array-like or scipy.sparse of shape (N, W), or list of them
            Counts >= 0, not necessarily integers; a list holds one array for each modality. A
            modality is taken to be missing in rows where it has only zeros.

        Raises
        ------
        InputError
            For negative counts, NaN, no tokens, or options that do not fit; nothing is changed.
        """
        counts = self._counts_in(x)
        n_rows = counts[0].shape[0]
        self.begin_fit(x, columns_in(counts))
        self.check(counts, n_rows)
        share = [modality[processes.share(n_rows)] for modality in counts]
        self.record(self._learn(share, None))
        return self

    def _learn(self, counts: Modalities, from_children: Message | None) -> dict[str, Any]:
        problem = self._problem(counts, from_children)
        if not processes.total(problem.n_tokens):
            n_rows = int(processes.total(counts[0].shape[0]))
            raise InputError(f"{self.label}: all counts are 0 in all {n_rows} rows")
        largest = processes.largest(problem.counts.data.max(initial=0))
        if self.inference == "gibbs" and round(largest) == 0:
            raise InputError(
                f"{self.label}: inference='gibbs' rounds counts to integers, and the largest is "
                f"{largest:g}; multiply them by a number, give weights, or use inference='cvb0'"
            )
        rng = self.rng()
        solve = partial(lda.gibbs_sampling, rng=rng) if self.inference == "gibbs" else lda.cvb0
        regroups = isinstance(from_children, Categorical) and from_children.regroups
        solutions = (solve(problem, start) for start in self._starts(problem, rng, regroups))
        best = max(solutions, key=lambda solution: solution.total)
        if not np.isfinite(best.total):
            raise TrainingError(
                f"{self.label}: the likelihood became {best.total}; choose doc_topic_prior and "
                "topic_word_prior nearer to 1. What was learnt before is kept"
            )
        self.components_: list[np.ndarray] = split_columns(best.topics, problem.sizes)
        self.__dict__.pop("stream_", None)  # of batches before
        self.topic_proportions_ = self._theta(counts, from_children)
        sums = processes.total(self.topic_proportions_.sum(axis=0))
        self.topic_weights_ = sums / sums.sum()
        self.log_likelihood_ = np.array(best.log_likelihood)
        converged_before = getattr(self, "converged_", True)
        self.converged_ = best.converged
        warn_unless_converged(self, converged_before)
        self.mean_tokens_ = np.array([lda.mean_tokens(modality) for modality in counts])
        report = {
            "log_likelihood": best.log_likelihood[-1],
            "perplexity": float(np.exp(-best.log_likelihood[-1])),
            "n_iter": len(best.log_likelihood),
        }
        return report | scores_of(self.labels, self.topic_proportions_.argmax(axis=1))

    def _starts(
        self, problem: Problem, rng: np.random.Generator, regroups: bool
    ) -> Iterable[np.ndarray]:
        """Topics (K, W): those the children speak of, and the last ones or ones by k-means.

        The last ones, if they are of as many topics and words, are of what was known before the
        parents learnt; the children's are not, and stand alone where they regroup the last ones.
        """
        told = [lda.start_of_message(problem)] if processes.total(problem.n_heard.sum()) else []
        k, last = self.n_components, [phi.shape for phi in getattr(self, "components_", [])]
        if regroups and told:
            return told
        if self.warm_start and last == [(k, size) for size in problem.sizes]:
            return [*told, np.concatenate(self.components_, axis=1)]
        n_filled = int(processes.total((problem.row_tokens > 0).any(axis=1).sum()))
        if n_filled < k:
            raise InputError(
                f"{self.label}: n_components={k}, but only {n_filled} rows have any tokens"
            )
        sends_classes = [parent.sends_up is Categorical for parent in self.parents]
        sends_classes = sends_classes or [False] * len(problem.sizes)
        alone = [number for number, sends in enumerate(sends_classes) if not sends]
        return itertools.chain(told, lda.plus_plus_starts(problem, self.n_init, rng, alone))

    def _problem(self, counts: Modalities, from_children: Message | None) -> Problem:
        """What there is to solve on the modalities' counts."""
        k = self.n_components
        factors = np.ones((counts[0].shape[0], k))
        if isinstance(from_children, Categorical):
            checked_classes(self.label, from_children, k, "n_components")
            top = from_children.log_prob.max(axis=1, keepdims=True)
            factors = np.exp(from_children.log_prob - top)  # exactly 1 where it is uniform
        n_heard = np.where((factors < 1).any(axis=1), self.message_weight, 0.0)
        pairs = zip(counts, self._weights(len(counts)), strict=True)
        joined = sparse.hstack([lda.with_tokens(*pair) for pair in pairs], format="csr")
        sizes = tuple(modality.shape[1] for modality in counts)
        alpha, beta = self._concentrations
        return Problem(joined, sizes, factors, n_heard, alpha, beta, self.max_iter, self.tol)

    def _weights(self, n_modalities: int) -> Sequence[float | None]:
        """Tokens per row of each modality, None for as many as there are."""
        if self.weights is None:
            return [None] * n_modalities
        listed = isinstance(self.weights, Sequence) and len(self.weights) == n_modalities
        if not (listed and all(map(Number(above=0, or_none=True).accepts, self.weights))):
            raise InputError(
                f"{self.label}: weights must be a list of {n_modalities} numbers > 0 or None, one "
                f"for each modality, got {self.weights!r:.60}"
            )
        return self.weights

    @property
    def _concentrations(self) -> tuple[float, float]:
        """Those of the priors on theta and phi: the arguments, or their defaults."""
        default = 1 / self.n_components
        return self.doc_topic_prior or default, self.topic_word_prior or default

    # -- batches of a stream -------------------------------------------------------------------

    @learns
    def partial_fit(
        self, x: Counts | Sequence[Counts], y: None = None, *, step_size: float | None = None
    ) -> Self:
        """Learn from one batch of a stream, by a step of stochastic CVB0; returns self.

        The first batch is fitted as by `fit`; after `fit`, what that learnt counts as the first.
        Counts of words by topic fade: those of batch t replace the share ``(t + 1)^-0.6`` of all
        before them (Foulds, Boyles, DuBois, Smyth and Welling, 2013, "Stochastic collapsed
        variational Bayesian inference for latent Dirichlet allocation").

        Parameters
        ----------
        x
            Counts as in `fit`.
        y
            Ignored.
        step_size : float, optional
            In (0, 1]: another share, such as a constant one for a stream that drifts. Of no effect
            on the first batch.

        Raises
        ------
        InputError
            For bad counts, other modalities than before, or `labels`, which belong to fixed rows;
            nothing is changed.
        """
        self.check_options()
        check_batches(self, step_size, "labels")
        if not hasattr(self, "components_") or len(self.components_[0]) != self.n_components:
            return self.fit(x)
        counts, start = self._new_counts(x), time.perf_counter()
        share = [modality[processes.share(modality.shape[0])] for modality in counts]
        problem, topics = self._problem(share, None), self._topics(counts)
        if not processes.total(problem.n_tokens):
            raise InputError(f"{self.label}: all counts are 0 in the batch")
        fitted = self.components_, self.topic_proportions_, self.mean_tokens_
        stream = replace(lda.stream_of(*fitted), **getattr(self, "stream_", {}))
        stream, theta, log_likelihood = lda.learn_batch(problem, topics, stream, step_size)
        self.stream_ = vars(stream)
        self.components_ = split_columns(problem.topics(stream.word_counts), problem.sizes)
        self.topic_proportions_, self.converged_ = theta, False
        self.log_likelihood_ = np.append(self.log_likelihood_, log_likelihood)
        self.record({"log_likelihood": log_likelihood, "seconds": time.perf_counter() - start})
        return self

    # -- what the topics tell ------------------------------------------------------------------

    @property
    def n_iter_(self) -> int:
        """Iterations of CVB0, or sweeps, of the start that won."""
        self._check_fitted()
        return len(self.log_likelihood_)

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn is to know: sparse counts are taken, negative ones are not."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse, tags.input_tags.positive_only = True, not self.clip_negative
        return tags

    def transform(self, x: Counts | Sequence[Counts]) -> np.ndarray:
        """Posterior mean of theta, (N, K): counts as in `fit`."""
        return self._theta(self._new_counts(x))

    def predict(self, x: Counts | Sequence[Counts]) -> np.ndarray:
        """Most probable topic of each row, (N,) of int: counts as in `fit`."""
        return self.transform(x).argmax(axis=1)

    def word_probabilities(self, x: Counts | Sequence[Counts] | None = None) -> list[np.ndarray]:
        """P(word | row) = sum_k theta_k phi_kw of each modality, (N, W_m): rows add up to 1.

        Of counts as in `fit`, by them alone; unless given, of the rows of training by all that is
        known of them. What a row is likely to hold, words it has not included.

        >>> from serkit.modules import MLDA
        >>> counts = [[9, 3, 0, 0], [0, 0, 8, 4], [7, 4, 1, 0], [0, 1, 9, 2]]
        >>> (words,) = MLDA(2, random_state=0).fit(counts).word_probabilities()
        >>> words.shape, words.argmax(axis=1)
        ((4, 4), array([0, 2, 0, 2]))
        """
        self._check_fitted()
        if x is not None:
            theta = self.transform(x)
        elif self.posterior is not None and self.posterior.classes is not None:
            theta = np.exp(self.posterior.classes.log_prob)
        else:
            theta = self.topic_proportions_
        return [theta @ phi for phi in self.components_]

    def perplexity(self, x: Counts | Sequence[Counts]) -> float:
        """Exp of minus the mean log-likelihood of tokens, each predicted from its row's others.

        Counts as in `fit`, of any rows. (scikit-learn's is the larger exponential of a bound.)
        """
        return float(np.exp(-self.score(x)))

    def score(self, x: Counts | Sequence[Counts], y: None = None) -> float:
        """Mean log-likelihood of the tokens in nats, each predicted from its row's others.

        Counts as in `fit`, of any rows; higher is better. Minus the logarithm of `perplexity`.
        """
        counts = self._new_counts(x)
        topics, problem = self._topics(counts), self._problem(counts, None)
        if not problem.n_tokens:
            raise InputError(f"{self.label}: all counts are 0, which have no likelihood")
        return lda.fold_in(problem, topics)[1] / problem.n_tokens

    def _counts_of(self, inputs: Sequence[Message], class_tokens: float) -> Modalities:
        return lda.counts_of(self.label, inputs, class_tokens, self.clip_negative)

    def _counts_in(self, x: Counts | Sequence[Counts]) -> Modalities:
        return lda.counts_in(self.label, x, self.clip_negative)

    def _new_counts(self, x: Counts | Sequence[Counts]) -> Modalities:
        """Counts of new rows, of the columns of those that `fit` was given."""
        self._check_fitted()
        counts = self._counts_in(x)
        check_columns(self.label, self, x, columns_in(counts))
        return counts

    def _theta(self, counts: Modalities, from_children: Message | None = None) -> np.ndarray:
        topics, problem = self._topics(counts), self._problem(counts, from_children)
        return problem.proportions(lda.fold_in(problem, topics)[0])

    def _topics(self, counts: Modalities) -> np.ndarray:
        """The fitted topics (K, W), if they are of these counts' words."""
        self._check_fitted()
        learnt, wanted = ([a.shape[1] for a in arrays] for arrays in (self.components_, counts))
        if learnt != wanted:
            raise InputError(
                f"{self.label}: fitted on modalities of {learnt} columns, got {wanted}"
            )
        return np.concatenate(self.components_, axis=1)

    def _check_fitted(self) -> None:
        if not hasattr(self, "components_"):
            raise NotFittedError(f"{self.label} is not fitted yet: call update() or fit(x) first")
        n_learnt = len(self.components_[0])
        if n_learnt != self.n_components:
            raise InputError(
                f"{self.label}: fitted with n_components={n_learnt}, which now is "
                f"{self.n_components}; call update() or fit(x) again"
            )
