"""Consensus, volume and saliency scores, and pooled numbers: against loops written from their definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from multirater.core.errors import UserError
from multirater.metrics import info_of, list_metrics, score_case, score_cases
from multirater.metrics.inputs import read_case
from multirater.metrics.pooled import Pool, pooled_cohens_kappa, pooled_dice_rater, pooled_micro_miou
from scipy.integrate import quad
from scipy.stats import norm

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ["consensus_dice", "consensus_confidence", "volume_crps", "volume_crps.ensemble", "fmeasure", "mae"]
LISTS = ["consensus_dice.per_class", "consensus_confidence.per_class", "volume_crps.per_class"]
quick = settings(max_examples=60, deadline=None, derandomize=True)


# -- slow reference -----------------------------------------------------------------------------------


def mean(values, weights=None):
    values = list(values)
    weights = weights or [1 / len(values)] * len(values)
    return math.fsum(w * v for w, v in zip(weights, values, strict=True))


def consensus(labels, hard, p, label):
    """Dice and confidence on the pixels on which all raters agree."""
    inside = [x for x in range(len(hard)) if all(y[x] == label for y in labels)]
    outside = [x for x in range(len(hard)) if all(y[x] != label for y in labels)]
    marked = [x for x in inside + outside if hard[x] == label]
    both = len(set(marked) & set(inside))
    dice = 2 * both / (len(marked) + len(inside)) if marked or inside else 1.0
    if not inside or not outside:
        return dice, math.nan
    return dice, (mean(p[x] for x in inside) + 1 - mean(p[x] for x in outside)) / 2


def crps(predicted, volumes, u):
    """The integral itself, of a normal distribution or a step at the observed volume."""
    centre = mean(volumes, u)
    spread = math.sqrt(mean([(v - centre) ** 2 for v in volumes], u))
    if spread < 1e-9:
        return abs(predicted - centre)
    cdf = norm(centre, spread).cdf
    far = 12 * spread + abs(predicted - centre)
    below = quad(lambda v: cdf(v) ** 2, centre - far, predicted, limit=200, epsabs=1e-11)[0]
    return below + quad(lambda v: (1 - cdf(v)) ** 2, predicted, centre + far, limit=200, epsabs=1e-11)[0]


def ensemble(predicted, volumes, u):
    pairs = [(a, b, s * t) for a, s in zip(volumes, u, strict=True) for b, t in zip(volumes, u, strict=True)]
    return mean([abs(predicted - v) for v in volumes], u) - 0.5 * sum(w * abs(a - b) for a, b, w in pairs)


def saliency(p, y):
    """F at twice the mean, and mean absolute error, of the scaled map."""
    low, high = min(p), max(p)
    scaled = [(v - low) / (high - low) if high > low else 0.0 for v in p]
    threshold = min(1.0, 2 * float(np.mean(scaled)))
    mask = [v >= threshold for v in scaled]
    both = sum(m and t for m, t in zip(mask, y, strict=True))
    precision, recall = both / max(1, sum(mask)), both / max(1, sum(y))
    f = 1.3 * precision * recall / (0.3 * precision + recall) if both else 0.0
    return f, mean(abs(v - t) for v, t in zip(scaled, y, strict=True))


def slow(labels, probs, classes, voxel, u):
    """Labels R×N, mean map C×N as lists."""
    hard = [max(range(len(probs)), key=lambda k: (probs[k][x], -k)) for x in range(len(probs[0]))]
    rows = []
    for label in classes:
        p = probs[label]
        volumes = [voxel * sum(v == label for v in y) for y in labels]
        dice, confidence = consensus(labels, hard, p, label)
        each = [saliency(p, [v == label for v in y]) for y in labels]
        predicted = voxel * math.fsum(p)
        scores = [mean([e[i] for e in each], u) for i in range(2)]
        rows.append([dice, confidence, crps(predicted, volumes, u), ensemble(predicted, volumes, u), *scores])
    return rows


def random_case(rng, reference):
    several, volume = rng.random() < 0.4, rng.random() < 0.3
    shape = (2, 3, 4) if volume else (4, 6)
    slots, count = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    classes = [1, 2] if several else [1]
    if several:
        truth = rng.integers(0, 3, shape)
        raters = np.stack([np.where(rng.random(shape) < 0.2, rng.integers(0, 3, shape), truth) for _ in range(slots)])
    else:
        raters = reference.random_masks(rng, slots, (1, math.prod(shape))).reshape(slots, *shape)
    probs = np.moveaxis(rng.dirichlet(np.full(3 if several else 2, 0.5), (count, *shape)), -1, 1)
    if rng.random() < 0.1:
        probs[:] = 1 / probs.shape[1]
    kept, inside, u, spacing = np.ones(slots, bool), np.ones(shape, bool), None, None
    given_ = {"raters": raters, "classes": classes if several else None}
    if slots > 1 and rng.random() < 0.3:
        kept[rng.integers(slots)] = False
        given_["rater_valid"] = kept
    if rng.random() < 0.3:
        inside = rng.random(shape) < 0.7
        inside.flat[0] = True
        given_["valid"] = inside
    if rng.random() < 0.3:
        weights = rng.dirichlet(np.ones(slots))
        given_["rater_weights"], u = weights, (weights[kept] / weights[kept].sum()).tolist()
    if rng.random() < 0.5:
        spacing = rng.uniform(0.5, 3, len(shape))
        given_["spacing"] = spacing
    average = probs.mean(0)
    kind = rng.integers(3)
    if kind == 0:
        given_["probs"] = probs if several else probs[:, 1]
        average = average if several else np.stack([1 - average[1], average[1]])
    elif kind == 1:
        given_["mean_prob"] = average
    else:
        hard = probs.argmax(1)
        given_["samples"] = hard if several else hard.astype(bool)
        average = np.stack([(hard == k).mean(0) for k in range(probs.shape[1])])
    u = u or [1 / kept.sum()] * int(kept.sum())
    lists = raters[kept][:, inside].astype(int).tolist(), average[:, inside].tolist()
    return given_, *lists, classes, 1.0 if spacing is None else math.prod(spacing.tolist()), u


def test_against_the_definitions(reference):
    rng = np.random.default_rng(41)
    undefined = 0
    for i in range(250):
        given_, labels, probs, classes, voxel, u = random_case(rng, reference)
        rows = np.array(slow(labels, probs, classes, voxel, u))
        got = score_case(**given_, metrics=[*NAMES, *LISTS], reasons=True)
        for name, want in zip(NAMES, rows.mean(0), strict=True):
            assert got[name] == pytest.approx(want, rel=1e-8, abs=1e-8, nan_ok=True), (i, name)
        for name, column in zip(LISTS, rows.T[:3], strict=True):
            assert got[name] == pytest.approx(column.tolist(), rel=1e-8, abs=1e-8, nan_ok=True), (i, name)
        undefined += math.isnan(got["consensus_confidence"])
        assert math.isnan(got["consensus_confidence"]) == ("consensus_confidence" in got["reasons"])
    assert 5 < undefined < 150


# -- consensus ----------------------------------------------------------------------------------------


def test_consensus_of_two_raters(pair):
    a, b = pair  # agree on 4 pixels of foreground and 4 of background
    got = score_case(np.stack([a, b]), mean_prob=a * 0.8, metrics=NAMES[:2])
    assert got == pytest.approx({"consensus_dice": 1, "consensus_confidence": (0.8 + 1) / 2})
    got = score_case(np.stack([a, b]), mean_prob=~a * 0.8, metrics=NAMES[:2])
    assert got == pytest.approx({"consensus_dice": 0, "consensus_confidence": (1 - 0.8) / 2})
    half = score_case(np.stack([a, b]), mean_prob=np.full((4, 4), 0.5), metrics=NAMES[:2])
    assert half == {"consensus_dice": 0, "consensus_confidence": 0.5}  # 0.5 is background


def test_raters_who_agree_nowhere(pair):
    a, _ = pair
    got = score_case(np.stack([a, ~a]), mean_prob=a * 0.8, metrics=NAMES[:2], reasons=True)
    assert got["consensus_dice"] == 1  # nothing to find and nothing found
    assert got["reasons"]["consensus_confidence"].startswith("data: the raters share no pixel")


def test_ties_of_shares_take_the_lower_class():
    raters = np.ones((1, 1, 3), int)
    samples = np.array([[[1, 1, 2]], [[2, 1, 2]]])
    got = score_case(raters, samples, classes=[1, 2], metrics=["consensus_dice.per_class"])
    assert got["consensus_dice.per_class"] == pytest.approx([0.8, 0])
    weights = np.array([0.1, 0.2, 0.7])
    labels = np.array([[[1]], [[1]], [[0]]])
    got = score_case(raters[..., :1], labels.astype(bool), sample_weights=weights, metrics=["consensus_dice"])
    assert got["consensus_dice"] == 0


def rows_of(mask, truth):
    """The released call: a row of a slice is a channel, the first one is dropped, rows without truth are left out."""
    slices = []
    for a, b in zip(mask.tolist(), truth.tolist(), strict=True):
        found = []
        for row, wanted in list(zip(a, b, strict=True))[1 if len(a) > 1 else 0 :]:
            if any(wanted):
                both = sum(x and y for x, y in zip(row, wanted, strict=True))
                found.append(2 * both / (sum(row) + sum(wanted)))
        if found:
            slices.append(mean(found))
    return mean(slices) if slices else 0.0


def test_consensus_dice_of_rows_as_released():
    rng = np.random.default_rng(42)
    for i in range(100):
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 6)))
        truth = rng.integers(0, 3, shape)
        raters = np.stack([np.where(rng.random(shape) < 0.15, rng.integers(0, 3, shape), truth) for _ in range(3)])
        probs = rng.dirichlet(np.ones(3), shape).transpose(3, 0, 1, 2)
        valid = rng.random(shape) < (0.8 if i % 2 else 1.1)
        valid.flat[0] = True
        options = {"mean_prob": probs, "classes": [1, 2], "variant": "curvas", "valid": valid}
        got = score_case(raters, **options, metrics=["consensus_dice", "consensus_dice.per_class"])
        want = []
        for label in (1, 2):
            same = ((raters == label).all(0) | (raters != label).all(0)) & valid
            want.append(rows_of((probs.argmax(0) == label) & same, (raters == label).all(0) & same))
        assert got["consensus_dice.per_class"] == pytest.approx(want, abs=1e-6)
        assert got["consensus_dice"] == pytest.approx(mean(want), abs=1e-6)
        flat = {**options, "mean_prob": probs[:, 0], "valid": valid[0]}
        if valid[0].any():  # an image is one slice
            alone = score_case(raters[:, 0], **flat, metrics=["consensus_dice"])["consensus_dice"]
            one = {**options, "mean_prob": probs[:, :1], "valid": valid[:1]}
            assert alone == score_case(raters[:, :1], **one, metrics=["consensus_dice"])["consensus_dice"]


# -- volume -------------------------------------------------------------------------------------------


def test_closed_form_of_the_volume_score():
    raters = np.zeros((2, 1, 10), bool)
    raters[0, 0, :2], raters[1, 0, :6] = True, True  # volumes 2 and 6: mean 4, deviation 2
    at_mean = score_case(raters, mean_prob=np.full((1, 10), 0.4), metrics=["volume_crps", "volume_crps.ensemble"])
    assert at_mean["volume_crps"] == pytest.approx(2 * (math.sqrt(2) - 1) / math.sqrt(math.pi))
    assert at_mean["volume_crps.ensemble"] == pytest.approx(2 - 0.5 * 2)
    scaled = score_case(raters, mean_prob=np.full((1, 10), 0.4), spacing=[2, 3], metrics=["volume_crps"])
    assert scaled["volume_crps"] == pytest.approx(6 * at_mean["volume_crps"])
    alike = score_case(raters[[0, 0]], mean_prob=np.full((1, 10), 0.5), metrics=["volume_crps"])
    assert alike["volume_crps"] == pytest.approx(3)
    single = score_case(raters[:1], mean_prob=np.full((1, 10), 0.5), metrics=["volume_crps", "volume_crps.ensemble"])
    assert list(single.values()) == pytest.approx([3, 3])


def test_truncated_volume_score():
    """Between the ends of the table it is near the exact score; beyond three deviations it no longer moves."""
    raters = np.zeros((3, 1, 100), bool)
    for rater, volume in zip(raters, (30, 40, 50), strict=True):
        rater[0, :volume] = True

    def score(volume, variant="curvas"):
        given_ = {"mean_prob": np.full((1, 100), volume / 100), "metrics": ["volume_crps"], "variant": variant}
        return score_case(raters, **given_)["volume_crps"]

    for volume in (25, 38, 40, 47.5, 55):
        assert score(volume) == pytest.approx(score(volume, "canonical"), abs=0.05)
    assert score(80) == score(95) < score(80, "canonical") < score(95, "canonical")
    assert score(1) == pytest.approx(score(80), abs=0.01)
    deviation = math.sqrt(200 / 3)
    low, high = norm.ppf(0.01), norm.ppf(0.99)
    points = np.linspace(low, high, 100)
    z = np.linspace(-3, 3, 600_001)
    table = np.interp(z, points, norm.cdf(points), left=0, right=1)
    # Beside the integral the released function's values: its quadrature stops early at the jumps.
    released = {25: 10.603435355141057, 38: 2.1044155237049216, 47.5: 4.481814294319003, 80: 19.94272369857434}
    for volume, value in released.items():
        assert score(volume) == pytest.approx(value, rel=1e-9)
        squared = (table - (z > (volume - 40) / deviation)) ** 2
        assert score(volume) == pytest.approx(deviation * 6 * squared.mean(), abs=0.01)
    alike = score_case(raters[[0, 0]], mean_prob=np.ones((1, 100)), metrics=["volume_crps"], variant="curvas")
    assert alike["volume_crps"] == 0  # no interval, whatever was predicted


# -- saliency -----------------------------------------------------------------------------------------


def test_saliency_of_simple_maps(pair):
    a, b = pair
    perfect = score_case(a[None], mean_prob=a * 0.4 + 0.3, metrics=["fmeasure", "mae"])
    assert perfect == {"fmeasure": 1, "mae": 0}  # the map is scaled first
    swapped = score_case(b[None], mean_prob=a * 1.0, metrics=["fmeasure", "mae"])
    assert swapped == pytest.approx({"fmeasure": 0.5, "mae": 0.5})
    constant = score_case(a[None], mean_prob=np.full((4, 4), 0.7), metrics=["fmeasure", "mae"])
    # Scaled to 0, of which every pixel reaches twice the mean: precision 1/2, recall 1.
    assert constant == pytest.approx({"fmeasure": 1.3 * 0.5 / (0.15 + 1), "mae": 0.5})
    empty = score_case(np.zeros((1, 4, 4), bool), mean_prob=a * 1.0, metrics=["fmeasure", "mae"])
    assert empty == {"fmeasure": 0, "mae": 0.5}
    mostly = np.ones((4, 4))
    mostly[0, 0] = 0.0
    got = score_case(np.ones((1, 4, 4), bool), mean_prob=mostly, metrics=["fmeasure"])
    assert got["fmeasure"] == pytest.approx(1.3 * 15 / 16 / (0.3 + 15 / 16))  # a threshold never above 1


# -- properties ---------------------------------------------------------------------------------------


@quick
@given(
    st.integers(1, 4).flatmap(lambda n: arrays(bool, (n, 4, 5))),
    st.integers(1, 4).flatmap(lambda n: arrays(np.float64, (n, 4, 5), elements=st.floats(0, 1, width=32))),
    st.randoms(use_true_random=False),
)
def test_properties(raters, probs, random):
    want = score_case(raters, probs=probs, metrics=NAMES)
    for name in NAMES:
        low, high = info_of(name)["range"]
        assert math.isnan(want[name]) or low - 1e-12 <= want[name] <= high + 1e-12, name
    i, j = list(range(len(raters))), list(range(len(probs)))
    random.shuffle(i)
    random.shuffle(j)
    for other in (raters[i], raters.repeat(2, axis=0)):
        assert score_case(other, probs=probs, metrics=NAMES) == pytest.approx(want, abs=1e-9, nan_ok=True)
    stable = [n for n in NAMES if n not in ("consensus_dice", "fmeasure")]  # a threshold can fall on a rounded mean
    changed = score_case(raters, probs=probs[j].repeat(3, axis=0), metrics=stable)
    assert changed == pytest.approx({n: want[n] for n in stable}, abs=1e-9, nan_ok=True)
    single = score_case(raters, mean_prob=probs.sum(0) / len(probs), metrics=NAMES)
    assert single == pytest.approx(want, abs=1e-12, nan_ok=True)
    truth = score_case(raters[:1], mean_prob=raters[0].astype(float), metrics=NAMES)
    assert (truth["consensus_dice"], truth["volume_crps"]) == (1, 0)
    assert truth["mae"] == (1 if raters[0].all() else 0)  # a full map is constant, so it is scaled to 0


@pytest.mark.parametrize("variant", ["canonical", "curvas"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_batches_have_the_same_bits_and_inputs_are_left_alone(variant, dtype):
    rng = np.random.default_rng(43)
    given_ = {
        "raters": rng.integers(0, 3, (3, 2, 4, 6)),
        "probs": rng.dirichlet(np.ones(3), (3, 5, 4, 6)).transpose(0, 1, 4, 2, 3).astype(dtype),
        "valid": rng.random((3, 4, 6)) < 0.8,
    }
    before = {name: array.copy() for name, array in given_.items()}
    for array in given_.values():
        array.flags.writeable = False
    names = [*NAMES, *LISTS]
    frame = score_cases(**given_, classes=[1, 2], metrics=names, variant=variant)
    for i, row in enumerate(frame.to_dict("records")):
        alone = score_case(**{k: a[i] for k, a in given_.items()}, classes=[1, 2], metrics=names, variant=variant)
        assert str(row) == str(alone)
    assert all((before[name] == given_[name]).all() for name in given_)


def test_lists_over_classes_come_with_several_classes():
    mask = np.ones((1, 3, 3), bool)
    assert not set(LISTS) & set(score_case(mask, mask))
    assert set(LISTS) <= set(score_case(mask * 2, mask * 1, classes=[1, 2]))
    assert score_case(mask, mask, metrics=LISTS[:1]) == {LISTS[0]: [1]}
    gone = score_case(mask, mask, rater_valid=[False], metrics=[*NAMES, *LISTS], reasons=True)
    assert all(np.isnan(gone[name]).all() for name in [*NAMES, *LISTS])
    assert set(gone["reasons"]) == {*NAMES, *LISTS}


# -- pooled over a data set -----------------------------------------------------------------------------


def slow_pooled(pairs):
    """Micro IoU over all labels and Cohen's kappa, from lists of (label of the rater, label of the map)."""
    n = len(pairs)
    labels = {v for pair in pairs for v in pair}
    hits = sum(a == b for a, b in pairs)
    sides = sum(sum(label in pair for pair in pairs) for label in labels)
    observed = Fraction(hits, n)
    chance = sum(Fraction(sum(a == k for a, _ in pairs) * sum(b == k for _, b in pairs), n * n) for k in labels)
    kappa = math.nan if chance == 1 else float((observed - chance) / (1 - chance))
    return float(Fraction(hits, sides)), kappa


@pytest.mark.parametrize("kind", ["personal labels", "personal probs", "common"])
@pytest.mark.parametrize("several", [False, True])
def test_pooled_agreement(kind, several):
    rng = np.random.default_rng(44)
    for _ in range(12):
        views, pairs = [], [[] for _ in range(3)]
        for _ in range(3):
            shape = (3, int(rng.integers(2, 6)))
            raters = rng.integers(0, 3 if several else 2, (3, *shape))
            probs = rng.dirichlet(np.full(3 if several else 2, 0.3), (3, *shape)).transpose(0, 3, 1, 2)
            kept = np.array([rng.random() < 0.8, rng.random() < 0.8, False])
            options = {"classes": [1, 2] if several else [1], "rater_valid": kept}
            maps = probs.argmax(1)
            if kind == "personal labels":
                options["rater_probs"] = maps
            elif kind == "personal probs":
                options["rater_probs"] = probs
            else:
                options["mean_prob"] = probs[0]
                maps = np.broadcast_to(probs[0].argmax(0), maps.shape)
            valid = rng.random(shape) < 0.8
            valid.flat[0] = True
            views.append(read_case(raters, valid=valid, **options))
            for r in np.flatnonzero(kept):
                pairs[r] += zip(raters[r][valid].tolist(), maps[r][valid].tolist(), strict=True)
        want = [slow_pooled(p) if p else (math.nan, math.nan) for p in pairs]
        assert pooled_micro_miou(views, "pionono") == pytest.approx([w[0] for w in want], nan_ok=True)
        assert pooled_cohens_kappa(views, "pionono") == pytest.approx([w[1] for w in want], nan_ok=True, abs=1e-12)
        assert math.isnan(pooled_dice_rater(views)[2])


def test_pooled_cases_one_at_a_time():
    mask = np.zeros((2, 2, 4), bool)
    mask[0, 0], mask[1, 0, :2] = True, True
    view = read_case(mask, rater_probs=np.stack([mask[0], mask[0]]).astype(float))
    empty = read_case(np.zeros((2, 3, 3), bool), rater_probs=np.zeros((2, 3, 3)))
    nobody = read_case(mask, rater_probs=mask * 1.0, rater_valid=[False, False])
    pool = Pool("pionono")
    assert pool.dice_rater() == pool.micro_miou() == pool.cohens_kappa() == []
    for one in (nobody, view, empty):
        pool.add(one)
    assert pool.dice_rater() == pytest.approx([1, (4 + 1e-4) / (6 + 1e-4)])  # smoothing of the released function
    assert pool.micro_miou() == pytest.approx([1, 15 / (2 * 17 - 15)])
    assert pool.cohens_kappa()[0] == 1
    assert pooled_dice_rater([view, empty]) == pytest.approx([1, 2 / 3])
    assert np.isnan(pooled_cohens_kappa([empty])).all()  # one label only
    assert pooled_micro_miou([empty]) == [1, 1]
    with pytest.raises(UserError, match="pionono"):
        Pool("pionon")


def test_metadata():
    found = {n for n in list_metrics() if info_of(n)["section"] == "9"} - {"sample_nll", "entropy_mean"}
    assert found == {*NAMES, *LISTS}
    assert all(info_of(n)["values"] == "class" for n in LISTS)
    assert info_of("mae")["direction"] == info_of("volume_crps")["direction"] == "lower"
