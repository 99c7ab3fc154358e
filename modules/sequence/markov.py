"""Hidden Markov model: the module that says which class follows which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp

from ... import processes
from ...arrays import as_array
from ...errors import InputError, NotFittedError
from ...messages import Categorical, Message
from ...metrics import scores_of
from ...module import Module, Node, Posterior, learns, source_of_rows, warn_unless_converged
from ...observation import Observation
from ...options import (
    Count,
    Flag,
    Number,
    PositiveInt,
    RandomState,
    as_numbers,
    check_argument,
    generator_of,
    seed_of,
)
from ...reading import array_in
from ...stopping import AllOrNothing
from ..common.estimators import ArrayEstimator, check_columns, forget
from ..common.inputs import check_component, check_labels
from ..common.sequences import Sequences, sequences_of
from . import chains
from .chains import Chain, ChainPrior, Smoothed
from .split_merge import Problem, Regrouping, split_and_merge


@dataclass(eq=False, repr=False, kw_only=True)
class MarkovModel(ArrayEstimator):
    """Markov chain over the classes of consecutive rows: with a GMM or MLDA below, a hidden one.

    ``P(k_1, ..., k_N) = pi_{k_1} prod_t A_{k_{t-1} k_t}`` in each sequence. Takes the parents'
    class probabilities, divided by the prior that went into them (scaled likelihoods: Bourlard and
    Morgan, 1994, "Connectionist speech recognition"), and finds the posteriors of all rows exactly
    by forward-backward in log space (Rabiner, 1989, "A tutorial on hidden Markov models"). Down it
    sends ``P(k_t | all other rows)``, in place of the parents' own class probabilities, with what
    other parents say of row t. So a GMM and a Markov model updated in turn are the two halves of
    the Baum-Welch algorithm, and never lower the exact likelihood (times the GMM's prior, if any)
    unless the chain regroups the classes (`n_split_merge`).

    A row that was not observed gets its class from its neighbours. The children's messages count
    as evidence, even if meant as priors: a chain has no P(k) per row that they could replace.

    Parameters
    ----------
    lengths : array-like of int, optional
        Numbers of rows of consecutive sequences; they add up to N. Without `lengths` and `groups`,
        all rows are one sequence.
    groups : array-like of shape (N,), optional
        Instead: rows with the same entry are one sequence, in their order, contiguous or not.
    transition_prior, initial_prior : float or array-like of shape (K, K) and (K,)
        Concentrations of the Dirichlet priors on the rows of the transition matrix and on the
        initial distribution, at least 1 (flat: maximum likelihood). Numbers above 1 keep every
        transition possible; a larger diagonal makes classes last.
    transition_init, initial_init : array-like of shape (K, K) and (K,), optional
        Where learning first starts; uniform unless given. Under flat priors zeros stay zeros.
    max_iter, tol : int, float
        Each update repeats EM, the parents' messages held fixed, until the bound gains less than
        `tol` nats per row.
    n_split_merge : int
        Most tries an update, in a graph, to find two classes in one cluster of the parent and one
        class in two, by what comes before and after: see `split_and_merge`. If there are, the
        message down regroups the parent's classes, and it fits anew to that. Classes that look
        different are put together too if they share their contexts: give 0 where they must not be.
        With 0, learning never lowers the joint likelihood; the update after a regrouping may.
        Nothing is tried with several parents, above a frozen one or one with other children, once
        children have spoken, or with zeros in `transition_init` or `initial_init`.
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
        The chain's log-likelihood by iteration, in nats per row, of the *scaled* likelihoods: less
        the parents' own mean log p(row). The same plus the log prior of the parameters (up to a
        constant), which learning never lowers.
    converged_ : bool
        Whether learning stopped by `tol`.
    parent_terms_ : list of float
        What the parents' terms of the joint objective hold of their classes, nats per row.
    regrouping_ : dict
        What the message down is made with, if the last update found states for other classes:
        `log_shares`, the log P(parent's class | state), (K, K), and a chain, `transition` and
        `initial`. All else is of the old classes, until the parent has followed. Else empty.
    is_followed_ : bool
        False once a parent that was told to regroup sent a message that the old chain explained
        better. Then no other regrouping is tried, until other parents are connected.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import MarkovModel
    >>> log_likelihood = np.where(np.eye(3)[np.arange(9) % 3] > 0, 0.0, -5.0)
    >>> log_likelihood[4] = 0  # nothing is known of the class of row 4
    >>> model = MarkovModel().fit(log_likelihood)
    >>> model.viterbi(log_likelihood)
    array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    >>> model.forecast(2).argmax(axis=2)
    array([[0, 1]])

    A hidden Markov model whose parameters are known, and how well it explains rows:

    >>> from serkit import MixtureDensity
    >>> emissions = MixtureDensity([0.5, 0.5], [[0.0], [5.0]], [[[1.0]], [[1.0]]])
    >>> model = MarkovModel(random_state=0).set_chain([[0.9, 0.1], [0.2, 0.8]], [0.5, 0.5])
    >>> rows = [[0.1], [-0.4], [4.9]]
    >>> round(model.score(emissions.component_log_prob(rows)), 3)
    -5.948
    """

    lengths: ArrayLike | None = None
    groups: ArrayLike | None = None
    transition_prior: float | ArrayLike = 1.0
    initial_prior: float | ArrayLike = 1.0
    transition_init: ArrayLike | None = None
    initial_init: ArrayLike | None = None
    max_iter: PositiveInt = 20
    tol: Annotated[float, Number(at_least=0)] = 1e-4
    n_split_merge: Annotated[int, Count(at_least=0)] = 10
    labels: ArrayLike | None = None
    warm_start: Flag = True

    takes_from_parents = (Categorical,)
    why_no_parts = "what it says of a row depends on all rows of its sequence"
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Categorical
    learns_from_shares = True
    is_followed_ = True  # until a parent does not

    # -- module contract -----------------------------------------------------------------------

    @property
    def n_outputs(self) -> int | None:
        """Number of classes K: the parents', else that of what was learnt."""
        learnt = len(self.initial_) if hasattr(self, "initial_") else None
        numbers = (parent.n_outputs for parent in self.parents)
        return next((number for number in numbers if number is not None), learnt)

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for options that cannot work with `n_rows` rows or these parents."""
        numbers = [message.shape[0] for message in inputs if message is not None]
        numbers = numbers or [p.n_outputs for p in self.parents if p.n_outputs is not None]
        if len(set(numbers)) > 1:
            raise InputError(
                f"{self.label}: its parents send probabilities of {numbers} classes; make the "
                "numbers equal"
            )
        self._check_rows(n_rows, numbers[0] if numbers else None)
        source = source_of_rows(self)
        if processes.count() == 1 or not isinstance(source, Observation):
            return
        if source.share != self._share(n_rows):
            raise InputError(
                f"{self.label}: {source.label} cuts its rows elsewhere than between the "
                "sequences that lengths tell of; give the same lengths=... to both"
            )

    def _check_rows(self, n_rows: int, n_classes: int | None) -> None:
        """`check` of what `fit` knows too: numbers of rows and of classes."""
        check_labels(self.label, self.labels, n_rows)
        self._sequences(n_rows)
        if processes.count() > 1 and self.lengths is None:
            raise InputError(
                f"{self.label}: {processes.count()} processes share whole sequences; sort the rows "
                "by sequence, and give lengths=... here and to the Observation"
            )
        for name, n_dims in (("transition", 2), ("initial", 1)):
            shape = None if n_classes is None else (n_classes,) * n_dims
            prior, init = getattr(self, f"{name}_prior"), getattr(self, f"{name}_init")
            _check_prior(self.label, f"{name}_prior", prior, shape)
            if init is not None and shape is not None:
                _check_init(self.label, f"{name}_init", init, shape)

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit transitions and initial distribution to expected counts, by EM."""
        evidence = _evidence(_likelihoods(inputs), from_children)
        chain, self.is_followed_ = self._chain_to_go_on_from(evidence)
        may_regroup = from_children is None and self.is_followed_ and self._may_regroup()
        return self._learn(evidence, chain, self.n_split_merge if may_regroup else 0)

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Posteriors of all rows' classes.

        Up goes P(k_t | all rows) by what the parents say; down P(k_t | all other rows, and what
        others say of row t). The bound, ``[log p(all rows) - sum_n log sum_k m_n(k) s_n(k)] / N``,
        leaves out what the parents' terms hold: s are the scaled likelihoods, m the class
        probabilities that a parent had heard when it sent last (before any, its own P(k)), and of
        rows other than those of training the ones that go down now. With a GMM's own term,
        ``sum_n log sum_k m_n(k) p(x_n | k) / N``, it adds up to the exact log-likelihood.
        """
        likelihoods = _likelihoods(inputs)
        smoothed = self._smoothed(_evidence(likelihoods))
        up = classes = Categorical(smoothed.log_posterior, checked=False)
        cavity = smoothed.log_cavity
        if isinstance(from_children, Categorical):
            smoothed = self._smoothed(_evidence(likelihoods, from_children))
            classes = Categorical(smoothed.log_posterior, checked=False)
            cavity = smoothed.log_cavity + from_children.log_prob
        others = [likelihoods[:p] + likelihoods[p + 1 :] for p in range(len(likelihoods))]
        beliefs = [log_softmax(cavity + np.sum(other, axis=0), axis=1) for other in others]
        down = tuple(Categorical(b, is_prior=True, checked=False) for b in beliefs)

        def bound() -> float:
            parents = sum(self._terms_of_parents(inputs, down))
            return float(smoothed.log_normalisers.mean()) - parents

        return Posterior(up=up, down=down, bound=bound, classes=classes)

    def update(self, children: Sequence[Node] | None = None) -> Self:
        """Learn and send new messages, see `serkit.Module.update`."""
        inputs = self.received_from_parents()
        terms = self._terms_of_parents(inputs)
        with AllOrNothing(self):
            super().update(children)
            self.parent_terms_ = terms
            self._send_regrouping(inputs)
        return self

    @np.errstate(under="ignore")
    def _send_regrouping(self, inputs: Sequence[Message]) -> None:
        """Send down P(k_t | all other rows) of the states found for other classes, if there are.

        Not in `infer`, whose messages a parent that has not followed yet reads by its old classes.
        """
        regrouped = self._regrouped(len(self.initial_))
        if regrouped is not None and self.posterior is not None:
            evidence = _evidence(_likelihoods(inputs))
            cavity = self._smoothed(regrouped.evidence(evidence), regrouped.chain).log_cavity
            down = Categorical(cavity, is_prior=True, regroups=True, checked=False)
            self.posterior = replace(self.posterior, down=(down,))

    def freeze(self) -> Self:
        """Let later updates pass messages but learn nothing; returns self.

        A regrouping that was sent last is taken back: nothing would learn the chain that goes with
        it. Until the next update the parent hears nothing then.
        """
        self._take_back_regrouping()
        return super().freeze()

    def _take_back_regrouping(self) -> None:
        if getattr(self, "regrouping_", {}):
            self.regrouping_: dict[str, np.ndarray] = {}
            if self.posterior is not None:
                self.posterior = replace(self.posterior, down=(None,))

    def _terms_of_parents(
        self, inputs: Sequence[Message], down: Sequence[Categorical] = ()
    ) -> list[float]:
        """Mean over rows of ``log sum_k m_n(k) s_n(k)``, for each parent, see `infer`.

        A parent that has sent nothing since this module's last update has not heard what that sent.
        """
        terms = []
        for number, likelihood in enumerate(_likelihoods(inputs)):
            if self._is_unheard_by(number, inputs[number]):
                terms.append(self.parent_terms_[number])
                continue
            is_of_others = self._is_of_other_rows(number, inputs[number])
            told = down[number].log_prob if is_of_others else self._prior_of(number, inputs[number])
            log_evidence = logsumexp(likelihood + told, axis=1)
            terms.append(processes.mean(float(log_evidence.mean()), len(log_evidence)))
        return terms

    def _is_unheard_by(self, number: int, message: Message) -> bool:
        """Whether a parent's message is the one which this module's last update was of."""
        if not self.heard_ or not hasattr(self, "parent_terms_"):
            return False
        is_last = not self._is_of_other_rows(number, message)
        return is_last and self.heard_[number] == self._heard_now()[number]

    def _is_of_other_rows(self, number: int, message: Message) -> bool:
        """Whether a message is not the one that a parent sent last, of the rows of training."""
        return bool(self.parents) and message is not self.parents[number].message_up

    def _prior_of(self, number: int, message: Message) -> np.ndarray:
        """Log class probabilities last sent to a parent, else its own: (N, K) or (K,)."""
        sent = self.messages_down[number] if self.messages_down else None
        shape = message.n_rows, *message.shape
        if isinstance(sent, Categorical) and sent.log_prob.shape == shape:
            return sent.log_prob
        own = cast(Categorical, message).log_prior
        return np.full(message.shape, -np.log(message.shape[0])) if own is None else own

    def generate(
        self,
        n_samples: int,
        rng: np.random.Generator,
        values: np.ndarray | None = None,
        component: int | None = None,
    ) -> list[np.ndarray]:
        """One-hot rows (n_samples, K) for each parent: one sequence, or all of class `component`.

        Class probabilities that are given as `values` go to each parent as they are.
        """
        if values is None:
            chain = self.chain()
            if component is None:
                path = chain.draw(n_samples, rng)
            else:
                check_component(self.label, component, len(chain.initial))
                path = np.full(n_samples, component)
            values = np.eye(len(chain.initial))[path]
        return [values] * len(self.parents)

    # -- learning ------------------------------------------------------------------------------

    @learns
    def fit(self, log_likelihood: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit to log p(row | k), (N, K), without a graph; returns self. `y` is ignored.

        Raises
        ------
        InputError
            For NaN, impossible rows, or options that do not fit; nothing is changed.
        """
        evidence = _as_evidence(log_likelihood, f"{self.label}.fit")
        _check_ignored(f"{self.label}.fit", y, len(evidence), "set_params(lengths=...)")
        self.begin_fit(log_likelihood, evidence)
        self._check_rows(*evidence.shape)
        self._take_back_regrouping()
        chain = self._last_chain(evidence.shape[1])
        self.record(self._learn(evidence[self._share(len(evidence))], chain))
        return self

    def set_chain(self, transition: ArrayLike, initial: ArrayLike) -> Self:
        """Take over a transition matrix (K, K) and an initial distribution (K,); returns self.

        In place of learning, as all that asks for a fitted chain then works: `score`,
        `predict_proba`, `viterbi`, `sample`, and in a graph, after `freeze`, updates that only pass
        messages. Without `freeze` the next update learns on from them, if `warm_start`.

        Raises
        ------
        InputError
            Unless all are probabilities, of shapes that fit, rows adding up to 1; nothing is
            changed then.
        """
        k = as_numbers(self.label, "initial", initial).size
        for name, value, shape in (("initial", initial, (k,)), ("transition", transition, (k, k))):
            _check_init(self.label, name, value, shape)
        self.check_options()
        self.rng()  # settles the seed that draws begin from
        self._take_back_regrouping()
        forget(self, "last_posterior_", "log_likelihood_", "lower_bound_", "converged_")
        self.transition_, self.initial_ = _start(transition, k, k), _start(initial, k)
        self.record({})
        return self

    def _learn(self, evidence: np.ndarray, chain: Chain, n_tries: int = 0) -> dict[str, Any]:
        concentrations = self.transition_prior, self.initial_prior
        prior = ChainPrior(*(np.asarray(numbers, float) for numbers in concentrations))
        problem = Problem(prior, self.max_iter, self.tol, n_tries)
        e_step = partial(self._smoothed, evidence)
        solution = problem.solve(e_step, chain)
        self.regrouping_ = {}
        if n_tries:
            sequences = self._sequences(len(evidence))
            rows = evidence[sequences.order]
            found = split_and_merge(rows, sequences.starts, solution, problem)
            self.regrouping_ = {} if found is None else found.as_dict()
        self.rng()  # settles the seed that draws begin from
        self.transition_ = solution.chain.transition
        self.initial_ = solution.chain.initial
        self.log_likelihood_ = np.array(solution.log_likelihood)
        self.lower_bound_ = np.array(solution.lower_bound)
        self.converged_ = solution.converged
        if not self.parents:  # else the parents' messages will be others in the next round anyway
            warn_unless_converged(self, True)
        log_posterior = solution.smoothed.log_posterior
        last = self._sequences(len(evidence)).last
        self.last_posterior_ = processes.gather(np.exp(log_posterior[last]))
        report = {
            "log_likelihood": solution.log_likelihood[-1],
            "lower_bound": solution.lower_bound[-1],
            "n_iter": len(solution.log_likelihood),
        }
        return report | scores_of(self.labels, log_posterior.argmax(axis=1))

    def _last_chain(self, k: int) -> Chain:
        """The chain that was learnt last, or the first one."""
        if self.warm_start and hasattr(self, "initial_") and len(self.initial_) == k:
            return self.chain()
        return Chain(_start(self.transition_init, k, k), _start(self.initial_init, k))

    def _chain_to_go_on_from(self, evidence: np.ndarray) -> tuple[Chain, bool]:
        """The chain that learning starts from, and whether parents have followed so far.

        That of a regrouping if it explains the evidence best, as it does once the parent has heard
        of it; else the last one, or the first.
        """
        k = evidence.shape[1]
        chain, regrouped = self._last_chain(k), self._regrouped(k)
        if self.posterior is None:  # these parents have been told nothing
            return chain, True
        if regrouped is None or self.is_current:  # the parent has not learnt since
            return chain, self.is_followed_
        both = chain, regrouped.chain
        sums = [float(self._smoothed(evidence, c).log_normalisers.sum()) for c in both]
        is_better = bool(np.diff(processes.total(np.array(sums))) > 0)
        return both[is_better], is_better or not self._may_regroup()

    def _may_regroup(self) -> bool:
        """Whether the only parent could follow a regrouping, and nobody else tells it anything.

        Nor does a start forbid anything: zeros stay zeros, and are of certain classes.
        """
        starts = (init for init in (self.transition_init, self.initial_init) if init is not None)
        if len(self.parents) != 1 or any((np.asarray(init) == 0).any() for init in starts):
            return False
        parent = self.parents[0]
        listens = isinstance(parent, Module) and parent.can_regroup and not parent.frozen
        return listens and parent.children == (self,)

    def _regrouped(self, k: int) -> Regrouping | None:
        """The states that the last update found for other classes than the parent's K."""
        arrays = getattr(self, "regrouping_", {})
        return Regrouping.of(arrays) if arrays and len(arrays["initial"]) == k else None

    # -- what the chain tells ------------------------------------------------------------------

    def chain(self) -> Chain:
        """The fitted transition matrix and initial distribution as one value."""
        if not hasattr(self, "initial_"):
            raise NotFittedError(
                f"{self.label} is not fitted yet: call update() or fit(log_likelihood) first"
            )
        return Chain(self.transition_, self.initial_)

    def score(
        self,
        log_likelihood: ArrayLike,
        y: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> float:
        """Log p(all rows) of rows of any sequences, in nats, from log p(row | k): (N, K).

        Of a hidden Markov model that has a GMM's components the latter are
        ``gmm.density().component_log_prob(x)``. The rows are sequences by `lengths`; unless given,
        by the module's `lengths` or `groups`, which then must be theirs. `y`, one value per row, is
        ignored, as scikit-learn asks.
        """
        evidence = self._new_evidence(log_likelihood, "score")
        by_name = "score(log_likelihood, lengths=...)"
        _check_ignored(f"{self.label}.score", y, len(evidence), by_name)
        with processes.alone():
            return float(self._smoothed(evidence, lengths=lengths).log_normalisers.sum())

    def aic(
        self, log_likelihood: ArrayLike, n_free: int = 0, lengths: ArrayLike | None = None
    ) -> float:
        """Akaike information criterion of rows, given as to `score`; lower is better.

        `n_free` is the number of free parameters that p(row | k) has, which count as the chain's
        own do: of a GMM's components ``gmm.density().n_free(weights=False)``.
        """
        return -2 * self.score(log_likelihood, lengths=lengths) + 2 * self._n_free(n_free)

    def bic(
        self, log_likelihood: ArrayLike, n_free: int = 0, lengths: ArrayLike | None = None
    ) -> float:
        """Bayesian information criterion of rows, see `aic`; lower is better."""
        n_free, score = self._n_free(n_free), self.score(log_likelihood, lengths=lengths)
        return -2 * score + n_free * math.log(len(array_in(log_likelihood, self.label)))

    def _n_free(self, n_emission: int) -> int:
        """Free parameters: of transitions K (K - 1), of the initial distribution K - 1, others."""
        check_argument(self.label, "n_free", n_emission, Count(at_least=0))
        k = len(self.chain().initial)
        return k * k - 1 + int(n_emission)

    def predict_proba(
        self, log_likelihood: ArrayLike, lengths: ArrayLike | None = None
    ) -> np.ndarray:
        """P(k_t | all rows) from log p(row | k): (N, K) -> (N, K).

        The rows are sequences by `lengths`, as in `score`.
        """
        evidence = self._new_evidence(log_likelihood, "predict_proba")
        with processes.alone():
            return np.exp(self._smoothed(evidence, lengths=lengths).log_posterior)

    def viterbi(
        self, log_likelihood: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> np.ndarray:
        """The most probable classes together, (N,) of int: a path a sequence (Viterbi, 1967).

        By log p(row | k), (N, K), of sequences by `lengths`, as in `score`; unless given, by what
        the neighbours in the graph last sent.
        """
        if log_likelihood is None:
            likelihoods = _likelihoods(self.received_from_parents())
            return self._best_path(_evidence(likelihoods, self.received_from_children()), lengths)
        with processes.alone():
            return self._best_path(self._new_evidence(log_likelihood, "viterbi"), lengths)

    def forecast(self, n_steps: int = 1) -> np.ndarray:
        """Class probabilities of the rows that would follow each sequence of the last training.

        Shape (number of sequences, n_steps, K), in the order of `lengths` or of the sorted groups.
        """
        transition = self.chain().transition
        check_argument(self.label, "n_steps", n_steps, Count(each=transition.size))
        if not hasattr(self, "last_posterior_"):
            raise NotFittedError(
                f"{self.label}.forecast goes on from the rows of the last training, and there was "
                "none: call update() or fit(log_likelihood) first"
            )
        probabilities = [self.last_posterior_]
        for _ in range(n_steps):
            probabilities.append(probabilities[-1] @ transition)
        return np.stack(probabilities[1:], axis=1)

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None, *, first: int | None = None
    ) -> np.ndarray:
        """Draw the classes of one sequence: (n_samples,) of int.

        The module's own seed unless one is given, so the same call repeats its draw. `first` is the
        class of the first row, such as the last one of a sequence that is to go on.
        """
        check_argument(self.label, "n_samples", n_samples, Count(each=1))
        chain, rng = self.chain(), generator_of(self.label, random_state, self.seed())
        if first is not None:
            check_component(self.label, first, len(chain.initial), "first")
            chain = replace(chain, initial=np.eye(len(chain.initial))[int(first)])
            rng = np.random.default_rng([seed_of(rng), first])  # other draws than those before
        return chain.draw(n_samples, rng)

    def _smoothed(
        self,
        evidence: np.ndarray,
        chain: Chain | None = None,
        lengths: ArrayLike | None = None,
    ) -> Smoothed:
        """Forward-backward by the fitted chain or another one, results in the order of the rows."""
        chain = self._chain_for(evidence) if chain is None else chain
        sequences = self._sequences(len(evidence), lengths)
        smoothed = chains.forward_backward(evidence[sequences.order], chain, sequences.starts)
        impossible = np.flatnonzero(smoothed.log_normalisers == -np.inf)
        if len(impossible):
            raise InputError(
                f"{self.label}: row {sequences.order[impossible[0]]} is impossible after the rows "
                "before it in its sequence: no class is left that the transitions and the messages "
                "both allow. With transition_prior and initial_prior above 1 learning keeps all "
                "possible"
            )
        names = "log_normalisers", "log_posterior", "log_cavity"
        rows = {name: sequences.as_rows(getattr(smoothed, name)) for name in names}
        return replace(smoothed, **rows)

    def _new_evidence(self, log_likelihood: ArrayLike, method: str) -> np.ndarray:
        """Log p(row | k) that a method is given, of as many classes as those that `fit` was."""
        evidence = _as_evidence(log_likelihood, f"{self.label}.{method}")
        check_columns(f"{self.label}.{method}", self, log_likelihood, evidence)
        return evidence

    def _best_path(self, evidence: np.ndarray, lengths: ArrayLike | None = None) -> np.ndarray:
        chain = self._chain_for(evidence)
        sequences = self._sequences(len(evidence), lengths)
        path, log_joint = chains.viterbi(evidence[sequences.order], chain, sequences.starts)
        if log_joint == -np.inf:
            self._smoothed(evidence, lengths=lengths)  # raises, and names the row
        return sequences.as_rows(path)

    def _chain_for(self, evidence: np.ndarray) -> Chain:
        """The fitted chain, if it is of as many classes."""
        chain = self.chain()
        if evidence.shape[1] != len(chain.initial):
            raise InputError(
                f"{self.label}: fitted on K={len(chain.initial)} classes, got {evidence.shape[1]}"
            )
        return chain

    def _sequences(self, n_rows: int, lengths: ArrayLike | None = None) -> Sequences:
        """Sequences of rows, by other lengths than the module's own if given."""
        if lengths is not None:
            return sequences_of(self.label, lengths, None, n_rows)
        return sequences_of(self.label, self.lengths, self.groups, n_rows)

    def _share(self, n_rows: int) -> slice:
        """The rows of all that this process works on."""
        lengths = None if self.lengths is None else np.asarray(self.lengths).tolist()
        return processes.share(n_rows, lengths)


# -- evidence and options --------------------------------------------------------------------------


def _likelihoods(inputs: Sequence[Message]) -> list[np.ndarray]:
    """Log p(what a parent says of row t | k), up to a constant per row: (N, K) for each parent."""
    return [message.log_likelihood for message in inputs if isinstance(message, Categorical)]


def _evidence(likelihoods: list[np.ndarray], from_children: Message | None = None) -> np.ndarray:
    """Log p(what parents and children say of row t | k), up to a constant per row, (N, K)."""
    evidence: np.ndarray = np.sum(likelihoods, axis=0)
    if isinstance(from_children, Categorical):
        evidence = evidence + from_children.log_prob + np.log(from_children.shape[0])
    return evidence


def _as_evidence(log_likelihood: ArrayLike, what: str) -> np.ndarray:
    """Log p(row | k), finite or -inf, as float64 (N, K); `what` is how error texts name it."""
    evidence = as_array(log_likelihood, what)[:].astype(np.float64)
    if evidence.ndim != 2 or not (evidence < np.inf).all():
        raise InputError(
            f"{what}: expected log-likelihoods (N, K), finite or -inf, got shape {evidence.shape}: "
            f"{log_likelihood!r:.60}"
        )
    return evidence


def _check_ignored(what: str, y: ArrayLike | None, n_rows: int, by_name: str) -> None:
    """Raise InputError for a y of other than these rows, such as lengths given by position."""
    shape = None if y is None else array_in(y, f"{what}: y").shape
    if shape is not None and shape[:1] != (n_rows,):
        raise InputError(
            f"{what}: expected y of {n_rows} rows or None, got shape {shape}; lengths go by name, "
            f"{by_name}"
        )


def _start(init: ArrayLike | None, *shape: int) -> np.ndarray:
    """Probabilities that learning starts from: the argument, normalised, or uniform ones."""
    weights = np.ones(shape) if init is None else np.array(init, float)
    return weights / weights.sum(axis=-1, keepdims=True)


def _check_prior(label: str, name: str, value: ArrayLike, shape: tuple[int, ...] | None) -> None:
    wanted = f"a number >= 1 or an array{'' if shape is None else f' {shape}'} of them"
    numbers = as_numbers(label, name, value, wanted)
    fits = numbers.ndim == 0 or shape in (None, numbers.shape)
    if not fits or numbers.size == 0 or numbers.min() < 1:
        raise InputError(f"{label}: {name} must be {wanted}, got {value!r:.60}")


def _check_init(label: str, name: str, value: ArrayLike, shape: tuple[int, ...]) -> None:
    wanted = f"an array {shape} of probabilities that add up to 1, each row by itself"
    numbers = as_numbers(label, name, value, wanted)
    fits = numbers.shape == shape and numbers.size > 0 and numbers.min() >= 0
    if not fits or not np.allclose(numbers.sum(axis=-1), 1, atol=1e-3):
        raise InputError(f"{label}: {name} must be {wanted}, got {value!r:.60}")
