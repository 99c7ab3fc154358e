"""Random image transformations, on batches of tensors."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from torch import Tensor
from torch.nn import functional as F

from ...arrays import as_rows
from ...errors import InputError
from ...options import is_count
from ..nets.architectures import image_shape_of
from ..nets.device import private_random_state


class RandomAffine(BaseEstimator):
    """Rotate, shear, scale and shift each image of a batch by its own random amounts.

    A callable from a batch to a batch of the same shape, for ``VAE(augment=...)``. Values stay
    within those of the image and 0, with which the border is filled.

    Parameters
    ----------
    degrees : float
        Largest rotation either way, in degrees.
    shear : float
        Largest horizontal shear either way, as a share of the height.
    scale : float
        Largest change of size either way, as a share, drawn for both axes together.
    shift : float
        Largest shift either way along each axis, in pixels.

    Raises
    ------
    InputError
        When called on rows that are not images (flat rows must be square).
    """

    def __init__(
        self, degrees: float = 14.0, shear: float = 0.3, scale: float = 0.1, shift: float = 1.4
    ) -> None:
        self.degrees = degrees
        self.shear = shear
        self.scale = scale
        self.shift = shift

    def __call__(self, batch: Tensor) -> Tensor:
        """Transform a batch (B, H, W), (B, C, H, W) or (B, H * W)."""
        image_shape = image_shape_of(tuple(batch.shape[1:]))
        if image_shape is None:
            raise InputError(
                f"RandomAffine: expected images (B, H, W), (B, C, H, W) or flat and square, got "
                f"{tuple(batch.shape)}"
            )
        images = batch.reshape(-1, *image_shape)
        grid = _grid(self._matrices(images), *image_shape[1:])
        return F.grid_sample(images, grid, align_corners=False).reshape(batch.shape)

    def copies(
        self, images: ArrayLike, n_copies: int = 1, random_state: int | None = None
    ) -> np.ndarray:
        """Transformed copies of arrays, for models that take no `augment`.

        Parameters
        ----------
        images : array-like of shape (N, H, W), (N, C, H, W) or (N, H * W)
        n_copies : int
        random_state : int, optional

        Returns
        -------
        np.ndarray
            (n_copies * N, ...), float32: the first copy of every row, then the second, and so on.

        Raises
        ------
        InputError
            For rows that are not images, NaN or infinity, or no positive number of copies.
        """
        if not is_count(n_copies):
            raise InputError(f"RandomAffine: n_copies must be an integer >= 1, got {n_copies!r}")
        batch = torch.tensor(as_rows(images, "RandomAffine"), dtype=torch.float32)
        seed = np.random.default_rng(random_state).integers(2**62)
        with private_random_state(int(seed), batch.device):
            return np.concatenate([self(batch).numpy() for _ in range(n_copies)])

    def _matrices(self, images: Tensor) -> Tensor:
        """Random maps from output to input coordinates: (B, 2, 3)."""
        n, _, height, width = images.shape
        u = torch.rand(5, n, device=images.device, dtype=images.dtype) * 2 - 1
        angle = u[0] * math.radians(self.degrees)
        shear, scale = u[1] * self.shear, 1 + u[2] * self.scale
        cos, sin = angle.cos() / scale, angle.sin() / scale
        dx, dy = u[3] * self.shift * 2 / width, u[4] * self.shift * 2 / height
        aspect = height / width  # the coordinates run from -1 to 1 along both axes
        right, down = (-sin + shear * cos) * aspect, sin / aspect
        rows = [cos, right, dx, down, cos + shear * sin, dy]
        return torch.stack(rows, dim=1).reshape(n, 2, 3)


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Input coordinates of every pixel: maps (B, 2, 3) -> (B, H, W, 2).

    What `F.affine_grid` gives, whose products of many small matrices take ten times as long.
    """
    centres = [(2 * torch.arange(n).to(matrices) + 1) / n - 1 for n in (height, width)]
    y, x = torch.meshgrid(*centres, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)  # (H W, 3)
    found = F.linear(matrices.reshape(-1, 3), pixels)  # (2 B, H W)
    return found.reshape(-1, 2, height, width).permute(0, 2, 3, 1)
