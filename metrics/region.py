"""The region a pixel-wise number runs over: the neighbourhood of the raters' masks (specification section 5.3).

It depends on the raters only, so that it is the same for every method.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .overlap import Mask

if TYPE_CHECKING:
    from .case import CaseView

Region = Literal["box", "full"]

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


class Cut:
    """The pixels of a region, taken out of the arrays of a case.

    Args:
        view: the case.
        region: ``full`` is every pixel that counts, ``box`` those of them inside `box_of` the raters' masks.
        label: the class whose masks make the box; None: all evaluated classes together.
    """

    def __init__(self, view: CaseView, region: Region, label: int | None = None) -> None:
        self._axes = view.raters.ndim - 1
        self._index: tuple[slice, ...] | Mask | None = None
        if region == "full":
            return
        marked = view.class_mask(view.raters, 0 if label is None else label)
        box = box_of(view.placed(~marked if label is None else marked), view.spacing)
        if view.valid is None:
            self._index = box
        else:
            inside = np.zeros(view.valid.shape, bool)
            inside[box] = True
            self._index = inside[view.valid]

    def __call__(self, array: NDArray) -> NDArray:
        """An array …×spatial of the case as …×n; a view of it where that is possible."""
        lead = array.shape[: array.ndim - self._axes]
        if self._index is not None:
            index = self._index if isinstance(self._index, tuple) else (self._index,)
            array = array[(..., *index)]
        return array.reshape(*lead, -1)
