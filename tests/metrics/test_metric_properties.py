"""What must hold for any masks: order, repetition, bounds, identities between metrics, untouched inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multirater.metrics import Convention, info_of, list_metrics, score_case, score_cases
from multirater.metrics.matching import balanced_match, transport
from multirater.metrics.overlap import _multiply, intersections

SHAPE = (6, 7)
quick = settings(max_examples=80, deadline=None, derandomize=True)

OVERLAP = ("ged", "hm", "dice", "map", "rater")  # families that count marked pixels only
# And lists per rater; the oracle's draws name raters by index, and equally near modes are told apart by theirs.
ORDER_FREE_EXCEPT = ("dice_each", "human.oracle", "mode_tv")


@st.composite
def mask(draw):
    out = np.zeros(SHAPE, bool)
    kind = draw(st.sampled_from(["empty", "pixel", "full", "blocks", "noise"]))
    if kind == "pixel":
        out.flat[draw(st.integers(0, out.size - 1))] = True
    elif kind == "full":
        out[:] = True
    elif kind == "blocks":  # one block, or two that may be disconnected
        for _ in range(draw(st.integers(1, 2))):
            top, left = draw(st.integers(0, 5)), draw(st.integers(0, 6))
            out[top : top + draw(st.integers(1, 4)), left : left + draw(st.integers(1, 4))] = True
    elif kind == "noise":
        out.flat[draw(st.lists(st.integers(0, out.size - 1), max_size=20))] = True
    return out


def masks(low, high):
    return st.lists(mask(), min_size=low, max_size=high).map(np.stack)


def scalars(values):
    return {k: v for k, v in values.items() if not isinstance(v, list) and not k.startswith(ORDER_FREE_EXCEPT)}


def same(a, b, names=None, tolerance=1e-9):
    for name in names or a:
        assert a[name] == pytest.approx(b[name], abs=tolerance, nan_ok=True), name


@quick
@given(masks(1, 4), masks(1, 5), st.randoms(use_true_random=False))
def test_order_of_samples_and_raters_does_not_matter(raters, samples, random):
    i, j = list(range(len(raters))), list(range(len(samples)))
    random.shuffle(i)
    random.shuffle(j)
    same(scalars(score_case(raters, samples)), scalars(score_case(raters[i], samples[j])))


@quick
@given(masks(1, 4), masks(1, 4), st.integers(2, 3))
def test_repeating_every_sample_changes_only_what_leaves_out_pairs(raters, samples, times):
    names = """ged ged.dice diversity_samples hm_iou hm_dice dice_soft iou_soft qubiq dice_continuous dice_majority
        dice_max_rater_to_sample dice_max_sample_to_rater dice_mean cross empty_gap""".split()
    once, often = (
        score_case(raters, s, metrics=[*names, "ged.ustat"]) for s in (samples, samples.repeat(times, axis=0))
    )
    same(once, often, names)
    if len(samples) > 1 and len(raters) > 1 and once["diversity_samples"] > 1e-6:
        assert often["ged.ustat"] > once["ged.ustat"] + 1e-9  # less spread among different members


@quick
@given(masks(1, 4), masks(1, 4), st.integers(0, 3), st.integers(1, 3))
def test_background_changes_no_overlap_metric(raters, samples, before, after):
    pad = [(0, 0), (before, after), (after, before)]
    names = [name for name in list_metrics() if info_of(name)["family"] in OVERLAP and name != "dice_each"]
    names = [name for name in names if not {"rater_probs"} & set(info_of(name)["needs"])]
    padded = score_case(np.pad(raters, pad), np.pad(samples, pad), metrics=names)
    same(score_case(raters, samples, metrics=names), padded, tolerance=1e-12)


@quick
@given(masks(1, 4), masks(1, 5))
def test_bounds_and_inequalities(raters, samples):
    got = score_case(raters, samples)
    for name, value in scalars(got).items():
        low, high = info_of(name)["range"]
        assert low - 1e-12 <= value <= high + 1e-12 or math.isnan(value), name
    assert got["dice_match"] <= got["dice_max_rater_to_sample"] + 1e-12
    assert got["hm_iou"] <= got["hm_dice"] + 1e-12
    assert got["dice_mean"] == pytest.approx(
        1 - score_case(raters, samples, variant=Convention(distance="dice"))["cross"]
    )


@quick
@given(masks(1, 5), st.randoms(use_true_random=False))
def test_samples_that_are_the_raters(raters, random):
    order = list(range(len(raters)))
    random.shuffle(order)
    got = score_case(raters, raters[order])
    for name in ("ged", "ged.dice", "diversity_gap", "empty_gap"):
        assert got[name] == pytest.approx(0, abs=1e-12), name
    for name in ("hm_iou", "hm_dice", "dice_match", "dice_soft", "dice_max_mean", "dice_majority"):
        assert got[name] == pytest.approx(1), name


@quick
@given(masks(1, 4), masks(1, 5), mask())
def test_another_sample_never_lowers_the_best_one(raters, samples, extra):
    names = ["dice_max_rater_to_sample", "iou_max_rater_to_sample", "dice_match"]
    before = score_case(raters, samples, metrics=names)
    after = score_case(raters, np.concatenate([samples, extra[None]]), metrics=names)
    for name in names[:2] if len(samples) < len(raters) else names:
        assert after[name] >= before[name] - 1e-12, name


@quick
@given(masks(2, 4), masks(2, 5))
def test_debiased_forms_follow_from_the_components(raters, samples):
    got = score_case(raters, samples)
    s, r = len(samples), len(raters)
    v_s, v_r = got["diversity_samples"], got["diversity_raters"]
    assert got["ged"] == pytest.approx(2 * got["cross"] - v_s - v_r, abs=1e-12)
    assert got["ged.debiased"] == pytest.approx(2 * got["cross"] - v_s * s / (s - 1) - v_r, abs=1e-12)
    assert got["ged.ustat"] == pytest.approx(2 * got["cross"] - v_s * s / (s - 1) - v_r * r / (r - 1), abs=1e-12)
    assert got["diversity_samples.ustat"] == pytest.approx(v_s * s / (s - 1), abs=1e-12)


@quick
@given(masks(1, 5), masks(1, 5))
def test_dpersona_sees_no_empty_masks(raters, samples):
    canonical = score_case(raters, samples)
    gap = canonical["empty_share_samples"] - canonical["empty_share_raters"]
    assert score_case(raters, samples, metrics=["ged"], variant="dpersona")["ged"] == pytest.approx(
        canonical["ged"] - gap**2, abs=1e-6
    )


@quick
@given(masks(1, 4), masks(1, 4))
def test_dice_is_a_function_of_iou(raters, samples):
    iou = score_case(raters[:1], samples[:1], metrics=["iou_mean", "dice_mean"])
    assert iou["dice_mean"] == pytest.approx(2 * iou["iou_mean"] / (1 + iou["iou_mean"]))


@quick
@given(masks(1, 6), masks(1, 6))
def test_matching_by_replication_equals_transport(raters, samples):
    similarity = 1 - np.abs(samples.mean((1, 2))[:, None] - raters.mean((1, 2)))
    a, b = (np.full(n, 1 / n) for n in similarity.shape)
    assert balanced_match(similarity) == pytest.approx(transport(similarity, a, b), abs=1e-9)
    assert balanced_match(similarity, a, b) == pytest.approx(balanced_match(similarity), abs=1e-9)


@pytest.mark.parametrize(("samples", "raters"), [(50, 7), (100, 3), (33, 10)])
def test_large_multiples_use_transport_with_the_same_value(samples, raters):
    from scipy.optimize import linear_sum_assignment

    similarity = np.random.default_rng(samples).random((samples, raters))
    size = math.lcm(samples, raters)
    square = similarity.repeat(size // samples, axis=0).repeat(size // raters, axis=1)
    want = square[linear_sum_assignment(square, maximize=True)].mean()
    assert balanced_match(similarity) == pytest.approx(want, abs=1e-9)
    assert balanced_match(similarity.T) == pytest.approx(want, abs=1e-9)


@quick
@given(masks(1, 4), masks(2, 4), st.lists(st.integers(0, 4), min_size=4, max_size=4))
def test_weights_are_repetitions(raters, samples, times):
    times = np.array(times[: len(samples)])
    if not times.sum():
        times[0] = 1
    names = ["ged", "ged.dice", "cross", "hm_iou", "hm_dice", "dice_mean", "dice_max_sample_to_rater", "dice_soft"]
    names += ["dice_majority", "dice_continuous", "empty_share_samples", "diversity_samples"]
    weighted = score_case(raters, samples, sample_weights=times / times.sum(), metrics=names)
    same(weighted, score_case(raters, samples.repeat(times, axis=0), metrics=names), names)


@quick
@given(masks(2, 4), masks(1, 4))
def test_rater_weights_are_repetitions(raters, samples):
    times = np.arange(1, len(raters) + 1)
    names = ["ged", "ged.dice", "cross", "hm_iou", "dice_mean", "dice_max_rater_to_sample", "dice_soft", "qubiq"]
    weighted = score_case(raters, samples, rater_weights=times / times.sum(), metrics=names)
    same(weighted, score_case(raters.repeat(times, axis=0), samples, metrics=names), names)


@quick
@given(masks(1, 5), masks(1, 5))
def test_both_ways_of_counting_are_exact(raters, samples):
    everything = np.concatenate([raters, samples])
    flat = everything.reshape(len(everything), -1)
    want = flat.astype(int) @ flat.T.astype(int)
    assert (intersections([raters, samples]) == want).all()
    assert (_multiply(flat) == want).all()


@pytest.mark.parametrize("count", [3, 40, 300])
def test_counting_many_masks_in_blocks(count):
    flat = np.random.default_rng(count).random((count, 1003)) < 0.3
    want = flat.astype(np.int64) @ flat.T.astype(np.int64)
    assert (intersections([flat]) == want).all()
    assert (_multiply(flat) == want).all()


def test_counts_beyond_float32():
    """2^24 + 3 pixels in one mask: a float32 sum of ones would stop at 2^24."""
    flat = np.ones((2, (1 << 24) + 3), bool)
    flat[1, 1::2] = False
    odd = ((1 << 24) + 4) // 2
    want = [[(1 << 24) + 3, odd], [odd, odd]]
    assert intersections([flat]).tolist() == want
    assert _multiply(flat).tolist() == want


@quick
@given(masks(1, 4), masks(1, 4))
def test_binary_class_map_and_volume_agree(raters, samples):
    """The same masks as booleans, as a class map, and as a flat volume."""
    want = score_case(raters, samples)
    same(want, score_case(raters.astype(np.uint8), samples.astype(np.int64)), tolerance=0)
    # In a volume of one slice every pixel is on the border.
    flat = [name for name in want if info_of(name)["family"] != "surface"]
    same(want, score_case(raters[:, None], samples[:, None]), flat, tolerance=0)
    same(want, score_case(raters.astype(float), samples.astype(np.float32)), tolerance=0)
    several = score_case(raters * 2, samples * 2, classes=[2])
    same(want, several, tolerance=0)
    half = score_case(raters.astype(int), samples.astype(int), classes=[1, 2], metrics=["ged"])
    assert half["ged"] == pytest.approx(want["ged"] / 2)  # class 2 is absent everywhere: an agreement


def test_shares_are_compared_as_integers():
    """3 of 10 votes are not more than 0.3, though 0.3 as a float32 share is 0.30000001."""
    samples = np.zeros((10, 1, 1), bool)
    raters = np.zeros((10, 1, 1), bool)
    for tenths in (1, 3, 5, 7, 9):
        samples[:] = raters[:] = False
        samples[:tenths] = True
        raters[: tenths + 1] = True
        convention = Convention(thresholds=(tenths / 10,))
        share = samples.mean(0)
        for given_ in ({"samples": samples}, {"samples": samples, "mean_prob": share.astype(np.float32)}):
            got = score_case(raters, **given_, metrics=["dice_soft"], variant=convention)
            assert got["dice_soft"] == 0, (tenths, list(given_))  # the raters pass, the samples do not
    weights = np.full(10, 0.1)
    weights[0] += 1e-13  # not uniform: the weighted sum carries rounding
    weights[1] -= 1e-13
    samples[:] = False
    samples[2:5] = True
    got = score_case(
        raters, samples, sample_weights=weights, metrics=["dice_soft"], variant=Convention(thresholds=(0.3,))
    )
    assert got["dice_soft"] == 0


def test_rater_votes_at_the_five_thresholds():
    """R = 4 needs 1, 2, 3, 3, 4 votes, R = 3 1, 1, 2, 3, 3 and R = 6 1, 2, 4, 5, 6."""
    for count, needs in ((4, (1, 2, 3, 3, 4)), (3, (1, 1, 2, 3, 3)), (6, (1, 2, 4, 5, 6))):
        votes = np.arange(count + 1)
        raters = (np.arange(count)[:, None] < votes)[:, None, :]  # pixel k has k votes
        for t, need in zip((0.1, 0.3, 0.5, 0.7, 0.9), needs, strict=True):
            sample = (votes >= need)[None, None, :]
            got = score_case(raters, sample, metrics=["dice_soft"], variant=Convention(thresholds=(t,)))
            assert got["dice_soft"] == 1, (count, t)


def test_half_is_background():
    raters = np.ones((1, 2, 2), bool)
    got = score_case(raters, probs=np.full((1, 2, 2), 0.5), metrics=["dice_mean", "dice_majority", "dice_soft"])
    assert got["dice_mean"] == 0
    assert got["dice_majority"] == 0
    assert got["dice_soft"] == pytest.approx(0.4)  # passes 0.1 and 0.3
    two = np.full((1, 2, 2, 2), 0.5)
    assert score_case(raters, probs=two, metrics=["dice_mean"])["dice_mean"] == 0  # tie: the lower channel wins


def test_channels_are_arg_max():
    rng = np.random.default_rng(3)
    probs = rng.dirichlet([1, 1, 1], (5, 6, 7)).transpose(0, 3, 1, 2)
    raters = rng.integers(0, 3, (3, 6, 7))
    labels = probs.argmax(1)
    names = ["ged", "hm_iou", "dice_match", "dice_max_mean"]
    same(
        score_case(raters, probs=probs, metrics=names), score_case(raters, labels, classes=[1, 2], metrics=names), names
    )
    soft = score_case(raters, probs=probs, metrics=["dice_soft"])["dice_soft"]
    one = [score_case(raters == c, probs=probs[:, c], metrics=["dice_soft"])["dice_soft"] for c in (1, 2)]
    assert soft == pytest.approx(np.mean(one))


@pytest.mark.parametrize("variant", ["canonical", "dpersona", "kohl", "cimd", "values", "tab"])
def test_inputs_are_left_alone(variant, reference):
    rng = np.random.default_rng(5)
    probs = rng.random((6, 5, 5)).astype(np.float32)
    given_ = {
        "raters": reference.random_masks(rng, 4, (5, 5)),
        "probs": probs,
        "rater_probs": probs[:4].copy(),
        "mean_prob": probs.mean(0),
        "rater_valid": np.array([True, True, False, True]),
        "valid": rng.random((5, 5)) < 0.8,
    }
    before = {k: v.copy() for k, v in given_.items()}
    for array in given_.values():
        array.flags.writeable = False
    first = score_case(**given_, variant=variant)
    again = score_case(**given_, variant=variant)
    assert all((before[k] == given_[k]).all() for k in given_)
    assert str(first) == str(again)


def test_cases_do_not_depend_on_their_batch(reference):
    rng = np.random.default_rng(6)
    raters = np.stack([reference.random_masks(rng, 4, (6, 6)) for _ in range(5)])
    probs = rng.random((5, 3, 6, 6)).astype(np.float32)
    valid = np.array([[True, True, r, True] for r in (True, False, True, True, False)])
    options = {"rater_valid": valid, "rater_probs": rng.random((5, 4, 6, 6))}
    frame = score_cases(raters, probs=probs, **options, reasons=True)
    assert len(frame) == 5
    for i, row in enumerate(frame.to_dict("records")):
        alone = score_case(raters[i], probs=probs[i], **{k: v[i] for k, v in options.items()}, reasons=True)
        assert str(row) == str(alone)  # the same bits, nan included
    some = score_cases(raters[2:4], probs=probs[2:4], metrics=["ged"])
    assert some["ged"].tolist() == frame["ged"].tolist()[2:4]
    ragged = score_cases([raters[0], raters[1, :3, :4]], [raters[2], raters[3][:, :4]], metrics=["ged"])
    assert ragged["ged"][1] == score_case(raters[1, :3, :4], raters[3][:, :4], metrics=["ged"])["ged"]


def test_default_classes_are_one_list_for_all_cases():
    raters = np.zeros((2, 2, 4, 4), int)
    raters[0, :, 0] = 2
    raters[1, 0, 0] = 1
    samples = raters[:, ::-1]
    frame = score_cases(raters, samples, metrics=["dice_mean"])
    assert (
        frame["dice_mean"][1] == score_case(raters[1], samples[1], classes=[1, 2], metrics=["dice_mean"])["dice_mean"]
    )
