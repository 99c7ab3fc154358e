"""Targets as one more modality: a classifier or regressor on another module's message."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, cast

import numpy as np
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from torch import nn

from ...errors import GraphError, InputError
from ...messages import Categorical, Data, Gaussian, Message
from ...module import Module, Node, Posterior
from ...options import Choice
from ..common.inputs import flat
from ..nets.estimators import NetClassifier, NetRegressor, SupervisedNet
from .sklearn import ask, described, fitted_copy, learnt

_LEAST = 1e-6


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

    takes_from_parents = (Categorical, Gaussian, Data)
    sends_down = Categorical

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
        self._check_estimator()
        if inputs[1] is not None:
            self._check_targets(flat(inputs[1]))

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows whose target is known."""
        known = inputs[0].is_observed & self._known(inputs[1])
        x, y = features_of(inputs[0])[known], flat(inputs[1])[known]
        if len(np.unique(y, axis=0)) < 2:
            raise InputError(
                f"{self.label}: expected rows with two different targets or more to learn from, "
                f"got {len(y)} known targets: {np.unique(y)}"
            )
        targets = y[:, 0] if y.shape[1] == 1 else y
        estimator = fitted_copy(self, self._template(), x, targets)
        predicted = self._predicted(estimator, x, y.shape[1])
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
            known = self._known(targets)
            log_prob = log_softmax(
                self._log_likelihood(source.shape[0], y, known), axis=1
            )  # (N, K)
            likelihoods = Categorical(log_prob, observed=known, checked=False)
        return Posterior(down=(likelihoods, Data(predicted.reshape(-1, *targets.shape))))

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

    def _known(self, targets: Message) -> np.ndarray:
        """Rows whose target is known, (N,) of bool: of a classification all but -1."""
        if self.task == "regression":
            return targets.is_observed
        return targets.is_observed & (flat(targets)[:, 0] != -1)

    def _template(self) -> BaseEstimator:
        """The estimator to fit a copy of."""
        classifies = self.task == "classification"
        if self.estimator is None:
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
        classes = estimator.classes_
        unknown = np.setdiff1d(y[known, 0], classes)
        if len(unknown):
            raise InputError(
                f"{self.label}: targets {unknown.tolist()} were not among those learnt, "
                f"{classes.tolist()}; mark such rows as not observed"
            )
        codes = np.searchsorted(classes, y[:, 0]).clip(max=len(classes) - 1)
        return np.log(np.maximum(probabilities, _LEAST)).T[codes]

    def _predicted(self, estimator: Any, x: np.ndarray, n_targets: int) -> np.ndarray:
        """The estimator's targets of rows x, (N, T)."""
        return np.reshape(ask(self.label, estimator.predict, x), (len(x), n_targets))

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
