"""Nets as scikit-learn estimators: NetClassifier and NetRegressor, from rows to known targets."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from torch import Tensor, nn
from torch.nn import functional as F

from ... import processes
from ...arrays import as_rows
from ...errors import InputError, NotFittedError, TrainingError
from ...options import Counts, PositiveInt, Seed, generator_of
from ...reading import labels_in, rows_in
from ..common.estimators import check_columns, columns_of
from ..common.inputs import checked_targets
from .architectures import (
    conv_classifier,
    copy_supervised,
    image_shape_of,
    learnable,
    mlp,
    needed_image_shape,
    own_net,
)
from .device import (
    check_float32,
    check_outputs,
    check_sizes,
    compiled,
    in_blocks,
    private_random_state,
    scale_problem,
    uses_bfloat16,
)
from .trainer import DivergedError, NetOptions, Scheduler, Terms, Trainer, check_batches

_UNKNOWN = -1  # a step's class that is not known
_FEWEST_PIXELS = 16  # flat rows of fewer values are a table's


@dataclass(eq=False, repr=False)
class SupervisedNet(NetOptions, ABC):
    """Abstract base of NetClassifier and NetRegressor, which say what targets are, and the loss."""

    net: nn.Module | None = None
    _: KW_ONLY
    filters: Annotated[Sequence[int], Counts(each=1)] = (32, 64)
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    scheduler: Scheduler = "onecycle"
    random_state: Seed = None

    outputs = ""  # what error texts call the net's outputs

    @abstractmethod
    def _targets(self, y: ArrayLike, n_rows: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Targets (N, ...) as the loss takes them, whether known, (N,), and what is learnt of them.

        InputError for what can be none.
        """

    @abstractmethod
    def _loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The loss and what else to report of a batch: outputs (B, n_outputs), targets (B, ...)."""

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train a fresh net on all rows, also where there are several processes; returns self.

        Parameters
        ----------
        X : array-like, shape (N, ...)
        y : array-like, shape (N,)
            Classes of any type, of which None, NaN and the number -1 stand for unknown ones, whose
            rows are not learnt from; or numbers, which may be several per row: (N, T). A masked
            array makes rows sequences of S steps, each with targets of its own: classes (N, S) or
            numbers (N, S, T), of which those that are masked are unknown, and the net returns as
            many outputs for each step.

        Raises
        ------
        InputError
            For NaN, lengths that differ, a single class, arguments that cannot work, or a net
            that does not fit the rows or the targets.
        TrainingError
            If the loss becomes NaN or infinite. What was learnt before is kept in any case.
        """
        self.check_options()
        device = self._torch_device()
        rows = as_rows(X, f"{self.label}.fit")
        check_float32(self.label, rows)
        columns = columns_of(self.label, X, rows)
        targets, known, learnt = self._targets(y, len(rows))
        if len(targets) != len(rows):
            raise InputError(f"{self.label}: y has {len(targets)} entries for {len(rows)} rows")
        if not known.any():
            raise InputError(f"{self.label}: y holds no known target; unmask some")
        rng = generator_of(self.label, self.random_state)
        seed = processes.of_first(int(rng.integers(2**62)))
        with processes.alone(), private_random_state(seed, device):
            batch_norm = self.net is None and self._image_shape(rows.shape[1:]) is not None
            check_batches(self.label, int(known.sum()), self.batch_size, batch_norm=batch_norm)
            net = self._make_net(rows.shape[1:], learnt["n_outputs_"], learnt.get("n_steps_"))
            net = net.to(device)
            numbers = torch.tensor(np.flatnonzero(known), device=device)
            loss_curve = self._train(net, rows, torch.tensor(targets, device=device), numbers)
        processes.spread(net)  # processors of different kinds round differently
        for name in ("n_steps_", "feature_names_in_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        self.__dict__.update(learnt | columns)
        self.row_shape_, self.net_, self.loss_curve_ = rows.shape[1:], net.eval(), loss_curve
        return self

    def _make_net(
        self, row_shape: tuple[int, ...], n_outputs: int, n_steps: int | None
    ) -> nn.Module:
        if self.net is not None:
            ends = (row_shape, n_outputs, self.outputs)
            return copy_supervised(self.net, *ends, self.label, n_steps)
        if n_steps is not None:
            raise InputError(f"{self.label}: sequences need a net of their own: net=")
        image_shape = self._image_shape(row_shape)
        if image_shape is None:
            return mlp(math.prod(row_shape), self.hidden_sizes, n_outputs)
        return conv_classifier(image_shape, self.filters, self.hidden_sizes, n_outputs)

    def _image_shape(self, row_shape: tuple[int, ...]) -> tuple[int, int, int] | None:
        """(C, H, W) of rows that the default net sees as images; None for others."""
        is_small = len(row_shape) == 1 and row_shape[0] < _FEWEST_PIXELS
        if is_small or image_shape_of(row_shape) is None:
            return None
        return needed_image_shape(row_shape, self.label)

    def _train(
        self, net: nn.Module, rows: np.ndarray, targets: Tensor, learnt: Tensor
    ) -> list[Terms]:
        """Train on the rows of these numbers; returns the terms of every epoch."""
        device, curve = targets.device, list[Terms]()
        outputs_of = compiled(net, device, self.label) if self.compile else net
        outputs_of = own_net("net", outputs_of, self.label)

        def loss(x: Tensor, original: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
            return self._loss(outputs_of(x).float(), targets[index])

        def on_epoch(epoch: int, terms: Terms) -> None:
            curve.append({"epoch": epoch, **terms})

        bfloat16 = uses_bfloat16(self.precision, device, net, self.batch_size)
        decay, weights = self.weight_decay, learnable(net, self.label, "net")
        adam = torch.optim.AdamW(weights, self.lr, weight_decay=decay, fused=True)
        trainer = Trainer(net, loss, adam, device, bfloat16=bfloat16, **self._settings())
        try:
            trainer.fit(rows, int(self.epochs), learnt, learnt[:0], on_epoch)
        except DivergedError as diverged:
            remedy = scale_problem(rows) or f"Lower lr={self.lr}"
            raise TrainingError(f"{self.label}: {diverged}. {remedy}") from None
        return curve

    @property
    def _n_steps(self) -> int | None:
        """Steps of the sequences of training; None if rows were none."""
        return getattr(self, "n_steps_", None)

    def _outputs(self, X: ArrayLike) -> np.ndarray:
        """The trained net's outputs: (N, ...) -> (N, n_outputs)."""
        if not hasattr(self, "net_"):
            raise NotFittedError(f"{self.label} has learnt nothing yet: call fit(X, y)")
        rows = as_rows(X, f"{self.label}.predict")
        n_before = 1 if self._n_steps is None else 2  # as sequences may be of any length
        if n_before == 1:
            check_columns(self.label, self, X, rows)
        if rows.shape[n_before:] != self.row_shape_[n_before - 1 :]:
            raise InputError(
                f"{self.label}: trained on rows of shape {self.row_shape_}, got {rows.shape[1:]}"
            )
        outputs_of = own_net("net", self.net_, self.label)
        outputs = in_blocks(self.net_, outputs_of, rows, row_shape=self.row_shape_)
        check_outputs(self.label, outputs, rows)
        return outputs

    def get_state(self) -> dict[str, Any]:
        """Everything learnt, the net as its state dict."""
        learnt = {name: value for name, value in vars(self).items() if name.endswith("_")}
        return learnt | ({"net_": self.net_.state_dict()} if learnt else {})

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over what `get_state` gave."""
        row_shape, device = tuple(state["row_shape_"]), self._torch_device()
        sizes = state["n_outputs_"], state.get("n_steps_")
        make_net = partial(self._make_net, row_shape, *sizes)
        with private_random_state(0, device):
            if self.net is None:
                check_sizes(state["net_"], make_net)
            net = make_net()
        net.load_state_dict(state["net_"])
        self.__dict__.update({**state, "row_shape_": row_shape, "net_": net.to(device).eval()})


class NetClassifier(ClassifierMixin, SupervisedNet):
    """A net trained on labelled rows by cross-entropy, as a scikit-learn classifier.

    Parameters
    ----------
    net : torch.nn.Module, optional
        Rows -> (N, C), logits of the C classes. Copied before training. Unless given: for images
        (N, H, W), (N, C, H, W) or flat and square with 16 values or more, convolutions of 3 x 3
        with batch normalisation, ReLU and max-pooling, then an MLP; for other rows an MLP alone.
    filters : sequence of int
        Filters of the default net's convolutions, after each of which height and width are halved.
    hidden_sizes : sequence of int
        Widths of its hidden layers; with batch normalisation after convolutions.
    epochs, batch_size, lr, weight_decay : int, int, float, float
        Of AdamW (Adam where weight_decay is 0).
    scheduler, augment, device, precision, compile
        As in `VAE`.
    random_state : int, np.random.Generator or np.random.RandomState, optional

    Attributes
    ----------
    classes_ : np.ndarray, shape (C,)
    net_ : torch.nn.Module
    loss_curve_ : list of dict
        Cross-entropy in nats and accuracy on the batches, as they were trained on, an entry an
        epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import NetClassifier
    >>> images = np.random.default_rng(0).random((20, 4, 4))
    >>> names = np.where(np.arange(20) < 10, "left", "right")
    >>> net = NetClassifier(filters=(2,), epochs=2, random_state=0).fit(images, names)
    >>> net.classes_.tolist(), net.predict_proba(images).shape
    (['left', 'right'], (20, 2))
    """

    outputs = "classes"

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable class of each row: (N, ...) -> (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=-1)]

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """P(c | row): (N, ...) -> (N, C).

        NotFittedError before fitting; InputError for NaN, or rows of another shape.
        """
        return softmax(self._outputs(X), axis=-1)

    def _targets(self, y: ArrayLike, n_rows: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        if isinstance(y, np.ma.MaskedArray) and y.ndim == 2:
            return self._targets_of_steps(y)
        labels, _ = checked_targets(self.label, y, None, n_rows)
        return labels.codes, labels.known, self._learnt_of(labels.classes)

    def _targets_of_steps(
        self, y: np.ma.MaskedArray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        labels = labels_in(y.compressed(), f"{self.label}: y")
        steps: np.ndarray = np.full(y.shape, _UNKNOWN)
        steps[~np.ma.getmaskarray(y)] = labels.codes
        learnt = {**self._learnt_of(labels.classes), "n_steps_": y.shape[1]}
        return steps, np.any(steps != _UNKNOWN, axis=1), learnt

    def _learnt_of(self, classes: np.ndarray) -> dict[str, Any]:
        if len(classes) < 2:
            found = f"one class, {classes}" if len(classes) else "none"
            raise InputError(f"{self.label}: y must hold two classes or more, got {found}")
        return {"classes_": classes, "n_outputs_": len(classes)}

    def _loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if targets.ndim == 2:
            outputs, targets = outputs.flatten(0, 1), targets.flatten()  # (B S, C), (B S,)
        n_known = (targets != _UNKNOWN).sum().clamp(min=1)
        total = F.cross_entropy(outputs, targets, ignore_index=_UNKNOWN, reduction="sum")
        accuracy = (outputs.argmax(dim=1) == targets).sum() / n_known
        return {"loss": total / n_known, "accuracy": accuracy}


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

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from serkit.modules import NetRegressor
    >>> rows = np.random.default_rng(0).normal(size=(20, 4))
    >>> net = NetRegressor(nn.Linear(4, 1), epochs=2, random_state=0).fit(rows, rows.sum(axis=1))
    >>> net.predict(rows).shape
    (20,)
    """

    outputs = "targets"

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn is to know: there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predicted targets: (N, ...) -> (N,), or (N, T) if trained on several per row.

        NotFittedError before fitting; InputError for NaN, or rows of another shape.
        """
        outputs = self._outputs(X).astype(np.float64)
        if self._n_steps is not None:
            return outputs
        return outputs.reshape(len(outputs), *self.target_shape_)

    def _targets(self, y: ArrayLike, n_rows: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        if y is None:
            raise InputError(f"{self.label} requires y to be passed, but the target y is None")
        if isinstance(y, np.ma.MaskedArray) and y.ndim == 3:
            known: np.ndarray = ~np.ma.getmaskarray(y)
            numbers = as_rows(np.where(known, y.data, 0.0), f"{self.label}: y")
            check_float32(f"{self.label}: y", numbers)
            steps = np.where(known, numbers, np.nan).astype(np.float32)
            ends = {"n_outputs_": y.shape[2], "n_steps_": y.shape[1]}
            return steps, np.any(known, axis=(1, 2)), {**ends, "target_shape_": y.shape[2:]}
        y = rows_in(y, f"{self.label}: y")  # masked numbers are NaN, which are refused below
        shape = y.shape
        if shape[:1] != (n_rows,) or len(shape) > 2:
            raise InputError(
                f"{self.label}: y must be numbers of shape ({n_rows},) or ({n_rows}, T), targets "
                f"for each row, got shape {shape}"
            )
        values = as_rows(np.reshape(y, (n_rows, -1)), f"{self.label}: y")
        check_float32(f"{self.label}: y", values)
        learnt = {"target_shape_": shape[1:], "n_outputs_": values.shape[1]}
        return values.astype(np.float32), np.ones(n_rows, dtype=bool), learnt

    def _loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        known = ~targets.isnan()  # of a step's target that is none, NaN stands
        squares = (outputs - targets.nan_to_num()) ** 2
        return {"loss": (squares * known).sum() / known.sum().clamp(min=1)}
