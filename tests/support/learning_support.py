"""Small problems whose answer is known, for tests that a method learns."""

from __future__ import annotations

from typing import Any

import torch
from multirater.methods.base import Method
from torch import Tensor


def areas_after_learning_whose_mask_is_wanted(method: Method, steps: int) -> tuple[Tensor, Tensor]:
    """Three raters draw the same disc 3 pixels smaller, as it is, and 3 pixels larger.

    Returns:
        Areas of 24 new images in the masks for each rater, as predicted and as drawn.
    """
    optimiser = torch.optim.Adam(method.parameters_for(None), 3e-3)
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")

    def discs(count: int) -> dict[str, Any]:
        y, x = torch.randint(24, 40, (2, count, 1, 1), generator=generator)
        squared = (row - y) ** 2 + (column - x) ** 2
        radius = torch.randint(8, 14, (count, 1, 1), generator=generator)
        image = (squared <= radius**2) + 0.3 * torch.randn(count, 64, 64, generator=generator)
        masks = torch.stack([squared <= (radius + more) ** 2 for more in (-3, 0, 3)], 1)
        valid = torch.ones(count, 3, dtype=torch.bool)
        return {"image": image[:, None], "masks": masks.to(torch.uint8), "rater_valid": valid}

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 10)
        loss, _ = method.training_step(discs(8))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    batch = discs(24)
    maps = method.predict(batch["image"], 2).raters
    assert maps is not None
    return (maps > 0.5).sum((0, 2, 3)), batch["masks"].sum((0, 2, 3))


def four_discs() -> tuple[Tensor, Tensor, dict[str, Any]]:
    """One image of 32×32 with four concentric answers.

    Returns:
        The image 1×1×32×32, its masks 1×4×32×32, and a batch of eight copies.
    """
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    distance = ((row - 16) ** 2 + (column - 16) ** 2).sqrt()
    masks = torch.stack([distance < radius for radius in (4, 6, 9, 12)])[None].to(torch.uint8)
    image = (distance / 23)[None, None]
    batch: dict[str, Any] = {
        "image": image.expand(8, -1, -1, -1),
        "masks": masks.expand(8, -1, -1, -1),
        "rater_valid": torch.ones(8, 4, dtype=torch.bool),
    }
    return image, masks, batch
