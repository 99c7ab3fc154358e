"""How autoencoders are built and trained: nets, optimiser, rows, epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, TrainingError
from ..messages import Message
from ._minibatch import DivergedError
from ._nets import Bernoulli, GaussianNoise, conv_pair, copy_pair, mlp_pair, needed_image_shape
from ._rows import all_seen
from ._training import run_epochs

if TYPE_CHECKING:
    from ._autoencoder import Autoencoder

Pull = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def build_nets(module: Autoencoder, row_shape: tuple[int, ...]) -> nn.ModuleDict:
    """New encoder, decoder and likelihood for rows of `row_shape`; a user's own are copied."""
    n_latents, n_codes = module.size, module.codes_per_latent * module.size
    sizes = (module.hidden_sizes, n_codes, n_latents, module.batch_norm)
    if module.encoder is not None:
        given = (module.encoder, module.decoder)
        encoder, decoder = copy_pair(*given, row_shape, n_codes, n_latents, module.label)
    elif module.net == "conv":
        image_shape = needed_image_shape(row_shape, f"{module.label}: net='conv'")
        encoder, decoder = conv_pair(image_shape, module.filters, *sizes)
    else:
        encoder, decoder = mlp_pair(math.prod(row_shape), *sizes)
    if module.likelihood == "bernoulli":
        likelihood: nn.Module = Bernoulli()
    else:
        learnt = module.noise_variance == "learnt"
        likelihood = GaussianNoise(1.0 if learnt else module.noise_variance, learnt)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder, "likelihood": likelihood})


def make_optimizer(module: Autoencoder) -> torch.optim.Optimizer:
    """AdamW over all that is learnt; a learnt noise variance does not decay."""
    nets = module.nets_
    noise = [p for p in nets["likelihood"].parameters() if p.requires_grad]
    pair = [*nets["encoder"].parameters(), *nets["decoder"].parameters()]
    groups = [{"params": [p for p in pair if p.requires_grad]}]
    groups += [{"params": noise, "weight_decay": 0.0}] if noise else []
    return torch.optim.AdamW(groups, lr=module.lr, weight_decay=module.weight_decay, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a state dict, its tensors in the memory layout of their parameters.

    Fused steps go through both in the order of memory.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, values in moments.items():
            if values.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(values)


def seen_rows(inputs: Sequence[Message], n_rows: int) -> np.ndarray:
    """Numbers of the rows that every parent saw."""
    seen = all_seen(inputs)
    return np.arange(n_rows) if seen is None else np.flatnonzero(seen)


def train(
    module: Autoencoder, rows: np.ndarray, seen: np.ndarray, pull: Pull, device: torch.device
) -> dict[str, Any]:
    """Run the epochs of one update on the rows numbered `seen` of `rows` (N, ...).

    Returns
    -------
    dict
        The terms of the epoch kept.

    Raises
    ------
    TrainingError
        If the loss becomes NaN or infinite; the last weights with a finite one are put back.
    """
    learnt, held_out = _split_rows(module, seen, device)
    update, n_before = len(module.history_), len(module.loss_curve_)

    def terms(x: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
        return _loss_terms(module, x, index, update, epoch, pull)

    def on_epoch(terms: dict[str, float]) -> bool:
        epoch = len(module.loss_curve_) - n_before + 1
        module.loss_curve_.append({"update": update + 1, "epoch": epoch, **terms})
        return bool(module.on_epoch and module.on_epoch(module, terms))

    try:
        return run_epochs(
            module,
            module.nets_,
            terms,
            rows,
            module.optimizer_,
            device=device,
            bfloat16=module.bfloat16_,
            learnt=learnt,
            held_out=held_out,
            epochs=module.n_epochs,
            patience=module.patience,
            max_grad_norm=module.max_grad_norm,
            on_epoch=on_epoch,
        )
    except DivergedError as diverged:
        module.optimizer_ = make_optimizer(module)  # the old one's moments are spoilt
        raise TrainingError(
            f"{module.label}: {diverged} of update {update + 1}; the last weights with a finite "
            f"loss are kept. Lower lr={module.lr}, or set max_grad_norm"
        ) from None
    finally:
        module.nets_.eval()


def _loss_terms(
    module: Autoencoder, x: Tensor, index: Tensor, update: int, epoch: int, pull: Pull
) -> dict[str, Tensor]:
    """Scalar terms of a batch, means over its rows; ``"loss"`` is the one to minimise."""
    mean, rest = module._split(module.net_of("encoder")(x))
    reconstruction = -module._expected_log_likelihood(x, mean, rest, update, epoch).mean()
    divergence = pull(index, mean, rest).mean()
    given = module.default_alpha if module.alpha is None else module.alpha
    alpha = scheduled(module, "alpha", given, update, epoch)
    return {
        "loss": reconstruction + alpha * divergence,
        "reconstruction": reconstruction,
        module.divergence: divergence,
    }


def _split_rows(
    module: Autoencoder, seen: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows held out, the same in every update."""
    order = np.random.default_rng(module.seed_).permutation(len(seen))
    n_held_out = int(module.validation_fraction * len(seen))
    learnt, held_out = np.sort(seen[order[n_held_out:]]), np.sort(seen[order[:n_held_out]])
    return torch.tensor(learnt, device=device), torch.tensor(held_out, device=device)


def scheduled(
    module: Autoencoder,
    name: str,
    value: float | Callable[[int, int], float],
    update: int,
    epoch: int,
) -> float:
    """An argument's value in an epoch, where it may be a function of update and epoch.

    Raises
    ------
    InputError
        If the function returns no number.
    """
    if not callable(value):
        return value
    number = value(update, epoch)
    if not isinstance(number, Real):
        raise InputError(f"{module.label}: {name} must return a number, got {number!r}")
    return float(number)


def temperature_of(module: Any, update: int, epoch: int) -> float:
    """Temperature of the relaxation in an epoch.

    Raises
    ------
    InputError
        If the user's function returns no number above 0.
    """
    if isinstance(module.temperature, Sequence):
        first, last = module.temperature
        afresh = update == 0 or not module.warm_start
        share = epoch / max(module.n_epochs - 1, 1) if afresh else 1.0
        return first * (last / first) ** share
    temperature = scheduled(module, "temperature", module.temperature, update, epoch)
    if not temperature > 0:
        raise InputError(f"{module.label}: temperature must be above 0, got {temperature}")
    return temperature
