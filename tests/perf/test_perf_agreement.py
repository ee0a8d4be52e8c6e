"""Time of STAPLE by vote patterns against the same rounds pixel by pixel, and of agreement, in the same run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from multirater.metrics import info_of, list_metrics, score_case, staple_case

pytestmark = pytest.mark.perf

AGREEMENT = [n for n in list_metrics() if info_of(n)["family"] == "agreement" and not n.startswith("staple")]


def raters_of(size, count=5):
    """A disc seen with errors: all 2^5 patterns occur."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size]
    truth = (y - size / 2) ** 2 + (x - size / 2) ** 2 < (size / 3) ** 2
    return truth ^ (rng.random((count, size, size)) < rng.uniform(0.05, 0.3, (count, 1, 1)))


def pixelwise(raters, rounds):
    """STAPLE with one weight for each pixel, vectorised over pixels, for a given number of rounds."""
    y = raters.reshape(len(raters), -1).astype(float)
    a = b = np.full(len(raters), 0.99999)
    f = y.mean()
    for _ in range(rounds):
        yes = np.log(f) + np.log(a) @ y + np.log1p(-a) @ (1 - y)
        no = np.log1p(-f) + np.log1p(-b) @ y + np.log(b) @ (1 - y)
        w = 1 / (1 + np.exp(no - yes))
        a = np.clip(y @ w / w.sum(), 1e-6, 1 - 1e-6)
        b = np.clip((1 - y) @ (1 - w) / (1 - w).sum(), 1e-6, 1 - 1e-6)
    return a, b


def best_of(function, times):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.fixture(scope="module", params=[128, 512])
def raters(request):
    return raters_of(request.param)


def test_patterns_against_pixels(race, raters):
    """At least twice as fast at 128 × 128, map included, and 10 times at 512 × 512; the same estimate."""
    found = staple_case(raters, region="full")
    a, b = pixelwise(raters, found.rounds)
    np.testing.assert_allclose(found.sensitivity, a, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.specificity, b, rtol=0, atol=1e-9)
    times = race(
        "metrics",
        f"STAPLE of {len(raters)} raters at {raters.shape[1]}×{raters.shape[2]}: patterns against pixels",
        lambda: staple_case(raters, region="full"),
        lambda: pixelwise(raters, found.rounds),
        inner=(5, 2),
    )
    assert times >= (2 if raters.shape[1] == 128 else 10)


def test_rounds_cost_the_same_at_any_size():
    """Sixteen times the pixels: only the counting of patterns grows."""
    small, large = raters_of(128), raters_of(512)
    names = ["staple.dice"]
    ratio = best_of(lambda: score_case(large, metrics=names), 5) / best_of(lambda: score_case(small, metrics=names), 10)
    assert ratio < 24


def test_agreement(benchmark, raters):
    benchmark(lambda: score_case(raters, metrics=AGREEMENT))


def test_staple(benchmark, raters):
    benchmark(lambda: score_case(raters, metrics=["staple.dice"]))
