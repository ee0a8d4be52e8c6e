"""The JSON manifest: decathlon's forms, volumes, and paths that stay below its folder."""

from __future__ import annotations

import json
import os

import nibabel
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from PIL import Image

pytestmark = pytest.mark.usefixtures("own_cache")


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def square(side, value=1, size=16):
    mask = np.zeros((size, size))
    mask[:side, :side] = value
    return mask


@pytest.fixture
def root(tmp_path):
    """Four cases of two patients; b never saw the second, a found nothing in the third."""
    for i in range(4):
        save(tmp_path / "img" / f"{i}.png", np.full((16, 16), 20 * (i + 1)))
        save(tmp_path / "seg" / f"{i}_a.png", square(0 if i == 2 else 4))
        save(tmp_path / "seg" / f"{i}_b.png", square(6))
    return tmp_path


def entry(i, **keys):
    labels = {"a": f"seg/{i}_a.png", "b": f"seg/{i}_b.png"}
    return {"image": f"img/{i}.png", "labels": labels, "patient": f"p{i // 2}"} | keys


def write(root, content, name="data.json"):
    path = root / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def manifest(path, **options):
    return open_dataset("manifest", root=str(path), **options)


def refused(path, *words, **options):
    with pytest.raises(UserError) as caught:
        manifest(path, **options).prepare()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def test_a_list_of_cases(root):
    cases = [entry(0), entry(1), entry(2), entry(3)]
    cases[1]["labels"]["b"] = None
    data = manifest(write(root, cases), identity="as_stored")
    assert [r.case_id for r in data.records] == ["img/0", "img/1", "img/2", "img/3"]
    assert [r.patient_id for r in data.records] == ["p0", "p0", "p1", "p1"]
    images, masks, valid = data.arrays(range(4))
    assert valid.tolist() == [[True, True], [True, False], [True, True], [True, True]]
    assert masks.sum((2, 3)).tolist() == [[16, 36], [16, 0], [0, 36], [16, 36]]
    np.testing.assert_allclose(images[:, 0, 0, 0], np.array([20, 40, 60, 80]) / 255, rtol=1e-6)
    assert data.describe().rater_ids == ("a", "b")
    assert (data.describe().identity, data.notice) == ("derived", "")
    assert manifest(root).fingerprint == manifest(root / "data.json").fingerprint


def test_options_and_parts(root):
    cases = [entry(i, split=s, case=f"k{i}") for i, s in enumerate(["train", "training", "val", "test"])]
    given = {"cases": cases, "identity": "consistent", "raters": ["b", "a"], "spacing": 0.5, "notice": "mine"}
    data = manifest(write(root, given), split="compat", size=8)
    assert data.describe().identity == "consistent"
    assert data.describe().rater_ids == ("b", "a")
    assert data.records[0].spacing == [1.0, 1.0]
    split = data.split()
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0, 1], [2], [3])
    assert split.selected == ("p1",)
    assert data.full_notice == "mine; split compat: validation shares patients with the test part"
    for case in cases:
        del case["split"]
    with pytest.raises(UserError, match="gives no case a split"):
        manifest(write(root, given), split="compat").split()


def test_decathlon(root):
    for i in range(4):
        save(root / "seg" / f"{i}_a.png", square(4, 1) + np.flipud(square(3, 2)))
    given = {
        "name": "Task", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "edema", "2": "core"},
        "numTraining": 2,
        "training": [
            {"image": "./img/0.png", "label": "./seg/0_a.png"}, {"image": "img/1.png", "label": ["seg/1_a.png"]},
        ],
        "validation": [{"image": "img/2.png", "label": "seg/2_a.png"}],
        "test": ["img/3.png"],
    }  # fmt: skip
    data = manifest(write(root, given), split="compat")
    assert data.store.meta["class_names"] == ["edema", "core"]
    assert data.describe().rater_ids == ("1",)
    assert [(data.arrays([0])[1] == k).sum() for k in (1, 2)] == [16, 9]
    assert data.split().train.tolist() == [0, 1]
    assert data.leftovers()["left_out"] == ["img/3"]
    assert "no patient declared" in data.notice


def test_a_file_for_every_class(root):
    cases = [entry(i, labels={"r": {"disc": f"seg/{i}_b.png", "cup": f"seg/{i}_a.png"}}) for i in range(4)]
    data = manifest(write(root, {"cases": cases, "classes": ["disc", "cup"]}))
    assert (data.describe().overlapping, data.describe().classes) == (True, 2)
    assert data.arrays([0])[1].sum((3, 4)).tolist() == [[[36, 16]]]
    del cases[1]["labels"]["r"]["cup"]
    refused(write(root, {"cases": cases}), "'img/1'", "'cup'")
    cases[1]["labels"]["r"] = "seg/1_a.png"
    refused(write(root, {"cases": cases}), "same kind")


def test_volumes_are_stored_by_slices(root):
    rng = np.random.default_rng(0)
    affine = np.diag([-0.5, -0.7, 3.0, 1.0])  # stored as LPS: array axes x, y, z
    cases, volumes = [], []
    for i in range(4):
        image, mask = rng.integers(-1000, 1000, (10, 12, 5)).astype(np.int16), np.zeros((10, 12, 5), np.uint8)
        mask[2:6, 3:9, 1 + i % 2 : 4] = 1
        for name, values in (("image", image), ("a", mask), ("b", mask * 0)):
            (root / f"v{i}").mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values, affine), root / f"v{i}" / f"{name}.nii.gz")
        labels = {"a": f"v{i}/a.nii.gz", "b": f"v{i}/b.nii.gz"}
        cases.append({"image": f"v{i}/image.nii.gz", "labels": labels, "patient": f"p{i}", "case": f"v{i}"})
        volumes.append((image, mask))
    data = manifest(write(root, {"cases": cases, "window": [-1000, 1000]}), identity="as_stored")
    assert len(data) == 20
    assert data.records[1].case_id == "v0/z0001"
    assert data.records[0].spacing == pytest.approx([3.0, 0.7, 0.5])
    images, masks, _ = data.arrays(range(5))
    expected = np.transpose(volumes[0][0], (2, 1, 0))
    np.testing.assert_allclose(images[:, 0], (expected + 1000) / 2000, atol=1e-6)
    np.testing.assert_array_equal(masks[:, 0], np.transpose(volumes[0][1], (2, 1, 0)))
    assert not masks[:, 1].any()
    assert len(data.volumes(range(20))) == 4
    train = data.split(0).train
    assert all(data.records[i].meta["foreground"] for i in train)
    halved = manifest(root, size=8)
    assert halved.describe().size == (8, 8)
    assert halved.records[0].spacing == pytest.approx([3.0, 0.7 * 12 / 8, 0.5 * 10 / 8])

    # without a window the whole volume has one scale
    free = manifest(write(root, {"cases": cases})).arrays(range(5))[0]
    low, high = np.percentile(expected, [0.5, 99.5])
    np.testing.assert_allclose(free[:, 0], np.clip((expected - low) / (high - low), 0, 1), atol=1e-6)

    cases[0]["labels"]["a"] = "seg/0_a.png"
    refused(write(root, cases), "0_a.png", "no NIfTI")
    nibabel.save(nibabel.Nifti1Image(np.zeros((10, 12, 4), np.uint8), affine), root / "short.nii.gz")
    cases[0]["labels"]["a"] = "short.nii.gz"
    refused(write(root, cases), "short.nii.gz", "10×12×4", "10×12×5")
    odd = volumes[0][1].copy()
    odd[0, 0, 0] = 255
    nibabel.save(nibabel.Nifti1Image(odd, affine), root / "odd.nii.gz")
    cases[0]["labels"]["a"] = "odd.nii.gz"
    refused(write(root, cases), "odd.nii.gz", "0, 1, 255")


def test_channels_from_several_files(root):
    cases = [entry(i, image=[f"img/{i}.png", f"seg/{i}_b.png"]) for i in range(4)]
    data = manifest(write(root, cases))
    images = data.arrays([1])[0]
    assert images.shape == (1, 2, 16, 16)
    assert images[0, 0, 0, 0] == np.float32(40) / np.float32(255)
    assert images[0, 1].sum() == pytest.approx(36 / 255)


def test_paths_stay_below_the_manifest(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    save(outside / "secret.png", square(3))
    below = root / "below"
    below.mkdir()
    (below / "link.png").symlink_to(outside / "secret.png")
    (below / "folder").symlink_to(outside)
    (below / "loop.png").symlink_to(below / "loop.png")
    save(below / "mask.png", square(3))
    (below / "mask_link.png").symlink_to(below / "mask.png")
    os.mkfifo(below / "pipe.png")
    relative = os.path.relpath(outside / "secret.png", below)
    for image, words in [
        (str(outside / "secret.png"), ["leads out of"]),
        (relative, ["leads out of"]),
        ("folder/../mask.png", ["leads out of"]),
        ("link.png", ["is a link out of"]),
        ("folder/secret.png", ["is a link out of"]),
        ("loop.png", ["cannot be found", "link"]),
        ("nothing.png", ["cannot be found", "no such file"]),
        ("x" * 5000, ["cannot be found"]),
        ("mask.png\0.png", ["no path"]),
        ("\ud800.png", ["case 1"]),
        ("pipe.png", ["no regular file"]),
        ("folder", ["is a link out of"]),
        (".", ["no regular file"]),
        ("", ["no path"]),
        (7, ["image is 7"]),
    ]:
        refused(write(below, [{"image": image, "labels": {"a": "mask.png"}}]), below / "data.json", "case 1", *words)
        refused(write(below, [{"image": "mask.png", "labels": {"a": image}}]), below / "data.json", "case 1")
    cases = [{"image": "mask_link.png", "labels": {"a": "mask.png"}}]
    assert len(manifest(write(below, cases))) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["not a JSON file"]),
        ("{", ["not a JSON file"]),
        ('"text"', ["'text'"]),
        ("[]", ["lists no case"]),
        ("[" * 100000, ["not a JSON file"]),
        ('{"cases": [], "cases": []}', ["'cases' stands twice"]),
        ('{"cases": NaN}', ["NaN"]),
        ('{"cases": [{"image": "img/0.png", "labels": {"a": "seg/0_a.png"}}], "spacing": 1e999}', ["spacing"]),
        ({"cases": {}}, ["must be a list"]),
        ({"case": []}, ["'case'", "'cases'"]),
        ([{"img": "img/0.png"}], ["'img'", "'image'"]),
        ([["img/0.png"]], ["no object"]),
        ([{"image": []}], ["image is []"]),
        ([{"image": "img/0.png"}], ["no case a mask"]),
        ([entry(0, labels=3)], ["labels is 3"]),
        ([entry(0, labels={"a\n": "seg/0_a.png"})], ["printable"]),
        ([entry(0, labels={"a": {}})], ["no file"]),
        ([entry(0, labels={"a": "seg/0_a.png", "b": "seg/0_a.png"})], ["'a' and 'b'"]),
        ([entry(0, label="seg/0_a.png")], ["labels and label"]),
        ([entry(0), entry(0)], ["'img/0'", "twice"]),
        ([entry(0), {"image": "img/1.png", "labels": {"a": "seg/1_a.png"}}], ["'img/1'", "no patient"]),
        ([entry(0, patient="a\tb")], ["patient"]),
        ([entry(0, patient=True)], ["patient"]),
        ([entry(0, split="all")], ["'all'", "train, val or test"]),
        ({"training": [entry(0, split="test")]}, ["'test'", "train part"]),
        ({"cases": [entry(0)], "raters": ["x"]}, ["'x'", "a, b"]),
        ({"cases": [entry(0)], "identity": "sure"}, ["identity"]),
        ({"cases": [entry(0)], "foreground": {"1": 1, "3": 3}}, ["1, 3"]),
        ({"cases": [entry(0)], "labels": {"0": "b", "x": "y"}}, ["'x'"]),
        ({"cases": [entry(0)], "labels": ["b", "y"]}, ["labels is"]),
        ({"cases": [entry(0)], "window": [3, 1]}, ["window"]),
        ({"cases": [entry(0)], "classes": ["a", "b"]}, ["classes"]),
        ({"cases": [entry(0)], "overlapping": True}, ["overlapping"]),
    ],
)
def test_mistakes_are_named(root, content, words):
    path = write(root, content)
    refused(path, path.parent, *words)


def test_root(root):
    refused(root, "0 JSON files")
    write(root, [entry(0)], "a.json"), write(root, [entry(0)], "b.json")
    refused(root, "2 JSON files")
    refused(root / "none.json", "does not exist")
    refused("", "needs its root")
    path = write(root, [entry(0)])
    path.write_bytes(b"\xff\xfe[]")
    refused(path, "data.json", "not a JSON file")
