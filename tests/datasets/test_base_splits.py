"""Splits by the MD5 of the patient id, and the parts of `Dataset` that every data set shares."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading

import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multirater.core.errors import UserError
from multirater.datasets import store
from multirater.datasets.base import Dataset
from multirater.datasets.splits import make_split, patient_number
from multirater.datasets.store import ArrayStore

# MD5 by md5sum(1); h mod 4, (h // 4) mod 8 and h mod 10 by bc(1).
KNOWN = {
    "LIDC-IDRI-0001": ("9ccf24fb8ed9597b8846b3ac49c63bba", 2, 6, 4),
    "p10": ("ad304601e6638bf2bcdd5345c013a6c1", 1, 0, 3),
    "p1": ("ec6ef230f1828039ee794566b9c58adc", 0, 7, 2),
    "p2": ("1d665b9b1467944c128a5575119d1cfd", 1, 7, 7),
    "p3": ("7bc3ca68769437ce986455407dab2a1f", 3, 7, 1),
}


@pytest.mark.parametrize(("patient", "known"), KNOWN.items())
def test_patient_number_is_md5(patient, known):
    digest, mod4, quarter_mod8, mod10 = known
    number = patient_number(patient)
    assert f"{number:032x}" == digest
    assert (number % 4, number // 4 % 8, number % 10) == (mod4, quarter_mod8, mod10)


def test_fixed_and_cv4_by_hand():
    patients = ["LIDC-IDRI-0001", "p1", "p2", "p3", "p1", "p10"]
    cases = ["a", "b", "c", "d", "e", "f"]
    fixed = make_split("fixed", cases, patients)
    assert (fixed.train.tolist(), fixed.val.tolist(), fixed.test.tolist()) == ([0, 2], [5], [1, 3, 4])
    fold0 = make_split("cv4", cases, patients, 0)
    assert (fold0.train.tolist(), fold0.val.tolist(), fold0.test.tolist()) == ([0, 2, 3], [5], [1, 4])
    fold1 = make_split("cv4", cases, patients, 1)
    assert (fold1.train.tolist(), fold1.val.tolist(), fold1.test.tolist()) == ([0, 1, 3, 4], [], [2, 5])


ids = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(ids, st.sampled_from(["fixed", "cv4"]))
def test_every_case_once_and_no_patient_twice(patients, name):
    cases = [f"c{i}" for i in range(len(patients))]
    tested = []
    for fold in range(4 if name == "cv4" else 1):
        split = make_split(name, cases, patients, fold)
        parts = [split.train, split.val, split.test]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(cases)))
        owners = [{patients[i] for i in part} for part in parts]
        assert sum(map(len, owners)) == len(set(patients)), "no patient stands in two parts"
        tested.extend(split.test.tolist())
    if name == "cv4":
        assert sorted(tested) == list(range(len(cases))), "every case is tested in exactly one fold"


def test_shares_are_about_right():
    patients = [f"patient-{i}" for i in range(4000)]
    fixed = make_split("fixed", patients, patients)
    np.testing.assert_allclose([len(fixed.train), len(fixed.val), len(fixed.test)], [2400, 400, 1200], rtol=0.12)
    fold = make_split("cv4", patients, patients, 1)
    np.testing.assert_allclose([len(fold.train), len(fold.val), len(fold.test)], [2625, 375, 1000], rtol=0.15)


def test_hash_names_the_cases_not_their_order():
    cases, patients = ["a", "b", "c", "d"], ["p1", "p2", "p3", "LIDC-IDRI-0001"]
    split = make_split("cv4", cases, patients, 0)
    assert make_split("cv4", cases[::-1], patients[::-1], 0).hash == split.hash
    assert make_split("cv4", cases, patients, 1).hash != split.hash
    assert make_split("cv4", ["a", "b", "c", "e"], patients, 0).hash != split.hash
    assert len(split.hash) == 16


@pytest.mark.parametrize(
    ("name", "fold", "words"),
    [("fixed", 1, "only fold 0"), ("cv4", 4, "folds 0-3"), ("cv4", -1, "folds 0-3"), ("cv5", 0, "'cv4'")],
)
def test_wrong_folds_are_refused(name, fold, words):
    with pytest.raises(UserError, match=words):
        make_split(name, ["a"], ["a"], fold)


class Tiny(Dataset):
    """Four cases of two raters; the second rater is missing in case 2."""

    name = "tiny"
    built = 0

    def __init__(self, size=4, split="cv4", identity="none", broken=False):
        super().__init__(size=size, split=split, identity=identity, broken=broken)

    def source(self):
        return {"recipe": 1}

    def build(self, folder, progress):
        Tiny.built += 1
        if self.options["broken"]:
            (folder / "images.npy").write_bytes(b"half")
            raise RuntimeError("killed")
        size = self.options["size"]
        masks = np.zeros((4, 2, size, size), np.uint8)
        masks[:, 0, 0], masks[:, 1] = 1, 1
        valid = np.ones((4, 2), bool)
        valid[2, 1] = False
        ArrayStore.write(
            folder,
            images=np.arange(4 * size * size, dtype=np.float32).reshape(4, 1, size, size),
            masks=masks,
            rater_valid=valid,
            records=[{"case_id": f"c{i}", "patient_id": f"p{i // 2}", "spacing": [1.0, 2.0]} for i in range(4)],
            classes=1,
            rater_ids=["x", "y"],
            identity="consistent",
        )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path))
    Tiny.built = 0
    return tmp_path


def test_arrays_are_built_once_and_shared(cache):
    first, second = Tiny(), Tiny(split="fixed", identity="x")
    assert not first.prepared()
    assert first.prepare() == second.prepare()
    assert second.prepared()
    assert Tiny.built == 1
    assert Tiny(size=8).cache_folder != first.cache_folder


def test_a_case_and_its_description(cache):
    data = Tiny()
    case = data.load(2)
    assert case.image.shape == (1, 4, 4)
    assert case.masks.dtype == np.uint8
    assert case.rater_valid.tolist() == [True, False]
    assert not case.masks[1].any(), "the mask of a missing rater is zero whatever is stored"
    assert (case.case_id, case.patient_id, case.spacing) == ("c2", "p1", [1.0, 2.0])
    described = data.describe()
    assert (described.raters, described.rater_ids, described.identity) == (2, ("x", "y"), "consistent")
    assert (described.size, described.channels, described.has_missing) == ((4, 4), 1, True)
    images, masks, valid = data.arrays([3, 0])
    assert images[:, 0, 0, 0].tolist() == [48.0, 0.0]
    assert masks.shape == (2, 2, 4, 4)
    assert valid.all()
    masks[:] = 9
    assert data.arrays([0])[1].max() == 1, "a caller's change does not reach the store"


def test_a_killed_build_leaves_nothing(cache):
    data = Tiny(broken=True)
    with pytest.raises(RuntimeError, match="killed"):
        data.prepare()
    assert not data.prepared()
    assert list((cache / "tiny").iterdir()) == []


def test_a_second_builder_waits_and_uses_what_the_first_has_made(cache):
    data, other, told = Tiny(), Tiny(), []
    waiting = threading.Event()

    def tell(done, total, what):
        told.append(what)
        waiting.set()

    def fill(folder):
        thread.start()
        assert waiting.wait(20)
        data.build(folder, lambda *a: None)

    thread = threading.Thread(target=other.prepare, args=(tell,))
    ArrayStore.build(data.cache_folder, fill)
    thread.join(20)
    assert told == ["waiting for another process that prepares the same"]
    assert other.prepared()
    assert [p.name for p in data.cache_folder.parent.iterdir()] == [data.cache_folder.name]


def test_without_locks_two_builders_do_not_share_files(cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    data = Tiny()

    def other_first(folder):
        Tiny().prepare()  # the rename after this finds a complete folder
        data.build(folder, lambda *a: None)

    ArrayStore.build(data.cache_folder, other_first)
    assert data.prepared()
    assert [p.name for p in data.cache_folder.parent.iterdir()] == [data.cache_folder.name]


@pytest.mark.skipif(sys.platform == "win32", reason="locks of Unix")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_prepares_and_leaves_no_lock_behind(cache, monkeypatch, number):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(filelock.SoftFileLock, "acquire", lambda *args, **kwargs: pytest.fail("a soft lock"))
    assert Tiny().prepare().is_dir()


def test_without_locks_the_slower_of_two_renames_uses_the_result_of_the_faster(cache, monkeypatch):
    monkeypatch.setattr(store, "_acquired", lambda lock, waiting: False)
    rename = os.rename

    def late(partial, folder):
        monkeypatch.setattr(os, "rename", rename)
        Tiny().prepare()
        rename(partial, folder)

    monkeypatch.setattr(os, "rename", late)
    data = Tiny()
    assert data.prepare().is_dir()
    assert [p.name for p in data.cache_folder.parent.iterdir()] == [data.cache_folder.name]


def test_fingerprint_follows_masks_and_identity_not_split(cache):
    assert Tiny().fingerprint == Tiny(split="fixed").fingerprint
    assert len({Tiny().fingerprint, Tiny(size=8).fingerprint, Tiny(identity="other").fingerprint}) == 3
    assert len(Tiny().fingerprint) == 16


def test_damaged_cache_says_what_to_delete(cache):
    folder = Tiny().prepare()
    (folder / "masks.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"masks\.npy.*delete"):
        Tiny().describe()
    (folder / "cases.json").write_text('[{"case_id": ')
    with pytest.raises(UserError, match=r"cases\.json"):
        Tiny().describe()


def test_case_list_is_readable_json(cache):
    folder = Tiny().prepare()
    assert json.loads((folder / "cases.json").read_text())[3]["patient_id"] == "p1"
