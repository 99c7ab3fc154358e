"""What a fitted Gaussian mixture tells of arrays: densities, components, draws, criteria."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from ..density import MixtureDensity
from ..errors import InputError, NotFittedError
from ..messages import Data, Message
from ..module import Module
from ..rows import as_rows
from ._options import check_component, check_n_samples, check_random_state
from ._posterior import log_joint, to_log_probabilities
from ._rows import Rows, stack


class FittedMixture(Module):
    """Abstract base of GMM; see there for parameters and attributes."""

    def density(self) -> MixtureDensity:
        """The fitted mixture as a value: to evaluate, sample, measure and walk on."""
        if not hasattr(self, "means_"):
            raise NotFittedError(f"{self.label} is not fitted yet: call update() or fit(x) first")
        return MixtureDensity(self.weights_, self.means_, self.covariances_, self.covariance_type)

    def _log_joint(self, rows: Rows, told: Message | None = None) -> np.ndarray:
        parameters = self.density()
        if rows.n_columns != parameters.n_dims:
            raise InputError(
                f"{self.label}: fitted on {parameters.n_dims} columns, got {rows.n_columns}"
            )
        return log_joint(rows, parameters, told)

    def _log_joint_of(self, x: ArrayLike) -> np.ndarray:
        return self._log_joint(stack([Data(as_rows(x, self.label))]))

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Most probable component of each row: (N, D) -> (N,) of int."""
        return self._log_joint_of(x).argmax(axis=1)

    def predict_proba(self, x: ArrayLike) -> np.ndarray:
        """P(k | row): (N, D) -> (N, K)."""
        return np.exp(to_log_probabilities(self._log_joint_of(x)))

    def score_samples(self, x: ArrayLike) -> np.ndarray:
        """Log density of each row in nats: (N, D) -> (N,)."""
        return logsumexp(self._log_joint_of(x), axis=1)

    def sample(
        self, n_samples: int = 1, component: int | None = None, random_state: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw rows from the mixture, or from one of its components.

        Parameters
        ----------
        n_samples : int
        component : int, optional
            In 0..K-1; drawn from the mixing weights unless given.
        random_state : int, optional
            Seed of the draw; the module's own unless given, so the same call repeats its draw.

        Returns
        -------
        rows : np.ndarray, shape (n_samples, D)
        components : np.ndarray, shape (n_samples,)

        Raises
        ------
        NotFittedError, InputError
            Before fitting; for a component that does not exist.
        """
        density = self.density()
        check_n_samples(self, n_samples)
        check_random_state(self, random_state)
        seed = self.seed_ if random_state is None else random_state
        if component is None:
            return density.sample(n_samples, seed)
        check_component(self, component, self.n_components)
        own = np.random.default_rng([seed, component])  # other noise for each component
        rows, _ = density.component(component).sample(n_samples, own)
        return rows, np.full(n_samples, component)

    def bic(self, x: ArrayLike) -> float:
        """Bayesian information criterion on x; lower is better."""
        score = self.score_samples(x)
        return float(-2 * score.sum() + self.density().n_free() * np.log(len(score)))

    def aic(self, x: ArrayLike) -> float:
        """Akaike information criterion on x; lower is better."""
        return float(-2 * self.score_samples(x).sum() + 2 * self.density().n_free())
