"""Wrong input is one sentence; what does not apply is nan with a reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import score_case, score_cases

Y = np.zeros((3, 5, 6), bool)
Y[:, 1:4, 2:5] = True
S = np.repeat(Y[:1], 2, axis=0)
P = S * 0.9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"raters": Y[0], "samples": S}, "raters has shape"),
        ({"raters": [[1, 2], [3]], "samples": S}, "rectangular"),
        ({"raters": Y * 0.5, "samples": S}, "fractions"),
        ({"raters": Y, "samples": S[:, :4]}, "samples has shape"),
        ({"raters": Y, "samples": S[0]}, "samples has shape"),
        ({"raters": Y, "samples": P}, "probs"),
        ({"raters": Y, "samples": S[:0]}, "no sample"),
        ({"raters": Y, "samples": S.astype(int) * 3}, "labels up to 3"),
        ({"raters": Y.astype(int) * 3, "samples": S}, "labels up to 3"),
        ({"raters": -Y.astype(int), "samples": S}, "negative"),
        ({"raters": Y.astype(np.uint8) * 255, "samples": S.astype(np.uint8) * 255}, "0 and 255"),
        ({"raters": Y.astype(str), "samples": S}, "type"),
        ({"raters": Y, "probs": P * 2}, "values from 0 to 1.8"),
        ({"raters": Y, "probs": P - 0.1}, "probabilities between 0 and 1"),
        ({"raters": Y, "probs": np.where(P > 0, np.nan, P)}, "nan"),
        ({"raters": Y, "probs": P[:, :4]}, "probs has shape"),
        ({"raters": Y, "probs": P[:, None]}, "channels"),
        ({"raters": Y, "samples": S, "probs": P[:1]}, "2 and probs 1 samples"),
        ({"raters": Y.astype(int) * 2, "probs": P}, "channel axis"),
        ({"raters": Y.astype(int) * 2, "probs": np.stack([1 - P, P], 1)}, "2 channels"),
        ({"raters": Y.astype(int), "probs": np.stack([1 - P, P], 1), "classes": [1, 2]}, "2 channels"),
        ({"raters": Y, "samples": S, "rater_valid": [True, False]}, "rater_valid has shape"),
        ({"raters": Y, "samples": S, "rater_valid": [0, 1, 2]}, "true and false"),
        ({"raters": Y, "samples": S, "valid": np.ones((5, 5), bool)}, "valid has shape"),
        ({"raters": Y, "samples": S, "sample_weights": [0.5]}, "2 numbers"),
        ({"raters": Y, "samples": S, "sample_weights": [0.5, 0.6]}, "sum to 1"),
        ({"raters": Y, "samples": S, "rater_weights": [1.5, -0.5, 0]}, "sum to 1"),
        ({"raters": Y, "samples": S, "rater_probs": P}, "rater_probs has shape"),
        ({"raters": Y, "rater_probs": Y * 1.5}, "rater_probs holds"),
        ({"raters": Y, "mean_prob": Y * 0.5}, "mean_prob has shape"),
        ({"raters": Y, "mean_prob": P[0, 0]}, "mean_prob has shape"),
        ({"raters": Y, "probs": np.stack([P, P, P], 1)}, "two channels"),
        ({"raters": Y, "mean_prob": P[0] + 0.2}, "mean_prob holds"),
        ({"raters": Y, "samples": S, "classes": [1, 2]}, "class maps"),
        ({"raters": Y.astype(int), "samples": S.astype(int), "classes": [0, 1]}, "0 is background"),
        ({"raters": Y.astype(int), "samples": S.astype(int), "classes": 3}, "list of labels"),
        ({"raters": Y * 10**9, "samples": S * 1}, "the label 1000000000; labels go up to 65535"),
        ({"raters": Y * 1e300, "samples": S * 1}, "labels go up to 65535"),
        ({"raters": Y * 1, "samples": S * 1, "classes": [1, 10**12]}, "classes holds 1000000000000"),
        ({"raters": Y * 300, "samples": S * 1}, "labels go up to 300"),
        ({"raters": Y, "samples": S, "spacing": [1, 1, 1]}, "2 millimetres"),
        ({"raters": Y, "samples": S, "n_samples": 0}, "n_samples"),
        ({"raters": Y, "samples": S, "metrics": ["gedd"]}, "did you mean 'ged'"),
        ({"raters": Y, "samples": S, "metrics": "ged"}, r"\['ged'\]"),
        ({"raters": Y, "samples": S, "variant": "dpersonna"}, "did you mean 'dpersona'"),
        ({"raters": Y, "samples": S, "variant": {"distance": "iou"}}, "Convention"),
        ({"raters": Y, "metrics": ["ged"]}, "'ged' needs samples or probs"),
        ({"raters": Y, "samples": S, "metrics": ["dice_rater.gap"]}, "'dice_rater.gap' needs rater_probs"),
        ({"raters": Y, "rater_probs": Y * 0.5, "metrics": ["dice_soft"]}, "samples or probs or mean_prob"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        score_case(**arguments)
    assert "\n" not in str(error.value)


def test_mistakes_in_many_cases_name_the_case():
    probs = np.stack([P, P * 2])
    with pytest.raises(UserError, match="case 1: probs holds"):
        score_cases(np.stack([Y, Y]), probs=probs)
    with pytest.raises(UserError, match="samples has 1 cases, raters has 2"):
        score_cases(np.stack([Y, Y]), S[None])
    with pytest.raises(UserError, match="did you mean 'ged'"):
        score_cases(np.stack([Y, Y]), np.stack([S, S]), metrics=["gedd"])


def test_what_does_not_apply_is_nan_with_a_reason():
    got = score_case(Y[:1], S[:1], rater_probs=Y[:1] * 0.9, reasons=True)
    for name in ("ged.debiased", "ged.ustat", "diversity_samples.ustat", "dice_rater.gap", "human.loo_ged"):
        assert math.isnan(got[name]), name
        assert got["reasons"][name]
    assert got["ged"] == 0
    assert "reasons" not in score_case(Y[:1], S[:1])


def test_common_mask_is_told():
    got = score_case(Y, S, metrics=["dice_rater", "dice_rater.each"], reasons=True)
    assert got["reasons"] == {"dice_rater": "common mask", "dice_rater.each": "common mask"}
    assert got["dice_rater.each"] == [1, 1, 1]
    personal = score_case(Y, S, rater_probs=Y * 0.9, metrics=["dice_rater"], reasons=True)
    assert personal["reasons"] == {}


def test_no_rater_or_no_pixel():
    options = {"rater_probs": Y * 0.9, "reasons": True}
    for got in (
        score_case(Y, S, rater_valid=[False] * 3, **options),
        score_case(Y, S, valid=np.zeros((5, 6), bool), **options),
        score_case(Y, S, rater_valid=[True, False, False], rater_weights=[0, 0.5, 0.5], **options),
    ):
        reasons = got.pop("reasons")
        assert set(reasons) == set(got)
        assert all(np.isnan(v).all() for v in got.values())
        assert len(got["dice_rater.each"]) == 3


def test_missing_raters_may_hold_anything():
    raters = Y.astype(float)
    raters[1] = np.nan
    maps = Y * 0.9
    maps[1] = np.nan
    got = score_case(raters, S, rater_probs=maps, rater_valid=[1, 0, 1])
    assert got["ged"] == 0
    assert got["dice_rater"] == 1
    assert got["dice_rater.each"][0::2] == [1, 1]
    assert math.isnan(got["dice_rater.each"][1])


def test_an_empty_mask_is_an_answer():
    raters = Y.copy()
    raters[1] = False
    assert score_case(raters, S)["empty_share_raters"] == pytest.approx(1 / 3)
    assert score_case(raters, S)["ged"] != score_case(raters, S, rater_valid=[True, False, True])["ged"]


def test_hard_maps_and_class_maps_for_raters():
    hard = score_case(Y, rater_probs=Y)
    assert hard["dice_rater"] == 1
    assert hard["dice_rater.soft"] == 1
    labels = Y.astype(int) * 2
    labels[:, 0] = 1
    assert score_case(labels, rater_probs=labels)["dice_rater"] == 1
    onehot = np.stack([labels == c for c in range(3)], 1).astype(float)
    soft = score_case(labels, rater_probs=onehot)
    assert soft["dice_rater"] == 1
    assert soft["dice_rater.soft"] == 1


def test_mean_prob_replaces_the_mean_of_the_samples():
    empty = np.zeros((5, 6))
    got = score_case(Y, S, mean_prob=empty, metrics=["dice_soft", "dice_majority", "dice_rater", "ged"])
    assert got == {"dice_soft": 0, "dice_majority": 0, "dice_rater": 0, "ged": 0}
    alone = score_case(Y, mean_prob=Y[0] * 0.95)
    assert alone["dice_soft"] == 1
    assert alone["dice_rater"] == 1
    assert "ged" not in alone
    stacked = np.stack([1 - Y[0] * 0.95, Y[0] * 0.95])
    assert score_case(Y.astype(int), mean_prob=stacked, metrics=["dice_soft"])["dice_soft"] == 1


def test_weights_that_are_equal_are_no_weights():
    samples = np.stack([Y[0], np.zeros_like(Y[0])])
    plain = score_case(Y, samples)
    assert score_case(Y, samples, sample_weights=[0.5, 0.5], rater_weights=[1 / 3] * 3) == plain


def test_torch_tensors_are_taken():
    torch = pytest.importorskip("torch")
    assert score_case(torch.from_numpy(Y), torch.from_numpy(S)) == score_case(Y, S)
