"""Time of `score_case` against per-pair loops in the style of released evaluation code, measured in the same run."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from multirater.metrics import info_of, list_metrics, score_case, score_cases
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


def test_against_pairs(race, case):
    """About 25 times the loop at 128 × 128, though it computes six times as many metrics."""
    raters, samples = case
    times = race(
        "metrics",
        f"{len(OVERLAP)} overlap ids, 4 x 50 at {raters.shape[1]}²: against five ids pair by pair",
        lambda: score_case(raters, samples, metrics=OVERLAP),
        lambda: per_pair(raters, samples),
        rounds=5,
        inner=(20, 2),
        bytes=raters.nbytes + samples.nbytes,
    )
    assert times >= (18 if raters.shape[1] == 128 else 8)


def test_many_samples(race):
    """Memory too: no array of S × S × pixels is built. The loop would take 25 times as long for all samples."""
    raters, samples = ellipses(128, 4, 1), ellipses(128, 500, 3)
    tracemalloc.start()
    score_case(raters, samples, metrics=OVERLAP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    times = race(
        "metrics",
        f"{len(OVERLAP)} overlap ids, 4 x 500 at 128²: against five ids pair by pair of 100",
        lambda: score_case(raters, samples, metrics=OVERLAP),
        lambda: per_pair(raters, samples[:100]),
        inner=(3, 1),
        bytes=raters.nbytes + samples.nbytes,
    )
    assert times >= 2


def plain_ncc(raters, probs):
    """NCC in the style of its release: a map of cross entropies for every sample and rater, in Python loops."""
    probs = probs.astype(np.float64)
    mean = probs.mean(0)

    def cross_entropy(target):
        maps = [-(target * np.log(p + 1e-6) + (1 - target) * np.log(1 - p + 1e-6)) for p in probs]
        return np.mean(maps, axis=0)

    def correlation(a, v):
        a, v = a.ravel(), v.ravel()
        return ((a - a.mean()) * (v - v.mean())).sum() / (len(v) * a.std() * v.std())

    own = cross_entropy(mean)
    return float(np.mean([correlation(own, cross_entropy(y)) for y in raters]))


@pytest.mark.parametrize("variant", ["canonical", "phiseg"])
def test_correlation_of_maps(race, variant):
    raters = ellipses(128, 4, 1)
    noise = np.random.default_rng(0).random((100, 128, 128))
    probs = np.clip(0.9 * ellipses(128, 100, 5) + 0.1 * noise, 0, 1).astype(np.float32)
    times = race(
        "metrics",
        f"NCC, 4 x 100 at 128², {variant}: against a map a sample and a rater",
        lambda: score_case(raters, probs=probs, metrics=["ncc"], variant=variant),
        lambda: plain_ncc(raters, probs),
        inner=(5, 1),
        bytes=raters.nbytes + probs.nbytes,
    )
    assert times >= 5


def ellipsoids(count, seed, shape=(64, 256, 256)):
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    out = np.zeros((count, *shape), bool)
    for mask in out:
        centre, radius = rng.normal(0.5, 0.04, 3) * shape, rng.uniform(0.15, 0.35, 3) * shape
        mask[:] = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radius, strict=True)) < 1
    return out


def test_volumes(race):
    raters, samples = ellipsoids(4, 1), ellipsoids(16, 2)
    times = race(
        "metrics",
        f"{len(OVERLAP)} overlap ids, 4 x 16 at 64×256×256: against five ids pair by pair of 2",
        lambda: score_case(raters, samples, metrics=OVERLAP),
        lambda: per_pair(raters, samples[:2]),
        rounds=2,
        bytes=raters.nbytes + samples.nbytes,
    )
    assert times >= 1.5


def test_a_thousand_cases(race):
    """On all cores; the loop is timed on twenty cases."""
    few = np.stack([ellipses(128, 4, i) for i in range(20)]), np.stack([ellipses(128, 50, 99 + i) for i in range(20)])
    raters, samples = (np.tile(x, (50, 1, 1, 1)) for x in few)
    times = race(
        "metrics",
        f"score_cases, {len(OVERLAP)} ids, 1,000 x 4 x 50 at 128²: against five ids pair by pair of 20 cases",
        lambda: score_cases(raters, samples, metrics=OVERLAP),
        lambda: [per_pair(*case) for case in zip(*few, strict=True)],
        rounds=2,
        bytes=raters.nbytes + samples.nbytes,
    )
    assert times >= 0.2


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
