"""Which raters mark a pixel, counted: everything on the raters' agreement follows from the few patterns that occur.

R raters vote in at most 2^R ways, and pixels that no rater marks are known by their number alone. So a case is reduced
to a short table once, and kappas, histograms and each round of STAPLE cost patterns × raters, not pixels × raters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .case import CaseView
from .overlap import Mask
from .region import Region, box_of

Counts = NDArray[np.int64]

_LARGEST_TABLE = 16  # raters; beyond, the 2^R codes are no longer counted in a table but sorted


@dataclass(frozen=True)
class Coded:
    """Masks as one code for each pixel.

    Attributes:
        code: spatial integers; equal where the same masks are True.
        found: the P codes that occur, ascending.
        rows: P×R bool, the masks that are True for each code.
        counts: P, pixels of each code.
    """

    code: NDArray
    found: NDArray
    rows: Mask
    counts: Counts

    def painted(self, values: NDArray) -> NDArray:
        """A map (spatial) of one value for each code found."""
        table = np.zeros(int(self.found.max(initial=0)) + 1, values.dtype)
        table[self.found] = values
        return table[self.code]


def coded(masks: Mask) -> Coded:
    """Patterns of masks R×spatial, R >= 1."""
    raters = len(masks)
    if raters > _LARGEST_TABLE and masks.size:
        packed = np.packbits(masks.reshape(raters, -1).T, axis=1)
        rows, code, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
        marked = np.unpackbits(rows, axis=1, count=raters).astype(bool)
        return Coded(code.reshape(masks.shape[1:]), np.arange(len(rows)), marked, counts.astype(np.int64))
    kind = np.uint8 if raters <= 8 else np.uint16
    code = np.zeros(masks.shape[1:], kind)
    for r in range(raters):
        code |= masks[r].astype(kind) << kind(r)
    counts = np.bincount(code.ravel())
    found = np.flatnonzero(counts)
    marked = (found[:, None] >> np.arange(raters) & 1).astype(bool)
    return Coded(code, found, marked, counts[found].astype(np.int64))


@dataclass(frozen=True)
class VotePatterns:
    """Patterns of one class of a case.

    Attributes:
        rows: P×R bool, every pattern with at least one vote that occurs.
        counts: P, pixels of each.
        pixels: number of pixels of each region, those without any vote included.
    """

    rows: Mask
    counts: Counts
    pixels: dict[Region, int]

    def with_background(self, region: Region) -> tuple[Mask, Counts]:
        """Rows and counts of a region, the pattern without votes first if it occurs there."""
        unmarked = self.pixels[region] - int(self.counts.sum())
        if not unmarked:
            return self.rows, self.counts
        blank = np.zeros((1, self.rows.shape[1]), bool)
        return np.concatenate([blank, self.rows]), np.concatenate([[unmarked], self.counts])

    def votes(self, region: Region) -> Counts:
        """Pixels with k = 0, …, R votes, length R+1."""
        rows, counts = self.with_background(region)
        out = np.zeros(self.rows.shape[1] + 1, np.int64)
        np.add.at(out, rows.sum(axis=1), counts)
        return out

    def intersections(self) -> Counts:
        """Sizes R×R of all pairwise intersections; the same in every region that holds all masks."""
        weighted = np.where(self.rows, self.counts[:, None], 0)
        return weighted.T @ self.rows.astype(np.int64)


def patterns_of(view: CaseView, label: int) -> VotePatterns:
    """The patterns of one evaluated class, counted once for each case."""

    def compute() -> tuple[NDArray, ...]:
        found = coded(view.cropped(label)[0])
        marked = found.rows.any(axis=1)
        return found.rows[marked], found.counts[marked], _sizes(view, label)

    rows, counts, sizes = view.tally(("patterns", label), compute)
    return VotePatterns(rows, counts, {"box": int(sizes[0]), "full": int(sizes[1])})


def _sizes(view: CaseView, label: int) -> Counts:
    box = box_of(view.placed(view.class_mask(view.raters, label)), view.spacing)
    if view.valid is None:
        inside = math.prod(part.stop - part.start for part in box)
    else:
        inside = int(view.valid[box].sum())
    return np.array([inside, view.pixels])
