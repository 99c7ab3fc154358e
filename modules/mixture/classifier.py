"""Classification by a Gaussian mixture a class, with a way to answer "none of them"."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import validate_data

from ... import processes
from ...density import MixtureDensity, check_near
from ...errors import InputError, InputTypeError, NotFittedError, NotReadyError
from ...messages import Categorical, Message
from ...module import Part, Posterior, Values, learns, warn_unless_converged
from ...options import Choice, Number, PositiveInt, RandomState, check_argument, in_words
from ...reading import labels_in, rows_in
from ..common.devices import resolve_device
from ..common.inputs import (
    any_observed,
    check_component,
    check_labels,
    checked_classes,
    checked_targets,
    draw_classes,
    log_class_prior,
)
from .base import MixtureModule, messages_down
from .class_mixtures import (
    ByName,
    ClassMixtures,
    fit_mixtures,
    grouped,
    held_out_rows,
    normalised,
    occupied,
    targets_of,
    template_of,
    thresholds,
)
from .parts import posterior_part
from .rows import check_squares, stack
from .statistics import mean_half_trace

Fraction = Annotated[float, Number(at_least=0, below=1)]


@dataclass(eq=False, repr=False)
class GMMClassifier(ClassifierMixin, MixtureModule):
    """Bayes' classifier with one Gaussian mixture a class.

    ``P(c | x) = P(c) p(x | c) / sum_c' P(c') p(x | c')``, each p(x | c) a mixture fitted to the
    rows of class c (Hastie and Tibshirani, 1996, "Discriminant analysis by Gaussian mixtures", but
    every component has its own covariance). Rows unlikely under every class can be rejected.
    A scikit-learn classifier through `fit` and `predict`, and a module: it takes latents or data
    from its parents, learns from `labels`, and sends `Categorical` class probabilities up and all
    its components as one `Mixture` down.

    Parameters
    ----------
    n_components : int
        Components of each class's mixture, at most as many as the class has different rows; those
        that end up without rows are dropped.
    labels : array-like of shape (N,), optional
        The classes to learn from in a graph; `fit` takes its own. The first update starts as `fit`
        does, later ones from the mixtures before. Rows of unknown class (None, NaN, or -1 among
        numbers) are not learnt from, as in `fit`, and are told the others' classes.
    priors : array-like of shape (C,), optional
        P(c) of the sorted classes; their shares of the (weighted) training rows unless given.
    covariance_type, inference, n_init, max_iter, tol, reg_covar, device
        Of each mixture, as in `GMM`.
    mean_precision_prior, degrees_of_freedom_prior, covariance_prior
        The same; m0 is the mean of the class. With "pooled" S0 is nu times the covariance pooled
        within classes: a component of many rows has its own covariance, one of few nears
        nu / (nu + D + 2) of the pooled one, by default half, as components are narrower than
        classes (in the spirit of Friedman, 1989, "Regularized discriminant analysis").
    reject_quantile : float
        Share of each class's held-out rows that its threshold leaves below, in [0, 1).
    validation_fraction : float
        Share of each class's training rows that is held out to set the thresholds. With 0 there
        are none until `fit_thresholds` is called.
    sample_weight : array-like of shape (N,), optional
        Non-negative weights of the training rows, unless `fit` is given others.
    name, random_state
        See `serkit.Module`.

    Attributes
    ----------
    classes_, priors_, n_iter_ : np.ndarray of shape (C,)
    weights_, means_, covariances_ : np.ndarray
        Of all M components, one class after the other: (M,), adding up to 1 within each class,
        (M, D), and (M, D, D), (M, D) or (M,); those of "tied" mixtures are kept as full ones.
    component_classes_ : np.ndarray of shape (M,)
        The class of each component, as an index into `classes_`.
    log_likelihood_ : dict of np.ndarray
        Mean log-likelihood of each class's rows by iteration, the start first.
    converged_ : np.ndarray of bool, shape (C,)
        Whether EM stopped by `tol`; always true of Gibbs sampling.
    thresholds_ : np.ndarray of shape (C,)
        Log-likelihoods in nats, below which a row counts as not of that class.
    n_components_, n_features_in_ : int
        The argument n_components at the fit, and D.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import GMMClassifier
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(6, 1, (60, 2))])
    >>> names = np.repeat(["low", "high"], 60)
    >>> classifier = GMMClassifier(1, validation_fraction=0.25, random_state=0).fit(x, names)
    >>> classifier.predict([[0, 0], [6, 6]])
    array(['low', 'high'], dtype='<U4')
    >>> classifier.predict([[0, 0], [50, 50]], reject=True)
    array(['low', 'none'], dtype='<U4')
    """

    n_components: PositiveInt = 6
    _: KW_ONLY
    priors: ArrayLike | None = None
    n_init: PositiveInt = 1
    covariance_prior: float | ArrayLike | str = "pooled"
    reject_quantile: Fraction = 0.05
    validation_fraction: Fraction = 0.0

    # -- module contract -----------------------------------------------------------------------

    @property
    def n_outputs(self) -> int | None:
        """Number of classes C."""
        return len(self.classes_) if hasattr(self, "classes_") else self._n_labels()

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments; messages of another number of classes are forgotten."""
        super().set_params(**params)
        if "labels" in params and self._n_labels() not in (None, self.n_outputs):
            self._forget_messages()
        return self

    def _n_labels(self) -> int | None:
        """Number of classes in `labels`; None for what can be no labels, as `check` will say."""
        try:
            return None if self.labels is None else len(labels_in(self.labels, self.label).classes)
        except InputError:
            return None

    def check_options(self) -> None:
        """Raise InputError for constructor arguments that no data can suit."""
        super().check_options()
        if isinstance(self.covariance_prior, str) and self.covariance_prior != "pooled":
            raise InputError(
                f"{self.label}: covariance_prior must be 'pooled', a number or a matrix, got "
                f"{self.covariance_prior!r}"
            )

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError for labels, weights or priors that cannot work with `n_rows` rows."""
        if self.frozen:
            return
        resolve_device(self.device, self.label)  # raises for one that is not there
        self._checked_weight(n_rows)
        if self.labels is None:
            raise InputError(f"{self.label}: labels=... is needed, the classes to learn from")
        check_labels(self.label, self.labels, n_rows)
        codes = targets_of(self.label, self.labels, self.sample_weight, n_rows, self.priors).codes
        held_out_rows(codes, self.validation_fraction, np.random.default_rng(0), self.label)

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit to the parents' rows side by side and `labels`, from the last mixtures on."""
        previous = {}
        if getattr(self, "n_components_", None) == self.n_components:
            previous = {name: self.density(name) for name in self.classes_.tolist()}
        rows = stack(inputs)
        x = self._checked_rows(rows.x, reset=True)
        weight = self._checked_weight(int(processes.total(len(x))))
        if processes.any_of(rows.observed is not None):
            complete = rows.observed is None or rows.observed.all(axis=1)  # others do not teach
            weight = weight * processes.gather(np.broadcast_to(complete, len(x)))
        return self._learn(x, self.labels, weight, previous)

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """P(c | row), with and without what the children say, and all components.

        The bound is E_q(z)r(m)[log p(z, m) + log P(c(m) | n) C - log r(m)] over components m,
        where r are the responsibilities sent down, P(c | n) is what the children say, and q(z) has
        the parents' variances.
        """
        rows, mixtures = stack(inputs), self._mixtures()
        self._check_columns(rows, self.n_features_in_)
        log_weighted = mixtures.log_weighted(replace(rows, variances=None))  # (N, M)
        joint = log_weighted + mixtures.log_priors[mixtures.owners]
        up = normalised(mixtures.by_class(joint), mixtures.log_priors)  # (N, C)
        children = checked_classes(self.label, from_children, len(mixtures.priors), "n_classes")
        if children is not None:
            class_prior = log_class_prior(mixtures.log_priors, children)  # (N, C)
            joint = log_weighted + class_prior[:, mixtures.owners]
        components, log_weights = mixtures.components, mixtures.log_weights
        log_prob, observed = normalised(joint, log_weights), any_observed(inputs)  # (N, M)

        def bound() -> float:
            log_evidence = logsumexp(joint, axis=1)
            return float(log_evidence.mean()) - mean_half_trace(rows, components, log_prob)

        return Posterior(
            up=Categorical(up, log_prior=mixtures.log_priors, observed=observed, checked=False),
            down=messages_down(inputs, components, log_weights, log_prob),
            bound=bound,
            classes=Categorical(mixtures.by_class(log_prob), checked=False),
        )

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Draw from all classes, the class of a number, or those that probabilities (n, C) pick."""
        mixtures = self._mixtures()
        if values is not None:
            codes = draw_classes(values, rng)
            rows = np.empty((len(values), self.n_features_in_))
            for code in np.unique(codes):
                drawn = codes == code
                rows[drawn], _ = mixtures.density(int(code)).sample(int(drawn.sum()), rng)
        else:
            if component is not None and component not in range(len(self.classes_)):
                raise InputError(
                    f"{self.label}: component={component} does not exist; here the classes are "
                    f"drawn from, 0 to {len(self.classes_) - 1}"
                )
            rows, _ = mixtures.density(component).sample(n_samples, rng)
        return self._by_parent(rows)

    def parts(self) -> list[Part]:
        """The posterior P(c | row), without what the children say."""
        mixtures = self._mixtures()
        of_components = mixtures.components, mixtures.log_weights, mixtures.owners
        return [posterior_part(self, *of_components, counts_variances=False)]

    def scores(self) -> dict[str, float]:
        """Accuracy of the last posterior on known `labels`, if these are of as many rows."""
        codes = None if self.posterior is None else self.posterior.clusters
        if codes is None or self.labels is None:
            return {}
        labels = labels_in(self.labels, self.label)
        if len(labels.codes) != processes.total(len(codes)):
            return {}
        known = processes.share_of(labels.known, len(codes))
        names = processes.share_of(labels.classes[labels.codes], len(codes))
        right = (self.classes_[codes] == names)[known]
        n_right, n_known = processes.total(np.array([right.sum(), known.sum()], dtype=float))
        return {"accuracy": float(n_right / n_known)}

    # -- scikit-learn classifier ---------------------------------------------------------------

    @learns
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit a mixture to the rows of each class, afresh; returns self.

        Parameters
        ----------
        X : array-like of shape (N, D)
        y : array-like of shape (N,)
            Classes: integers, strings or booleans; None, NaN or the number -1 where unknown.
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
        self.history_ = ()
        weight = self.sample_weight if sample_weight is None else sample_weight
        self.check_options()
        x = self._checked_rows(X, reset=True)
        self.record(self._learn(x[processes.share(len(x))], y, weight, previous={}))
        return self

    @np.errstate(under="ignore")
    def predict(self, X: ArrayLike, *, reject: bool = False) -> np.ndarray:
        """Most probable class of each row: (N, D) -> (N,).

        With ``reject=True`` rows that are less likely under every class than its threshold get
        `none_label` instead (booleans become 0 and 1 then).

        Raises
        ------
        NotFittedError, NotReadyError, InputError
            Before fitting; without thresholds; for rows of another length.
        """
        check_argument(self.label, "reject", reject, Choice(False, True))
        log_likelihood = self.log_likelihood_per_class(X)
        codes = self._mixtures().log_posterior(log_likelihood).argmax(axis=1)
        if not reject:
            return self.classes_[codes]
        outlying = self._outlier_score(log_likelihood) > 0
        classes = self.classes_.astype(int) if self.classes_.dtype.kind in "ub" else self.classes_
        return np.append(classes, self.none_label)[np.where(outlying, -1, codes)]

    @np.errstate(under="ignore")
    def predict_log_proba(self, X: ArrayLike) -> np.ndarray:
        """Log P(c | row): (N, D) -> (N, C)."""
        return self._mixtures().log_posterior(self.log_likelihood_per_class(X))

    @np.errstate(under="ignore")
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """P(c | row), priors included: (N, D) -> (N, C)."""
        return np.exp(self.predict_log_proba(X))

    def log_likelihood_per_class(self, X: ArrayLike) -> np.ndarray:
        """Log p(row | c) in nats, without the priors: (N, D) -> (N, C).

        -inf of a class from which the squared distance is beyond floating point.
        """
        return self._mixtures().log_likelihood(self._checked_rows(X, reset=False))

    @np.errstate(under="ignore")
    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Log p(row) = log sum_c P(c) p(row | c) in nats: (N, D) -> (N,).

        InputError for rows that are beyond floating point from every class.
        """
        log_likelihood = self.log_likelihood_per_class(X)
        check_near(log_likelihood, self.label)
        return logsumexp(log_likelihood + self._mixtures().log_priors, axis=1)

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
        self.check_options()
        log_likelihood = self.log_likelihood_per_class(X)
        labels, weight = checked_targets(self.label, y, sample_weight, len(log_likelihood))
        kept = weight > 0
        y = labels.classes[labels.codes[kept]]
        weight, log_likelihood = weight[kept], log_likelihood[kept]
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
        quantiles = thresholds(log_likelihood, codes, weight, self.reject_quantile)
        if far := self.classes_[~np.isfinite(quantiles)].tolist():
            raise InputError(
                f"{self.label}: thresholds cannot be set on rows beyond floating point from their "
                f"class, as for {far}; check their scale"
            )
        self.thresholds_ = quantiles

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
        return self._mixtures().density(None if label is None else self._code(label))

    def sample(
        self,
        n_samples: int = 1,
        label: Any = None,
        component: int | None = None,
        random_state: RandomState = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from all classes, one class, or one component of a class (a "style").

        Parameters
        ----------
        n_samples : int
        label, component : optional
            One of `classes_`, drawn from the priors unless given, and of its mixture's components.
        random_state : int, np.random.Generator or np.random.RandomState, optional
            Seed of the draw; the module's own unless given, so the same call repeats its draw.

        Returns
        -------
        rows : np.ndarray, shape (n_samples, D)
        labels : np.ndarray, shape (n_samples,)
        """
        if component is not None and label is None:
            raise InputError(f"{self.label}: component={component} of which class? Give a label")
        density = self.density(label)
        seed = self._seed_of_draw(n_samples, random_state)
        if component is not None:
            check_component(self.label, component, density.n_components)
            density = density.component(component)
        if label is None:
            rows, components = density.sample(n_samples, seed)
            return rows, self.classes_[self.component_classes_[components]]
        code = self._code(label)  # in the seed, so that classes differ by more than their shape
        stream = [seed, code] if component is None else [seed, code, component]
        rows, _ = density.sample(n_samples, np.random.default_rng(stream))
        return rows, np.full(n_samples, self.classes_[code])

    def _code(self, label: Any) -> int:
        is_name = isinstance(label, Hashable) and not isinstance(label, torch.Tensor)
        names = self.classes_.tolist() if is_name else []
        codes = [code for code, name in enumerate(names) if name == label]
        if len(codes) != 1:
            raise InputError(
                f"{self.label}: there is no class {in_words(label)}; they are "
                f"{self.classes_.tolist()}"
            )
        return int(codes[0])

    def _mixtures(self) -> ClassMixtures:
        if not hasattr(self, "means_"):
            raise NotFittedError(
                f"{self.label} is not fitted yet: call update() or fit(X, y) first"
            )
        kind = {3: "full", 2: "diag", 1: "spherical"}[self.covariances_.ndim]
        components = MixtureDensity(
            self.weights_, self.means_, self.covariances_, kind, checked=False
        )
        return ClassMixtures(components, self.component_classes_, self.priors_)

    # -- fitting -------------------------------------------------------------------------------

    def _learn(
        self, x: np.ndarray, y: ArrayLike | None, sample_weight: ArrayLike | None, previous: ByName
    ) -> dict[str, Any]:
        """Learn from this process's rows (n, D); targets and weights are those of all, (N,)."""
        place, rng, n_rows = processes.place(len(x)), self.rng(), int(processes.total(len(x)))
        targets = targets_of(self.label, y, sample_weight, n_rows, self.priors)
        names = targets.classes.tolist()
        held_out = held_out_rows(targets.codes, self.validation_fraction, rng, self.label)
        x, before = x[targets.kept[place]], targets.kept[: place.start].sum()
        share = slice(before, before + len(x))  # of the rows kept
        codes, weight, held_out = targets.codes[share], targets.weight[share], held_out[share]
        groups = grouped(x[~held_out], codes[~held_out], weight[~held_out], len(names))
        template = template_of(self, self.n_components, self.n_init, groups)
        fitted = fit_mixtures(groups, names, template, rng, previous)
        mixtures = ClassMixtures.of([*map(occupied, fitted, groups)], targets.priors)
        self.n_components_ = int(self.n_components)
        self.classes_, self.priors_ = targets.classes, targets.priors
        components, self.component_classes_ = mixtures.components, mixtures.owners
        self.weights_, self.means_ = components.weights, components.means
        self.covariances_ = components.covariances
        curves = (mixture.log_likelihood_ for mixture in fitted)
        self.log_likelihood_ = dict(zip(names, curves, strict=True))
        converged_before = bool(np.all(getattr(self, "converged_", True)))
        self.converged_ = np.array([mixture.converged_ for mixture in fitted])
        warn_unless_converged(self, converged_before)
        self.__dict__.pop("thresholds_", None)  # they were of other mixtures
        log_likelihood = mixtures.log_likelihood(x)  # (n, C)
        if self.validation_fraction:
            every = (processes.gather(v[held_out]) for v in (log_likelihood, codes, weight))
            self._set_thresholds(*every)
        of_own_class = log_likelihood[np.arange(len(x)), codes]
        right = mixtures.log_posterior(log_likelihood).argmax(axis=1) == codes
        sums = processes.total(np.array([weight @ of_own_class, weight @ right, weight.sum()]))
        mean_log_likelihood, accuracy = (sums[:2] / sums[2]).tolist()
        return {"log_likelihood": mean_log_likelihood, "accuracy": accuracy}

    def _checked_rows(self, X: ArrayLike, *, reset: bool) -> np.ndarray:
        """Rows as float64 (N, D), by scikit-learn's own checks."""
        try:
            X = X if hasattr(X, "columns") else rows_in(X, self.label)
            rows = validate_data(self, X, dtype=np.float64, reset=reset)
        except InputError:
            raise
        except TypeError as error:
            raise InputTypeError(f"{self.label}: {error}") from None
        except (ValueError, ArithmeticError, RuntimeError) as error:
            raise InputError(f"{self.label}: {error}") from None
        if reset:
            check_squares(self.label, rows)
        return rows
