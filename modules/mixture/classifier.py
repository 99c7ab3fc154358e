"""Classification by a Gaussian mixture a class, with a way to answer "none of them"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from ... import processes
from ...density import MixtureDensity
from ...errors import InputError, NotFittedError, NotReadyError
from ...messages import Categorical, Data, Gaussian, Message, Mixture
from ...module import Module
from ...options import (
    as_numbers,
    check_component,
    check_count,
    check_n_samples,
    check_number,
    check_random_state,
)
from ..common.inputs import any_observed, split_columns
from .class_mixtures import (
    ClassMixtures,
    Group,
    fit_mixtures,
    grouped,
    held_out_rows,
    normalised,
    occupied,
    pooled_covariance,
    thresholds,
)
from .em import draw_classes, neutral_bound
from .gmm import GMM, check_fit_options, check_labels, check_sample_weight, check_squares
from .rows import stack
from .statistics import bound, log_class_prior


def check_options(module: Any) -> None:
    """Raise InputError for arguments of a classifier that no data can suit."""
    check_fit_options(module)
    check_count(module, "n_init")
    for name in ("reject_quantile", "validation_fraction"):
        check_number(module, name, at_least=0)
        if getattr(module, name) >= 1:
            raise InputError(f"{module.label}: {name} must be below 1, got {getattr(module, name)}")
    if isinstance(module.covariance_prior, str) and module.covariance_prior != "pooled":
        raise InputError(
            f"{module.label}: covariance_prior must be 'pooled', a number or a matrix, got "
            f"{module.covariance_prior!r}"
        )


def validated_rows(module: Any, x: ArrayLike, *, reset: bool) -> np.ndarray:
    """Rows as float64 (N, D), by scikit-learn's own checks."""
    try:
        rows = validate_data(module, x, dtype=np.float64, reset=reset)
    except ValueError as error:
        raise InputError(f"{module.label}: {error}") from None
    if reset:
        check_squares(module, rows)
    return rows


def validated_targets(
    module: Any, y: ArrayLike, sample_weight: ArrayLike | None, n_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Classes and weights of rows, (n_rows,) each."""
    if y is None:
        raise InputError(f"{module.label} requires y to be passed, but the target y is None")
    try:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        rows = np.empty((n_rows, 1))
        weight = _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{module.label}: {error}") from None
    if len(y) != n_rows:
        raise InputError(f"{module.label}: y has {len(y)} entries for {n_rows} rows")
    if not weight.any():
        raise InputError(f"{module.label}: every sample_weight is 0")
    return y, weight


class Targets(NamedTuple):
    """What there is to learn: classes (C,), and of the rows kept codes (n,) and weights (n,).

    `kept` (N,) leaves out rows of weight 0; `priors` (C,) are P(c).
    """

    kept: np.ndarray
    classes: np.ndarray
    codes: np.ndarray
    weight: np.ndarray
    priors: np.ndarray


def make_targets(
    module: Any, y: ArrayLike, sample_weight: ArrayLike | None, n_rows: int
) -> Targets:
    """Checked classes and weights of `n_rows` rows; the priors given, else the classes' shares."""
    y, weight = validated_targets(module, y, sample_weight, n_rows)
    kept = weight > 0
    try:
        classes, codes = np.unique(y[kept], return_inverse=True)
    except TypeError as error:
        raise InputError(f"{module.label}: classes must be of one type: {error}") from None
    shares = np.bincount(codes, weights=weight[kept]) / weight.sum()
    return Targets(kept, classes, codes, weight[kept], _priors(module, shares))


def make_template(module: Any, groups: Sequence[Group]) -> GMM:
    """The mixture to fit to each class's rows."""
    own = module.get_params(deep=False)
    shared = {name: own[name] for name in GMM(1).get_params(deep=False) if name in own}
    shared |= {"labels": None, "name": module.label}
    if isinstance(module.covariance_prior, str):
        d, nu = groups[0].rows.shape[1], module.degrees_of_freedom_prior
        shared["covariance_prior"] = (d + 2 if nu is None else nu) * pooled_covariance(groups)
    return GMM(**shared)


def _priors(module: Any, shares: np.ndarray) -> np.ndarray:
    if module.priors is None:
        return shares
    priors = as_numbers(module, "priors")
    if priors.shape != shares.shape or priors.min() < 0 or abs(priors.sum() - 1) > 1e-6:
        raise InputError(
            f"{module.label}: priors must be {len(shares)} probabilities, one a class, that add up "
            f"to 1, got {module.priors!r:.60}"
        )
    return priors


class FittedClassifier(ClassifierMixin, Module):
    """Abstract base of GMMClassifier; see there for parameters and attributes."""

    def predict(self, X: ArrayLike, *, reject: bool = False) -> np.ndarray:
        """Most probable class of each row: (N, D) -> (N,).

        With ``reject=True`` rows that are less likely under every class than its threshold get
        `none_label` instead (booleans become 0 and 1 then).

        Raises
        ------
        NotFittedError, NotReadyError, InputError
            Before fitting; without thresholds; for rows of another length.
        """
        log_likelihood = self.log_likelihood_per_class(X)
        found = self._mixtures().log_posterior(log_likelihood).argmax(axis=1)
        if not reject:
            return self.classes_[found]
        outlying = self._outlier_score(log_likelihood) > 0
        classes = self.classes_.astype(int) if self.classes_.dtype.kind in "ub" else self.classes_
        return np.append(classes, self.none_label)[np.where(outlying, -1, found)]

    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Log P(c | row): (N, D) -> (N, C)."""
        return self._mixtures().log_posterior(self.log_likelihood_per_class(X))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """P(c | row), priors included: (N, D) -> (N, C)."""
        return np.exp(self.predict_log_proba(X))

    def log_likelihood_per_class(self, X: ArrayLike) -> np.ndarray:
        """Log p(row | c) in nats, without the priors: (N, D) -> (N, C)."""
        mixtures = self._mixtures()
        return mixtures.log_likelihood(validated_rows(self, X, reset=False))

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Log p(row) = log sum_c P(c) p(row | c) in nats: (N, D) -> (N,)."""
        return logsumexp(self.log_likelihood_per_class(X) + self._mixtures().log_priors, axis=1)

    # -- rejection -----------------------------------------------------------------------------

    def fit_thresholds(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Set each class's threshold so that `reject_quantile` of its rows lie below; returns self.

        A later fit or update removes the thresholds, as they belong to these mixtures.

        Parameters
        ----------
        X, y, sample_weight
            Rows held out of training, some of every class.

        Raises
        ------
        InputError
            For unknown classes, or classes without a row.
        """
        check_options(self)
        log_likelihood = self.log_likelihood_per_class(X)
        y, weight = validated_targets(self, y, sample_weight, len(log_likelihood))
        kept = weight > 0
        y, weight, log_likelihood = y[kept], weight[kept], log_likelihood[kept]
        unknown, missing = np.setdiff1d(y, self.classes_), np.setdiff1d(self.classes_, y)
        if len(unknown) or len(missing):
            raise InputError(
                f"{self.label}: thresholds need rows of every class it was fitted to and of no "
                f"other; missing {missing.tolist()}, unknown {unknown.tolist()}"
            )
        self._set_thresholds(log_likelihood, np.searchsorted(self.classes_, y), weight)
        return self

    def outlier_score(self, X: ArrayLike) -> np.ndarray:
        """How far each row is from being accepted, in nats: (N, D) -> (N,).

        ``min_c (threshold_c - log p(row | c))``; rows above 0 are those that
        ``predict(reject=True)`` rejects.

        Raises
        ------
        NotReadyError
            Without thresholds.
        """
        return self._outlier_score(self.log_likelihood_per_class(X))

    def _set_thresholds(
        self, log_likelihood: np.ndarray, codes: np.ndarray, weight: np.ndarray
    ) -> None:
        found = thresholds(log_likelihood, codes, weight, self.reject_quantile)
        if not np.isfinite(found).all():
            raise InputError(
                f"{self.label}: thresholds cannot be set on rows beyond floating point from their "
                f"class, as for {self.classes_[~np.isfinite(found)].tolist()}; check their scale"
            )
        self.thresholds_ = found

    def _outlier_score(self, log_likelihood: np.ndarray) -> np.ndarray:
        if not hasattr(self, "thresholds_"):
            raise NotReadyError(
                f"{self.label} has no thresholds to reject by: call fit_thresholds(X, y) with rows "
                "held out of training, or set validation_fraction before fitting"
            )
        return (self.thresholds_ - log_likelihood).min(axis=1)

    @property
    def n_iter_(self) -> np.ndarray:
        """Iterations of each class's mixture, (C,), at least 1."""
        self._mixtures()
        return np.array([max(len(c) - 1, 1) for c in self.log_likelihood_.values()])

    @property
    def none_label(self) -> Any:
        """What rejected rows are called: -1, or less if that is a class; "none" among strings."""
        self._mixtures()
        if self.classes_.dtype.kind in "USO":
            return "none" if "none" not in self.classes_ else "none of the classes"
        return min(int(self.classes_.min()), 0) - 1

    # -- density -------------------------------------------------------------------------------

    def density(self, label: Any = None) -> MixtureDensity:
        """The mixture p(x | c) of one class, or without a label p(x) = sum_c P(c) p(x | c).

        Raises
        ------
        NotFittedError, InputError
            Before fitting; for a class that does not exist.
        """
        mixtures = self._mixtures()
        return mixtures.density(None if label is None else self._code(label))

    def sample(
        self,
        n_samples: int = 1,
        label: Any = None,
        component: int | None = None,
        random_state: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from all classes, one class, or one component of a class (a "style").

        Parameters
        ----------
        n_samples : int
        label : optional
            One of `classes_`; drawn from the priors unless given.
        component : int, optional
            Of that class's mixture.
        random_state : int, optional
            Seed of the draw; the module's own unless given, so the same call repeats its draw.

        Returns
        -------
        rows : np.ndarray, shape (n_samples, D)
        labels : np.ndarray, shape (n_samples,)
        """
        if component is not None and label is None:
            raise InputError(f"{self.label}: component={component} of which class? Give a label")
        density = self.density(label)
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        if component is not None:
            check_component(self, component, density.n_components)
            density = density.component(component)
        seed = self.seed_ if random_state is None else random_state
        if label is None:
            rows, components = density.sample(n_samples, seed)
            return rows, self.classes_[self.component_classes_[components]]
        code = self._code(label)  # of the seed too, so that classes differ by more than their shape
        stream = [seed, code] if component is None else [seed, code, component]
        rows, _ = density.sample(n_samples, np.random.default_rng(stream))
        return rows, np.full(n_samples, self.classes_[code])

    def _code(self, label: Any) -> int:
        found = np.flatnonzero(self.classes_ == label) if np.ndim(label) == 0 else []
        if len(found) != 1:
            raise InputError(
                f"{self.label}: there is no class {label!r}; they are {self.classes_.tolist()}"
            )
        return int(found[0])

    def _mixtures(self) -> ClassMixtures:
        if not hasattr(self, "means_"):
            raise NotFittedError(
                f"{self.label} is not fitted yet: call update() or fit(X, y) first"
            )
        kind = "full" if self.covariances_.ndim == 3 else self.covariance_type
        components = MixtureDensity(self.weights_, self.means_, self.covariances_, kind)
        return ClassMixtures(components, self.component_classes_, self.priors_)


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

    takes_from_parents = (Data, Gaussian)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture
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
            observed=any_observed(inputs),
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
        return self._mixtures().by_class(self.messages_down[0].log_prob).argmax(axis=1)

    def scores(self) -> dict[str, float]:
        """Accuracy of the message last sent, if `labels` are of as many rows."""
        found = self.clusters()
        if self.labels is None or len(self.labels) != processes.total(len(found)):
            return {}
        right = self.classes_[found] == processes.share_of(self.labels, len(found))
        return {"accuracy": processes.mean(float(right.mean()), len(found))}

    def artefacts(self) -> dict[str, np.ndarray]:
        """Class numbers, their probabilities, and the components' means and classes."""
        log_prob = self._mixtures().by_class(self.messages_down[0].log_prob)
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
        part, rng = processes.place(len(x)), self.rng()
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
