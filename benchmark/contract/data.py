"""Made data for the contract tests: discs that raters outline smaller or larger, the same bits everywhere.

Raters differ by a factor of the radius, from 0.6 (the first) to 1.4 (the last), so that a network can learn each of
them within a few steps and following the wrong one shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.seeding import numpy_generator
from ...datasets.base import DataDescription

RATERS = 3
CASES = 4


def describe(size: int | tuple[int, ...], dims: int = 2, raters: int = RATERS, **changes: Any) -> DataDescription:
    """A description of made data; `size` is one side, or all of them."""
    sides = (size,) * dims if isinstance(size, int) else tuple(size)
    facts = {"identity": "synthetic", "spatial_dims": len(sides), "size": sides, **changes}
    return DataDescription(
        "made-data", raters=raters, rater_ids=tuple(f"rater {r + 1}" for r in range(raters)), **facts
    )


def make_batch(
    data: DataDescription,
    cases: int = CASES,
    seed: int = 0,
    valid: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """A batch as the trainer gives it, of `cases` made cases.

    Args:
        data: channels, classes, raters and size of the cases.
        cases: number of cases B.
        seed: another seed is other cases.
        valid: B×R bool, False for a missing rater (default: none is missing); its mask is 0.
        device: where it lies.
    """
    draw = numpy_generator("made-data", seed=seed)
    field = _field(draw, cases, data.size)
    noise = draw.standard_normal((cases, data.channels, *data.size)) * 0.1
    scale = 1 + 0.5 * np.arange(data.channels).reshape(1, -1, *[1] * len(data.size))
    images = torch.from_numpy((np.tanh(2 * (1 - field))[:, None] * scale + noise).astype(np.float32))
    if len(data.size) == 2:
        images = images.contiguous(memory_format=torch.channels_last)  # as the trainer does
    valid = torch.ones(cases, data.raters, dtype=torch.bool) if valid is None else valid
    masks = torch.from_numpy(_masks(field, data))
    masks *= valid.view(*valid.shape, *[1] * (masks.ndim - 2))
    return {
        "image": images.to(device),
        "masks": masks.to(device),
        "rater_valid": valid.to(device),
        "case_id": [f"case {i + 1}" for i in range(cases)],
        "patient_id": [f"patient {i + 1}" for i in range(cases)],
    }


def fresh(batch: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy whose tensors a method may change."""
    copied = {key: value.clone() if isinstance(value, Tensor) else list(value) for key, value in batch.items()}
    return {**copied, **changes}


def filled(batch: dict[str, Any], value: int) -> dict[str, Any]:
    """The batch with every present rater's mask empty (0) or full (1: of class 1, or of all overlapping classes)."""
    masks = torch.full_like(batch["masks"], value)
    valid = batch["rater_valid"]
    return fresh(batch, masks=masks * valid.view(*valid.shape, *[1] * (masks.ndim - 2)))


def _field(draw: np.random.Generator, cases: int, size: tuple[int, ...]) -> np.ndarray:
    """Cases×size: distance from the centre of a case's disc in units of its radius."""
    sides = np.array(size, float)
    centre = sides * draw.uniform(0.42, 0.58, (cases, len(size)))
    radius = sides.min() * draw.uniform(0.22, 0.3, (cases, *[1] * len(size)))
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in size), indexing="ij"))
    centre = centre.reshape(cases, len(size), *[1] * len(size))
    return np.sqrt(((grid[None] - centre) ** 2).sum(1)) / radius


def _masks(field: np.ndarray, data: DataDescription) -> np.ndarray:
    """Cases×R×size class indices, or cases×R×K×size in {0, 1} of overlapping classes."""
    factors = np.linspace(0.6, 1.4, data.raters) if data.raters > 1 else np.ones(1)
    relative = field[:, None] / factors.reshape(1, -1, *[1] * len(data.size))  # 1 at the rater's outline
    if data.overlapping:
        outlines = 1 - np.arange(data.classes) / (data.classes + 1)  # nested, the first class is the largest
        return (relative[:, :, None] <= outlines.reshape(-1, *[1] * len(data.size))).astype(np.uint8)
    rings = 1 + np.floor((1 - relative) * data.classes).clip(0, data.classes - 1)  # class 1 is the outermost
    return np.where(relative <= 1, rings, 0).astype(np.uint8)
