"""The synthetic data's exact scores against brute force: every mask, every outcome of every rater."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.datasets.synthetic import _expected_dice


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))


def dice(a, b):
    total = a.sum() + b.sum()
    return 1.0 if total == 0 else 2 * (a & b).sum() / total


def jaccard_distance(a, b):
    union = (a | b).sum()
    return 0.0 if union == 0 else 1 - (a & b).sum() / union


def ged(samples, raters):
    """The definition: 2 cross - within samples - within raters, all pairs with the diagonal."""

    def mean(first, second):
        return np.mean([jaccard_distance(a, b) for a in first for b in second])

    return 2 * mean(samples, raters) - mean(samples, samples) - mean(raters, raters)


def expected_ged(samples, oracle, valid):
    """Mean over all K^R equally likely rater outcomes."""
    rows = [oracle.masks[r].astype(bool) for r in np.flatnonzero(valid)]
    return np.mean([ged(samples, outcome) for outcome in product(*rows)])


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_ged_floor_is_reached_by_the_full_support_and_never_undercut(missing):
    data = open_dataset("synthetic", size=32, cases=8, raters=3, missing=missing)
    floor = data.ged_floor()
    rng = np.random.default_rng(0)
    for i in range(3):
        oracle, valid = data.oracle(i), data.store.rater_valid[i]
        support = oracle.masks[valid].reshape(-1, 32, 32).astype(bool)
        assert expected_ged(support, oracle, valid) == pytest.approx(floor[i], abs=1e-12)
        for size in (1, 2, 5):
            chosen = support[rng.integers(0, len(support), size)]
            noisy = chosen ^ (rng.random(chosen.shape) < 0.02)
            assert expected_ged(chosen, oracle, valid) >= floor[i] - 1e-12
            assert expected_ged(noisy, oracle, valid) > floor[i]


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_ged_of_the_perfect_sampler_is_the_mean_over_all_draws(missing):
    data = open_dataset("synthetic", size=32, cases=8, raters=2, missing=missing)
    expected = {s: data.ged_sampler(s) for s in (1, 2)}
    for i in range(4):
        oracle, valid = data.oracle(i), data.store.rater_valid[i]
        support = oracle.masks.reshape(-1, 32, 32).astype(bool)
        for size, values in expected.items():
            mean = np.mean([expected_ged(draw, oracle, valid) for draw in product(support, repeat=size)])
            assert mean == pytest.approx(values[i], abs=1e-12)


def test_sampler_exceeds_the_floor_by_spread_over_samples():
    data = open_dataset("synthetic", cases=20)
    gap = [data.ged_sampler(s) - data.ged_floor() for s in (1, 4, 16)]
    np.testing.assert_allclose(gap[0], 4 * gap[1], atol=1e-12)
    np.testing.assert_allclose(gap[0], 16 * gap[2], atol=1e-12)
    assert gap[2].min() > 0


@pytest.mark.parametrize("areas", [(2, 4, 7), (1, 1, 6), (0, 3, 5), (0, 0, 4), (5, 5, 5)])
def test_best_dice_is_a_mask_of_the_rater_even_against_all_masks(areas):
    pixels = np.arange(8)
    support = [pixels < a for a in areas]
    every_mask = [np.isin(pixels, c) for n in range(9) for c in combinations(range(8), n)]
    best = max(np.mean([dice(m, y) for y in support]) for m in every_mask)
    assert _expected_dice(np.array(areas)).max() == pytest.approx(best, abs=1e-12)


def test_oracle_lists_what_the_raters_can_draw():
    data = open_dataset("synthetic", size=48, cases=10, raters=4)
    best = data.best_dice_rater()
    areas = data.areas()
    for i in range(10):
        oracle = data.oracle(i)
        case = data.load(i)
        assert oracle.probabilities.sum(1) == pytest.approx(1)
        np.testing.assert_array_equal(oracle.areas, areas[i])
        np.testing.assert_allclose(oracle.mean, oracle.masks.reshape(-1, 48, 48).mean(0))
        for r in range(4):
            assert any((case.masks[r] == mask).all() for mask in oracle.masks[r])
            own = [dice(oracle.best[r].astype(bool), m.astype(bool)) for m in oracle.masks[r]]
            assert np.mean(own) == pytest.approx(best[i, r], abs=1e-12)
        assert (np.diff(np.sort(oracle.areas.ravel())) >= 0).all()
        assert (np.diff(oracle.areas, axis=1) > 0).all(), "noise outcomes differ in area"


def test_without_noise_every_rater_can_be_met_exactly():
    data = open_dataset("synthetic", cases=12, noise=0.0)
    np.testing.assert_allclose(data.best_dice_rater(), 1.0)
    np.testing.assert_allclose(data.ged_floor(), 0.0, atol=1e-15)


def test_style_is_a_rater_property():
    data = open_dataset("synthetic", cases=200)
    areas = data.store.masks.sum((2, 3)).mean(0)
    assert (np.diff(areas) > 0).all()
    same = open_dataset("synthetic", cases=200, styles=0.0).store.masks.sum((2, 3)).mean(0)
    assert np.ptp(same) / same.mean() < 0.05


def test_identity_none_shuffles_slots_and_keeps_the_masks():
    known, hidden = (open_dataset("synthetic", cases=100, identity=i) for i in ("synthetic", "none"))
    assert known.describe().identity == "synthetic"
    assert hidden.describe().identity == "none"
    every = np.arange(100)
    a, b = known.arrays(every)[1].sum((2, 3)), hidden.arrays(every)[1].sum((2, 3))
    np.testing.assert_array_equal(np.sort(a, 1), np.sort(b, 1))
    assert np.ptp(b.mean(0)) < 0.25 * np.ptp(a.mean(0)), "a slot says nothing of the rater"
    assert known.fingerprint != hidden.fingerprint
    assert known.cache_folder == hidden.cache_folder


def test_missing_raters_are_absent_not_empty():
    data = open_dataset("synthetic", cases=200, missing=0.5)
    valid = data.store.rater_valid
    assert 0.4 < (~valid).mean() < 0.55
    assert valid.any(1).all()
    assert data.describe().has_missing
    assert not data.arrays([0, 1, 2])[1][~valid[:3]].any()
    assert (data.store.masks.sum((2, 3))[valid] > 0).all()


def test_same_options_same_bits_and_a_longer_set_begins_with_the_shorter():
    long, short = open_dataset("synthetic", cases=24, size=32), open_dataset("synthetic", cases=10, size=32)
    np.testing.assert_array_equal(long.store.masks[:10], short.store.masks)
    np.testing.assert_array_equal(long.store.images[:10], short.store.images)
    assert long.fingerprint != short.fingerprint
    other = open_dataset("synthetic", cases=10, size=32, seed=1)
    assert (other.store.masks != short.store.masks).any()
    assert other.fingerprint != short.fingerprint


def test_patients_have_two_cases_that_resemble_each_other():
    data = open_dataset("synthetic", cases=41)
    patients = [r.patient_id for r in data.records]
    assert len(set(patients)) == 21
    width = np.array([r.meta["width"] for r in data.records])
    np.testing.assert_array_equal(width[0:40:2], width[1:40:2])
    image = data.arrays([0])[0]
    assert image.shape == (1, 1, 64, 64)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1


def test_the_image_shows_the_ambiguity_width():
    data = open_dataset("synthetic", cases=200)
    field = np.asarray(data.store.extra("field"))
    width = np.array([r.meta["width"] for r in data.records])
    edge = np.abs(field) < 0.5
    gradient = np.hypot(*np.gradient(np.asarray(data.store.images[:, 0]), axis=(1, 2)))
    slope = np.array([g[e].mean() for g, e in zip(gradient, edge, strict=True)])
    assert np.corrcoef(slope, 1 / width)[0, 1] > 0.5


@pytest.mark.parametrize("wrong", [{"raters": 0}, {"noise": -1}, {"identity": "by_area"}, {"sise": 64}])
def test_wrong_options_are_one_sentence(wrong):
    with pytest.raises(UserError, match=r"dataset\." + next(iter(wrong))) as caught:
        open_dataset("synthetic", **wrong)
    assert "\n" not in str(caught.value)
