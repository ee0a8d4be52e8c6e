"""The nodule census of LIDC: which outlines belong together, and how much the readers disagree."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from multirater.datasets.contours import Volume, load_contours, rasterise
from multirater.datasets.lidc_cases import choose_slices, slots_of
from multirater.datasets.lidc_contours import LidcContours
from multirater.datasets.nodules import Nodule, group_nodules, reading_group

TABLE = load_contours()


@pytest.fixture(scope="module")
def volumes() -> dict[int, Volume]:
    return rasterise(TABLE)


@pytest.fixture(scope="module")
def nodules(volumes) -> list[Nodule]:
    return group_nodules(TABLE, volumes)


def groups_of(nodule: Nodule) -> list[str]:
    return [reading_group(TABLE.annotation_mark[a].decode()) for a in nodule.annotations]


def test_census(nodules) -> None:
    assert Counter(len(n.annotations) for n in nodules) == {1: 804, 2: 490, 3: 483, 4: 899, 5: 6}
    assert sum(len(n.annotations) for n in nodules) == 6859
    four = [n for n in nodules if len(n.annotations) == 4]
    assert len({TABLE.scan_patient[n.scan] for n in four}) == 556
    unresolved = [n for n in nodules if len(n.annotations) == 5]
    assert sorted(TABLE.scan_patient[n.scan] for n in unresolved) == [92, 252, 332, 366, 863, 865]
    assert all((TABLE.annotation_scan[list(n.annotations)] == n.scan).all() for n in nodules)


def test_reading_groups_of_four_reader_nodules(nodules) -> None:
    four = [n for n in nodules if len(n.annotations) == 4]
    forms = Counter("".join(sorted(groups_of(n))) for n in four)
    assert {form: forms[form] for form in ("IMNS", "ILLN", "LMNS")} == {"IMNS": 166, "ILLN": 163, "LMNS": 24}
    assert forms["LLNS"] == 350
    assert forms["LLLS"] == 182
    identified = [n for n in four if sorted(groups_of(n)) == ["I", "M", "N", "S"]]
    assert len({TABLE.scan_patient[n.scan] for n in identified}) == 96


def test_no_annotation_is_empty_and_empty_slices_are_not_drawn(volumes) -> None:
    assert all(v.voxels.any() for v in volumes.values())
    pairs = np.unique(np.stack([TABLE.contour_annotation, TABLE.contour_slice], 1), axis=0).tolist()
    assert sum(not volumes[a].voxels[z - volumes[a].origin[0]].any() for a, z in pairs) == 119


@pytest.mark.parametrize(
    ("options", "cases", "patients"),
    [
        ({"set": "mid"}, 898, 556),
        ({"set": "all4"}, 5090, 556),
        ({"set": "any"}, 6739, 556),
        ({"set": "group4"}, 1127, 96),
        ({"set": "mid", "identity": "group"}, 166, 96),
        ({"set": "mm-patients"}, 2800, None),
        ({"set": "detect"}, 15_980, None),
    ],
)
def test_sizes_of_the_sets(volumes, nodules, monkeypatch, options, cases, patients) -> None:
    monkeypatch.setattr("multirater.datasets.lidc_cases.group_nodules", lambda *_: nodules)
    chosen = list(LidcContours(**options)._select(TABLE, volumes))
    assert sum(len(nodule.slices) for _, nodule in chosen) == cases
    if patients:
        assert len({patient for patient, _ in chosen}) == patients
    assert all(nodule.areas[:, nodule.slices].any(0).all() for _, nodule in chosen)


def test_readers_disagree_as_measured_on_the_middle_slices(volumes, nodules, monkeypatch) -> None:
    monkeypatch.setattr("multirater.datasets.lidc_cases.group_nodules", lambda *_: nodules)
    dice, iou = [], []
    for _, cases in LidcContours(set="mid")._select(TABLE, volumes):
        (index,) = cases.slices
        assert cases.areas[:, index].all()
        masks = cases.masks()[:, index].reshape(4, -1).astype(np.float32)
        shared, sizes = masks @ masks.T, masks.sum(1)
        total = (sizes[:, None] + sizes)[np.triu_indices(4, 1)]
        shared = shared[np.triu_indices(4, 1)]
        dice.append(np.mean(2 * shared / total))
        iou.append(np.mean(shared / (total - shared)))
    assert np.mean(dice) == pytest.approx(0.839, abs=0.002)
    assert np.mean(iou) == pytest.approx(0.734, abs=0.002)


def test_group_effect_on_volume(volumes, nodules) -> None:
    """Where all four groups are known, I draws the smallest volumes and S the largest."""
    logs = []
    for nodule in nodules:
        groups = groups_of(nodule)
        if sorted(groups) == ["I", "M", "N", "S"]:
            size = {g: np.count_nonzero(volumes[a].voxels) for g, a in zip(groups, nodule.annotations, strict=True)}
            logs.append(np.log([size[g] for g in "IMNS"]))
    effect = np.mean(np.array(logs) - np.mean(logs, axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(effect, [-0.10, 0.01, 0.01, 0.09], atol=0.011)


def test_slices_of_the_sets() -> None:
    areas = np.array([[0, 3, 5, 5, 0, 1], [0, 3, 5, 4, 0, 0], [0, 3, 1, 5, 0, 0], [0, 3, 5, 2, 0, 0]])
    assert choose_slices(areas, "any") == [1, 2, 3, 5]
    assert choose_slices(areas, "all4") == [1, 2, 3]
    assert choose_slices(areas, "mid") == [2]  # slices 2 and 3 are equal: the first
    assert choose_slices(areas[:, 4:], "mid") == []


def test_slots_of_named_groups() -> None:
    names = ("I", "M", "N", "S", "L1", "L2")
    assert slots_of(["L", "S", "L", "N"], names) == [-1, -1, 3, 1, 0, 2]
    assert slots_of(["L", "L", "L", "S"], names) == [-1, -1, -1, 3, 0, 1]
    assert slots_of(["S", "O", "N", "N"], names) == [-1, -1, 2, 0, -1, -1]
