"""QUBIQ: a miniature of both archive generations with the quirks of the original files."""

from __future__ import annotations

import pickle
from functools import partial

import dataset_support
import nibabel
import numpy as np
import pytest
from dataset_support import opened
from multirater.core.errors import UserError

TRAIN, VAL = "training_data_v3_QC", "validation_data_qubiq2021_QC"
pytestmark = pytest.mark.usefixtures("own_cache")
qubiq = partial(opened, "qubiq")
refused = partial(dataset_support.refused, "qubiq")


def nii(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def blob(shape, side, dtype=np.float64):
    mask = np.zeros(shape, dtype)
    mask[2 : 2 + side, 3 : 5 + side] = 1
    return mask


def case(folder, image, masks, **kwargs):
    """masks: {(task, rater): array}"""
    nii(folder / "image.nii.gz", image, **kwargs)
    for (task, rater), mask in masks.items():
        nii(folder / f"task{task:02d}_seg{rater:02d}.nii.gz", mask, np.diag([2.0, 2.0, 2.0, 1.0]))


def brain_growth(root, archive=TRAIN, level="Training", numbers=(1, 2, 10)):
    draw = np.random.default_rng(0)
    for n in numbers:
        masks = {(1, r): blob((24, 20), 3 + (n + r) % 5) for r in range(1, 8)}
        case(root / archive / "brain-growth" / level / f"case{n:02d}", draw.integers(0, 900, (24, 20)) + 0.5, masks)


def test_brain_growth(tmp_path):
    brain_growth(tmp_path)
    brain_growth(tmp_path, VAL, "Validation", (1,))
    nii(tmp_path / TRAIN / "brain-growth/Training/case02/task01_seg_majority.nii.gz", np.full((24, 20), 7.0))
    data = qubiq(tmp_path)
    assert [r.case_id for r in data.records] == ["train/case01", "train/case02", "train/case10", "val/case01"]
    described = data.describe()
    assert described.raters == 7
    assert described.rater_ids[0] == "brain-growth/01/01"
    assert (described.identity, described.size, described.channels) == ("consistent", (20, 24), 1)
    image, masks, valid = data.arrays([1])
    assert valid.all()
    for r in range(1, 8):
        np.testing.assert_array_equal(masks[0, r - 1], blob((24, 20), 3 + (2 + r) % 5).T)
    stored = np.asarray(nibabel.load(tmp_path / TRAIN / "brain-growth/Training/case02/image.nii.gz").dataobj).T
    low, high = np.percentile(stored, [0.5, 99.5])
    np.testing.assert_allclose(image[0, 0], np.clip((stored - low) / (high - low), 0, 1), atol=1e-6)
    assert not data.describe().has_missing


@pytest.mark.parametrize("archive", ["training_data_v2", "training_data_v3", "training_data_v3_QC", "mine"])
def test_every_generation_and_level_of_the_archives(tmp_path, archive):
    brain_growth(tmp_path, archive)
    whole = qubiq(tmp_path)
    for root in (tmp_path / archive, tmp_path / archive / "brain-growth", tmp_path / archive / "brain-growth/Training"):
        assert qubiq(root).fingerprint == whole.fingerprint
    refused(tmp_path, "no case of the QUBIQ set 'kidney'", set="kidney")


def test_the_size_left_out(tmp_path):
    """Prostate images differ in size, so something must be chosen; the pickle's 128 pixels are kept."""
    brain_growth(tmp_path)
    assert qubiq(tmp_path, size="auto").describe().size == (256, 256)
    _matting(tmp_path / "brain_growth_alpha.pkl")
    assert qubiq(tmp_path, size="auto", preparation="matting").describe().size == (128, 128)


def test_two_generations_at_once_are_refused(tmp_path):
    brain_growth(tmp_path, "training_data_v2")
    brain_growth(tmp_path, "training_data_v3_QC")
    refused(tmp_path, "'train/case01' is there twice, as .*training_data_v2.*training_data_v3_QC")


def test_absent_is_not_empty(tmp_path):
    masks = {(1, r): np.ones((20, 20)) for r in (1, 2, 3, 4, 6)} | {(2, r): np.zeros((20, 20)) for r in range(1, 7)}
    masks[1, 2] *= 0
    case(tmp_path / TRAIN / "prostate/Training/case01", np.eye(20), masks)
    first = qubiq(tmp_path, set="prostate")
    _, found, valid = first.arrays([0])
    assert valid[0].tolist() == [True, True, True, True, False, True]
    assert found[0].reshape(6, -1).sum(1).tolist() == [400, 0, 400, 400, 0, 400]
    second = qubiq(tmp_path, set="prostate", task=2)
    assert second.arrays([0])[2].all()
    both = qubiq(tmp_path, set="prostate", task="all")
    assert both.arrays([0])[1].shape == (1, 6, 2, 20, 20)
    assert both.arrays([0])[2][0].tolist() == [True, True, True, True, False, True]
    assert both.describe().overlapping
    assert both.describe().rater_ids[5] == "prostate/all/06"


def test_a_case_without_masks_is_left_out_and_named(tmp_path):
    brain_growth(tmp_path)
    brain_growth(tmp_path, "QUBIQ21_test", "Testing", (4,))
    for file in (tmp_path / "QUBIQ21_test").rglob("task*"):
        file.unlink()
    data = qubiq(tmp_path)
    assert len(data) == 3
    assert data.leftovers()["left_out"] == ["test/case04"]
    refused(tmp_path / "QUBIQ21_test", "1 cases, but no mask of task 1")


@pytest.mark.parametrize("last", [True, False])
def test_the_sequences_of_a_tumour_may_be_either_axis(tmp_path, last):
    draw = np.random.default_rng(1)
    image = draw.integers(0, 255, (4, 24, 24)).astype(np.uint8)
    masks = {(t, r): blob((24, 24), 9 - 2 * t + r, np.uint8) for t in (1, 2, 3) for r in (1, 2, 3)}
    case(tmp_path / TRAIN / "brain-tumor/Training/case01", np.moveaxis(image, 0, 2) if last else image, masks)
    data = qubiq(tmp_path, set="brain-tumor", task="all", size=None)
    found, labels, _ = data.arrays([0])
    np.testing.assert_allclose(found[0], image.swapaxes(1, 2) / 255, rtol=1e-6)
    assert labels.shape == (1, 3, 3, 24, 24)
    np.testing.assert_array_equal(labels[0, 1, 2], masks[3, 2].T)
    assert data.store.meta["class_names"] == ["whole tumour", "tumour core", "enhancing tumour"]
    one = qubiq(tmp_path, set="brain-tumor", task=2)
    np.testing.assert_array_equal(one.arrays([0])[1][0, 0], masks[2, 1].T)
    assert one.describe().classes == 1
    assert one.describe().rater_ids == ("brain-tumor/02/01", "brain-tumor/02/02", "brain-tumor/02/03")


def test_a_mask_is_transposed_only_if_that_makes_it_fit(tmp_path):
    mask = blob((24, 16), 4)
    masks = {(1, 1): mask, (1, 2): mask.T, (1, 3): mask[:, :, None], (1, 4): mask[None]}
    case(tmp_path / TRAIN / "prostate/Training/case01", np.eye(24, 16)[:, :, None], masks)
    _, found, valid = qubiq(tmp_path, set="prostate").arrays([0])
    assert valid[0].tolist() == [True] * 4 + [False] * 2
    for r in range(4):
        np.testing.assert_array_equal(found[0, r], mask.T)
    nii(tmp_path / TRAIN / "prostate/Training/case01/task01_seg05.nii.gz", blob((24, 24), 4))
    refused(tmp_path, r"task01_seg05\.nii\.gz has 24×24 pixels, but its image .* has 24×16", set="prostate")


def test_ct_is_windowed(tmp_path):
    image = np.linspace(-1024, 1051, 400).reshape(20, 20)
    case(tmp_path / TRAIN / "kidney/Training/case01", image, {(1, r): blob((20, 20), 4) for r in (1, 2, 3)})
    found = qubiq(tmp_path, set="kidney").arrays([0])[0][0, 0]
    np.testing.assert_allclose(found, np.clip((image.T + 160) / 400, 0, 1), atol=1e-6)
    wide = qubiq(tmp_path, set="kidney", window=[-1024, 1051]).arrays([0])[0][0, 0]
    np.testing.assert_allclose(wide, (image.T + 1024) / 2075, atol=1e-6)


def test_pancreas_has_no_level_and_slices_first(tmp_path):
    draw = np.random.default_rng(2)
    volumes = {}
    for k, j in ((1, 1), (1, 2), (2, 1), (3, 1)):
        depth = 5 + k
        image = draw.integers(-1000, 1000, (depth, 16, 16)).astype(np.int16)
        masks = np.zeros((2, depth, 16, 16), np.uint8)
        masks[0, 1:3, 4:9, 5:9] = 1
        masks[1, 2, 4:9, 5:9] = 1
        volumes[f"train/case{k}-{j}"] = image, masks
        folder = tmp_path / TRAIN / "pancreas" / f"case{k}-{j}"
        nii(folder / "image.nii.gz", image)
        nii(folder / "task01_seg01.nii.gz", masks[0])
        nii(folder / "task01_seg02.nii.gz", masks[1].transpose(2, 1, 0))  # as another library would order it
    data = qubiq(tmp_path, set="pancreas")
    assert len(data) == 6 + 6 + 7 + 8
    for name, (image, masks) in volumes.items():
        rows = [i for i, r in enumerate(data.records) if r.meta["volume"] == name]
        assert [data.records[i].meta["slice"] for i in rows] == list(range(len(image)))
        found, labels, _ = data.arrays(rows)
        np.testing.assert_allclose(found[:, 0], np.clip((image + 160.0) / 400, 0, 1), atol=1e-6)
        np.testing.assert_array_equal(labels.swapaxes(0, 1)[0], masks[0])
        np.testing.assert_array_equal(labels.swapaxes(0, 1)[1], masks[1])
    assert {r.patient_id for r in data.records} == {"case1", "case2", "case3"}
    assert {r.meta["part"] for r in data.records} == {"train"}


def test_volumes_train_on_slices_with_foreground_and_test_on_all(tmp_path):
    for n in range(1, 9):
        masks = np.zeros((6, 16, 16), np.uint8)
        masks[2:4, 4:9, 5:9] = 1
        for rater in (1, 2):
            nii(tmp_path / TRAIN / f"pancreas/case{n}-1/task01_seg{rater:02d}.nii.gz", masks)
        nii(tmp_path / TRAIN / f"pancreas/case{n}-1/image.nii.gz", masks.astype(np.float32))
    drawn, every = (qubiq(tmp_path, set="pancreas", train_slices=k) for k in ("foreground", "all"))
    assert drawn.fingerprint == every.fingerprint
    assert drawn.cache_folder == every.cache_folder
    some, whole = drawn.split(0), every.split(0)
    assert len(some.train) * 3 == len(whole.train) > 0
    assert {drawn.records[i].meta["slice"] for i in some.train} == {2, 3}
    np.testing.assert_array_equal(some.test, whole.test)
    np.testing.assert_array_equal(some.val, whole.val)
    assert len(some.test) % 6 == 0
    assert some.hash != whole.hash


def test_the_challenge_split(tmp_path):
    brain_growth(tmp_path, numbers=range(1, 18))
    refused_split = qubiq(tmp_path, split="compat")
    with pytest.raises(UserError, match="needs the official val part"):
        refused_split.split(0)
    brain_growth(tmp_path, VAL, "Validation", range(1, 4))
    split = qubiq(tmp_path, split="compat").split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (15, 2, 3)
    assert not split.shared
    brain_growth(tmp_path, "QUBIQ21_test", "Testing", range(1, 3))
    split = qubiq(tmp_path, split="compat").split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (17, 3, 2)


def test_wrong_files_and_options(tmp_path):
    brain_growth(tmp_path, numbers=(1,))
    folder = tmp_path / TRAIN / "brain-growth/Training/case01"
    refused(tmp_path, r"task = 2 does not exist.*tasks 1 to 1", task=2)
    refused(tmp_path, "holds the set brain-growth only", preparation="matting", set="kidney")
    refused(tmp_path, "two rising numbers", window=[3, 1])
    nii(folder / "task01_seg03.nii.gz", blob((24, 20), 4) * 2)
    refused(tmp_path, r"task01_seg03\.nii\.gz holds the value 2")
    nii(folder / "task01_seg03.nii.gz", blob((24, 20), 4) * 255)
    assert qubiq(tmp_path).arrays([0])[1].max() == 1
    nii(folder / "task01_seg08.nii.gz", blob((24, 20), 4))
    refused(tmp_path, r"task01_seg08\.nii\.gz is not expected")
    (folder / "task01_seg08.nii.gz").unlink()
    (folder / "image.nii.gz").write_bytes((folder / "image.nii.gz").read_bytes()[:90])
    refused(tmp_path, r"image\.nii\.gz is damaged")
    (folder / "image.nii.gz").unlink()
    refused(tmp_path, r"case01 holds masks, but no image\.nii\.gz")


def _matting(path, cases=3, **changes):
    draw = np.random.default_rng(3)
    content = {}
    for n in range(cases):
        mask = [(draw.random((128, 128)) < 0.3).astype(np.uint8) for _ in range(7)]
        image = draw.integers(0, 256, (128, 128)).astype(np.uint8)
        content[f"sample{n}"] = {
            "image": image, "masks": mask, "series_uid": f"{n}_slice0", "alpha": image, "extra": 1, **changes,
        }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return content


def test_the_matting_pickle(tmp_path):
    content = _matting(tmp_path / "dataset/brain_growth_alpha.pkl")
    data = qubiq(tmp_path, preparation="matting")
    assert [r.case_id for r in data.records] == list(content)
    images, masks, valid = data.arrays(range(3))
    assert valid.all()
    for i, sample in enumerate(content.values()):
        np.testing.assert_allclose(images[i, 0], sample["image"] / 255, rtol=1e-6)
        np.testing.assert_array_equal(masks[i], sample["masks"])
    assert data.describe().identity == "consistent"
    with pytest.raises(UserError, match="needs the official train part"):
        qubiq(tmp_path, preparation="matting", split="compat").split(0)


def test_a_wrong_or_malicious_matting_pickle(tmp_path):
    path = tmp_path / "brain_growth_alpha.pkl"
    refused(tmp_path, r"holds no files brain_growth_alpha\.pkl", preparation="matting")
    _matting(path, masks=[np.zeros((128, 128), np.uint8)] * 4)
    refused(tmp_path, r"brain_growth_alpha\.pkl holds case 'sample0' with masks: 4", preparation="matting")
    _matting(path, masks=[np.full((128, 128), 2, np.uint8)] * 7)
    refused(tmp_path, "holds the value 2", preparation="matting")
    _matting(path, masks=[np.zeros((64, 64), np.uint8)] * 7)
    refused(tmp_path, "a mask of 64×64 for an image of 128×128", preparation="matting")
    _matting(path, image="nothing")
    refused(tmp_path, "expected is a 2D array", preparation="matting")
    path.write_bytes(pickle.dumps([1, 2]))
    refused(tmp_path, "no dict of cases", preparation="matting")
    path.write_bytes(pickle.dumps({"two\nlines": {"image": 0, "masks": []}}))
    refused(tmp_path, "a case named '.*'; an id is a short line of text", preparation="matting")

    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("hit").touch, ())

    path.write_bytes(pickle.dumps({"a": Evil()}))
    refused(tmp_path, "is refused", preparation="matting")
    assert not (tmp_path / "hit").exists()
