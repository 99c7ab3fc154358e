"""A scikit-learn transformer as a module: latents go up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ..errors import InputError
from ..messages import Data, Gaussian, Message, Mixture
from ..module import Module
from ._estimator_module import EstimatorModule
from ._estimators import ask, described, expected_rows, is_transformer
from ._options import check_option, check_random_state
from ._rows import all_seen, split_columns, stack


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

    accepts_backward = (Gaussian, Mixture)
    forward_kind = Gaussian

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
    def backward_kind(self) -> type[Message] | None:
        """Data, if latents can be turned back."""
        return Data if self.invert and hasattr(self.estimator, "inverse_transform") else None

    def backward_kind_to(self, parent: Module) -> type[Message] | None:
        """Nothing to a parent that takes no Data, such as a VAE."""
        return self.backward_kind if Data in parent.accepts_backward else None

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
        if self.backward_kind is not None:
            self._check_inverse(estimator, latents)
        self.estimator_, self.size_ = estimator, latents.shape[1]
        return {}

    def forward(self, inputs: list[Message]) -> Gaussian:
        """The rows' latents (N, D), without a variance."""
        self._check_learnt()
        latents = ask(self.label, self.estimator_.transform, stack(inputs).block())
        return Gaussian(latents, observed=all_seen(inputs))

    def backward(self, inputs: list[Message], prior: Message | None) -> list[Data | None]:
        """The rows that the latents stand for; those not seen as the children's message has it."""
        kinds = [self.backward_kind_to(parent) for parent in self.parents]
        if not any(kinds):
            return [None for _ in inputs]
        latents, seen = self.forward(inputs).mean, all_seen(inputs)
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
        if self.backward_kind is None:
            return super().top_down(values, rng)
        return self._parts(ask(self.label, self.estimator_.inverse_transform, values))

    def artefacts(self) -> dict[str, np.ndarray]:
        """The latents."""
        return {"z_learn.txt": self.forward_message.mean}

    def _check_inverse(self, estimator: BaseEstimator, latents: np.ndarray) -> None:
        """Raise InputError unless a latent can be turned back; some must be made so that it can."""
        try:
            ask(self.label, estimator.inverse_transform, latents[:1])
        except InputError as error:
            raise InputError(f"{error}; with invert=False it sends no rows down") from None
