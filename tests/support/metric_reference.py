"""Slow reference for the metrics, written from their definitions: masks are sets of pixels, numbers are fractions.

Nothing here is shared with the package. Loops over pixels, pairs and assignments; tiny cases only.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import combinations, permutations
from math import lcm

import numpy as np

FIVE = [Fraction(t, 10) for t in (1, 3, 5, 7, 9)]
NINE = [Fraction(t, 10) for t in range(1, 10)]
NAN = float("nan")


def pixels(mask):
    """The set of pixel indices of a mask."""
    return frozenset(i for i, value in enumerate(np.asarray(mask).ravel().tolist()) if value)


def iou(a, b):
    return Fraction(len(a & b), len(a | b)) if a | b else Fraction(1)


def dice(a, b):
    return Fraction(2 * len(a & b), len(a) + len(b)) if a or b else Fraction(1)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def over_classes(similarity):
    """Similarity of two label maps, each a tuple of one-vs-rest masks."""
    return lambda a, b: mean(similarity(x, y) for x, y in zip(a, b, strict=True))


def energy(samples, raters, similarity, exclude_samples=False, exclude_raters=False):
    def distance(a, b):
        return 1 - similarity(a, b)

    def within(members, exclude):
        pairs = [(i, j) for i in range(len(members)) for j in range(len(members)) if not (exclude and i == j)]
        return mean(distance(members[i], members[j]) for i, j in pairs) if pairs else None

    cross = mean(distance(s, y) for s in samples for y in raters)
    v_s, v_r = within(samples, exclude_samples), within(raters, exclude_raters)
    return NAN if v_s is None or v_r is None else 2 * cross - v_s - v_r


def best_assignment(matrix):
    """Largest total over one-to-one maps of rows to columns, by trying every subset of columns."""
    columns = len(matrix[0])

    @cache
    def rest(row, used):
        if row == len(matrix):
            return Fraction(0)
        return max(matrix[row][c] + rest(row + 1, used | 1 << c) for c in range(columns) if not used >> c & 1)

    return rest(0, 0)


def matched(samples, raters, similarity):
    """2.3 by replication; None if the replicated sets are too large to try."""
    size = lcm(len(samples), len(raters))
    if size > 8:
        return None
    a = [s for s in samples for _ in range(size // len(samples))]
    b = [y for y in raters for _ in range(size // len(raters))]
    return best_assignment([[similarity(x, y) for y in b] for x in a]) / size


def distinct(samples, raters, similarity):
    """2.4 dice_match, each sample serving up to ⌈R/S⌉ raters where S < R."""
    times = -(-len(raters) // len(samples)) if len(samples) < len(raters) else 1
    pool = [s for s in samples for _ in range(times)]
    return best_assignment([[similarity(y, s) for s in pool] for y in raters]) / len(raters)


def passing(masks, threshold, everywhere):
    """Pixels whose share of masks is strictly more than the threshold, a fraction."""
    return frozenset(p for p in everywhere if Fraction(sum(p in m for m in masks), len(masks)) > threshold)


def soft(maps_a, maps_b, similarity, thresholds, everywhere):
    """Mean over thresholds of the similarity of two thresholded vote shares."""
    return mean(similarity(passing(maps_a, t, everywhere), passing(maps_b, t, everywhere)) for t in thresholds)


def set_metrics(samples, raters, everywhere):
    """Every metric of sections 2, 3 and 4 (common mask) of binary masks; samples and raters are lists of pixel sets."""
    out = {
        "cross": mean(1 - iou(s, y) for s in samples for y in raters),
        "diversity_samples": mean(1 - iou(a, b) for a in samples for b in samples),
        "diversity_raters": mean(1 - iou(a, b) for a in raters for b in raters),
        "ged": energy(samples, raters, iou),
        "ged.dice": energy(samples, raters, dice),
        "ged.debiased": energy(samples, raters, iou, exclude_samples=True),
        "ged.ustat": energy(samples, raters, iou, exclude_samples=True, exclude_raters=True),
        "hm_iou": matched(samples, raters, iou),
        "hm_dice": matched(samples, raters, dice),
        "empty_share_samples": mean(Fraction(not s) for s in samples),
        "empty_share_raters": mean(Fraction(not y) for y in raters),
    }
    out["diversity_gap"] = out["diversity_samples"] - out["diversity_raters"]
    out["empty_gap"] = abs(out["empty_share_samples"] - out["empty_share_raters"])
    pairs = [(a, b) for i, a in enumerate(samples) for j, b in enumerate(samples) if i != j]
    out["diversity_samples.ustat"] = mean(1 - iou(a, b) for a, b in pairs) if pairs else NAN
    for name, similarity in (("dice", dice), ("iou", iou)):
        out[f"{name}_max_rater_to_sample"] = mean(max(similarity(y, s) for s in samples) for y in raters)
        out[f"{name}_max_sample_to_rater"] = mean(max(similarity(y, s) for y in raters) for s in samples)
        out[f"{name}_max_mean"] = (out[f"{name}_max_rater_to_sample"] + out[f"{name}_max_sample_to_rater"]) / 2
        out[f"{name}_match"] = distinct(samples, raters, similarity)
        out[f"{name}_mean"] = mean(similarity(y, s) for y in raters for s in samples)
    half = [Fraction(1, 2)]
    out["dice_soft"] = soft(samples, raters, dice, FIVE, everywhere)
    out["iou_soft"] = soft(samples, raters, iou, FIVE, everywhere)
    out["qubiq"] = soft(samples, raters, dice, NINE, everywhere)
    out["dice_majority"] = soft(samples, raters, dice, half, everywhere)
    p = {x: Fraction(sum(x in s for s in samples), len(samples)) for x in everywhere}
    q = {x: Fraction(sum(x in y for y in raters), len(raters)) for x in everywhere}
    total = sum(p.values()) + sum(q.values())
    out["dice_continuous"] = 2 * sum(p[x] * q[x] for x in everywhere) / total if total else Fraction(1)
    common = passing(samples, half[0], everywhere)
    each = [dice(y, common) for y in raters]
    out |= {"dice_rater": mean(each), "dice_rater.worst": min(each), "iou_rater": mean(iou(y, common) for y in raters)}
    return out


def rater_metrics(maps, raters):
    """Section 4 with one mask for each rater."""
    matrix = [[dice(y, m) for m in maps] for y in raters]
    size = len(raters)
    own = [matrix[r][r] for r in range(size)]
    out = {"dice_rater": mean(own), "dice_rater.worst": min(own), "iou_rater": mean(map(iou, raters, maps))}
    out["dice_rater.gap"] = (
        mean(own[r] - mean(matrix[r][q] for q in range(size) if q != r) for r in range(size)) if size > 1 else NAN
    )
    best = [[q for q in range(size) if row[q] == max(row)] for row in matrix]
    out["rater_identification"] = mean(Fraction(r in b, len(b)) for r, b in enumerate(best))
    return out


def human_metrics(raters, everywhere):
    """Section 8 but for the drawn baselines; at least two raters."""
    rest = [[y for q, y in enumerate(raters) if q != r] for r in range(len(raters))]
    out = {
        "human.loo_majority_dice": mean(
            dice(y, passing(others, Fraction(1, 2), everywhere)) for y, others in zip(raters, rest, strict=True)
        ),
        "human.loo_mean_dice": mean(mean(dice(y, o) for o in others) for y, others in zip(raters, rest, strict=True)),
        "human.loo_max_dice": mean(max(dice(y, o) for o in others) for y, others in zip(raters, rest, strict=True)),
        "human.loo_soft_dice": mean(
            soft(others, [y], dice, FIVE, everywhere) for y, others in zip(raters, rest, strict=True)
        ),
        "human.loo_ged": mean(energy([y], others, iou) for y, others in zip(raters, rest, strict=True)),
    }
    out["human.split_ged"] = NAN
    if len(raters) >= 4:
        halves = list(combinations(range(len(raters)), len(raters) // 2))
        out["human.split_ged"] = mean(
            energy([raters[i] for i in half], [y for i, y in enumerate(raters) if i not in half], iou)
            for half in halves
        )
    return out


def expected_over_draws(raters, count, value):
    """Mean of value(draw) over all R^count equally likely draws, without a seed."""
    total, draws = Fraction(0), 0
    for code in range(len(raters) ** count):
        draw = [raters[code // len(raters) ** i % len(raters)] for i in range(count)]
        total += value(draw)
        draws += 1
    return total / draws


def by_all_permutations(matrix):
    """Largest mean of a square assignment; checks `best_assignment` itself."""
    size = len(matrix)
    return max(sum(matrix[i][p[i]] for i in range(size)) for p in permutations(range(size)))


# -- generated masks ----------------------------------------------------------------------------------


def random_mask(rng, shape):
    """Empty, single-pixel, full, blocks that may be disconnected, or noise, each about as often."""
    mask = np.zeros(shape, bool)
    kind = rng.integers(0, 6)
    if kind == 1:
        mask.flat[rng.integers(mask.size)] = True
    elif kind == 2:
        mask[:] = True
    elif kind in (3, 4):
        for _ in range(int(rng.integers(1, 4))):
            corner = [int(rng.integers(0, n)) for n in shape]
            extent = [int(rng.integers(1, 1 + max(1, n // 2))) for n in shape]
            mask[tuple(slice(c, c + e) for c, e in zip(corner, extent, strict=True))] = True
    elif kind == 5:
        mask = rng.random(shape) < rng.uniform(0.1, 0.9)
    return mask


def random_masks(rng, count, shape):
    """A set in which masks often resemble each other, as raters do."""
    masks = np.stack([random_mask(rng, shape) for _ in range(count)])
    if count > 1 and rng.random() < 0.5:
        masks[1:] = np.where(rng.random((count - 1, *shape)) < 0.8, masks[0], masks[1:])
    if count > 2 and rng.random() < 0.3:
        masks[2] = masks[0]
    return masks
