"""Named variants against the formulas of the released functions, written out here pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.metrics import Convention, list_variants, score_case
from multirater.metrics.convention import CANONICAL, FAMILIES
from multirater.metrics.registry import info_of, list_metrics
from multirater.metrics.variants import conventions_of, variant_summary

NO_DIFFERENCE = ["canonical", "phiseg", "unetzoo", "ccdm", "car"]  # car: binary


@pytest.fixture
def cases(reference):
    """Generated cases: raters, samples and probabilities whose masks are the samples."""
    rng = np.random.default_rng(8)
    out = []
    for _ in range(25):
        r, s = int(rng.integers(2, 5)), int(rng.integers(2, 7))
        raters, samples = (reference.random_masks(rng, n, (6, 6)) for n in (r, s))
        probs = np.where(samples, rng.uniform(0.51, 1, samples.shape), rng.uniform(0, 0.5, samples.shape))
        probs[rng.random(samples.shape) < 0.3] = 0
        out.append((raters, probs > 0.5, probs))
    return out


def ged(samples, raters, distance, exclude=False, pick=np.mean):
    """Released form: double loops over both sets."""

    def within(members):
        n = len(members)
        return pick([distance(members[i], members[j]) for i in range(n) for j in range(n) if not (exclude and i == j)])

    return 2 * np.mean([distance(a, b) for a in samples for b in raters]) - within(samples) - within(raters)


def smoothed_iou(num, den):
    return lambda a, b: 1 - ((a & b).sum() + num) / ((a | b).sum() + den)


def smoothed_dice(a, b, smooth):
    return (2 * (a & b).sum() + smooth) / (a.sum() + b.sum() + smooth)


def test_variants_without_a_difference(cases):
    for raters, samples, _ in cases[:5]:
        want = score_case(raters, samples)
        for variant in NO_DIFFERENCE:
            names = [n for n in want if variant not in ("phiseg", "unetzoo") or n != "ncc"]
            got = score_case(raters, samples, variant=variant)
            assert str([got[n] for n in names]) == str([want[n] for n in names]), variant


def test_dpersona_ged(cases):
    for raters, samples, _ in cases:
        got = score_case(raters, samples, metrics=["ged"], variant="dpersona")["ged"]
        assert got == pytest.approx(ged(samples, raters, smoothed_iou(0, 1e-8)), abs=1e-9)


def test_tab(cases):
    for raters, samples, probs in cases:
        got = score_case(raters, probs=probs, variant="tab", metrics=["ged", "dice_soft", "iou_soft"])
        assert got["ged"] == pytest.approx(ged(samples, raters, smoothed_iou(1e-6, 1e-6), exclude=True), abs=2e-6)
        p, q = probs.mean(0), raters.mean(0)
        want = [smoothed_dice(p > t, q > t, 1e-6) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
        assert got["dice_soft"] == pytest.approx(np.mean(want), abs=2e-6)
        want = [1 - smoothed_iou(1e-6, 1e-6)(p > t, q > t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
        assert got["iou_soft"] == pytest.approx(np.mean(want), abs=2e-6)
    one = score_case(raters, probs=probs[:1], variant="tab", metrics=["ged"], reasons=True)
    assert math.isnan(one["ged"])  # the original divides by zero
    assert "pair" in one["reasons"]["ged"]


def test_cimd_left_mask_has_a_second_sigmoid(cases):
    for raters, _, probs in cases:

        def distance(a, b):
            return smoothed_iou(1e-5, 1e-5)(1 / (1 + np.exp(-a.astype(float))) > 0.5, b > 0.5)

        got = score_case(raters, probs=probs, variant="cimd", metrics=["ged", "diversity_samples"])
        assert got["ged"] == pytest.approx(ged(probs, raters, distance), abs=1e-9)
    uniform = np.random.default_rng(0).random((3, 40, 40))
    self_distance = score_case(uniform[:1] > 0.5, probs=uniform[:1], variant="cimd", metrics=["diversity_samples"])
    assert self_distance["diversity_samples"] == pytest.approx(0.5, abs=0.05)
    raters, samples, _ = cases[0]
    hard = score_case(raters, samples, variant="cimd", metrics=["ged"])["ged"]
    assert hard == pytest.approx(score_case(raters, samples, metrics=["ged"])["ged"], abs=1e-4)


def test_kohl_empty_pairs_are_nan(pair):
    a, b = pair
    empty = np.zeros_like(a)

    def value(raters, samples):
        return score_case(np.stack(raters), np.stack(samples), metrics=["ged"], variant="kohl")["ged"]

    assert value([a, b], [a, b]) == pytest.approx(0, abs=2e-6)
    assert math.isnan(value([a, b], [a, empty]))  # among the samples nan propagates
    # Among the raters it is left out: of the pairs aa, a∅, ∅a the mean distance is 2/3.
    assert value([a, empty], [a]) == pytest.approx(2 * 0.5 - 0 - 2 / 3, abs=2e-6)
    assert math.isnan(value([empty], [a]))


def test_kohl_skips_absent_classes(pair):
    a, b = pair
    raters, samples = np.stack([a * 1, a * 2]), np.stack([b * 1])
    got = score_case(raters, samples, classes=[1, 2, 3], metrics=["ged", "cross", "diversity_raters"], variant="kohl")
    assert got["cross"] == pytest.approx((2 / 3 + 1) / 2, abs=2e-6)  # class 3 is nowhere; against a·2 both are wrong
    assert got["diversity_raters"] == pytest.approx(0.5, abs=2e-6)


def test_mose(cases, pair):
    for raters, samples, _ in cases:
        got = score_case(raters, samples, variant="mose", metrics=["ged", "hm_iou"])
        assert got["ged"] == pytest.approx(ged(samples, raters, smoothed_iou(1e-8, 1e-8)), abs=2e-6)
        assert got["hm_iou"] == pytest.approx(score_case(raters, samples, metrics=["hm_iou"])["hm_iou"], abs=2e-6)
    a, b = pair
    nothing = np.zeros_like(a, int)
    lost = score_case(np.stack([a * 1, nothing]), np.stack([b * 1, nothing]), classes=[1, 2], variant="mose")
    assert lost["hm_iou"] == 0  # the failed assignment counts as 0
    assert math.isnan(lost["ged"])


def test_ssn_uses_the_first_twenty(reference):
    rng = np.random.default_rng(1)
    raters, samples = (reference.random_masks(rng, n, (6, 6)) for n in (3, 25))
    capped = score_case(raters, samples, variant="ssn")
    first = score_case(raters, samples[:20])
    for name in ("ged", "diversity_samples", "ged.debiased", "cross", "empty_share_samples"):
        assert capped[name] == first[name], name
    whole = score_case(raters, samples)
    for name in ("hm_iou", "dice_soft", "dice_match"):
        assert capped[name] == whole[name], name
    weights = np.arange(1.0, 26)
    capped = score_case(raters, samples, sample_weights=weights / weights.sum(), variant="ssn", metrics=["ged"])["ged"]
    weights = weights[:20] / weights[:20].sum()
    assert capped == pytest.approx(score_case(raters, samples[:20], sample_weights=weights, metrics=["ged"])["ged"])


def test_values_pools_pairs(cases):
    def pooled(a, b):
        inter = sum(int((x & y).sum()) for x in a for y in b)
        total = sum(int(x.sum() + y.sum()) for x in a for y in b)
        return 1 - 2 * inter / total if total else 1.0

    def score(x, y):
        return smoothed_dice(x, y, 0) if x.any() or y.any() else 0.0

    for raters, samples, _ in cases:
        got = score_case(raters, samples, variant="values")
        want = 2 * pooled(samples, raters) - pooled(samples, samples) - pooled(raters, raters)
        assert got["ged"] == pytest.approx(want, abs=1e-9)
        best = [max(score(y, s) for s in samples) for y in raters]
        assert got["dice_max_rater_to_sample"] == pytest.approx(np.mean(best), abs=1e-9)
        best = [max(score(y, s) for y in raters) for s in samples]
        assert got["dice_max_sample_to_rater"] == pytest.approx(np.mean(best), abs=1e-9)
        assert math.isnan(got["ged.debiased"])
    nothing = np.zeros((2, 4, 4), bool)
    assert score_case(nothing, nothing, variant="values", metrics=["ged"])["ged"] == 0  # 2·1 − 1 − 1
    labels = np.array([[[1, 2], [2, 0]]]), np.array([[[1, 1], [2, 0]]])
    micro = score_case(*labels, classes=[1, 2], variant="values", metrics=["dice_mean", "cross"])
    assert micro["dice_mean"] == pytest.approx(2 * 2 / 6)
    assert micro["cross"] == pytest.approx(1 - 2 * 2 / 6)


def test_smoothing_of_single_families(cases):
    for raters, samples, _ in cases[:8]:
        q, p = raters.mean(0), samples.mean(0)
        want = np.mean([smoothed_dice(p > t, q > t, 1e-6) for t in (0.1, 0.3, 0.5, 0.7, 0.9)])
        assert score_case(raters, samples, variant="berdiff")["dice_soft"] == pytest.approx(want, abs=1e-9)
        want = np.mean([max(smoothed_dice(s, y, 1.0) for y in raters) for s in samples])
        got = score_case(raters, samples, variant="mmatting", metrics=["dice_max_sample_to_rater"])
        assert got["dice_max_sample_to_rater"] == pytest.approx(want, abs=2e-6)
        got = score_case(raters, samples, variant="qubiq", metrics=["dice_soft", "qubiq"])
        assert got["dice_soft"] == got["qubiq"]


def test_pionono_empty_reference_scores_one(pair):
    a, b = pair
    raters = np.stack([np.zeros_like(a), a])
    got = score_case(raters, rater_probs=np.stack([b, b]).astype(float), variant="pionono")
    assert got["dice_rater.each"] == pytest.approx([1, (8 + 1e-4) / (16 + 1e-4)])
    got = score_case(raters[:1], b[None], variant="pionono", metrics=["dice_mean", "dice_soft", "dice_majority"])
    assert got == pytest.approx({"dice_mean": 1, "dice_soft": 1, "dice_majority": 1})
    # The other way round nothing changes: an empty prediction of a non-empty reference is wrong.
    got = score_case(b[None], raters[:1], variant="pionono", metrics=["dice_mean"])
    assert got["dice_mean"] == pytest.approx(0, abs=1e-4)
    labels, wrong = np.array([[[1, 0], [0, 0]]]), np.array([[[0, 2], [0, 0]]])
    got = score_case(labels, rater_probs=wrong, classes=[1, 2], variant="pionono", metrics=["dice_rater"])
    assert got["dice_rater"] == pytest.approx(0.5, abs=1e-4)  # class 2 has no reference: 1


def test_dice_each_pairings(cases):
    for raters, samples, probs in cases:
        count = len(raters)
        if len(samples) < count:
            continue
        released = score_case(raters, samples, variant="dpersona", metrics=["dice_each", "dice_match"])
        assert np.mean(released["dice_each"]) == pytest.approx(released["dice_match"])
        want = [smoothed_dice(s, y, 1e-8) for s, y in zip(samples, raters, strict=False)]
        for given in (
            {"samples": samples[:count]},
            {"rater_probs": probs[:count]},
            {"probs": probs[:count]},
            {"samples": samples, "rater_probs": probs[:count]},
        ):
            got = score_case(raters, **given, variant="dpersona_identity", metrics=["dice_each"])["dice_each"]
            assert got == pytest.approx(want, abs=2e-6)


def test_dice_each_where_it_does_not_apply(cases):
    raters, samples, _ = next(c for c in cases if len(c[0]) == 3)
    samples = np.resize(samples, (2, *samples.shape[1:]))
    for variant in ("dpersona", "dpersona_identity", "canonical"):
        got = score_case(raters, samples, variant=variant, reasons=True)
        assert math.isnan(got["dice_match"]) == (variant != "canonical")
        assert ("dice_each" in got) == (variant != "canonical")
        if variant != "canonical":
            assert np.isnan(got["dice_each"]).all()
            assert len(got["dice_each"]) == 3
            assert "2" in got["reasons"]["dice_each"]
    with pytest.raises(UserError, match="2 samples for 3 raters"):
        score_case(raters, samples, variant="dpersona", metrics=["dice_match"])
    with pytest.raises(UserError, match="2 samples for 3 raters"):
        score_case(raters, samples, variant="dpersona", metrics=["dice_each"])
    missing = score_case(raters, samples, rater_valid=[True, False, True], variant="dpersona", metrics=["dice_each"])[
        "dice_each"
    ]
    assert np.isnan(missing).tolist() == [False, True, False]
    only_maps = score_case(raters, rater_probs=np.zeros(raters.shape), variant="dpersona", reasons=True)
    assert "rater_probs" in only_maps["reasons"]["dice_each"]


@pytest.mark.parametrize(
    ("metric", "variant"),
    [("dice_each", None), ("dice_each", "mose"), ("ged.debiased", "values"), ("ged.ustat", "values"), ("nsd", "medpy")],
)
def test_a_metric_that_the_variant_does_not_define(metric, variant, cases):
    """Asked for by name it is an error; among all metrics it is nan with the reason."""
    raters, samples, _ = cases[0]
    with pytest.raises(UserError, match=f"variant does not define .*{metric}"):
        score_case(raters, samples, metrics=[metric], variant=variant)
    if metric != "dice_each":
        every = score_case(raters, samples, variant=variant, reasons=True)
        assert math.isnan(every[metric])
        assert "does not define" in every["reasons"][metric]


def test_with_background(cases):
    for raters, samples, _ in cases[:8]:
        got = score_case(raters, samples, variant=Convention(classes="with_background"), metrics=["ged", "hm_iou"])
        one = score_case(raters, samples, metrics=["ged"])["ged"]
        other = score_case(~raters, ~samples, metrics=["ged"])["ged"]
        assert got["ged"] == pytest.approx((one + other) / 2)
        labels = score_case(raters * 1, samples * 1, classes=[1], variant=Convention(classes="with_background"))
        assert labels["hm_iou"] == got["hm_iou"]


def test_convention_as_variant(cases):
    raters, samples, _ = cases[0]
    plain = score_case(raters, samples)
    assert score_case(raters, samples, variant=Convention(distance="dice"))["ged"] == plain["ged.dice"]
    assert score_case(raters, samples, variant=Convention(diagonal="debiased"))["ged"] == plain["ged.debiased"]
    assert score_case(raters, samples, variant=Convention(diagonal="exclude"))["ged"] == plain["ged.ustat"]
    assert score_case(raters, samples, variant=Convention()) == plain
    assert Convention(empty_similarity=float("nan")) == Convention(empty_similarity=math.nan)
    assert Convention(empty_similarity=0).differences() == {"empty_similarity": 0.0}
    assert CANONICAL.differences() == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"distance": "jaccard"},
        {"empty_similarity": 0.5},
        {"empty_similarity": "one"},
        {"smooth_num": -1},
        {"smooth_den": float("nan")},
        {"sample_cap": 0},
        {"thresholds": (0.5, 1.5)},
        {"thresholds": ()},
        {"missing_sample_policy": "drop"},
    ],
)
def test_bad_conventions(fields):
    with pytest.raises(UserError, match=next(iter(fields))):
        Convention(**fields)


@pytest.mark.parametrize("name", list_variants())
def test_every_variant_computes_every_metric(name, reference):
    rng = np.random.default_rng(4)
    raters, samples = (reference.random_masks(rng, 3, (6, 6)) for _ in range(2))
    raters[0], samples[1] = False, False
    got = score_case(raters, probs=samples * 0.9, rater_probs=samples * 0.8, variant=name, reasons=True)
    reasons = got.pop("reasons")
    expected = {n for n in list_metrics() if n != "dice_each" and info_of(n)["values"] != "class"}
    assert expected <= set(got)
    for metric, value in got.items():
        undefined = np.isnan(value).all()
        # Never nan without a reason; of surface metrics the reasons also count empty masks.
        assert undefined == (metric in reasons) or (not undefined and "empty: " in reasons[metric]), metric
        low, high = info_of(metric)["range"]
        if not undefined and metric != "ged.per_class" and "." not in metric:
            assert low - 1e-6 <= np.nanmin(value) <= np.nanmax(value) <= high + 1e-6 or name == "tab", metric
    assert variant_summary(name)
    assert set(conventions_of(name)) == set(FAMILIES)
