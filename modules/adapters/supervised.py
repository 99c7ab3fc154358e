"""Targets as one more modality: a classifier or regressor on another module's message."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from ...errors import GraphError, InputError, NotFittedError
from ...messages import Categorical, Data, Gaussian, Message
from ...module import Module
from ...options import check_option, check_random_state
from ..common.inputs import all_observed, flat
from ..nets.estimators import NetClassifier, NetRegressor, SupervisedNet
from .sklearn import ask, described, seeded

_LEAST = 1e-6


class Supervised(Module):
    """Learns targets from class probabilities or latents, and tells which classes they speak for.

    Serket's NN module with both directions (Nakamura et al., 2018): its parents are a module that
    sends `Categorical` or `Gaussian` messages and, last, an `Observation` of the targets, which
    need not be known in all rows::

        targets = Observation(labels[:, None], observed=known, name="targets")
        Supervised().connect(gmm, targets)

    The estimator learns p(y | P(k | row)) from the rows with known targets. What goes down to the
    classes is each row's likelihood of its target, ``p(y_n | k)``, by the estimator at the K
    certain inputs, normalised over k; rows without a target say nothing. So labels known for some
    rows steer the clustering (semi-supervised). What the classes' module says leaves out what it
    heard, so no target is used twice. Latents are told nothing. What goes down to the targets is
    what the estimator predicts, which fills in the unknown ones (`Graph.reconstruct`).

    Children of one module do not hear each other: for labels to reach all of a graph, connect this
    to its topmost module, such as the Markov model on a mixture.

    Parameters
    ----------
    estimator : scikit-learn estimator or torch.nn.Module, optional
        A classifier with `predict_proba`, or a regressor. A net, from (N, K) to logits (N, C) or
        targets (N, T), is trained as by `NetClassifier` or `NetRegressor`; give one of these for
        other settings. Never changed: every update fits a copy afresh. Unless given, logistic
        regression or ridge regression.
    task : {"classification", "regression"}
        Classes are whole numbers, one a row. Of a regression's targets, any number a row, each is
        Gaussian about its prediction, with the mean squared residual of training as variance.
    name, random_state
        See `serkit.Module`. Seeds that the estimator leaves open are drawn from `random_state`.

    Attributes
    ----------
    estimator_ : scikit-learn estimator
        Fitted.
    noise_variance_ : np.ndarray of shape (T,)
        Of a regression.
    """

    takes_from_parents = (Categorical, Gaussian, Data)
    sends_down = Categorical

    def __init__(
        self,
        estimator: BaseEstimator | nn.Module | None = None,
        *,
        task: str = "classification",
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.estimator = estimator
        self.task = task

    # -- module contract -----------------------------------------------------------------------

    def sends_down_to(self, parent: Module) -> type[Message] | None:
        """Predictions to the targets, class probabilities to classes, nothing to latents."""
        if parent.sends_up is Gaussian:
            return None
        return parent.sends_up

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise for parents, an estimator or targets that do not suit the task."""
        check_random_state(self, self.random_state)
        check_option(self, "task", ("classification", "regression"))
        kinds = [parent.sends_up for parent in self.parents]
        if len(kinds) != 2 or kinds[0] is Data or kinds[1] is not Data:
            raise GraphError(
                f"{self.label}: expected two parents, one that sends Categorical or Gaussian "
                "messages and an Observation of the targets, as in connect(gmm, "
                f"Observation(labels[:, None])), got {', '.join(p.label for p in self.parents)}"
            )
        self._check_estimator()
        if inputs[1] is not None:
            self._check_targets(inputs[1])

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows whose target is known."""
        seen = all_observed(inputs)
        known = slice(None) if seen is None else seen
        x, y = features_of(inputs[0])[known], flat(inputs[1])[known]
        if len(np.unique(y, axis=0)) < 2:
            raise InputError(
                f"{self.label}: expected rows with two different targets or more to learn from, "
                f"got {len(y)} known targets: {np.unique(y)}"
            )
        estimator = seeded(self._template(), self.rng())
        ask(self.label, estimator.fit, x, y[:, 0] if y.shape[1] == 1 else y)
        predicted = self._predicted(estimator, x, y.shape)
        if self.task == "regression":
            self.noise_variance_ = residual_variance(y, predicted)
        self.estimator_ = estimator
        return self._scored(y, predicted)

    def forward(self, inputs: list[Message]) -> None:
        """Nothing goes up."""
        return None

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Message | None]:
        """The likelihood of each row's target under every class; predicted targets."""
        source, targets = inputs
        if not hasattr(self, "estimator_"):
            raise NotFittedError(f"{self.label} has learnt nothing yet: call update() first")
        rows = features_of(source)
        predicted = self._predicted(self.estimator_, rows, flat(targets).shape)
        down = None
        if isinstance(source, Categorical):
            self._check_targets(targets)
            log_prob = log_softmax(self._log_likelihood(source.shape[0], targets), axis=1)
            down = Categorical(log_prob, observed=targets.observed)
        return [down, Data(predicted.reshape(targets.array.shape))]

    def scores(self) -> dict[str, float]:
        """Accuracy, or R squared, of the predictions last sent, on the rows of known targets."""
        targets, predicted = self.parents[1].message_up, self.messages_down[1]
        if targets is None or targets.n_rows != predicted.n_rows:
            return {}
        return self._scored(flat(targets)[targets.is_observed], flat(predicted)[targets.is_observed])

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

    # -- the estimator -------------------------------------------------------------------------

    def _template(self) -> BaseEstimator:
        """The estimator to fit a copy of."""
        classifies = self.task == "classification"
        if self.estimator is None:
            return LogisticRegression(C=10, max_iter=1000) if classifies else Ridge(alpha=0.3)
        if isinstance(self.estimator, nn.Module):
            return (NetClassifier if classifies else NetRegressor)(self.estimator)
        return self.estimator

    def _log_likelihood(self, n_classes: int, targets: Data) -> np.ndarray:
        """Log p(y_n | k), in rows without a target of anything: (N, K)."""
        certain, y = np.eye(n_classes), flat(targets)
        if self.task == "regression":
            means = self._predicted(self.estimator_, certain, (n_classes, y.shape[1]))
            return gaussian_log_likelihood(y, means, self.noise_variance_)
        probabilities = ask(self.label, self.estimator_.predict_proba, certain)  # (K, C)
        known, classes = y[targets.is_observed, 0], self.estimator_.classes_
        unknown = np.setdiff1d(known, classes)
        if len(unknown):
            raise InputError(
                f"{self.label}: targets {unknown.tolist()} were not among those learnt, "
                f"{classes.tolist()}; mark such rows as not observed"
            )
        codes = np.searchsorted(classes, y[:, 0]).clip(max=len(classes) - 1)
        return np.log(np.maximum(probabilities, _LEAST)).T[codes]

    def _predicted(
        self, estimator: BaseEstimator, x: np.ndarray, shape: tuple[int, ...]
    ) -> np.ndarray:
        """The estimator's targets of rows x, in the shape (N, T)."""
        return np.reshape(ask(self.label, estimator.predict, x), (len(x), shape[1]))

    def _scored(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        if self.task == "classification":
            return {"accuracy": float(accuracy_score(y, predicted))}
        return {"r2": float(r2_score(y, predicted))}

    # -- checks --------------------------------------------------------------------------------

    def _check_estimator(self) -> None:
        template = self._template()
        fits = {"classification": is_classifier, "regression": is_regressor}[self.task]
        if not (isinstance(template, BaseEstimator) and fits(template)):
            wanted = {"classification": "classifier", "regression": "regressor"}[self.task]
            raise InputError(
                f"{self.label}: task={self.task!r} needs a scikit-learn {wanted} or a "
                f"torch.nn.Module, got {described(template)}"
            )
        if self.task == "classification" and not hasattr(template, "predict_proba"):
            raise InputError(
                f"{self.label}: {described(template)} has no predict_proba, by which the classes "
                "are told how likely a target is; take a classifier that has"
            )

    def _check_targets(self, targets: Data) -> None:
        """Raise InputError unless a classification's targets are one whole number a row."""
        y = flat(targets)
        if self.task == "classification" and (y.shape[1] != 1 or (y != np.round(y)).any()):
            found = f"{y.shape[1]} columns" if y.shape[1] != 1 else f"{y[y != np.round(y)][0]}"
            raise InputError(
                f"{self.label}: classes must be whole numbers, one a row, as in "
                f"Observation(labels[:, None]), got {found}; number them, or use task='regression'"
            )


def features_of(message: Categorical | Gaussian) -> np.ndarray:
    """What the estimator sees: class probabilities (N, K) or latent means (N, D)."""
    return np.exp(message.log_prob) if isinstance(message, Categorical) else message.mean


def gaussian_log_likelihood(y: np.ndarray, means: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Log N(y_n; means_k, diag(variance)) up to a constant: (N, T), (K, T), (T,) -> (N, K)."""
    return -0.5 * ((y[:, None] - means) ** 2 / variance).sum(axis=2)


def residual_variance(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean squared residual of each target, at least a millionth of its mean square: (T,)."""
    scale = (y**2).mean(axis=0)
    least = _LEAST * np.where(scale > 0, scale, 1.0)
    return np.maximum(((y - predicted) ** 2).mean(axis=0), least)
