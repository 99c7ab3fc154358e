"""A supervised net on rows with numbers as targets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..rows import as_rows
from ._supervised_net import SupervisedNet, Targets


class NetRegressor(RegressorMixin, SupervisedNet):
    """A net trained to predict numbers by squared error, as a scikit-learn regressor.

    Parameters
    ----------
    net : torch.nn.Module, optional
        Rows -> (N, T), the T targets; bring these to a scale of about 1. Copied before training.
    filters, hidden_sizes, epochs, batch_size, lr, weight_decay
        As in `NetClassifier`, its default net too.
    scheduler, augment, device, precision, compile, random_state
        As in `NetClassifier`.

    Attributes
    ----------
    net_ : torch.nn.Module
    loss_curve_ : list of dict
        Mean squared error on the batches, as they were trained on, an entry an epoch.
    """

    outputs = "targets"

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predicted targets: (N, ...) -> (N,), or (N, T) if trained on several a row.

        Raises
        ------
        NotFittedError, InputError
            Before fitting; for NaN, or rows of another shape.
        """
        outputs = self._outputs(X)
        return outputs.reshape(len(outputs), *self.target_shape_)

    def _targets(self, y: ArrayLike, n_rows: int) -> Targets:
        shape = np.shape(y)
        if shape[:1] != (n_rows,) or len(shape) > 2:
            raise InputError(
                f"{self.label}: y must be numbers of shape ({n_rows},) or ({n_rows}, T), one row "
                f"of targets a row, got shape {shape}"
            )
        values = as_rows(np.reshape(y, (n_rows, -1)), f"{self.label}: y").astype(np.float32)
        return Targets(values, values.shape[1], {"target_shape_": shape[1:]})

    def _terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": F.mse_loss(outputs, targets)}
