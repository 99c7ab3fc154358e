"""Hidden Markov model: the module that says which class follows which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from ... import processes
from ...errors import InputError, NotFittedError
from ...messages import Categorical, Message
from ...metrics import scores_of
from ...module import Module, source_of_rows
from ...options import (
    as_numbers,
    check_component,
    check_count,
    check_n_samples,
    check_number,
    check_random_state,
    is_count,
)
from ..common.inputs import check_labels
from .chains import Chain, ChainPrior, Smoothed, expectation_maximisation, forward_backward, viterbi


def check_options(module: Any, n_rows: int, n_classes: int | None) -> None:
    """Raise InputError for arguments that cannot work with these numbers of rows and classes."""
    check_count(module, "max_iter")
    check_number(module, "tol", at_least=0)
    check_random_state(module, module.random_state)
    check_labels(module.label, module.labels, n_rows)
    sequences(module, n_rows)
    if processes.count() > 1 and module.lengths is None:
        raise InputError(
            f"{module.label}: {processes.count()} processes share whole sequences; sort the rows "
            "by sequence, and give lengths=... here and to the Observation"
        )
    if processes.count() > 1 and module.parents:
        source = source_of_rows(module)
        if source.share != processes.share(n_rows, module.lengths):
            raise InputError(
                f"{module.label}: {source.label} cuts its rows elsewhere than between the "
                "sequences that lengths tell of; give the same lengths=... to both"
            )
    for name, n_dims in (("transition", 2), ("initial", 1)):
        shape = None if n_classes is None else (n_classes,) * n_dims
        _check_prior(module, f"{name}_prior", shape)
        _check_init(module, f"{name}_init", shape)


def _check_prior(module: Any, name: str, shape: tuple[int, ...] | None) -> None:
    given = as_numbers(module, name)
    fits = given.ndim == 0 or shape is None or given.shape == shape
    if not fits or given.size == 0 or given.min() < 1:
        raise InputError(
            f"{module.label}: {name} must be a number >= 1 or {_words(shape)} of them, got "
            f"{getattr(module, name)!r:.60}"
        )


def _check_init(module: Any, name: str, shape: tuple[int, ...] | None) -> None:
    if getattr(module, name) is None or shape is None:
        return
    given = as_numbers(module, name)
    if given.shape != shape or given.min() < 0 or not np.allclose(given.sum(axis=-1), 1, atol=1e-3):
        raise InputError(
            f"{module.label}: {name} must be {_words(shape)} of probabilities that add up to 1, "
            f"each row by itself, got {getattr(module, name)!r:.60}"
        )


def _words(shape: tuple[int, ...] | None) -> str:
    return "an array" if shape is None else f"an array {shape}"


def make_start(module: Any, n_classes: int) -> Chain:
    """The chain that learning starts from: the arguments, normalised, or uniform."""
    arguments = (module.transition_init, (n_classes, n_classes)), (module.initial_init, n_classes)
    given = [np.asarray(np.ones(shape) if a is None else a, float) for a, shape in arguments]
    return Chain(*(p / p.sum(axis=-1, keepdims=True) for p in given))


def make_prior(module: Any, n_classes: int) -> ChainPrior:
    """The Dirichlet priors of the arguments."""
    return ChainPrior(
        np.broadcast_to(as_numbers(module, "transition_prior"), (n_classes, n_classes)),
        np.broadcast_to(as_numbers(module, "initial_prior"), (n_classes,)),
    )


def sequences(module: Any, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows sequence by sequence: their order (N,), and which of that order begin one (N,).

    Raises
    ------
    InputError
        If `lengths` or `groups` are not of so many rows, or both are given.
    """
    if module.lengths is not None and module.groups is not None:
        raise InputError(f"{module.label}: give lengths or groups, not both; set one to None")
    if module.groups is not None:
        codes = _group_codes(module, n_rows)
        order = np.argsort(codes, kind="stable")
        return order, np.diff(codes[order], prepend=-1) > 0
    starts = np.zeros(n_rows, dtype=bool)
    starts[np.cumsum([0, *_lengths(module, n_rows)])[:-1]] = True
    return np.arange(n_rows), starts


def _lengths(module: Any, n_rows: int) -> np.ndarray:
    if module.lengths is None:
        return np.array([n_rows])
    lengths = np.asarray(module.lengths)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or not len(lengths) or min(lengths) < 1:
        raise InputError(
            f"{module.label}: lengths must be a list of integers >= 1, got {module.lengths!r:.60}"
        )
    if lengths.sum() == n_rows:
        return lengths
    part, ends = processes.share(lengths.sum(), lengths), np.cumsum([0, *lengths])
    if part.stop - part.start != n_rows:
        raise InputError(
            f"{module.label}: lengths add up to {lengths.sum()}, but there are {n_rows} rows; for "
            "other rows than in training call set_params(lengths=...) with theirs first"
        )
    return lengths[(ends[:-1] >= part.start) & (ends[1:] <= part.stop)]


def _group_codes(module: Any, n_rows: int) -> np.ndarray:
    groups = np.asarray(module.groups)
    if groups.ndim != 1 or len(groups) != n_rows:
        raise InputError(
            f"{module.label}: groups must hold one entry a row, got shape {groups.shape} for "
            f"{n_rows} rows; for other rows than in training call set_params(groups=...) with "
            "theirs first"
        )
    try:
        return np.unique(groups, return_inverse=True)[1]
    except TypeError:
        raise InputError(
            f"{module.label}: groups must be all numbers or all strings, got {module.groups!r:.60}"
        ) from None


def as_evidence(log_likelihood: ArrayLike, what: str) -> np.ndarray:
    """Log p(row | k) as float64 (N, K); `what` is how error texts name it.

    Raises
    ------
    InputError
        For another number of axes, no rows, NaN or +inf.
    """
    try:
        evidence = np.asarray(log_likelihood, dtype=np.float64)
    except (TypeError, ValueError):
        evidence = np.array(np.nan)
    if evidence.ndim != 2 or evidence.size == 0 or not (evidence < np.inf).all():
        raise InputError(
            f"{what}: expected log-likelihoods (N, K), finite or -inf, got shape {evidence.shape}: "
            f"{log_likelihood!r:.60}"
        )
    return evidence


class MarkovModel(Module):
    """Markov chain over the classes of consecutive rows: with a GMM or MLDA below, a hidden one.

    ``P(k_1, ..., k_N) = pi_{k_1} prod_t A_{k_{t-1} k_t}`` in each sequence. Takes the parents'
    class probabilities, divided by the prior that went into them (scaled likelihoods: Bourlard and
    Morgan, 1994, "Connectionist speech recognition"), and finds the posteriors of all rows exactly
    by forward-backward in log space (Rabiner, 1989, "A tutorial on hidden Markov models"). Down it
    sends ``P(k_t | all other rows)``, in place of the parents' own class probabilities and without
    what they said of row t itself; so a GMM and a Markov model that are updated in turn are the two
    halves of the Baum-Welch algorithm, and never lower the chain's exact likelihood (of a GMM with
    a prior, ``inference="map"``: likelihood times prior). Of several parents each is told what the
    others say too.

    A row that was not observed has no evidence and gets its class from its neighbours. Messages of
    the children count as evidence beside the chain, also where they are meant as priors (as those
    of another Markov model above this one): a chain has no P(k) a row that they could replace.

    Parameters
    ----------
    lengths : array-like of int, optional
        Numbers of rows of consecutive sequences; they add up to N. No transition crosses from one
        to the next. Without `lengths` and `groups`, all rows are one sequence.
    groups : array-like of shape (N,), optional
        Instead: rows with the same entry are one sequence, in their order, contiguous or not.
    transition_prior, initial_prior : float or array-like of shape (K, K) and (K,)
        Concentrations of the Dirichlet priors on the rows of the transition matrix and on the
        initial distribution, at least 1 (flat, the default: maximum likelihood). Numbers above 1
        keep every transition possible; a larger diagonal makes classes last.
    transition_init, initial_init : array-like of shape (K, K) and (K,), optional
        Where learning starts; uniform unless given. What is 0 there stays 0 under flat priors.
    max_iter, tol : int, float
        Each update repeats expectation-maximisation, the parents' messages held fixed, until the
        bound gains less than `tol` nats a row.
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    warm_start : bool
        Whether later updates start from what was learnt last.
    name, random_state
        See `serkit.Module`; only draws need a seed.

    Attributes
    ----------
    transition_ : np.ndarray of shape (K, K)
        P(k_t = j | k_{t-1} = i), rows adding up to 1.
    initial_ : np.ndarray of shape (K,)
    last_posterior_ : np.ndarray of shape (number of sequences, K)
        P(k | all rows) of each sequence's last row; of groups in their sorted order.
    log_likelihood_, lower_bound_ : np.ndarray
        The chain's log-likelihood a row by iteration, in nats, of the *scaled* likelihoods: less
        the mean of what the parents' own log p(row) is. The same plus the log prior of the
        parameters (up to a constant), which learning never lowers.
    converged_ : bool
        Whether learning stopped by `tol`.
    """

    takes_from_parents = (Categorical,)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Categorical
    learns_from_shares = True

    def __init__(
        self,
        *,
        lengths: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        transition_prior: float | ArrayLike = 1.0,
        initial_prior: float | ArrayLike = 1.0,
        transition_init: ArrayLike | None = None,
        initial_init: ArrayLike | None = None,
        max_iter: int = 20,
        tol: float = 1e-4,
        labels: ArrayLike | None = None,
        warm_start: bool = True,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.lengths = lengths
        self.groups = groups
        self.transition_prior = transition_prior
        self.initial_prior = initial_prior
        self.transition_init = transition_init
        self.initial_init = initial_init
        self.max_iter = max_iter
        self.tol = tol
        self.labels = labels
        self.warm_start = warm_start

    # -- module contract -----------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """Number of classes K: the parents', else that of what was learnt."""
        sizes = [parent.size for parent in self.parents if parent.size is not None]
        learnt = [len(self.initial_)] if hasattr(self, "initial_") else []
        return next(iter(sizes + learnt), None)

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options that cannot work with `n_rows` rows or these parents."""
        sizes = [message.shape[0] for message in inputs if message is not None]
        sizes = sizes or [p.size for p in self.parents if p.size is not None]
        if len(set(sizes)) > 1:
            raise InputError(
                f"{self.label}: its parents send probabilities of {sizes} classes; make the "
                "numbers equal"
            )
        check_options(self, n_rows, sizes[0] if sizes else None)

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit transitions and initial distribution to expected counts, by EM."""
        return self._learn(_evidence(inputs, prior))

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(k_t | all rows), by what the parents say: what the children said is left out."""
        return Categorical(self._smoothed(_evidence(inputs)).log_posterior)

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Categorical]:
        """P(k_t | all other rows, and what others say of row t), one message a parent."""
        likelihoods = [message.log_likelihood for message in inputs]
        cavity = self._smoothed(_evidence(inputs, prior)).log_cavity
        if prior is not None:
            cavity = cavity + prior.log_prob
        return [
            Categorical(
                log_softmax(cavity + sum(likelihoods[:p] + likelihoods[p + 1 :]), axis=1),
                is_prior=True,
            )
            for p in range(len(inputs))
        ]

    def objective(self, inputs: list[Message], prior: Message | None) -> float:
        """The chain's log-likelihood less what the parents' terms hold of it, in nats a row.

        With m the messages last sent down and s the scaled likelihoods:
        ``[log p(all rows) - sum_n log sum_k m_n(k) s_n(k)] / N``. A GMM's own term is
        ``sum_n log sum_k m_n(k) p(x_n | k) / N``, so that the two add up to the exact
        log-likelihood of the hidden Markov model. 0 before any message was sent for these rows.
        """
        sent = self.messages_down
        if not sent or sent[0].n_rows != inputs[0].n_rows:
            return 0.0
        total = self._smoothed(_evidence(inputs, prior)).log_normalisers
        parents = sum(
            logsumexp(message.log_likelihood + down.log_prob, axis=1)
            for message, down in zip(inputs, sent, strict=True)
        )
        return float((total - parents).mean())

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """One-hot rows (n_samples, K) of one sequence, or all of class `component`, a parent."""
        if component is None:
            path = self.sample(n_samples, random_state)
        else:
            check_component(self, component, len(self.chain().initial))
            path = np.full(n_samples, component)
        return [np.eye(len(self.initial_))[path]] * len(self.parents)

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """The same class probabilities (n, K) for each parent."""
        return [values] * len(self.parents)

    def clusters(self) -> np.ndarray | None:
        """Most probable class of each row by the message last sent up; None before any."""
        message = self.message_up
        return None if message is None else message.log_prob.argmax(axis=1)

    def scores(self) -> dict[str, float]:
        """Accuracy, NMI and ARI of the message last sent up against `labels`, if there are any."""
        return scores_of(self.labels, self.clusters())

    def artefacts(self) -> dict[str, np.ndarray]:
        """Classes, their probabilities, transitions, initial distribution, and scores."""
        files = {
            "class_learn.txt": self.clusters(),
            "Pdz_learn.txt": np.exp(self.message_up.log_prob),
            "transition.txt": self.transition_,
            "initial.txt": self.initial_,
            "log_likelihood.txt": self.log_likelihood_,
        }
        if self.labels is not None:
            files["acc_learn.txt"] = np.array([entry["accuracy"] for entry in self.history_])
        return files

    # -- learning ------------------------------------------------------------------------------

    def fit(self, log_likelihood: ArrayLike, y: None = None) -> MarkovModel:
        """Fit to log p(row | k), (N, K), without a graph; returns self. `y` is ignored.

        Raises
        ------
        InputError
            For NaN, impossible rows, or options that do not fit; nothing is changed.
        """
        evidence = as_evidence(log_likelihood, f"{self.label}.fit")
        check_options(self, *evidence.shape)
        part = processes.share(len(evidence), self.lengths)
        self.record(self._learn(evidence[part]))
        return self

    def _learn(self, evidence: np.ndarray) -> dict[str, Any]:
        n, k = evidence.shape
        learnt = self.warm_start and hasattr(self, "initial_") and len(self.initial_) == k
        start, prior = self.chain() if learnt else make_start(self, k), make_prior(self, k)
        found = expectation_maximisation(
            lambda chain: self._smooth(evidence, chain), start, prior, self.max_iter, self.tol
        )
        self.rng()  # settles the seed that draws begin from
        self.transition_, self.initial_ = found.chain.transition, found.chain.initial
        self.log_likelihood_ = np.array(found.log_likelihood)
        self.lower_bound_ = np.array(found.lower_bound)
        self.converged_ = found.converged
        order, starts = sequences(self, n)
        last = order[np.append(starts[1:], True)]
        self.last_posterior_ = processes.gather(np.exp(found.smoothed.log_posterior[last]))
        report = {
            "log_likelihood": found.log_likelihood[-1],
            "lower_bound": found.lower_bound[-1],
            "n_iter": len(found.log_likelihood),
        }
        return report | scores_of(self.labels, found.smoothed.log_posterior.argmax(axis=1))

    # -- inference -----------------------------------------------------------------------------

    def chain(self) -> Chain:
        """The fitted transition matrix and initial distribution as one value."""
        if not hasattr(self, "initial_"):
            raise NotFittedError(
                f"{self.label} is not fitted yet: call update() or fit(log_likelihood) first"
            )
        return Chain(self.transition_, self.initial_)

    def predict_proba(self, log_likelihood: ArrayLike) -> np.ndarray:
        """P(k_t | all rows) from log p(row | k): (N, K) -> (N, K).

        The rows are sequences by `lengths` or `groups`, which must be theirs.
        """
        evidence = as_evidence(log_likelihood, self.label)
        with processes.alone():
            return np.exp(self._smoothed(evidence).log_posterior)

    def viterbi(self, log_likelihood: ArrayLike | None = None) -> np.ndarray:
        """The most probable path of classes, each sequence by itself (Viterbi, 1967).

        Parameters
        ----------
        log_likelihood : array-like of shape (N, K), optional
            Log p(row | k); unless given, what the neighbours in the graph last sent.

        Returns
        -------
        np.ndarray of int, shape (N,)
        """
        if log_likelihood is None:
            return self._path(_evidence(self.received_from_parents(), self.received_from_children()))
        with processes.alone():
            return self._path(as_evidence(log_likelihood, self.label))

    def _path(self, evidence: np.ndarray) -> np.ndarray:
        chain = self._chain_of(evidence)
        order, starts = sequences(self, len(evidence))
        path = np.empty(len(evidence), dtype=np.intp)
        path[order], log_joint = viterbi(evidence[order], chain, starts)
        if log_joint == -np.inf:
            self._smooth(evidence, chain)  # raises, and names the row
        return path

    def forecast(self, n_steps: int = 1) -> np.ndarray:
        """Class probabilities of the rows that would follow each sequence of the last training.

        Returns
        -------
        np.ndarray, shape (number of sequences, n_steps, K)
            In the order of `lengths`, or of the sorted groups.
        """
        if not is_count(n_steps):
            raise InputError(f"{self.label}: n_steps must be an integer >= 1, got {n_steps!r}")
        transition, probabilities = self.chain().transition, [self.last_posterior_]
        for _ in range(n_steps):
            probabilities.append(probabilities[-1] @ transition)
        return np.stack(probabilities[1:], axis=1)

    def sample(self, n_samples: int = 1, random_state: int | None = None) -> np.ndarray:
        """Draw the classes of one sequence: (n_samples,) of int.

        The module's own seed unless one is given, so the same call repeats its draw.
        """
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        chain = self.chain()
        seed = self.seed_ if random_state is None else random_state
        return chain.draw(n_samples, np.random.default_rng(seed))

    def _chain_of(self, evidence: np.ndarray) -> Chain:
        """The fitted chain, if it is of as many classes."""
        chain = self.chain()
        if evidence.shape[1] != len(chain.initial):
            raise InputError(
                f"{self.label}: fitted on K={len(chain.initial)} classes, got {evidence.shape[1]}"
            )
        return chain

    def _smoothed(self, evidence: np.ndarray) -> Smoothed:
        return self._smooth(evidence, self._chain_of(evidence))

    def _smooth(self, evidence: np.ndarray, chain: Chain) -> Smoothed:
        """Forward-backward sequence by sequence, the results in the order of the rows."""
        order, starts = sequences(self, len(evidence))
        found = forward_backward(evidence[order], chain, starts)
        impossible = np.flatnonzero(found.log_normalisers == -np.inf)
        if len(impossible):
            raise InputError(
                f"{self.label}: row {order[impossible[0]]} is impossible after the rows before it "
                "in its sequence: no class is left that the transitions and the messages both "
                "allow. With transition_prior and initial_prior above 1 learning keeps all possible"
            )
        back = np.argsort(order)
        return replace(
            found,
            log_normalisers=found.log_normalisers[back],
            log_posterior=found.log_posterior[back],
            log_cavity=found.log_cavity[back],
        )


def _evidence(inputs: Sequence[Message], prior: Message | None = None) -> np.ndarray:
    """Log p(what parents and children say of row t | k) up to a constant a row, (N, K)."""
    evidence = sum(message.log_likelihood for message in inputs)
    return evidence if prior is None else evidence + prior.log_prob + np.log(prior.shape[0])
