"""A supervised net on rows: the baseline that what is learnt on latents is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ._classifier_options import validated_targets
from ._supervised_net import SupervisedNet, Targets


class NetClassifier(ClassifierMixin, SupervisedNet):
    """A net trained on labelled rows by cross-entropy, as a scikit-learn classifier.

    Parameters
    ----------
    net : torch.nn.Module, optional
        Rows -> (N, C), logits of the C classes. Copied before training. Unless given: for images
        (N, H, W), (N, C, H, W) or flat and square, convolutions of 3 x 3 with batch
        normalisation, ReLU and max-pooling, then an MLP.
    filters : sequence of int
        Filters of the default net's convolutions, after each of which height and width are halved.
    hidden_sizes : sequence of int
        Widths of its hidden layers after the convolutions; batch normalisation there too.
    epochs, batch_size, lr, weight_decay : int, int, float, float
        Of AdamW (Adam where weight_decay is 0).
    scheduler, augment, device, precision, compile
        As in `VAE`.
    random_state : int, optional

    Attributes
    ----------
    classes_ : np.ndarray, shape (C,)
    net_ : torch.nn.Module
    loss_curve_ : list of dict
        Cross-entropy in nats and accuracy on the batches, as they were trained on, an entry an
        epoch.
    """

    outputs = "classes"

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable class of each row: (N, ...) -> (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """P(c | row): (N, ...) -> (N, C).

        Raises
        ------
        NotFittedError, InputError
            Before fitting; for NaN, or rows of another shape.
        """
        return softmax(self._outputs(X), axis=1)

    def _targets(self, y: ArrayLike, n_rows: int) -> Targets:
        y, _ = validated_targets(self, y, None, n_rows)
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"{self.label}: y must hold two classes or more, got {classes}")
        return Targets(codes, len(classes), {"classes_": classes})

    def _terms(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        accuracy = (outputs.argmax(dim=1) == targets).float().mean()
        return {"loss": F.cross_entropy(outputs, targets), "accuracy": accuracy}
