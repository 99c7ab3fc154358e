"""Where nets run, how precisely, and from which seed; arrays as tensors there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from .. import processes
from ..errors import InputError


def resolve_device(device: str, label: str) -> torch.device:
    """The torch device; "auto" is a GPU where there is one.

    Raises
    ------
    InputError
        For an unknown name, or a GPU that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"{label}: unknown device={device!r}; expected 'auto', 'cpu' or 'cuda'"
        ) from None
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError):  # what torch raises varies
        seen = f"sees {torch.cuda.device_count()} GPUs" if found.type == "cuda" else "cannot use it"
        raise InputError(
            f"{label}: device={device!r} asked for, but torch {seen} here; use device='cpu' or "
            "'auto'"
        ) from None
    if found.type == "cuda" and found.index is None:  # threads would each have their own
        return torch.device("cuda", torch.cuda.current_device())
    return found


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast: "auto" asks the processor's features, so runs repeat to the bit."""
    if precision == "float32":
        return False
    if precision == "bfloat16":
        return True
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


@contextmanager
def private_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Run torch's global generators from `seed`, and put their state back afterwards.

    So initialisation, dropout and a user's augmentation repeat, and nobody else notices.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        _seed(seed, device)
        yield


def draw_apart(seed: int, device: torch.device) -> None:
    """From here on draw other numbers in every process; in the first go on as if it were alone."""
    if processes.rank():
        _seed(int(np.random.default_rng([seed, processes.rank()]).integers(2**62)), device)


def _seed(seed: int, device: torch.device) -> None:
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def to_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A float32 copy on a device, of arrays of any memory layout (torch knows no mirrored ones)."""
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32, device=device)


def as_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Rows in float32 on a device; those that already are, are not copied: only read them."""
    contiguous = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.as_tensor(contiguous).to(device, torch.float32)
