"""MSSEG 2016: miniatures of both deliveries."""

from __future__ import annotations

from functools import partial

import dataset_support
import nibabel
import numpy as np
import pytest
from dataset_support import opened, write_volume
from multirater.core.errors import UserError

AXIAL = np.diag([-0.5, -0.5, 3.0, 1.0])
SEQUENCES = ("FLAIR", "T1", "GADO", "T2", "DP")
FLAT = {"FLAIR": "3DFLAIR", "T1": "3DT1", "GADO": "3DT1GADO", "T2": "T2", "DP": "DP"}
pytestmark = pytest.mark.usefixtures("own_cache")
msseg = partial(opened, "msseg16")
refused = partial(dataset_support.refused, "msseg16")
nii = partial(write_volume, affine=AXIAL)


def volumes(seed, shape=(6, 16, 16)):
    draw = np.random.default_rng(seed)
    images = {s: (draw.random(shape) * 100 + 1).astype(np.float32) for s in SEQUENCES}
    for image in images.values():
        image[:, :3] = 0
    masks = {}
    for r in range(1, 8):
        mask = np.zeros(shape, np.uint8)
        mask[2:4, 5 : 6 + r, 6:10] = 1
        masks[r] = mask
    return images, masks


def by_centre(root, part, centre, patient, seed, **kwargs):
    images, masks = volumes(seed)
    folder = root / part / f"Center_{centre:02d}" / f"Patient_{patient:02d}"
    for r, mask in masks.items():
        nii(folder / f"Masks/ManualSegmentation_{r}.nii.gz", mask, **kwargs)
    nii(folder / "Masks/Consensus.nii.gz", masks[3])
    nii(folder / "Masks/Brain_Mask.nii.gz", masks[3])
    for s, image in images.items():
        nii(folder / f"Preprocessed_Data/{s}_preprocessed.nii.gz", image)
        nii(folder / f"Raw_Data/{s}.nii.gz", image + 1 if s == "FLAIR" else image[:-1])
    return folder


def flat(root, name, seed, suffix=".nii"):
    images, masks = volumes(seed)
    for r, mask in masks.items():
        nii(root / name / f"ManualSegmentation_{r}{suffix}", mask)
    nii(root / name / f"Consensus{suffix}", masks[3])
    for s, image in images.items():
        nii(root / name / f"{FLAT[s]}{suffix}", image)
    (root / name / "elastix.log").write_text("x")
    return root / name


def z_score(image):
    inside = image[image != 0]
    return (image - inside.mean()) / inside.std()


def test_delivery_by_centre(tmp_path):
    by_centre(tmp_path, "Training", 1, 1, 0)
    by_centre(tmp_path, "Testing", 3, 2, 1)
    data = msseg(tmp_path)
    assert {r.meta["volume"] for r in data.records} == {
        "Training/Center_01/Patient_01", "Testing/Center_03/Patient_02",
    }  # fmt: skip
    described = data.describe()
    assert (described.raters, described.rater_ids, described.identity) == (7, tuple("1234567"), "consistent")
    rows = [i for i, r in enumerate(data.records) if r.meta["part"] == "train"]
    found, labels, valid = data.arrays(rows)
    images, masks = volumes(0)
    assert valid.all()
    for c, s in enumerate(("FLAIR", "T1", "T2")):
        np.testing.assert_allclose(found[:, c], z_score(images[s]), atol=1e-4)
    for r in range(1, 8):
        np.testing.assert_array_equal(labels[:, r - 1], masks[r])
    assert data.records[0].spacing == pytest.approx([3.0, 0.5, 0.5])
    assert "header_differs" not in data.records[0].meta


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_flat_delivery(tmp_path, suffix):
    flat(tmp_path / "MSSEG-1", "01016SACH", 0, suffix)
    flat(tmp_path / "MSSEG-1 test", "01045BRPO_1", 1, suffix)
    data = msseg(tmp_path, sequences=["T2", "GADO", "DP", "T1", "FLAIR"])
    assert [r.meta["volume"] for r in data.records[::6]] == ["MSSEG-1 test/01045BRPO_1", "MSSEG-1/01016SACH"]
    images, masks = volumes(0)
    found, labels, _ = data.arrays(range(6, 12))
    np.testing.assert_allclose(found[:, 1], z_score(images["GADO"]), atol=1e-4)
    np.testing.assert_array_equal(labels[:, 6], masks[7])
    assert [r.meta.get("part") for r in data.records[::6]] == ["test", None]
    assert len(msseg(tmp_path, split="compat").split(0).test) == 6


def test_a_sagittal_scan_is_cut_axially(tmp_path):
    """Slices are axial whatever the scanner's order; a mask of another order is turned to its image."""
    folder = by_centre(tmp_path, "Training", 1, 1, 0)
    expected = msseg(tmp_path).arrays(range(6))
    sagittal = np.zeros((4, 4))
    sagittal[:3, :3] = np.diag([-0.5, -0.5, 3.0])[:, [1, 2, 0]]
    sagittal[3, 3] = 1
    for path in [*folder.rglob("*_preprocessed.nii.gz"), *folder.rglob("ManualSegmentation_[1-4].nii.gz")]:
        values = np.asarray(nibabel.load(path).dataobj).transpose(1, 2, 0)
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(values), sagittal), path)
    found = msseg(tmp_path).arrays(range(6))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_absent_and_empty(tmp_path):
    """A test patient has voxels by some experts only; an expert without a file is missing."""
    folder = by_centre(tmp_path, "Testing", 7, 1, 0)
    for r in (2, 3, 4):
        nii(folder / f"Masks/ManualSegmentation_{r}.nii.gz", np.zeros((6, 16, 16), np.uint8))
    (folder / "Masks/ManualSegmentation_5.nii.gz").unlink()
    data = msseg(tmp_path)
    _, labels, valid = data.arrays(range(6))
    assert (valid == [True, True, True, True, False, True, True]).all()
    assert labels.any((0, 2, 3)).tolist() == [True, False, False, False, False, True, True]


def test_the_challenge_split(tmp_path):
    for centre in (1, 2):
        for patient in (1, 2, 3):
            by_centre(tmp_path, "Training", centre, patient, patient)
    by_centre(tmp_path, "Testing", 3, 1, 0)
    data = msseg(tmp_path, split="compat", sequences=["FLAIR"])
    split = data.split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (5 * 2, 6, 6)
    assert {data.records[i].meta["volume"] for i in split.test} == {"Testing/Center_03/Patient_01"}
    assert {data.records[i].meta["slice"] for i in split.train} == {2, 3}
    with pytest.raises(UserError, match="needs the official test part"):
        msseg(tmp_path / "Training", split="compat", sequences=["FLAIR"]).split(0)
    with pytest.raises(UserError, match="all found are test patients"):
        msseg(tmp_path / "Testing", split="compat", sequences=["FLAIR"]).split(0)


def test_wrong_files(tmp_path):
    refused(tmp_path, "holds no ManualSegmentation")
    folder = by_centre(tmp_path, "Training", 1, 1, 0)
    refused(tmp_path, "name each sequence once", sequences=["T1", "T1"])
    refused(tmp_path, r"T1\.nii\.gz has 16×16×5 voxels, but its image .*FLAIR\.nii\.gz has 16×16×6", images="raw")
    raw = msseg(tmp_path, images="raw", sequences=["FLAIR"])
    np.testing.assert_allclose(raw.arrays(range(6))[0][:, 0], z_score(volumes(0)[0]["FLAIR"] + 1), atol=1e-4)
    mask = folder / "Masks/ManualSegmentation_2.nii.gz"
    nii(mask, volumes(0)[1][2] * 3)
    refused(tmp_path, r"ManualSegmentation_2\.nii\.gz holds the value 3")
    nii(mask, volumes(0)[1][2][:, :, 1:])
    refused(tmp_path, r"ManualSegmentation_2\.nii\.gz has 15×16×6 voxels")
    mask.write_bytes(b"")
    refused(tmp_path, r"ManualSegmentation_2\.nii\.gz is damaged")
    mask.unlink()
    nii(folder / "Masks/ManualSegmentation_8.nii.gz", volumes(0)[1][2])
    refused(tmp_path, r"ManualSegmentation_8\.nii\.gz is not expected")
    (folder / "Masks/ManualSegmentation_8.nii.gz").unlink()
    nii(folder / "Masks/ManualSegmentation_1.nii", volumes(0)[1][1])
    refused(tmp_path, r"ManualSegmentation_1\.nii\.gz lies beside ManualSegmentation_1\.nii; keep one")
    (folder / "Masks/ManualSegmentation_1.nii").unlink()
    (folder / "Preprocessed_Data/T1_preprocessed.nii.gz").unlink()
    refused(tmp_path, r"T1_preprocessed\.nii\.gz does not exist")
    assert msseg(tmp_path, sequences=["FLAIR"]).prepare()
