"""Any scikit-learn estimator that learns without targets, as a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator, clone, is_outlier_detector
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from ...density import MixtureDensity
from ...errors import InputError, NotFittedError
from ...messages import Categorical, Data, Deferred, Gaussian, Message, Mixture
from ...metrics import scores_of
from ...module import Module, Node, Posterior
from ...options import Flag
from ..common.inputs import (
    all_observed,
    check_component,
    check_labels,
    draw_classes,
    flat_rows,
    split_columns,
    with_children,
)


def Sklearn(estimator: BaseEstimator, **options: Any) -> SklearnClusterer | SklearnTransformer:
    """Make a module of a scikit-learn estimator: ``Sklearn(KMeans(10))``, ``Sklearn(PCA(20))``.

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

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.decomposition import PCA
    >>> from serkit.modules import Sklearn
    >>> Sklearn(KMeans(2), random_state=0)
    SklearnClusterer(estimator=KMeans(n_clusters=2), random_state=0)
    >>> Sklearn(PCA(3), name="pca").n_outputs
    3
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


@dataclass(eq=False, repr=False)
class SklearnClusterer(Module):
    """A scikit-learn clusterer (KMeans, BayesianGaussianMixture, Birch) as a module.

    Sends `Categorical` class probabilities up (`predict_proba`, or certainty if there is none) and
    a `Mixture` down: of a mixture its own weights, means and covariances; of anything else the
    means of the rows in each cluster and one variance for all, the mean squared distance to them
    per dimension, which is the model that k-means fits. It learns from its parents' rows side by
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
    n_outputs_ : int
        Number of clusters K.
    weights_, means_, covariances_ : np.ndarray
        Shapes (K,), (K, D) and (K, D, D).
    responsibilities_ : np.ndarray
        P(k | row) of the rows learnt from.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from serkit import Observation
    >>> from serkit.modules import SklearnClusterer
    >>> rows = Observation([[0.0], [1.0], [9.0], [10.0]])
    >>> kmeans = SklearnClusterer(KMeans(2), labels=["low", "low", "high", "high"], random_state=0)
    >>> sorted(kmeans.connect(rows).update().means_.ravel().tolist())
    [0.5, 9.5]
    >>> kmeans.scores()["accuracy"]
    1.0
    """

    estimator: BaseEstimator
    _: KW_ONLY
    labels: ArrayLike | None = None

    takes_from_parents = (Data, Gaussian)
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture

    @property
    def n_outputs(self) -> int | None:
        """Number of clusters K; before learning as the estimator says it."""
        return n_outputs_of(self)

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError unless the estimator is a clusterer and `labels` fit the rows."""
        check_labels(self.label, self.labels, n_rows)
        if not is_clusterer(self.estimator):
            raise InputError(
                f"{self.label}: estimator {described(self.estimator)} is no clusterer that puts "
                "new rows into its clusters; make another module of it with Sklearn"
            )

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows that all parents observed."""
        x = complete_rows(self.label, inputs)
        estimator = fitted_copy(self.label, self.estimator, self.rng(), x)
        r = cluster_probabilities(self.label, estimator, x, declared_size(estimator) or 0)  # (N, K)
        mixture = mixture_of(estimator, x, r)
        order = matching_order(getattr(self, "responsibilities_", r), r)
        self.estimator_, self.order_, self.n_outputs_ = estimator, order, len(order)
        self.weights_, self.means_ = mixture.weights[order], mixture.means[order]
        self.covariances_ = mixture.full_covariances()[order]
        self.responsibilities_ = r[:, order]
        return scores_of(self.labels, self.responsibilities_.argmax(axis=1), all_observed(inputs))

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send P(k | row) up, and the mixture, with what the children say of its classes, down."""
        estimator = learnt(self)
        r = cluster_probabilities(self.label, estimator, flat_rows(inputs), len(self.order_))
        with np.errstate(divide="ignore"):  # probabilities and weights may be 0
            log_prob, log_weights = np.log(r[:, self.order_]), np.log(self.weights_)
        log_prior = log_weights if is_mixture(estimator) else None
        # checked, since the probabilities are of foreign code
        up = Categorical(log_prob, log_prior=log_prior, observed=all_observed(inputs))
        classes = with_children(up, from_children)
        mixture = Mixture(
            classes.log_prob, self.means_, self.covariances_, log_weights, checked=False
        )
        down = mixture.split([math.prod(message.shape) for message in inputs])
        return Posterior(up, tuple(down), classes=classes)

    def density(self) -> MixtureDensity:
        """The mixture sent down, as a value."""
        learnt(self)
        return MixtureDensity(self.weights_, self.means_, self.covariances_)

    def generate(
        self,
        n_samples: int,
        rng: np.random.Generator,
        values: np.ndarray | None = None,
        component: int | None = None,
    ) -> list[np.ndarray]:
        """Draws of the components that class probabilities pick, of one, or of the mixture."""
        density = self.density()
        if values is not None:
            picked = draw_classes(values, rng)  # (n,)
            rows = np.concatenate([density.component(k).sample(1, rng)[0] for k in picked])
        else:
            if component is not None:
                check_component(self.label, component, density.n_components)
                density = density.component(component)
            rows = density.sample(n_samples, rng)[0]
        return split_columns(rows, [parent.n_outputs or 0 for parent in self.parents])


@dataclass(eq=False, repr=False)
class SklearnTransformer(Module):
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
    n_outputs_ : int
        Number of latent dimensions.
    row_shapes_ : list of tuple of int
        Shapes of the parents' rows.

    Examples
    --------
    >>> from sklearn.decomposition import PCA
    >>> from serkit import Observation
    >>> from serkit.modules import SklearnTransformer
    >>> rows = Observation([[1.0, 3.0], [2.0, 5.0], [3.0, 7.0]])
    >>> pca = SklearnTransformer(PCA(1), random_state=0).connect(rows).update()
    >>> pca.message_up.mean.shape
    (3, 1)
    >>> pca.messages_down[0].array.round(6)  # the rows lie on a line
    array([[1., 3.],
           [2., 5.],
           [3., 7.]])
    """

    estimator: BaseEstimator
    _: KW_ONLY
    invert: Flag = True

    takes_from_parents = (Data, Gaussian)
    takes_from_children = (Gaussian, Mixture)
    sends_up = Gaussian

    @property
    def n_outputs(self) -> int | None:
        """Number of latent dimensions; before learning as the estimator says it."""
        return n_outputs_of(self)

    @property
    def _inverts(self) -> bool:
        return self.invert and hasattr(self.estimator, "inverse_transform")

    def sends_down_to(self, parent: Node) -> type[Message] | None:
        """Data, if latents can be turned back and the parent, unlike a VAE, takes it."""
        return Data if self._inverts and Data in parent.takes_from_children else None

    def check(self, inputs: list[Message | None], n_rows: int) -> None:
        """Raise InputError unless the estimator is a transformer."""
        if not is_transformer(self.estimator):
            raise InputError(
                f"{self.label}: estimator {described(self.estimator)} is no transformer that "
                "learns without targets; make another module of it with Sklearn"
            )

    def learn(self, inputs: list[Message], from_children: Message | None) -> dict[str, Any]:
        """Fit a copy of the estimator to the rows that all parents observed."""
        x = complete_rows(self.label, inputs)
        estimator = fitted_copy(self.label, self.estimator, self.rng(), x)
        latent = Gaussian(ask(self.label, estimator.transform, x[:1])).mean  # (1, D)
        if self._inverts:
            try:  # some must be made so that they can
                ask(self.label, estimator.inverse_transform, latent)
            except InputError as error:
                raise InputError(f"{error}; with invert=False it sends no rows down") from None
        self.estimator_, self.n_outputs_ = estimator, latent.shape[1]
        self.row_shapes_ = [message.shape for message in inputs]
        return {}

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send the latents (N, D) up, without a variance, and what they stand for down.

        Rows that are missing stand for what the children say of them.
        """
        latents = ask(self.label, learnt(self).transform, flat_rows(inputs))
        up = Gaussian(latents, observed=all_observed(inputs))  # checked: it is of foreign code
        down = Deferred(known_rows(up.mean, up.observed, from_children), "reconstruction")
        return Posterior(up, tuple(down if self.sends_down_to(p) else None for p in self.parents))

    def reconstruction(self, latents: np.ndarray) -> list[Data | None]:
        """The rows that latents (N, D) stand for, for each parent that takes them."""
        rows = turned_back(self.label, learnt(self), latents, self.row_shapes_)
        return [
            Data(columns.reshape(-1, *shape)) if self.sends_down_to(parent) else None
            for parent, columns, shape in zip(self.parents, rows, self.row_shapes_, strict=True)
        ]

    def generate(
        self,
        n_samples: int,
        rng: np.random.Generator,
        values: np.ndarray | None = None,
        component: int | None = None,
    ) -> list[np.ndarray]:
        """Latents turned back, for each parent; they have no distribution to be drawn from."""
        if values is None or not self._inverts:
            return super().generate(n_samples, rng, values, component)
        return turned_back(self.label, learnt(self), values, self.row_shapes_)


# -- estimators ------------------------------------------------------------------------------------


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
    """How error texts call an estimator, or what stands in its place."""
    named = isinstance(estimator, BaseEstimator)
    return type(estimator).__name__ if named else f"{estimator!r:.60}"


def declared_size(estimator: Any) -> int | None:
    """The number of clusters or components it is made to find; None where it says none."""
    final = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    for name in ("n_clusters", "n_components"):
        size = getattr(final, name, None)
        if isinstance(size, int | np.integer):
            return int(size)
    return None


def n_outputs_of(module: SklearnClusterer | SklearnTransformer) -> int | None:
    """Outputs of the fitted estimator, or of another one that has been set since as it says."""
    declared, fitted = declared_size(module.estimator), getattr(module, "estimator_", None)
    is_fitted = fitted is not None and declared_size(fitted) == declared
    return module.n_outputs_ if is_fitted else declared


def learnt(module: Module) -> Any:
    """A module's fitted estimator; raise NotFittedError if there is none."""
    if not hasattr(module, "estimator_"):
        raise NotFittedError(f"{module.label} has learnt nothing yet: call update() first")
    return module.estimator_


def fitted_copy(
    label: str, estimator: BaseEstimator, rng: np.random.Generator, *data: np.ndarray
) -> Any:
    """A copy fitted to rows, and targets if given; seeds left open in it are drawn from `rng`."""
    copy = clone(estimator)
    for name, value in sorted(copy.get_params().items()):
        if name.split("__")[-1] == "random_state" and value is None:
            copy.set_params(**{name: int(rng.integers(2**31))})
    ask(label, copy.fit, *data)
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
        kind = type(method.__self__).__name__  # type: ignore[attr-defined]
        raise InputError(f"{label}: {kind}.{method.__name__} failed: {error}") from error


# -- rows ------------------------------------------------------------------------------------------


def complete_rows(label: str, inputs: Sequence[Message]) -> np.ndarray:
    """Rows that all parents observed, side by side: (n, D); raise InputError if there are none."""
    x, observed = flat_rows(inputs), all_observed(inputs)
    if observed is not None and not observed.any():
        raise InputError(
            f"{label}: no row was observed by all of its parents, so there is nothing to learn from"
        )
    return x if observed is None else x[observed]


def known_rows(
    rows: np.ndarray, observed: np.ndarray | None, from_children: Message | None
) -> np.ndarray:
    """Rows (N, D), those not observed as the children's message has them, or 0."""
    if observed is None:
        return rows
    expected = np.zeros(rows.shape)
    if isinstance(from_children, Data):
        expected = from_children.array.reshape(rows.shape)
    if isinstance(from_children, Gaussian):
        expected = from_children.mean
    if isinstance(from_children, Mixture):
        expected = from_children.expected().mean
    return np.where(observed[:, None], rows, expected)


def turned_back(
    label: str, estimator: Any, values: np.ndarray, row_shapes: Sequence[Sequence[int]]
) -> list[np.ndarray]:
    """The flat rows (n, .) for each parent that an estimator makes of its outputs (n, ...)."""
    outputs = values.reshape(len(values), -1).astype(np.float64, copy=False)
    rows = ask(label, estimator.inverse_transform, outputs)
    return split_columns(rows, [math.prod(shape) for shape in row_shapes])


# -- clusters --------------------------------------------------------------------------------------


def cluster_probabilities(label: str, estimator: Any, x: np.ndarray, n_clusters: int) -> np.ndarray:
    """P(k | row) by the estimator, certain if it has none, in its own order: (N, D) -> (N, K).

    Certain ones are of `n_clusters` clusters, or of more where the estimator names more.
    """
    if hasattr(estimator, "predict_proba"):
        return ask(label, estimator.predict_proba, x)
    clusters = ask(label, estimator.predict, x)  # (N,)
    return np.eye(max(n_clusters, clusters.max() + 1))[clusters]


def is_mixture(estimator: Any) -> bool:
    """Whether a fitted clusterer is a Gaussian mixture, with parameters of its own."""
    names = ("weights_", "means_", "covariances_", "covariance_type")
    return all(hasattr(estimator, name) for name in names)


def mixture_of(estimator: Any, x: np.ndarray, responsibilities: np.ndarray) -> MixtureDensity:
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


def matching_order(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The order (K,) of clusters in which they share most mass with those before.

    Responsibilities (N, K) before and now; if they are of other rows or clusters, the order stays.
    """
    if before.shape != now.shape:
        return np.arange(now.shape[1])
    return linear_sum_assignment(before.T @ now, maximize=True)[1]
