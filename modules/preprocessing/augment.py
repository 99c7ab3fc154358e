"""Random image transformations, on batches of tensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from ...arrays import as_rows
from ...errors import InputError
from ...options import (
    Constraint,
    Count,
    Function,
    Number,
    Options,
    RandomState,
    check_argument,
    generator_of,
    in_words,
)
from ..nets.architectures import needed_image_shape
from ..nets.device import check_float32, private_random_state
from ..nets.trainer import transformed

Amount = Annotated[float, Number(at_least=0)]
_ROUNDING = 1e-5  # by which interpolated values may leave [0, 1]


@dataclass(frozen=True, kw_only=True)
class Factors(Constraint):
    """The least and the most of a random factor, or how far it may be from 1."""

    or_share: bool = False

    def fits(self, value: Any) -> bool:
        """Whether a value is such a pair or, where that will do, such a share."""
        if isinstance(value, list | tuple) and len(value) == 2:
            return all(map(Number(above=0).fits, value)) and value[0] <= value[1]
        return self.or_share and Number(at_least=0, below=1).fits(value)

    @property
    def wanted(self) -> str:
        """The range in words."""
        share = f"{Number(at_least=0, below=1).wanted}, or " if self.or_share else ""
        return f"{share}a pair (low, high) with 0 < low <= high"


class Transforms(Constraint):
    """Transforms or functions, one or more."""

    wanted = "a list, not empty, of transforms such as RandomAffine() or functions of a batch"

    def fits(self, value: Any) -> bool:
        """Whether a value is a list or tuple of such; classes are none."""
        is_sequence = isinstance(value, list | tuple) and len(value) > 0
        return is_sequence and all(map(Function(of=("batch",)).fits, value))


@dataclass(eq=False, repr=False)
class RandomTransform(Options, ABC):
    """Abstract base of transforms, which change each image of a batch by its own random amounts."""

    @abstractmethod
    def __call__(self, batch: Tensor) -> Tensor:
        """Transform a batch (B, H, W), (B, C, H, W) or (B, H * W)."""

    def copies(
        self, images: ArrayLike, n_copies: int = 1, random_state: RandomState = None
    ) -> np.ndarray:
        """Transformed copies of arrays, for models without an `augment`.

        Parameters
        ----------
        images : array-like of shape (N, H, W), (N, C, H, W) or (N, H * W)
        n_copies : int
            Of each image, at least 1.
        random_state : int, np.random.Generator or np.random.RandomState, optional

        Returns
        -------
        np.ndarray of shape (n_copies * N, ...)
            float32: the first copy of every row, then the second, and so on.
        """
        rows = as_rows(images, self.label)
        check_float32(self.label, rows)
        batch = torch.tensor(rows, dtype=torch.float32)
        check_argument(self.label, "n_copies", n_copies, Count(each=batch.numel()))
        seed = generator_of(self.label, random_state).integers(2**62)
        with private_random_state(int(seed), batch.device):
            copies = np.concatenate([self(batch).detach().numpy() for _ in range(n_copies)])
        if not np.isfinite(copies).all():
            raise InputError(f"{self.label}: its amounts are so large that images are not finite")
        return copies

    def _images(self, batch: Tensor) -> Tensor:
        """A batch as images (B, C, H, W); InputError for rows that are none, or bad arguments."""
        self.check_options()
        if not (isinstance(batch, Tensor) and batch.is_floating_point()):
            raise InputError(
                f"{self.label}: expected a tensor of floats, got {in_words(batch)}; take "
                "copies(images) for arrays and integers"
            )
        image_shape = needed_image_shape(tuple(batch.shape[1:]), self.label)
        return batch.reshape(-1, *image_shape)


@dataclass(eq=False, repr=False)
class RandomAffine(RandomTransform):
    """Rotate, shear, scale and shift each image of a batch by its own random amounts.

    For ``VAE(augment=...)``. Values stay within those of the image and 0, which fills the border.

    Parameters
    ----------
    degrees, shear, shift : float
        The most that an image is rotated either way, in degrees; sheared horizontally, as a share
        of the height; and shifted along each axis, in pixels.
    scale : float or (float, float)
        The most that it is made larger or smaller, as a share below 1; or the least and the most of
        the factor its size is multiplied by, such as (0.75, 1.05).
    aspect : float
        The most that the logarithm of its width over its height changes either way, its area being
        kept: before the rest, its width is multiplied by exp(a / 2) and its height divided by that,
        a uniform in [-aspect, aspect].

    Raises
    ------
    InputError
        When used with arguments out of range, or on rows that are no images (flat ones must be
        square); by `copies` also on values that are not finite.

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
    scale: Annotated[float | Sequence[float], Factors(or_share=True)] = 0.1
    shift: Amount = 1.4
    aspect: Amount = 0.0

    def __call__(self, batch: Tensor) -> Tensor:
        """Transform a batch (B, H, W), (B, C, H, W) or (B, H * W)."""
        images = self._images(batch)
        grid = _grid(self._matrices(images), *images.shape[2:])
        return F.grid_sample(images, grid, align_corners=False).reshape(batch.shape)

    def _matrices(self, images: Tensor) -> Tensor:
        """Random maps from output to input coordinates: (B, 2, 3)."""
        n, _, height, width = images.shape
        u = torch.rand(5, n, device=images.device, dtype=images.dtype) * 2 - 1
        angle = u[0] * math.radians(self.degrees)
        middle, reach = self._scales()
        shear, scale = u[1] * self.shear, middle + u[2] * reach
        cos, sin = angle.cos() / scale, angle.sin() / scale
        dx, dy = u[3] * self.shift * 2 / width, u[4] * self.shift * 2 / height
        aspect = height / width  # the coordinates run from -1 to 1 along both axes
        right, down = (-sin + shear * cos) * aspect, sin / aspect
        rows = [cos, right, dx, down, cos + shear * sin, dy]
        matrices = torch.stack(rows, dim=1).reshape(n, 2, 3)
        return self._stretched(matrices) if self.aspect else matrices

    def _scales(self) -> tuple[float, float]:
        """The middle of the range of scales, and how far it reaches either way."""
        if isinstance(self.scale, Sequence):
            low, high = self.scale
            return (low + high) / 2, (high - low) / 2
        return 1.0, self.scale

    def _stretched(self, matrices: Tensor) -> Tensor:
        """The same maps of images that are made wider and flatter before, or the reverse."""
        u = torch.rand(len(matrices), device=matrices.device, dtype=matrices.dtype) * 2 - 1
        width = torch.exp(u * self.aspect / 2)
        factors = torch.stack([1 / width, width], dim=1)  # (B, 2): input coordinates shrink
        return torch.cat([matrices[:, :, :2] * factors[:, :, None], matrices[:, :, 2:]], dim=2)


@dataclass(eq=False, repr=False)
class RandomIntensity(RandomTransform):
    """Change contrast, brightness and sharpness of each image of a batch by its own random amounts.

    For ``VAE(augment=...)``. In this order x becomes ``x ** exp(g)``, then ``c x``, then
    ``(1 - u) x + u blurred(x)`` with g uniform in [-gamma, gamma], c in [low, high] and u in
    [0, 1]. The channels of an image share its amounts.

    Parameters
    ----------
    gamma : float
        The most that the logarithm of the exponent, a gamma correction, differs from 0. Unless it
        is 0, values must lie in [0, 1].
    gain : (float, float)
        The least and the most of the factor c.
    blur : float
        Standard deviation, in pixels, of a Gaussian blur, cut off at four of them. Near a border
        the weights of the pixels there are add up to 1, so that it does not darken.

    Raises
    ------
    InputError
        When used with arguments out of range, on rows that are no images (flat ones must be
        square) or, with a gamma above 0, on values outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import RandomIntensity
    >>> images = np.full((10, 8, 8), 0.5)
    >>> copies = RandomIntensity(gamma=0, gain=(0.6, 1)).copies(images, random_state=0)
    >>> copies.shape, bool(copies.min() >= 0.3), bool(copies.max() <= 0.5)
    ((10, 8, 8), True, True)
    """

    gamma: Amount = 1.0
    gain: Annotated[Sequence[float], Factors()] = (0.6, 1.0)
    blur: Amount = 0.0

    def __call__(self, batch: Tensor) -> Tensor:
        """Transform a batch (B, H, W), (B, C, H, W) or (B, H * W)."""
        images = self._images(batch)
        u = torch.rand(3, len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
        if self.gamma:
            images = self._unit_values(images) ** torch.exp((u[0] * 2 - 1) * self.gamma)
        low, high = self.gain
        images = images * (low + (high - low) * u[1])
        if self.blur:
            images = torch.lerp(images, _blurred(images, self.blur), u[2])
        return images.reshape(batch.shape)

    def _unit_values(self, images: Tensor) -> Tensor:
        """Images whose values are in [0, 1], but for an earlier transform's rounding."""
        low, high = (float(value) for value in images.aminmax())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise InputError(
                f"{self.label}: gamma={self.gamma} needs values in [0, 1], got "
                f"[{low:g}, {high:g}]; divide images by 255, or set gamma=0"
            )
        return images.clamp(0, 1)


@dataclass(eq=False, repr=False)
class Compose(RandomTransform):
    """Several transforms, one after the other.

    For ``VAE(augment=...)``. It can be saved with a graph if all its transforms are serkit's.

    Parameters
    ----------
    transforms : sequence of callable
        Each from a batch tensor to one of the same shape: `RandomAffine`, `RandomIntensity`, or a
        function of yours.

    Raises
    ------
    InputError
        When used with anything else, or if a transform returns anything else; its place is named.

    Examples
    --------
    >>> import numpy as np
    >>> from serkit.modules import Compose, RandomAffine, RandomIntensity
    >>> augment = Compose([RandomAffine(degrees=5, scale=(0.75, 1.05)), RandomIntensity(gamma=0.5)])
    >>> augment.copies(np.ones((10, 8, 8)), n_copies=2, random_state=0).shape
    (20, 8, 8)
    """

    transforms: Annotated[Sequence[Callable[[Tensor], Tensor]], Transforms()]

    def __call__(self, batch: Tensor) -> Tensor:
        """Transform a batch (B, ...) by each in turn."""
        self.check_options()
        for place, transform in enumerate(self.transforms):
            batch = transformed(transform, batch, f"{self.label}: transforms[{place}]")
        return batch


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Input coordinates of every pixel: maps (B, 2, 3) -> (B, H, W, 2).

    What `F.affine_grid` gives, whose products of many small matrices take ten times as long.
    """
    centres = [(2 * torch.arange(n).to(matrices) + 1) / n - 1 for n in (height, width)]
    y, x = torch.meshgrid(*centres, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)  # (H W, 3)
    coordinates = F.linear(matrices.reshape(-1, 3), pixels)  # (2 B, H W)
    return coordinates.reshape(-1, 2, height, width).permute(0, 2, 3, 1)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) after a Gaussian blur along both axes."""
    down, right = (_blur_weights(n, sigma).to(images) for n in images.shape[2:])
    return down @ images @ right.T


def _blur_weights(n: int, sigma: float) -> Tensor:
    """Weights of n pixels in a line for the blurred value of each, (n, n); rows add up to 1."""
    pixels = torch.arange(n, dtype=torch.float64)
    distances = (pixels[:, None] - pixels).abs() / sigma
    far = distances > 4  # left out, as products with numbers near the least float take far longer
    return torch.softmax((-0.5 * distances**2).masked_fill(far, -torch.inf), dim=1)
