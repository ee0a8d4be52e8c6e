"""Time of the surface metrics against one pair of masks at a time, measured in the same run."""

from __future__ import annotations

import time

import numpy as np
import pytest
from multirater.metrics import score_case
from scipy.ndimage import binary_erosion, distance_transform_edt

pytestmark = pytest.mark.perf


def ellipsoids(shape, count, seed):
    """Overlapping ellipses or ellipsoids of lesion-like sizes."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) / n for n in shape], indexing="ij"), axis=-1)
    centres, radii = rng.normal(0.5, 0.04, (count, len(shape))), rng.uniform(0.1, 0.35, (count, len(shape)))
    return np.stack([(((grid - c) / r) ** 2).sum(-1) < 1 for c, r in zip(centres, radii, strict=True)])


def per_pair(raters, samples):
    """HD95 and ASSD of every pair, each with its two distance transforms, as released functions do it."""
    hd95, assd = [], []
    for y in raters:
        for s in samples:
            edge_y, edge_s = y ^ binary_erosion(y), s ^ binary_erosion(s)
            there, back = distance_transform_edt(~edge_y)[edge_s], distance_transform_edt(~edge_s)[edge_y]
            hd95.append(max(np.percentile(there, 95), np.percentile(back, 95)))
            assd.append(np.concatenate([there, back]).mean())
    return {"hd95.mean": np.mean(hd95), "assd.mean": np.mean(assd)}


def seconds(function, times):
    found = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.mark.parametrize(("shape", "count", "factor"), [((128, 128), 50, 7), ((24, 48, 48), 8, 8)])
def test_against_pairs(race, shape, count, factor):
    """R + S transforms of the masks' box instead of 2·R·S of the image, and six metrics instead of two."""
    raters, samples = ellipsoids(shape, 4, 1), ellipsoids(shape, count, 2)
    names = ["hd95.mean", "hd95.best", "hd95.match", "assd.mean", "assd.match", "nsd@2.mean"]
    got = score_case(raters, samples, metrics=names)
    want = per_pair(raters, samples)
    assert {name: got[name] for name in want} == pytest.approx(want, abs=1e-9)
    times = race(
        "metrics",
        f"surfaces of 4 x {count} at {'×'.join(map(str, shape))}: six ids against two",
        lambda: score_case(raters, samples, metrics=names),
        lambda: per_pair(raters, samples),
        inner=(3, 1),
    )
    assert times >= factor


def test_further_metrics_cost_little():
    """Distances are made once a case: ten ids take less than twice the time of one."""
    raters, samples = ellipsoids((128, 128), 4, 1), ellipsoids((128, 128), 50, 2)
    many = [f"{n}.{form}" for n in ("hd95", "hd", "assd", "nsd@1", "nsd@2") for form in ("mean", "best")]
    one, ten = float("inf"), float("inf")
    for _ in range(4):
        one = min(one, seconds(lambda: score_case(raters, samples, metrics=["hd95.mean"]), 2))
        ten = min(ten, seconds(lambda: score_case(raters, samples, metrics=many), 2))
    assert ten < 2 * one
