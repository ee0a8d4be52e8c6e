"""CURVAS 2024 and CURVAS-PDACVI: a miniature with the reported faults of the original files."""

from __future__ import annotations

import gzip
from functools import partial

import nibabel
import numpy as np
import pytest
from dataset_support import one_sentence, write_volume
from multirater.core.errors import UserError
from multirater.datasets import open_dataset

SHAPE = (6, 16, 16)
AFFINE = np.array([[-0.7, 0, 0, 90], [0, -0.7, 0, 80], [0, 0, 1.0, -500], [0, 0, 0, 1]])
pytestmark = pytest.mark.usefixtures("own_cache")
nii = partial(write_volume, affine=AFFINE)


def organs(reader):
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2 : 3 + reader, 3:9] = 1
    mask[2:5, 8:12, 1 : 3 + reader] = 2
    mask[1:5, 8:12, 9:14] = 3
    return mask


def hounsfield(seed):
    return np.random.default_rng(seed).integers(-1000, 1200, SHAPE).astype(np.int16)


def case(root, part, number, readers=3):
    folder = root / f"{part}_set" / f"UKCHLL{number:03d}"
    nii(folder / "image.nii.gz", hounsfield(number))
    for reader in range(1, readers + 1):
        nii(folder / f"annotation_{reader}.nii.gz", organs(reader))
    return folder


def curvas(root, name="curvas24", **options):
    return open_dataset(name, root=str(root), **{"size": None, **options})


def refused(root, match, **options):
    with one_sentence(match):
        curvas(root, **options).prepare()


def rows_of(data, volume):
    return [i for i, r in enumerate(data.records) if r.meta["volume"] == volume]


def test_classes_window_and_parts(tmp_path):
    for number, part in ((1, "training"), (21, "validation"), (26, "testing")):
        case(tmp_path, part, number)
    data = curvas(tmp_path)
    described = data.describe()
    assert (described.raters, described.classes, described.identity) == (3, 3, "consistent")
    assert data.store.meta["class_names"] == ["pancreas", "kidney", "liver"]
    images, masks, valid = data.arrays(rows_of(data, "UKCHLL021"))
    assert valid.all()
    np.testing.assert_allclose(images[:, 0], np.clip((hounsfield(21) + 160.0) / 400, 0, 1), atol=1e-6)
    for reader in (1, 2, 3):
        np.testing.assert_array_equal(masks[:, reader - 1], organs(reader))
    assert data.records[0].spacing == pytest.approx([1.0, 0.7, 0.7])
    split = curvas(tmp_path, split="compat").split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (4, 6, 6)  # 4 slices with organs
    assert data.full_notice == ""
    assert open_dataset("curvas", root=str(tmp_path)).name == "curvas24"
    with pytest.raises(UserError, match="needs the official val part"):
        curvas(tmp_path / "training_set", split="compat").split(0)


def test_slices_are_resized_and_thinned(tmp_path):
    case(tmp_path, "training", 1)
    data = curvas(tmp_path, size=8, slice_step=2, window=[-1000, 1200])
    images, masks, _ = data.arrays(range(3))
    assert images.shape == (3, 1, 8, 8)
    for k in range(3):
        np.testing.assert_array_equal(masks[k, 1], organs(2)[2 * k][1::2, 1::2])
    assert data.records[0].spacing == pytest.approx([2.0, 1.4, 1.4])
    assert images.mean() == pytest.approx(((hounsfield(1)[::2] + 1000) / 2200).mean(), abs=0.02)


def test_the_odd_header_of_case_007(tmp_path):
    """Reader 2's file gives 0.7 mm between slices and another origin; its voxels lie on the image's all the same."""
    folder = case(tmp_path, "testing", 7)
    odd = AFFINE.copy()
    odd[2] = [0, 0, 0.7, 528]
    nii(folder / "annotation_2.nii.gz", organs(2), affine=odd)
    data = curvas(tmp_path)
    np.testing.assert_array_equal(data.arrays(range(6))[1][:, 1], organs(2))
    assert data.records[0].meta["header_differs"] == ["annotation_2.nii.gz"]
    assert data.records[0].spacing == pytest.approx([1.0, 0.7, 0.7])


def test_the_empty_pancreas_of_case_082(tmp_path):
    case(tmp_path, "testing", 81)
    folder = case(tmp_path, "testing", 82)
    nii(folder / "annotation_3.nii.gz", np.where(organs(3) == 1, 0, organs(3)).astype(np.uint8))
    kept = curvas(tmp_path)
    _, masks, valid = kept.arrays(rows_of(kept, "UKCHLL082"))
    assert valid.all()  # who drew the other organs saw the case
    assert not (masks[:, 2] == 1).any()
    assert (masks[:, 0] == 1).any()
    assert "UKCHLL082: reader 3 left out the pancreas" in kept.full_notice
    dropped = curvas(tmp_path, faulty="drop")
    assert {r.meta["volume"] for r in dropped.records} == {"UKCHLL081"}
    assert dropped.full_notice == ""


def test_scaled_labels(tmp_path):
    """Some masks carry a slope, so that their codes are near-integers."""
    folder = case(tmp_path, "training", 1)
    path = folder / "annotation_1.nii.gz"
    slope = 3 / 32767
    nii(path, np.rint(organs(1) / slope).astype(np.int16))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[112:120] = np.array([slope, 0], "<f4").tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))
    stored = np.asarray(nibabel.load(path).dataobj)
    assert not np.isin(stored, [0, 1, 2, 3]).all()
    np.testing.assert_array_equal(curvas(tmp_path).arrays(range(6))[1][:, 0], organs(1))


def test_values_are_asserted(tmp_path):
    folder = case(tmp_path, "training", 1)
    nii(folder / "annotation_2.nii.gz", organs(2) + 2)
    refused(tmp_path, r"annotation_2\.nii\.gz holds the value [45]; a mask of this data set holds only 0, 1, 2, 3")


def test_wrong_files(tmp_path):
    refused(tmp_path, "holds no {training,validation,testing}_set")
    folder = case(tmp_path, "training", 1)
    refused(tmp_path, "two rising numbers", window=[1, 1])
    (folder / "annotation_3.nii.gz").unlink()
    assert curvas(tmp_path).arrays([0])[2].tolist() == [[True, True, False]]
    nii(folder / "annotation_4.nii.gz", organs(1))
    refused(tmp_path, r"annotation_4\.nii\.gz is not expected: the readers are 1, 2, 3")
    (folder / "annotation_4.nii.gz").unlink()
    case(tmp_path, "testing", 1)
    refused(tmp_path, "case 'UKCHLL001' is there twice")
    (tmp_path / "testing_set/UKCHLL001/image.nii.gz").unlink()
    refused(tmp_path, r"lies in a folder without image\.nii\.gz")
    image = folder / "image.nii.gz"
    for file in (tmp_path / "testing_set/UKCHLL001").iterdir():
        file.unlink()
    image.write_bytes(image.read_bytes()[:-200])
    refused(tmp_path, r"image\.nii\.gz is damaged")


def test_pdacvi(tmp_path):
    for number in (1, 2):
        folder = tmp_path / f"100{number}"
        nii(folder / "image.nii.gz", hounsfield(number))
        for reader in range(1, 6):
            nii(folder / f"annotation_{reader}.nii.gz", (organs(reader) == 1).astype(np.uint8))
    data = curvas(tmp_path, "curvas-pdacvi")
    assert data.describe().rater_ids == ("1", "2", "3", "4", "5")
    assert data.describe().classes == 1
    np.testing.assert_array_equal(data.arrays(range(6))[1][:, 4], organs(5) == 1)
    assert "another protocol" in data.full_notice
    nii(tmp_path / "1001/annotation_1.nii.gz", organs(1))
    with pytest.raises(UserError, match=r"holds the value [23]"):
        curvas(tmp_path, "curvas-pdacvi").prepare()
