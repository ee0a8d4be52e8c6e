"""Small PHiSegs and batches for its tests."""

from __future__ import annotations

from typing import Any

import torch
from multirater.datasets.base import DataDescription
from multirater.methods import create_method
from multirater.methods.phiseg import PHiSeg
from torch import Tensor, nn

SMALL: dict[str, Any] = {"widths": [4, 6, 8, 8], "latent_levels": 3, "encoder_convs": 1}
SIZE = 16


def description(raters: int = 3, **changes: Any) -> DataDescription:
    ids = tuple(str(r) for r in range(raters))
    return DataDescription("tiny", 1, raters=raters, rater_ids=ids, **{"size": (SIZE, SIZE), **changes})


def build(data: DataDescription | None = None, **options: Any) -> PHiSeg:
    torch.manual_seed(0)
    return create_method("phiseg", data or description(), **{**SMALL, **options})


def make_batch(size: int = 4, raters: int = 3, pixels: int = SIZE, seed: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(size, 1, pixels, pixels, generator=generator),
        "masks": (torch.rand(size, raters, pixels, pixels, generator=generator) > 0.6).to(torch.uint8),
        "rater_valid": torch.ones(size, raters, dtype=torch.bool),
    }


def gradients(method: PHiSeg, batch: dict[str, Any], seed: int = 3) -> list[Tensor]:
    method.zero_grad()
    torch.manual_seed(seed)
    method.training_step(batch, "main")[0].backward()
    return [p.grad.clone() for p in method.parameters()]


def give_batch_statistics(method: PHiSeg, seed: int = 2) -> None:
    """Running statistics, scales and shifts as of a trained network, so that no sample looks like another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.3, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)


def noise_of(method: PHiSeg, rows: int, dtype: torch.dtype = torch.float32, size: int = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    sizes = method.latent_sizes(torch.zeros(1, 1, size, size))
    return [torch.randn(rows, method.latent, *hw, generator=generator).to(dtype) for hw in sizes]
