"""Human baselines: drawn ones against full enumeration and one-by-one assignments, cases with few raters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from multirater.metrics import Convention, human_case, list_metrics, score_case
from multirater.metrics.human import _draws, places
from multirater.metrics.matching import balanced_match, moved_similarity


@pytest.fixture
def raters(reference):
    return reference.random_masks(np.random.default_rng(11), 4, (6, 6))


def test_all_baselines_by_name(raters):
    got = human_case(raters, 16)
    assert set(got) == {n for n in list_metrics() if n.startswith("human.")}
    direct = score_case(raters, metrics=list(got), n_samples=16)
    assert direct == got
    assert score_case(raters)["human.oracle_ged"] == got["human.oracle_ged"]  # 16 without samples
    with_samples = score_case(raters, raters[[0, 1]], metrics=["human.oracle_ged"])
    assert with_samples["human.oracle_ged"] == pytest.approx(got["human.oracle_ged"] * 8)  # S of the samples


def _similarity(reference, raters):
    return np.array([[float(reference.iou(*map(reference.pixels, (a, b)))) for b in raters] for a in raters])


def test_the_order_of_the_raters_moves_no_baseline(reference):
    rng = np.random.default_rng(4)
    for _ in range(40):
        raters = reference.random_masks(rng, int(rng.integers(2, 6)), (6, 6))
        swapped = human_case(rng.permutation(raters), 5)
        for name, value in human_case(raters, 5).items():
            if not name.endswith(".each"):
                assert swapped[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("count", [1, 2, 3, 16, 50])
def test_drawn_baselines_equal_scores_of_the_draws(reference, raters, count):
    """The same draws, made into masks and scored as a method's samples."""
    vectors, times = _draws(4, count, "")
    assert times.sum() == 200
    assert (vectors.sum(1) == count).all()
    vectors = vectors[:, places(_similarity(reference, raters))]
    scored = [score_case(raters, raters.repeat(v, axis=0), metrics=["hm_iou", "dice_match"]) for v in vectors]
    got = human_case(raters, count)
    for name in ("hm_iou", "dice_match"):
        want = np.average([s[name] for s in scored], weights=times)
        assert got[f"human.oracle_{name}"] == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_drawn_match_for_other_numbers_of_raters(reference, size):
    raters = reference.random_masks(np.random.default_rng(size), size, (6, 6))
    vectors, times = _draws(size, 6, "")
    similarity = _similarity(reference, raters)
    vectors = vectors[:, places(similarity)]
    want = np.average([balanced_match(similarity.repeat(v, axis=0)) for v in vectors], weights=times)
    assert human_case(raters, 6)["human.oracle_hm_iou"] == pytest.approx(want, abs=1e-9)


def test_moving_excess_equals_full_transport():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = int(rng.integers(2, 7))
        points = rng.random((size, 2))
        similarity = 1 - np.linalg.norm(points[:, None] - points, axis=2)  # 1 − a metric
        counts = rng.multinomial(6, np.full(size, 1 / size), size=3)
        shared = np.minimum(counts * size, 6)
        moved = moved_similarity(similarity, counts * size - shared, 6 - shared)
        for row, kept, extra in zip(counts, shared, moved, strict=True):
            want = balanced_match(similarity.repeat(row, axis=0))
            assert (kept.sum() + extra) / (6 * size) == pytest.approx(want, abs=1e-9)


def test_expected_values_over_all_draws(reference, raters):
    """Every one of the 4^3 draws: the expected ged is v_R / 3 exactly."""
    y = list(map(reference.pixels, raters))
    exact = reference.expected_over_draws(y, 3, lambda draw: reference.energy(draw, y, reference.iou))
    assert human_case(raters, 3)["human.oracle_ged"] == pytest.approx(float(exact), abs=1e-12)
    debiased = reference.expected_over_draws(
        y, 3, lambda draw: reference.energy(draw, y, reference.iou, exclude_samples=True)
    )
    assert debiased == 0


def test_many_draws_of_the_oracle():
    """Mean over 20 000 draws of `ged` is v_R/S within 2 %, of `ged.debiased` 0 within 0.005."""
    rng = np.random.default_rng(20240229)
    raters = np.zeros((4, 6, 6), bool)
    for r in range(4):
        raters[r, : r + 2, r:] = True
    distance = 1 - score_case_matrix(raters)
    v_r, size = distance.mean(), 4
    drawn = rng.integers(0, 4, (20_000, size))
    cross = distance[drawn].mean((1, 2))
    within = distance[drawn[:, :, None], drawn[:, None, :]].mean((1, 2))
    ged = 2 * cross - within - v_r
    assert ged.mean() == pytest.approx(v_r / size, rel=0.02)
    assert (2 * cross - within * size / (size - 1) - v_r).mean() == pytest.approx(0, abs=0.005)
    for row, value in zip(drawn[:20], ged, strict=False):
        assert score_case(raters, raters[row], metrics=["ged"])["ged"] == pytest.approx(value, abs=1e-12)


def score_case_matrix(raters):
    """IoU matrix of the raters, one pair of masks at a time."""
    return np.array([[score_case(a[None], b[None], metrics=["iou_mean"])["iou_mean"] for b in raters] for a in raters])


def test_seed_axes_choose_the_draws(raters):
    plain = human_case(raters, 5)
    assert human_case(raters, 5) == plain
    named = human_case(raters, 5, seed_axes={"case": "a"})
    assert named == human_case(raters, 5, seed_axes={"case": "a"})
    assert named["human.oracle_hm_iou"] != plain["human.oracle_hm_iou"]
    assert named["human.loo_ged"] == plain["human.loo_ged"]


def test_one_rater_has_no_colleague(raters):
    for got in (human_case(raters[:1], 4), human_case(raters, 4, rater_valid=[False, False, True, False])):
        assert all(np.isnan(v).all() for v in got.values())
    assert len(human_case(raters, 4, rater_valid=[False, False, True, False])["human.loo_ged.each"]) == 4
    reason = score_case(raters[:3], metrics=["human.split_ged"], reasons=True)
    assert math.isnan(reason["human.split_ged"])
    assert "4 raters" in reason["reasons"]["human.split_ged"]


def test_missing_raters_keep_their_slots(raters):
    present = np.array([True, False, True, True])
    got, want = human_case(raters, 8, rater_valid=present), human_case(raters[present], 8)
    for name, value in want.items():
        if isinstance(value, list):
            assert np.array(got[name])[present].tolist() == value
            assert math.isnan(got[name][1])
        else:
            assert got[name] == pytest.approx(value, nan_ok=True)


def test_variants_apply_to_humans(raters):
    raters = raters.copy()
    raters[0] = False
    raters[1] = False
    released = human_case(raters, 4, variant="dpersona")
    plain = human_case(raters, 4)
    assert released["human.loo_ged"] != pytest.approx(plain["human.loo_ged"], abs=1e-3)
    distance = np.array(
        [[score_case(a[None], b[None], metrics=["cross"], variant="dpersona")["cross"] for b in raters] for a in raters]
    )
    draws = np.stack(np.meshgrid(*[range(4)] * 4), -1).reshape(-1, 4)  # all 4^4
    ged = [2 * distance[d].mean() - distance[np.ix_(d, d)].mean() - distance.mean() for d in draws]
    assert released["human.oracle_ged"] == pytest.approx(np.mean(ged), abs=1e-9)
    assert math.isnan(human_case(raters, 4, variant=Convention(diagonal="exclude"))["human.loo_ged"])
    got = score_case(raters, metrics=["human.loo_ged"], rater_weights=[0.4, 0.2, 0.2, 0.2], reasons=True)
    assert "weighted" in got["reasons"]["human.loo_ged"]
