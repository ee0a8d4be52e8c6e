"""The metrics against a slow reference written from the definitions, on several hundred generated cases."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from multirater.metrics import human_case, list_metrics, score_case
from multirater.metrics.registry import info_of

SHAPES = [(4, 5), (6, 6), (3, 4, 3)]


def agree(got, want, where):
    """All values of the reference at 1e-9; None means that the reference could not be computed."""
    for name, value in want.items():
        if value is None:
            continue
        value = float(value)
        assert got[name] == pytest.approx(value, abs=1e-9, nan_ok=True), (where, name)


@pytest.mark.parametrize("seed", range(12))
def test_sets_and_mean_map(reference, seed):
    rng = np.random.default_rng(seed)
    for trial in range(20):
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        raters = reference.random_masks(rng, int(rng.integers(1, 6)), shape)
        samples = reference.random_masks(rng, int(rng.integers(1, 7)), shape)
        got = score_case(raters, samples)
        y, s = [list(map(reference.pixels, masks)) for masks in (raters, samples)]
        agree(got, reference.set_metrics(s, y, range(math.prod(shape))), (seed, trial))


@pytest.mark.parametrize("seed", range(4))
def test_missing_raters_and_valid_pixels(reference, seed):
    rng = np.random.default_rng(100 + seed)
    for trial in range(15):
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        raters = reference.random_masks(rng, 5, shape)
        samples = reference.random_masks(rng, int(rng.integers(1, 5)), shape)
        present = rng.random(5) < 0.6
        present[int(rng.integers(5))] = True
        valid = rng.random(shape) < 0.7
        valid.flat[0] = True
        got = score_case(raters, samples, rater_valid=present, valid=valid)
        y = [reference.pixels(m[valid]) for m in raters[present]]
        s = [reference.pixels(m[valid]) for m in samples]
        agree(got, reference.set_metrics(s, y, range(int(valid.sum()))), (seed, trial))
        assert np.isnan(got["dice_rater.each"]).tolist() == (~present).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_personalised(reference, seed):
    rng = np.random.default_rng(200 + seed)
    for trial in range(15):
        count = int(rng.integers(1, 6))
        raters, maps = (reference.random_masks(rng, count, (6, 6)) for _ in range(2))
        if trial % 3 == 0:
            maps = np.roll(raters, trial % 2, axis=0)
        probs = np.where(maps, rng.uniform(0.51, 1, maps.shape), rng.uniform(0, 0.5, maps.shape))
        got = score_case(raters, rater_probs=probs)
        y, m = [list(map(reference.pixels, masks)) for masks in (raters, maps)]
        agree(got, reference.rater_metrics(m, y), (seed, trial))
        soft = np.mean(
            [
                [float(reference.dice(reference.pixels(p > float(t)), own)) for t in reference.FIVE]
                for p, own in zip(probs, y, strict=True)
            ]
        )
        assert got["dice_rater.soft"] == pytest.approx(soft, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_mean_of_probabilities(reference, seed):
    rng = np.random.default_rng(300 + seed)
    for _ in range(15):
        raters = reference.random_masks(rng, int(rng.integers(1, 6)), (6, 6))
        probs = rng.random((int(rng.integers(1, 6)), 6, 6))
        probs[:, rng.random((6, 6)) < 0.5] = 0
        got = score_case(raters, probs=probs)
        mean = [sum(map(Fraction, column.tolist())) / len(probs) for column in probs.reshape(len(probs), -1).T]
        y = list(map(reference.pixels, raters))
        everywhere = range(36)
        above = [frozenset(x for x in everywhere if mean[x] > float(t)) for t in reference.FIVE]
        want = [
            reference.dice(a, reference.passing(y, t, everywhere)) for a, t in zip(above, reference.FIVE, strict=True)
        ]
        assert got["dice_soft"] == pytest.approx(float(reference.mean(want)), abs=1e-9)
        share = [Fraction(sum(x in m for m in y), len(y)) for x in everywhere]
        total = sum(mean) + sum(share)
        continuous = 2 * sum(a * b for a, b in zip(mean, share, strict=True)) / total if total else 1
        assert got["dice_continuous"] == pytest.approx(float(continuous), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_several_classes(reference, seed):
    rng = np.random.default_rng(400 + seed)
    for trial in range(12):
        maps = []
        for count in (int(rng.integers(1, 5)), int(rng.integers(1, 5))):
            labels = np.zeros((count, 6, 6), int)
            for label in (1, 2, 3):
                labels[reference.random_masks(rng, count, (6, 6)) & (rng.random((count, 1, 1)) < 0.6)] = label
            maps.append(labels)
        raters, samples = maps
        got = score_case(raters, samples, classes=[1, 2, 3])
        y, s = [[tuple(reference.pixels(m == c) for c in (1, 2, 3)) for m in labels] for labels in maps]
        iou, dice = reference.over_classes(reference.iou), reference.over_classes(reference.dice)
        per_class = [reference.energy([a[k] for a in s], [b[k] for b in y], reference.iou) for k in range(3)]
        want = {
            "ged": reference.energy(s, y, iou),
            "ged.dice": reference.energy(s, y, dice),
            "ged.ustat": reference.energy(s, y, iou, exclude_samples=True, exclude_raters=True),
            "hm_iou": reference.matched(s, y, iou),
            "dice_match": reference.distinct(s, y, dice),
            "dice_max_rater_to_sample": reference.mean(max(dice(b, a) for a in s) for b in y),
            "dice_soft": reference.mean(
                reference.soft([a[k] for a in s], [b[k] for b in y], reference.dice, reference.FIVE, range(36))
                for k in range(3)
            ),
            "empty_share_samples": reference.mean(Fraction(not m) for a in s for m in a),
        }
        agree(got, want, (seed, trial))
        assert got["ged.per_class"] == pytest.approx([float(v) for v in per_class], abs=1e-9)
        assert got["ged"] == pytest.approx(float(reference.mean(per_class)), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_human(reference, seed):
    rng = np.random.default_rng(500 + seed)
    for trial in range(8):
        raters = reference.random_masks(rng, int(rng.integers(2, 6)), (5, 5))
        y = list(map(reference.pixels, raters))
        got = human_case(raters, n_samples=4)
        agree(got, reference.human_metrics(y, range(25)), (seed, trial))
        v_r = reference.mean(1 - reference.iou(a, b) for a in y for b in y)
        assert got["human.oracle_ged"] == pytest.approx(float(v_r) / 4, abs=1e-9)


def test_reference_assignment_is_right(reference):
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5):
        matrix = [[Fraction(int(v), 100) for v in row] for row in rng.integers(0, 100, (size, size))]
        assert reference.best_assignment(matrix) == reference.by_all_permutations(matrix)


def test_reference_covers_the_metrics(reference):
    """Each metric of these sections is in one of the reference's tables, or is a list of its values."""
    mask = [frozenset({0, 1}), frozenset({1})]
    covered = {
        *reference.set_metrics(mask, mask, range(2)),
        *reference.rater_metrics(mask, mask),
        *reference.human_metrics(mask, range(2)),
        "human.oracle_ged",
        "dice_rater.soft",  # compared in test_personalised
        "human.oracle_dice_match",  # compared in test_metric_human
        "human.oracle_hm_iou",
        "dice_each",  # only in the variants of D-Persona
    }
    scalars = {n for n in list_metrics() if info_of(n)["values"] == "scalar" and info_of(n)["section"] < "5"}
    scalars -= {n for n in scalars if info_of(n)["section"] in ("2.5", "2.6", "2.7")}  # have their own references
    human = {n for n in list_metrics() if n.startswith("human.") and info_of(n)["values"] == "scalar"}
    assert scalars | human <= covered
