"""`lidc-contours` as a data set: sizes, splits, rater identities, options, what a user may get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import lidc_cases, lidc_contours, open_dataset
from multirater.datasets.contours import load_contours, rasterise
from multirater.datasets.lidc_cases import NoduleCases
from multirater.datasets.nodules import Nodule
from multirater.datasets.simulated_ct import simulate

NOTICE = "masks: LIDC readers; image: simulated (recipe v1)"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for the module, so that the full set is built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield patch


@pytest.fixture(scope="module")
def mid(cache):
    return open_dataset("lidc-contours", size=64, identity="by_area")


def twin(dataset, **options):
    """The same prepared arrays under another identity or split."""
    return open_dataset("lidc-contours", **{"size": 64, **options})


def distance_between_raters(masks: np.ndarray) -> float:
    """Mean of 1 - IoU over all ordered pairs, self pairs included: the label-label term of GED."""
    flat = masks.reshape(*masks.shape[:2], -1).astype(np.float32)
    shared = flat @ flat.swapaxes(1, 2)
    size = flat.sum(2)
    union = size[:, :, None] + size[:, None] - shared
    return float(np.mean(1 - np.where(union > 0, shared / np.maximum(union, 1), 1)))


def test_mid_has_898_cases_split_by_patient(mid) -> None:
    assert len(mid) == 898
    split = mid.split()
    assert [len(part) for part in (split.train, split.val, split.test)] == [563, 88, 247]
    patients = np.array([record.patient_id for record in mid.records])
    parts = [set(patients[part]) for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 556
    assert len({record.case_id for record in mid.records}) == 898


def test_four_folds_test_every_case_once(mid) -> None:
    folds = twin(mid, split="cv4")
    tested = np.concatenate([folds.split(fold).test for fold in range(4)])
    np.testing.assert_array_equal(np.sort(tested), np.arange(898))
    with pytest.raises(UserError, match="fold 1 does not exist"):
        mid.split(1)


def test_readers_differ_by_the_published_amount(mid) -> None:
    masks = mid.store.masks
    assert distance_between_raters(masks) == pytest.approx(0.200, abs=0.001)
    assert distance_between_raters(masks[mid.split().test]) == pytest.approx(0.199, abs=0.001)


def test_masks_are_the_same_with_every_version_of_the_rasteriser(mid) -> None:
    assert mid.store.meta["masks_sha256"] == "2dd2a728624945500dd17c2ed3185adf1579fc50a9d0d1286d9e1b602c523041"


def test_description_and_records(mid) -> None:
    data = mid.describe()
    assert (data.name, data.channels, data.classes, data.raters, data.size) == ("lidc-contours", 1, 1, 4, (64, 64))
    assert data.rater_ids == ("area1", "area2", "area3", "area4")
    assert (data.identity, data.has_missing) == ("derived", False)
    case, record = mid.load(0), mid.records[0]
    assert (case.image.shape, case.image.dtype, case.masks.shape, case.masks.dtype) == (
        (1, 64, 64),
        np.float32,
        (4, 64, 64),
        np.uint8,
    )
    assert case.rater_valid.all()
    assert 0.4 < record.spacing[0] < 1
    assert record.source == mid.notice == NOTICE
    assert record.meta["simulated"] is True
    assert len(record.meta["annotations"]) == 4


def test_areas_in_the_records_are_those_of_the_masks(mid) -> None:
    stored = mid.store.masks.sum((2, 3))
    areas = np.array([record.meta["areas"] for record in mid.records])
    assert (stored <= areas).all()
    assert np.mean(stored == areas) > 0.98  # the few others reach beyond the 64 frame


def test_by_area_sorts_volumes_and_by_area_slice_sorts_slices(mid) -> None:
    order, *_ = mid.rater_order(mid.store)
    volumes = np.array([record.meta["volumes"] for record in mid.records])
    assert (np.diff(np.take_along_axis(volumes, order, 1), axis=1) >= 0).all()
    per_slice = twin(mid, identity="by_area_slice")
    assert per_slice.cache_folder == mid.cache_folder
    order, _, identity = per_slice.rater_order(per_slice.store)
    areas = np.array([record.meta["areas"] for record in mid.records])
    assert (np.diff(np.take_along_axis(areas, order, 1), axis=1) >= 0).all()
    assert identity == "derived"
    ties = np.array([len(set(a)) < 4 for a in areas.tolist()])
    assert ties.any()
    tied, stored = np.take_along_axis(areas, order, 1)[ties], order[ties]
    equal = np.diff(tied, axis=1) == 0
    assert (np.diff(stored, axis=1)[equal] > 0).all()  # equals keep the stored order


def test_none_permutes_per_nodule_and_as_stored_does_not(mid) -> None:
    anonymous, stored = twin(mid, identity="none"), twin(mid, identity="as_stored")
    order, names, identity = anonymous.rater_order(anonymous.store)
    again, *_ = twin(mid, identity="none").rater_order(anonymous.store)
    np.testing.assert_array_equal(order, again)
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    counts = np.stack([np.bincount(column, minlength=4) for column in order.T])
    assert counts.min() > 898 / 4 * 0.75  # every reader in every slot
    assert (names, identity) == (("1", "2", "3", "4"), "none")
    assert (stored.rater_order(stored.store)[0] == np.arange(4)).all()
    assert stored.describe().identity == "none"
    case = anonymous.load(5)
    np.testing.assert_array_equal(case.masks, stored.load(5).masks[order[5]])


def test_group_sparse_leaves_unknown_groups_missing(mid) -> None:
    sparse = twin(mid, identity="group_sparse")
    data = sparse.describe()
    assert (data.rater_ids, data.identity, data.has_missing) == (("I", "M", "N", "S", "L1", "L2"), "consistent", True)
    index = next(i for i, r in enumerate(sparse.records) if sorted(r.meta["groups"]) == ["L", "L", "N", "S"])
    case, groups = sparse.load(index), sparse.records[index].meta["groups"]
    assert case.rater_valid.tolist() == [False, False, True, True, True, True]
    assert not case.masks[:2].any()
    stored = sparse.store.masks[index]
    np.testing.assert_array_equal(case.masks[2], stored[groups.index("N")])
    np.testing.assert_array_equal(case.masks[4], stored[groups.index("L")])
    _, _, valid = sparse.arrays(np.arange(len(sparse)))
    assert valid.any(1).all()
    assert valid.sum() == 4 * 898 - 181 - 11 - 2 - 1  # a third L of LLLS and LLLN, a second N and S, one of no group


def nodule_of(record) -> Nodule:
    table = load_contours()
    rows = np.flatnonzero(np.isin(table.annotation_id, record.meta["annotations"])).tolist()
    return Nodule(int(table.annotation_scan[rows[0]]), tuple(rows))


def test_small_images_are_the_centre_of_large_ones(mid) -> None:
    table, nodule = load_contours(), nodule_of(mid.records[10])
    volumes = rasterise(table, nodule.annotations)
    cases = NoduleCases.of(table, nodule, mid.records[10].meta["groups"], volumes, "mid")
    (index,) = cases.slices
    whole = cases.masks()
    np.testing.assert_array_equal(mid.store.masks[10], whole[:, index, 32:96, 32:96])
    np.testing.assert_array_equal(mid.store.images[10, 0], simulate(cases.scene, whole, index)[32:96, 32:96])


@pytest.fixture
def few(mid, monkeypatch):
    """Let data sets be built from three nodules: fully identified, of forms L, L, N, S, and one of two readers."""
    by_form = {"".join(sorted(record.meta["groups"])): record for record in mid.records}
    identified, mixed = nodule_of(by_form["IMNS"]), nodule_of(by_form["LLNS"])
    pair = nodule_of(by_form["LMNS"])
    nodules = [identified, mixed, Nodule(pair.scan, pair.annotations[:2])]
    rows = [a for n in nodules for a in n.annotations]
    monkeypatch.setattr(lidc_cases, "group_nodules", lambda *_: nodules)
    monkeypatch.setattr(lidc_contours, "rasterise", lambda table: rasterise(table, rows))

    def open_few(tmp_path, **options):
        monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path))
        return open_dataset("lidc-contours", **options)

    return open_few


def test_group_takes_the_identified_nodules_in_the_order_of_the_groups(few, tmp_path) -> None:
    data = few(tmp_path, identity="group")
    assert data.options["set"] == "group4"
    assert data.describe().rater_ids == ("I", "M", "N", "S")
    assert data.describe().identity == "consistent"
    groups = data.records[0].meta["groups"]
    case = data.load(len(data) // 2)
    for slot, group in enumerate("IMNS"):
        np.testing.assert_array_equal(case.masks[slot], data.store.masks[len(data) // 2][groups.index(group)])
    middle = few(tmp_path, identity="group", set="mid")
    assert len(middle) == 1
    assert middle.cache_folder != few(tmp_path, identity="none", set="mid").cache_folder


def test_detect_shows_absent_readers_as_empty_masks(few, tmp_path) -> None:
    data = few(tmp_path, set="detect", identity="as_stored")
    assert len({record.meta["nodule"] for record in data.records}) == 3
    single = [i for i, record in enumerate(data.records) if len(record.meta["annotations"]) == 2]
    _, masks, valid = data.arrays(single)
    assert valid.all()
    assert not masks[:, 2:].any()
    assert masks[:, :2].any((1, 2, 3)).all()
    areas = np.array([record.meta["areas"] for record in data.records])
    assert (areas.any(1)).all()
    assert [record.meta["drawn"] for record in data.records] == np.count_nonzero(areas, axis=1).tolist()


def test_personas_replace_the_readers_and_leave_the_image(few, tmp_path) -> None:
    made, real = few(tmp_path, identity="persona"), few(tmp_path, identity="as_stored")
    assert made.describe().identity == "synthetic"
    assert made.describe().rater_ids == ("strict", "majority", "generous", "smooth")
    assert "synthetic personas" in made.notice
    assert made.notice == made.records[0].source
    np.testing.assert_array_equal(made.store.images, real.store.images)
    areas = made.store.masks.sum((2, 3))
    assert (areas[:, 0] < areas[:, 2]).all()
    assert made.fingerprint != real.fingerprint


def test_same_options_same_bytes(few, tmp_path) -> None:
    seen: list[tuple[int, int, str]] = []
    first = few(tmp_path / "a", set="all4", partial_volume=True)
    first.prepare(lambda *step: seen.append(step))
    second = few(tmp_path / "b", set="all4", partial_volume=True)
    for name in ("images.npy", "masks.npy", "cases.json", "meta.json"):
        paths = [d.prepare() / name for d in (first, second)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name
    assert first.fingerprint == second.fingerprint
    assert seen[-1] == (len(first), len(first), "simulating images")


def test_a_case_is_the_same_in_every_set(few, tmp_path) -> None:
    everything, middle = few(tmp_path, set="any"), few(tmp_path, set="mid")
    position = {record.case_id: i for i, record in enumerate(everything.records)}
    for i, record in enumerate(middle.records):
        np.testing.assert_array_equal(middle.store.images[i], everything.store.images[position[record.case_id]])


def test_ambiguity_changes_images_and_fingerprint_but_not_masks(few, tmp_path) -> None:
    linked, unlinked = few(tmp_path), few(tmp_path, ambiguity=0)
    assert np.abs(linked.store.images - unlinked.store.images).max() > 0.02
    np.testing.assert_array_equal(linked.store.masks, unlinked.store.masks)
    assert linked.fingerprint != unlinked.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set": "middle"}, "dataset.set = 'middle' is not allowed"),
        ({"identity": "area"}, "dataset.identity = 'area' is not allowed"),
        ({"size": 96}, "dataset.size = 96 is not allowed"),
        ({"ambiguity": -1.0}, "give a number from 0 to 5"),
        ({"rater_order": "by_area"}, "rater_order"),
    ],
)
def test_wrong_options_are_refused_with_one_sentence(options, message) -> None:
    with pytest.raises(UserError, match=message) as error:
        open_dataset("lidc-contours", **options)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cases"), [("all4", 5090), ("any", 6739), ("detect", 15_980)])
def test_large_sets_build(name: str, cases: int, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path))
    data = open_dataset("lidc-contours", set=name, size=64, identity="by_area")
    assert len(data) == cases
    _, masks, valid = data.arrays(np.arange(0, cases, 50))
    assert valid.all()
    assert masks.max() == 1
    assert np.isfinite(data.store.images[:: cases // 20]).all()
