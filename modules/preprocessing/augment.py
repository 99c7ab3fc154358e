"""Random image transformations, on batches of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from ...arrays import as_rows
from ...errors import InputError
from ...options import Count, Number, Options, check_argument
from ..nets.architectures import image_shape_of
from ..nets.device import private_random_state

Amount = Annotated[float, Number(at_least=0)]


@dataclass(eq=False, repr=False)
class RandomAffine(Options):
    """Rotate, shear, scale and shift each image of a batch by its own random amounts.

    For ``VAE(augment=...)``. Values stay within those of the image and 0, which fills the border.

    Parameters
    ----------
    degrees, shear, scale, shift : float
        The most that an image is rotated either way, in degrees; sheared horizontally, as a share
        of the height; made larger or smaller, as a share below 1; and shifted along each axis, in
        pixels.

    Raises
    ------
    InputError
        When used with arguments out of range, or on rows that are no images (flat ones must be
        square) or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import RandomAffine
    >>> images = np.ones((10, 8, 8))
    >>> copies = RandomAffine(degrees=20).copies(images, n_copies=3, random_state=0)
    >>> copies.shape, bool(copies.min() >= 0), bool(copies.max() <= 1)
    ((30, 8, 8), True, True)
    """

    degrees: Amount = 14.0
    shear: Amount = 0.3
    scale: Annotated[float, Number(at_least=0, below=1)] = 0.1
    shift: Amount = 1.4

    def __call__(self, batch: Tensor) -> Tensor:
        """Transform a batch (B, H, W), (B, C, H, W) or (B, H * W)."""
        self.check_options()
        image_shape = image_shape_of(tuple(batch.shape[1:]))
        if image_shape is None:
            raise InputError(
                f"{self.label}: expected images (B, H, W), (B, C, H, W) or flat and square, got "
                f"{tuple(batch.shape)}"
            )
        images = batch.reshape(-1, *image_shape)
        grid = _grid(self._matrices(images), *image_shape[1:])
        return F.grid_sample(images, grid, align_corners=False).reshape(batch.shape)

    def copies(
        self, images: ArrayLike, n_copies: int = 1, random_state: int | None = None
    ) -> np.ndarray:
        """Transformed copies of arrays, for models without an `augment`.

        Parameters
        ----------
        images : array-like of shape (N, H, W), (N, C, H, W) or (N, H * W)
        n_copies : int
            Of each image, at least 1.
        random_state : int, optional
            Seed, at least 0.

        Returns
        -------
        np.ndarray of shape (n_copies * N, ...)
            float32: the first copy of every row, then the second, and so on.
        """
        check_argument(self.label, "n_copies", n_copies, Count())
        check_argument(self.label, "random_state", random_state, Count(at_least=0, or_none=True))
        batch = torch.tensor(as_rows(images, self.label), dtype=torch.float32)
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
    coordinates = F.linear(matrices.reshape(-1, 3), pixels)  # (2 B, H W)
    return coordinates.reshape(-1, 2, height, width).permute(0, 2, 3, 1)
