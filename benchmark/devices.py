"""Which device a cell runs on."""

from __future__ import annotations

import os

from ..core.errors import UserError


def pick_device(device: str) -> str:
    """``auto`` is CUDA where there is one.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda was given, but torch sees no CUDA device; use --device cpu or install a CUDA build"
        )
    return "cuda" if torch.cuda.is_available() else "cpu"


def available_cores() -> int:
    """Cores this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
