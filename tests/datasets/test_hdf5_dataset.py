"""One HDF5 file: read back exactly, every field checked, and no way out of the file."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import open_dataset

RATERS = ("anna", "bert", "carla")
pytestmark = pytest.mark.usefixtures("own_cache")


def contents(cases=5, classes=1, overlapping=False):
    rng = np.random.default_rng(0)
    shape = (cases, 3, classes, 12, 16) if overlapping else (cases, 3, 12, 16)
    valid = np.ones((cases, 3), bool)
    valid[1, 2] = False
    masks = rng.integers(0, 2 if overlapping else classes + 1, shape).astype(np.uint8)
    masks[~valid] = 0
    masks[2, 0] = 0  # looked and drew nothing
    return {
        "images": rng.standard_normal((cases, 2, 12, 16)).astype(np.float32),
        "masks": masks,
        "valid": valid,
        "case_id": [f"c{i}" for i in range(cases)],
        "patient_id": [f"p{i // 2}" for i in range(cases)],
        "rater_id": list(RATERS),
    }


def write(path, fields=None, attributes=None, **packing):
    with h5py.File(path, "w") as file:
        for name, value in (fields or contents()).items():
            if isinstance(value, list) and isinstance(value[0], str):
                file.create_dataset(name, data=value, dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=value, **(packing if name in ("images", "masks") else {}))
        file.attrs.update({"identity": "consistent"} | (attributes or {}))
    return path


def refused(path, *words, **options):
    with pytest.raises(UserError) as caught:
        open_dataset("hdf5", root=str(path), **options).prepare()
    message = str(caught.value)
    assert "\n" not in message
    for word in (path, *words):
        assert str(word) in message, message


@pytest.mark.parametrize("packing", [{}, {"chunks": (1, 2, 12, 16)[:4], "compression": "gzip"}, {"compression": "lzf"}])
def test_is_read_back_exactly(tmp_path, packing):
    fields = contents()
    if "chunks" in packing:
        packing = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}
    path = write(tmp_path / "a.h5", fields, {"spacing": (0.7, 0.5), "licence": "CC0", "notice": "mine"}, **packing)
    data = open_dataset("hdf5", root=str(path))
    images, masks, valid = data.arrays(range(5))
    np.testing.assert_array_equal(images, fields["images"])
    np.testing.assert_array_equal(masks, fields["masks"])
    np.testing.assert_array_equal(valid, fields["valid"])
    description = data.describe()
    assert (description.rater_ids, description.identity, description.classes) == (RATERS, "consistent", 1)
    assert (description.channels, description.has_missing) == (2, True)
    assert [r.patient_id for r in data.records] == ["p0", "p0", "p1", "p1", "p2"]
    assert data.records[0].spacing == [0.7, 0.5]
    assert (data.licence, data.notice) == ("CC0", "mine")
    in_folder = open_dataset("hdf5", root=str(tmp_path))
    assert in_folder.fingerprint == data.fingerprint


def test_classes_overlap_bytes_and_size(tmp_path):
    fields = contents(classes=3)
    named = write(tmp_path / "a.h5", fields, {"class_names": ["liver", "kidney", "spleen"]})
    data = open_dataset("hdf5", root=str(named))
    assert data.describe().classes == 3
    np.testing.assert_array_equal(data.arrays([0])[1][0], fields["masks"][0])
    refused(write(tmp_path / "b.h5", fields), "'c0'", "value 3", "class_names")

    fields = contents(classes=2, overlapping=True)
    fields["images"] = np.arange(5 * 2 * 12 * 16, dtype=np.uint16).astype(np.uint8).reshape(5, 2, 12, 16)
    data = open_dataset("hdf5", root=str(write(tmp_path / "c.h5", fields)), size=[8, 10])
    description = data.describe()
    assert (description.overlapping, description.classes, description.size) == (True, 2, (8, 10))
    data = open_dataset("hdf5", root=str(tmp_path / "c.h5"))
    np.testing.assert_array_equal(data.arrays([0])[0][0], fields["images"][0].astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("declared", ["none", "derived", "consistent", "synthetic"])
def test_identity_is_what_the_file_declares(tmp_path, declared):
    path = write(tmp_path / "a.h5", None, {"identity": declared})
    assert open_dataset("hdf5", root=str(path)).describe().identity == declared
    assert open_dataset("hdf5", root=str(path), identity="none").describe().identity == "none"
    ranked = open_dataset("hdf5", root=str(path), identity="by_area")
    assert ranked.describe().identity == "derived"
    area = ranked.arrays([0])[1][0].reshape(3, -1).sum(1)
    assert (np.diff(area) >= 0).all()


def test_volumes_parts_and_spacing_per_case(tmp_path):
    fields = contents()
    fields |= {
        "volume": ["v", "v", "v", "", ""],
        "slice": np.array([4, 2, 3, 0, 0]),
        "part": ["train", "train", "train", "test", "val"],
        "spacing": np.array([[2, 1, 1]] * 3 + [[np.nan] * 3] * 2),
        "patient_id": ["a", "a", "a", "b", "a"],
    }
    data = open_dataset("hdf5", root=str(write(tmp_path / "a.h5", fields)), split="compat")
    assert data.records[0].spacing == [2, 1, 1]
    assert data.records[3].spacing is None
    split = data.split()
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0, 1, 2], [4], [3])
    assert split.shared == ("a",)
    assert "shares patients" in data.full_notice
    assert [v.rows.tolist() for v in data.volumes(range(5))] == [[1, 2, 0], [3], [4]]
    plain = open_dataset("hdf5", root=str(write(tmp_path / "b.h5")), split="compat")
    with pytest.raises(UserError, match=r"stores no 'part'"):
        plain.split()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": None}, ["lacks", "'images'"]),
        ({"valid": None}, ["lacks", "'valid'"]),
        ({"extra": np.zeros(3)}, ["'extra'", "no field"]),
        ({"images": np.zeros((5, 12, 16), np.float32)}, ["5×12×16", "N×C×H×W"]),
        ({"images": np.zeros((4, 1, 12, 16), np.float32)}, ["4×1×12×16", "5 case ids"]),
        ({"images": np.zeros((5, 1, 12, 16), np.int32)}, ["int32", "float32"]),
        ({"images": np.zeros((5, 1, 12, 16), np.complex64)}, ["complex64"]),
        ({"images": np.full((5, 1, 12, 16), np.nan, np.float32)}, ["'c0'", "not finite"]),
        ({"images": np.zeros((5, 65, 12, 16), np.float32)}, ["65", "channels"]),
        ({"images": np.zeros((0, 1, 12, 16), np.float32)}, ["'images' is empty"]),
        ({"masks": np.zeros((5, 3, 12, 16), np.float32)}, ["float32", "uint8"]),
        ({"masks": np.full((5, 3, 12, 16), 255, np.uint8)}, ["255"]),
        ({"masks": np.zeros((5, 2, 12, 16), np.uint8)}, ["5×2×12×16", "3 rater ids"]),
        ({"masks": np.zeros((5, 3, 16, 12), np.uint8)}, ["5×3×16×12"]),
        ({"masks": np.ones((5, 3, 12, 16), np.uint8)}, ["'carla'", "'c1'", "not valid"]),
        ({"valid": np.full((5, 3), 2, np.uint8)}, ["'valid'", "2"]),
        ({"valid": np.ones((5, 2), bool)}, ["'valid'", "5×2", "5×3"]),
        ({"valid": np.ones((5, 3), np.float32)}, ["'valid'", "float32"]),
        ({"valid": np.zeros((5, 3), bool)}, ["'c0'", "no valid rater"]),
        ({"case_id": ["a", "b", "a", "c", "d"]}, ["'a' twice"]),
        ({"case_id": ["a", "b\n", "e", "c", "d"]}, ["printable"]),
        ({"case_id": ["a", "", "e", "c", "d"]}, ["empty in row 1"]),
        ({"case_id": np.arange(5)}, ["'case_id'", "list of strings"]),
        ({"case_id": np.array([b"\xff\xfe"] * 5)}, ["not UTF-8"]),
        ({"patient_id": ["a", "b"]}, ["'patient_id' has 2 rows"]),
        ({"rater_id": ["a", "a", "b"]}, ["'a' twice"]),
        ({"part": ["train", "test", "all", "", ""]}, ["'all'", "train, val, test"]),
        ({"volume": ["v"] * 5}, ["only one of"]),
        ({"volume": ["v"] * 5, "slice": np.array([0, 1, 2, 3, 3])}, ["'c3'", "'c4'", "slice 3"]),
        ({"volume": ["v"] * 5, "slice": np.array([0, 1, 2, 3, -1])}, ["'c4'", "-1"]),
        ({"spacing": np.array([[1.0, -1]] * 5)}, ["spacing", "-1"]),
        ({"spacing": np.ones(5)}, ["'spacing'"]),
        ({"@identity": "sure"}, ["'sure'", "consistent"]),
        ({"@identity": 3}, ["identity"]),
        ({"@spacing": (1.0, float("inf"))}, ["spacing"]),
        ({"@spacing": "big"}, ["spacing"]),
        ({"@class_names": ["a", "a"]}, ["class_names"]),
        ({"@licence": 5}, ["licence"]),
    ],
)
def test_every_field_is_checked(tmp_path, change, words):
    attributes = {k[1:]: v for k, v in change.items() if k[0] == "@"}
    fields = {k: v for k, v in (contents() | change).items() if v is not None and k[0] != "@"}
    refused(write(tmp_path / "a.h5", fields, attributes), *words)


def test_root(tmp_path):
    refused(tmp_path, "0 HDF5 files")
    write(tmp_path / "a.h5"), write(tmp_path / "b.hdf5")
    refused(tmp_path, "2 HDF5 files")
    refused(tmp_path / "none.h5", "does not exist")
    (tmp_path / "text.h5").write_text("no")
    refused(tmp_path / "text.h5", "not HDF5")


# -- ways out of the file -----------------------------------------------------------------------


def replaced(path, name, make):
    write(path)
    with h5py.File(path, "a") as file:
        del file[name]
        make(file)
    return path


@pytest.fixture
def pipe(tmp_path):
    """Whoever opens it for reading waits for ever; a lawful way to see that nobody does."""
    os.mkfifo(tmp_path / "other.h5")
    return tmp_path / "other.h5"


def test_links_are_not_followed(tmp_path, pipe):
    def external(file):
        file["images"] = h5py.ExternalLink(str(pipe), "/images")

    def soft(file):
        file["images"] = h5py.SoftLink("/images")  # leads to itself

    refused(replaced(tmp_path / "a.h5", "images", external), "ExternalLink", "'images'")
    refused(replaced(tmp_path / "b.h5", "images", soft), "SoftLink")
    refused(replaced(tmp_path / "c.h5", "case_id", lambda f: f.create_group("case_id")), "is a group")
    refused(pipe, "no regular file")


@pytest.mark.parametrize("unlimited", [False, True])
def test_virtual_data_sets_are_refused_unopened(tmp_path, pipe, unlimited):
    def virtual(file):
        layout = h5py.VirtualLayout((5, 2, 12, 16), np.float32, maxshape=(None, 2, 12, 16))
        source = h5py.VirtualSource(str(pipe), "images", (5, 2, 12, 16), maxshape=(None, 2, 12, 16))
        if unlimited:
            layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        else:
            layout[:] = source
        file.create_virtual_dataset("images", layout)

    if not unlimited:
        refused(replaced(tmp_path / "a.h5", "images", virtual), "other files")
        return
    pipe.unlink()  # h5py itself opens the source of an unlimited one while it writes
    path = replaced(tmp_path / "a.h5", "images", virtual)
    os.mkfifo(pipe)
    refused(path, "other files")


def test_external_storage_and_foreign_filters_are_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(5 * 2 * 12 * 16 * 4))

    def stored_elsewhere(file):
        size = secret.stat().st_size
        file.create_dataset("images", (5, 2, 12, 16), np.float32, external=[(str(secret), 0, size)])

    refused(replaced(tmp_path / "a.h5", "images", stored_elsewhere), "other files")

    def filtered(file):
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_chunk((1, 2, 12, 16))
        plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (0, 0, 0, 0))  # blosc: a plug-in
        space = h5py.h5s.create_simple((5, 2, 12, 16))
        h5py.h5d.create(file.id, b"images", h5py.h5t.IEEE_F32LE, space, plan)

    refused(replaced(tmp_path / "b.h5", "images", filtered), "filter 32001", "gzip")


def test_references_are_refused(tmp_path):
    def references(file):
        file.create_dataset("case_id", (5,), h5py.ref_dtype)[:] = file["masks"].ref

    refused(replaced(tmp_path / "a.h5", "case_id", references), "case_id", "list of strings")
    path = write(tmp_path / "b.h5")
    with h5py.File(path, "a") as file:
        file.attrs["spacing"] = file["masks"].ref
    refused(path, "spacing", "text or numbers")


def test_what_is_announced_must_be_stored(tmp_path):
    def enormous(file):
        file.create_dataset("images", (5, 2, 10**5, 10**6), np.float32, chunks=(1, 1, 100, 100), compression="gzip")

    def bomb(file):
        made = file.create_dataset(
            "images", (5, 2, 12, 16), np.float32, chunks=(5, 2, 4096, 4096), maxshape=(None,) * 4
        )
        made[:] = 0

    def empty(file):
        file.create_dataset("images", (5, 2, 12, 16), np.float32)

    def names(file):
        file.create_dataset("case_id", (10**12,), "S255", chunks=(1,))

    refused(replaced(tmp_path / "a.h5", "images", enormous), "not all of them are in the file")
    refused(replaced(tmp_path / "b.h5", "images", bomb), "chunks", "64 MiB")
    refused(replaced(tmp_path / "c.h5", "images", empty), "not all of them are in the file")
    refused(replaced(tmp_path / "d.h5", "case_id", names), "not all of them are in the file")
