"""IMA++: a table of masks by named annotators, most of whom share few images."""

from __future__ import annotations

import csv
import io
import zipfile

import numpy as np
import pytest
from dataset_support import one_sentence
from multirater.datasets import open_dataset
from PIL import Image

HEAD = ["ISIC_id", "img_filename", "seg_filename", "annotator", "tool", "skill_level", "mask_md5"]
# Who outlined which image; A09 has one image only.
DRAWN = {f"ISIC_{n:07d}": ["A00", f"A0{1 + n % 2}"] for n in range(8)} | {
    "ISIC_0000100": ["A00"], "ISIC_0000101": ["A01", "A09"], "ISIC_0000102": ["A00", "A01", "A02"],
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("own_cache")


def imapp(root, **options):
    return open_dataset("imapp", root=str(root), **{"size": None, "min_images": 3, **options})


def refused(root, match, **options):
    with one_sentence(match):
        imapp(root, **options).prepare()


def mask_of(image, annotator):
    mask = np.zeros((16, 20), np.uint8)
    mask[2 : 6 + int(annotator[1:]) % 4, 3 : 8 + int(image[-1])] = 255
    return mask


def table(path, head, rows):
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(head)
        writer.writerows(rows)


@pytest.fixture
def root(tmp_path):
    rows = []
    with zipfile.ZipFile(tmp_path / "segs.zip", "w") as archive:
        for image, annotators in DRAWN.items():
            (tmp_path / "images").mkdir(exist_ok=True)
            pixels = np.random.default_rng(int(image[5:])).integers(0, 255, (16, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"images/{image}.jpg", quality=100, subsampling=0)
            for annotator in [*annotators, "ST", "MV"]:
                name = f"{image}_{annotator}_T1_S1.png"
                stream = io.BytesIO()
                mask = mask_of(image, annotator) if annotator in annotators else np.full((16, 20), 255, np.uint8)
                Image.fromarray(mask).save(stream, "PNG")
                archive.writestr(f"segs/{name}", stream.getvalue())
                rows.append([image, f"{image}.JPG", name, annotator, "T1", "S1", "x"])
    table(tmp_path / "seg_metadata.csv", HEAD, rows)
    images = list(DRAWN)
    for name, part in (("train", images[:5]), ("val", images[5:7]), ("test", images[7:])):
        table(tmp_path / f"{name}.csv", ["image"], [[f"{image}.JPG"] for image in part])
    meta = [
        [image, "IP_1" if image in images[:2] else "", f"IL_{i // 3}" if i > 5 else ""] for i, image in enumerate(DRAWN)
    ]
    table(tmp_path / "img_metadata.csv", ["ISIC_id", "patient_id", "lesion_id"], meta)
    return tmp_path


def test_sparse_annotators(root):
    data = imapp(root)
    described = data.describe()
    assert (described.rater_ids, described.identity, described.has_missing) == (
        ("A00", "A01", "A02"),
        "consistent",
        True,
    )
    assert [r.case_id for r in data.records] == [i for i in DRAWN if i not in ("ISIC_0000100", "ISIC_0000101")]
    for i, record in enumerate(data.records):
        images, masks, valid = data.arrays([i])
        drawn = DRAWN[record.case_id]
        assert [described.rater_ids[r] for r in np.flatnonzero(valid[0])] == drawn  # not seen is not empty; no ST, MV
        for r in np.flatnonzero(valid[0]):
            np.testing.assert_array_equal(masks[0, r], mask_of(record.case_id, described.rater_ids[r]) > 0)
        assert images.shape == (1, 3, 16, 20)
    assert {r.patient_id for r in data.records[:2]} == {"patient IP_1"}
    everything = imapp(root, images="all", min_images=1)
    assert len(everything) == len(DRAWN)
    assert everything.describe().rater_ids == ("A00", "A01", "A02", "A09")
    split = imapp(root, split="compat").split()
    assert [len(p) for p in (split.train, split.val, split.test)] == [5, 2, 2]


def test_images_that_were_not_fetched_are_named(root):
    (root / "images/ISIC_0000003.jpg").unlink()
    data = imapp(root)
    assert data.leftovers()["masks_without_image"] == ["ISIC_0000003"]
    assert len(data) == 8
    refused(root, "two annotators with at least 50 images", min_images=50)


def test_tables_that_are_wrong(root):
    path = root / "seg_metadata.csv"
    text = path.read_text(encoding="utf-8-sig")
    for old, new, match in (
        ("annotator", "who", "lacks the column 'annotator'"),
        ("annotator", '"who\nis"', r"lacks the column 'annotator'; it has .*who\\nis"),
        ("ISIC_0000001_A00_T1_S1.png", "gone.png\nISIC_0000001", "a row with fewer cells than columns: .*ISIC_0000001"),
        ("ISIC_0000001_A00_T1_S1.png", "gone.png", r"names the mask 'gone\.png' of image 'ISIC_0000001' by 'A00'"),
        ("png,A02,T1", "png,A00,T1", "names two masks of image 'ISIC_0000001' by 'A00'"),
    ):
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        refused(root, match)
    path.write_text(text, encoding="utf-8")
    table(root / "val.csv", ["image"], [["ISIC_0000000.JPG"]])
    refused(root, r"val\.csv names image 'ISIC_0000000', which train\.csv names too")
    path.unlink()
    refused(root, r"holds no seg_metadata\.csv")
