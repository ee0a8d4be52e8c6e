"""Patterns with named fields."""

from __future__ import annotations

import errno
import os
import sys

import pytest
from multirater.core.errors import UserError
from multirater.datasets.patterns import compile_pattern, files_below, natural


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("{case}/image.png", "a b/image.png", {"case": "a b"}),
        ("{case}/image.png", "x/a/image.png", None),
        ("**/{case}.png", "x/y/a.png", {"case": "a"}),
        ("**/{case}.png", "a.png", {"case": "a"}),
        ("{case}_l{rater}.png", "z--105.0_c0_l2.png", {"case": "z--105.0_c0", "rater": "2"}),
        ("d/{case}/image_*.jpg", "d/3/image_4.jpg", {"case": "3"}),
        ("d/{case}/image_?.jpg", "d/3/image_14.jpg", None),
        ("{case}/{case}_{rater}.png", "a/a_1.png", {"case": "a", "rater": "1"}),
        ("{case}/{case}_{rater}.png", "a/b_1.png", None),
        ("{case:[0-9]{2}}.png", "12.png", {"case": "12"}),
        ("{case:[0-9]{2}}.png", "123.png", None),
        ("{case:(?:train|test)/[0-9]+}/i.png", "test/7/i.png", {"case": "test/7"}),
        ("a.b+(c)[1]/{case}.png", "a.b+(c)[1]/x.png", {"case": "x"}),
        ("a.b/{case}.png", "aXb/x.png", None),
    ],
)
def test_matching(pattern, path, fields):
    assert compile_pattern(pattern).match(path) == fields


def test_case_can_be_ignored_and_expressions_are_shared():
    assert compile_pattern("seg_{case}.png").match("Seg_B18.png") is None
    assert compile_pattern("seg_{case}.png", ignore_case=True).match("Seg_B18.PNG") == {"case": "B18"}
    image = compile_pattern("{case:[a-z]/[0-9]}/i.png")
    mask = compile_pattern("{case}/{rater}.png", expressions=image.expressions)
    assert mask.match("a/1/x.png") == {"case": "a/1", "rater": "x"}
    assert mask.fields == ("case", "rater")


@pytest.mark.parametrize("wrong", ["{case", "{}", "{case:}", "{1}", "{case:[0-9}", "{case:(}.png"])
def test_wrong_patterns_are_one_sentence(wrong):
    with pytest.raises(UserError, match="pattern") as caught:
        compile_pattern(wrong)
    assert "\n" not in str(caught.value)


def test_hidden_files_and_loops_are_left_out(tmp_path):
    for name in ("b/x.png", "a/x.png", "a/._x.png", ".git/x.png", "__MACOSX/a/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert files_below(tmp_path) == ["a/x.png", "b/x.png"]


def test_natural_order():
    assert sorted(["case10", "case2", "b", "Case1"], key=natural) == ["b", "Case1", "case2", "case10"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "x.png").write_bytes(b"")
    scandir = os.scandir

    def deny(path):  # permissions do not bind an administrator, who may run the tests
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(UserError, match=r"locked.*cannot be read.*permission denied"):
        files_below(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse the name themselves")
def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    with pytest.raises(UserError, match=r"caf\\xe9\.png.*not UTF-8") as caught:
        files_below(tmp_path)
    str(caught.value).encode()
