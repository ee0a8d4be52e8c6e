"""Distances between the borders of many masks, and what each convention makes of them for every pair.

Every mask is transformed once: its feature transform over the box of all masks gives each pixel's nearest border pixel,
and distances are computed only where another border passes. A pair is never looked at by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from .overlap import Floats, Mask, crop
from .surface_elements import border_pixels, element_sizes, neighbourhood_codes

Kind = Literal["hd", "assd", "nsd"]
Flags = NDArray[np.bool_]

# 3 · 0.1 mm is 0.30000000000000004 in float64: a distance of exactly τ counts, however its millimetres are rounded.
_SLACK = 1 + 1e-12


@dataclass(frozen=True)
class Distances:
    """Directed distances in millimetres between the borders of A and of B masks; empty masks are left out.

    Attributes:
        from_a: for each mask of A with a border of n, B'×n distances to the masks of B, each row ascending.
        from_b: for each mask of B with a border of n, A'×n distances to the masks of A.
        sizes_a, sizes_b: sizes of the border elements in the order of the distances; empty lists for pixels.
        empty_a, empty_b: which masks are empty, length A and B.
    """

    from_a: list[Floats]
    from_b: list[Floats]
    sizes_a: list[Floats]
    sizes_b: list[Floats]
    empty_a: Flags
    empty_b: Flags

    @property
    def one_empty(self) -> Flags:
        """A×B: one of the two masks is empty."""
        return self.empty_a[:, None] ^ self.empty_b

    @property
    def both_empty(self) -> Flags:
        """A×B."""
        return self.empty_a[:, None] & self.empty_b


def measure(a: Mask, b: Mask, spacing: tuple[float, ...], elements: bool = False) -> Distances:
    """Distances between the borders of masks a (A×spatial) and b (B×spatial).

    Args:
        elements: borders run between the pixels (surface-distance), not through them.
    """
    cut_a, cut_b = crop([a, b])
    empty_a, empty_b = _empty(cut_a), _empty(cut_b)
    on_a, size_a = _border(cut_a[~empty_a], spacing, elements)
    on_b, size_b = _border(cut_b[~empty_b], spacing, elements)
    from_a, from_b = _directed(on_a, on_b, spacing), _directed(on_b, on_a, spacing)
    if not elements:
        from_a, from_b = [np.sort(rows, axis=1) for rows in from_a], [np.sort(rows, axis=1) for rows in from_b]
        return Distances(from_a, from_b, [], [], empty_a, empty_b)
    from_a, size_a = _ascending(from_a, size_a)
    from_b, size_b = _ascending(from_b, size_b)
    return Distances(from_a, from_b, size_a, size_b, empty_a, empty_b)


def _empty(masks: Mask) -> Flags:
    return np.array([not mask.any() for mask in masks])


def _border(masks: Mask, spacing: tuple[float, ...], elements: bool) -> tuple[Mask, list[Floats]]:
    if not elements:
        return border_pixels(masks), []
    codes = neighbourhood_codes(masks)
    on = (codes > 0) & (codes < 2**2 ** len(spacing) - 1)
    sizes = element_sizes(spacing)
    return on, [sizes[code[where]] for code, where in zip(codes, on, strict=True)]


def _directed(on_a: Mask, on_b: Mask, spacing: tuple[float, ...]) -> list[Floats]:
    """For each border of a (A'×grid) the B'×n distances of its n pixels to the borders of b."""
    if not len(on_a) or not len(on_b):
        return []
    where = [np.flatnonzero(border) for border in on_a.reshape(len(on_a), -1)]
    pixels = np.concatenate(where)
    position = np.stack(np.unravel_index(pixels, on_a.shape[1:]))
    scale = np.array(spacing)[:, None]
    found = np.empty((len(on_b), len(pixels)))
    for row, border in zip(found, on_b, strict=True):
        nearest = distance_transform_edt(~border, sampling=spacing, return_distances=False, return_indices=True)
        step = (nearest.reshape(len(spacing), -1)[:, pixels] - position) * scale
        np.sqrt((step * step).sum(axis=0), out=row)
    ends = np.cumsum([len(w) for w in where])
    return [np.ascontiguousarray(part) for part in np.split(found, ends[:-1], axis=1)]


def _ascending(rows: list[Floats], sizes: list[Floats]) -> tuple[list[Floats], list[Floats]]:
    """Distances with the sizes of their elements, ascending by distance, then by size, as the original sorts pairs."""
    distances, areas = [], []
    for row, size in zip(rows, sizes, strict=False):  # no rows at all if the other side has no border
        same = np.broadcast_to(size, row.shape)
        order = np.lexsort((same, row), axis=-1)
        distances.append(np.take_along_axis(row, order, axis=1))
        areas.append(np.take_along_axis(same, order, axis=1))
    return distances, areas


def linear_percentile(rows: Floats, percentile: float, count: NDArray[np.intp] | int | None = None) -> Floats:
    """Percentile of each ascending row, linear between order statistics.

    Args:
        count: numbers at the head of each row that count; None: all.
    """
    last = np.asarray(rows.shape[1] if count is None else count) - 1
    position = np.broadcast_to(percentile / 100 * last, len(rows))
    below = np.floor(position).astype(np.intp)
    each = np.arange(len(rows))
    low, high = rows[each, below], rows[each, np.minimum(below + 1, last)]
    share = position - below
    # From the nearer end, as NumPy does: symmetric in the last bit.
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))


def _single_percentile(rows: NDArray[np.float32], percentile: float) -> NDArray[np.float32]:
    """`linear_percentile` in float32, its position included, as torch.quantile computes it."""
    position = np.float32(percentile / 100) * np.float32(rows.shape[1] - 1)
    below, above = int(np.floor(position)), int(np.ceil(position))
    share = np.float32(position - np.float32(below))
    low, high = rows[:, below], rows[:, above]
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (np.float32(1) - share)


class Rule:
    """What a convention makes of the distances; this one is canonical (specification section 6).

    `inner` methods return A'×B' for the masks that are not empty. `empties` is the value of a pair with one and with
    two empty masks, a nan being undefined; None stands for the image diagonal.
    """

    elements = False
    omits_nan = False  # whether means leave out undefined pairs
    has_nsd = True
    why = ""
    empties: ClassVar[dict[str, tuple[float | None, float]]] = {
        "hd": (None, 0.0),
        "percentile": (None, 0.0),
        "assd": (None, 0.0),
        "nsd": (0.0, 1.0),
    }

    def empty_values(self, kind: Kind, value: float | None) -> tuple[float | None, float]:
        """Values of a pair with one and with two empty masks."""
        return self.empties["percentile" if kind == "hd" and value is not None else kind]

    def values(self, found: Distances, kind: Kind, value: float | None, diagonal: float) -> Floats:
        """A×B values of ``hd`` (value: percentile or None), ``assd`` or ``nsd`` (value: tolerance)."""
        one, both = self.empty_values(kind, value)
        out = np.full((len(found.empty_a), len(found.empty_b)), both)
        out[found.one_empty] = diagonal if one is None else one
        if found.from_a and found.from_b:
            if kind == "hd":
                inner = self.hausdorff(found, value)
            elif kind == "assd":
                inner = self.average(found)
            else:
                assert value is not None
                inner = self.within(found, value)
            out[np.ix_(~found.empty_a, ~found.empty_b)] = inner
        return out

    def hausdorff(self, found: Distances, percentile: float | None) -> Floats:
        """Larger of the two directed percentiles."""
        share = 100.0 if percentile is None else percentile
        a = np.array([linear_percentile(rows, share) for rows in found.from_a])
        b = np.array([linear_percentile(rows, share) for rows in found.from_b])
        return np.maximum(a, b.T)

    def average(self, found: Distances) -> Floats:
        """Mean of both directions' distances taken together."""
        a, b = (np.array([rows.sum(axis=1) for rows in side]) for side in (found.from_a, found.from_b))
        return (a + b.T) / _count(found)

    def within(self, found: Distances, tolerance: float) -> Floats:
        """Share of both directions' distances that are at most the tolerance."""
        reach = tolerance * _SLACK
        a, b = (np.array([(rows <= reach).sum(axis=1) for rows in side]) for side in (found.from_a, found.from_b))
        return (a + b.T) / _count(found)


class Monai(Rule):
    """MONAI 1.4 to 1.6: the same in float32; a percentile of infinite distances is nan, and means leave nan out."""

    omits_nan = True
    why = "MONAI gives nan where both masks are empty, and for a percentile where one is"
    empties: ClassVar[dict[str, tuple[float | None, float]]] = {
        "hd": (math.inf, math.nan),
        "percentile": (math.nan, math.nan),
        "assd": (math.inf, math.nan),
        "nsd": (0.0, math.nan),
    }

    def empty_values(self, kind: Kind, value: float | None) -> tuple[float | None, float]:
        return super().empty_values(kind, value or None)

    def hausdorff(self, found: Distances, percentile: float | None) -> Floats:
        sides = []
        for side in (found.from_a, found.from_b):
            single = [rows.astype(np.float32) for rows in side]
            if not percentile:  # 0 counts there as none given: the maximum
                sides.append(np.array([rows[:, -1] for rows in single]))
            else:
                sides.append(np.array([_single_percentile(rows, percentile) for rows in single]))
        return np.maximum(sides[0], sides[1].T).astype(np.float64)

    def average(self, found: Distances) -> Floats:
        a, b = (np.array([_single(rows).sum(axis=1) for rows in side]) for side in (found.from_a, found.from_b))
        return _single((a + b.T) / _count(found))

    def within(self, found: Distances, tolerance: float) -> Floats:
        reach = float(np.float32(tolerance))
        sides = (found.from_a, found.from_b)
        a, b = (np.array([(_single(rows) <= reach).sum(axis=1) for rows in side]) for side in sides)
        return _single((a + b.T) / _count(found))


class MedPy(Rule):
    """MedPy: a percentile of both lists together, ASSD the mean of the directed means; no NSD, no empty mask.

    ASSD is that of the versions published numbers come from; MedPy 0.5.2 takes both lists together, as canonical does.
    """

    has_nsd = False
    why = "MedPy raises where a mask is empty"
    empties: ClassVar[dict[str, tuple[float | None, float]]] = dict.fromkeys(
        ("hd", "percentile", "assd", "nsd"), (math.nan, math.nan)
    )

    def hausdorff(self, found: Distances, percentile: float | None) -> Floats:
        if percentile is None:
            return super().hausdorff(found, None)
        length = np.array([rows.shape[1] for rows in found.from_b])
        padded = np.full((len(length), len(found.from_a), length.max()), math.inf)
        for target, rows in zip(padded, found.from_b, strict=True):
            target[:, : rows.shape[1]] = rows
        out = []
        for i, rows in enumerate(found.from_a):
            together = np.sort(np.concatenate([rows, padded[:, i]], axis=1), axis=1)
            out.append(linear_percentile(together, percentile, rows.shape[1] + length))
        return np.array(out)

    def average(self, found: Distances) -> Floats:
        a, b = (np.array([rows.mean(axis=1) for rows in side]) for side in (found.from_a, found.from_b))
        return 0.5 * (a + b.T)


class DeepMind(Rule):
    """surface-distance: elements between the pixels, weighted by length or area.

    A percentile is the first distance at which the cumulated share of the elements reaches it, without interpolation.
    Its two directed averages are reported apart; ASSD is their mean.
    """

    elements = True
    why = "surface-distance divides by the size of an empty surface"
    empties: ClassVar[dict[str, tuple[float | None, float]]] = {
        "hd": (math.inf, math.inf),
        "percentile": (math.inf, math.inf),
        "assd": (math.nan, math.nan),
        "nsd": (0.0, math.nan),
    }

    def hausdorff(self, found: Distances, percentile: float | None) -> Floats:
        share = (100.0 if percentile is None else percentile) / 100.0
        a, b = (np.array([_reached(*pair, share) for pair in side]) for side in _weighted(found))
        return np.maximum(a, b.T)

    def average(self, found: Distances) -> Floats:
        a, b = (np.array([(d * s).sum(1) / s.sum(1) for d, s in side]) for side in _weighted(found))
        return 0.5 * (a + b.T)

    def within(self, found: Distances, tolerance: float) -> Floats:
        a, b = (np.array([(s * (d <= tolerance)).sum(1) for d, s in side]) for side in _weighted(found))
        all_a, all_b = (np.array([s[0].sum() for _, s in side]) for side in _weighted(found))
        return (a + b.T) / (all_a[:, None] + all_b)


RULES: dict[str, Rule] = {"pixels": Rule(), "monai": Monai(), "medpy": MedPy(), "deepmind": DeepMind()}


def _count(found: Distances) -> NDArray[np.int64]:
    """A'×B' numbers of distances, both directions."""
    a, b = (np.array([rows.shape[1] for rows in side]) for side in (found.from_a, found.from_b))
    return a[:, None] + b


def _single(values: Floats) -> Floats:
    """Rounded to float32, kept in float64."""
    return values.astype(np.float32).astype(np.float64)


def _weighted(found: Distances) -> tuple[list[tuple[Floats, Floats]], list[tuple[Floats, Floats]]]:
    a = list(zip(found.from_a, found.sizes_a, strict=True))
    return a, list(zip(found.from_b, found.sizes_b, strict=True))


def _reached(distances: Floats, sizes: Floats, share: float) -> Floats:
    # Cumulated and summed along rows in memory order: the bits of the original, which decide where 0.95 is met exactly.
    cumulated = np.cumsum(sizes, axis=1) / sizes.sum(axis=1, keepdims=True)
    index = np.minimum((cumulated < share).sum(axis=1), sizes.shape[1] - 1)
    return distances[np.arange(len(distances)), index]
