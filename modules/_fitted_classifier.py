"""What a fitted classifier by mixtures tells of arrays: classes, rejection, densities, draws."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin

from ..density import MixtureDensity
from ..errors import InputError, NotFittedError, NotReadyError
from ..module import Module
from ._class_mixtures import ClassMixtures, thresholds
from ._classifier_options import check_options, validated_rows, validated_targets
from ._options import check_component, check_n_samples, check_random_state


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
