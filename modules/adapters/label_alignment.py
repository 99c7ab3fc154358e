"""Alignment of class numbers: the module that makes several modules' classes agree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax

from ... import processes
from ...errors import GraphError, InputError, MessageError, NotFittedError
from ...messages import Categorical, Message, product
from ...metrics import scores_of
from ...module import Module
from ...options import check_component, check_n_samples, check_random_state
from ..common.inputs import any_observed, check_labels, draw_classes


class LabelAlignment(Module):
    """Make the class numbers of several modules agree, and let each hear what the others found.

    Clusterings of the same rows number their classes at random. The first parent's numbers are the
    reference; the classes of each other parent are matched to them one to one, so that the mass
    they share, ``sum_n P_1(k | n) P_i(l | n)`` over the rows that both saw, is largest (Kuhn, 1955,
    "The Hungarian method for the assignment problem"). Sends up the product of the parents'
    evidence, ``P(k | n) ~ P(k) prod_i p_i(row n | k)``, and down to each parent, in its own
    numbers, the product of what the others and the children say. Serket's TtoT module, whose
    search by swaps may stop early and which sends nothing up.

    Parameters
    ----------
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    name, random_state
        See `serkit.Module`. Nothing learnt is random; `random_state` seeds draws of samples.

    Attributes
    ----------
    permutations_ : np.ndarray of shape (n_parents, K)
        The class of each parent that the reference's class k stands for; the first row counts up.
    """

    takes_from_parents = (Categorical,)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Categorical
    learns_from_shares = True

    def __init__(
        self,
        *,
        labels: ArrayLike | None = None,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.labels = labels

    @property
    def size(self) -> int | None:
        """Number of classes K, where the parents know it."""
        return self.parents[0].size if self.parents else None

    @property
    def backward_size(self) -> int | None:
        """Number of classes K, where the parents know it."""
        return self.size

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise for fewer than two parents, numbers of classes that differ, or wrong labels."""
        check_random_state(self, self.random_state)
        check_labels(self.label, self.labels, n_rows)
        if len(inputs) < 2:
            raise GraphError(f"{self.label} aligns the classes of at least two parents, got one")
        if None not in inputs and len({message.shape for message in inputs}) > 1:
            pairs = zip(self.parents, inputs, strict=True)
            listed = ", ".join(f"{parent.label} has {m.shape[0]}" for parent, m in pairs)
            raise InputError(f"{self.label}: numbers of classes differ: {listed}; make them equal")

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Match the classes; report the share of the parents' mass that agrees, in [0, 1]."""
        reference, *others = inputs
        matches, shares = zip(*(match_classes(reference, other) for other in others), strict=True)
        permutations = np.stack([np.arange(*reference.shape), *matches])
        up = self._combined(self._evidence(inputs, permutations), reference)
        posterior = _times(up, prior)
        self.rng()  # settles the seed of later draws, so that a saved graph repeats them
        self.permutations_ = permutations
        scores = scores_of(self.labels, posterior.log_prob.argmax(axis=1))
        return {"agreement": float(np.mean(shares))} | scores

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(k | row) from all parents, in the reference's numbers."""
        combined = self._combined(self._evidence(inputs, self._permutations()), inputs[0])
        return replace(combined, observed=any_observed(inputs))

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Categorical]:
        """What the other parents and the children say of each row, in each parent's numbers."""
        permutations = self._permutations()
        evidence = self._evidence(inputs, permutations)
        sent = []
        for number, classes in enumerate(permutations):
            others = self._combined(np.delete(evidence, number, axis=0))
            message = _times(others, prior)
            own = message.log_prob[:, np.argsort(classes)]  # (N, K)
            sent.append(Categorical(own, is_prior=message.is_prior))
        return sent

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Class probabilities (n_samples, K), all on one class, for each parent in its numbers.

        Classes are drawn from the reference's P(k) unless `component` names one.
        """
        n_classes = self._permutations().shape[1]
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        prior = self.message_up.log_prior
        values = np.full(n_classes, 1 / n_classes) if prior is None else np.exp(prior)
        if component is not None:
            check_component(self, component, n_classes)
            values = np.eye(n_classes)[component]
        rng = np.random.default_rng(self.seed_ if random_state is None else random_state)
        return self.top_down(np.tile(values, (n_samples, 1)), rng)

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Of class probabilities (n, K) one class a row, the same for each parent."""
        picked = np.eye(values.shape[1])[draw_classes(values, rng)]  # (n, K)
        return [picked[:, np.argsort(classes)] for classes in self._permutations()]

    def scores(self) -> dict[str, float]:
        """Accuracy, NMI and ARI against `labels`, if there are any, children's message included."""
        return scores_of(self.labels, self.clusters())

    def clusters(self) -> np.ndarray | None:
        """Class of each row, (N,), children's message included; None before any message."""
        return None if self.message_up is None else self._posterior().log_prob.argmax(axis=1)

    def artefacts(self) -> dict[str, np.ndarray]:
        """class_learn.txt and Pdz_learn.txt, as the mixture has them, and permutations.txt."""
        return {
            "class_learn.txt": self.clusters(),
            "Pdz_learn.txt": np.exp(self._posterior().log_prob),
            "permutations.txt": self.permutations_,
        }

    def _posterior(self) -> Categorical:
        return _times(self.message_up, self.received_from_children())

    def _permutations(self) -> np.ndarray:
        if not hasattr(self, "permutations_"):
            raise NotFittedError(f"{self.label} has matched no classes yet: call update() first")
        return self.permutations_

    def _evidence(self, inputs: list[Message], permutations: np.ndarray) -> np.ndarray:
        """Each parent's log p(row | k), in the reference's numbers: (n_parents, N, K)."""
        pairs = zip(inputs, permutations, strict=True)
        return np.stack([message.log_likelihood[:, classes] for message, classes in pairs])

    def _combined(self, evidence: np.ndarray, reference: Categorical | None = None) -> Categorical:
        """The product of several parents' evidence (n, N, K), and of the reference's P(k)."""
        log_prior = None if reference is None else reference.log_prior
        joint = evidence.sum(axis=0) + (0 if log_prior is None else log_prior)  # (N, K)
        impossible = np.flatnonzero(joint.max(axis=1) == -np.inf)
        if len(impossible):
            raise MessageError(
                f"{self.label}: its parents contradict each other in row {impossible[0]}: no class "
                "has a positive probability in all of them"
            )
        return Categorical(log_softmax(joint, axis=1), log_prior=log_prior)


def match_classes(reference: Categorical, other: Categorical) -> tuple[np.ndarray, float]:
    """Match another message's classes to a reference's by the mass they share.

    Returns
    -------
    classes : np.ndarray, shape (K,)
        The class of `other` for each class of `reference`: those that maximise
        ``sum_k sum_n P(k | n) P'(classes[k] | n)`` over the rows n that both saw.
    share : float
        That mass a row, in [0, 1]; 0 if no row was seen by both.
    """
    both = reference.is_observed & other.is_observed
    own = np.exp(reference.log_prob[both]).T @ np.exp(other.log_prob[both])
    shared = processes.total(own)  # (K, K)
    rows, classes = linear_sum_assignment(shared, maximize=True)
    return classes, float(shared[rows, classes].sum() / max(processes.total(both.sum()), 1))


def _times(message: Categorical, prior: Message | None) -> Categorical:
    return message if prior is None else product([message, prior])
