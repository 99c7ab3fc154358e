"""How AE and VAE are built and trained: nets, optimiser, target of the pull, epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, TrainingError
from ..messages import Gaussian, Message, Mixture
from ._minibatch import DivergedError
from ._nets import Bernoulli, GaussianNoise, conv_pair, copy_pair, mlp_pair, needed_image_shape
from ._training import run_epochs

if TYPE_CHECKING:
    from ._autoencoder import Autoencoder

Pull = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def build_nets(module: Autoencoder, row_shape: tuple[int, ...]) -> nn.ModuleDict:
    """New encoder, decoder and likelihood for rows of `row_shape`; a user's own are copied."""
    latent_dim, n_codes = module.latent_dim, module.codes_per_latent * module.latent_dim
    sizes = (module.hidden_sizes, n_codes, latent_dim, module.batch_norm)
    if module.encoder is not None:
        given = (module.encoder, module.decoder)
        encoder, decoder = copy_pair(*given, row_shape, n_codes, latent_dim, module.label)
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


def choose_target(
    kl_target: str, prior: Message | None, n_rows: int, latent_dim: int
) -> Gaussian | Mixture:
    """What `kl_target` makes of the children's message; N(0, I) where there is none."""
    if prior is None or kl_target == "standard_normal":
        return Gaussian.standard(n_rows, latent_dim)
    if isinstance(prior, Mixture) and kl_target != "mixture":
        return prior.assigned() if kl_target == "assigned" else prior.expected()
    return prior


def gaussian_tensors(target: Gaussian, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and variance of a message as float32 tensors (N, D) on a device."""
    both = (target.mean, target.var)
    mean, var = (torch.tensor(values, dtype=torch.float32, device=device) for values in both)
    return mean, var


def train(module: Autoencoder, rows: Tensor, pull: Pull) -> dict[str, Any]:
    """Run the epochs of one update on `rows` (N, ...); returns the terms of the epoch kept.

    Raises
    ------
    TrainingError
        If the loss becomes NaN or infinite; the last weights with a finite one are put back.
    """
    learnt, held_out = _split_rows(module, len(rows), rows.device)
    update, n_before = len(module.history_), len(module.loss_curve_)

    def terms(x: Tensor, index: Tensor, epoch: int) -> dict[str, Tensor]:
        return module._terms(x, index, _alpha(module, update, epoch), pull)

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


def _split_rows(module: Autoencoder, n_rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows held out, the same in every update."""
    order = np.random.default_rng(module.seed_).permutation(n_rows)
    n_held_out = int(module.validation_fraction * n_rows)
    learnt, held_out = np.sort(order[n_held_out:]), np.sort(order[:n_held_out])
    return torch.tensor(learnt, device=device), torch.tensor(held_out, device=device)


def _alpha(module: Autoencoder, update: int, epoch: int) -> float:
    if callable(module.alpha):
        weight = module.alpha(update, epoch)
        if not isinstance(weight, Real):
            raise InputError(f"{module.label}: alpha must return a number, got {weight!r}")
        return float(weight)
    return module.default_alpha if module.alpha is None else module.alpha
