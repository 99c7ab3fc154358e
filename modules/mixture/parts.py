"""A mixture's posterior as `serkit.Graph.export` writes it: rows in, class probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ...density import MixtureDensity
from ...messages import Data, Gaussian, Message
from ...module import Module, Node, Part, content_of


class PosteriorPart(nn.Module):
    """P(class | row) by a Gaussian mixture, in float64, the children's messages left out.

    Parameters
    ----------
    density : MixtureDensity
        Of M components.
    log_weights : np.ndarray, shape (M,)
        Log P(component); -inf is allowed.
    owners : np.ndarray of int, shape (M,)
        The class of each component.
    n_parents : int
        How many of the tensors that go in are rows; others are variances.
    unsure : sequence of int
        The columns that have variances, in the order of these.
    """

    centre: Tensor
    white: Tensor
    offset: Tensor
    constant: Tensor
    precisions: Tensor
    classes: Tensor

    def __init__(
        self,
        density: MixtureDensity,
        log_weights: np.ndarray,
        owners: np.ndarray,
        n_parents: int,
        unsure: Sequence[int],
    ) -> None:
        super().__init__()
        white, log_det = density.whitening
        centre, self.n_parents = density.means.mean(axis=0), n_parents
        means, self.is_diagonal = density.means - centre, white.ndim == 2
        m, d = means.shape
        diagonals = white**2 if self.is_diagonal else (white**2).sum(axis=2)  # (M, D)
        values = {
            "centre": centre,
            "white": white if self.is_diagonal else white.transpose(1, 0, 2).reshape(d, m * d),
            "offset": means * white if self.is_diagonal else (means[:, None] @ white)[:, 0],
            "constant": log_weights - 0.5 * log_det,
            "precisions": diagonals[:, [*unsure]].T,
            "classes": np.eye(owners.max() + 1)[owners],
        }
        for name, value in values.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64, device="cpu"))

    def forward(self, *tensors: Tensor) -> tuple[Tensor]:
        """Rows (B, ...) of each parent, then any variances (B, ...) -> (B, C)."""
        flat = [tensor.flatten(1).double() for tensor in tensors]
        x = torch.cat(flat[: self.n_parents], dim=1) - self.centre  # (B, D)
        if self.is_diagonal:
            whitened = x[:, None] * self.white
        else:
            whitened = (x @ self.white).unflatten(1, self.offset.shape)
        squares = (whitened - self.offset).square().sum(dim=2)  # (B, M)
        if flat[self.n_parents :]:
            squares = squares + torch.cat(flat[self.n_parents :], dim=1) @ self.precisions
        probabilities = (self.constant - 0.5 * squares).softmax(dim=1)  # (B, M)
        return ((probabilities @ self.classes).float(),)


def posterior_part(
    module: Module,
    density: MixtureDensity,
    log_weights: np.ndarray,
    owners: np.ndarray,
    *,
    counts_variances: bool,
) -> Part:
    """The posterior of a module whose parents send rows or latents, see `PosteriorPart`."""
    takes = [(parent, "mean" if _sends_latents(parent) else "array") for parent in module.parents]
    unsure, start = list[int](), 0
    for parent in module.parents:
        end = start + cast(int, parent.n_outputs)
        if counts_variances and getattr(parent.message_up, "var", None) is not None:
            takes.append((parent, "var"))
            unsure += range(start, end)
        start = end
    net = PosteriorPart(density, log_weights, owners, len(module.parents), unsure)

    def truth(*arrays: np.ndarray) -> list[np.ndarray]:
        given = dict(zip(takes, arrays, strict=True))
        messages = [_message(parent, given) for parent in module.parents]
        return [content_of(cast(Message, module.infer(messages, None).up), "probabilities")]

    return Part("posterior", net.eval(), tuple(takes), ("probabilities",), truth, exact=True)


def _sends_latents(parent: Node) -> bool:
    return parent.sends_up is Gaussian


def _message(parent: Node, given: dict[tuple[Node, str], np.ndarray]) -> Message:
    if _sends_latents(parent):
        return Gaussian(given[parent, "mean"], given.get((parent, "var")), checked=False)
    return Data(given[parent, "array"], checked=False)
