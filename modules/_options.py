"""Checks of constructor arguments, with the module's name and the value in the error."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from ..errors import InputError


def check_option(module: Any, name: str, allowed: Sequence[Any]) -> None:
    """Raise InputError unless the argument is one of `allowed`."""
    value = getattr(module, name)
    if value not in allowed:
        listed = ", ".join(map(repr, allowed))
        raise InputError(f"{module.label}: unknown {name}={value!r}; expected one of {listed}")


def check_count(module: Any, *names: str) -> None:
    """Raise InputError unless the arguments are integers of at least 1."""
    for name in names:
        value = getattr(module, name)
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise InputError(f"{module.label}: {name} must be an integer >= 1, got {value!r}")


def check_number(
    module: Any, *names: str, at_least: float = float("-inf"), above: float = float("-inf")
) -> None:
    """Raise InputError unless the arguments are finite numbers in range."""
    for name in names:
        value = getattr(module, name)
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not at_least <= value < float("inf") or value <= above:
            bound = f"> {above}" if above > float("-inf") else f">= {at_least}"
            raise InputError(f"{module.label}: {name} must be a number {bound}, got {value!r}")
