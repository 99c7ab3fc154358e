"""A supervised net on rows: the baseline that what is learnt on latents is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError, NotFittedError, TrainingError
from ..messages import as_rows
from ._classifier_options import validated_targets
from ._minibatch import DivergedError, in_chunks, private_random_state, resolve_device, to_tensor
from ._nets import conv_classifier, copy_classifier, needed_image_shape
from ._options import check_count
from ._training import check_batch_norm, check_training_options, run_epochs


class NetClassifier(ClassifierMixin, BaseEstimator):
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
    scheduler, augment, device, precision
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

    label = "NetClassifier"

    def __init__(
        self,
        net: nn.Module | None = None,
        *,
        filters: Sequence[int] = (32, 64),
        hidden_sizes: Sequence[int] = (128,),
        epochs: int = 10,
        batch_size: int = 128,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        scheduler: str | Callable | None = "onecycle",
        augment: Callable[[Tensor], Tensor] | None = None,
        device: str = "auto",
        precision: str = "auto",
        random_state: int | None = None,
    ) -> None:
        self.net = net
        self.filters = filters
        self.hidden_sizes = hidden_sizes
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.scheduler = scheduler
        self.augment = augment
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> NetClassifier:
        """Train a fresh net; returns self.

        Parameters
        ----------
        X : array-like, shape (N, ...)
        y : array-like, shape (N,)
            Classes of any type.

        Raises
        ------
        InputError
            For NaN, lengths that differ, a single class, arguments that cannot work, or a net
            that does not fit the rows or the classes.
        TrainingError
            If the loss becomes NaN or infinite. What was learnt before is kept in any case.
        """
        check_training_options(self)
        check_count(self, "epochs")
        rows = as_rows(X, f"{self.label}.fit")
        y, _ = validated_targets(self, y, None, len(rows))
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise InputError(f"{self.label}: y must hold two classes or more, got {classes}")
        device = resolve_device(self.device, self.label)
        seed = int(np.random.default_rng(self.random_state).integers(2**62))
        with private_random_state(seed, device):
            net = self._make_net(rows.shape, len(classes)).to(device)
            codes = torch.tensor(codes, device=device)
            loss_curve = self._train(net, to_tensor(rows, device), codes)
        self.classes_, self.row_shape_ = classes, rows.shape[1:]
        self.net_, self.loss_curve_ = net.eval(), loss_curve
        return self

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
        if not hasattr(self, "net_"):
            raise NotFittedError(f"{self.label} has learnt nothing yet: call fit(X, y)")
        rows = as_rows(X, f"{self.label}.predict")
        if rows.shape[1:] != self.row_shape_:
            raise InputError(
                f"{self.label}: trained on rows of shape {self.row_shape_}, got {rows.shape[1:]}"
            )
        logits = in_chunks(self.net_, self.net_, rows, row_shape=self.row_shape_)
        return softmax(np.concatenate(logits), axis=1)

    def _make_net(self, shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """A new net for rows (N, ...) of that shape."""
        n_rows, *row_shape = shape
        if self.net is not None:
            return copy_classifier(self.net, tuple(row_shape), n_classes, self.label)
        check_batch_norm(self, n_rows)
        image_shape = needed_image_shape(tuple(row_shape), f"{self.label}: the default net")
        return conv_classifier(image_shape, self.filters, self.hidden_sizes, n_classes)

    def _train(self, net: nn.Module, rows: Tensor, codes: Tensor) -> list[dict[str, float]]:
        """Train on all rows; returns the terms of every epoch."""
        every, loss_curve = torch.arange(len(rows), device=rows.device), []
        rates = {"lr": self.lr, "weight_decay": self.weight_decay}
        optimizer = torch.optim.AdamW(net.parameters(), **rates, fused=True)

        def terms(x: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
            logits, expected = net(x).float(), codes[index]  # (B, C), (B,)
            accuracy = (logits.argmax(dim=1) == expected).float().mean()
            return {"loss": F.cross_entropy(logits, expected), "accuracy": accuracy}

        try:
            run_epochs(
                self,
                net,
                terms,
                rows,
                optimizer,
                learnt=every,
                held_out=every[:0],
                epochs=self.epochs,
                on_epoch=lambda terms: loss_curve.append({"epoch": len(loss_curve) + 1, **terms}),
            )
        except DivergedError as diverged:
            raise TrainingError(f"{self.label}: {diverged}; lower lr={self.lr}") from None
        return loss_curve
