"""Checks of constructor arguments, with the module's name and the value in the error."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from .errors import InputError


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
        if not is_count(value):
            raise InputError(f"{module.label}: {name} must be an integer >= 1, got {value!r}")


def check_counts(module: Any, name: str, *, empty: bool) -> None:
    """Raise InputError unless the argument is a sequence of integers of at least 1."""
    value = getattr(module, name)
    fits = isinstance(value, Sequence) and all(map(is_count, value)) and (empty or len(value) > 0)
    if not fits:
        raise InputError(
            f"{module.label}: {name} must be a sequence of integers >= 1, got {value!r}"
        )


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 1."""
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def check_n_samples(module: Any, n_samples: Any) -> None:
    """Raise InputError unless a number of samples is an integer of at least 1."""
    if not is_count(n_samples):
        raise InputError(f"{module.label}: n_samples must be an integer >= 1, got {n_samples!r}")


def check_component(module: Any, component: Any, n_components: int) -> None:
    """Raise InputError unless there is a component of that number."""
    if not isinstance(component, Integral) or component not in range(n_components):
        raise InputError(
            f"{module.label}: component={component} does not exist; they are 0 to "
            f"{n_components - 1}"
        )


def check_random_state(module: Any, seed: Any) -> None:
    """Raise InputError unless a seed is None or an integer of at least 0."""
    if seed is not None and not (isinstance(seed, Integral) and seed >= 0):
        raise InputError(f"{module.label}: random_state must be an integer >= 0, got {seed!r}")


def as_numbers(module: Any, name: str, wanted: str = "finite numbers") -> np.ndarray:
    """The argument as a float64 array; raise InputError unless all are finite numbers."""
    try:
        array = np.asarray(getattr(module, name), dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not np.isfinite(array).all():
        raise InputError(
            f"{module.label}: {name} must be {wanted}, got {getattr(module, name)!r:.60}"
        )
    return array


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
