"""Augmentations of a whole batch at once; image and masks move together, each case by its own draw."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError


def augment(images: Tensor, masks: Tensor, kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random symmetries of a batch.

    Args:
        images: B×C×H×W float.
        masks: B×R×H×W (or B×R×K×H×W) uint8.
        kind: ``none``; ``flips`` (each axis with p = 1/2); ``flips_transpose`` (the 8 symmetries of the square);
            ``flips_rotate`` (flips, then a rotation by an angle uniform in ±180°, nearest, zero fill: D-Persona 3.4).
        generator: CPU generator; the draws depend on nothing but it.
    """
    if kind == "none":
        return images, masks
    n = len(images)
    flips = torch.rand(3, n, generator=generator) < 0.5
    images, masks = (_where(flips[0], x.flip(-1), x) for x in (images, masks))
    images, masks = (_where(flips[1], x.flip(-2), x) for x in (images, masks))
    if kind == "flips_transpose":
        if images.shape[-1] != images.shape[-2]:
            raise UserError(
                f"train.augment=flips_transpose needs square images, but these are "
                f"{images.shape[-2]}x{images.shape[-1]}; use --set train.augment=flips"
            )
        images, masks = (_where(flips[2], x.transpose(-1, -2), x) for x in (images, masks))
    elif kind == "flips_rotate":
        angles = (torch.rand(n, generator=generator) * 2 - 1) * math.pi
        images, masks = rotate(images, angles), rotate(masks, angles)
    return images, masks


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate the last two axes about the centre (radians, one angle a case), nearest neighbour, zero fill."""
    height, width = x.shape[-2:]
    flat = x.reshape(len(x), -1, height, width).float()
    cos, sin = torch.cos(angles).to(x.device), torch.sin(angles).to(x.device)
    aspect = height / width
    zero = torch.zeros_like(cos)
    rows = [torch.stack([cos, -sin * aspect, zero], -1), torch.stack([sin / aspect, cos, zero], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(flat.shape), align_corners=False)
    turned = F.grid_sample(flat, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return turned.reshape(x.shape).to(x.dtype)


def _where(chosen: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(chosen.to(a.device).view(-1, *[1] * (a.ndim - 1)), a, b)
