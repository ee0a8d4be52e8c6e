"""REFUGE with seven raters and Chaksu: a mask for each rater and structure, in folders or left in zip archives."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from dataset_support import opened, refused
from PIL import Image

SHAPE = (20, 26)
pytestmark = pytest.mark.usefixtures("own_cache")


def image_of(case, shape=SHAPE):
    return np.random.default_rng(list(case.encode())).integers(0, 255, (*shape, 3), dtype=np.uint8)


def mask_of(case, rater, structure, shape=SHAPE):
    """The cup of rater 2 reaches beyond the disc."""
    draw = np.random.default_rng([*case.encode(), int(rater), structure == "cup"])
    mask = np.zeros(shape, np.uint8)
    top, left = draw.integers(1, 6, 2)
    mask[top : top + 8, left : left + (6 if structure == "disc" else 9)] = 1
    return mask


def encode(values, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# -- REFUGE -------------------------------------------------------------------------------------------


def refuge(root, levels=("Training-400", "Validation-400", "Test-400"), count=4):
    for level in levels:
        for n in range(count):
            case = f"{level[0]}{n:04d}"
            folder = root / level / case
            save(folder / f"{case}.jpg", encode(image_of(case), "JPEG", quality=100, subsampling=0))
            save(folder / f"{case}_cropped.jpg", encode(image_of(case).swapaxes(0, 1), "JPEG"))
            save(folder / f"{case}_disc.bmp", encode(mask_of(case, 1, "disc") * 255, "BMP"))
            for structure in ("disc", "cup"):
                for r in range(1, 8):
                    mask = mask_of(case, r, structure)
                    save(folder / f"{case}_seg_{structure}_{r}.png", encode(mask * 255, "PNG"))


def test_refuge(tmp_path):
    refuge(tmp_path)
    data = opened("refuge-mr", tmp_path)
    described = data.describe()
    assert (len(data), described.raters, described.classes, described.overlapping) == (12, 7, 2, True)
    images, masks, valid = data.arrays(range(12))
    assert valid.all()
    for i, record in enumerate(data.records):
        case = record.case_id.split("/")[1]
        for r in range(7):
            np.testing.assert_array_equal(masks[i, r], [mask_of(case, r + 1, s) for s in ("disc", "cup")])
        assert images[i].shape == (3, *SHAPE)  # not the turned crop
    published = opened("refuge-mr", tmp_path, split="compat").split()
    assert [len(p) for p in (published.train, published.val, published.test)] == [4, 4, 4]


def test_refuge_as_a_flat_list_of_folders(tmp_path):
    refuge(tmp_path, ("Training-400",))
    data = opened("refuge-mr", tmp_path / "Training-400")
    assert (data.records[0].case_id, data.records[0].meta["part"]) == ("train/T0000", "train")
    (tmp_path / "Training-400").rename(tmp_path / "mine")
    assert [r.case_id for r in opened("refuge-mr", tmp_path / "mine").records] == [f"T{n:04d}" for n in range(4)]


def test_refuge_without_its_validation_part(tmp_path):
    refuge(tmp_path, ("Training-400", "Test-400"), 6)
    split = opened("refuge-mr", tmp_path, split="compat").split()
    assert [len(p) for p in (split.train, split.val, split.test)] == [5, 1, 6]
    folder = tmp_path / "Test-400/T0003"
    (folder / "T0003_seg_cup_4.png").unlink()
    data = opened("refuge-mr", tmp_path)
    row = next(i for i, r in enumerate(data.records) if r.case_id == "test/T0003")
    assert data.store.rater_valid[row].tolist() == [True] * 3 + [False] + [True] * 3  # its cup is not known to be empty
    assert data.records[row].meta["incomplete"] == ["4"]
    save(folder / "T0003_seg_cup_4.png", encode(mask_of("x", 1, "cup") * 100, "PNG"))
    refused("refuge-mr", tmp_path, r"T0003_seg_cup_4\.png holds the values 0, 100; a mask holds 0 and 1, or 0 and 255")
    save(folder / "T0003_seg_cup_4.png", encode(mask_of("x", 1, "cup", (4, 30)), "PNG"))
    refused("refuge-mr", tmp_path, r"T0003_seg_cup_4\.png has 4×30 pixels, but its image .*T0003\.jpg has 20×26")
    (folder / "T0003.jpg").unlink()
    refused("refuge-mr", tmp_path, r"T0003_seg_.*_\d\.png has no photograph")


# -- Chaksu -------------------------------------------------------------------------------------------

CAMERAS = {"Bosch": (20, 28), "Forus": (20, 26), "Remidio": (32, 24)}  # Remidio: portrait
CASES = {"Bosch": ("P11_image_1", "P11_image_2", "Image101"), "Forus": ("7",), "Remidio": ("IMG_2431",)}


def chaksu(half, spell=lambda text: text):
    """Name and content of the files of one half, with the spellings that vary in the archives."""
    for camera, shape in CAMERAS.items():
        for case in CASES[camera]:
            suffix = "JPG" if camera == "Remidio" else "png"
            content = encode(image_of(half + case, shape), "JPEG" if suffix == "JPG" else "PNG")
            yield f"{half}/1.0_Original_Fundus_Images/{camera}/{case}.{suffix}", content
            for r in range(1, 6):
                shown = "Remedio" if camera == "Remidio" and r == 4 else camera
                for structure in ("disc", "cup"):
                    folder = structure if r == 3 else structure.title()
                    mask = mask_of(half + case, r, structure, shape) * 255
                    if r == 5:  # an extra channel
                        mask = np.stack([mask, np.full_like(mask, 255)], axis=-1)
                    base = f"{half}/3.0_Doctors_Annotations_Binary_OD_OC/Expert {r}/{shown}/{folder}"
                    yield f"{base}/{case}.tif", encode(mask, "TIFF")
    yield f"{half}/5.0_OD_OC_Mean_Median_Majority_STAPLE/Bosch/Disc/Mean/Image101.tif", b"not read"
    yield f"{half}/6.0_Glaucoma_Decision/Glaucoma_Decision_Bosch.csv", b"Images\nImage101.jpg-Image101-1.jpg\n"
    yield f"__MACOSX/{half}/1.0_Original_Fundus_Images/Bosch/._Image101.png", b"not read"


def archives(root, halves=("Train", "Test")):
    for half in halves:
        with zipfile.ZipFile(root / f"{half}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in chaksu(half):
                archive.writestr(name, content)


def check_chaksu(data):
    assert (len(data), data.describe().rater_ids, data.describe().overlapping) == (10, tuple("12345"), True)
    for i, record in enumerate(data.records):
        part, camera, case = record.case_id.split("/")
        half, shape = part.title(), CAMERAS[camera.title()]
        images, masks, valid = data.arrays([i])
        assert valid.all()
        for r in range(5):
            for k, structure in enumerate(("disc", "cup")):
                stored = Image.fromarray(mask_of(half + case, r + 1, structure, shape))
                nearest = np.asarray(stored.resize((24, 24), Image.Resampling.NEAREST))
                np.testing.assert_array_equal(masks[0, r, k], nearest)
        if camera != "remidio":
            image = Image.fromarray(image_of(half + case, shape)).resize((24, 24), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(images[0], np.moveaxis(np.asarray(image), 2, 0) / 255, atol=1e-6)


def test_chaksu_in_archives_and_unpacked(tmp_path):
    packed, unpacked = tmp_path / "packed", tmp_path / "unpacked"
    packed.mkdir()
    archives(packed)
    for half in ("Train", "Test"):
        for name, content in chaksu(half):
            save(unpacked / name, content)
    for root in (packed, unpacked):
        check_chaksu(opened("chaksu", root, size=24))
    assert sorted(p.name for p in packed.iterdir()) == ["Test.zip", "Train.zip"]  # nothing unpacked beside them
    data = opened("chaksu", packed, size=24)
    patients = {r.case_id: r.patient_id for r in data.records}
    assert patients["train/bosch/P11_image_1"] == patients["test/bosch/P11_image_2"] == "bosch/P11"
    assert patients["train/bosch/Image101"] != patients["test/bosch/Image101"]
    assert all(not data.split(fold).shared for fold in range(4))
    published = opened("chaksu", packed, size=24, split="compat")
    assert len(published.split().test) == 5
    assert published.split().shared == (
        "bosch/P11",
    )  # here; whether the original parts anybody is seen when it is read
    assert "training shares patients" in published.full_notice


def test_archives_that_are_wrong(tmp_path):
    refused("chaksu", tmp_path, r"holds no Train\.zip")
    archives(tmp_path, ("Train",))
    path = tmp_path / "Train.zip"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    refused("chaksu", tmp_path, r"Train\.zip is damaged or cannot be unpacked", size=24)
    path.write_bytes(good)
    name = "Train/3.0_Doctors_Annotations_Binary_OD_OC/Expert 1/Forus/Disc/7.tif"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in chaksu("Train"):
            archive.writestr(member, bytes((1 << 27) + 1) if member == name else content)
    refused("chaksu", tmp_path, r"Expert 1/Forus/Disc/7\.tif unpacks to more than 128 MiB", size=24)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in chaksu("Train"):
            archive.writestr(member, b"no picture" if member == name else content)
    refused("chaksu", tmp_path, r"Train\.zip/.*Forus/Disc/7\.tif is damaged or not what its name says", size=24)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, b"again")
    refused("chaksu", tmp_path, r"Train\.zip holds a file twice", size=24)
