"""Hodges–Lehmann estimate: the median of all means of two differences, without forming them all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DIRECT = 300  # up to this number of differences all n(n+1)/2 means are formed
_FEW_PER_ROW = 16  # sums per difference that are sorted in the end
_MOST_TURNS = 60


def hodges_lehmann(delta: NDArray[np.float64]) -> float:
    """Median of (δ_i + δ_j)/2 over i ≤ j.

    Args:
        delta: differences; NaN is left out.

    Returns:
        The median; NaN without a difference.
    """
    x = np.sort(delta[~np.isnan(delta)])
    n = len(x)
    if n == 0:
        return float("nan")
    if n <= _DIRECT:
        i, j = np.triu_indices(n)
        return float(np.median(x[i] + x[j]) / 2)
    count = n * (n + 1) // 2
    first, last = (count + 1) // 2, count // 2 + 1  # the middle one, or both
    middle = _sums_by_rank(x, first, last)
    return float((middle[0] + middle[1]) / 4)


def _sums_by_rank(x: NDArray[np.float64], first: int, last: int) -> tuple[float, float]:
    """The first-th and last-th smallest x_i + x_j, i ≤ j, of sorted x.

    The number of sums up to a value costs n binary searches; interpolating between two such values closes in on the
    wanted ones until the few sums between them can be sorted.
    """
    rows = np.arange(len(x))
    low, high = np.nextafter(2 * x[0], -np.inf), 2 * x[-1]
    low_cut, high_cut = rows.copy(), np.full(len(x), len(x))
    for turn in range(_MOST_TURNS):
        below, upto = int((low_cut - rows).sum()), int((high_cut - rows).sum())
        if upto - below <= _FEW_PER_ROW * len(x):
            break
        # Interpolation alone can creep where the sums are uneven; every third turn halves the interval.
        share = 0.5 if turn % 3 == 2 else (0.5 * (first + last) - below) / (upto - below)
        # Aim a little beyond the wanted ones, now on one side and now on the other, so that both ends close in.
        share += (0.02 if turn % 2 else -0.02) * (turn % 3 != 2)
        pivot = low + float(np.clip(share, 0.01, 0.99)) * (high - low)
        if not low < pivot < high:
            break
        cut = _columns_upto(x, pivot)
        number = int((cut - rows).sum())
        if number < first:
            low, low_cut = pivot, cut
        elif number >= last:
            high, high_cut = pivot, cut
        else:
            break  # between two neighbours: both are needed
    left = high_cut - low_cut
    row = np.repeat(rows, left)
    column = np.arange(len(row)) - np.repeat(np.cumsum(left) - left, left) + np.repeat(low_cut, left)
    below = int((low_cut - rows).sum())
    sums = np.partition(x[row] + x[column], [first - below - 1, last - below - 1])
    return float(sums[first - below - 1]), float(sums[last - below - 1])


def _columns_upto(x: NDArray[np.float64], pivot: float) -> NDArray[np.intp]:
    """For each row i the first column j ≥ i with x_i + x_j > pivot."""
    rows = np.arange(len(x))
    cut = np.searchsorted(x, pivot - x, side="right")
    # pivot − x_i is rounded, the sums that are sorted in the end are rounded otherwise: move by what that makes.
    for _ in range(4):
        up = (cut < len(x)) & (x + x[np.minimum(cut, len(x) - 1)] <= pivot)
        down = (cut > 0) & (x + x[np.maximum(cut - 1, 0)] > pivot)
        if not (up.any() or down.any()):
            break
        cut = cut + up - down
    return np.maximum(cut, rows)
