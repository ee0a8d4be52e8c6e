"""The folder data set: absent is not empty, values are checked, moving files changes nothing, mistakes are named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from PIL import Image

SMALL = {"image": "{case}/image.png", "mask": "{case}/rater_{rater}.png"}
pytestmark = pytest.mark.usefixtures("own_cache")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def square(side, value=255, size=16):
    mask = np.zeros((size, size))
    mask[:side, :side] = value
    return mask


def configure(root, **keys):
    root.mkdir(exist_ok=True)
    (root / "multirater.yaml").write_text(yaml.safe_dump({**SMALL, **keys}))


@pytest.fixture
def root(tmp_path):
    """Three cases of raters a, b, c: c never saw case2, b found nothing in case10."""
    root = tmp_path / "mine"
    for i, case in enumerate(["case1", "case2", "case10"]):
        save(root / case / "image.png", np.full((16, 16), 50 * (i + 1)))
        for r, rater in enumerate("abc"):
            save(root / case / f"rater_{rater}.png", square(4 + 2 * (2 - r)))
    (root / "case2" / "rater_c.png").unlink()
    save(root / "case10" / "rater_b.png", square(0))
    configure(root)
    return root


def folder(root, **options):
    return open_dataset("folder", root=str(root), **options)


def refused(root, *words, **options):
    with pytest.raises(UserError) as caught:
        folder(root, **options).prepare()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def test_absent_is_not_empty(root):
    data = folder(root, identity="as_stored")
    assert [r.case_id for r in data.records] == ["case1", "case2", "case10"]
    assert data.describe().rater_ids == ("a", "b", "c")
    images, masks, valid = data.arrays([0, 1, 2])
    np.testing.assert_allclose(images[:, 0, 0, 0], np.array([50, 100, 150]) / 255, rtol=1e-6)
    np.testing.assert_array_equal(valid, [[1, 1, 1], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(masks.sum((2, 3)), [[64, 36, 16], [64, 36, 0], [64, 0, 16]])
    assert data.describe().has_missing


def test_identity(root):
    assert folder(root).describe().identity == "none"
    assert folder(root, identity="as_stored").describe().identity == "derived"
    ranked = folder(root, identity="by_area")
    assert ranked.describe().identity == "derived"
    _, masks, valid = ranked.arrays([0, 1, 2])
    np.testing.assert_array_equal(masks.sum((2, 3)), [[16, 36, 64], [36, 64, 0], [0, 16, 64]])
    np.testing.assert_array_equal(valid[1], [True, True, False])
    shuffled = folder(root).arrays([0, 1, 2])[1].sum((2, 3))
    np.testing.assert_array_equal(np.sort(shuffled), np.sort(masks.sum((2, 3))))
    configure(root, identity="consistent")
    assert folder(root).describe().identity == "consistent"
    assert folder(root, identity="none").describe().identity == "none"


def test_by_area_breaks_ties_by_stored_order(root):
    save(root / "case1" / "rater_c.png", np.flipud(square(8)))
    order = folder(root, identity="by_area")
    masks = order.arrays([0])[1][0]
    assert masks[1, 0, 0] == 1, "a and c have 64 pixels each: a, stored first, comes first"
    assert masks[2, 15, 0] == 1


def test_shuffled_slots_say_nothing_of_the_rater(tmp_path):
    for i in range(40):
        save(tmp_path / f"{i}" / "image.png", square(3))
        for r, rater in enumerate("abc"):
            save(tmp_path / f"{i}" / f"rater_{rater}.png", square(4 + r))
    configure(tmp_path)
    area = folder(tmp_path).arrays(np.arange(40))[1].sum((2, 3))
    assert (np.sort(area) == [16, 25, 36]).all()
    assert {tuple(row) for row in area.tolist()} == {
        (a, b, c) for a in (16, 25, 36) for b in (16, 25, 36) for c in (16, 25, 36) if len({a, b, c}) == 3
    }


def test_raters_may_be_chosen_and_ordered(root):
    configure(root, raters=["c", "a"])
    data = folder(root, identity="as_stored")
    assert data.describe().rater_ids == ("c", "a")
    np.testing.assert_array_equal(data.arrays([0])[1].sum((2, 3)), [[16, 64]])
    configure(root, raters=["a", "x"])
    refused(root, "'x'", "a, b, c")


def test_a_case_that_no_chosen_rater_saw_is_left_out_and_listed(root):
    configure(root, raters=["c"])
    data = folder(root)
    assert [r.case_id for r in data.records] == ["case1", "case10"]
    assert data.leftovers()["left_out"] == ["case2"]


def test_moving_and_renaming_changes_neither_cache_nor_fingerprint(root, tmp_path):
    before = folder(root)
    fingerprint, cache = before.fingerprint, before.cache_folder
    moved = tmp_path / "elsewhere"
    for path in root.glob("*/*.png"):
        target = moved / "deep" / f"{path.parent.name}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.rmtree(root)
    yaml_file = tmp_path / "own.yaml"
    yaml_file.write_text(yaml.safe_dump({"image": "**/{case}-image.png", "mask": "deep/{case}-rater_{rater}.png"}))
    after = folder(moved, config=str(yaml_file))
    assert after.fingerprint == fingerprint
    assert after.cache_folder == cache


def test_contents_patients_and_meaning_change_the_fingerprint(root):
    seen = {folder(root).fingerprint}
    configure(root, patient="^case.")
    seen.add(folder(root).fingerprint)
    configure(root, foreground="> 10")
    seen.add(folder(root).fingerprint)
    save(root / "case1" / "image.png", square(1))
    seen.add(folder(root).fingerprint)
    seen.add(folder(root, size=8).fingerprint)
    seen.add(folder(root, identity="by_area").fingerprint)
    assert len(seen) == 6


def test_patients(tmp_path):
    for patient in ("p1", "p2"):
        for case in ("left", "right"):
            save(tmp_path / "img" / patient / f"{case}.png", square(5))
            save(tmp_path / "seg" / patient / f"{case}.1.png", square(5))
    configure(tmp_path, image="img/{patient}/{case}.png", mask="seg/{patient}/{case}.{rater}.png")
    data = folder(tmp_path)
    data.prepare()
    assert [(r.case_id, r.patient_id) for r in data.records][:2] == [("p1/left", "p1"), ("p1/right", "p1")]
    assert data.notice == ""

    keys = {"image": "img/{case:p./.*}.png", "mask": "seg/{case}.{rater:.}.png"}
    configure(tmp_path, **keys, patient="^p.")
    data = folder(tmp_path)
    assert [(r.case_id, r.patient_id) for r in data.records][2:] == [("p2/left", "p2"), ("p2/right", "p2")]
    configure(tmp_path, **keys, patient="^(q)")
    refused(tmp_path, "'^(q)'", "p1/left")
    configure(tmp_path, **keys)
    data = folder(tmp_path)
    data.prepare()
    assert "no patient declared" in data.notice
    configure(tmp_path, **keys, patient="case", notice="pilot data")
    data = folder(tmp_path)
    data.prepare()
    assert data.notice == "pilot data"


def test_names_may_differ_in_case(root):
    (root / "case2" / "rater_a.png").rename(root / "case2" / "Rater_A.PNG")
    configure(root, ignore_case=True)
    data = folder(root, identity="as_stored")
    np.testing.assert_array_equal(data.arrays([1])[1].sum((2, 3)), [[64, 36, 0]])


def test_foreground_forms(root):
    for case in ("case1", "case2", "case10"):
        for path in (root / case).glob("rater_*.png"):
            mask = np.asarray(Image.open(path))
            save(path, np.where(mask > 0, 3, 200))
    refused(root, "rater_a.png", "3, 200", "foreground")
    for foreground in ("< 128", "<= 3", "== 3", "!= 200"):
        configure(root, foreground=foreground)
        assert folder(root, identity="as_stored").arrays([0])[1].sum() == 64 + 36 + 16
    configure(root, foreground=[3], background=[200])
    assert folder(root, identity="as_stored").arrays([0])[1].sum() == 64 + 36 + 16
    configure(root, foreground=[3])
    refused(root, "200", "background")
    configure(root, foreground={3: 2, 200: 1}, background=[0])
    data = folder(root, identity="as_stored")
    assert data.describe().classes == 2
    assert not data.describe().overlapping
    np.testing.assert_array_equal(np.unique(data.arrays([0])[1]), [1, 2])
    configure(root, foreground="> 250")
    refused(root, "no mask has any foreground")
    configure(root, foreground="> 2")
    refused(root, "every pixel")


def test_jpeg_masks_are_cut_at_127(tmp_path):
    for i in range(2):
        save(tmp_path / f"{i}" / "image.png", square(5))
        Image.fromarray(square(7).astype(np.uint8)).save(tmp_path / f"{i}" / "rater_1.jpg", quality=60)
    stored = np.unique(np.asarray(Image.open(tmp_path / "0" / "rater_1.jpg")))
    assert len(stored) > 2, "the test needs a blurred mask"
    configure(tmp_path, mask="{case}/rater_{rater}.jpg")
    masks = folder(tmp_path).arrays([0])[1]
    assert set(np.unique(masks)) == {0, 1}
    assert abs(int(masks.sum()) - 49) <= 4


def test_one_file_per_class(tmp_path):
    for case in ("x", "y"):
        save(tmp_path / case / "image.png", square(9))
        for rater in "12":
            save(tmp_path / case / f"{rater}_disc.png", square(8))
            save(tmp_path / case / f"{rater}_cup.png", square(4))
    configure(tmp_path, mask="{case}/{rater}_{class}.png", classes=["disc", "cup"])
    data = folder(tmp_path)
    description = data.describe()
    assert (description.classes, description.overlapping) == (2, True)
    assert data.arrays([0])[1].shape == (1, 2, 2, 16, 16)
    np.testing.assert_array_equal(data.arrays([0])[1].sum((3, 4)), [[[64, 16], [64, 16]]])

    configure(tmp_path, mask="{case}/{rater}_{class}.png", overlapping=False)
    refused(tmp_path, "overlap", "cup, disc")
    for path in tmp_path.glob("*/*_cup.png"):
        save(path, np.flipud(square(4)))
    data = folder(tmp_path)
    assert data.store.meta["class_names"] == ["cup", "disc"]
    masks = data.arrays([0])[1]
    assert ((masks == 1).sum(), (masks == 2).sum()) == (32, 128)

    (tmp_path / "y" / "2_cup.png").unlink()
    refused(tmp_path, "'y'", "'cup'", "'2'")


def test_size_and_spacing(root):
    configure(root, spacing=[0.5, 0.25])
    data = folder(root, size=[8, 32], identity="as_stored")
    assert data.arrays([0])[0].shape == (1, 1, 8, 32)
    assert data.records[0].spacing == [1.0, 0.125]
    np.testing.assert_array_equal(data.arrays([0])[1].sum((2, 3)), [[64, 36, 16]])
    save(root / "case2" / "image.png", np.zeros((20, 16)))
    refused(root, "16×16", "20×16", "rater_a.png", size=16)
    for rater in "ab":
        save(root / "case2" / f"rater_{rater}.png", np.zeros((20, 16)))
    refused(root, "16×16", "20×16", "dataset.size")
    for wrong in (0, "large", [16], [16, -1]):
        with pytest.raises(UserError, match=r"dataset\.size"):
            folder(root, size=wrong)


def test_two_files_for_one_place(root):
    save(root / "case1" / "image2.png", square(2))
    configure(root, image="{case}/image*.png")
    refused(root, "image.png", "image2.png", "'case1'")
    configure(root, mask="{case}/rater_{rater:.}*.png")
    save(root / "case1" / "rater_a2.png", square(2))
    refused(root, "rater_a.png", "rater_a2.png", "'a'")


def test_what_is_missing_is_named(root, tmp_path):
    with pytest.raises(UserError, match="needs its root"):
        open_dataset("folder").prepare()
    refused(tmp_path / "nowhere", "nowhere", "not a folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "multirater.yaml", "does not exist")
    refused(empty, "empty", "is empty", config=str(root / "multirater.yaml"))
    configure(root, image="{case}/picture.png")
    refused(root, "'{case}/picture.png'", "12 files", "case1/image.png")
    configure(root, mask="{case}/Rater_{rater}.png")
    refused(root, "mask pattern", "ignore_case")
    configure(root, mask="{case:.*}_{rater}.png")
    refused(root, "no image has a mask", "case1/rater")


def test_wrong_yaml_is_named(root):
    path = root / "multirater.yaml"
    for text, words in [
        ("image: '{case}.png'\nmaks: x\n", ["'maks'", "'mask'"]),
        ("image: '{case}.png'\n", ["lacks mask"]),
        ("image: {case}.png\nmask: 'x'\n", ["not valid YAML", "quotes"]),
        ("just text", ["must hold keys"]),
        ("image: '{case}.png'\nmask: '{case}/{ratr}.png'\n", ["'ratr'", "'rater'"]),
        ("image: '{case}.png'\nmask: '{case}.png'\n", ["lacks {rater}"]),
        ("image: '{case}.png'\nmask: 'x'\nimage: '{case}.jpg'\n", ["'image' twice"]),
        ("image: '{case}/image.png'\nmask: '{case}/{rater}'\nforeground: {1: 1, 1.0: 2}\n", ["1.0 twice"]),
        ("image: '{case}.png'\nmask: '{patient}/{case}_{rater}.png'\n", ["{patient} in mask"]),
    ]:
        path.write_text(text)
        refused(root, path, *words)
    for keys, words in [
        ({"identity": "maybe"}, ["identity", "'none' or 'consistent'"]),
        ({"foreground": "over 9"}, ["'over 9'", "comparison"]),
        ({"foreground": {1: 1, 2: 3}}, ["[1, 3]", "gap"]),
        ({"foreground": [0]}, ["background"]),
        ({"foreground": [1], "background": [0, 1]}, ["shares 1"]),
        ({"background": [0]}, ["background needs foreground"]),
        ({"window": [5, 5]}, ["window", "low < high"]),
        ({"window": [float("nan"), 5]}, ["window"]),
        ({"patient": "("}, ["patient", "regular expression"]),
        ({"raters": ["a", "a"]}, ["different names"]),
        ({"classes": ["a", "b"]}, ["2 classes"]),
        ({"overlapping": True}, ["{class}"]),
        ({"spacing": 0}, ["spacing"]),
    ]:
        configure(root, **keys)
        refused(root, path, *words)


def test_a_damaged_file_is_named_and_leaves_no_cache(root):
    path = root / "case2" / "rater_b.png"
    path.write_bytes(path.read_bytes()[:40])
    refused(root, path, "damaged")
    data = folder(root)
    assert not data.prepared()
    assert not list(data.cache_folder.parent.glob("*"))


def test_progress_counts_the_cases(root):
    seen = []
    folder(root).prepare(lambda done, total, what: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_volumes_are_stored_by_slices_and_ordered_as_wholes(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([-0.5, -0.7, 3.0, 1.0])
    for case in ("p", "q", "r"):
        image = np.arange(10 * 12 * 4, dtype=np.int16).reshape(10, 12, 4)
        (tmp_path / case).mkdir()
        nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / case / "ct.nii.gz")
        for rater, depth in (("1", 3), ("2", 1)):
            mask = np.zeros(image.shape, np.uint8)
            mask[1:5, 2:4, :depth] = 255
            nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / case / f"by_{rater}.nii.gz")
    configure(tmp_path, image="{case}/ct.nii.gz", mask="{case}/by_{rater}.nii.gz", window=[0, 479], patient="case")
    data = folder(tmp_path, identity="by_area")
    assert [r.case_id for r in data.records[:4]] == ["p/z0000", "p/z0001", "p/z0002", "p/z0003"]
    images, masks, _ = data.arrays(range(4))
    np.testing.assert_allclose(images[:, 0], np.transpose(image, (2, 1, 0)) / 479, atol=1e-6)
    assert masks.sum((2, 3)).tolist() == [[8, 8], [0, 8], [0, 8], [0, 0]]  # rater 2 drew less in all
    assert masks[0, 0, 2:4, 1:5].all()
    assert data.records[0].spacing == pytest.approx([3.0, 0.7, 0.5])
    assert len(data.volumes(range(len(data)))) == 3
    train = data.split(0).train
    assert len(train) % 3 == 0
    assert len(folder(tmp_path, train_slices="all").split(0).train) == len(train) // 3 * 4
