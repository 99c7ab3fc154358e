"""Default encoders and decoders, and the likelihoods at the decoder's end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from ...options import called

_MOST_COLOURS = 4  # channels of a photograph, with one for what is transparent


def mlp_pair(
    n_features: int, hidden_sizes: Sequence[int], n_codes: int, latent_dim: int, batch_norm: bool
) -> tuple[nn.Module, nn.Module]:
    """Encoder (B, ...) -> (B, n_codes) and mirrored decoder (B, latent_dim) -> (B, n_features)."""
    encoder = nn.Sequential(nn.Flatten(), *_mlp([n_features, *hidden_sizes, n_codes], batch_norm))
    decoder = nn.Sequential(*_mlp([latent_dim, *reversed(hidden_sizes), n_features], batch_norm))
    return encoder, decoder


def _mlp(sizes: Sequence[int], batch_norm: bool) -> list[nn.Module]:
    """Hidden layers, then a linear one."""
    n_in, n_out = map(int, sizes[-2:])
    return [*_hidden_layers(sizes[:-1], batch_norm), nn.Linear(n_in, n_out)]


def _hidden_layers(sizes: Sequence[int], batch_norm: bool) -> list[nn.Module]:
    """Linear layers, each with its activation."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(map(int, sizes)):
        linear = nn.Linear(n_in, n_out, bias=not batch_norm)
        layers += [linear, *_activation(nn.BatchNorm1d, n_out, batch_norm)]
    return layers


def _activation(norm: type[nn.Module], n_channels: int, batch_norm: bool) -> list[nn.Module]:
    """ReLU, after batch normalisation if wanted, which makes the bias before it idle."""
    return [norm(n_channels), nn.ReLU()] if batch_norm else [nn.ReLU()]


class ImageView(nn.Module):
    """Rows of any layout as images: (B, ...) -> (B, C, H, W)."""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = image_shape

    def forward(self, rows: Tensor) -> Tensor:
        """(B, ...) -> (B, C, H, W)."""
        return rows.reshape(rows.shape[0], *self.image_shape)  # len(rows) would freeze it in export


class Crop(nn.Module):
    """The first H rows and W columns of images: undoes the rounding up of strided layers."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, H, W)."""
        return images[..., : self.height, : self.width]


def conv_pair(
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    hidden_sizes: Sequence[int],
    n_codes: int,
    latent_dim: int,
    batch_norm: bool,
) -> tuple[nn.Module, nn.Module]:
    """Strided convolutions, which halve images of any size, then an MLP; the mirror image back."""
    channels, height, width = image_shape
    filters, grid = [*map(int, filters)], _grid(image_shape, len(filters))
    n_flat, stages = filters[-1] * math.prod(grid), 2 ** len(filters)
    padded = nn.ZeroPad2d((0, grid[1] * stages - width, 0, grid[0] * stages - height))
    down: list[nn.Module] = [ImageView(image_shape), padded]
    for n_in, n_out in pairwise([channels, *filters]):
        halving = nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=not batch_norm)
        down += [halving, *_activation(nn.BatchNorm2d, n_out, batch_norm)]
    down += [nn.Flatten(), *_mlp([n_flat, *hidden_sizes, n_codes], batch_norm)]

    up = _hidden_layers([latent_dim, *reversed(hidden_sizes), n_flat], batch_norm)
    up += [nn.Unflatten(1, (filters[-1], *grid))]
    for n_in, n_out in pairwise(reversed(filters)):
        doubling = nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1, bias=not batch_norm)
        up += [doubling, *_activation(nn.BatchNorm2d, n_out, batch_norm)]
    up += [nn.ConvTranspose2d(filters[0], channels, 4, stride=2, padding=1), Crop(height, width)]
    return _fast(nn.Sequential(*down)), _fast(nn.Sequential(*up))


def _grid(image_shape: tuple[int, int, int], n_halvings: int) -> tuple[int, int]:
    """Height and width of images that have been halved, each time rounded up."""
    return -(-image_shape[1] // 2**n_halvings), -(-image_shape[2] // 2**n_halvings)


def _fast(net: nn.Module) -> nn.Module:
    """Weights in the memory layout in which convolutions are fastest."""
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def mlp(n_features: int, hidden_sizes: Sequence[int], n_outputs: int) -> nn.Module:
    """Hidden layers with ReLU from flat rows to outputs."""
    return nn.Sequential(nn.Flatten(), *_mlp([n_features, *hidden_sizes, n_outputs], False))


def conv_classifier(
    image_shape: tuple[int, int, int],
    filters: Sequence[int],
    hidden_sizes: Sequence[int],
    n_classes: int,
) -> nn.Module:
    """Convolutions and max-pooling, which halve images of any size, then an MLP to logits."""
    filters = [*map(int, filters)]
    n_flat = filters[-1] * math.prod(_grid(image_shape, len(filters)))
    layers: list[nn.Module] = [ImageView(image_shape)]
    for n_in, n_out in pairwise([image_shape[0], *filters]):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)]
        layers += [*_activation(nn.BatchNorm2d, n_out, True), nn.MaxPool2d(2, ceil_mode=True)]
    layers += [nn.Flatten(), *_mlp([n_flat, *hidden_sizes, n_classes], True)]
    return _fast(nn.Sequential(*layers))


def image_shape_of(row_shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(C, H, W) of rows shaped (H, W), (C, H, W) or flat and square; None for anything else."""
    if len(row_shape) == 3:
        return row_shape
    if len(row_shape) == 2:
        return (1, *row_shape)
    side = math.isqrt(row_shape[0])
    return (1, side, side) if len(row_shape) == 1 and side**2 == row_shape[0] else None


def needed_image_shape(row_shape: tuple[int, ...], what: str) -> tuple[int, int, int]:
    """(C, H, W) of rows as `image_shape_of` reads it; raise InputError if they are no images.

    Nor are those with their channels last, which would be many channels of narrow strips.
    """
    image_shape = image_shape_of(row_shape)
    if image_shape is None:
        raise InputError(
            f"{what} needs images (N, H, W), (N, C, H, W) or flat and square, got rows of shape "
            f"{row_shape}"
        )
    if image_shape[2] <= _MOST_COLOURS < min(image_shape[:2]):
        raise InputError(
            f"{what} needs images (N, C, H, W), got rows of shape {row_shape}, whose channels seem "
            "to be last; move them by rows.transpose(0, 3, 1, 2)"
        )
    return image_shape


def copy_supervised(
    net: nn.Module,
    row_shape: tuple[int, ...],
    n_outputs: int,
    outputs: str,
    label: str,
    n_steps: int | None = None,
) -> nn.Module:
    """A copy of a user's net; InputError if two rows of zeros show that it does not fit.

    With `n_steps` rows are sequences, and outputs are wanted of each step.
    """
    if not isinstance(net, nn.Module):
        raise InputError(f"{label}: net must be a torch.nn.Module, got {net!r}")
    result = _tried("net", net, row_shape, label)
    _check_tensor("net", result, label)
    steps = () if n_steps is None else (n_steps,)
    if result.shape != (2, *steps, n_outputs):
        wanted = ", ".join(map(str, ("N", *steps, n_outputs)))
        raise InputError(
            f"{label}: net must return ({wanted}) for {n_outputs} {outputs}, got "
            f"{tuple(result.shape)} for two rows"
        )
    return deepcopy(net)


def own_net(name: str, net: Callable[[Tensor], Tensor], label: str) -> Callable[[Tensor], Tensor]:
    """A user's net as a function whose errors, and outputs of other lengths, are told by name."""

    def outputs_of(rows: Tensor) -> Tensor:
        output = called(f"{label}: {name}", net, rows)
        _check_tensor(name, output, label)
        if len(output) != len(rows):
            raise InputError(
                f"{label}: {name} must return as many rows as it gets, but made {len(output)} of "
                f"{len(rows)}"
            )
        return output

    return outputs_of


def learnable(net: nn.Module, label: str, what: str) -> list[nn.Parameter]:
    """The parameters that training may change, each once; InputError if there are none."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError(
            f"{label}: no parameter of {what} may be learnt; set requires_grad of some"
        )
    return parameters


class Joined(nn.Module):
    """A user's encoder that returns ``(mean, log_var)``, (B, D) each, with both side by side."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, rows: Tensor) -> Tensor:
        """(B, ...) -> (B, 2 D)."""
        return torch.cat(tuple(self.encoder(rows)), dim=1)


def alone(output: Tensor) -> tuple[Tensor, ...]:
    """An output as the only one."""
    return (output,)


def probabilities(logits: Tensor) -> tuple[Tensor, ...]:
    """Class probabilities of logits (B, K), as the only output."""
    return (logits.softmax(dim=1),)


class Whole(nn.Module):
    """A net as `serkit.Graph.export` writes it: `made` is what is made of its output.

    It takes the rows of each parent, those of several flat and side by side.
    """

    def __init__(
        self, net: nn.Module, made: Callable[[Tensor], tuple[Tensor, ...]] = alone
    ) -> None:
        super().__init__()
        self.net, self.made = deepcopy(net).cpu().eval(), made

    def forward(self, *rows: Tensor) -> tuple[Tensor, ...]:
        """(B, ...) for each parent -> (B, ...), several."""
        x = rows[0] if len(rows) == 1 else torch.cat([r.flatten(1) for r in rows], dim=1)
        return self.made(self.net(x.float()).float())


def checked_encoder(
    encoder: nn.Module, row_shape: tuple[int, ...], n_codes: int, latent_dim: int, label: str
) -> nn.Module:
    """A user's encoder; InputError if two rows of zeros show that it does not fit."""
    if isinstance(_tried("encoder", encoder, row_shape, label), tuple | list):
        encoder = Joined(encoder)
    codes = _tried("encoder", encoder, row_shape, label)
    _check_tensor("encoder", codes, label)
    if codes.shape != (2, n_codes):
        raise InputError(
            f"{label}: encoder must return (N, {n_codes}) for {latent_dim} latents, got "
            f"{tuple(codes.shape)} for two rows"
        )
    return encoder


def checked_decoder(
    decoder: nn.Module, row_shape: tuple[int, ...], latent_dim: int, label: str
) -> nn.Module:
    """A user's decoder; InputError if two rows of zeros show that it does not fit."""
    n_features = math.prod(row_shape)
    output = _tried("decoder", decoder, (latent_dim,), label, f" for {latent_dim} latents")
    _check_tensor("decoder", output, label)
    if len(output) != 2 or output[0].numel() != n_features:
        raise InputError(
            f"{label}: decoder must return {n_features} values per row, as in {row_shape}, got "
            f"{tuple(output.shape)} for two rows"
        )
    return decoder


def ends_in_probabilities(decoder: nn.Module, latent_dim: int) -> bool:
    """Whether a decoder seems to end in a Sigmoid: what it makes of far latents is in [0, 1].

    Logits of latents so far out are large, and some of them negative.
    """
    far = 1e4 * torch.eye(latent_dim)
    with torch.no_grad():
        values = deepcopy(decoder).cpu().eval()(torch.cat([far, -far])).float()
    return bool((values >= 0).all() and (values <= 1).all() and values.std() > 0)


def _check_tensor(name: str, output: object, label: str) -> None:
    """Raise InputError unless a user's net returned a tensor with rows."""
    if not isinstance(output, Tensor) or not output.ndim:
        raise InputError(
            f"{label}: {name} must return a tensor with a row for each of its rows, got "
            f"{type(output).__name__}"
        )


def _tried(
    name: str, net: nn.Module, row_shape: tuple[int, ...], label: str, why: str = ""
) -> Tensor:
    """What a user's net makes of two rows of zeros."""
    try:
        trial = deepcopy(net).eval()
    except Exception as error:  # of what the net holds
        raise InputError(f"{label}: {name} cannot be copied: {error!s:.200}") from None
    device = next((p.device for p in trial.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            return trial(torch.zeros(2, *row_shape, device=device))
    except Exception as error:  # of the net's own code
        raise InputError(
            f"{label}: {name} cannot take rows of shape {row_shape}{why}: {error}"
        ) from None


class Bernoulli(nn.Module):
    """p(x | z) for values in [0, 1], the decoder's output being logits."""

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Sum over d of x_d log p_d + (1 - x_d) log(1 - p_d): (B, D), (B, D) -> (B,)."""
        return -F.binary_cross_entropy_with_logits(output, x, reduction="none").sum(dim=1)

    def mean(self, output: Tensor) -> Tensor:
        """Probabilities."""
        return output.sigmoid()


class GaussianNoise(nn.Module):
    """p(x | z) = N(output, variance I), the variance a number, or "learnt" from 1 on."""

    def __init__(self, variance: float | str) -> None:
        super().__init__()
        learnt = variance == "learnt"
        log_var = 0.0 if learnt else math.log(float(variance))
        self.log_var = nn.Parameter(torch.tensor(log_var), requires_grad=learnt)

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Log density of each row: (B, D), (B, D) -> (B,)."""
        scaled = (x - output) ** 2 / self.log_var.exp()  # (B, D)
        return -0.5 * (scaled + self.log_var + math.log(2 * math.pi)).sum(dim=1)

    def mean(self, output: Tensor) -> Tensor:
        """The output itself."""
        return output
