"""STAPLE and consensus masks: against estimates pixel by pixel, SimpleITK, and cases whose answer is known."""

from __future__ import annotations

import math

import metric_reference_agreement
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from multirater.core.errors import UserError
from multirater.metrics import consensus_mask, info_of, list_metrics, score_case, score_cases, staple_case

STAPLE = [n for n in list_metrics() if n.startswith("staple.")]
quick = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def slow():
    return metric_reference_agreement


def noisy_raters(rng, count, shape, errors=0.3):
    """A disc seen by raters who miss and invent pixels, each at a rate of their own."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = (y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < (min(shape) * rng.uniform(0.2, 0.45)) ** 2
    wrong = rng.random((count, *shape)) < rng.uniform(0.02, errors, (count, 1, 1))
    return truth ^ wrong


def test_against_pixel_by_pixel(reference, slow):
    """500 cases of every kind; also the metrics made of the estimate."""
    done, iterated = 0, 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        raters = (
            reference.random_masks(rng, int(rng.integers(1, 6)), [(4, 5), (2, 3, 3)][seed % 2])
            if seed % 5
            else noisy_raters(rng, int(rng.integers(2, 6)), (6, 7))
        )
        pixels = list(np.ndindex(raters.shape[1:]))
        w, a, b, rounds = slow.staple([[int(y[x]) for x in pixels] for y in raters])
        got = staple_case(raters)
        assert got.rounds == rounds, seed
        np.testing.assert_allclose(got.weights.ravel(), w, rtol=0, atol=1e-9)
        np.testing.assert_allclose(got.sensitivity, a, rtol=0, atol=1e-9)
        np.testing.assert_allclose(got.specificity, b, rtol=0, atol=1e-9)
        values = score_case(raters, metrics=STAPLE)
        if not (np.abs(np.array(w) - 0.5) < 1e-9).any():
            each = [float(slow.dice(list(y.ravel()), [v > 0.5 for v in w])) for y in raters]
            assert values["staple.dice.each"] == pytest.approx(each)
            assert values["staple.dice"] == pytest.approx(np.mean(each))
            done += 1
        assert values["staple.sensitivity.each"] == pytest.approx(a, abs=1e-9, nan_ok=True)
        assert values["staple.specificity.each"] == pytest.approx(b, abs=1e-9, nan_ok=True)
        iterated += rounds > 5
    assert done > 350
    assert iterated > 200


def test_against_simpleitk():
    """On the full image, as SimpleITK looks at all of it; it knows no clipping and no rule for empty masks."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    rng = np.random.default_rng(0)
    for _ in range(50):
        raters = noisy_raters(rng, int(rng.integers(3, 7)), (20, 24))
        run = sitk.STAPLEImageFilter()
        run.SetForegroundValue(1.0)
        want = sitk.GetArrayFromImage(run.Execute([sitk.GetImageFromArray(y.astype(np.uint8)) for y in raters]))
        got = staple_case(raters, region="full")
        np.testing.assert_allclose(got.weights, want, rtol=0, atol=1e-3)
        np.testing.assert_allclose(got.sensitivity, run.GetSensitivity(), rtol=0, atol=1e-3)
        np.testing.assert_allclose(got.specificity, run.GetSpecificity(), rtol=0, atol=1e-3)


def test_finds_the_raters_again():
    """Raters with known error rates around a known truth."""
    rng = np.random.default_rng(1)
    truth = np.zeros((120, 120), bool)
    truth[30:90, 20:100] = True
    a, b = np.array([0.95, 0.8, 0.6, 0.9]), np.array([0.99, 0.9, 0.97, 0.85])
    hit = rng.random((4, 120, 120)) < np.where(truth, a[:, None, None], 1 - b[:, None, None])
    got = staple_case(hit, region="full")
    assert got.sensitivity == pytest.approx(a, abs=0.03)
    assert got.specificity == pytest.approx(b, abs=0.03)
    assert (got.mask == truth).mean() > (consensus_mask(hit) == truth).mean() > 0.9
    assert got.rounds < 200


def test_rules_for_equal_raters():
    a = np.zeros((3, 6, 6), bool)
    empty = staple_case(a)
    assert not empty.weights.any()
    assert np.isnan(empty.sensitivity).all()
    assert (empty.specificity == 1 - 1e-6).all()
    got = score_case(a, metrics=STAPLE, reasons=True)
    assert got["staple.dice"] == 1
    assert np.isnan(got["staple.sensitivity.each"]).all()
    assert "all raters are empty" in got["reasons"]["staple.sensitivity.each"]
    a[:, 1:3, 2:5] = True
    same = staple_case(a)
    assert (same.weights == a[0]).all()
    assert (same.sensitivity == 1 - 1e-6).all()
    assert (same.specificity == 1 - 1e-6).all()
    assert same.rounds == 0
    whole = staple_case(np.ones((2, 3, 3), bool))
    assert (whole.weights == 1).all()
    assert np.isnan(whole.specificity).all()
    single = score_case(a[:1], metrics=STAPLE)
    assert single["staple.dice"] == 1
    one_pixel = np.zeros((3, 6, 6), bool)
    one_pixel[0, 2, 2] = True
    assert not consensus_mask(one_pixel, "staple").any()


def test_the_region_is_the_box():
    """Background outside the box changes nothing; over the full image it does."""
    rng = np.random.default_rng(2)
    raters = np.zeros((3, 60, 60), bool)
    raters[:, 20:30, 20:30] = rng.random((3, 10, 10)) < 0.5
    wide = np.pad(raters, [(0, 0), (40, 40), (40, 40)])
    a, b = staple_case(raters), staple_case(wide)
    assert (b.weights[40:-40, 40:-40] == a.weights).all()
    assert not a.weights[:4].any()  # 16 pixels around rows 20 to 29
    assert a.weights[4, 10:40].all()
    full = staple_case(wide, region="full")
    assert not np.allclose(full.specificity, b.specificity, atol=1e-4)
    assert full.weights.all()
    millimetres = staple_case(raters, spacing=(2.5, 2.5))
    assert not millimetres.weights[:16].any()
    assert millimetres.weights[16, 20:30].all()


def test_missing_raters_and_pixels():
    rng = np.random.default_rng(3)
    raters = noisy_raters(rng, 4, (12, 12))
    present, valid = np.array([True, False, True, True]), rng.random((12, 12)) < 0.7
    got = staple_case(raters, rater_valid=present, valid=valid)
    want = staple_case(raters[present][:, valid].reshape(3, 1, -1))
    assert (got.weights[valid] == want.weights[0]).all()
    assert not got.weights[~valid].any()
    assert np.isnan(got.sensitivity).tolist() == [False, True, False, False]
    assert got.sensitivity[present].tolist() == want.sensitivity.tolist()
    values = score_case(raters, metrics=STAPLE, rater_valid=present, valid=valid)
    assert values["staple.specificity.each"][0] == want.specificity[0]
    assert math.isnan(values["staple.dice.each"][1])


def test_several_classes(reference):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, (3, 8, 8))
    got = score_case(labels, metrics=STAPLE, classes=[1, 2])
    one = [score_case(labels == c, metrics=STAPLE) for c in (1, 2)]
    for name in STAPLE:
        assert got[name] == pytest.approx(np.mean([o[name] for o in one], axis=0))
    assert (staple_case(labels, label=2).weights == staple_case(labels == 2).weights).all()
    with pytest.raises(UserError, match=r"labels \[1, 2\]; choose one with label="):
        staple_case(labels)
    absent = score_case(labels, metrics=STAPLE, classes=[1, 2, 3], reasons=True)
    assert absent["reasons"]["staple.sensitivity.each"].startswith("class 3")


def test_many_raters_do_not_underflow():
    """One rater of 100 marks a pixel: its weight is about 1e-490, yet every parameter is a number."""
    raters = np.zeros((100, 4, 5), bool)
    raters[0, 1, 1] = True
    with np.errstate(all="raise", under="ignore"):
        got = staple_case(raters)
    assert np.isfinite(got.sensitivity).all()
    assert not got.mask.any()
    rng = np.random.default_rng(0)
    for count in (9, 17, 33):
        noisy = noisy_raters(rng, count, (15, 15))
        assert 0.3 < score_case(noisy, metrics=["staple.dice"])["staple.dice"] <= 1


@quick
@given(st.integers(1, 5).flatmap(lambda n: arrays(bool, (n, 4, 6))), st.randoms(use_true_random=False))
def test_properties(raters, random):
    """Any order of raters gives the same bits; bounds; W lies between intersection and union where all are sure."""
    order = list(range(len(raters)))
    random.shuffle(order)
    a, b = staple_case(raters), staple_case(raters[order])
    assert (a.weights == b.weights).all()
    assert np.array_equal(a.sensitivity[order], b.sensitivity, equal_nan=True)
    assert a.rounds == b.rounds <= 200
    assert ((a.weights >= 0) & (a.weights <= 1)).all()
    first, again = score_case(raters, metrics=STAPLE), score_case(raters[order], metrics=STAPLE)
    assert first["staple.dice"] == again["staple.dice"]
    for name in STAPLE:
        for value in np.atleast_1d(first[name]):
            assert math.isnan(value) or 0 <= value <= 1
    assert info_of("staple.dice")["region"] == "box"


def test_same_bits_alone_and_among_others(reference):
    rng = np.random.default_rng(5)
    raters = np.stack([noisy_raters(rng, 4, (9, 9)) for _ in range(4)])
    samples = rng.random((4, 3, 9, 9)) < 0.5
    frame = score_cases(raters, samples, metrics=STAPLE)
    for i, row in enumerate(frame.to_dict("records")):
        assert str(row) == str(score_case(raters[i], metrics=STAPLE))  # nor do samples matter


def test_inputs_are_left_alone():
    raters = noisy_raters(np.random.default_rng(6), 3, (8, 8))
    before = raters.copy()
    raters.flags.writeable = False
    for how in ("majority", "union", "intersection", "staple"):
        consensus_mask(raters, how)[:] = True  # a result of its own
    assert (raters == before).all()


def test_consensus_masks():
    votes = np.arange(5)
    raters = (np.arange(4)[:, None] < votes)[:, None, :]  # pixel k has k votes of 4
    assert consensus_mask(raters)[0].tolist() == [False, False, False, True, True]
    assert consensus_mask(raters, "union")[0].tolist() == [False, True, True, True, True]
    assert consensus_mask(raters, "intersection")[0].tolist() == [False, False, False, False, True]
    assert (consensus_mask(raters, "staple") == staple_case(raters).mask).all()
    three = consensus_mask(raters, rater_valid=[True, True, True, False])
    assert three[0].tolist() == [False, False, True, True, True]
    valid = np.array([[True, True, True, True, False]])
    assert consensus_mask(raters, "union", valid=valid)[0].tolist() == [False, True, True, True, False]
    labels = raters * np.array([1, 2, 1, 1])[:, None, None]
    assert consensus_mask(labels, "union", label=2)[0].tolist() == [False, False, True, True, True]
    assert consensus_mask(raters[:, None]).shape == (1, 1, 5)
    with pytest.raises(UserError, match="did you mean 'majority'"):
        consensus_mask(raters, "majorty")
    with pytest.raises(UserError, match="no rater annotated"):
        consensus_mask(raters, rater_valid=[False] * 4)
    with pytest.raises(UserError, match="choose box or full"):
        staple_case(raters, region="image")
