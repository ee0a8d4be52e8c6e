"""gmseg16, kits21, msseg2 and isbi2015: miniatures of their layouts."""

from __future__ import annotations

from functools import partial

import nibabel
import numpy as np
import pytest
from dataset_support import opened, refused, write_volume

AXIAL = np.diag([-0.5, -0.5, 4.0, 1.0])
SHAPE = (4, 20, 24)
pytestmark = pytest.mark.usefixtures("own_cache")
nii = partial(write_volume, affine=AXIAL)


def box(top, left, side, value=1, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[1:3, top : top + side, left : left + side] = value
    return mask


def image(seed, shape=SHAPE):
    return (np.random.default_rng(seed).random(shape) * 100 + 1).astype(np.float32)


def z_score(values):
    return (values - values.mean()) / values.std()


# -- gmseg16 ------------------------------------------------------------------------------------


def cord(reader):
    mask = box(6, 8, 9, 2)
    mask[1:3, 8 : 9 + reader, 10:14] = 1
    return mask


def subject(root, name, readers=(1, 2, 3, 4), **kwargs):
    nii(root / f"{name}-image.nii.gz", image(7), **kwargs)
    (root / f"{name}-levels.txt").write_text("1,2\n")
    for r in readers:
        nii(root / f"{name}-mask-r{r}.nii.gz", cord(r), **kwargs)


def test_gmseg16(tmp_path):
    subject(tmp_path / "train", "site1-sc01")
    subject(tmp_path / "train", "site2-sc10", (1, 2, 4))
    subject(tmp_path / "test", "site3-sc11", ())
    data = opened("gmseg16", tmp_path, field=None)
    assert [r.meta["volume"] for r in data.records[::4]] == ["site1-sc01", "site2-sc10"]
    assert data.leftovers()["left_out"] == ["site3-sc11"]
    described = data.describe()
    assert (described.raters, described.classes, described.identity) == (4, 2, "consistent")
    images, masks, valid = data.arrays(range(8))
    assert valid[0].all()
    assert valid[4].tolist() == [True, True, False, True]
    np.testing.assert_allclose(images[:4, 0], z_score(image(7)), atol=1e-4)
    for r in range(1, 5):
        np.testing.assert_array_equal(masks[:4, r - 1], cord(r))
    assert data.records[0].meta["site"] == "site1"


def test_the_middle_of_a_slice_has_one_pixel_size(tmp_path):
    """Sites of different resolution get the same field, so that a pixel means the same everywhere."""
    subject(tmp_path, "site1-sc01")
    subject(tmp_path, "site2-sc01", affine=np.diag([-0.25, -0.25, 4.0, 1.0]))
    data = opened("gmseg16", tmp_path, size=8, field=5.0)
    assert [r.spacing for r in data.records[::4]] == [pytest.approx([4.0, 0.625, 0.625])] * 2
    assert data.arrays([0])[1].shape == (1, 4, 8, 8)
    exact = opened("gmseg16", tmp_path, size=10, field=5.0)
    np.testing.assert_array_equal(exact.arrays(range(4))[1][:, 3], cord(4)[:, 5:15, 7:17])
    whole = opened("gmseg16", tmp_path, field=500)
    np.testing.assert_array_equal(whole.arrays(range(4))[1][:, 3], cord(4))


def test_gmseg16_wrong_files(tmp_path):
    refused("gmseg16", tmp_path, "holds no site")
    subject(tmp_path, "site1-sc01")
    nii(tmp_path / "site1-sc01-mask-r5.nii.gz", cord(1))
    refused("gmseg16", tmp_path, r"mask-r5\.nii\.gz is not expected")
    (tmp_path / "site1-sc01-mask-r5.nii.gz").unlink()
    nii(tmp_path / "site1-sc01-mask-r2.nii.gz", cord(1) * 2)
    refused("gmseg16", tmp_path, r"mask-r2\.nii\.gz holds the value 4")
    subject(tmp_path / "again", "site1-sc01")
    refused("gmseg16", tmp_path, "are the same file of one subject")
    (tmp_path / "site1-sc01-image.nii.gz").unlink()
    refused("gmseg16", tmp_path, "are the same file of one subject")
    for path in (tmp_path / "again").iterdir():
        path.unlink()
    refused("gmseg16", tmp_path, r"no site1-sc01-image\.nii\.gz")


# -- kits21 -------------------------------------------------------------------------------------

INSTANCES = {
    ("kidney", 1): [box(2, 2, 8), box(2, 2, 9), box(2, 2, 10)],
    ("kidney", 2): [box(2, 14, 4), box(2, 14, 5), box(2, 14, 6)],
    ("cyst", 1): [box(3, 3, 4), box(3, 3, 5), box(3, 3, 6)],
    ("tumor", 1): [box(5, 5, 3), box(5, 5, 4), box(5, 5, 5)],
}


def kits_case(folder, level="segmentations"):
    """Slices along the first axis, from head to feet in the header's terms turned, as the challenge stores them."""

    def save(path, slices):
        path.parent.mkdir(parents=True, exist_ok=True)
        affine = np.eye(4)
        affine[:3, :3] = np.array([[0, 0, -0.5], [0, -0.5, 0], [-4.0, 0, 0]])
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(slices[::-1]), affine), path)

    save(folder / "imaging.nii.gz", image(1) * 10 - 500)
    for (region, number), masks in INSTANCES.items():
        for k, mask in enumerate(masks, 1):
            save(folder / level / f"{region}_instance-{number}_annotation-{k}.nii.gz", mask)
    save(folder / "aggregated_MAJ_seg.nii.gz", INSTANCES["kidney", 1][0])


def combined(choice):
    """The class map when instance i takes annotation choice[i]."""
    found = np.zeros(SHAPE, np.uint8)
    for (region, number), masks in INSTANCES.items():
        found[masks[choice[region, number]] > 0] = {"kidney": 1, "cyst": 3, "tumor": 2}[region]
    return found


@pytest.mark.parametrize("level", ["segmentations", "instances"])
def test_kits21_by_number(tmp_path, level):
    kits_case(tmp_path / "data/case_00000", level)
    data = opened("kits21", tmp_path, combine="as_stored", identity="as_stored")
    images, masks, valid = data.arrays(range(4))
    assert valid.all()
    np.testing.assert_allclose(images[:, 0], np.clip((image(1) * 10 - 340) / 400, 0, 1), atol=1e-4)
    for slot in range(3):
        np.testing.assert_array_equal(masks[:, slot], combined(dict.fromkeys(INSTANCES, slot)))
    assert data.records[0].spacing == pytest.approx([4.0, 0.5, 0.5])
    assert data.store.meta["class_names"] == ["kidney", "tumour", "cyst"]
    assert opened("kits21", tmp_path).describe().identity == "none"


def test_kits21_combines_slots_at_random(tmp_path):
    """Each annotation of an instance is used once, by one slot; which one differs between instances and cases."""
    for n in range(6):
        kits_case(tmp_path / f"case_{n:05d}")
    data = opened("kits21", tmp_path, identity="as_stored")
    again = opened("kits21", tmp_path, identity="as_stored")
    choices = set()
    for n in range(6):
        masks = data.arrays(range(4 * n, 4 * n + 4))[1]
        np.testing.assert_array_equal(masks, again.arrays(range(4 * n, 4 * n + 4))[1])
        left, right = masks[:, :, :, :13], masks[:, :, :, 13:]
        order = [tuple(np.argsort(side.any((0, 2)).sum(-1))) for side in (left, right)]
        assert all(sorted(o) == [0, 1, 2] for o in order)
        choices.add(tuple(order))
    assert len(choices) > 2
    assert any(left != right for left, right in choices)


def test_kits21_wrong_files(tmp_path):
    refused("kits21", tmp_path, "holds no case_")
    kits_case(tmp_path / "case_00000")
    refused("kits21", tmp_path, "two rising numbers", window=[2, 1])
    (tmp_path / "case_00000/segmentations/cyst_instance-1_annotation-2.nii.gz").unlink()
    refused("kits21", tmp_path, r"has annotations \[1, 3\] of cyst instance 1")
    kits_case(tmp_path / "case_00000")
    (tmp_path / "case_00000/imaging.nii.gz").unlink()
    refused("kits21", tmp_path, r"has masks, but no imaging\.nii\.gz")


# -- msseg2 and isbi2015 --------------------------------------------------------------------------


def test_msseg2(tmp_path):
    for n, patient in enumerate(("013", "024")):
        for t in (1, 2):
            nii(tmp_path / patient / f"flair_time0{t}_on_middle_space.nii.gz", image(10 * n + t))
        for r in range(1, 5):
            nii(tmp_path / patient / f"ground_truth_expert{r}.nii.gz", box(2, 3, r) * (r != 2))
        nii(tmp_path / patient / "ground_truth.nii.gz", box(2, 3, 9))
    (tmp_path / "024/ground_truth_expert4.nii.gz").unlink()
    data = opened("msseg2", tmp_path)
    images, masks, valid = data.arrays(range(8))
    assert valid[0].tolist() == [True] * 4
    assert valid[4].tolist() == [True, True, True, False]
    for t in (1, 2):
        np.testing.assert_allclose(images[:4, t - 1], z_score(image(t)), atol=1e-4)
    assert masks[:4].sum((0, 2, 3)).tolist() == [2, 0, 18, 32]
    assert data.describe().identity == "consistent"
    (tmp_path / "013/flair_time02_on_middle_space.nii.gz").unlink()
    refused("msseg2", tmp_path, r"flair_time02_on_middle_space\.nii\.gz does not exist")
    refused("msseg2", tmp_path / "empty", "not a folder")


def test_isbi2015_keeps_the_visits_of_a_patient_together(tmp_path):
    for patient in range(1, 6):
        for visit in range(1, 5):
            stem = f"training{patient:02d}"
            for c, sequence in enumerate(("flair", "mprage", "t2", "pd")):
                nii(tmp_path / stem / f"preprocessed/{stem}_{visit:02d}_{sequence}_pp.nii", image(c))
            for r in (1, 2):
                nii(tmp_path / stem / f"masks/{stem}_{visit:02d}_mask{r}.nii", box(2, 3, 3 + r))
    data = opened("isbi2015", tmp_path, sequences=["flair", "pd"])
    assert len(data) == 5 * 4 * 4
    assert len({r.patient_id for r in data.records}) == 5
    images, masks, _ = data.arrays(range(4))
    np.testing.assert_allclose(images[:, 1], z_score(image(3)), atol=1e-4)
    np.testing.assert_array_equal(masks[:, 1], box(2, 3, 5))
    for fold in range(4):
        split = data.split(fold)
        parts = [{data.records[i].patient_id for i in rows} for rows in (split.train, split.val, split.test)]
        assert not parts[0] & (parts[1] | parts[2])
    nii(tmp_path / "training01/masks/training01_01_mask3.nii", box(2, 3, 3))
    refused("isbi2015", tmp_path, r"mask3\.nii is not expected: the raters are 1, 2")
    refused("isbi2015", tmp_path, "name each sequence once", sequences=[])
