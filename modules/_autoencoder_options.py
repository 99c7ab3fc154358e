"""Checks of AE's and VAE's constructor arguments, of their rows and of messages from above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from ..errors import InputError, MessageError
from ..messages import Gaussian, Message
from ._options import check_count, check_number, check_option, is_count
from ._training import check_batch_norm, check_training_options


def check_options(module: Any, n_rows: int) -> None:
    """Raise InputError for arguments of an autoencoder that cannot work with `n_rows` rows."""
    check_training_options(module)
    check_count(module, "latent_dim", "patience")
    check_option(module, "net", ("mlp", "conv"))
    check_option(module, "batch_norm", (False, True))
    check_option(module, "likelihood", ("bernoulli", "gaussian"))
    check_option(module, "kl_target", module.kl_targets)
    check_number(module, "validation_fraction", at_least=0)
    if module.alpha is not None and not callable(module.alpha):
        check_number(module, "alpha", at_least=0)
    if module.noise_variance != "learnt":
        check_number(module, "noise_variance", above=0)
    if module.max_grad_norm is not None:
        check_number(module, "max_grad_norm", above=0)
    if (module.encoder is None) != (module.decoder is None):
        raise InputError(f"{module.label}: give both encoder and decoder, or neither")
    for name in ("encoder", "decoder"):
        net = getattr(module, name)
        if net is not None and not isinstance(net, nn.Module):
            raise InputError(f"{module.label}: {name} must be a torch.nn.Module, got {net!r}")
    _check_epochs(module)
    _check_validation(module, n_rows)
    if module.batch_norm and module.encoder is None:
        check_batch_norm(module, n_rows - int(module.validation_fraction * n_rows))


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


def check_range(module: Any, array: np.ndarray) -> None:
    """Raise InputError for rows outside the likelihood's range."""
    if module.likelihood == "bernoulli" and (array.min() < 0 or array.max() > 1):
        raise InputError(
            f"{module.label}: likelihood='bernoulli' needs values in [0, 1], got "
            f"[{array.min():g}, {array.max():g}]; divide images by 255, or use "
            "likelihood='gaussian'"
        )


def check_prior(module: Any, prior: Message | None, n_rows: int) -> None:
    """Raise InputError for a message from the children that does not fit rows or latents."""
    if prior is None:
        return
    if isinstance(prior, Gaussian) and prior.var is None:
        raise MessageError(f"{module.label}: its children sent a Gaussian without a variance")
    dims = (prior.mean if isinstance(prior, Gaussian) else prior.means).shape[1]
    if (prior.n_rows, dims) != (n_rows, module.latent_dim):
        raise InputError(
            f"{module.label}: its children sent a message for {prior.n_rows} rows of {dims} "
            f"dimensions; expected {n_rows} rows of {module.latent_dim}"
        )
