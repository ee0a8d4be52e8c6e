"""RIGA in MR-Net's DiscRegion form: tables with backslashes, grey masks, the fault of resizing first."""

from __future__ import annotations

import csv
from functools import partial

import dataset_support
import numpy as np
import pytest
from dataset_support import opened
from multirater.core.errors import UserError
from PIL import Image

SHAPE = (32, 32)
COLUMNS = "imgName maskName label center xmin ymin xmax ymax width height discFlag rater".split()
pytestmark = pytest.mark.usefixtures("own_cache")
riga = partial(opened, "riga")
refused = partial(dataset_support.refused, "riga")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def mask_of(n, rater):
    """Background 0, rim of the disc 128, cup 255."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(y - 15, x - 16 + n % 3)
    mask = np.zeros(SHAPE, np.uint8)
    mask[distance < 8 + rater] = 128
    mask[distance < 3 + rater / 2] = 255
    return mask


def image_of(n):
    return np.random.default_rng(n).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)


def discregion(root, source, numbers, raters=range(7), shuffled=True):
    """A table in gbk whose rows lie in no order, paths with backslashes, a nameless index column."""
    rows = []
    for n in numbers:
        image = f"DiscRegion\\{source}\\img{n}prime.tif"
        save(root / image.replace("\\", "/"), image_of(n))
        for r in raters:
            folder = "FinalLabel" if r == 0 else f"Rater{r}"
            name = f"DiscRegion\\{source}\\{folder}\\img{n}-1.tif"
            save(root / name.replace("\\", "/"), mask_of(n, r))
            rows.append([image, name, "青光眼", "(1, 2)", 0, 0, 9, 9, 9, 9, 1, r])
    if shuffled:
        np.random.default_rng(5).shuffle(rows)
    with open(root / f"Glaucoma_multirater_{source}.csv", "w", encoding="gbk", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["", *COLUMNS])
        writer.writerows([[i, *row] for i, row in enumerate(rows)])


@pytest.fixture
def root(tmp_path):
    discregion(tmp_path, "BinRushed", range(5))
    discregion(tmp_path, "MESSIDOR", range(10, 16))
    discregion(tmp_path, "Magrabia", range(20, 23))
    return tmp_path


def test_disc_and_cup_of_six_raters(root):
    data = riga(root)
    described = data.describe()
    assert (len(data), described.raters, described.classes, described.overlapping) == (14, 6, 2, True)
    assert (described.identity, described.rater_ids) == ("consistent", tuple("123456"))
    images, masks, valid = data.arrays(range(14))
    assert valid.all()
    for i, record in enumerate(data.records):
        n = int(record.case_id.rpartition("img")[2].removesuffix("prime"))
        np.testing.assert_array_equal(images[i], np.moveaxis(image_of(n), 2, 0).astype(np.float32) / np.float32(255))
        for r in range(6):
            stored = mask_of(n, r + 1)
            np.testing.assert_array_equal(masks[i, r], [stored > 0, stored == 255])
    assert data.records[0].case_id == "BinRushed/DiscRegion/BinRushed/img0prime"
    scaled = riga(root, intensity="imagenet").arrays([0])[0][0]
    np.testing.assert_allclose(scaled[1], (images[0, 1] - 0.456) / 0.224, atol=1e-5)


def test_published_split(root):
    data = riga(root, split="compat")
    split = data.split()
    assert {data.records[i].case_id.split("/")[0] for i in split.test} == {"Magrabia"}
    assert (len(split.train) + len(split.val), len(split.test)) == (11, 3)
    assert not split.shared
    assert "no validation part" in data.full_notice
    (root / "Glaucoma_multirater_Magrabia.csv").unlink()
    with pytest.raises(UserError, match="official test part"):
        riga(root, split="compat").split()
    assert len(riga(root)) == 11


def test_resizing_before_reading_the_classes_is_a_fault_that_can_be_had(root):
    """Cubic smoothing first: the cup loses its edge, and background at the disc's edge becomes disc."""
    right, wrong = riga(root, size=16), riga(root, size=16, resize="mrnet")
    assert right.fingerprint != wrong.fingerprint
    a, b = right.arrays(range(14))[1], wrong.arrays(range(14))[1]
    assert b[:, :, 1].sum() < 0.8 * a[:, :, 1].sum()
    assert b[:, :, 0].sum() > 1.1 * a[:, :, 0].sum()
    i = next(i for i, r in enumerate(right.records) if r.case_id.endswith("img2prime"))
    cubic = np.asarray(Image.fromarray(mask_of(2, 4)).resize((16, 16)))  # Pillow's default since version 7
    np.testing.assert_array_equal(b[i, 3], [cubic != 0, cubic / 255.0 == 1])
    image = np.asarray(Image.fromarray(image_of(2)).resize((16, 16)))
    np.testing.assert_array_equal(
        wrong.arrays([i])[0][0], np.moveaxis(image, 2, 0).astype(np.float32) / np.float32(255)
    )
    nearest = np.asarray(Image.fromarray(mask_of(2, 4)).resize((16, 16), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(a[i, 3], [nearest > 0, nearest == 255])
    assert "shrinks the cup" in wrong.full_notice


def test_a_rater_without_a_row_is_missing(tmp_path):
    discregion(tmp_path, "BinRushed", range(3))
    discregion(tmp_path, "MESSIDOR", range(10, 12), raters=(0, 1, 2, 5))
    valid = riga(tmp_path).store.rater_valid
    assert valid[:3].all()
    assert valid[3:].tolist() == [[True, True, False, False, True, False]] * 2


def test_files_that_are_wrong(tmp_path):
    refused(tmp_path, r"holds no Glaucoma_multirater_BinRushed\.csv")
    discregion(tmp_path, "BinRushed", range(3), shuffled=False)
    table = tmp_path / "Glaucoma_multirater_BinRushed.csv"
    text = table.read_text(encoding="gbk")
    mask = tmp_path / "DiscRegion/BinRushed/Rater3/img1-1.tif"
    save(mask, np.linspace(0, 255, 1024).reshape(SHAPE).astype(np.uint8))
    refused(tmp_path, r"Rater3/img1-1\.tif holds the values 0, 1, 2, .*one grey near 128")
    save(mask, np.zeros((8, 8), np.uint8))
    refused(tmp_path, r"Rater3/img1-1\.tif has 8×8 pixels, but its image .*32×32")
    mask.unlink()
    refused(tmp_path, r"Glaucoma_multirater_BinRushed\.csv names .*Rater3.*does not exist beside it")
    save(mask, mask_of(1, 3))
    for old, new, match in (
        ("DiscRegion\\BinRushed\\img2prime.tif", "..\\..\\secret.tif", "which does not lie beside it"),
        ("DiscRegion\\BinRushed\\img2prime.tif", "C:\\secret.tif", "which does not lie beside it"),
        ("FinalLabel\\img2", "Label\\img2", "does not contain FinalLabel"),
        ("maskName", "mask", "lacks the column 'maskName'"),
        (",1,6\n", ",1,7\n", "holds the rater '7'"),
        (",1,0\n", ",1,1\n", "no row of rater 0"),
    ):
        table.write_text(text.replace(old, new), encoding="gbk", newline="")
        refused(tmp_path, match)
    table.write_bytes(b"\xff\xff\xff")
    refused(tmp_path, "cannot be read as a table in the encoding gbk")
