"""Time of `score_case` against per-pair loops in the style of released evaluation code, measured in the same run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from multirater.metrics import info_of, list_metrics, score_case
from scipy.optimize import linear_sum_assignment

pytestmark = pytest.mark.perf

OTHERS = ("human.", "dice_rater", "rater_", "iou_rater", "dice_each", "ged.per_class")
FAMILIES = ("ged", "hm", "dice", "map")
OVERLAP = [n for n in list_metrics() if info_of(n)["family"] in FAMILIES and not n.startswith(OTHERS)]


def ellipses(size, count, seed):
    """Overlapping ellipses of lesion-like sizes that fill a good part of the image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    out = []
    for _ in range(count):
        (cy, cx), (ry, rx) = rng.normal(0.5, 0.04, 2), rng.uniform(0.1, 0.4, 2)
        out.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1)
    return np.stack(out)


@pytest.fixture(params=[64, 128])
def case(request):
    return ellipses(request.param, 4, 1), ellipses(request.param, 50, 2)


def best_of(function, times):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def per_pair(raters, samples):
    """GED, both dice_max, dice_match and dice_soft, one pair of masks at a time."""

    def iou(a, b):
        union = np.logical_or(a, b).sum()
        return np.logical_and(a, b).sum() / union if union else 1.0

    def dice(a, b):
        total = a.sum() + b.sum()
        return 2 * np.logical_and(a, b).sum() / total if total else 1.0

    cross = np.mean([1 - iou(s, y) for s in samples for y in raters])
    within_samples = np.mean([1 - iou(a, b) for a in samples for b in samples])
    within_raters = np.mean([1 - iou(a, b) for a in raters for b in raters])
    matrix = np.array([[dice(y, s) for s in samples] for y in raters])
    p, q = samples.mean(0), raters.mean(0)
    return {
        "ged": 2 * cross - within_samples - within_raters,
        "dice_max_rater_to_sample": matrix.max(1).mean(),
        "dice_max_sample_to_rater": matrix.max(0).mean(),
        "dice_match": matrix[linear_sum_assignment(matrix, maximize=True)].mean(),
        "dice_soft": np.mean([dice(p > t, q > t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]),
    }


def test_same_values(case):
    want = per_pair(*case)
    got = score_case(*case, metrics=list(want))
    assert got == pytest.approx(want, abs=1e-9)


def test_against_pairs(case):
    """At least 25 times the loop at 128 × 128, though it computes five times as many metrics, and below 5 ms."""
    raters, samples = case
    fast = slow = float("inf")
    for _ in range(5):  # on a busy machine the shortest of several rounds is the time of the code
        fast = min(fast, best_of(lambda: score_case(raters, samples, metrics=OVERLAP), 20))
        slow = min(slow, best_of(lambda: per_pair(raters, samples), 2))
    print(f"\n{raters.shape[1]} px: {len(OVERLAP)} metrics {fast * 1e3:.2f} ms, loop {slow * 1e3:.1f} ms")
    assert fast < 5e-3
    if raters.shape[1] == 128:
        assert slow / fast >= 25


def test_growth_with_samples():
    """Ten times the samples: the products grow a hundredfold, yet no array of S × S × N is built."""
    raters = ellipses(128, 4, 1)
    few, many = ellipses(128, 50, 2), ellipses(128, 500, 3)
    names = ["ged", "dice_match", "dice_max_mean", "dice_soft"]
    ratio = best_of(lambda: score_case(raters, many, metrics=names), 3) / best_of(
        lambda: score_case(raters, few, metrics=names), 10
    )
    assert ratio < 150


def test_score_case(benchmark, case):
    benchmark(lambda: score_case(*case, metrics=OVERLAP))


def test_score_case_probabilities(benchmark, case):
    raters, samples = case
    probs = np.where(samples, 0.8, 0.1).astype(np.float32)
    benchmark(lambda: score_case(raters, probs=probs, metrics=OVERLAP))
