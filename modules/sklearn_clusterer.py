"""A scikit-learn clusterer as a module: class probabilities go up, cluster means down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from ..density import MixtureDensity
from ..errors import InputError
from ..messages import Categorical, Message, Mixture
from ._em import draw_classes
from ._estimator_module import EstimatorModule
from ._estimators import (
    ask,
    declared_size,
    described,
    is_clusterer,
    is_mixture,
    matching_order,
    mixture_of,
    one_hot,
)
from ._mixture_options import check_labels
from ._options import check_component, check_n_samples, check_random_state
from ._rows import all_seen, stack
from ._scores import scores_of


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

    accepts_backward = (Categorical,)
    forward_kind = Categorical
    backward_kind = Mixture

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
        check_labels(self, n_rows)
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
        return scores_of(self.labels, self.responsibilities_.argmax(axis=1), all_seen(inputs))

    def forward(self, inputs: list[Message]) -> Categorical:
        """P(k | row) from the row alone: what the children said is left out."""
        self._check_learnt()
        found = self._probabilities(self.estimator_, stack(inputs).block(), self.size_)
        with np.errstate(divide="ignore"):
            log_prob, log_weights = np.log(found[:, self.order_]), np.log(self.weights_)
        own_weights = log_weights if is_mixture(self.estimator_) else None
        return Categorical(log_prob, log_prior=own_weights, observed=all_seen(inputs))

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
        probabilities = np.exp(self.backward_messages[0].log_prob)
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
