"""Any scikit-learn estimator that learns without targets, as a module."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
    is_outlier_detector,
)
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from ...arrays import as_rows
from ...density import MixtureDensity
from ...errors import InputError, NotFittedError, TrainingError
from ...messages import Categorical, Data, Deferred, Gaussian, Message, Mixture
from ...metrics import scores_of
from ...module import Module, Node, Posterior, Values
from ...options import Flag
from ..common.estimators import ArrayEstimator
from ..common.inputs import (
    all_observed,
    check_component,
    check_labels,
    draw_classes,
    flat,
    flat_rows,
    split_columns,
    with_children,
)

OF_SKLEARN = "torch exports nets alone; for scikit-learn's estimators there is the package skl2onnx"


def Sklearn(estimator: BaseEstimator, **options: Any) -> SklearnClusterer | SklearnTransformer:
    """Make a module of a scikit-learn estimator: ``Sklearn(KMeans(10))``, ``Sklearn(PCA(20))``.

    Anything in scikit-learn's style will do (a UMAP, say), if it learns without targets and takes
    new rows. What has `fit_predict` and `predict` becomes a `SklearnClusterer`, anything else with
    `transform` a `SklearnTransformer`; the rest is an InputError.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Never changed: every update fits a copy afresh.
    **options
        Of the class it becomes: `name`, `random_state`, and `labels` of a clusterer or `invert` of
        a transformer.

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
class SklearnClusterer(ArrayEstimator):
    """A scikit-learn clusterer (KMeans, BayesianGaussianMixture, Birch) as a module.

    Sends `Categorical` class probabilities up (`predict_proba`, or certainty if there is none) and
    a `Mixture` down: of a mixture its own weights, means and covariances; of anything else the
    model that k-means fits, the mean of each cluster's rows and one variance for all, the mean
    squared distance to them per dimension. It learns from its parents' rows side by side, means
    where they are latents. What its children say counts only in the probabilities sent down.
    Clusters keep their numbers from update to update.

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
    estimator_ : fitted scikit-learn estimator
    order_ : np.ndarray of shape (K,)
        The estimator's number of each cluster.
    n_outputs_ : int
        Number of clusters K.
    weights_, means_, covariances_ : np.ndarray of shapes (K,), (K, D), (K, D, D)
    responsibilities_ : np.ndarray of shape (n, K)
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
    why_no_parts = OF_SKLEARN
    takes_from_children = (Categorical,)
    sends_up = Categorical
    sends_down = Mixture

    @property
    def templates(self) -> dict[str, Any]:
        """The estimator, of which a copy is fitted."""
        return {"estimator": self.estimator}

    @property
    def n_outputs(self) -> int | None:
        """Number of clusters K; before learning as the estimator says."""
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
        estimator = fitted_copy(self, self.estimator, x)
        r = cluster_probabilities(self.label, estimator, x, declared_size(estimator) or 0)  # (N, K)
        order = matching_order(getattr(self, "responsibilities_", r), r)
        mixture = mixture_of(estimator, x, r).permuted(order)
        self.estimator_, self.order_, self.n_outputs_ = estimator, order, len(order)
        self.weights_, self.means_ = mixture.weights, mixture.means
        self.covariances_, self.responsibilities_ = mixture.full_covariances(), r[:, order]
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
        parameters = self.means_, self.covariances_, log_weights
        mixture = Mixture(classes.log_prob, *parameters, checked=False)
        down = mixture.split([math.prod(message.shape) for message in inputs])
        return Posterior(up, tuple(down), classes=classes)

    def predict_proba(self, x: ArrayLike) -> np.ndarray:
        """P(k | row), by certainty if the estimator has no probabilities: (N, D) -> (N, K)."""
        return self._probabilities(x, "predict_proba")

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Cluster of each row: (N, D) -> (N,) of int."""
        return self._probabilities(x, "predict").argmax(axis=1)

    def _probabilities(self, x: ArrayLike, method: str) -> np.ndarray:
        estimator, rows = learnt(self), flat_rows([Data(self.new_rows(x, method))])
        r = cluster_probabilities(self.label, estimator, rows, len(self.order_))
        return r[:, self.order_]

    @available_if(lambda self: hasattr(self.estimator, "score"))
    def score(self, x: ArrayLike, y: None = None) -> float:
        """The estimator's own score of rows (N, D): minus the inertia of a KMeans, say."""
        estimator, rows = learnt(self), flat_rows([Data(self.new_rows(x, "score"))])
        return float(ask(self.label, estimator.score, rows))

    def fit_predict(self, x: ArrayLike, y: None = None) -> np.ndarray:
        """Fit, and tell the cluster of each row: (N, D) -> (N,) of int."""
        return self.fit(x).predict(x)

    def density(self) -> MixtureDensity:
        """The mixture sent down, as a value."""
        learnt(self)
        return MixtureDensity(self.weights_, self.means_, self.covariances_)

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Draws of the components that class probabilities pick, of one, or of the mixture."""
        density = self.density()
        if values is not None:
            components = map(density.component, draw_classes(values, rng))
            rows = np.concatenate([c.sample(1, rng)[0] for c in components])
        else:
            if component is not None:
                check_component(self.label, component, density.n_components)
                density = density.component(component)
            rows = density.sample(n_samples, rng)[0]
        return split_columns(rows, [parent.n_outputs or 0 for parent in self.parents])


class Invertible(TransformerMixin, ArrayEstimator):
    """Abstract base of modules that may turn what they send up back into their parents' rows."""

    row_shapes_: list[tuple[int, ...]]

    @property
    @abstractmethod
    def inverse(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Turns outputs (n, D) back into the parents' rows, flat, side by side; or None."""

    def sends_down_to(self, parent: Node) -> type[Message] | None:
        """Data, if outputs can be turned back and the parent, unlike a VAE, takes it."""
        return Data if self.inverse and Data in parent.takes_from_children else None

    def transform(self, x: ArrayLike) -> np.ndarray:
        """What is sent up of rows: (N, ...) -> (N, n_outputs)."""
        learnt(self, "row_shapes_")
        up = self.infer([Data(self.new_rows(x, "transform"))], None).up
        return flat(cast(Message, up))

    @available_if(lambda self: self.inverse is not None)
    def inverse_transform(self, outputs: ArrayLike) -> np.ndarray:
        """The flat rows that outputs (N, n_outputs) stand for."""
        learnt(self, "row_shapes_")
        rows = as_rows(outputs, f"{self.label}.inverse_transform").astype(np.float64)
        return np.asarray(ask(self.label, cast(Callable, self.inverse), rows))

    def messages_of(
        self, outputs: np.ndarray, observed: np.ndarray | None, from_children: Message | None
    ) -> tuple[Message | None, ...]:
        """The rows that outputs (N, D) stand for, where not observed those that the children do.

        A child's `Data`, which predicts the outputs, stands in place of them all.
        """
        if self.inverse is None:
            return (None,) * len(self.parents)
        if isinstance(from_children, Data):
            outputs = from_children.array.reshape(outputs.shape)
        elif observed is not None:
            if isinstance(from_children, Mixture):
                from_children = from_children.expected()
            mean = from_children.mean if isinstance(from_children, Gaussian) else 0.0
            outputs = np.where(observed[:, None], outputs, mean)
        deferred = Deferred(outputs, "reconstruction", checked=False)
        return tuple(deferred if self.sends_down_to(p) else None for p in self.parents)

    def reconstruction(self, outputs: np.ndarray) -> list[Data | None]:
        """The rows that outputs (N, D) stand for, for each parent that takes them."""
        triples = zip(self.parents, self._turned_back(outputs), self.row_shapes_, strict=True)
        return [
            Data(rows.reshape(-1, *shape)) if self.sends_down_to(parent) else None
            for parent, rows, shape in triples
        ]

    def generate(
        self, n_samples: int, rng: Generator, values: Values = None, component: int | None = None
    ) -> list[np.ndarray]:
        """Outputs turned back, for each parent; they have no distribution to be drawn from."""
        if values is None or self.inverse is None:
            return super().generate(n_samples, rng, values, component)
        return self._turned_back(values)

    def _turned_back(self, outputs: np.ndarray) -> list[np.ndarray]:
        """The flat rows for each parent, (n, .), that outputs (n, ...) stand for."""
        sizes = [math.prod(shape) for shape in learnt(self, "row_shapes_")]
        values = outputs.reshape(len(outputs), -1).astype(np.float64, copy=False)
        return split_columns(ask(self.label, cast(Callable, self.inverse), values), sizes)


@dataclass(eq=False, repr=False)
class SklearnTransformer(ClassNamePrefixFeaturesOutMixin, Invertible):
    """A scikit-learn transformer (PCA, NMF, FastICA, a pipeline, a UMAP) as a module.

    Sends its latents up, and down the rows it makes of them, if it has an `inverse_transform` and
    the parent takes `Data`. It learns from its parents' rows side by side, means where they are
    latents, and not from its children.

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
    estimator_ : fitted scikit-learn estimator
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
    why_no_parts = OF_SKLEARN
    takes_from_children = (Gaussian, Mixture)
    sends_up = Gaussian

    @property
    def templates(self) -> dict[str, Any]:
        """The estimator, of which a copy is fitted."""
        return {"estimator": self.estimator}

    @property
    def n_outputs(self) -> int | None:
        """Number of latent dimensions; before learning as the estimator says."""
        return n_outputs_of(self)

    @property
    def _n_features_out(self) -> int:
        return learnt(self, "n_outputs_")

    @property
    def inverse(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """The estimator's `inverse_transform`, if it has one and it is wanted."""
        estimator = getattr(self, "estimator_", self.estimator)
        return getattr(estimator, "inverse_transform", None) if self.invert else None

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
        estimator = fitted_copy(self, self.estimator, x)
        latent = Gaussian(ask(self.label, estimator.transform, x[:1])).mean  # (1, D)
        if self.invert and hasattr(estimator, "inverse_transform"):
            try:  # some must be made so that they can
                ask(self.label, estimator.inverse_transform, latent)
            except InputError as error:
                raise InputError(f"{error}; with invert=False it sends no rows down") from None
        self.estimator_, self.n_outputs_ = estimator, latent.shape[1]
        self.row_shapes_ = [message.shape for message in inputs]
        return {}

    def infer(self, inputs: list[Message], from_children: Message | None) -> Posterior:
        """Send the latents (N, D) up, without a variance, and the rows they stand for down."""
        latents = ask(self.label, learnt(self).transform, flat_rows(inputs))
        up = Gaussian(latents, observed=all_observed(inputs))  # checked: it is of foreign code
        return Posterior(up, self.messages_of(up.mean, up.observed, from_children))


def is_clusterer(estimator: Any) -> bool:
    """Whether it finds clusters without targets and puts new rows into them."""
    predicts = hasattr(estimator, "fit_predict") and hasattr(estimator, "predict")
    return predicts and _learns_alone(estimator) and not is_outlier_detector(estimator)


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
    sizes = [getattr(final, name, None) for name in ("n_clusters", "n_components")]
    return next((int(size) for size in sizes if isinstance(size, int | np.integer)), None)


def n_outputs_of(module: SklearnClusterer | SklearnTransformer) -> int | None:
    """Number of outputs of the fitted estimator; as declared by one that was set since."""
    declared, fitted = declared_size(module.estimator), getattr(module, "estimator_", None)
    is_fitted = fitted is not None and declared_size(fitted) == declared
    return module.n_outputs_ if is_fitted else declared


def learnt(module: Module, name: str = "estimator_") -> Any:
    """A module's fitted estimator, or what else it learnt; NotFittedError before."""
    if not hasattr(module, name):
        raise NotFittedError(f"{module.label} has learnt nothing yet: call update() first")
    return getattr(module, name)


def fitted_copy(module: Module, estimator: BaseEstimator, *data: np.ndarray) -> Any:
    """A copy fitted to rows, and targets if given; the module draws the seeds left open in it."""
    copy, rng = clone(estimator), module.rng()
    for name, value in sorted(copy.get_params().items()):
        if name.split("__")[-1] == "random_state" and value is None:
            copy.set_params(**{name: int(rng.integers(2**31))})
    ask(module.label, copy.fit, *data)
    return copy


def ask(label: str, method: Callable, *data: np.ndarray) -> Any:
    """What an estimator's method makes of arrays; InputError, with the label, where it fails."""
    try:
        return method(*data)
    except TrainingError:  # of a net
        raise
    except Exception as error:  # of foreign code
        kind = type(method.__self__).__name__  # type: ignore[attr-defined]
        raise InputError(f"{label}: {kind}.{method.__name__} failed: {error}") from error


def complete_rows(label: str, inputs: Sequence[Message]) -> np.ndarray:
    """Rows that all parents observed, side by side: (n, D); raise InputError if there are none."""
    x, observed = flat_rows(inputs), all_observed(inputs)
    if observed is not None and not observed.any():
        raise InputError(
            f"{label}: no row was observed by all of its parents, so there is nothing to learn from"
        )
    return x if observed is None else x[observed]


def cluster_probabilities(label: str, estimator: Any, x: np.ndarray, n_clusters: int) -> np.ndarray:
    """P(k | row) by the estimator, in its own order: (N, D) -> (N, K).

    Certain if it has no such method, of `n_clusters` clusters or of more if it names more.
    """
    if hasattr(estimator, "predict_proba"):
        return ask(label, estimator.predict_proba, x)
    clusters = np.asarray(ask(label, estimator.predict, x))  # (N,)
    if clusters.dtype.kind not in "iu" or clusters.min() < 0:  # -1 is noise, or no convergence
        raise InputError(
            f"{label}: {described(estimator)}.predict must give each row the number of a cluster, "
            f"from 0 on, got {np.unique(clusters)[:3].tolist()!r:.60}"
        )
    return np.eye(max(n_clusters, clusters.max() + 1))[clusters]


def is_mixture(estimator: Any) -> bool:
    """Whether a fitted clusterer is a Gaussian mixture, with parameters of its own."""
    names = ("weights_", "means_", "covariances_", "covariance_type")
    return all(hasattr(estimator, name) for name in names)


def mixture_of(estimator: Any, x: np.ndarray, responsibilities: np.ndarray) -> MixtureDensity:
    """The mixture that a fitted clusterer stands for, by x (N, D) and responsibilities (N, K).

    Its own if it is one, else the model of k-means; an empty cluster lies at the mean of all rows.
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
