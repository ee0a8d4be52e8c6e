"""Context managers that change the mode of modules and put it back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode (running batch-norm statistics, no dropout); every submodule's own mode comes back afterwards."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def without_parameter_gradients(*modules: nn.Module) -> Iterator[None]:
    """Parameters are constants of the graphs built inside; gradients still flow through to the inputs."""
    required = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in required:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in required:
            parameter.requires_grad_(True)
