"""The same answer scores the same however it is handed over, and mistakes end in one sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import Convention, score_case, score_cases

PERSONAL = [
    "dice_rater",
    "iou_rater",
    "dice_rater.gap",
    "dice_rater.soft",
    "rater_identification",
    "hd95",
    "assd",
    "nsd",
]


@pytest.mark.parametrize("metric", PERSONAL)
def test_weights_of_raters_enter_their_means(metric):
    rng = np.random.default_rng(3)
    raters, maps = rng.random((3, 8, 8)) < 0.5, rng.random((3, 8, 8))
    weighted = score_case(raters, rater_probs=maps, rater_weights=[0.5, 0.25, 0.25], metrics=[metric])[metric]
    twice = [0, 0, 1, 2]  # the first rater and its map, two times
    plain = score_case(raters[twice], rater_probs=maps[twice], metrics=[metric])[metric]
    if metric not in ("dice_rater.gap", "rater_identification"):  # these also compare with the other maps
        assert weighted == pytest.approx(plain, abs=1e-12)
    assert weighted != score_case(raters, rater_probs=maps, metrics=[metric])[metric]


def test_one_map_of_several_classes_is_worth_the_same_as_that_map_for_each_rater():
    rng = np.random.default_rng(5)
    raters = rng.integers(0, 4, (3, 9, 9))
    map_ = rng.dirichlet(np.ones(4), (9, 9)).transpose(2, 0, 1)
    names = ["dice_rater", "iou_rater", "dice_rater.worst", "hd95"]
    for classes in ([1, 2, 3], [1, 3]):
        given = [
            score_case(raters, classes=classes, metrics=names, **how)
            for how in (
                {"mean_prob": map_},
                {"probs": map_[None]},
                {"samples": map_.argmax(0)[None]},
                {"rater_probs": np.stack([map_] * 3)},
                {"rater_probs": np.stack([map_.argmax(0)] * 3)},
            )
        ]
        for other in given[1:]:
            assert other == pytest.approx(given[0], abs=1e-12)


def test_the_order_of_8_bit_probabilities_moves_nothing():
    rng = np.random.default_rng(6)
    names = ["dice_soft", "qubiq", "dice_majority", "ece", "ece.full", "ace.width", "dice_rater"]
    row = np.array([75, 76, 77, 78])  # their mean is 0.3, or 0.30000000000000004
    for trial in range(20):
        count = int(rng.integers(2, 12))
        values = rng.integers(0, 256, (count, 8, 8)) if trial else np.broadcast_to(row[:, None, None], (4, 8, 8))
        raters = rng.random((4, 8, 8)) < 0.3
        forward = score_case(raters, probs=values / 255, metrics=names)
        assert score_case(raters, probs=values[::-1] / 255, metrics=names) == pytest.approx(forward, abs=1e-12)


def test_a_given_map_is_compared_as_it_is():
    above = np.full((4, 4), np.nextafter(0.3, 1))
    raters = np.ones((3, 4, 4), bool)
    assert score_case(raters, mean_prob=above, metrics=["dice_soft"])["dice_soft"] == pytest.approx(0.4)
    assert score_case(raters, probs=above[None], metrics=["dice_soft"])["dice_soft"] == pytest.approx(0.4)


def test_dpersona_and_tab_average_as_torch_does():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    for _ in range(20):
        probs = (rng.integers(0, 256, (int(rng.integers(2, 60)), 16, 16)) / 255).astype(np.float32)
        raters = rng.random((4, 16, 16)) < 0.4
        p, q = torch.from_numpy(probs)[None].mean(1), torch.from_numpy(raters)[None].float().mean(1)
        for variant, smooth in (("dpersona", 1e-8), ("tab", 1e-6)):
            want = []
            for t in (0.1, 0.3, 0.5, 0.7, 0.9):
                a, b = (p > t).float(), (q > t).float()
                want.append(float((2 * (a * b).sum() + smooth) / (a.sum() + b.sum() + smooth)))
            got = score_case(raters, probs=probs, variant=variant, metrics=["dice_soft"])["dice_soft"]
            assert got == pytest.approx(np.mean(want), abs=2e-6)


def test_car_skips_absent_classes():
    raters = np.array([[[1, 1, 1, 0, 0, 0]], [[1, 1, 0, 0, 0, 0]]])
    samples = np.array([[[1, 1, 1, 1, 0, 0]], [[2, 1, 1, 0, 0, 0]]])
    got = score_case(raters, samples, classes=[1, 2], variant="car", metrics=["ged"])["ged"]
    assert got == pytest.approx(7 / 12)


def test_mose_has_no_transport_over_nan():
    nothing, one = np.zeros((4, 4), int), np.ones((4, 4), int)
    raters = np.stack([nothing, one])
    even, odd = np.stack([nothing, one]), np.stack([nothing, one, one])
    assert score_case(raters, even, classes=[1, 2], variant="mose", metrics=["hm_iou"])["hm_iou"] == 0
    assert math.isnan(score_case(raters, odd, classes=[1, 2], variant="mose", metrics=["hm_iou"])["hm_iou"])


MASKS = np.ones((2, 4, 4), bool)
CASES = np.ones((3, 2, 4, 4), bool)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: score_case(MASKS, MASKS, metrics=[1]), "give a list of ids"),
        (lambda: score_case(MASKS, MASKS, metrics=5), "give a list of ids"),
        (lambda: score_case(MASKS, MASKS, n_samples=True), "n_samples"),
        (lambda: score_case(MASKS, MASKS, metrics=["ged[dpersona]"]), "'dpersona' as variant"),
        (lambda: score_case(MASKS, MASKS, metrics=["human.oracle_ged(16)"]), "'16' as n_samples"),
        (lambda: score_case(MASKS, MASKS, metrics=["GED"]), "did you mean 'ged'"),
        (lambda: score_cases(5, CASES), "no case axis"),
        (lambda: score_cases(None, CASES), "no case axis"),
        (lambda: score_cases(CASES, 7), "no case axis"),
        (lambda: score_cases(CASES, CASES, spacing=3.0), "no case axis"),
        (lambda: score_cases(CASES, CASES, sample_weights=0.3), "no case axis"),
        (lambda: Convention(thresholds=0.5), "thresholds"),
        (lambda: Convention(thresholds="abc"), "thresholds"),
        (lambda: Convention(sample_cap=True), "sample_cap"),
    ],
)
def test_mistakes_are_one_sentence(call, says):
    with pytest.raises(UserError) as caught:
        call()
    assert says in str(caught.value)
    assert len(str(caught.value)) < 600
