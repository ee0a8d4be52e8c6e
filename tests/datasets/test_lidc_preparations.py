"""LIDC in the preparations in circulation: a miniature of each layout is read back exactly."""

from __future__ import annotations

import pickle
import zlib

import h5py
import numpy as np
import pytest
from dataset_support import one_sentence
from multirater.datasets import open_dataset
from multirater.datasets.contours import load_contours
from PIL import Image
from sklearn.model_selection import KFold

SIDE = 16
pytestmark = pytest.mark.usefixtures("own_cache")


def lidc(root, preparation, **options):
    return open_dataset("lidc", root=str(root), preparation=preparation, **options)


def refused(root, preparation, match, **options):
    with one_sentence(match):
        lidc(root, preparation, **options).split(0)


def masks_of(seed, empty=()):
    """Four masks of growing size; some empty."""
    masks = np.zeros((4, SIDE, SIDE), np.uint8)
    for r in range(4):
        if r not in empty:
            masks[r, 4 : 8 + (r + seed) % 4, 5:9] = 1
    return masks


def image_of(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)


# -- pickles ------------------------------------------------------------------------------------------


def studies(count):
    table = load_contours()
    return [(table.scan_study[s].decode(), table.patient_id(s), float(table.scan_spacing[s])) for s in range(count)]


def matting_pickle(path, groups=6, slices=3):
    """MedicalMatting's file: uint8, matte, unknown keys; the study of the last group is of no LIDC patient."""
    known = [s[0] for s in studies(groups - 1)]
    content, k = {}, 0
    for g, study in enumerate([*known[::-1], "999"]):
        for s in range(slices + g % 2):
            content[f"LIDC_{k:04d}"] = {
                "image": image_of(k),
                "masks": list(masks_of(k)),
                "series_uid": f"{study}_slice{s}",
                "alpha": image_of(k + 1),
                "trimap": None,
            }
            k += 1
    path.write_bytes(pickle.dumps(content, protocol=4))
    return content


def test_medical_matting(tmp_path):
    content = matting_pickle(tmp_path / "lidc_attributes.pkl")
    data = lidc(tmp_path, "mm")
    assert len(data) == len(content)
    described = data.describe()
    assert (described.raters, described.identity, described.size, described.channels) == (4, "none", (SIDE, SIDE), 1)
    stored = lidc(tmp_path, "mm", identity="as_stored")
    images, masks, valid = stored.arrays(range(len(data)))
    assert valid.all()
    patients = {study: (patient, spacing) for study, patient, spacing in studies(6)}
    for i, record in enumerate(stored.records):
        value = content[record.case_id]
        np.testing.assert_array_equal(masks[i], value["masks"])
        np.testing.assert_array_equal(images[i, 0], value["image"].astype(np.float32) / np.float32(255))
        study = value["series_uid"].split("_")[0]
        patient, spacing = patients.get(study, (study, None))
        assert record.patient_id == patient
        assert record.spacing == ([spacing, spacing] if spacing else None)
    assert lidc(tmp_path / "lidc_attributes.pkl", "mm").fingerprint == data.fingerprint


def test_derived_orders_of_a_slice(tmp_path):
    matting_pickle(tmp_path / "lidc_attributes.pkl")
    data = lidc(tmp_path, "mm", identity="by_area")
    areas = data.arrays(range(len(data)))[1].sum((2, 3))
    assert (np.diff(areas.astype(int), axis=1) >= 0).all()
    assert data.describe().identity == "derived"
    shuffled, again = (lidc(tmp_path, "mm").arrays(range(len(data)))[1] for _ in range(2))
    np.testing.assert_array_equal(shuffled, again)
    stored = lidc(tmp_path, "mm", identity="as_stored").arrays(range(len(data)))[1]
    assert not np.array_equal(shuffled, stored)


@pytest.mark.parametrize(("name", "seed"), [("compat", 1337), ("compat-medicalmatting", 2)])
def test_the_published_folds(tmp_path, name, seed):
    """Unique groups in the order of the file, legacy shuffle, `KFold` without shuffling; selection on the test fold."""
    content = matting_pickle(tmp_path / "lidc_attributes.pkl")
    uids = [value["series_uid"].split("_")[0] for value in content.values()]
    groups = np.array(list(dict.fromkeys(uids)))
    np.random.seed(seed)  # noqa: NPY002
    np.random.shuffle(groups)  # noqa: NPY002
    data = lidc(tmp_path, "mm", split=name)
    assert data.folds == 4
    for fold, (_, held_out) in enumerate(KFold(4, shuffle=False).split(groups)):
        split = data.split(fold)
        wanted = {k for k, uid in zip(content, uids, strict=True) if uid in groups[held_out]}
        assert {data.records[i].case_id for i in split.test} == wanted
        np.testing.assert_array_equal(split.val, split.test)
        assert len(split.train) == len(content) - len(wanted)
        assert not split.shared
    assert "select the model on the test fold" in data.full_notice
    assert "validation shares patients with the test part" in data.full_notice


def test_published_folds_with_an_inner_validation(tmp_path):
    matting_pickle(tmp_path / "lidc_attributes.pkl")
    faithful, inner = (lidc(tmp_path, "mm", split=name) for name in ("compat-dpersona", "compat-dpersona-val"))
    for fold in range(4):
        a, b = faithful.split(fold), inner.split(fold)
        np.testing.assert_array_equal(a.test, b.test)
        np.testing.assert_array_equal(a.train, np.sort(np.concatenate([b.train, b.val])))
        assert len(b.val)
        assert (b.shared, b.selected) == ((), ())


def unet_pickle(path, first=0, count=20, **changes):
    """The Probabilistic U-Net's file: floats in [0, 1], any mask may be empty."""
    content = {}
    for k in range(first, first + count):
        study = studies(5)[k % 5][0]
        content[f"{k}_{study}_slice{k}"] = {
            "image": image_of(k) / 255.0,
            "masks": list(masks_of(k, empty=range(k % 4)).astype(np.float64)),
            "series_uid": f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{study}",
            **changes,
        }
    path.write_bytes(pickle.dumps(content, protocol=2))
    return content


def test_probabilistic_unet(tmp_path):
    content = unet_pickle(tmp_path / "data_lidc.pickle") | unet_pickle(tmp_path / "more.pickle", 20, 4)
    (tmp_path / "readme.txt").write_text("no pickle")
    data = lidc(tmp_path, "pickle", identity="as_stored")
    assert len(data) == 24
    images, masks, valid = data.arrays(range(24))
    assert valid.all()  # an empty mask is an answer
    for i, record in enumerate(data.records):
        value = content[record.case_id]
        np.testing.assert_array_equal(masks[i], value["masks"])
        np.testing.assert_allclose(images[i, 0], value["image"], atol=1e-7)
    assert {r.patient_id for r in data.records} == {s[1] for s in studies(5)}
    assert not data.split(0).shared  # the default never parts a patient
    leaking = lidc(tmp_path, "pickle", split="compat")
    split = leaking.split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (22, 0, 2)
    assert split.shared
    assert "shares patients" in leaking.full_notice


def test_a_case_in_two_pickles_is_refused(tmp_path):
    """The port merges the dicts, so that a later file silently replaces cases of an earlier one."""
    unet_pickle(tmp_path / "a.pickle", 0, 3)
    unet_pickle(tmp_path / "b.pickle", 2, 3)
    refused(tmp_path, "pickle", r"case '2_.*' is there twice, as .*a\.pickle and as .*b\.pickle")


class Exploit:
    def __reduce__(self):
        return (eval, ("open('owned', 'w')",))


def test_pickles_that_are_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data_lidc.pickle"
    refused(tmp_path, "pickle", r"holds no file \*\.pickle")
    for changes, match in (
        ({"image": Exploit()}, r"data_lidc\.pickle is refused: .*eval"),
        (
            {"image": image_of(0) * 2.0},
            r"data_lidc\.pickle holds an image from 0 to \d+ in case '0_.*expected is 0 to 1",
        ),
        ({"image": np.full((SIDE, SIDE), np.nan)}, r"an image from nan"),
        ({"image": np.zeros((SIDE, SIDE, 3))}, r"holds 16×16×3 in case"),
        ({"masks": list(masks_of(0))[:3]}, r"with masks: 3, expected are 4"),
        ({"masks": list(masks_of(0) * 2)}, r"data_lidc\.pickle holds the value 2"),
        ({"masks": [np.zeros((8, 8))] * 4}, r"a mask of 8×8 for an image of 16×16"),
        ({"series_uid": None}, r"without a series_uid"),
    ):
        unet_pickle(path, **changes)
        refused(tmp_path, "pickle", match)
    assert not (tmp_path / "owned").exists()
    path.write_bytes(pickle.dumps([1, 2]))
    refused(tmp_path, "pickle", "holds no dict of cases")
    for key in ("two\nlines", ""):
        path.write_bytes(pickle.dumps({key: {"image": 0, "masks": []}}))
        refused(tmp_path, "pickle", r"holds a case named '.*'; an id is a short line of text")
    (tmp_path / "lidc_attributes.zip").write_bytes(b"PK")
    refused(tmp_path, "mm", r"holds no files lidc_attributes\.pkl; unpack lidc_attributes\.zip first")
    matting_pickle(tmp_path / "lidc_attributes.pkl")
    for split, preparation in (("compat-slices", "mm"), ("compat-dpersona", "pickle")):
        refused(tmp_path, preparation, "is of preparation", split=split)
    refused(tmp_path, "mm", "dataset.crop = 64 is larger than", crop=64)


# -- arrays -------------------------------------------------------------------------------------------


def phiseg(path, sizes=(("train", 11), ("val", 3), ("test", 4)), **changes):
    """PHiSeg's file: images less a half, raters last, and a salted hash of the series as only sign of the patient."""
    content = {}
    with h5py.File(path, "w") as file:
        for part, count in sizes:
            seeds = [zlib.crc32(f"{part} {k}".encode()) % 1000 for k in range(count)]
            content[part] = {
                "images": np.stack([image_of(s) / 255.0 - 0.5 for s in seeds]),
                "labels": np.stack([np.moveaxis(masks_of(s, empty=range(s % 4)), 0, -1) for s in seeds]),
                "uids": np.array([-(2**62) + 10 * sum(map(ord, part)) + k // 3 for k in range(count)], np.int64),
                **changes,
            }
            group = file.create_group(part)
            for key, values in content[part].items():
                group.create_dataset(key, data=values)
    return content


def same_arrays(data, content):
    images, masks, _ = data.arrays(range(len(data)))
    for i, record in enumerate(data.records):
        part, number = record.case_id.split("/")
        np.testing.assert_allclose(images[i, 0], content[part]["images"][int(number)] + 0.5, atol=1e-7)
        np.testing.assert_array_equal(masks[i], np.moveaxis(content[part]["labels"][int(number)], -1, 0))


def test_phiseg(tmp_path):
    content = phiseg(tmp_path / "data_lidc.hdf5")
    data = lidc(tmp_path, "hdf5", identity="as_stored")
    assert len(data) == 18
    same_arrays(data, content)
    assert len({r.patient_id for r in data.records}) == 4 + 1 + 2
    assert lidc(tmp_path / "data_lidc.hdf5", "hdf5").split(0).hash == data.split(0).hash
    published = lidc(tmp_path, "hdf5", split="compat")
    split = published.split(0)
    assert (len(split.train), len(split.val), len(split.test)) == (11, 3, 4)
    assert "without a seed" in published.full_notice
    assert not split.shared


def test_hdf5_files_that_are_wrong(tmp_path):
    path = tmp_path / "data_lidc.hdf5"
    refused(tmp_path, "hdf5", "holds no HDF5 files")
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, 1, 8, 8))
    refused(tmp_path, "hdf5", "none of the groups train, val, test, but images; .*data set hdf5")
    first = np.zeros((4, SIDE, SIDE, 4), np.uint8)
    for changes, match in (
        ({"labels": np.moveaxis(first, -1, 1)}, r"labels of 4×4×16×16 .*raters last"),
        ({"labels": first + 3}, r"data_lidc\.hdf5 holds the value 3"),
        ({"images": np.full((4, SIDE, SIDE), 0.75)}, r"an image from 0.75 to 0.75 in row 0 of train, expected is -0.5"),
        ({"uids": np.arange(4.0)}, "uids of float64"),
    ):
        phiseg(path, (("train", 4),), **changes)
        refused(tmp_path, "hdf5", match)
    phiseg(tmp_path / "other.h5", (("train", 4),))
    with h5py.File(path, "w") as file:
        file["train"] = h5py.ExternalLink("other.h5", "train")
    refused(path, "hdf5", "'train' is no group of its own")


def mose(root, content):
    for part, arrays in content.items():
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
            for k, values in enumerate(arrays[kind]):
                np.save(root / part / kind / f"{k}.npy", values)


def test_mose(tmp_path):
    content = phiseg(tmp_path / "x.h5")
    root = tmp_path / "lidc_npy"
    mose(root, content)
    data = lidc(root, "npy", identity="as_stored")
    assert [r.case_id for r in data.records][12:15] == ["train/8", "train/9", "train/10"]  # numbers, not letters
    same_arrays(data, content)
    assert "patients are not recorded" in data.full_notice
    published = lidc(tmp_path, "npy", split="compat")
    assert [len(p) for p in (published.split().train, published.split().val, published.split().test)] == [11, 3, 4]
    scaled = lidc(root, "npy", intensity="zscore").arrays([0])[0]
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-5)
    (root / "val/labels/2.npy").unlink()
    refused(root, "npy", r"images/2\.npy has no label of the same number")
    np.save(root / "val/labels/2.npy", np.array([{"a": 1}]), allow_pickle=True)
    refused(root, "npy", r"labels/2\.npy .*")
    np.save(root / "val/labels/2.npy", np.zeros((4, SIDE, SIDE), np.uint8))
    refused(root, "npy", r"labels/2\.npy has shape 4×16×16 .*raters last")


# -- pictures -----------------------------------------------------------------------------------------


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def crops(root, folders=("train", "val", "test")):
    """The crops of the Hierarchical Probabilistic U-Net; z may be negative, hence two dashes."""
    for p, part in enumerate(folders):
        for n in range(2):
            patient = f"LIDC-IDRI-{10 * p + n:04d}"
            for z in ("-105.0", "87.5"):
                name = f"z-{z}_c{n}"
                seed = p + n + len(z)
                save(root / part / "images" / patient / f"{name}.png", image_of(seed))
                for r, mask in enumerate(masks_of(seed, empty=range(n))):
                    save(root / part / "gt" / patient / f"{name}_l{r}.png", mask * 255)


@pytest.mark.parametrize(
    "folders", [("train", "val", "test"), ("lidc_crops_train", "lidc_crops_val", "lidc_crops_test")]
)
def test_hierarchical_unet(tmp_path, folders):
    crops(tmp_path, folders)
    data = lidc(tmp_path, "png", identity="as_stored", split="compat")
    assert len(data) == 12
    row = next(i for i, r in enumerate(data.records) if r.case_id == "LIDC-IDRI-0011/z--105.0_c1")
    record = data.records[row]
    assert (record.patient_id, record.spacing) == ("LIDC-IDRI-0011", [0.5, 0.5])
    images, masks, _ = data.arrays([row])
    np.testing.assert_array_equal(images[0, 0], image_of(8).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(masks[0], masks_of(8, empty=(0,)))
    split = data.split(0)
    assert [len(p) for p in (split.train, split.val, split.test)] == [4, 4, 4]
    assert not split.shared
    centre = lidc(tmp_path, "png", identity="as_stored", crop=8).arrays([row])
    np.testing.assert_array_equal(centre[1], masks[..., 4:12, 4:12])
    (tmp_path / folders[0] / "gt/LIDC-IDRI-0000/z--105.0_c0_l2.png").unlink()
    refused(tmp_path, "png", r"z--105\.0_c0\.png has the masks 0, 1, 3, expected are 0 to 3")
    save(tmp_path / folders[0] / "gt/LIDC-IDRI-0000/z--105.0_c0_l2.png", masks_of(1)[0])
    refused(tmp_path, "png", r"z--105\.0_c0_l2\.png holds the value 1; .*only 0, 255")
    save(tmp_path / folders[0] / "gt/LIDC-IDRI-0000/z--105.0_c0_l2.png", np.zeros((8, 8), np.uint8))
    refused(tmp_path, "png", r"z--105\.0_c0_l2\.png has 8×8 pixels, but its image .*16×16")


def cimd(root, parts=("training", "testing"), numbers=(0, 1, 2, 10)):
    for part in parts:
        for n in numbers:
            folder = root / "data" / part / str(n)
            save(folder / f"image_{n + 1}.jpg", image_of(n), quality=95)
            for r, mask in enumerate(np.kron(masks_of(n, empty=range(n % 4)), np.ones((2, 2), np.uint8))[:, ::2, ::2]):
                save(folder / f"label{r}_.jpg", mask * 255, quality=75)


def test_cimd(tmp_path):
    cimd(tmp_path)
    blurred = np.asarray(Image.open(tmp_path / "data/training/1/label2_.jpg"))
    assert len(np.unique(blurred)) > 2  # JPEG: the mask is no longer 0 and 255
    data = lidc(tmp_path, "jpg", identity="as_stored")
    assert [r.case_id for r in data.records] == [f"{p}/{n}" for p in ("test", "train") for n in (0, 1, 2, 10)]
    images, masks, valid = data.arrays(range(8))
    assert valid.all()
    for i, n in enumerate((0, 1, 2, 10)):
        np.testing.assert_array_equal(masks[i], masks_of(n, empty=range(n % 4)))
        stored = np.asarray(Image.open(tmp_path / f"data/testing/{n}/image_{n + 1}.jpg"))
        np.testing.assert_array_equal(images[i, 0], stored.astype(np.float32) / np.float32(255))
    assert "patients are not recorded" in data.full_notice
    published = lidc(tmp_path / "data", "jpg", split="compat")
    assert [len(p) for p in (published.split().train, published.split().val, published.split().test)] == [3, 1, 4]
    only = lidc(tmp_path / "data/training", "jpg", identity="as_stored")
    assert [r.meta["part"] for r in only.records] == ["train"] * 4
    save(tmp_path / "data/training/1/label2_.jpg", masks_of(1)[2] * 40)
    refused(tmp_path, "jpg", r"label2_\.jpg holds values of uint8 up to \d+; a mask has 0 and 255")
    (tmp_path / "data/training/1/label2_.jpg").unlink()
    refused(tmp_path, "jpg", r"image_2\.jpg has the masks 0, 1, 3")
