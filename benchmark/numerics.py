"""How the numbers of a training are computed: options that are recorded, and off by default where they change numbers.

``train.precision=bf16`` runs the forward pass of `training_step` under autocast (weights, optimiser, validation and
prediction stay in single precision); ``train.tf32`` lets CUDA round the factors of products to 10 bits of mantissa;
``train.compile`` compiles `training_step`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from ..core.errors import UserError


def apply(config: Mapping[str, Any]) -> None:
    """Set the process-wide switches of a training configuration; cuDNN's default for TF32 is on, the suite's off."""
    tf32 = bool(config.get("tf32", False))
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


def autocast(config: Mapping[str, Any], device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a loss is computed."""
    enabled = config.get("precision", "fp32") == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def compiled(step: Callable[..., Any], config: Mapping[str, Any]) -> Callable[..., Any]:
    """`training_step`, compiled if asked for; the first call compiles.

    Raises (at the call):
        UserError: the compiler cannot be used here or not for this method.
    """
    if not config.get("compile", False):
        return step
    fast = torch.compile(step)

    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return fast(*arguments, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            first = next(filter(None, str(error).strip().splitlines()), type(error).__name__)
            raise UserError(
                f"train.compile=true, but torch.compile fails here ({first}); leave it out or install a C++ compiler"
            ) from error

    return run


def describe(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of these options."""
    return {
        "precision": config.get("precision", "fp32"),
        "tf32": bool(config.get("tf32", False)),
        "channels_last": bool(config.get("channels_last", False)),
        "compile": bool(config.get("compile", False)),
        "processes": int(config.get("processes", 1)),
    }
