"""Where tensors are computed: on a processor or a GPU."""

from __future__ import annotations

import torch

from ...errors import InputError


def resolve_device(device: str, label: str) -> torch.device:
    """The torch device of that name; "auto" is a GPU where there is one.

    InputError for an unknown name, or a GPU that is not there.
    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise InputError(
            f"{label}: unknown device={device!r:.60}; expected 'auto', 'cpu' or 'cuda'"
        ) from None
    try:
        torch.zeros(1, device=resolved).item()  # which the device "meta" cannot
    except (RuntimeError, AssertionError, ImportError):  # what torch raises varies
        gpus = f"sees {torch.cuda.device_count()} GPUs"
        reason = gpus if resolved.type == "cuda" else "cannot use it"
        raise InputError(
            f"{label}: device={device!r} asked for, but torch {reason} here; use device='cpu' or "
            "'auto'"
        ) from None
    if resolved.type == "cuda" and resolved.index is None:  # threads would each have their own
        return torch.device("cuda", torch.cuda.current_device())
    return resolved
