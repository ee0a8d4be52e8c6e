"""Files are whole or absent, also when the writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from multirater.core.errors import UserError
from multirater.core.files import read_json, replacing, write_bytes, write_json, write_text
from multirater.core.hashing import canonical_json, digest, file_digest, key8


def test_an_error_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "sub" / "x.json"
    write_json(path, {"old": 1})

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_half()
    assert read_json(path) == {"old": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


def test_sigkill_in_the_middle_leaves_the_old_file_and_blocks_nobody(tmp_path):
    path = tmp_path / "x.bin"
    write_bytes(path, b"old" * 1000)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom multirater.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'new')\n    print('half', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"half\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert path.read_bytes() == b"old" * 1000
    write_bytes(path, b"next")
    assert path.read_bytes() == b"next"


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "a" * 100_000)
    seen, stop = set(), time.monotonic() + 0.3

    def write():
        while time.monotonic() < stop:
            for letter in "ab":
                write_text(path, letter * 100_000)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while time.monotonic() < stop:
        text = path.read_text()
        seen.add((len(text), len(set(text))))
    for writer in writers:
        writer.join()
    assert seen == {(100_000, 1)}
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_json_is_comparable_and_strict(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"b": 1, "a": "é"})
    assert path.read_text() == '{\n "a": "é",\n "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"a": "é", "b": 1}
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"x\.json is not valid JSON"):
        read_json(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=r"x\.txt: permission denied"):
        write_text(tmp_path / "x.txt", "text")
    assert list(tmp_path.iterdir()) == []


def test_hashes_depend_on_content_not_on_order(tmp_path):
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "sha256sum of {}"
    assert key8({}) == "44136fa3"
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("inf"))
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_links_are_followed_and_devices_left_alone(tmp_path):
    target, link, pipe = tmp_path / "file.csv", tmp_path / "link.csv", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="device or a pipe"):
        write_text(pipe, "new")
    assert pipe.is_fifo()


def test_who_may_read_a_file_follows_the_umask_whatever_wrote_it(tmp_path):
    """The writer of safetensors makes a file of its own that nobody else may read."""
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as temporary:
            private = tmp_path / "private"
            private.write_text("x")
            private.chmod(0o600)
            os.replace(private, temporary)
        write_text(tmp_path / "b", "x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o640]
