"""Slow reference for section 6: borders pixel by pixel, every distance of two border pixels, one pair at a time.

Nothing here is shared with the package.
"""

from __future__ import annotations

from itertools import product
from math import dist, floor, hypot, inf, nan


def ball(shape, centre, radii):
    """Pixels of a filled ellipse or ellipsoid."""
    pixels = product(*map(range, shape))
    return {x for x in pixels if sum(((i - c) / r) ** 2 for i, c, r in zip(x, centre, radii, strict=True)) < 1}


def pixels_of(mask):
    return {tuple(int(i) for i in x) for x in zip(*mask.nonzero(), strict=True)}


def border(pixels):
    """Pixels with a neighbour along an axis that is not in the set (whether in the image or not)."""
    out = []
    for x in pixels:
        near = [(*x[:k], x[k] + step, *x[k + 1 :]) for k in range(len(x)) for step in (-1, 1)]
        if any(n not in pixels for n in near):
            out.append(x)
    return out


def directed(a, b, spacing):
    """Distance of each of the points a to the nearest of the points b."""
    scaled = [[tuple(i * s for i, s in zip(x, spacing, strict=True)) for x in points] for points in (a, b)]
    return sorted(min(dist(x, y) for y in scaled[1]) for x in scaled[0])


def percentile(values, p):
    position = p / 100 * (len(values) - 1)
    low = floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (position - low) * (values[high] - values[low])


class Pair:
    """Canonical values of one pair of masks given as sets of pixels."""

    def __init__(self, a, b, shape, spacing):
        self.empty = (not a, not b)
        self.diagonal = hypot(*(n * s for n, s in zip(shape, spacing, strict=True)))
        if not any(self.empty):
            edge_a, edge_b = border(a), border(b)
            self.there, self.back = directed(edge_a, edge_b, spacing), directed(edge_b, edge_a, spacing)

    def _empty(self, both, one):
        return both if all(self.empty) else one

    def hd(self, p=100):
        if any(self.empty):
            return self._empty(0, self.diagonal)
        return max(percentile(self.there, p), percentile(self.back, p))

    def assd(self):
        if any(self.empty):
            return self._empty(0, self.diagonal)
        both = self.there + self.back
        return sum(both) / len(both)

    def nsd(self, tolerance):
        if any(self.empty):
            return self._empty(1, 0)
        both = self.there + self.back
        return sum(d <= tolerance + 1e-9 for d in both) / len(both)

    def medpy(self, p=None):
        """Percentile of all distances together, or (p None) the mean of the directed means; nan where it raises."""
        if any(self.empty):
            return nan
        if p is not None:
            return percentile(sorted(self.there + self.back), p)
        return (sum(self.there) / len(self.there) + sum(self.back) / len(self.back)) / 2


class Surfaces:
    """surface-distance for one pair in 2D: blocks of 2×2 pixels weighted by the contour inside them."""

    def __init__(self, a, b, spacing):
        (self.there, self.back) = self._sorted(self.elements(a, spacing), self.elements(b, spacing), spacing)

    @staticmethod
    def elements(pixels, spacing):
        """Corner to length of contour of every block that is neither full nor empty."""
        height, width = spacing
        out = {}
        for y, x in {(y + i, x + j) for y, x in pixels for i in (0, 1) for j in (0, 1)}:
            block = [(y + i, x + j) in pixels for i in (-1, 0) for j in (-1, 0)]
            if sum(block) in (1, 3):
                out[y, x] = hypot(height, width) / 2
            elif sum(block) == 2:
                same_row, same_column = block[0] == block[1], block[0] == block[2]
                out[y, x] = width if same_row else height if same_column else hypot(height, width)
        return out

    @staticmethod
    def _sorted(a, b, spacing):
        def side(of, to):
            scaled = [(y * spacing[0], x * spacing[1]) for y, x in to]
            return sorted(
                (min((dist((y * spacing[0], x * spacing[1]), other) for other in scaled), default=inf), size)
                for (y, x), size in of.items()
            )

        return side(a, b), side(b, a)

    def hd(self, p):
        def first(pairs):
            total, cumulated = sum(size for _, size in pairs), 0.0
            for d, size in pairs:
                cumulated += size
                if cumulated / total >= p / 100 - 1e-12:
                    return d
            return inf

        return max(first(self.there), first(self.back))

    def assd(self):
        if not self.there or not self.back:
            return nan
        return sum(sum(d * s for d, s in side) / sum(s for _, s in side) for side in (self.there, self.back)) / 2

    def nsd(self, tolerance):
        both = self.there + self.back
        return sum(s for d, s in both if d <= tolerance) / sum(s for _, s in both) if both else nan
