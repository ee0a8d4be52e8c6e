"""Tables say where the cells of one method come from different code."""

from __future__ import annotations

import pytest
from multirater.benchmark.layout import header_notes
from multirater.benchmark.leaderboard import render, sheets_of
from multirater.core.files import read_json, write_json

VALUES = {"mean": {"dice": [0.5, 0.75]}}
A, B = ({"revision": letter * 40, "diff_sha256": None, "multirater": "1.0"} for letter in "ab")
MIXED = "cells of one method by different code: "
ADVICE = " (`run --overwrite outdated` makes them again)"


def score_by(cell, code) -> None:
    """Put the code into the record of the evaluation."""
    (path,) = cell.glob("eval/*/result.json")
    write_json(path, {**read_json(path), "code": code})


def noted(f) -> list[str]:
    (sheet,) = sheets_of(f.results)
    return [note for note in header_notes(sheet) if note.startswith(MIXED)]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (A, B, "net trained by aaaaaaa, bbbbbbb"),
        (A, {**A, "diff_sha256": "c" * 64}, "net trained by aaaaaaa, aaaaaaa with changes ccccccc"),
        ({"multirater": "1.0", "revision": None}, {"multirater": "1.1"}, "net trained by 1.0, 1.1"),
        (A, A, None),
        (A, {}, None),  # a record that does not name its code
    ],
)
def test_seeds_that_were_trained_by_different_code(fabricate, first, second, words):
    f = fabricate()
    f.cell(values=VALUES, train={"code": first})
    f.cell(values=VALUES, seed=1, train={"code": second})
    assert noted(f) == ([] if words is None else [MIXED + words + ADVICE])
    assert (MIXED in render(sheets_of(f.results), "md")) == (words is not None)


def test_methods_may_be_of_different_code_but_not_the_seeds_of_one(fabricate):
    f = fabricate()
    f.cell("one", values=VALUES, train={"code": A})
    f.cell("two", values=VALUES, train={"code": B})
    assert noted(f) == []
    for seed, code in enumerate((A, B), 1):
        score_by(f.cell("two", values=VALUES, seed=seed, train={"code": B}), code)
    assert noted(f) == [MIXED + "two scored by aaaaaaa, bbbbbbb (`evaluate --force` scores all again)"]
