"""Slow reference for the agreement of raters and STAPLE, written from their definitions, pixel by pixel.

Nothing here is shared with the package. Agreement is computed in fractions, STAPLE with sums that are rounded once, so
that raters whom the votes do not tell apart stay equal. Masks are lists of 0 and 1 over the pixels of a region.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import ceil, exp, fsum, log, log1p

NAN = float("nan")


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else NAN


def region_box(raters, spacing=None):
    """Index tuples of the box around a list of masks (arrays), grown by 16 pixels or 10 mm and clipped."""
    shape = raters[0].shape
    marked = [x for x in product(*map(range, shape)) if any(y[x] for y in raters)]
    if not marked:
        return list(product(*map(range, shape)))
    sides = []
    for axis, length in enumerate(shape):
        grow = 16 if spacing is None else ceil(Fraction(10) / Fraction(spacing[axis]))
        low, high = min(x[axis] for x in marked) - grow, max(x[axis] for x in marked) + grow
        sides.append(range(max(low, 0), min(high, length - 1) + 1))
    return list(product(*sides))


def fleiss(rows):
    """Each row: (marks, raters) of a pixel; the numbers of raters may differ."""
    rows = [(k, n) for k, n in rows if n >= 2]
    if not rows:
        return NAN
    agree = mean(Fraction(k * (k - 1) + (n - k) * (n - k - 1), n * (n - 1)) for k, n in rows)
    share = Fraction(sum(k for k, _ in rows), sum(n for _, n in rows))
    chance = share**2 + (1 - share) ** 2
    return NAN if chance == 1 else (agree - chance) / (1 - chance)


def krippendorff(rows):
    rows = [(k, n) for k, n in rows if n >= 2]
    answers, marks = sum(n for _, n in rows), sum(k for k, _ in rows)
    if answers < 2:
        return NAN
    observed = sum(Fraction(2 * k * (n - k), n - 1) for k, n in rows) / answers
    expected = Fraction(2 * marks * (answers - marks), answers * (answers - 1))
    return NAN if expected == 0 else 1 - observed / expected


def cohen(a, b):
    n = len(a)
    if not n:
        return NAN
    agree = Fraction(sum(x == y for x, y in zip(a, b, strict=True)), n)
    p, q = Fraction(sum(a), n), Fraction(sum(b), n)
    chance = p * q + (1 - p) * (1 - q)
    return NAN if chance == 1 else (agree - chance) / (1 - chance)


def dice(a, b):
    total = sum(a) + sum(b)
    return Fraction(2 * sum(x and y for x, y in zip(a, b, strict=True)), total) if total else Fraction(1)


def iou(a, b):
    union = sum(x or y for x, y in zip(a, b, strict=True))
    return Fraction(sum(x and y for x, y in zip(a, b, strict=True)), union) if union else Fraction(1)


def gci(raters):
    pairs = list(combinations(raters, 2))
    both = sum(sum(x and y for x, y in zip(a, b, strict=True)) for a, b in pairs)
    either = sum(sum(x or y for x, y in zip(a, b, strict=True)) for a, b in pairs)
    return Fraction(both, either) if either else Fraction(1)


def agreement(raters):
    """Every number of a case over one region; raters: lists of 0 and 1."""
    count = len(raters)
    votes = [sum(column) for column in zip(*raters, strict=True)]
    rows = [(k, count) for k in votes]
    pairs = list(combinations(raters, 2))
    kappas = [cohen(a, b) for a, b in pairs]
    return {
        "pairwise_dice": mean(dice(a, b) for a, b in pairs),
        "pairwise_iou": mean(iou(a, b) for a, b in pairs),
        "gci": gci(raters),
        "fleiss_kappa": fleiss(rows),
        "cohen_kappa": NAN if any(value != value for value in kappas) else mean(kappas),
        "krippendorff": krippendorff(rows),
        "vote_histogram": [Fraction(votes.count(k), len(votes)) for k in range(count + 1)],
    }


def staple(raters):
    """W, sensitivities, specificities and rounds over the pixels of a region."""
    low, high = 1e-6, 1 - 1e-6
    if all(y == raters[0] for y in raters):
        one, none = any(raters[0]), not all(raters[0])
        return (
            list(map(float, raters[0])),
            [high if one else NAN] * len(raters),
            [high if none else NAN] * len(raters),
            0,
        )
    pixels = range(len(raters[0]))
    f = sum(map(sum, raters)) / (len(raters) * len(pixels))
    a = b = [0.99999] * len(raters)
    rounds = 0
    while rounds < 200:
        rounds += 1
        w, rest = [], []
        for x in pixels:
            yes = fsum([log(f), *(log(a[r]) if y[x] else log1p(-a[r]) for r, y in enumerate(raters))])
            no = fsum([log1p(-f), *(log1p(-b[r]) if y[x] else log(b[r]) for r, y in enumerate(raters))])
            top = max(yes, no)
            both = exp(yes - top) + exp(no - top)
            w.append(exp(yes - top) / both)
            rest.append(exp(no - top) / both)
        new_a = [fsum(w[x] for x in pixels if y[x]) / fsum(w) for y in raters]
        new_b = [fsum(rest[x] for x in pixels if not y[x]) / fsum(rest) for y in raters]
        new_a, new_b = ([min(max(v, low), high) for v in values] for values in (new_a, new_b))
        moved = max(abs(v - u) for v, u in zip(new_a + new_b, list(a) + list(b), strict=True))
        a, b = new_a, new_b
        if moved <= 1e-6:
            break
    return w, a, b, rounds
