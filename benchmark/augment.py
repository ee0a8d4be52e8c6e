"""Symmetries and full rotations of a batch, drawn per stage and epoch; `augment_cases` has the kinds drawn per case.

Every published result rests on these draws and on the memory order of what is returned (it decides the last bit of the
sums that follow): neither may change.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError


def augment(images: Tensor, masks: Tensor, kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random symmetries of a batch.

    Args:
        images: B×C×H×W float, on the CPU.
        masks: B×R×H×W (or B×R×K×H×W) uint8, on the CPU.
        kind: ``none``; ``flips`` (each axis with p = 1/2); ``flips_transpose`` (the 8 symmetries of the square);
            ``flips_rotate`` (flips, then a rotation by an angle uniform in ±180°, nearest, zero fill: D-Persona 3.4).
        generator: CPU generator; the draws depend on nothing but it.
    """
    if kind == "none":
        return images, masks
    n = len(images)
    flips = torch.rand(3, n, generator=generator) < 0.5
    if kind == "flips_transpose" and images.shape[-1] != images.shape[-2]:
        raise UserError(
            f"train.augment=flips_transpose needs square images, but these are "
            f"{images.shape[-2]}x{images.shape[-1]}; use --set train.augment=flips"
        )
    transpose = flips[2] if kind == "flips_transpose" else None
    images, masks = (_turn(x, flips[0], flips[1], transpose) for x in (images, masks))
    if kind == "flips_rotate":
        angles = (torch.rand(n, generator=generator) * 2 - 1) * math.pi
        images, masks = rotate(images, angles), rotate(masks, angles)
    return images, masks


def _turn(x: Tensor, columns: Tensor, rows: Tensor, transpose: Tensor | None) -> Tensor:
    """Each case copied once through a view of strides: a tenth of the time of `torch.where` on three turned batches.

    With `transpose` the last two axes of the result lie in memory in the other order (see the head of this file).
    """
    source = x.numpy()
    shape = source.shape if transpose is None else (*source.shape[:-2], source.shape[-1], source.shape[-2])
    out = np.empty(shape, source.dtype)
    out = out if transpose is None else out.swapaxes(-1, -2)
    swapped = [False] * len(source) if transpose is None else transpose.tolist()
    for view, target, column, row, swap in zip(source, out, columns.tolist(), rows.tolist(), swapped, strict=True):
        view = view[..., ::-1] if column else view
        view = view[..., ::-1, :] if row else view
        target[...] = view.swapaxes(-1, -2) if swap else view
    return torch.from_numpy(out)


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
