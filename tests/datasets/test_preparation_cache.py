"""The preparation cache: taken up again after a kill, shared by processes, whole or absent when the disk is full."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from multirater.core.errors import UserError
from multirater.datasets import filling, open_dataset
from multirater.datasets.row_files import Journal, RowFile, stored_bytes
from multirater.datasets.store import ArrayStore, checksums
from PIL import Image

CASES = 12
PREPARE = "import sys; from multirater.datasets import open_dataset; open_dataset('folder', root=sys.argv[1]).prepare()"
# The same, but every case takes its time, and the journal is written after each.
SLOWLY = """
import sys, time
from multirater.datasets import filling, open_dataset
from multirater.datasets.folder import Folder
filling._SAVE_SECONDS = 0
decode = Folder.decode
def slow(self, raw):
    print(raw.case_id, flush=True)
    time.sleep(0.05)
    return decode(self, raw)
Folder.decode = slow
open_dataset("folder", root=sys.argv[1]).prepare()
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path, cache):
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for case in range(CASES):
        Image.fromarray(rng.integers(0, 256, (16, 20), np.uint8)).save(folder / f"{case}.png")
        for rater in "ab":
            Image.fromarray((rng.random((16, 20)) < 0.3).astype(np.uint8)).save(folder / f"{case}_{rater}.png")
    (folder / "multirater.yaml").write_text("image: '{case:\\d+}.png'\nmask: '{case}_{rater}.png'\n")
    return folder


def folder(root, **options):
    return open_dataset("folder", root=str(root), **options)


def contents(store):
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def start(code, root):
    return subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)


def hidden(cache):
    return [path for path in (cache / "folder").iterdir() if path.name.startswith(".")]


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(root, cache):
    process = start(SLOWLY, root)
    for _ in range(7):
        process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (partial,) = hidden(cache)
    finished = [json.loads(line)[0] for line in (partial / "journal.jsonl").read_text().splitlines()]
    assert finished == list(range(len(finished)))
    assert 2 <= len(finished) < CASES
    assert not folder(root).prepared()

    decoded = []
    data = folder(root)
    decode = data.decode
    data.decode = lambda raw: decoded.append(raw.case_id) or decode(raw)
    resumed = contents(data.prepare())
    assert sorted(decoded) == sorted(str(i) for i in range(CASES) if i not in finished)
    assert hidden(cache) == []

    (cache / "folder").rename(cache / "elsewhere")
    assert contents(folder(root).prepare()) == resumed


def test_a_journal_line_that_was_cut_short_is_dropped(root, tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add(0, {"a": 1})
        journal.flush([])
        journal.add(1, {"a": 2})  # never made lasting
    with path.open("ab") as stream:
        stream.write(b'[2, {"a"')
    with Journal(path) as journal:
        assert journal.done == {0: {"a": 1}}
        journal.add(3, 4)
        journal.flush([])
    assert path.read_text() == '[0, {"a": 1}]\n[3, 4]\n'


def test_what_another_version_has_left_is_not_used(root, cache, monkeypatch):
    monkeypatch.setattr(filling, "__version__", "0.0.0")
    data = folder(root)
    partial = data.cache_folder.with_name(f".{data.cache_folder.name}.partial")

    def interrupt(raw):
        raise KeyboardInterrupt

    data.decode = lambda raw, decode=data.decode: interrupt(raw) if raw.case_id == "5" else decode(raw)
    with pytest.raises(KeyboardInterrupt):
        data.prepare()
    assert partial.is_dir()
    masks = np.load(partial / "masks.npy", mmap_mode="r+")
    masks[:] = 7
    masks.flush()
    monkeypatch.undo()
    monkeypatch.setenv("MULTIRATER_CACHE", str(cache))
    assert folder(root).store.masks.max() == 1


def test_a_kill_before_the_arrays_are_there_is_forgotten(root, cache, monkeypatch):
    def killed(path, *shape):
        path.touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(filling, "RowFile", killed)
        with pytest.raises(KeyboardInterrupt):
            folder(root).prepare()
    assert len(hidden(cache)) == 1
    assert folder(root).store.masks.max() == 1
    assert hidden(cache) == []


def test_processes_that_prepare_at_once_are_safe(root, cache):
    processes = [start(PREPARE, root) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert hidden(cache) == []
    assert len(folder(root)) == CASES


def test_faults_leave_nothing(root, cache):
    Image.fromarray(np.full((16, 20), 3, np.uint8)).save(root / "7_a.png")
    with pytest.raises(UserError, match=r"7_a\.png holds the values 3"):
        folder(root).prepare()
    assert hidden(cache) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(root, cache, monkeypatch):
    def full(self, rows, first):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RowFile, "write", full)
    with pytest.raises(UserError, match=r"cannot write the cache .*: no space left on device; make room there"):
        folder(root).prepare()
    assert list((cache / "folder").iterdir()) == []


def test_too_small_a_disk_is_told_before_the_work(root, cache, monkeypatch):
    monkeypatch.setattr(filling.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    data = folder(root)
    decoded = []
    data.decode = lambda raw, decode=data.decode: decoded.append(raw) or decode(raw)
    with pytest.raises(UserError, match=r"preparing folder needs 0\.00 GB in .*, but only 0\.00 GB are free"):
        data.prepare()
    assert len(decoded) == 1
    assert list((cache / "folder").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of the size of files are those of Unix")
def test_a_write_that_fails_in_the_middle_is_one_sentence(root, cache):
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "from multirater.benchmark.cli import main;"
        "main(['prepare', 'folder', '--root', sys.argv[1]])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "cannot write the cache" in found.stderr
    assert "file too large" in found.stderr
    assert list((cache / "folder").iterdir()) == []


def test_a_store_without_its_mark_is_built_again(root):
    data = folder(root)
    (data.prepare() / "meta.json").unlink()
    assert folder(root).store.masks.max() == 1


def test_rows_in_any_order_are_an_npy_file(tmp_path):
    rows = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    file = RowFile(tmp_path / "a.npy", np.float32, rows.shape)
    file.write(3, rows[3:])
    file.write(0, rows[:3])
    file.close()
    assert (np.load(tmp_path / "a.npy") == rows).all()
    assert b"".join(stored_bytes(tmp_path / "a.npy")) == rows.tobytes()
    again = RowFile(tmp_path / "a.npy", np.float32, rows.shape)  # keeps what is there
    again.write(1, np.zeros((1, 2, 3)))
    again.close()
    assert (np.load(tmp_path / "a.npy")[[0, 2]] == rows[[0, 2]]).all()
    with pytest.raises(ValueError, match="not \\(5, 2, 4\\)"):
        RowFile(tmp_path / "a.npy", np.float32, (5, 2, 4))


def test_checksums_are_those_of_the_arrays(root):
    store = folder(root).store
    assert {k: store.meta[k] for k in ("images_sha256", "masks_sha256")} == checksums(store.folder)
    changed = store.folder / "images.npy"
    with changed.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\x01")
    assert checksums(store.folder)["images_sha256"] != store.meta["images_sha256"]
    assert ArrayStore.complete(store.folder)
