"""Checks of autoencoders' constructor arguments, and of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import nn

from .. import processes
from ..errors import InputError
from ..messages import Data
from ._options import check_count, check_number, check_option, is_count
from ._training import check_batches, check_training_options


def check_options(module: Any, n_rows: int) -> None:
    """Raise InputError for arguments that cannot work with this process's `n_rows` seen rows."""
    check_training_options(module)
    check_count(module, "patience")
    check_option(module, "net", ("mlp", "conv"))
    check_option(module, "batch_norm", (False, True))
    check_option(module, "likelihood", ("bernoulli", "gaussian"))
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
    if not processes.total(n_rows):
        raise InputError(
            f"{module.label}: no row was seen by all of its parents, so there is nothing to learn "
            "from; give some with observed=True"
        )
    _check_validation(module, n_rows)
    n_learnt = n_rows - int(module.validation_fraction * n_rows)
    check_batches(module, n_learnt, batch_norm=module.batch_norm and module.encoder is None)


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


def check_range(module: Any, message: Data) -> None:
    """Raise InputError for rows outside the likelihood's range, of those that were seen."""
    rows = message.array if message.observed is None else message.array[message.observed]
    if module.likelihood == "bernoulli" and len(rows) and (rows.min() < 0 or rows.max() > 1):
        raise InputError(
            f"{module.label}: likelihood='bernoulli' needs values in [0, 1], got "
            f"[{rows.min():g}, {rows.max():g}]; divide images by 255, or use "
            "likelihood='gaussian'"
        )


def check_temperature(module: Any) -> None:
    """Raise InputError unless the temperature is a number above 0, two of them or a function."""
    if callable(module.temperature):
        return
    several = module.temperature
    several = several if isinstance(several, Sequence) and len(several) == 2 else [several]
    if not all(isinstance(value, Real) and 0 < value < float("inf") for value in several):
        raise InputError(
            f"{module.label}: temperature must be a number > 0, a pair of them, or a function of "
            f"update and epoch, got {module.temperature!r}"
        )
