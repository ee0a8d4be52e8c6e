"""Metric values that the specification pages of the methods state, on masks that anybody can draw."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.metrics import score_case
from multirater.metrics.staple import staple_case


@pytest.fixture
def six_discs():
    """Baselines, section 7: concentric discs of radii 8 to 13 on 64×64."""
    row, column = np.mgrid[:64, :64] - 32
    return np.stack([row**2 + column**2 <= r**2 for r in range(8, 14)])


def test_raters_of_the_baselines_page(six_discs):
    assert six_discs.sum((1, 2)).tolist() == [197, 253, 317, 377, 441, 529]
    votes = six_discs.sum(0)
    assert [(votes >= k).sum() for k in range(1, 7)] == [529, 441, 377, 317, 253, 197]
    found = score_case(six_discs)
    assert found["pairwise_dice"] == pytest.approx(0.781230, abs=1e-6)
    assert found["human.loo_majority_dice.each"] == pytest.approx(
        [0.686411, 0.803175, 0.913545, 0.913545, 0.836412, 0.749409], abs=1e-6
    )
    assert found["diversity_raters"] == pytest.approx(0.287610, abs=1e-6)
    assert found["diversity_raters"] * 6 / 5 == pytest.approx(0.345132, abs=1e-6)  # pairs i ≠ j


def test_strict_majority_as_the_only_sample(six_discs):
    majority = six_discs.mean(0) > 0.5
    assert majority.sum() == 317
    found = score_case(six_discs, majority[None])
    assert found["ged"] == pytest.approx(0.186233, abs=1e-6)
    assert 2 * found["cross"] - found["diversity_raters"] * 6 / 5 == pytest.approx(0.128711, abs=1e-6)


def test_staple_of_the_baselines_page(six_discs):
    found = staple_case(six_discs, region="full")
    assert found.mask.sum() == 377
    assert found.sensitivity == pytest.approx([0.5225, 0.6711, 0.8408, 1, 1, 1], abs=5e-5)
    assert found.specificity == pytest.approx([1, 1, 1, 1, 0.9828, 0.9591], abs=5e-5)


def disc(x, y, r):
    row, column = np.mgrid[:32, :32]
    return (column - x) ** 2 + (row - y) ** 2 <= r**2


def test_metric_values_of_the_phiseg_page():
    """PHiSeg, section 7: four raters of whom one drew nothing, eight samples of which two are empty."""
    empty = np.zeros((32, 32), bool)
    raters = np.stack([disc(16, 16, 6), disc(17, 16, 5), disc(15, 17, 7), empty])
    places = [(16, 16, 6), (16, 15, 8), (18, 16, 4), None, (16, 16, 5), (15, 15, 6), (17, 17, 7), None]
    samples = np.stack([empty if place is None else disc(*place) for place in places])
    assert raters.sum((1, 2)).tolist() == [113, 81, 149, 0]
    found = score_case(raters, samples)
    assert found["cross"] == pytest.approx(0.5843939279, abs=1e-9)
    assert found["diversity_samples"] == pytest.approx(0.5937875142, abs=1e-9)
    assert found["diversity_samples.ustat"] == pytest.approx(0.6786143, abs=1e-7)
    assert found["diversity_raters"] == pytest.approx(0.5085911556, abs=1e-9)
    assert found["ged"] == pytest.approx(0.0664091861, abs=1e-9)
    assert found["hm_iou"] == pytest.approx(0.8044380303, abs=1e-9)
    assert found["dice_max_rater_to_sample"] == pytest.approx(0.9221562529, abs=1e-9)
    assert found["combined_sensitivity"] == pytest.approx(0.9415584416, abs=1e-9)

    noise = np.array([((7919 * k**2 + 104729 * k + 12345) % 1000003) / 1000003 for k in range(32 * 32 + 700)])
    maps = [
        0.9 * s + 0.05 + 0.04 * (noise[100 * i : 100 * i + 1024].reshape(32, 32) - 0.5) for i, s in enumerate(samples)
    ]
    ncc = score_case(raters, probs=np.clip(maps, 0, 1), metrics=["ncc"], variant="phiseg")["ncc"]
    assert ncc == pytest.approx(0.8928787700, abs=5e-9)
