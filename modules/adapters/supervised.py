"""Targets as one more modality: a classifier or regressor on another module's message."""

from __future__ import annotations

import itertools
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from ...errors import GraphError, InputError
from ...messages import Categorical, Data, Gaussian, Message
from ...module import Module, Node, Part, Posterior
from ...options import Choice
from ...reading import minus_one_is_class
from ..common.inputs import flat
from ..common.sequences import Sequences, sequences_of
from ..nets.architectures import Whole, alone, probabilities
from ..nets.estimators import NetClassifier, NetRegressor, SupervisedNet
from .sklearn import OF_SKLEARN, ask, described, fitted_copy, learnt

_LEAST = 1e-6
_BLOCK_VALUES = 2**22  # in sequences that go through a net at once


@dataclass(eq=False, repr=False)
class Supervised(Module):
    """Learns targets from class probabilities or latents, and tells which classes they speak for.

    Serket's NN module with both directions (Nakamura et al., 2018): its parents are a module that
    sends `Categorical` or `Gaussian` messages and, last, an `Observation` of the targets, which
    need not be known in all rows: those not observed are unknown and, in a classification, those of
    class -1, as everywhere where labels are taken.

    The estimator learns p(y | P(k | row)) from the rows with known targets. What goes down to the
    classes is each row's likelihood of its target, ``p(y_n | k)``, by the estimator at the K
    certain inputs, normalised over k; rows without a target say nothing. So labels known for some
    rows steer the clustering (semi-supervised). The classes' module leaves out what it heard, so no
    target is used twice. Latents are told nothing. What goes down to the targets is what the
    estimator predicts, which fills in the unknown ones (`Graph.reconstruct`).

    Children of one module do not hear each other: for labels to reach all of a graph, connect this
    to its topmost module, such as the Markov model on a mixture.

    Parameters
    ----------
    estimator : scikit-learn estimator or torch.nn.Module, optional
        A classifier with `predict_proba`, or a regressor; logistic or ridge regression unless
        given. A net, from (N, K) to logits (N, C) or targets (N, T), is trained as by
        `NetClassifier` or `NetRegressor`; give one of these for other settings. Never changed:
        every update fits a copy afresh.
    task : {"classification", "regression"}
        Classes are whole numbers, one per row. Of a regression's targets, any number per row, each
        is Gaussian about its prediction, with the mean squared residual of training as variance.
    lengths : array-like of int, optional
        Numbers of rows of consecutive sequences, which add up to N. The estimator is then a net
        that takes whole sequences, (B, S, K), and returns logits or targets of every step,
        (B, S, C) or (B, S, T); shorter sequences end with zeros. A class is told by all targets of
        its sequence, the other rows' classes being as probable as they are now: N K sequences go
        through the net in each update.
    groups : array-like of shape (N,), optional
        Instead: rows with the same entry are one sequence, in their order.
    name, random_state
        See `serkit.Module`. Seeds that the estimator leaves open are drawn from `random_state`.

    Attributes
    ----------
    estimator_ : fitted scikit-learn estimator
    noise_variance_ : np.ndarray of shape (T,), of a regression

    Examples
    --------
    Of four rows two have labels; the others get theirs from their clusters:

    >>> import numpy as np
    >>> from serkit import Observation
    >>> from serkit.modules import GMM, Supervised
    >>> gmm = GMM(2, means_init=[[0.0], [9.0]]).connect(Observation([[0.0], [1.0], [8.0], [9.0]]))
    >>> labels, known = np.array([4, 0, 7, 0]), [True, False, True, False]
    >>> targets = Observation(labels[:, None], observed=known, name="targets")
    >>> top = Supervised(random_state=0).connect(gmm.update(), targets).update()
    >>> top.messages_down[1].array.ravel()
    array([4., 4., 7., 7.], dtype=float32)
    """

    estimator: BaseEstimator | nn.Module | None = None
    _: KW_ONLY
    task: Annotated[str, Choice("classification", "regression")] = "classification"
    lengths: ArrayLike | None = None
    groups: ArrayLike | None = None

    takes_from_parents = (Categorical, Gaussian, Data)
    why_no_parts = OF_SKLEARN
    sends_down = Categorical

    @property
    def templates(self) -> dict[str, Any]:
        """The estimator that is fitted, unless it is a net, whose weights are saved."""
        template = self._template()
        return {} if isinstance(template, SupervisedNet) else {"estimator": template}

    def sends_down_to(self, parent: Node) -> type[Message] | None:
        """Predictions to the targets, class probabilities to classes, nothing to latents."""
        return None if parent.sends_up is Gaussian else parent.sends_up

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise for parents, an estimator or targets that do not suit the task."""
        kinds = [parent.sends_up for parent in self.parents]
        if len(kinds) != 2 or kinds[0] is Data or kinds[1] is not Data:
            raise GraphError(
                f"{self.label}: expected two parents, one that sends Categorical or Gaussian "
                "messages and an Observation of the targets, as in connect(gmm, "
                f"Observation(labels[:, None])), got {', '.join(p.label for p in self.parents)}"
            )
        self._sequences(n_rows)
        self._check_estimator()
        if inputs[1] is not None:
            self._check_targets(flat(inputs[1]))

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows whose target is known."""
        taught = flat(inputs[1])[inputs[1].is_observed, 0]
        known = inputs[0].is_observed & self._known(inputs[1], minus_one_is_class(taught))
        x, targets = features_of(inputs[0]), flat(inputs[1])
        y = targets[known]
        if len(np.unique(y, axis=0)) < 2:
            raise InputError(
                f"{self.label}: expected rows with two different targets or more to learn from, "
                f"got {len(y)} known targets: {np.unique(y)}"
            )
        sequences = self._sequences(len(x))
        if sequences is None:
            x, one_each = x[known], y[:, 0] if y.shape[1] == 1 else y
            estimator = fitted_copy(self, self._template(), x, one_each)
            predicted = self._predicted(estimator, x, y.shape[1])
        else:
            steps = self._steps(sequences, targets, known)
            estimator = fitted_copy(self, self._template(), sequences.padded(x), steps)
            predicted = self._predicted(estimator, x, y.shape[1])[known]
        if self.task == "regression":
            self.noise_variance_ = residual_variance(y, predicted)
        self.estimator_ = estimator
        return self._scored(y, predicted)

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send each target's likelihood under every class, and predicted targets, down."""
        source, targets = inputs
        y = flat(targets)  # (N, T)
        predicted = self._predicted(learnt(self), features_of(source), y.shape[1])
        likelihoods = None
        if isinstance(source, Categorical):
            self._check_targets(y)
            known, sequences = self._known(targets), self._sequences(len(y))
            if sequences is None:
                log_likelihood = self._log_likelihood(source.shape[0], y, known)
            else:  # in which a row without a target is told by those of the others
                x = features_of(source)
                log_likelihood = self._log_likelihood_by_sequence(sequences, x, y, known)
                known = np.ones(len(y), dtype=bool)
            log_prob = log_softmax(log_likelihood, axis=1)  # (N, K)
            likelihoods = Categorical(log_prob, observed=known, checked=False)
        return Posterior(down=(likelihoods, Data(predicted.reshape(-1, *targets.shape))))

    def parts(self) -> list[Part]:
        """The net from classes or latents to P(target), or of a regression to targets."""
        estimator = learnt(self)
        if not isinstance(estimator, SupervisedNet):
            return super().parts()
        if self.lengths is not None or self.groups is not None:
            raise GraphError(f"{self.label} cannot be exported: its net takes whole sequences")
        source = self.parents[0]
        takes = ((source, "probabilities" if source.sends_up is Categorical else "mean"),)

        def truth(x: np.ndarray) -> list[np.ndarray]:
            if isinstance(estimator, NetClassifier):
                return [estimator.predict_proba(x)]
            return [self._predicted(estimator, x, estimator.n_outputs_)]

        classifies = isinstance(estimator, NetClassifier)
        name, made = ("classifier", probabilities) if classifies else ("regressor", alone)
        return [Part(name, Whole(estimator.net_, made), takes, ("targets",), truth)]

    def scores(self) -> dict[str, float]:
        """Accuracy, or R squared, of the predictions last sent, on the rows of known targets."""
        if self.posterior is None:
            return {}
        targets, predicted = self.parents[1].message_up, cast(Data, self.posterior.down[1])
        if targets is None or targets.n_rows != predicted.n_rows:
            return {}
        known = self._known(targets)
        if not known.any():
            return {}
        return self._scored(flat(targets)[known], flat(predicted)[known])

    def get_state(self) -> dict[str, Any]:
        """Everything learnt, nets as their state dicts."""
        state = super().get_state()
        if isinstance(state.get("estimator_"), SupervisedNet):
            state["estimator_"] = self.estimator_.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` gave."""
        template = self._template()
        if "estimator_" in state and isinstance(template, SupervisedNet):
            estimator = clone(template)
            estimator.set_state(state["estimator_"])
            state = {**state, "estimator_": estimator}
        super().set_state(state)

    def _known(self, targets: Message, with_minus_one: bool | None = None) -> np.ndarray:
        """Rows whose target is known, (N,) of bool: of a classification all but -1.

        These too `with_minus_one`, by default if it was learnt as a class.
        """
        if with_minus_one is None:
            with_minus_one = -1 in getattr(learnt(self), "classes_", ())
        if self.task == "regression" or with_minus_one:
            return targets.is_observed
        return targets.is_observed & (flat(targets)[:, 0] != -1)

    def _template(self) -> BaseEstimator:
        """The estimator to fit a copy of."""
        classifies = self.task == "classification"
        if self.estimator is None:
            from sklearn.linear_model import (
                LogisticRegression,
                Ridge,
            )  # here, as loading it takes a while

            return LogisticRegression(C=10, max_iter=1000) if classifies else Ridge(alpha=0.3)
        if isinstance(self.estimator, nn.Module):
            return (NetClassifier if classifies else NetRegressor)(self.estimator)
        return self.estimator

    def _log_likelihood(self, n_classes: int, y: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Log p(y_n | k), of anything in rows without a known target: (N, K)."""
        certain, estimator = np.eye(n_classes), learnt(self)
        if self.task == "regression":
            means = self._predicted(estimator, certain, y.shape[1])  # (K, T)
            return gaussian_log_likelihood(y, means, self.noise_variance_)
        probabilities = ask(self.label, estimator.predict_proba, certain)  # (K, C)
        codes = self._codes(estimator.classes_, y, known)
        return np.log(np.maximum(probabilities, _LEAST)).T[codes]

    def _codes(self, classes: np.ndarray, y: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Numbers of targets (N, 1) among the classes learnt, (N,); of any where not known."""
        unknown = np.setdiff1d(y[known, 0], classes)
        if len(unknown):
            raise InputError(
                f"{self.label}: targets {unknown.tolist()} were not among those learnt, "
                f"{classes.tolist()}; mark such rows as not observed"
            )
        return np.searchsorted(classes, y[:, 0]).clip(max=len(classes) - 1)

    def _predicted(self, estimator: Any, x: np.ndarray, n_targets: int) -> np.ndarray:
        """The estimator's targets of rows x, (N, T)."""
        sequences = self._sequences(len(x))
        if sequences is None:
            return np.reshape(ask(self.label, estimator.predict, x), (len(x), n_targets))
        padded = sequences.padded(x, estimator.n_steps_)
        predicted = sequences.unpadded(ask(self.label, estimator.predict, padded))
        return predicted.reshape(len(x), n_targets)

    # -- sequences -----------------------------------------------------------------------------

    def _sequences(self, n_rows: int) -> Sequences | None:
        """Which rows are a sequence; None where each row is by itself."""
        if self.lengths is None and self.groups is None:
            return None
        return sequences_of(self.label, self.lengths, self.groups, n_rows)

    def _steps(
        self, sequences: Sequences, targets: np.ndarray, known: np.ndarray
    ) -> np.ma.MaskedArray:
        """Targets (N, T) by sequence and step, masked where there are none: as nets learn them."""
        padded, is_known = sequences.padded(targets), sequences.padded(known)
        mask = np.broadcast_to(~is_known[..., None], padded.shape)
        steps = np.ma.MaskedArray(padded, mask=mask)
        return steps[..., 0] if self.task == "classification" else steps

    def _log_likelihood_by_sequence(
        self, sequences: Sequences, x: np.ndarray, y: np.ndarray, known: np.ndarray
    ) -> np.ndarray:
        """Log p(all targets of row n's sequence | class k of row n, what x says of the others).

        Features (N, K), targets (N, T), known ones (N,) -> (N, K).
        """
        estimator = learnt(self)
        n_steps, n_classes = estimator.n_steps_, x.shape[1]
        if self.task == "classification":
            y = self._codes(estimator.classes_, y, known)[:, None]
        result = np.zeros_like(x)
        ends = np.append(np.flatnonzero(sequences.starts), len(x))
        for rows in (sequences.order[a:b] for a, b in itertools.pairwise(ends.tolist())):
            told = np.flatnonzero(known[rows])  # steps
            step = max(_BLOCK_VALUES // (max(n_steps, len(rows)) * n_classes**2), 1)
            for first in range(0, len(rows) if len(told) else 0, step):
                changed = np.arange(first, min(first + step, len(rows)))
                variants = with_certain_classes(x[rows], changed, n_steps)
                log_prob = self._log_prob_of_steps(estimator, variants, y[rows], told)
                result[rows[changed]] = log_prob.reshape(len(changed), n_classes)
        return result

    def _log_prob_of_steps(
        self, estimator: Any, x: np.ndarray, y: np.ndarray, told: np.ndarray
    ) -> np.ndarray:
        """Log p(targets of some steps | sequence), of sequences (V, S, K): (V,)."""
        if self.task == "regression":
            means = ask(self.label, estimator.predict, x)[:, told]  # (V, told, T)
            return -0.5 * ((y[told] - means) ** 2 / self.noise_variance_).sum(axis=(1, 2))
        probabilities = ask(self.label, estimator.predict_proba, x)  # (V, S, C)
        of_targets = probabilities[:, told, y[told, 0]]  # (V, told)
        return np.log(np.maximum(of_targets, _LEAST)).sum(axis=1)

    def _scored(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        if self.task == "classification":
            return {"accuracy": float(accuracy_score(y, predicted))}
        return {"r2": float(r2_score(y, predicted))}

    def _check_estimator(self) -> None:
        template, classifies = self._template(), self.task == "classification"
        fits, wanted = (is_classifier, "classifier") if classifies else (is_regressor, "regressor")
        if not (isinstance(template, BaseEstimator) and fits(template)):
            raise InputError(
                f"{self.label}: task={self.task!r} needs a scikit-learn {wanted} or a "
                f"torch.nn.Module as estimator, got {described(template)}"
            )
        named = "groups" if self.lengths is None else "lengths"
        if getattr(self, named) is not None and not isinstance(template, SupervisedNet):
            raise InputError(
                f"{self.label}: {named} make sequences of rows, which need a torch.nn.Module that "
                f"takes them whole, (B, S, K), as estimator, got {described(template)}"
            )
        if classifies and not hasattr(template, "predict_proba"):
            raise InputError(
                f"{self.label}: {described(template)} has no predict_proba, by which the classes "
                "are told how likely a target is; take a classifier that has"
            )

    def _check_targets(self, y: np.ndarray) -> None:
        """Raise InputError unless a classification's targets (N, T) are a whole number per row."""
        broken = y[y != np.round(y)]
        if self.task == "classification" and (y.shape[1] != 1 or len(broken)):
            wrong = f"{y.shape[1]} columns" if y.shape[1] != 1 else f"{broken[0]}"
            raise InputError(
                f"{self.label}: classes must be whole numbers, one per row, as in "
                f"Observation(labels[:, None]), got {wrong}; number them, or use task='regression'"
            )


def with_certain_classes(x: np.ndarray, changed: np.ndarray, n_steps: int) -> np.ndarray:
    """A sequence (L, K) with each of some rows in turn made certain of each class, zeros after it.

    (n K, S, K), the classes running fastest; S is L or, if that is more, `n_steps`.
    """
    length, k = x.shape
    variants = np.zeros((len(changed), k, max(length, n_steps), k), dtype=x.dtype)
    variants[:, :, :length] = x
    variants[np.arange(len(changed)), :, changed] = np.eye(k)
    return variants.reshape(-1, *variants.shape[2:])


def features_of(message: Message) -> np.ndarray:
    """What the estimator learns from: class probabilities (N, K) or latent means (N, D)."""
    return np.exp(message.log_prob) if isinstance(message, Categorical) else flat(message)


def gaussian_log_likelihood(y: np.ndarray, means: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Log N(y_n; means_k, diag(variance)) up to a constant: (N, T), (K, T), (T,) -> (N, K)."""
    return -0.5 * ((y[:, None] - means) ** 2 / variance).sum(axis=2)


def residual_variance(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean squared residual of each target, at least a millionth of its mean square: (T,)."""
    scale = (y**2).mean(axis=0)
    least = _LEAST * np.where(scale > 0, scale, 1.0)
    return np.maximum(((y - predicted) ** 2).mean(axis=0), least)
