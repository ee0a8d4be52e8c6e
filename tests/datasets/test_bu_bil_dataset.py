"""BU-BIL: black cells on white, several tools a person, copies of the gold standard."""

from __future__ import annotations

from functools import partial

import dataset_support
import numpy as np
import pytest
from dataset_support import opened
from PIL import Image

SHAPE = (18, 22)
FIVE = [f"Person{p}_{tool}" for p in range(1, 6) for tool in ("Amira", "ImageJ")]
pytestmark = pytest.mark.usefixtures("own_cache")
bu_bil = partial(opened, "bu-bil")
refused = partial(dataset_support.refused, "bu-bil")


def cell(*axes):
    mask = np.zeros(SHAPE, np.uint8)
    side = np.random.default_rng([ord(c) for c in "".join(axes)]).integers(3, 9)
    mask[3 : 3 + side, 4 : 5 + side] = 1
    return mask


def save(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)


def library(root, number="1", half="", raters=FIVE, cases=("B01", "B02", "B10"), folder="ExpertsAnnotations"):
    """Masks white with a black cell, colour or grey; one folder in another spelling."""
    base = root / f"BU-BIL_Dataset{number}"
    for case in cases:
        image = np.random.default_rng(len(case)).integers(0, 255, SHAPE, dtype=np.uint8)
        save(base / "RawImages" / f"{case}.png", image)
        for rater in raters:
            prefix = "Seg" if rater == "Person3_ImageJ" else "seg"
            mode = "RGB" if rater.endswith("ImageJ") else "L"
            save(base / folder / half / rater / f"{prefix}_{case}.png", 255 * (1 - cell(rater, case)), mode)
            save(base / "GoldStandard" / f"seg_{case}.png", 255 * (1 - cell("gold", case)), "1")
    save(base / "CrowdsourcedAnnotations/mturk_annotation1-1/seg_B01.png", np.zeros((5, 5), np.uint8), "RGBA")


def test_set_1(tmp_path):
    library(tmp_path)
    data = bu_bil(tmp_path, set=1)
    ids = [f"Person{p}_ImageJ" for p in (1, 3, 4, 5)]  # Person2 is the gold standard
    assert list(data.describe().rater_ids) == ids
    assert data.describe().identity == "consistent"
    images, masks, valid = data.arrays(range(3))
    assert valid.all()
    for i, case in enumerate(("B01", "B02", "B10")):
        np.testing.assert_array_equal(masks[i], [cell(rater, case) for rater in ids])
    stored = np.asarray(Image.open(tmp_path / "BU-BIL_Dataset1/RawImages/B01.png"))
    np.testing.assert_array_equal(images[0, 0], stored.astype(np.float32) / np.float32(255))
    assert bu_bil(tmp_path / "BU-BIL_Dataset1").fingerprint == data.fingerprint
    everything = bu_bil(tmp_path, tool="all", copies="keep")
    assert list(everything.describe().rater_ids) == FIVE
    assert "copy the gold standard" in everything.full_notice


def test_the_halves_of_set_2(tmp_path):
    library(tmp_path, "2", "2A", cases=("P01", "P02"))
    three = [f"Person{p}_{tool}" for p in (1, 2, 3) for tool in ("Amira", "ImageJ", "ImCell")]
    library(tmp_path, "2", "2B", three, ("Chian1_01", "Chian2_01"))
    a, b = (bu_bil(tmp_path, set=name, tool="Amira") for name in ("2A", "2B"))
    assert [r.case_id for r in a.records] == ["P01", "P02"]
    assert [r.case_id for r in b.records] == ["Chian1_01", "Chian2_01"]
    assert b.describe().rater_ids == ("Person1_Amira", "Person2_Amira")
    np.testing.assert_array_equal(b.arrays([1])[1][0, 0], cell("Person1_Amira", "Chian2_01"))
    assert bu_bil(tmp_path, set="2B", tool="ImCell").describe().raters == 3


def test_a_missing_mask_is_absent_and_a_grey_pixel_is_stray(tmp_path):
    library(tmp_path)
    folder = tmp_path / "BU-BIL_Dataset1/ExpertsAnnotations"
    (folder / "Person4_ImageJ/seg_B02.png").unlink()
    data = bu_bil(tmp_path)
    assert data.store.rater_valid.tolist() == [[True] * 4, [True, True, False, True], [True] * 4]
    large = np.full((40, 40), 255, np.uint8)
    large[:8, :8] = 0
    large[20, 20] = 24  # seen in Person5_Amira/seg_B04.png
    for rater in ("Person1", "Person3", "Person4", "Person5"):
        save(folder / f"{rater}_ImageJ/{'Seg' if rater == 'Person3' else 'seg'}_B01.png", large)
    save(tmp_path / "BU-BIL_Dataset1/RawImages/B01.png", large.astype(np.uint16) * 200)
    assert bu_bil(tmp_path, size=40).arrays([0])[1].sum() == 4 * 65
    save(folder / "Person1_ImageJ/seg_B01.png", np.linspace(0, 255, 1600).reshape(40, 40).astype(np.uint8))
    refused(tmp_path, r"Person1_ImageJ/seg_B01\.png holds \d+ pixels of other values than 0 and 255", size=40)


def test_files_that_are_wrong(tmp_path):
    refused(tmp_path, r"holds no masks of tool ImageJ such as BU-BIL_Dataset1/ExpertsAnnotations/Person1_Amira")
    refused(tmp_path, r"dataset\.set = 4 is not allowed: choose 1, 2A, 2B, 3", set=4)
    library(tmp_path)
    (tmp_path / "BU-BIL_Dataset1/RawImages/B02.png").unlink()
    refused(tmp_path, r"seg_B02\.png has no picture in RawImages")
    save(tmp_path / "BU-BIL_Dataset1/RawImages/B02.png", np.zeros((9, 9), np.uint8))
    refused(tmp_path, r"seg_B02\.png has 18×22 pixels, but its image .*B02\.png has 9×9", size=16)
