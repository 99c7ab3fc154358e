"""The check of AE's and VAE's constructor arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import InputError
from ._minibatch import resolve_device
from ._options import (
    check_count,
    check_counts,
    check_number,
    check_option,
    check_random_state,
    is_count,
)


def check_options(module: Any, n_rows: int) -> None:
    """Raise InputError for arguments of an autoencoder that cannot work with `n_rows` rows."""
    check_count(module, "latent_dim", "batch_size", "patience")
    check_random_state(module, module.random_state)
    check_counts(module, "hidden_sizes", empty=True)
    check_counts(module, "filters", empty=False)
    check_option(module, "net", ("mlp", "conv"))
    check_option(module, "likelihood", ("bernoulli", "gaussian"))
    check_option(module, "kl_target", module.kl_targets)
    check_option(module, "precision", ("auto", "bfloat16", "float32"))
    check_number(module, "lr", above=0)
    check_number(module, "weight_decay", "validation_fraction", at_least=0)
    if module.alpha is not None and not callable(module.alpha):
        check_number(module, "alpha", at_least=0)
    if module.noise_variance != "learnt":
        check_number(module, "noise_variance", above=0)
    if module.max_grad_norm is not None:
        check_number(module, "max_grad_norm", above=0)
    if not callable(module.scheduler):
        check_option(module, "scheduler", (None, "cosine", "onecycle"))
    if module.augment is not None and not callable(module.augment):
        raise InputError(f"{module.label}: augment must be callable, got {module.augment!r}")
    if (module.encoder is None) != (module.decoder is None):
        raise InputError(f"{module.label}: give both encoder and decoder, or neither")
    for name in ("encoder", "decoder"):
        net = getattr(module, name)
        if net is not None and not isinstance(net, nn.Module):
            raise InputError(f"{module.label}: {name} must be a torch.nn.Module, got {net!r}")
    _check_epochs(module)
    _check_validation(module, n_rows)
    resolve_device(module.device, module.label)


def _check_epochs(module: Any) -> None:
    several = module.epochs if isinstance(module.epochs, Sequence) else [module.epochs]
    if not several or not all(map(is_count, several)):
        raise InputError(
            f"{module.label}: epochs must be an integer >= 1 or several, got {module.epochs!r}"
        )


def _check_validation(module: Any, n_rows: int) -> None:
    held_out = int(module.validation_fraction * n_rows)
    if module.validation_fraction and held_out not in range(1, n_rows):
        raise InputError(
            f"{module.label}: validation_fraction={module.validation_fraction} of {n_rows} rows "
            "leaves no rows on one side; it must lie between 0 and 1"
        )
