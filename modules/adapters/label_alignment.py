"""Alignment of class numbers: the module that makes several modules' classes agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from scipy.special import log_softmax, logsumexp

from ... import processes
from ...errors import GraphError, InputError, MessageError, NotFittedError
from ...messages import Categorical, Message
from ...metrics import scores_of
from ...module import Module, Node, Posterior, Values
from ...options import Count, Number
from ..common.inputs import any_observed, check_component, check_labels, draw_classes, with_children


@dataclass(eq=False, repr=False, kw_only=True)
class LabelAlignment(Module):
    """Make the class numbers of several modules agree, and let each hear what the others say.

    Clusterings of the same rows number their classes at random. The first parent's numbers are the
    reference; each other parent's classes are matched to them one to one, so that the mass they
    share, ``sum_n P_1(k | n) P_i(l | n)`` over the rows that both observed, is largest (Kuhn, 1955,
    "The Hungarian method for the assignment problem"). Serket's TtoT module searches by swaps,
    which may stop early, and sends nothing up.

    Sends up what all parents say together, and down to each, in its own numbers, what the others
    and the children say. Parents of different data are independent given the class, so that their
    evidence multiplies: ``P(k | n) ~ P(k) prod_i p_i(row n | k)``. Parents with an `Observation`
    in common, directly or through others, are several models of the same rows, and their product
    would count these several times. Which model is right is unknown, and averaged over: they count
    as one parent, whose evidence is the mean of theirs, ``1/m sum_i p_i(row n | k) / sum_l p_i(row
    n | l)``, over the m that observed the row (Bayesian model averaging, Hoeting et al., 1999; of
    opinions the linear pool, Stone, 1961). So none outvotes the others by being too certain.

    Parameters
    ----------
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    start : int
        How many rounds the parents learn on their own: its update of this number is the first
        that sends messages down (0 and 1: the first of all). What goes up does not wait.
    message_weight : float or None
        None combines the parents as above. A number w above 0 multiplies them all instead,
        whatever they have in common, and counts each one's evidence w times,
        ``prod_i p_i(row n | k)^w``: with 1 as if all were independent.
    name, random_state
        See `serkit.Module`. Nothing learnt is random; `random_state` seeds draws of samples.

    Attributes
    ----------
    permutations_ : np.ndarray of shape (n_parents, K)
        The class of each parent that the reference's class k stands for; the first row counts up.

    Examples
    --------
    Two mixtures find the same three clusters, each under numbers of its own:

    >>> import numpy as np
    >>> from serkit import Observation
    >>> from serkit.modules import GMM, LabelAlignment
    >>> rows = Observation(np.repeat([[0.0], [5.0], [9.0]], 4, axis=0))
    >>> starts = [0.0], [5.0], [9.0]
    >>> first = GMM(3, means_init=starts, name="first").connect(rows).update()
    >>> second = GMM(3, means_init=starts[::-1], name="second").connect(rows).update()
    >>> LabelAlignment().connect(first, second).update().permutations_
    array([[0, 1, 2],
           [2, 1, 0]])
    """

    labels: ArrayLike | None = None
    start: Annotated[int, Count(at_least=0)] = 0
    message_weight: Annotated[float | None, Number(above=0, or_none=True)] = None

    takes_from_parents = (Categorical,)
    why_no_parts = "it only combines what its parents say of classes"
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Categorical
    learns_from_shares = True

    @property
    def n_outputs(self) -> int | None:
        """Number of classes K, where the parents know it."""
        return self.parents[0].n_outputs if self.parents else None

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise for fewer than two parents, numbers of classes that differ, or wrong labels."""
        check_labels(self.label, self.labels, n_rows)
        if len(inputs) < 2:
            raise GraphError(f"{self.label} aligns the classes of at least two parents, got one")
        pairs = zip(self.parents, inputs, strict=True)
        sizes = [(p.label, p.n_outputs if m is None else m.shape[0]) for p, m in pairs]
        if len({size for _, size in sizes if size is not None}) > 1:
            listed = ", ".join(f"{label} has {size}" for label, size in sizes if size is not None)
            raise InputError(f"{self.label}: numbers of classes differ: {listed}; make them equal")

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Match the classes; report the share of the parents' mass that agrees, in [0, 1]."""
        reference, *others = cast(list[Categorical], inputs)
        matches, shares = zip(*(match_classes(reference, other) for other in others), strict=True)
        permutations = np.stack([np.arange(*reference.shape), *matches])
        evidence = aligned_evidence(inputs, permutations)
        classes = self._combined(evidence, observed_by(inputs), reference.log_prior)
        clusters = with_children(classes, from_children).log_prob.argmax(axis=1)
        self.rng()  # settles the seed of later draws, so that a saved graph repeats them
        self.permutations_ = permutations
        return {"agreement": float(np.mean(shares))} | scores_of(self.labels, clusters)

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send P(k | row) from all parents up, and to each what the others and the children say."""
        permutations = self._permutations()
        evidence = aligned_evidence(inputs, permutations)  # (n_parents, N, K)
        log_prior = cast(Categorical, inputs[0]).log_prior
        observed = observed_by(inputs)
        up = self._combined(evidence, observed, log_prior)
        up = replace(up, observed=any_observed(inputs), checked=False)
        down: list[Categorical | None] = [None] * len(inputs)
        if len(self.history_) >= self.start:
            for number, classes in enumerate(permutations):
                others = observed & (np.arange(len(inputs)) != number)[:, None]
                message = with_children(self._combined(evidence, others), from_children)
                log_prob = message.log_prob[:, np.argsort(classes)]  # (N, K), the parent's numbers
                down[number] = Categorical(log_prob, is_prior=message.is_prior, checked=False)
        return Posterior(up, tuple(down), classes=with_children(up, from_children))

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Draw one class per row, and give it each parent in its numbers: certain P(k), (n, K).

        Classes are drawn from probabilities (n, K) where given, else from the reference's P(k).
        """
        permutations = self._permutations()
        k = permutations.shape[1]
        if values is None:
            log_prior = getattr(self.message_up, "log_prior", None)
            prior = np.full(k, 1 / k) if log_prior is None else np.exp(log_prior)
            if component is not None:
                check_component(self.label, component, k)
                prior = np.eye(k)[component]
            values = np.tile(prior, (n_samples, 1))
        drawn = np.eye(k)[draw_classes(values, rng)]  # (n, K)
        return [drawn[:, np.argsort(classes)] for classes in permutations]

    def vote(self) -> np.ndarray:
        """The class that the parents' aligned P(k | row) give most in the mean: (N,) of int.

        By what each says itself, without what it was told (the linear opinion pool: Stone, 1961,
        "The opinion pool"), in the reference's numbers, for the rows of all processes.
        """
        messages = cast(list[Categorical], self.received_from_parents())
        pairs = zip(messages, self._permutations(), strict=True)
        aligned = [np.exp(message.log_prob[:, classes]) for message, classes in pairs]
        return processes.gather(np.mean(aligned, axis=0).argmax(axis=1))

    def _groups(self, n_parents: int) -> np.ndarray:
        """The number of each parent's group, see `groups_of`; without parents one a message."""
        return groups_of(self.parents) if self.parents else np.arange(n_parents)

    def _permutations(self) -> np.ndarray:
        if not hasattr(self, "permutations_"):
            raise NotFittedError(f"{self.label} has matched no classes yet: call update() first")
        return self.permutations_

    def _combined(
        self, evidence: np.ndarray, counted: np.ndarray, log_prior: np.ndarray | None = None
    ) -> Categorical:
        """P(k), (K,), times the parents' evidence (n, N, K) where it is `counted` (n, N)."""
        if self.message_weight is None:
            joint = pooled_evidence(evidence, counted, self._groups(len(evidence)))
        else:
            joint = self.message_weight * evidence.sum(axis=0, where=counted[:, :, None])
        joint = joint + (0 if log_prior is None else log_prior)  # (N, K)
        impossible = np.flatnonzero(joint.max(axis=1) == -np.inf)
        if len(impossible):
            raise MessageError(
                f"{self.label}: its parents contradict each other in row {impossible[0]}: no class "
                "has a positive probability in all of them"
            )
        return Categorical(log_softmax(joint, axis=1), log_prior=log_prior, checked=False)


def aligned_evidence(inputs: Sequence[Message], permutations: np.ndarray) -> np.ndarray:
    """Each parent's log p(row | k), in the reference's numbers: (n_parents, N, K)."""
    pairs = zip(cast(list[Categorical], inputs), permutations, strict=True)
    return np.stack([message.log_likelihood[:, classes] for message, classes in pairs])


def observed_by(inputs: Sequence[Message]) -> np.ndarray:
    """Whether each parent observed each row: (n_parents, N) of bool."""
    return np.stack([message.is_observed for message in inputs])


def groups_of(nodes: Sequence[Node]) -> np.ndarray:
    """The number of each node's group, (n,): nodes with an observation in common are of one."""
    sources = [{n for n in (*node.ancestors(), node) if not n.parents} for node in nodes]
    in_common = np.array([[bool(one & other) for other in sources] for one in sources])
    return connected_components(in_common, directed=False)[1]


def pooled_evidence(evidence: np.ndarray, counted: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The product over groups of the mean of their members' evidence, as logarithms (N, K).

    Evidence is log p_i(row | k), (n, N, K), and counts in the rows where `counted` (n, N). It is
    normalised over k before the mean. A group of which none counts says nothing.

    >>> import numpy as np
    >>> evidence = np.log([[[0.8, 0.2]], [[0.4, 0.6]], [[0.5, 0.5]]])
    >>> together = pooled_evidence(evidence, np.ones((3, 1), bool), groups=np.array([0, 0, 1]))
    >>> np.exp(together) / np.exp(together).sum()
    array([[0.6, 0.4]])
    """
    log_prob = log_softmax(evidence, axis=2)
    total = np.zeros(evidence.shape[1:])
    for group in np.unique(groups):
        members = groups == group
        counts = counted[members].astype(float)  # (m, N)
        speaks = counts.any(axis=0)
        shares = counts[:, speaks] / counts[:, speaks].sum(axis=0)
        total[speaks] += logsumexp(log_prob[members][:, speaks], axis=0, b=shares[:, :, None])
    return total


def match_classes(reference: Categorical, other: Categorical) -> tuple[np.ndarray, float]:
    """The other's class for each of the reference's, (K,), and the mass they share, in [0, 1].

    It is the mean of ``sum_k P(k | n) P'(classes[k] | n)`` over the rows n that both observed, at
    its largest; 0 if there are none.
    """
    both = reference.is_observed & other.is_observed
    own = np.exp(reference.log_prob[both]).T @ np.exp(other.log_prob[both])
    shared = processes.total(own)  # (K, K)
    rows, classes = linear_sum_assignment(shared, maximize=True)
    return classes, float(shared[rows, classes].sum() / max(processes.total(both.sum()), 1))
