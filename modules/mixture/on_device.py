"""The E-step on a GPU: the sums of `serkit.modules.mixture.statistics`, by torch in float64.

Only sums come back, a few numbers a component, from which the M-step makes the next mixture on the
processor.
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

_MANY_PRODUCTS = 2e7  # of a step; fewer take a processor some milliseconds
_TILE_VALUES = 2**26  # half a gigabyte of features and densities, and several of what they make
_BYTES_OF_TILES = 4e9


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

    centre: np.ndarray  # (D,)
    x: Tensor  # (N, D), about the centre
    variances: Tensor | None  # (N, D)
    weights: Tensor  # (N,)
    log_prob: Tensor | None  # (N, K), what the children add to the log weights, or put in place
    is_prior: Tensor | None  # (N, 1) of bool, where they put it in place; nowhere if None

    @classmethod
    def of(cls, rows: Rows, from_children: Categorical | None, device: torch.device) -> Self:
        """Copy them there."""
        x, weights = _copied(rows.x, device, rows.centre), _copied(rows.weights, device)
        variances = None if rows.variances is None else _copied(rows.variances, device)
        own = rows.centre, x, variances, weights
        if from_children is None:
            return cls(*own, None, None)
        log_prob = _copied(from_children.log_prob, device)
        if not from_children.is_prior:
            return cls(*own, log_prob + np.log(log_prob.shape[1]), None)
        return cls(*own, log_prob, torch.tensor(from_children.is_observed[:, None], device=device))

    def totals(self, densities: Sequence[MixtureDensity]) -> np.ndarray:
        """What the rows add to the statistics of each of M mixtures, (M, K F + 1).

        Per mixture the sums over rows of responsibility times weight times feature, and the
        log-likelihood: ``sum_n w_n log sum_k exp(log pi_k + log N(x_n; k))``.
        """
        kind, device = densities[0].covariance_type, self.x.device
        coefficients = np.stack([coefficients_of(density, self.centre) for density in densities])
        log_weights = torch.tensor(np.stack([*map(log_weights_of, densities)]), device=device)
        flat = torch.tensor(coefficients, device=device).flatten(0, 1)  # (M K, F)
        sums = torch.zeros_like(flat)
        log_likelihood = torch.zeros(len(densities), dtype=torch.float64, device=device)
        step = max(_TILE_VALUES // sum(flat.shape), 1)
        for start in range(0, len(self.x), step):
            tile = slice(start, start + step)
            features = self._features(tile, kind)  # (n, F)
            joint = (features @ flat.T).unflatten(1, log_weights.shape)  # (n, M, K)
            joint += self._log_class_prior(tile, log_weights)
            log_evidence = joint.logsumexp(dim=2)  # (n, M)
            responsibilities = joint.sub_(log_evidence[..., None]).exp_()
            responsibilities *= self.weights[tile, None, None]
            sums += responsibilities.flatten(1).T @ features
            log_likelihood += self.weights[tile] @ log_evidence
        flat_sums = sums.reshape(len(densities), -1)
        return torch.cat([flat_sums, log_likelihood[:, None]], dim=1).cpu().numpy()

    def _features(self, tile: slice, covariance_type: str) -> Tensor:
        """Products x_i x_j (or squares), x and 1, in the order of `statistics.features_of`."""
        x, d = self.x[tile], self.x.shape[1]
        i = j = torch.arange(d, device=x.device)
        if covariance_type not in DIAGONAL_TYPES:
            i, j = torch.triu_indices(d, d, device=x.device)
        products = x[:, i] * x[:, j]
        if self.variances is not None:
            products[:, i == j] += self.variances[tile]
        return torch.cat([products, x, torch.ones_like(x[:, :1])], dim=1)

    def _log_class_prior(self, tile: slice, log_weights: Tensor) -> Tensor:
        """What is known of classes without the rows: (M, K), or (n, M, K) of what children say."""
        if self.log_prob is None:
            return log_weights
        log_prob = self.log_prob[tile, None]  # (n, 1, K)
        if self.is_prior is None:
            return log_weights + log_prob
        return torch.where(self.is_prior[tile, None], log_prob, log_weights)


def is_worth_it(rows: Rows, n_components: int, covariance_type: str, device: torch.device) -> bool:
    """Whether a GPU is to take the E-steps: their products are many, and its memory holds the rows.

    Rows that miss columns stay on the processor.
    """
    if device.type != "cuda" or rows.observed is not None:
        return False
    n_columns, width = rows.n_columns, n_features(rows.n_columns, covariance_type in DIAGONAL_TYPES)
    n_bytes = 8 * len(rows) * (2 * n_columns + n_components + 1)
    fits = n_bytes + _BYTES_OF_TILES < torch.cuda.get_device_properties(device).total_memory
    return fits and len(rows) * width * n_components > _MANY_PRODUCTS


def _copied(values: np.ndarray, device: torch.device, centre: np.ndarray | float = 0.0) -> Tensor:
    """An array about a centre, block by block, as it may lie in a file."""
    copy = torch.empty(values.shape, dtype=torch.float64, device=device)
    for block in arrays.blocks(values):
        copy[block] = torch.from_numpy(np.asarray(values[block] - centre, dtype=np.float64))
    return copy
