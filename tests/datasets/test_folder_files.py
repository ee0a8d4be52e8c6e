"""The folder data set and its files: spelling of ids, files that are unused or unreadable, what the cache hangs on."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from multirater.benchmark.commands.prepare import command
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.datasets.store import ArrayStore
from PIL import Image

PATTERNS = "image: '{case}/image.png'\nmask: '{case}/by_{rater}.png'\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MULTIRATER_CACHE", str(folder))
    monkeypatch.setenv("COLUMNS", "160")
    return folder


def save(path, side=5):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((16, 16), np.uint8)
    values[:side, :side] = 255
    Image.fromarray(values).save(path)


def fill(root, cases=("a", "b"), raters=("1", "2"), text=""):
    for case in cases:
        save(root / case / "image.png", 9)
        for i, rater in enumerate(raters):
            save(root / case / f"by_{rater}.png", 4 + i)
    (root / "multirater.yaml").write_text(PATTERNS + text)
    return root


def folder(root, **options):
    return open_dataset("folder", root=str(root), **options)


def ids(root):
    return folder(root, identity="as_stored").describe().rater_ids


# -- the YAML -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "names"), [("[010, 011]", ("010", "011")), ("[01, 02]", ("01", "02")), ("[yes, no]", ("yes", "no"))]
)
def test_ids_are_text_as_written(tmp_path, written, names):
    fill(tmp_path, raters=sorted(names), text=f"raters: {written}\n")
    assert ids(tmp_path) == names


def test_class_names_are_text_as_written_and_shown(tmp_path):
    for case in "ab":
        save(tmp_path / case / "image.png", 9)
        save(tmp_path / case / "1_on.png", 6)
        save(tmp_path / case / "1_02.png", 3)
    text = "image: '{case}/image.png'\nmask: '{case}/{rater}_{class}.png'\nclasses: [on, 02]\n"
    (tmp_path / "multirater.yaml").write_text(text)
    out = CliRunner().invoke(command, ["folder", "--root", str(tmp_path)], standalone_mode=False).stdout
    assert "2 (on, 02)" in out


# -- patients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["field", "expression"])
def test_a_patient_spelled_in_two_ways_is_one(tmp_path, form):
    fill(tmp_path, cases=("P1_x", "p1_y", "p2_x"))
    text = "image: '{patient:[^_]+}_{case}/image.png'\nmask: '{patient}_{case}/by_{rater}.png'\n"
    if form == "expression":
        text = PATTERNS + "patient: '^p[0-9]+'\n"
    (tmp_path / "multirater.yaml").write_text(text + "ignore_case: true\n")
    assert [r.patient_id for r in folder(tmp_path).records] == ["P1", "P1", "p2"]


# -- files that are not used or cannot be -------------------------------------------------------


def test_prepare_names_masks_without_an_image(tmp_path):
    fill(tmp_path)
    call = CliRunner().invoke
    assert "without an image" not in call(command, ["folder", "--root", str(tmp_path)], standalone_mode=False).stdout
    save(tmp_path / "c" / "by_1.png")
    save(tmp_path / "c" / "by_2.png")
    save(tmp_path / "d" / "image.png")
    out = call(command, ["folder", "--root", str(tmp_path)], standalone_mode=False).stdout
    assert "2 masks without an image, for example c/by_1.png" in out, "although the arrays are cached already"
    facts = json.loads(call(command, ["folder", "--root", str(tmp_path), "--json"], standalone_mode=False).stdout)
    assert facts["masks_without_image"] == ["c/by_1.png", "c/by_2.png"]
    assert facts["left_out"] == ["d"]


def test_a_dangling_link_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "a" / "by_2.png").unlink()
    (tmp_path / "a" / "by_2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"by_2\.png is a link to a file that does not exist"):
        folder(tmp_path).prepare()


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    fill(tmp_path)
    opened = Path.open

    def deny(self, *args, **kwargs):  # permissions do not bind an administrator, who may run the tests
        if self.name == "by_2.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(UserError, match=r"a/by_2\.png cannot be read: permission denied"):
        folder(tmp_path).prepare()


def test_only_errors_of_the_cache_blame_the_cache(tmp_path, cache):
    def failing(*error):
        def build(temporary):
            raise OSError(*(arg(temporary) if callable(arg) else arg for arg in error))

        return build

    with pytest.raises(UserError, match=r"shelf\.png cannot be used: permission denied") as caught:
        ArrayStore.build(cache / "x" / "k", failing(errno.EACCES, "Permission denied", str(tmp_path / "shelf.png")))
    assert "MULTIRATER_CACHE" not in str(caught.value)
    for error in (
        (errno.ENOSPC, "No space left"),
        (errno.ENOSPC, "No space left", lambda temporary: str(temporary / "m.npy")),
    ):
        with pytest.raises(UserError, match=r"cannot write the cache.*no space left"):
            ArrayStore.build(cache / "x" / "k", failing(*error))
    (cache / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write the cache"):
        ArrayStore.build(cache / "file" / "x" / "k", failing(0, ""))
    assert list((cache / "x").iterdir()) == []


# -- what cache and fingerprint hang on ---------------------------------------------------------


def test_a_mask_renamed_to_jpeg_is_another_cache(tmp_path):
    fill(tmp_path)
    (tmp_path / "multirater.yaml").write_text("image: '{case}/image.png'\nmask: '{case}/by_{rater:[0-9]}.*'\n")
    before = folder(tmp_path).cache_folder
    for path in tmp_path.glob("*/by_?.png"):
        path.rename(path.with_suffix(".bmp"))
    assert folder(tmp_path).cache_folder == before
    for path in tmp_path.glob("*/by_?.bmp"):
        path.rename(path.with_suffix(".jpg"))
    assert folder(tmp_path).cache_folder != before


@pytest.mark.parametrize(("declared", "settled"), [("consistent", "as_stored"), ("none", "none")])
def test_an_identity_left_to_the_yaml_is_the_one_it_declares(tmp_path, declared, settled):
    fill(tmp_path, text=f"identity: {declared}\n")
    left, given = folder(tmp_path), folder(tmp_path, identity=settled)
    np.testing.assert_array_equal(left.arrays([0, 1])[1], given.arrays([0, 1])[1])
    assert left.fingerprint == given.fingerprint
    assert left.options == given.options
    assert folder(tmp_path, identity="by_area").fingerprint != left.fingerprint
