"""Any scikit-learn estimator that learns without targets, as a module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone, is_outlier_detector
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from ...density import MixtureDensity
from ...errors import InputError, NotFittedError
from ...messages import Categorical, Data, Gaussian, Message, Mixture
from ...metrics import scores_of
from ...module import Module
from ...options import check_component, check_n_samples, check_option, check_random_state
from ..common.inputs import all_observed, check_labels, draw_classes, split_columns
from ..mixture.rows import stack


def is_clusterer(estimator: Any) -> bool:
    """Whether it finds clusters without targets, and puts new rows into them."""
    return (
        _learns_alone(estimator)
        and hasattr(estimator, "fit_predict")
        and hasattr(estimator, "predict")
        and not is_outlier_detector(estimator)
    )


def is_transformer(estimator: Any) -> bool:
    """Whether it learns without targets to turn rows, new ones too, into others."""
    return _learns_alone(estimator) and hasattr(estimator, "transform")


def _learns_alone(estimator: Any) -> bool:
    return isinstance(estimator, BaseEstimator) and not get_tags(estimator).target_tags.required


def described(estimator: Any) -> str:
    """How error texts call an estimator, or what was given for one."""
    return type(estimator).__name__ if isinstance(estimator, BaseEstimator) else repr(estimator)


def declared_size(estimator: BaseEstimator) -> int | None:
    """The number of clusters or components it is made to find; None where it says none."""
    final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    for name in ("n_clusters", "n_components"):
        size = getattr(final, name, None)
        if isinstance(size, int | np.integer):
            return int(size)
    return None


def seeded(estimator: BaseEstimator, rng: np.random.Generator) -> BaseEstimator:
    """An unfitted copy, the seeds left open in it and in its parts drawn from `rng`."""
    copy = clone(estimator)
    for name, value in sorted(copy.get_params().items()):
        if name.split("__")[-1] == "random_state" and value is None:
            copy.set_params(**{name: int(rng.integers(2**31))})
    return copy


def ask(label: str, method: Callable, *data: np.ndarray) -> Any:
    """Call a method of an estimator on arrays.

    Raises
    ------
    InputError
        With the module's name, for what the estimator says of its arguments or the arrays.
    """
    try:
        return method(*data)
    except (ValueError, TypeError) as error:
        kind = type(method.__self__).__name__
        raise InputError(f"{label}: {kind}.{method.__name__} failed: {error}") from error


def expected_rows(prior: Message | None, n_rows: int, size: int) -> np.ndarray:
    """Rows (N, size) as the children's message alone has them; 0 where it tells of none."""
    if isinstance(prior, Data):
        return prior.array.reshape(n_rows, size)
    if isinstance(prior, Gaussian):
        return prior.mean
    if isinstance(prior, Mixture):
        return prior.expected().mean
    return np.zeros((n_rows, size))


def is_mixture(estimator: BaseEstimator) -> bool:
    """Whether a fitted clusterer is a Gaussian mixture, with parameters of its own."""
    names = ("weights_", "means_", "covariances_", "covariance_type")
    return all(hasattr(estimator, name) for name in names)


def mixture_of(
    estimator: BaseEstimator, x: np.ndarray, responsibilities: np.ndarray
) -> MixtureDensity:
    """The mixture that a fitted clusterer stands for: x (N, D), responsibilities (N, K).

    Its own if it is one; else the model of k-means, with the clusters' means and one variance for
    all clusters and dimensions. An empty cluster lies at the mean of all rows.
    """
    if is_mixture(estimator):
        parameters = (estimator.weights_, estimator.means_, estimator.covariances_)
        return MixtureDensity(*parameters, estimator.covariance_type)
    counts = responsibilities.sum(axis=0)  # (K,)
    sums = np.where(counts[:, None] > 0, responsibilities.T @ x, x.mean(axis=0))  # (K, D)
    means = sums / np.where(counts > 0, counts, 1)[:, None]
    pairs = zip(responsibilities.T, means, strict=True)
    squares = sum(r @ ((x - mean) ** 2).sum(axis=1) for r, mean in pairs)
    variance = max(squares / x.size, np.finfo(float).eps)
    return MixtureDensity(counts / counts.sum(), means, np.full(len(counts), variance), "spherical")


def one_hot(clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Cluster numbers (N,) as certain probabilities (N, K), K being at least `n_clusters`."""
    return np.eye(max(n_clusters, clusters.max() + 1))[clusters]


def matching_order(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The order (K,) of clusters in which they share most mass with those before.

    Responsibilities (N, K) before and now; if they are of other rows or clusters, the order stays.
    """
    if before.shape != now.shape:
        return np.arange(now.shape[1])
    return linear_sum_assignment(before.T @ now, maximize=True)[1]


class EstimatorModule(Module):
    """Abstract base of SklearnClusterer and SklearnTransformer.

    Fits a copy of an estimator to the rows that all parents saw, side by side.
    """

    takes_from_parents = (Data, Gaussian)

    @property
    def size(self) -> int | None:
        """Number of clusters or latent dimensions; before learning as the estimator says it."""
        return getattr(self, "size_", declared_size(self.estimator))

    def _fitted(self, x: np.ndarray) -> BaseEstimator:
        estimator = seeded(self.estimator, self.rng())
        ask(self.label, estimator.fit, x)
        return estimator

    def _check_learnt(self) -> None:
        if not hasattr(self, "estimator_"):
            raise NotFittedError(f"{self.label} has learnt nothing yet: call update() first")

    def _seen_rows(self, inputs: list[Message]) -> np.ndarray:
        x, seen = stack(inputs).block(), all_observed(inputs)
        if seen is not None and not seen.any():
            raise InputError(
                f"{self.label}: no row was seen by all of its parents, so there is nothing to "
                "learn from"
            )
        return x if seen is None else x[seen]

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        return split_columns(rows, [parent.size for parent in self.parents])


class SklearnClusterer(EstimatorModule):
    """A scikit-learn clusterer (KMeans, BayesianGaussianMixture, Birch) as a module.

    Sends `Categorical` class probabilities up (`predict_proba`, or certainty if there is none) and
    a `Mixture` down: of a mixture its own weights, means and covariances; of anything else the
    means of the rows in each cluster and one variance for all, the mean squared distance to them
    a dimension, which is the model that k-means fits. It learns from its parents' rows side by
    side, means where they are latents. The children's message does not change what it learns, but
    counts in the probabilities sent down. Clusters keep their numbers from update to update.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Never changed: every update fits a copy afresh.
    labels : array-like of shape (N,), optional
        True classes. Only scores are computed from them; they never train.
    name, random_state
        See `serkit.Module`. Seeds that the estimator leaves open are drawn from `random_state`.

    Attributes
    ----------
    estimator_ : scikit-learn estimator
        Fitted.
    order_ : np.ndarray of shape (K,)
        The estimator's number of each cluster.
    size_ : int
        Number of clusters K.
    weights_, means_, covariances_ : np.ndarray
        Shapes (K,), (K, D) and (K, D, D).
    responsibilities_ : np.ndarray
        P(k | row) of the rows learnt from.
    """

    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture

    def __init__(
        self,
        estimator: BaseEstimator,
        *,
        labels: ArrayLike | None = None,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.estimator = estimator
        self.labels = labels

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError unless the estimator is a clusterer and `labels` fit the rows."""
        check_random_state(self, self.random_state)
        check_labels(self.label, self.labels, n_rows)
        if not is_clusterer(self.estimator):
            raise InputError(
                f"{self.label}: {described(self.estimator)} is no clusterer that puts new rows "
                "into its clusters; make another module of it with Sklearn"
            )

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows that all parents saw."""
        x = self._seen_rows(inputs)
        estimator = self._fitted(x)
        found = self._probabilities(estimator, x, declared_size(estimator))
        mixture = mixture_of(estimator, x, found)
        order = matching_order(getattr(self, "responsibilities_", found), found)
        self.estimator_, self.order_, self.size_ = estimator, order, len(order)
        self.weights_, self.means_ = mixture.weights[order], mixture.means[order]
        self.covariances_ = mixture.full_covariances()[order]
        self.responsibilities_ = found[:, order]
        return scores_of(self.labels, self.responsibilities_.argmax(axis=1), all_observed(inputs))

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(k | row) from the row alone: what the children said is left out."""
        self._check_learnt()
        found = self._probabilities(self.estimator_, stack(inputs).block(), self.size_)
        with np.errstate(divide="ignore"):
            log_prob, log_weights = np.log(found[:, self.order_]), np.log(self.weights_)
        own_weights = log_weights if is_mixture(self.estimator_) else None
        return Categorical(log_prob, log_prior=own_weights, observed=all_observed(inputs))

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Mixture]:
        """The mixture with P(k | row), children's prior included: each parent's own dimensions."""
        own = self.forward(inputs)
        told = own if prior is None else own * prior
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights_)
        mixture = Mixture(told.log_prob, self.means_, self.covariances_, log_weights)
        return mixture.split([math.prod(message.shape) for message in inputs])

    def density(self) -> MixtureDensity:
        """The mixture sent down, as a value."""
        self._check_learnt()
        return MixtureDensity(self.weights_, self.means_, self.covariances_)

    def generate(
        self, n_samples: int, component: int | None, random_state: int | None
    ) -> list[np.ndarray]:
        """Draws from the mixture or one component, each parent's own dimensions."""
        density = self.density()
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        seed = self.seed_ if random_state is None else random_state
        if component is None:
            return self._parts(density.sample(n_samples, seed)[0])
        check_component(self, component, self.size_)
        own = np.random.default_rng([seed, component])  # other noise for each component
        return self._parts(density.component(component).sample(n_samples, own)[0])

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Draws of the components that class probabilities (n, K) pick, for each parent."""
        picked, density = draw_classes(values, rng), self.density()
        rows = [density.component(k).sample(1, rng)[0] for k in picked]
        return self._parts(np.concatenate(rows))

    def scores(self) -> dict[str, float]:
        """Accuracy, NMI and ARI of the message last sent against `labels`, if there are any."""
        return scores_of(self.labels, self.clusters())

    def artefacts(self) -> dict[str, np.ndarray]:
        """Cluster numbers, their probabilities and means, under the names that GMM uses."""
        probabilities = np.exp(self.messages_down[0].log_prob)
        return {
            "class_learn.txt": probabilities.argmax(axis=1),
            "Pdz_learn.txt": probabilities,
            "mu_learn.txt": self.means_,
        }

    def _probabilities(
        self, estimator: BaseEstimator, x: np.ndarray, n_clusters: int | None
    ) -> np.ndarray:
        """P(k | row) by the estimator, in its own order of clusters: (N, D) -> (N, K)."""
        if hasattr(estimator, "predict_proba"):
            return ask(self.label, estimator.predict_proba, x)
        return one_hot(ask(self.label, estimator.predict, x), n_clusters or 0)


class SklearnTransformer(EstimatorModule):
    """A scikit-learn transformer (PCA, NMF, FastICA, a pipeline, a UMAP) as a module.

    Sends its latents up, and down the rows it makes of them, if it has an `inverse_transform` and
    the parent takes `Data`. It learns from its parents' rows side by side, means where they are
    latents; what its children say does not change it.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Never changed: every update fits a copy afresh.
    invert : bool
        Whether to use its `inverse_transform`, which takes a UMAP, say, much longer than the rest.
    name, random_state
        See `serkit.Module`. Seeds that the estimator leaves open are drawn from `random_state`.

    Attributes
    ----------
    estimator_ : scikit-learn estimator
        Fitted.
    size_ : int
        Number of latent dimensions.
    """

    takes_from_children = (Gaussian, Mixture)
    sends_up = Gaussian

    def __init__(
        self,
        estimator: BaseEstimator,
        *,
        invert: bool = True,
        name: str | None = None,
        random_state: int | None = None,
    ) -> None:
        super().__init__(name=name, random_state=random_state)
        self.estimator = estimator
        self.invert = invert

    @property
    def sends_down(self) -> type[Message] | None:
        """Data, if latents can be turned back."""
        return Data if self.invert and hasattr(self.estimator, "inverse_transform") else None

    def sends_down_to(self, parent: Module) -> type[Message] | None:
        """Nothing to a parent that takes no Data, such as a VAE."""
        return self.sends_down if Data in parent.takes_from_children else None

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError unless the estimator is a transformer."""
        check_random_state(self, self.random_state)
        check_option(self, "invert", (False, True))
        if not is_transformer(self.estimator):
            raise InputError(
                f"{self.label}: {described(self.estimator)} is no transformer that learns without "
                "targets; make another module of it with Sklearn"
            )

    def learn(self, inputs: list[Message], prior: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows that all parents saw."""
        x = self._seen_rows(inputs)
        estimator = self._fitted(x)
        latents = Gaussian(ask(self.label, estimator.transform, x)).mean
        if self.sends_down is not None:
            self._check_inverse(estimator, latents)
        self.estimator_, self.size_ = estimator, latents.shape[1]
        return {}

    def forward(self, inputs: list[Message]) -> Gaussian:
        """The rows' latents (N, D), without a variance."""
        self._check_learnt()
        latents = ask(self.label, self.estimator_.transform, stack(inputs).block())
        return Gaussian(latents, observed=all_observed(inputs))

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Data | None]:
        """The rows that the latents stand for; those not seen as the children's message has it."""
        kinds = [self.sends_down_to(parent) for parent in self.parents]
        if not any(kinds):
            return [None for _ in inputs]
        latents, seen = self.forward(inputs).mean, all_observed(inputs)
        if seen is not None:
            latents = np.where(seen[:, None], latents, expected_rows(prior, *latents.shape))
        rows = ask(self.label, self.estimator_.inverse_transform, latents)
        parts = split_columns(rows, [math.prod(message.shape) for message in inputs])
        return [
            None if kind is None else Data(part.reshape(len(part), *message.shape))
            for kind, part, message in zip(kinds, parts, inputs, strict=True)
        ]

    def top_down(self, values: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Latents turned back, for each parent."""
        if self.sends_down is None:
            return super().top_down(values, rng)
        return self._parts(ask(self.label, self.estimator_.inverse_transform, values))

    def artefacts(self) -> dict[str, np.ndarray]:
        """The latents."""
        return {"z_learn.txt": self.message_up.mean}

    def _check_inverse(self, estimator: BaseEstimator, latents: np.ndarray) -> None:
        """Raise InputError unless a latent can be turned back; some must be made so that it can."""
        try:
            ask(self.label, estimator.inverse_transform, latents[:1])
        except InputError as error:
            raise InputError(f"{error}; with invert=False it sends no rows down") from None


def Sklearn(estimator: BaseEstimator, **options: Any) -> SklearnClusterer | SklearnTransformer:
    """A scikit-learn estimator as a module: ``Sklearn(KMeans(10))``, ``Sklearn(PCA(20))``.

    Anything in scikit-learn's style will do (a UMAP, say), if it learns without targets and takes
    new rows. What has `fit_predict` and `predict` becomes a `SklearnClusterer`, anything else with
    `transform` a `SklearnTransformer`.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Never changed: every update fits a copy afresh.
    **options
        Of the class it becomes: `name`, `random_state`, and `labels` of a clusterer or `invert` of
        a transformer.

    Raises
    ------
    InputError
        For an estimator that is neither.
    """
    if is_clusterer(estimator):
        return SklearnClusterer(estimator, **options)
    if is_transformer(estimator):
        return SklearnTransformer(estimator, **options)
    raise InputError(
        f"Sklearn: {described(estimator)} can neither put new rows into clusters (predict) nor "
        "turn them into latents (transform), learning without targets; take one that can, such as "
        "KMeans(10) or PCA(20). Those that learn from targets go into Supervised"
    )
