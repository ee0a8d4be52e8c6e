"""Collective insight and mode frequencies: against sets of pixels and fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multirater.metrics import Convention, info_of, list_metrics, score_case, score_cases
from multirater.metrics.components import components_of, score_components

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ["combined_sensitivity", "d_max", "diversity_agreement", "diversity_agreement.variance", "ci", "mode_tv"]
quick = settings(max_examples=80, deadline=None, derandomize=True)


def similarity(reference, kind):
    """Mean over the classes of the similarity of two tuples of masks."""
    return reference.over_classes({"dice": reference.dice, "iou": reference.iou}[kind])


def spreads(members, distance):
    return [distance(a, b) for a, b in combinations(members, 2)] or [Fraction(0)]


def agreement(raters, samples, distance):
    y, s = spreads(raters, distance), spreads(samples, distance)
    return 1 - (abs(max(y) - max(s)) + abs(min(y) - min(s))) / 2


def slow(reference, raters, samples, pixels, u=None, w=None):
    """Members are tuples of sets of pixels, one a class; exact fractions."""
    u = u or [Fraction(1, len(raters))] * len(raters)
    w = w or [Fraction(1, len(samples))] * len(samples)
    dice, iou = similarity(reference, "dice"), similarity(reference, "iou")
    classes = range(len(raters[0]))
    shares = []
    for k in classes:
        found = frozenset().union(*(y[k] for y in raters))
        covered = frozenset().union(*(s[k] for s in samples))
        shares.append(Fraction(len(found & covered), len(found)) if found else Fraction(1))
    out = {
        "combined_sensitivity": reference.mean(shares),
        "d_max": sum(weight * max(dice(y, s) for s in samples) for weight, y in zip(u, raters, strict=True)),
        "diversity_agreement": agreement(raters, samples, lambda a, b: 1 - dice(a, b)),
        "diversity_agreement.variance": agreement(
            raters,
            samples,
            lambda a, b: reference.mean(Fraction(len(a[k] ^ b[k]), 4 * pixels) for k in classes),
        ),
    }
    parts = [out["combined_sensitivity"], out["d_max"], out["diversity_agreement"]]
    out["ci"] = Fraction(0) if 0 in parts else 3 / sum(1 / p for p in parts)
    modes = {}
    for weight, y in zip(u, raters, strict=True):
        modes[y] = modes.get(y, 0) - weight
    for weight, s in zip(w, samples, strict=True):
        nearest = max(range(len(raters)), key=lambda r: (iou(s, raters[r]), -r))
        modes[raters[nearest]] += weight
    out["mode_tv"] = sum(abs(v) for v in modes.values()) / 2
    return out


def members(reference, maps, classes):
    return [tuple(reference.pixels(m == c) for c in classes) for m in maps]


def test_against_the_definitions(reference):
    rng = np.random.default_rng(31)
    for i in range(300):
        several, volume = rng.random() < 0.4, rng.random() < 0.2
        shape = (2, 3, 3) if volume else (4, 5)
        classes = [1, 2, 3] if several else [1]
        slots, count = int(rng.integers(1, 5)), int(rng.integers(1, 6))
        if several:
            raters, samples = (
                rng.integers(0, 4, (n, *shape)) * (rng.random((n, *shape)) < 0.5) for n in (slots, count)
            )
        else:
            flat = (1, math.prod(shape))
            raters, samples = (reference.random_masks(rng, n, flat).reshape(n, *shape) for n in (slots, count))
        for k in range(count):  # near and exact copies of raters, so that modes are hit and tied
            if rng.random() < 0.4:
                samples[k] = raters[rng.integers(slots)]
        if slots > 1 and rng.random() < 0.3:
            raters[1] = raters[0]
        options, kept, inside = {}, np.ones(slots, bool), np.ones(shape, bool)
        if slots > 1 and rng.random() < 0.3:
            kept[rng.integers(slots)] = False
            options["rater_valid"] = kept
        if rng.random() < 0.3:
            inside = rng.random(shape) < 0.7
            inside.flat[0] = True
            options["valid"] = inside
        u = w = None
        if rng.random() < 0.3:
            whole = rng.integers(1, 5, slots)
            options["rater_weights"] = whole / whole.sum()
            u = [Fraction(int(n), int(whole[kept].sum())) for n in whole[kept]]
        if rng.random() < 0.3:
            whole = rng.integers(0, 4, count)
            whole[0] += 1
            options["sample_weights"] = whole / whole.sum()
            w = [Fraction(int(n), int(whole.sum())) for n in whole]
        want = slow(
            reference,
            members(reference, raters[kept][:, inside], classes),
            members(reference, samples[:, inside], classes),
            int(inside.sum()),
            u,
            w,
        )
        options["classes"] = classes if several else None
        got = score_case(raters, samples, **options, metrics=NAMES)
        for name in NAMES:
            assert got[name] == pytest.approx(float(want[name]), abs=1e-12), (i, name)


def test_printed_form_of_cimd(reference):
    rng = np.random.default_rng(32)
    for _ in range(150):
        raters, samples = (reference.random_masks(rng, int(rng.integers(1, 5)), (5, 5)) for _ in range(2))
        got = score_case(raters, samples, variant="cimd", metrics=[*NAMES[:4], "ci"])
        a, b, c = got["combined_sensitivity"], got["d_max"], got["diversity_agreement.variance"]
        want = 0 if min(a, b, c) <= 0 else 3 * a * b * c / (a + b + c)
        assert got["ci"] == pytest.approx(want, abs=1e-12)
        plain = score_case(raters, samples, variant=Convention(ci="printed"), metrics=["ci"])["ci"]
        assert got["ci"] == pytest.approx(plain, abs=2e-5)  # the smoothing of 1e-5
    # The smoothing is that of every ratio.
    raters, samples = np.zeros((2, 2, 3, 3), bool)
    raters[0, 0], raters[1, 1], samples[:, 2] = True, True, True
    got = score_case(raters, samples, variant="cimd", metrics=["combined_sensitivity", "d_max"])
    assert got["combined_sensitivity"] == pytest.approx(1e-5 / (6 + 1e-5), rel=1e-9)
    assert got["d_max"] == pytest.approx(1e-5 / (6 + 1e-5), rel=1e-9)


def test_equal_parts_show_that_the_printed_form_is_no_mean():
    """All parts 1: both forms 1; with parts x the printed form is x² and the mean x."""
    mask = np.zeros((1, 2, 4), bool)
    mask[0, 0] = True
    assert score_case(mask, mask, metrics=["ci"])["ci"] == 1
    half = mask.copy()
    half[0, 0, 2:] = False
    names = ["combined_sensitivity", "d_max", "diversity_agreement.variance", "ci"]
    got = score_case(mask, half, variant=Convention(ci="printed"), metrics=names)
    assert [got[n] for n in names] == pytest.approx([1 / 2, 2 / 3, 1, 3 * (1 / 3) / (13 / 6)])


def test_single_members_have_no_spread(pair):
    a, b = pair
    both, one, empty = np.stack([a, b]), a[None], np.zeros((1, 4, 4), bool)
    names = ["diversity_agreement", "diversity_agreement.variance"]
    assert score_case(one, one, metrics=names) == dict.fromkeys(names, 1)
    assert score_case(both, one, metrics=names) == {names[0]: 0.5, names[1]: 1 - 8 / 64}
    assert score_case(one, both, metrics=names) == {names[0]: 0.5, names[1]: 1 - 8 / 64}
    got = score_case(empty, empty, metrics=NAMES)
    assert got == {**dict.fromkeys(NAMES, 1), "mode_tv": 0}
    got = score_case(one, empty, metrics=NAMES)
    assert (got["combined_sensitivity"], got["ci"]) == (0, 0)
    assert score_case(empty, one, metrics=["combined_sensitivity", "ci"]) == {"combined_sensitivity": 1, "ci": 0}


def test_modes(pair):
    a, b = pair
    both, alike = np.stack([a, b]), np.stack([a, a, b])
    assert score_case(both, np.stack([a, b]), metrics=["mode_tv"])["mode_tv"] == 0
    assert score_case(both, np.stack([a, a]), metrics=["mode_tv"])["mode_tv"] == 0.5
    # Two raters with one mask are one mode of weight 2/3.
    assert score_case(alike, np.stack([a, a, b]), metrics=["mode_tv"])["mode_tv"] == pytest.approx(0)
    assert score_case(alike, b[None], metrics=["mode_tv"])["mode_tv"] == pytest.approx(2 / 3)
    # As far from both: the first wins.
    between = (a & b)[None]
    assert score_case(both, between, metrics=["mode_tv"])["mode_tv"] == 0.5
    weighted = score_case(both, between, rater_weights=[0.25, 0.75], metrics=["mode_tv"])
    assert weighted["mode_tv"] == pytest.approx(0.75)
    weighted = score_case(both[::-1], between, rater_weights=[0.25, 0.75], metrics=["mode_tv"])
    assert weighted["mode_tv"] == pytest.approx(0.75)
    # A tie in three classes, whose Dice values are summed in another order.
    labels = np.array([[[1, 1, 1, 2, 2, 3]], [[1, 2, 2, 2, 3, 3]]])
    assert score_case(labels, labels[:1], classes=[1, 2, 3], metrics=["mode_tv"])["mode_tv"] == 0.5


def test_undefined_distances_have_a_reason(pair):
    empty = np.zeros((1, 4, 4), bool)
    got = score_case(np.stack(pair), empty, variant="kohl", metrics=["mode_tv"], reasons=True)
    assert got["mode_tv"] == 0.5
    got = score_case(empty, empty, variant="kohl", metrics=["mode_tv"], reasons=True)
    assert math.isnan(got["mode_tv"])
    assert "both empty" in got["reasons"]["mode_tv"]
    nan = Convention(empty_similarity=math.nan)
    got = score_case(empty, empty, variant=nan, metrics=NAMES, reasons=True)
    assert {n for n in NAMES if math.isnan(got[n])} == set(got["reasons"]) >= {"ci", "combined_sensitivity"}


masks = st.lists(st.integers(0, 2**20 - 1), min_size=1, max_size=4)


def unpacked(numbers):
    """Masks 4×5 from the bits of numbers; 0 is empty, the largest is full."""
    return np.array([[n >> i & 1 for i in range(20)] for n in numbers], bool).reshape(-1, 4, 5)


@quick
@given(masks, masks, st.randoms(use_true_random=False))
def test_properties(left, right, random):
    raters, samples = unpacked(left), unpacked([*right, left[0]])
    want = score_case(raters, samples, metrics=NAMES)
    assert all(0 <= value <= 1 for value in want.values())
    i, j = list(range(len(raters))), list(range(len(samples)))
    random.shuffle(i)
    random.shuffle(j)
    names = NAMES[:-1]  # the nearest rater is the first of those as near
    assert score_case(raters[i], samples[j], metrics=names) == pytest.approx({n: want[n] for n in names})
    assert score_case(raters, samples[j], metrics=["mode_tv"])["mode_tv"] == pytest.approx(want["mode_tv"])
    repeated = score_case(raters, samples.repeat(2, axis=0), metrics=["combined_sensitivity", "d_max", "mode_tv"])
    assert repeated == pytest.approx({n: want[n] for n in repeated})
    own = score_case(raters, raters[::-1], metrics=NAMES)
    assert [own[n] for n in names] == pytest.approx([1] * len(names))
    assert own["mode_tv"] == pytest.approx(0)
    padded = score_case(*(np.pad(m, ((0, 0), (0, 3), (2, 0))) for m in (raters, samples)), metrics=NAMES)
    for name in set(NAMES) - {"diversity_agreement.variance"}:
        assert padded[name] == pytest.approx(want[name]), name
    assert padded["diversity_agreement.variance"] >= want["diversity_agreement.variance"] - 1e-12


@pytest.mark.parametrize("variant", ["canonical", "cimd", "dpersona", "values", "kohl", "mose"])
def test_batches_and_components_have_the_same_bits(variant, reference):
    rng = np.random.default_rng(33)
    raters = np.stack([reference.random_masks(rng, 3, (6, 6)) for _ in range(4)])
    probs = rng.random((4, 5, 6, 6))
    raters.flags.writeable = probs.flags.writeable = False
    before = raters.copy(), probs.copy()
    frame = score_cases(raters, probs=probs, metrics=NAMES, variant=variant)
    stored = [n for n in NAMES if not info_of(n)["pixels"]]
    assert {"mode_tv", "diversity_agreement", "diversity_agreement.variance"} <= set(stored)
    for i, row in enumerate(frame.to_dict("records")):
        assert str(row) == str(score_case(raters[i], probs=probs[i], metrics=NAMES, variant=variant))
        again = score_components(components_of(raters[i], probs=probs[i]), stored, variant)
        assert str(again) == str({n: row[n] for n in stored})
    assert (before[0] == raters).all()
    assert (before[1] == probs).all()


def test_metadata():
    assert {n for n in list_metrics() if info_of(n)["section"] == "2.6"} == {*NAMES[2:5], "combined_sensitivity"}
    assert info_of("mode_tv")["worst"] == 1
    assert all(info_of(n)["worst"] == 0 for n in NAMES[2:5])
