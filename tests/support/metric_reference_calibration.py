"""Slow reference for section 5, pixel by pixel in plain Python; numbers are fractions but for the logarithms.

Nothing here is shared with the package. A case is a list of pixels (coordinates), a probability (a float, taken as the
exact fraction it is) for each, and for each rater the set of its pixels.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, log

import numpy as np
import pytest

TRAPS = [0.0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0, 0.1 + 0.2, 0.7 - 1e-16, 1 - 0.9, 1e-9, 1 - 1e-9, 0.05, 0.95]
NAN = float("nan")


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def region(shape, raters, valid=None, spacing=None, full=False):
    """Pixels of the region in index order: (coordinates) inside the grown box of all raters, and valid."""
    everywhere = [x for x in product(*map(range, shape)) if valid is None or valid[x]]
    marked = [x for x in everywhere if any(x in y for y in raters)]
    if full or not marked:
        return everywhere
    inside = everywhere
    for axis in range(len(shape)):
        grow = 16 if spacing is None else ceil(Fraction(10) / Fraction(str(spacing[axis])))
        low, high = min(x[axis] for x in marked) - grow, max(x[axis] for x in marked) + grow
        inside = [x for x in inside if low <= x[axis] <= high]
    return inside


def bin_of(p, bins):
    """The first bin whose upper edge, the float k/bins, is not below p."""
    return next(k for k in range(bins) if p <= (k + 1) / bins)


def filled_bins(p, q, pixels, bins):
    """(share of the pixels, |mean p − mean q|) of each bin that has pixels."""
    members = {}
    for x in pixels:
        members.setdefault(bin_of(p[x], bins), []).append(x)
    return [
        (Fraction(len(m), len(pixels)), abs(mean(Fraction(p[x]) for x in m) - mean(q[x] for x in m)))
        for m in members.values()
    ]


def ece(p, q, pixels, bins=10):
    return sum(share * gap for share, gap in filled_bins(p, q, pixels, bins))


def equal_mass(p, q, pixels, bins):
    """Mean gap over the non-empty runs; every pixel is in exactly one."""
    order = sorted(range(len(pixels)), key=lambda i: (p[pixels[i]], i))
    runs, start = [], 0
    for b in range(bins):
        length = len(order) // bins + (b < len(order) % bins)
        runs.append([pixels[i] for i in order[start : start + length]])
        start += length
    assert sorted(x for run in runs for x in run) == sorted(pixels)
    return mean(abs(mean(Fraction(p[x]) for x in run) - mean(q[x] for x in run)) for run in runs if run)


def cross_entropy(q, p):
    p = min(max(p, 1e-6), 1 - 1e-6)
    return -(float(q) * log(p) + float(1 - q) * log(1 - p))


def entropy(q):
    return -sum(float(v) * log(v) for v in (q, 1 - q) if v > 0)


def share(raters, weights, x):
    return sum((w for y, w in zip(raters, weights, strict=True) if x in y), Fraction(0))


def of_map(p, raters, pixels, weights=None, bins=10):
    """The metrics of one mean map of one class: p of each pixel, the raters' sets of pixels."""
    weights = weights or [Fraction(1, len(raters))] * len(raters)
    q = {x: share(raters, weights, x) for x in pixels}
    exact = {x: Fraction(p[x]) for x in pixels}
    own = [{x: Fraction(x in y) for x in pixels} for y in raters]
    gaps = [gap for _, gap in filled_bins(p, q, pixels, bins)]
    each = [ece(p, y, pixels, bins) for y in own]
    split = [x for x in pixels if 0 < q[x] < 1]
    top = {x: max(p[x], 1 - p[x]) for x in pixels}
    return {
        "brier": mean((exact[x] - q[x]) ** 2 for x in pixels),
        "brier.raters": sum(
            w * mean((exact[x] - y[x]) ** 2 for x in pixels) for w, y in zip(weights, own, strict=True)
        ),
        "nll": mean(cross_entropy(q[x], p[x]) for x in pixels),
        "nll.excess": max(0.0, mean(cross_entropy(q[x], p[x]) - entropy(q[x]) for x in pixels)),
        "ece": ece(p, q, pixels, bins),
        "mce": max(gaps),
        "ace": equal_mass(p, q, pixels, bins),
        "ace.width": mean(gaps),
        "ece.top": ece(top, {x: q[x] if p[x] > 1 - p[x] else 1 - q[x] for x in pixels}, pixels, bins),
        "ece.each": sum(w * e for w, e in zip(weights, each, strict=True)),
        "ece.each.list": each,
        "ece.disagree": ece(p, q, split, bins) if split else NAN,
    }


def of_raters(maps, raters, pixels, weights=None, bins=10):
    """The metrics of maps meant for the raters."""
    weights = weights or [Fraction(1, len(raters))] * len(raters)
    rows = [
        (
            ece(p, {x: Fraction(x in y) for x in pixels}, pixels, bins),
            mean((Fraction(p[x]) - (x in y)) ** 2 for x in pixels),
            mean(cross_entropy(Fraction(x in y), p[x]) for x in pixels),
        )
        for p, y in zip(maps, raters, strict=True)
    ]
    columns = zip(*rows, strict=True)
    return {
        name: sum(float(w) * float(v) for w, v in zip(weights, column, strict=True))
        for name, column in zip(("ece.rater", "brier.rater", "nll.rater"), columns, strict=True)
    }


def top_label(maps, labels, raters, pixels, bins=10):
    """`ece.top` of several classes: p of each label, and the raters' label of each pixel."""
    confidence, right = {}, {}
    for x in pixels:
        best = max(labels, key=lambda k: (maps[k][x], -k))
        confidence[x] = maps[best][x]
        right[x] = mean(Fraction(y[x] == best) for y in raters)
    return ece(confidence, right, pixels, bins)


# -- generated cases and comparison -------------------------------------------------------------------


def where(mask):
    return {tuple(map(int, x)) for x in np.argwhere(mask)}


def as_dict(array):
    return {x: float(array[x]) for x in product(*map(range, array.shape))}


def random_raters(rng, count, shape):
    """Empty, full, single-pixel and noisy masks; often one like another."""
    out = np.zeros((count, *shape), bool)
    for mask in out:
        kind = rng.integers(5)
        if kind == 1:
            mask[:] = True
        elif kind == 2:
            mask.flat[rng.integers(mask.size)] = True
        elif kind >= 3:
            mask[:] = rng.random(shape) < rng.random()
    if count > 1 and rng.random() < 0.4:
        out[1:] = out[0] ^ (rng.random((count - 1, *shape)) < 0.2)
    if rng.random() < 0.1:
        out[:] = out[0]
    return out


def random_probs(rng, shape):
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice(TRAPS, shape)
    if kind == 1:
        return rng.random(shape)
    if kind == 2:
        return np.where(rng.random(shape) < 0.5, rng.integers(0, 11, shape) / 10, rng.random(shape))
    return np.full(shape, rng.choice(TRAPS))


def agree(got, want, mark, note):
    for name, value in want.items():
        expected = [float(v) for v in value] if isinstance(value, list) else float(value)
        assert got[name + mark] == pytest.approx(expected, abs=1e-11, nan_ok=True), (name, mark, note)
