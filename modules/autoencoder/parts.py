"""An autoencoder's decoder as `serkit.Graph.export` writes it: latents in, rows out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn


class DecoderPart(nn.Module):
    """From latents (B, n_outputs) to the expected rows of each parent, (B, ...) each."""

    def __init__(self, nets: nn.ModuleDict, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.decoder, self.likelihood = nets["decoder"], cast(Any, nets["likelihood"])
        self.shapes = [*map(tuple, shapes)]

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """(B, n_outputs) -> (B, ...) for each parent."""
        sizes = [math.prod(shape) for shape in self.shapes]
        columns = self.rows(z.float()).split(sizes, dim=1)
        return tuple(c.unflatten(1, shape) for c, shape in zip(columns, self.shapes, strict=True))

    def rows(self, z: Tensor) -> Tensor:
        """(B, n_outputs) -> (B, D)."""
        return self.likelihood.mean(self.decoder(z).float()).flatten(1)


class ExpectedRows(DecoderPart):
    """The same of class probabilities: ``sum_k p_k E[x | k]``."""

    def rows(self, z: Tensor) -> Tensor:
        """(B, K) -> (B, D)."""
        return z @ super().rows(torch.eye(z.shape[1], dtype=z.dtype, device=z.device))
