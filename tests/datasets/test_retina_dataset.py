"""DRIVE, CHASE_DB1 and STARE: miniatures with the quirks of the original files."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pytest
from dataset_support import one_sentence
from multirater.datasets import open_dataset
from PIL import Image

SHAPE = (20, 24)
pytestmark = pytest.mark.usefixtures("own_cache")


def retina(root, name, **options):
    return open_dataset("retina", root=str(root), set=name, **{"size": None, **options})


def refused(root, name, match, **options):
    with one_sentence(match):
        retina(root, name, **options).split(0)


def photograph(seed, dark=0):
    """A bright disc, with a dark spot inside, on a dark ground."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = (y - 10) ** 2 + (x - 12) ** 2 < 80
    image = np.random.default_rng(seed).integers(90, 250, (*SHAPE, 3), dtype=np.uint8)
    image[~inside] = dark
    image[10, 12] = dark
    return image, inside


def vessels(seed):
    return (np.random.default_rng(seed).random(SHAPE) < 0.2).astype(np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def chase(root, children=range(1, 15)):
    for child in children:
        for eye in "LR":
            seed = 2 * child + (eye == "R")
            save(root / f"Image_{child:02d}{eye}.jpg", Image.fromarray(photograph(seed)[0]), quality=100, subsampling=0)
            for r, observer in enumerate(("1stHO", "2ndHO")):
                mask = Image.fromarray(vessels(seed + 100 * r) * 255).convert("1")
                save(root / f"Image_{child:02d}{eye}_{observer}.png", mask)


def test_chase_db1(tmp_path):
    chase(tmp_path)
    data = retina(tmp_path, "chase_db1")
    assert (len(data), data.describe().rater_ids, data.describe().identity) == (28, ("1stHO", "2ndHO"), "consistent")
    images, masks, valid = data.arrays(range(28))
    assert valid.all()
    assert [r.case_id for r in data.records[:3]] == ["01L", "01R", "02L"]
    for i, seed in enumerate(range(2, 30)):
        np.testing.assert_array_equal(masks[i], [vessels(seed), vessels(seed + 100)])
        assert images[i].shape == (3, *SHAPE)
    assert len({r.patient_id for r in data.records}) == 14  # both eyes of a child stay together
    for fold in range(4):
        assert not data.split(fold).shared
    published = retina(tmp_path, "chase_db1", split="compat")
    split = published.split()
    assert (len(split.train) + len(split.val), len(split.test)) == (20, 8)
    assert {data.records[i].case_id[:2] for i in split.test} == {"11", "12", "13", "14"}
    assert not split.shared


def test_field_of_view(tmp_path):
    """Of the red channel, without holes; resized by nearest neighbours like a mask; none where all pixels count."""
    chase(tmp_path, (1,))
    data = retina(tmp_path, "chase_db1")
    region = data.valid_region([0, 1])
    assert region.dtype == bool
    assert region.shape == (2, *SHAPE)
    assert (region[0] == photograph(2)[1]).mean() > 0.95  # JPEG blurs the rim
    assert region[0, 10, 12]
    assert retina(tmp_path, "chase_db1", size=[40, 48]).valid_region([0]).sum() == 4 * region[0].sum()
    assert retina(tmp_path, "chase_db1", field="all").valid_region([0]) is None
    save(tmp_path / "Image_01L.jpg", Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)))
    refused(tmp_path, "chase_db1", r"Image_01L\.jpg is dark all over")


def palette(mask, background, vessel):
    """A GIF of indices 0 and 1 whose palette shows two greys."""
    image = Image.fromarray(mask, "P")
    image.putpalette([v for grey in (background, vessel) for v in (grey,) * 3])
    return image


def drive(root):
    for part, numbers in (("test", range(1, 21)), ("training", range(21, 41))):
        for n in numbers:
            image, inside = photograph(n)
            save(root / part / f"images/{n:02d}_{part}.tif", Image.fromarray(image))
            save(root / part / f"mask/{n:02d}_{part}_mask.gif", Image.fromarray(inside.astype(np.uint8) * 255))
            save(root / part / f"1st_manual/{n:02d}_manual1.gif", Image.fromarray(vessels(n) * 255))
            if part == "test":
                save(root / part / f"2nd_manual/{n:02d}_manual2.gif", palette(vessels(n + 100), 3, 253))


def test_drive(tmp_path):
    drive(tmp_path)
    second = Image.open(tmp_path / "test/2nd_manual/01_manual2.gif")
    assert second.mode == "P"
    assert set(np.unique(np.asarray(second.convert("L")))) == {3, 253}
    data = retina(tmp_path, "drive")
    assert (len(data), data.describe().has_missing) == (20, False)
    images, masks, _ = data.arrays(range(20))
    for i in range(20):
        image, inside = photograph(i + 1)
        np.testing.assert_array_equal(masks[i], [vessels(i + 1), vessels(i + 101)])
        np.testing.assert_array_equal(images[i], np.moveaxis(image, 2, 0).astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(data.valid_region([i])[0], inside)
    both = retina(tmp_path, "drive", halves="both", split="compat")
    assert len(both) == 40
    assert both.describe().has_missing
    assert both.store.rater_valid.sum(0).tolist() == [40, 20]  # not seen is not empty
    split = both.split()
    assert (len(split.train) + len(split.val), len(split.test)) == (20, 20)
    refused(tmp_path, "drive", "add --set dataset.halves=both", split="compat")
    (tmp_path / "test/mask/07_test_mask.gif").unlink()
    refused(tmp_path, "drive", r"07_test\.tif has no field of view")
    assert len(retina(tmp_path, "drive", field="all")) == 20


def packed(path, image):
    """A PGM or PPM by its content, whatever the name says."""
    stream = io.BytesIO()
    image.save(stream, "PPM")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(stream.getvalue()))


def stare(root, count=20):
    for n in range(count):
        name = f"im{7 * n + 1:04d}"
        packed(root / "stare-images" / f"{name}.ppm.gz", Image.fromarray(photograph(n)[0]))
        for r, observer in enumerate(("ah", "vk")):
            packed(
                root / f"labels-{observer}" / f"{name}.{observer}.ppm.gz", Image.fromarray(vessels(n + 50 * r) * 255)
            )


def test_stare(tmp_path):
    stare(tmp_path)
    assert gzip.decompress((tmp_path / "labels-ah/im0001.ah.ppm.gz").read_bytes())[:2] == b"P5"  # grey in a .ppm
    packed(tmp_path / "stare-images/im0399.ppm.gz", Image.fromarray(photograph(0)[0]))
    data = retina(tmp_path, "stare")
    assert data.leftovers()["left_out"] == ["im0399"]
    assert data.describe().rater_ids == ("ah", "vk")
    _, masks, _ = data.arrays(range(20))
    for i in range(20):
        np.testing.assert_array_equal(masks[i], [vessels(i), vessels(i + 50)])
    halves = retina(tmp_path, "stare", split="compat").split()
    assert (len(halves.train) + len(halves.val), len(halves.test)) == (10, 10)
    loo = retina(tmp_path, "stare", split="compat-loo")
    assert loo.folds == 20
    assert {int(loo.split(fold).test[0]) for fold in range(20)} == set(range(20))
    refused(tmp_path, "chase_db1", "'compat-loo' is of stare, not of chase_db1", split="compat-loo")
    bomb = tmp_path / "labels-vk/im0001.vk.ppm.gz"
    bomb.write_bytes(gzip.compress(b"P5 20 20 255\n" + bytes(1 << 27)))
    refused(tmp_path, "stare", r"im0001\.vk\.ppm\.gz unpacks to more than 64 MiB")
    bomb.write_bytes(b"\x1f\x8b broken")
    refused(tmp_path, "stare", r"im0001\.vk\.ppm\.gz is damaged")
    bomb.unlink()
    assert retina(tmp_path, "stare").store.rater_valid.sum() == 39
    (tmp_path / "labels-ah/im0001.ah.ppm.gz").unlink()
    refused(tmp_path, "stare", "needs the 20 photographs", split="compat")


def test_files_that_are_wrong(tmp_path):
    refused(tmp_path, "chase_db1", r"holds no masks of chase_db1 such as Image_01L_1stHO\.png")
    chase(tmp_path, (1, 2))
    mask = tmp_path / "Image_02R_2ndHO.png"
    save(mask, Image.fromarray(vessels(1) * 7))
    refused(tmp_path, "chase_db1", r"Image_02R_2ndHO\.png holds the value 7")
    save(mask, Image.fromarray(np.zeros((4, 4), np.uint8)))
    refused(tmp_path, "chase_db1", r"Image_02R_2ndHO\.png has 4×4 pixels, but its image .*20×24")
    save(tmp_path / "copy/Image_02R_2ndHO.png", Image.fromarray(vessels(1)))
    refused(tmp_path, "chase_db1", "are the same picture twice")
    (tmp_path / "copy/Image_02R_2ndHO.png").unlink()
    (tmp_path / "Image_02R.jpg").unlink()
    refused(tmp_path, "chase_db1", r"Image_02R_1stHO\.png has no photograph")
