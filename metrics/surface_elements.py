"""What a border is made of: pixels of a mask, or elements between the pixels with a length or an area.

Elements are those of DeepMind's surface-distance: one for every 2×2 (2×2×2) block of pixels that is neither full nor
empty, at the corner the pixels share. Their sizes are derived here from the definition, a contour through the middles
of the block's edges, and equal the sizes tabulated there for every spacing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .overlap import Floats, Mask

Point = tuple[float, ...]

_CORNERS = tuple(itertools.product((0, 1), repeat=3))
_FULL_CUBE = 255


def border_pixels(masks: Mask) -> Mask:
    """Pixels of each mask (T×spatial) with a 4-neighbour (6 in 3D) that is False or outside the image."""
    inner = masks.copy()
    for axis in range(1, masks.ndim):
        ahead, behind = [slice(None)] * masks.ndim, [slice(None)] * masks.ndim
        first, last = list(ahead), list(ahead)
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        inner[tuple(ahead)] &= masks[tuple(behind)]
        inner[tuple(behind)] &= masks[tuple(ahead)]
        inner[tuple(first)] = False
        inner[tuple(last)] = False
    return masks & ~inner


def neighbourhood_codes(masks: Mask) -> NDArray[np.uint8]:
    """Which pixels of each 2×2 (2×2×2) block are True, one bit each, the first pixel highest.

    Args:
        masks: T×spatial; outside of the image is False.

    Returns:
        T×(spatial + 1): blocks that reach over the edge of the image count.
    """
    dims = masks.ndim - 1
    padded = np.pad(masks, [(0, 0)] + [(1, 1)] * dims).view(np.uint8)
    shape = [n + 1 for n in masks.shape[1:]]
    codes = np.zeros((len(masks), *shape), np.uint8)
    for offset in itertools.product((0, 1), repeat=dims):
        block = padded[(slice(None), *(slice(o, o + n) for o, n in zip(offset, shape, strict=True)))]
        codes = (codes << 1) | block
    return codes


def element_sizes(spacing: Sequence[float]) -> Floats:
    """Length (2D, 16 codes) or area (3D, 256 codes) of the contour in a block of pixels, in mm or mm²."""
    return _contour_lengths(*spacing) if len(spacing) == 2 else _contour_areas(tuple(spacing))


def _contour_lengths(rows: float, columns: float) -> Floats:
    """Middles of cut edges joined: across one corner, straight through, or around two opposite corners."""
    corner = 0.5 * math.sqrt(rows**2 + columns**2)
    out = np.full(16, corner)
    out[[0b0000, 0b1111]] = 0.0
    out[[0b0011, 0b1100]] = columns
    out[[0b0101, 0b1010]] = rows
    out[[0b0110, 0b1001]] = 2 * corner
    return out


@lru_cache(maxsize=64)
def _contour_areas(spacing: tuple[float, ...]) -> Floats:
    normals, code = _triangles()
    a, b, c = spacing
    areas = np.linalg.norm(normals * np.array([b * c, a * c, a * b]), axis=1)
    out: Floats = np.bincount(code, weights=areas, minlength=_FULL_CUBE + 1).astype(np.float64)
    out.flags.writeable = False
    return out


@lru_cache(maxsize=1)
def _triangles() -> tuple[Floats, NDArray[np.intp]]:
    """Area vectors (M×3) of the contour's triangles in a unit cube, and the code each belongs to.

    The contour is that of a code with at most four corners set, or of its complement, for both have the same one.
    A polygon that is not flat is cut into the triangles with the largest total area in the unit cube; cuts that tie
    there have equal areas at every spacing.
    """
    normals: list[Floats] = []
    codes: list[int] = []
    for code in range(1, _FULL_CUBE):
        few = code if code.bit_count() <= 4 else _FULL_CUBE - code
        for polygon in _polygons(few):
            points = np.array(polygon)
            cuts = [_area_vectors(points, cut) for cut in _triangulations(0, len(points) - 1)]
            best = max(cuts, key=lambda vectors: round(float(np.linalg.norm(vectors, axis=1).sum()), 9))
            normals.extend(best)
            codes.extend([code] * len(best))
    return np.array(normals), np.array(codes)


def _area_vectors(points: Floats, triangles: list[tuple[int, int, int]]) -> Floats:
    a, b, c = (points[list(column)] for column in zip(*triangles, strict=True))
    return 0.5 * np.cross(b - a, c - a)


def _triangulations(first: int, last: int) -> list[list[tuple[int, int, int]]]:
    """All ways to cut the polygon first, first + 1, …, last into triangles."""
    if last - first < 2:
        return [[]]
    return [
        [*left, *right, (first, tip, last)]
        for tip in range(first + 1, last)
        for left in _triangulations(first, tip)
        for right in _triangulations(tip, last)
    ]


def _polygons(code: int) -> list[list[Point]]:
    """Closed lines of the contour on the cube's faces, as middles of the cube's edges.

    On a face with two opposite corners set, each of them is cut off by itself.
    """
    inside = {corner: bool(code >> (7 - i) & 1) for i, corner in enumerate(_CORNERS)}
    joined: dict[Point, list[Point]] = {}
    for axis, side in itertools.product(range(3), (0, 1)):
        ring = [(*u[:axis], side, *u[axis:]) for u in ((0, 0), (0, 1), (1, 1), (1, 0))]
        middles = [_middle(ring[i], ring[(i + 1) % 4]) for i in range(4)]
        cut = [i for i in range(4) if inside[ring[i]] != inside[ring[(i + 1) % 4]]]
        lines = [(cut[0], cut[1])] if len(cut) == 2 else []
        if len(cut) == 4:
            lines = [((i - 1) % 4, i) for i in range(4) if inside[ring[i]]]
        for i, j in lines:
            joined.setdefault(middles[i], []).append(middles[j])
            joined.setdefault(middles[j], []).append(middles[i])
    out: list[list[Point]] = []
    left = dict.fromkeys(joined)
    while left:
        line = [next(iter(left))]
        while line[-1] in left:
            del left[line[-1]]
            line.extend([p for p in joined[line[-1]] if p in left][:1])
        out.append(line)
    return out


def _middle(a: Sequence[int], b: Sequence[int]) -> Point:
    return tuple((i + j) / 2 for i, j in zip(a, b, strict=True))
