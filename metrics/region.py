"""The region a pixel-wise number runs over: the neighbourhood of the raters' masks (specification section 5.3).

It depends on the raters only, so that it is the same for every method.
"""

from __future__ import annotations

import math

import numpy as np

from .overlap import Mask

MARGIN_PIXELS = 16
MARGIN_MM = 10.0


def box_of(raters: Mask, spacing: tuple[float, ...] | None = None) -> tuple[slice, ...]:
    """Bounding box of the union of all raters, grown and clipped to the image.

    Args:
        raters: R×spatial bool; R may be 0.
        spacing: millimetres per pixel of each axis, or None.

    Returns:
        One slice for each spatial axis. Grown by 16 pixels on every side, or, where the spacing is known, by the
        smallest number of whole pixels that cover 10 mm. The full image if no rater marks anything.
    """
    union = np.logical_or.reduce(raters, axis=0)
    box = []
    for axis, length in enumerate(union.shape):
        line = union.any(axis=tuple(a for a in range(union.ndim) if a != axis))
        if not line.any():
            return tuple(slice(0, size) for size in union.shape)
        margin = margin_pixels(None if spacing is None else spacing[axis])
        first, last = int(line.argmax()), length - int(line[::-1].argmax())
        box.append(slice(max(0, first - margin), min(length, last + margin)))
    return tuple(box)


def margin_pixels(millimetres_per_pixel: float | None) -> int:
    """Pixels the box grows by along one axis."""
    if millimetres_per_pixel is None:
        return MARGIN_PIXELS
    # 10 mm at 10/3 mm a pixel are 3 pixels, not the 4 that the rounding of the quotient would give.
    return math.ceil(MARGIN_MM / millimetres_per_pixel - 1e-9)
