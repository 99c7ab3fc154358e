"""Nets through torch.compile, where there is a compiler."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_runs: WeakKeyDictionary[nn.Module, Callable[[nn.Module, Tensor], Tensor]] = WeakKeyDictionary()


def compiled(net: nn.Module, device: torch.device, label: str) -> Callable[[Tensor], Tensor]:
    """A net as a compiled function of the same weights; itself, with a warning, if that fails.

    What it is compiled to, when first called, is kept as long as the net lives: for up to eight
    kinds of batches (sizes, precisions), which is torch's limit; further ones run as they are.
    """
    problem = _problem(device.type)
    if problem is not None:
        warnings.warn(
            f"{label}: compile=True, but torch cannot compile here ({problem}); training goes on "
            "without it",
            stacklevel=2,
        )
        return net
    if net not in _runs:

        def run(net: nn.Module, x: Tensor) -> Tensor:
            return net(x)

        # torch compiles each code object only so often: one of its own for every net
        run.__code__ = run.__code__.replace(co_name="run")
        _runs[net] = torch.compile(run)
    return partial(_runs[net], net)


@cache
def _problem(device_type: str) -> str | None:
    """Why nothing can be compiled for a device, found out by trying; None if it can."""
    try:
        torch.compile(torch.square)(torch.ones(2, device=device_type))
    except (RuntimeError, OSError) as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    return None
