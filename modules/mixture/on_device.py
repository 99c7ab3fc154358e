"""The E-step on a GPU: the sums of `serkit.modules.mixture.statistics`, by torch in float64.

Worth it for many rows and components. Only sums come back, a few numbers a component, from which
the M-step makes the next mixture on the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ... import arrays
from ...density import DIAGONAL_TYPES, MixtureDensity
from ...messages import Categorical
from .rows import Rows
from .statistics import coefficients_of, log_weights_of, n_features

_WORTH_IT = 2e7  # products of a step: fewer take the processor less time than the way there
_TILE_VALUES = 2**26  # half a gigabyte of features and densities


@dataclass(frozen=True, eq=False)
class RowsOnDevice:
    """Complete rows, and what the children say of their classes, in float64 on a device.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from serkit.modules.mixture.rows import Rows
    >>> rows = RowsOnDevice.of(Rows(np.eye(3)), None, torch.device("cpu"))
    >>> rows.x.shape, rows.weights.sum()
    (torch.Size([3, 3]), tensor(3., dtype=torch.float64))
    """

    rows: Rows
    x: Tensor  # (N, D), about the rows' centre
    variances: Tensor | None  # (N, D)
    weights: Tensor  # (N,)
    said: Tensor | None  # (N, K), log probabilities that the children add or put in place
    known: Tensor | None  # (N, 1) of bool, where a prior of theirs takes the place of the weights

    @classmethod
    def of(cls, rows: Rows, from_children: Categorical | None, device: torch.device) -> Self:
        """Copy them there."""
        x, weights = _copied(rows.x, device, rows.centre), _copied(rows.weights, device)
        variances = None if rows.variances is None else _copied(rows.variances, device)
        if from_children is None:
            return cls(rows, x, variances, weights, None, None)
        said = _copied(from_children.log_prob, device)
        if not from_children.is_prior:
            return cls(rows, x, variances, weights, said + np.log(said.shape[1]), None)
        known = torch.tensor(from_children.is_observed[:, None], device=device)
        return cls(rows, x, variances, weights, said, known)

    def totals(self, densities: Sequence[MixtureDensity]) -> np.ndarray:
        """What the rows add to the statistics of each of M mixtures, (M, K F + 1).

        Per mixture the sums over rows of responsibility times weight times feature, and the
        log-likelihood: ``sum_n w_n log sum_k exp(log pi_k + log N(x_n; k))``.
        """
        kind, device = densities[0].covariance_type, self.x.device
        coefficients = np.stack([coefficients_of(d, self.rows.centre) for d in densities])
        log_weights = torch.tensor(np.stack([*map(log_weights_of, densities)]), device=device)
        flat = torch.tensor(coefficients, device=device).flatten(0, 1)  # (M K, F)
        sums = torch.zeros_like(flat)
        log_likelihood = torch.zeros(len(densities), dtype=torch.float64, device=device)
        for tile in torch.arange(len(self.x)).split(max(_TILE_VALUES // sum(flat.shape), 1)):
            some = slice(int(tile[0]), int(tile[-1]) + 1)
            features = self._features(some, kind)  # (n, F)
            joint = (features @ flat.T).unflatten(1, log_weights.shape)  # (n, M, K)
            joint += self._log_class_prior(some, log_weights)
            log_evidence = joint.logsumexp(dim=2)  # (n, M)
            r = (joint - log_evidence[..., None]).exp_()
            r *= self.weights[some, None, None]
            sums += r.flatten(1).T @ features
            log_likelihood += self.weights[some] @ log_evidence
        flat_sums = sums.reshape(len(densities), -1)
        return torch.cat([flat_sums, log_likelihood[:, None]], dim=1).cpu().numpy()

    def _features(self, some: slice, covariance_type: str) -> Tensor:
        """Products x_i x_j (or squares), x and 1, in the order of `statistics.features_of`."""
        x, d = self.x[some], self.x.shape[1]
        i = j = torch.arange(d, device=x.device)
        if covariance_type not in DIAGONAL_TYPES:
            i, j = torch.triu_indices(d, d, device=x.device)
        products = x[:, i] * x[:, j]
        if self.variances is not None:
            products[:, i == j] += self.variances[some]
        return torch.cat([products, x, torch.ones_like(x[:, :1])], dim=1)

    def _log_class_prior(self, some: slice, log_weights: Tensor) -> Tensor:
        """What is known of classes without the rows: (M, K), or (n, M, K) of what children say."""
        if self.said is None:
            return log_weights
        said = self.said[some, None]  # (n, 1, K)
        if self.known is None:
            return log_weights + said
        return torch.where(self.known[some, None], said, log_weights)


def is_worth_it(rows: Rows, n_components: int, covariance_type: str, device: torch.device) -> bool:
    """Whether a GPU shortens the E-step, by the number of its products.

    Rows that miss columns stay on the processor.
    """
    width = n_features(rows.n_columns, covariance_type in DIAGONAL_TYPES)
    is_large = len(rows) * width * n_components > _WORTH_IT
    return device.type == "cuda" and rows.observed is None and is_large


def _copied(values: np.ndarray, device: torch.device, centre: np.ndarray | float = 0.0) -> Tensor:
    """An array about a centre, block by block, as it may lie in a file."""
    copy = torch.empty(values.shape, dtype=torch.float64, device=device)
    for block in arrays.blocks(values):
        copy[block] = torch.from_numpy(np.asarray(values[block] - centre, dtype=np.float64))
    return copy
