"""Augmentations drawn per case and epoch: what a case becomes does not depend on the batch it stands in.

All symmetries, rotations, scalings, shifts and displacements of a case are one map from target to source pixels,
applied once to the whole batch: images linearly, masks to the nearest pixel, zero outside. Angles are those of the
pixel grid.
The elastic part is MONAI's ``Rand2DElastic`` (control points, smooth upsampling) with one call a batch. MONAI's own
transforms work on one case at a time; its batched ``AffineTransform`` and ``Warp`` wrap the same sampler and take the
masks through float32 (timings: tests/perf/test_perf_augment.py).

Slices of a volume (B×C×D×H×W) move together in plane.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError

_CONTROL = 6  # control points a side of the elastic part
_DISPLACEMENT = 0.02  # their standard deviation, in sides of the image
_SYMMETRIES = frozenset({"flips", "transpose"})
_BENDING = frozenset({"rotate20", "rotate180", "scale", "shift", "elastic"})


def augment_cases(
    images: Tensor, masks: Tensor, parts: Collection[str], streams: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """Random views of a batch.

    Args:
        images: B×C×H×W or B×C×D×H×W float32.
        masks: B×R×… uint8, the last two axes those of the images.
        parts: names from `augment_kinds.PARTS`.
        streams: one generator a case. Every part has its own place in the stream, so that adding one changes no draw
            of another.

    Raises:
        UserError: ``transpose`` of images that are not square.
    """
    height, width = images.shape[-2:]
    if "transpose" in parts and height != width:
        raise UserError(
            f"train.augment with transpose needs square images, but these are {height}x{width}; leave transpose out"
        )
    uniform = torch.from_numpy(np.stack([s.random(16, dtype=np.float32) for s in streams]))
    control = torch.from_numpy(np.stack([s.standard_normal((2, _CONTROL, _CONTROL), np.float32) for s in streams]))
    if (_SYMMETRIES | _BENDING).intersection(parts):
        rows, columns = _source(uniform, control, parts, height, width)
        masks = _nearest(masks, rows, columns)
        images = (_linear if _BENDING.intersection(parts) else _nearest)(images, rows, columns)
    if "gamma" in parts or "contrast" in parts or "noise" in parts:
        images = _intensity(images, uniform, parts, streams)
    return images, masks


def _source(uniform: Tensor, control: Tensor, parts: Collection[str], height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column (B×H×W, in pixels) from which each target pixel is taken.

    Written out by element: a matrix product may round by the size of the batch.
    """
    angle = torch.zeros(len(uniform))
    if "rotate20" in parts or "rotate180" in parts:
        angle = (uniform[:, 3] * 2 - 1) * math.radians(20 if "rotate20" in parts else 180)
    flip = torch.where(uniform[:, :2] < 0.5, -1.0, 1.0) if "flips" in parts else torch.ones(len(uniform), 2)
    shrink = torch.exp2((uniform[:, 4] * 2 - 1) * -math.log2(1.25)) if "scale" in parts else torch.ones(len(uniform))
    cos, sin = torch.cos(angle) * shrink, torch.sin(angle) * shrink
    row, column = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    row, column = row.view(1, -1, 1), column.view(1, 1, -1)
    if "transpose" in parts:
        swap = (uniform[:, 2] < 0.5).view(-1, 1, 1)
        row, column = torch.where(swap, column, row), torch.where(swap, row, column)
    cos, sin, flip_row, flip_column = (x.view(-1, 1, 1) for x in (cos, sin, flip[:, 0], flip[:, 1]))
    row, column = row * flip_row, column * flip_column
    rows, columns = row * cos - column * sin, row * sin + column * cos
    if "elastic" in parts:
        side = torch.tensor([height, width]).view(1, 2, 1, 1) * _DISPLACEMENT
        moved = F.interpolate(control * side, size=(height, width), mode="bicubic", align_corners=True)
        rows, columns = rows + moved[:, 0], columns + moved[:, 1]
    offset = torch.tensor([(height - 1) / 2, (width - 1) / 2])
    offset = offset + (uniform[:, 5:7] * 0.2 - 0.1) * torch.tensor([height, width]) if "shift" in parts else offset
    offset = offset.expand(len(uniform), 2)
    return rows + offset[:, 0].view(-1, 1, 1), columns + offset[:, 1].view(-1, 1, 1)


def _linear(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    grid = torch.stack([columns * (2 / width) + (1 / width - 1), rows * (2 / height) + (1 / height - 1)], -1)
    flat = images.reshape(len(images), -1, height, width)
    moved = F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.reshape(images.shape)


def _nearest(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bytes are gathered as they are: for `grid_sample` they would have to become floats."""
    height, width = values.shape[-2:]
    row, column = rows.round().long(), columns.round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1).unsqueeze(1)
    planes = values.reshape(len(values), -1, height * width)
    taken = planes.gather(2, index.expand(planes.shape)) * inside.flatten(1).unsqueeze(1)
    return taken.reshape(values.shape)


def _intensity(
    images: Tensor, uniform: Tensor, parts: Collection[str], streams: Sequence[np.random.Generator]
) -> Tensor:
    flat = images.flatten(2)
    low, high = (x.unsqueeze(-1) for x in torch.aminmax(flat, dim=2))
    extent = high - low
    if "gamma" in parts:
        # 0.7 … 1.5, as the exponent of the range [0, 1]; a constant channel stays
        gamma = torch.exp(math.log(0.7) + uniform[:, 7] * math.log(1.5 / 0.7)).view(-1, 1, 1)
        flat = ((flat - low) / extent.clamp_min(torch.finfo(flat.dtype).tiny)).clamp(0, 1).pow(gamma) * extent + low
    if "contrast" in parts:
        gain, offset = (0.8 + 0.4 * uniform[:, 8]).view(-1, 1, 1), (0.2 * uniform[:, 9] - 0.1).view(-1, 1, 1)
        mean = flat.mean(2, keepdim=True)
        flat = (flat - mean) * gain + mean + offset * extent
    if "noise" in parts:
        drawn = torch.from_numpy(np.stack([s.standard_normal(flat.shape[1:], np.float32) for s in streams]))
        flat = flat + drawn * (0.1 * uniform[:, 10].view(-1, 1, 1) * extent)
    return flat.reshape(images.shape)
