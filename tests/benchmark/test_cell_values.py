"""The values of a cell as arrays, and how they are kept: used while nothing changed, and never after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multirater.benchmark import cell_values as subject
from multirater.benchmark.cell_values import CellValues, cell_values
from multirater.benchmark.collect import DamagedCell, StoredCell, find_cells
from multirater.benchmark.directions import BY_DATA, BY_METHOD

VALUES = {
    "diverse": {
        "ged": [0.25, (np.nan, "method: no sample"), 0.5],
        "ncc": [0.1, 0.2, (np.nan, "data: one reader")],
        "dice_rater.each": {"1": [0.5, 0.6, 0.7], "2": [0.8, 0.9, (np.nan, "n/a")]},
    }
}


@pytest.fixture
def cell(fabricate: Callable[..., Any]) -> StoredCell:
    f = fabricate()
    f.cell("net", VALUES)
    return find_cells(f.results)[0]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that were parsed."""
    seen: list[str] = []
    parse = subject._parsed

    def watch(cell: StoredCell) -> CellValues:
        seen.append(cell.name)
        return parse(cell)

    monkeypatch.setattr(subject, "_parsed", watch)
    return seen


def kept_files(cell: StoredCell) -> list[Path]:
    return sorted((cell.folder.parents[3] / "derived" / "values").rglob("*.*"))


def same(a: CellValues, b: CellValues) -> bool:
    heads_agree = (a.cases, a.patients, a.keys) == (b.cases, b.patients, b.keys)
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("values", "undefined", "present")]
    return heads_agree and all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


def test_values_codes_and_presence_of_a_cell(cell):
    found = cell_values(cell)
    assert found.cases == ["c0000", "c0001", "c0002"]
    assert [key[1] for key in found.keys] == ["ged", "ncc", "dice_rater[1]", "dice_rater[2]"]
    assert found.keys[0] == ("diverse", "ged", "", 50)
    nan = np.nan
    expected = [[0.25, 0.1, 0.5, 0.8], [nan, 0.2, 0.6, 0.9], [0.5, nan, 0.7, nan]]
    np.testing.assert_array_equal(found.values, expected)
    np.testing.assert_array_equal(found.undefined, [[0] * 4, [BY_METHOD, 0, 0, 0], [0, BY_DATA, 0, 0]])
    np.testing.assert_array_equal(found.present, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]])


def test_what_was_parsed_once_is_read_again_to_the_bit(cell, parsed):
    first = cell_values(cell)
    assert len(kept_files(cell)) == 1
    assert same(cell_values(cell), first)
    assert parsed == [cell.name]


def test_a_file_that_was_touched_is_parsed_again(cell, parsed):
    first = cell_values(cell)
    path = cell.metrics_folder / "metrics.csv"
    path.write_bytes(path.read_bytes())
    assert same(cell_values(cell), first)
    assert len(parsed) == 2


def test_a_changed_value_is_noticed_even_with_the_old_time_and_size(cell):
    cell_values(cell)
    path = cell.metrics_folder / "metrics.csv"
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.35"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(DamagedCell, match="was changed after its record"):
        cell_values(cell)


def test_other_code_does_not_use_it(cell, parsed, monkeypatch):
    cell_values(cell)
    monkeypatch.setattr(subject, "_code", lambda: "another")
    cell_values(cell)
    cell_values(cell)
    assert len(parsed) == 2
    assert len(kept_files(cell)) == 1


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_kept_file_that_is_cut_off_is_made_again(cell, parsed, size):
    first = cell_values(cell)
    (path,) = kept_files(cell)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert same(cell_values(cell), first)
    assert len(parsed) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("after", "offset", "byte"),
    [
        (b"PK\x01\x02", 4, 1),  # of the directory of the zip: "encrypted"
        (b"PK\x01\x02", 6, 99),  # an unknown compression
        (b"{'descr'", -8, ord("(")),  # the header of an array is no literal
        (b"NUMPY", 0, 9),  # an unknown version
    ],
)
def test_a_kept_file_that_is_damaged_is_made_again(cell, after, offset, byte):
    first = cell_values(cell)
    (path,) = kept_files(cell)
    whole = bytearray(path.read_bytes())
    whole[whole.index(after) + len(after) + offset] = byte
    path.write_bytes(whole)
    assert same(cell_values(cell), first)


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.zeros((2, 4))},
        {"values": np.zeros((3, 4), np.float32)},
        {"present": np.zeros((3, 5), bool)},
        {"undefined": np.array([{}], dtype=object)},
    ],
)
def test_kept_arrays_that_do_not_fit_are_made_again(cell, change):
    first = cell_values(cell)
    (path,) = kept_files(cell)
    with np.load(path) as stored:
        np.savez(path, **{**stored, **change})
    assert same(cell_values(cell), first)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(cell, parsed):
    results = cell.folder.parents[3]
    (results / "derived").write_text("not a folder")
    first = cell_values(cell)
    assert same(cell_values(cell), first)
    assert len(parsed) == 2
