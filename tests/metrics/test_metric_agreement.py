"""Agreement of the raters: against a slow reference and other packages, over a case and over a data set."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import combinations

import metric_reference_agreement
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from multirater.core.errors import UserError
from multirater.metrics import agreement_cases, info_of, krippendorff_alpha, list_metrics, score_case, score_cases

AGREEMENT = [n for n in list_metrics() if info_of(n)["family"] == "agreement" and not n.startswith("staple")]
PLAIN = ["pairwise_dice", "pairwise_iou", "gci", "fleiss_kappa", "cohen_kappa", "krippendorff", "vote_histogram"]
quick = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def slow():
    return metric_reference_agreement


def masks(low=1, high=5, shape=(5, 6)):
    return st.integers(low, high).flatmap(lambda n: arrays(bool, (n, *shape)))


def over(raters, pixels):
    """Raters as lists of 0 and 1 over chosen pixels."""
    return [[int(y[x]) for x in pixels] for y in raters]


def compare(got, want, mark=""):
    for name, value in want.items():
        shown = name + (mark if name + mark in got else "")
        wanted = [float(v) for v in value] if isinstance(value, list) else float(value)
        assert got[shown] == pytest.approx(wanted, abs=1e-12, nan_ok=True), shown


def many_cases(reference, seeds=500):
    """Random cases in two and three dimensions, some wide enough for the box to be smaller than the image."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        shape = [(5, 6), (3, 4, 3), (4, 45), (1, 7)][seed % 4]
        raters = reference.random_masks(rng, int(rng.integers(2, 6)), shape)
        if seed % 4 == 2:
            raters[..., 12:] = False
        yield raters


def test_against_the_definitions(reference, slow):
    boxed = 0
    for raters in many_cases(reference):
        got = score_case(raters, metrics=AGREEMENT)
        box, full = slow.region_box(raters), slow.region_box(raters * False)
        boxed += len(box) < len(full)
        compare(got, slow.agreement(over(raters, box)))
        compare(got, slow.agreement(over(raters, full)), ".full")
    assert boxed > 50


def test_spacing_sets_the_box(reference, slow):
    raters = np.zeros((3, 30, 60), bool)
    raters[0, 10:14, 20:30] = raters[1, 11:15, 22:31] = raters[2, 10:12, 20:24] = True
    seen = set()
    for spacing in ((1.0, 1.0), (2.5, 0.8), (10 / 3, 5.0)):
        got = score_case(raters, metrics=AGREEMENT, spacing=spacing)
        exact = [Fraction(s).limit_denominator(100) for s in spacing]
        compare(got, slow.agreement(over(raters, slow.region_box(raters, exact))))
        seen.add(got["fleiss_kappa"])
        assert got["fleiss_kappa.full"] == score_case(raters, metrics=["fleiss_kappa.full"])["fleiss_kappa.full"]
    assert len(seen) == 3


def test_missing_raters_and_pixels(reference, slow):
    rng = np.random.default_rng(3)
    for _ in range(40):
        raters = reference.random_masks(rng, 5, (4, 45))
        raters[..., 14:] = False
        present, valid = rng.random(5) < 0.7, rng.random((4, 45)) < 0.8
        got = score_case(raters, metrics=AGREEMENT, rater_valid=present, valid=valid)
        kept = raters[present]
        if len(kept) < 2:
            assert all(np.isnan(v).all() for v in got.values())
            assert len(got["vote_histogram"]) == 6
            continue
        box = [x for x in slow.region_box(kept & valid) if valid[x]]
        want = slow.agreement(over(kept, box))
        want["vote_histogram"] += [0] * (5 - len(kept))
        compare(got, want)


def test_several_classes_are_a_mean(slow):
    rng = np.random.default_rng(4)
    for _ in range(20):
        labels = rng.integers(0, 4, (3, 5, 6))
        got = score_case(labels, metrics=AGREEMENT, classes=[1, 2, 3])
        one = [score_case(labels, metrics=AGREEMENT, classes=[c]) for c in (1, 2, 3)]
        for name in AGREEMENT:
            assert got[name] == pytest.approx(np.mean([o[name] for o in one], axis=0), abs=1e-12)
    absent = score_case(labels % 3, metrics=AGREEMENT, classes=[1, 2, 3], reasons=True)
    assert math.isnan(absent["fleiss_kappa"])
    assert absent["reasons"]["fleiss_kappa"].startswith("class 3: ")
    assert absent["gci"] > 0  # the absent class counts as agreement


def test_undefined_values_say_why():
    empty, full = np.zeros((3, 4, 4), bool), np.ones((3, 4, 4), bool)
    for same in (empty, full):
        got = score_case(same, metrics=AGREEMENT, reasons=True)
        for name in ("fleiss_kappa", "cohen_kappa", "krippendorff"):
            for mark in ("", ".full"):
                assert math.isnan(got[name + mark])
                assert "only one label" in got["reasons"][name + mark]
        assert got["gci"] == got["pairwise_dice"] == got["pairwise_iou"] == 1
    assert got["vote_histogram"] == [0, 0, 0, 1]
    one = score_case(full[:1], metrics=AGREEMENT, reasons=True)
    assert all(np.isnan(v).all() for k, v in one.items() if k != "reasons")
    assert set(one["reasons"].values()) == {"needs at least 2 raters, this case has 1"}
    assert len(one["vote_histogram"]) == 2
    weighted = score_case(full, metrics=["gci"], rater_weights=[0.5, 0.3, 0.2], reasons=True)
    assert "weighted" in weighted["reasons"]["gci"]
    none = score_case(full, metrics=["vote_histogram"], rater_valid=[False] * 3)
    assert np.isnan(none["vote_histogram"]).tolist() == [True] * 4


def test_many_raters(slow):
    """More than 8 and more than 16 raters take other ways to count patterns."""
    rng = np.random.default_rng(5)
    for count in (8, 9, 16, 17, 40):
        raters = rng.random((count, 4, 5)) < rng.random((count, 1, 1))
        compare(score_case(raters, metrics=AGREEMENT), slow.agreement(over(raters, slow.region_box(raters))))
        raters[:] = False
        assert score_case(raters, metrics=["gci"])["gci"] == 1


@quick
@given(masks(), st.randoms(use_true_random=False))
def test_properties(raters, random):
    got = score_case(raters, metrics=AGREEMENT)
    order = list(range(len(raters)))
    random.shuffle(order)
    again = score_case(raters[order], metrics=AGREEMENT)
    for name, value in got.items():
        assert again[name] == pytest.approx(value, abs=1e-12, nan_ok=True)
        low, high = info_of(name)["range"]
        for number in np.atleast_1d(value):
            assert math.isnan(number) or low - 1e-12 <= number <= high + 1e-12, name
    if len(raters) > 1:
        assert sum(got["vote_histogram"]) == pytest.approx(1)
        assert got["pairwise_iou"] <= got["pairwise_dice"] + 1e-12
        assert got["pairwise_dice"] == pytest.approx(
            score_case(raters, metrics=["human.loo_mean_dice"])["human.loo_mean_dice"]
        )
        if len(raters) == 2:
            assert got["gci"] == pytest.approx(got["pairwise_iou"])


def test_inputs_are_left_alone(reference):
    raters = reference.random_masks(np.random.default_rng(0), 4, (6, 6))
    valid = np.ones((6, 6), bool)
    before = raters.copy()
    raters.flags.writeable = valid.flags.writeable = False
    for _ in range(2):
        score_case(raters, metrics=AGREEMENT, valid=valid)
        agreement_cases([raters, raters], valid=valid)
    assert (raters == before).all()


def test_same_bits_alone_and_among_others(reference):
    rng = np.random.default_rng(1)
    raters = np.stack([reference.random_masks(rng, 4, (6, 6)) for _ in range(6)])
    frame = score_cases(raters, metrics=AGREEMENT)
    for i, row in enumerate(frame.to_dict("records")):
        assert str(row) == str(score_case(raters[i], metrics=AGREEMENT))


# -- other packages -------------------------------------------------------------------------------------


def test_fleiss_of_statsmodels(reference):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    compared = 0
    for raters in many_cases(reference, 120):
        got = score_case(raters, metrics=["fleiss_kappa.full"])["fleiss_kappa.full"]
        votes = raters.sum(0).ravel()
        if 0 < votes.sum() < raters.size:
            want = inter_rater.fleiss_kappa(np.stack([len(raters) - votes, votes], axis=1))
            assert got == pytest.approx(want, abs=1e-12)
            compared += 1
    assert compared > 50


def test_cohen_of_scikit_learn(reference):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    compared = 0
    for raters in many_cases(reference, 120):
        got = score_case(raters, metrics=["cohen_kappa.full"])["cohen_kappa.full"]
        if math.isnan(got):
            continue
        flat = raters.reshape(len(raters), -1)
        want = np.mean([metrics.cohen_kappa_score(a, b) for a, b in combinations(flat, 2)])
        assert got == pytest.approx(want, abs=1e-12)
        compared += 1
    assert compared > 40


def test_alpha_of_krippendorff(reference):
    """With answers missing anywhere: every pixel has its own number of raters."""
    package = pytest.importorskip("krippendorff", reason="krippendorff is not installed")
    compared = 0
    for seed, raters in enumerate(many_cases(reference, 120)):
        flat = raters.reshape(len(raters), -1)
        there = np.random.default_rng(seed).random(flat.shape) < 0.8
        got = krippendorff_alpha((flat & there).sum(0), there.sum(0))
        if math.isnan(got):
            continue
        data = np.where(there, flat.astype(float), np.nan)
        assert got == pytest.approx(package.alpha(data, level_of_measurement="nominal"), abs=1e-12)
        compared += 1
    assert compared > 60


def test_alpha_refuses_what_it_cannot_read():
    assert krippendorff_alpha([[2, 0], [1, 2]], 2) == pytest.approx(1 - (1 * 2 / 8) / (2 * 5 * 3 / 56))
    assert math.isnan(krippendorff_alpha([1, 0], [1, 1]))
    assert math.isnan(krippendorff_alpha([2, 2], [2, 2]))
    assert math.isnan(krippendorff_alpha([], 3))
    with pytest.raises(UserError, match="between 0 and"):
        krippendorff_alpha([3], [2])
    with pytest.raises(UserError, match="integers"):
        krippendorff_alpha([0.5], [2])
    with pytest.raises(UserError, match="same shape"):
        krippendorff_alpha([1, 1], [2])


# -- a data set -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    raters = [rng.random((4, 5, n)) < rng.random((4, 1, 1)) for n in (6, 7, 4, 9, 5, 8, 6, 7)]
    present = rng.random((8, 4)) < 0.75
    present[0] = [True, False, False, False]
    present[1] = False
    raters[2][:] = False
    return raters, present


def test_data_set_against_the_definitions(data, slow):
    raters, present = data
    got = agreement_cases(raters, present)
    seen = [y[p] for y, p in zip(raters, present, strict=True)]
    two = [y for y in seen if len(y) >= 2]
    alone = [slow.agreement(over(y, slow.region_box(y))) for y in two]
    for name in ("pairwise_dice", "pairwise_iou", "gci"):
        assert got[name] == pytest.approx(float(slow.mean(a[name] for a in alone)))
        assert got["undefined"][name] == len(seen) - len(two) > 0
    for mark, region in (("", slow.region_box), (".full", lambda y: slow.region_box(y * False))):
        rows = [(sum(c), len(c)) for y in seen if len(y) for c in zip(*over(y, region(y)), strict=True)]
        assert got["fleiss_kappa" + mark] == pytest.approx(float(slow.fleiss(rows)), abs=1e-12)
        assert got["krippendorff" + mark] == pytest.approx(float(slow.krippendorff(rows)), abs=1e-12)
        shares = [sum(k == v for k, _ in rows) / len(rows) for v in range(5)]
        assert got["vote_histogram" + mark] == pytest.approx(shares)
        kappas = []
        for q, r in combinations(range(4), 2):
            pooled = [[], []]
            for y, p in zip(raters, present, strict=True):
                if p[q] and p[r]:
                    pixels = region(y[p])
                    pooled[0] += over([y[q]], pixels)[0]
                    pooled[1] += over([y[r]], pixels)[0]
            kappas.append(float(slow.cohen(*pooled)))
        assert got["cohen_kappa" + mark] == pytest.approx(np.mean(kappas), abs=1e-12)


def test_tables_of_the_data_set(data, slow):
    raters, present = data
    got = agreement_cases(raters, present, spacing=(2.0, 0.5))
    assert got["rater_cases"] == present.sum(0).tolist()
    assert got["cases_by_raters"] == {n: int((present.sum(1) == n).sum()) for n in sorted(set(present.sum(1).tolist()))}
    for q in range(4):
        areas = [y[q].sum() for y, p in zip(raters, present, strict=True) if p[q]]
        assert got["rater_area"][q] == pytest.approx(np.mean(areas))
        assert got["rater_area_mm"][q] == pytest.approx(np.mean(areas))  # 2 mm x 0.5 mm
        assert got["pair_dice"][q][q] == 1
        for r in range(q):
            both = [y for y, p in zip(raters, present, strict=True) if p[q] and p[r]]
            pairs = [float(slow.dice(*over(y[[q, r]], list(np.ndindex(y.shape[1:]))))) for y in both]
            assert got["pair_dice"][q][r] == got["pair_dice"][r][q] == pytest.approx(np.mean(pairs))
            assert got["pair_cases"][q][r] == len(both)
    json.dumps(got)


def test_one_full_case_is_a_data_set(reference):
    raters = reference.random_masks(np.random.default_rng(9), 4, (6, 6))
    got, want = (
        agreement_cases(raters[None]),
        score_case(raters, metrics=[*AGREEMENT, "staple.dice", "staple.dice.each"]),
    )
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=1e-12), name
    assert "rater_area_mm" not in got
    assert "per_class" not in got


def test_classes_of_the_data_set():
    rng = np.random.default_rng(10)
    labels = rng.integers(0, 3, (5, 3, 6, 6))
    got = agreement_cases(labels, rater_valid=[True, True, True], classes=[1, 2])
    for c in (1, 2):
        one = agreement_cases(labels, classes=[c])
        for name, value in got["per_class"][c].items():
            assert value == pytest.approx(one[name], abs=1e-12) if isinstance(value, float) else value == one[name], (
                name
            )
    for name in ("fleiss_kappa", "pairwise_dice", "gci", "staple.dice", "krippendorff.full", "cohen_kappa"):
        assert got[name] == pytest.approx(np.mean([got["per_class"][c][name] for c in (1, 2)]), abs=1e-12)
    assert got["rater_area"] == pytest.approx((labels > 0).sum((2, 3)).mean(0))


def test_raters_who_never_meet():
    a = np.zeros((2, 4, 4), bool)
    a[:, 1] = True
    got = agreement_cases([a, a], [[True, False], [False, True]])
    for name in ("pairwise_dice", "fleiss_kappa", "cohen_kappa", "krippendorff", "gci"):
        assert math.isnan(got[name]), name
    assert got["pair_cases"] == [[1, 0], [0, 1]]
    assert math.isnan(got["pair_dice"][0][1])
    assert got["undefined"]["pairwise_dice"] == 2
    assert got["staple.dice"] == 1
    nobody = agreement_cases([a], [[False, False]])
    assert np.isnan(nobody["vote_histogram"]).all()
    assert np.isnan(nobody["rater_area"]).all()


def test_data_sets_that_are_refused():
    a = np.zeros((2, 4, 4), bool)
    with pytest.raises(UserError, match="no case"):
        agreement_cases([])
    with pytest.raises(UserError, match="case 1 has 3 raters"):
        agreement_cases([a, np.zeros((3, 4, 4), bool)])
    with pytest.raises(UserError, match="1 cases, raters has 2"):
        agreement_cases([a, a], [[True, True]])
