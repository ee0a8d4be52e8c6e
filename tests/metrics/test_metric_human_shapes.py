"""Human baselines of volumes, class maps, missing raters and pixels that do not count, from the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from multirater.metrics import human_case
from multirater.metrics.human import _draws, places

PER_RATER = ("human.loo_majority_dice", "human.loo_mean_dice", "human.loo_ged")


def close(got, want, where):
    for name, value in want.items():
        assert got[name] == pytest.approx(float(value), abs=1e-9, nan_ok=True), (where, name)


@pytest.mark.parametrize("seed", range(3))
def test_volumes_with_missing_raters_and_pixels(reference, seed):
    rng = np.random.default_rng(seed)
    shape = (3, 4, 5)
    for trial in range(10):
        raters = reference.random_masks(rng, 6, shape)
        present = rng.random(6) < 0.8
        present[:2] = True
        valid = rng.random(shape) < 0.8
        for given, inside in (({}, np.ones(shape, bool)), ({"valid": valid}, valid)):
            got = human_case(raters, 3, rater_valid=present, **given)
            y = [reference.pixels(m[inside]) for m in raters[present]]
            close(got, reference.human_metrics(y, range(int(inside.sum()))), (seed, trial))
            for name in PER_RATER:
                each = np.array(got[name + ".each"])
                assert np.isnan(each).tolist() == (~present).tolist()
                assert each[present].mean() == pytest.approx(got[name], abs=1e-12)


@pytest.mark.parametrize("shape", [(5, 5), (2, 4, 3)])
def test_class_maps(reference, shape):
    """Similarities of label maps are means over the list of classes; class 3 may be absent."""
    rng = np.random.default_rng(len(shape))
    classes = (1, 2, 3)
    for trial in range(12):
        labels = np.zeros((int(rng.integers(2, 6)), *shape), int)
        for label in classes[: int(rng.integers(1, 4))]:
            labels[reference.random_masks(rng, len(labels), shape)] = label
        got = human_case(labels, 2, classes=classes)
        y = [tuple(reference.pixels(m == c) for c in classes) for m in labels]
        everywhere = range(math.prod(shape))
        dice, iou = reference.over_classes(reference.dice), reference.over_classes(reference.iou)
        one = [reference.human_metrics([m[k] for m in y], everywhere) for k in range(3)]
        want = {
            name: reference.mean(values[name] for values in one)
            for name in ("human.loo_majority_dice", "human.loo_mean_dice", "human.loo_soft_dice", "human.loo_ged")
        }
        want["human.split_ged"] = reference.mean(values["human.split_ged"] for values in one)
        rest = [[q for j, q in enumerate(y) if j != i] for i in range(len(y))]
        want["human.loo_max_dice"] = reference.mean(
            max(dice(m, q) for q in others) for m, others in zip(y, rest, strict=True)
        )
        want["human.oracle_ged"] = reference.mean(1 - iou(a, b) for a in y for b in y) / 2
        close(got, want, trial)

        vectors, times = _draws(len(y), 2, "")
        for name, alike, value in (
            ("human.oracle_dice_match", dice, lambda draw, y=y, dice=dice: reference.distinct(draw, y, dice)),
            ("human.oracle_hm_iou", iou, lambda draw, y=y, iou=iou: reference.matched(draw, y, iou)),
        ):
            rows = vectors[:, places(np.array([[float(alike(a, b)) for b in y] for a in y]))]
            draws = [list(itertools.chain(*([m] * n for m, n in zip(y, row, strict=True)))) for row in rows]
            values = [value(draw) for draw in draws]
            if None not in values:
                assert got[name] == pytest.approx(np.average([float(v) for v in values], weights=times), abs=1e-9)


def test_two_raters_and_empty_ones():
    a = np.zeros((2, 3, 4, 4), bool)
    both_empty = human_case(a, 4)
    for name in ("human.loo_majority_dice", "human.loo_mean_dice", "human.loo_max_dice", "human.loo_soft_dice"):
        assert both_empty[name] == 1
    assert both_empty["human.loo_ged"] == both_empty["human.oracle_ged"] == 0
    a[0, 1] = True
    one_empty = human_case(a, 4)
    assert one_empty["human.loo_mean_dice"] == 0
    assert one_empty["human.loo_ged"] == 2
    assert one_empty["human.oracle_ged"] == pytest.approx(0.5 / 4)
    assert math.isnan(one_empty["human.split_ged"])
