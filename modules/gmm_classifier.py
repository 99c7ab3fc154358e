"""Classification by a Gaussian mixture a class, with a way to answer "none of them"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import processes
from ..density import MixtureDensity
from ..errors import InputError
from ..messages import Categorical, Data, Gaussian, Message, Mixture
from ._class_mixtures import (
    ClassMixtures,
    fit_mixtures,
    grouped,
    held_out_rows,
    normalised,
    occupied,
)
from ._classifier_options import (
    check_options,
    make_targets,
    make_template,
    validated_rows,
)
from ._em import draw_classes, neutral_bound
from ._fitted_classifier import FittedClassifier
from ._mixture_options import check_labels, check_sample_weight
from ._posterior import bound, log_class_prior
from ._rows import any_seen, split_columns, stack


class GMMClassifier(FittedClassifier):
    """Bayes' classifier with one Gaussian mixture a class.

    ``P(c | x) = P(c) p(x | c) / sum_c' P(c') p(x | c')``, each p(x | c) a mixture fitted to the
    rows of class c (Hastie and Tibshirani, 1996, "Discriminant analysis by Gaussian mixtures",
    with covariances of its own for every component). A row that is unlikely under every class can
    be rejected. A scikit-learn classifier through `fit` and `predict`, and a module: it takes
    latents or data from its parents, learns from `labels`, and sends `Categorical` class
    probabilities up and all its components as one `Mixture` down.

    Parameters
    ----------
    n_components : int
        Components of each class's mixture, at most as many as the class has different rows; those
        that end up without rows are dropped.
    labels : array-like of shape (N,), optional
        The classes to learn from when the module is updated in a graph; `fit` takes its own. The
        first update starts as `fit` does, later ones from the mixtures before.
    priors : array-like of shape (C,), optional
        P(c), in the order of the sorted classes; the classes' shares of the (weighted) training
        rows unless given.
    covariance_type, inference, n_init, max_iter, tol, reg_covar
        Of each mixture, as in `GMM`.
    mean_precision_prior, degrees_of_freedom_prior, covariance_prior
        The same; m0 is the mean of the class. With "pooled" S0 is nu times the covariance pooled
        within classes, whatever the scale of the data: a component of many rows has its own
        covariance, one of few nears nu / (nu + D + 2) of the pooled one, by default half, as
        components are narrower than classes (in the spirit of Friedman, 1989, "Regularized
        discriminant analysis").
    reject_quantile : float
        Share of each class's held-out rows that its threshold leaves below, in [0, 1).
    validation_fraction : float
        Share of the training rows of each class that is held out to set the thresholds. With 0
        there are none until `fit_thresholds` is called.
    sample_weight : array-like of shape (N,), optional
        Non-negative weights of the training rows, unless `fit` is given others.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    classes_ : np.ndarray of shape (C,)
    priors_ : np.ndarray of shape (C,)
    weights_, means_, covariances_ : np.ndarray
        Of all M components, one class after the other: (M,), adding up to 1 within each class,
        (M, D), and (M, D, D), (M, D) or (M,); those of "tied" mixtures are kept as full ones.
    component_classes_ : np.ndarray of shape (M,)
        The class of each component, as an index into `classes_`.
    log_likelihood_ : dict of np.ndarray
        Mean log-likelihood of each class's rows by iteration, the start first.
    n_iter_ : np.ndarray of shape (C,)
    thresholds_ : np.ndarray of shape (C,)
        Log-likelihoods in nats, below which a row counts as not of that class.
    n_features_in_ : int
    """

    accepts_forward = (Data, Gaussian)
    accepts_backward = (Categorical,)
    forward_kind = Categorical
    backward_kind = Mixture
    learns_from_shares = True

    def __init__(
        self,
        n_components: int = 6,
        *,
        labels: ArrayLike | None = None,
        priors: ArrayLike | None = None,
        covariance_type: str = "full",
        inference: str = "map",
        n_init: int = 1,
        max_iter: int = 200,
        tol: float = 1e-3,
        mean_precision_prior: float = 1.0,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: float | ArrayLike | str = "pooled",
        reg_covar: float = 1e-6,
        reject_quantile: float = 0.05,
        validation_fraction: float = 0.0,
        sample_weight: ArrayLike | None = None,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.n_components = n_components
        self.labels = labels
        self.priors = priors
        self.covariance_type = covariance_type
        self.inference = inference
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.mean_precision_prior = mean_precision_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.reg_covar = reg_covar
        self.reject_quantile = reject_quantile
        self.validation_fraction = validation_fraction
        self.sample_weight = sample_weight

    # -- scikit-learn classifier ---------------------------------------------------------------

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> GMMClassifier:
        """Fit a mixture to the rows of each class, afresh; returns self.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : array-like of shape (N,)
            Classes: integers, strings or booleans.
        sample_weight : array-like of shape (N,), optional
            Non-negative; rows of weight 0 count as not there.

        Raises
        ------
        InputError
            For NaN, lengths that differ, arguments or weights that cannot work; what was learnt
            before is kept.
        TrainingError
            If a covariance matrix is not positive definite (``inference="ml"``).
        """
        with self._kept_on_error():
            self.history_ = ()
            given = self.sample_weight if sample_weight is None else sample_weight
            check_options(self)
            x = validated_rows(self, X, reset=True)
            self.record(self._learn(x[processes.share(len(x))], y, given, previous={}))
        return self

    # -- module contract -----------------------------------------------------------------------

    @property
    def size(self) -> int | None:
        """Number of classes C."""
        if hasattr(self, "classes_"):
            return len(self.classes_)
        return None if self.labels is None else len(set(np.asarray(self.labels).tolist()))

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for arguments that cannot work with `n_rows` rows."""
        check_options(self)
        if self.frozen:
            return
        check_sample_weight(self, n_rows)
        if self.labels is None:
            raise InputError(f"{self.label}: labels=... is needed, the classes to learn from")
        check_labels(self, n_rows)
        codes = make_targets(self, self.labels, self.sample_weight, n_rows).codes
        held_out_rows(codes, self.validation_fraction, np.random.default_rng(0), self.label)

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit to the parents' rows side by side and `labels`, from the last mixtures on."""
        with self._kept_on_error():
            names = self.classes_.tolist() if hasattr(self, "classes_") else []
            previous = {name: self.density(name) for name in names}
            rows = stack(inputs)
            x = validated_rows(self, rows.block(), reset=True)
            weight = check_sample_weight(self, int(processes.total(len(x))))
            if processes.any_of(rows.seen is not None):
                complete = rows.seen is None or rows.seen.all(axis=1)  # those that teach
                weight = weight * processes.gather(np.broadcast_to(complete, len(x)))
            return self._learn(x, self.labels, weight, previous)

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(c | row) from the row alone: what the children said is left out."""
        mixtures = self._mixtures()
        joint = mixtures.by_class(self._log_joint(inputs))
        return Categorical(
            normalised(joint, mixtures.log_priors),
            log_prior=mixtures.log_priors,
            observed=any_seen(inputs),
        )

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Mixture]:
        """All components with P(component | row), children's prior included."""
        components, log_weights = self._mixtures().components, self._mixtures().log_weights
        mixture = Mixture(
            normalised(self._log_joint(inputs, prior), log_weights),
            components.means,
            components.full_covariances(),
            log_weights,
        )
        return mixture.split([math.prod(message.shape) for message in inputs])

    def objective(self, inputs: list[Message], prior: Message | None) -> float:
        """E_q(z)r(m)[log p(z, m) + log P(c(m) | n) C - log r(m)] over components, nats a row.

        The responsibilities r are those that `backward` sends; before the mixtures have learnt,
        the neutral E_q(z)[log N(z; 0, I)].
        """
        if not hasattr(self, "means_"):
            return neutral_bound(stack(inputs))
        log_r = normalised(self._log_joint(inputs, prior), self._mixtures().log_weights)
        return bound(self._log_joint(inputs, prior, expected=True), log_r)

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Draws from all classes, or from the class of that number; each parent's dimensions."""
        if component is not None and component not in range(len(self.classes_)):
            raise InputError(
                f"{self.label}: component={component} does not exist; here the classes are drawn "
                f"from, 0 to {len(self.classes_) - 1}"
            )
        label = None if component is None else self.classes_[component]
        rows, _ = self.sample(n_samples, label, None, random_state)
        return split_columns(rows, [parent.size for parent in self.parents])

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Draws of the classes that class probabilities (n, C) pick, for each parent."""
        rows = np.empty((len(values), self.n_features_in_))
        picked = draw_classes(values, rng)
        for code in np.unique(picked):
            own = picked == code
            rows[own], _ = self._mixtures().density(int(code)).sample(int(own.sum()), rng)
        return split_columns(rows, [parent.size for parent in self.parents])

    def clusters(self) -> np.ndarray:
        """Most probable class number of each row, by the message last sent."""
        return self._mixtures().by_class(self.backward_messages[0].log_prob).argmax(axis=1)

    def scores(self) -> dict[str, float]:
        """Accuracy of the message last sent, if `labels` are of as many rows."""
        found = self.clusters()
        if self.labels is None or len(self.labels) != processes.total(len(found)):
            return {}
        right = self.classes_[found] == processes.own(self.labels, len(found))
        return {"accuracy": processes.mean(float(right.mean()), len(found))}

    def artefacts(self) -> dict[str, np.ndarray]:
        """Class numbers, their probabilities, and the components' means and classes."""
        log_prob = self._mixtures().by_class(self.backward_messages[0].log_prob)
        return {
            "class_learn.txt": log_prob.argmax(axis=1),
            "Pdz_learn.txt": np.exp(log_prob),
            "mu_learn.txt": self.means_,
            "component_classes.txt": self.component_classes_,
        }

    def _log_joint(
        self,
        inputs: list[Message],
        prior: Message | None = None,
        *,
        expected: bool = False,
    ) -> np.ndarray:
        """Log p(row | component) and the component's log prior, (N, M).

        Of the rows' means, or expected over the variances sent with them.
        """
        rows, mixtures = stack(inputs), self._mixtures()
        if rows.n_columns != self.n_features_in_:
            raise InputError(
                f"{self.label}: fitted on {self.n_features_in_} columns, got {rows.n_columns}"
            )
        log_density = mixtures.log_weighted(rows if expected else replace(rows, variances=None))
        class_prior = log_class_prior(mixtures.log_priors, prior)  # (1, C) or (N, C)
        return log_density + class_prior[..., self.component_classes_]

    # -- fitting -------------------------------------------------------------------------------

    def _learn(
        self,
        x: np.ndarray,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        previous: Mapping[Any, MixtureDensity],
    ) -> dict[str, Any]:
        """Learn from this process's rows (n, D); targets and weights are those of all, (N,)."""
        part, rng = processes.part(len(x)), self.rng()
        n_rows = int(processes.total(len(x)))
        kept, classes, codes, weight, priors = make_targets(self, y, sample_weight, n_rows)
        held_out = held_out_rows(codes, self.validation_fraction, rng, self.label)
        x, before = x[kept[part]], kept[: part.start].sum()
        own = slice(before, before + len(x))  # of the rows kept
        codes, weight, held_out = codes[own], weight[own], held_out[own]
        names = classes.tolist()
        groups = grouped(x[~held_out], codes[~held_out], weight[~held_out], len(names))
        template = make_template(self, groups)
        fitted = fit_mixtures(groups, names, template, rng, previous)
        densities = [occupied(*both) for both in zip(fitted, groups, strict=True)]
        mixtures = ClassMixtures.of(densities, priors)
        self.classes_, self.priors_ = classes, priors
        self.weights_, self.means_ = mixtures.components.weights, mixtures.components.means
        self.covariances_, self.component_classes_ = (
            mixtures.components.covariances,
            mixtures.owners,
        )
        curves = [mixture.log_likelihood_ for mixture in fitted]
        self.log_likelihood_ = dict(zip(names, curves, strict=True))
        vars(self).pop("thresholds_", None)  # they were of other mixtures
        log_likelihood = mixtures.log_likelihood(x)
        if self.validation_fraction:
            found = log_likelihood, codes, weight
            self._set_thresholds(*(processes.gather(values[held_out]) for values in found))
        own_class = log_likelihood[np.arange(len(x)), codes]
        right = mixtures.log_posterior(log_likelihood).argmax(axis=1) == codes
        sums = processes.total(np.array([weight @ own_class, weight @ right, weight.sum()]))
        log_likelihood, accuracy = (sums[:2] / sums[2]).tolist()
        return {"log_likelihood": log_likelihood, "accuracy": accuracy}

    @contextmanager
    def _kept_on_error(self) -> Iterator[None]:
        """Whatever goes wrong, the attributes are as before."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
