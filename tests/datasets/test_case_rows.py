"""Rows of a store as the cases that are scored."""

from __future__ import annotations

from typing import Any

import pytest
from multirater.core.errors import UserError
from multirater.datasets.base import CaseRecord
from multirater.datasets.case_rows import case_rows


def slice_of(volume: str, number: int, **changes: Any) -> CaseRecord:
    given: dict[str, Any] = {"patient_id": "p", "spacing": (3.0, 1.0, 1.0), **changes}
    return CaseRecord(f"{volume}/z{number:04d}", meta={"volume": volume, "slice": number}, **given)


def test_slices_are_put_in_order_and_other_rows_stay_alone() -> None:
    records = [slice_of("a", 2), CaseRecord("b", "q"), slice_of("a", 0), slice_of("c", 0), slice_of("a", 1)]
    found = case_rows(records, [1, 0, 3, 2, 4])
    assert [(c.case_id, c.volume, c.rows.tolist()) for c in found] == [
        ("b", False, [1]),
        ("a", True, [2, 4, 0]),
        ("c", True, [3]),
    ]
    assert [(c.patient_id, c.spacing) for c in found] == [("q", None), ("p", (3.0, 1.0, 1.0)), ("p", (3.0, 1.0, 1.0))]
    assert case_rows(records, []) == []


def test_a_row_and_a_volume_of_one_name_are_two_cases() -> None:
    assert len(case_rows([slice_of("a", 0), CaseRecord("a", "p")], [0, 1])) == 2


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        ({}, 0, "slices of volume 'a' have the same number; give each slice of a volume its own"),
        ({"patient_id": "q"}, 1, "slices of volume 'a' differ in patient_id (p, q); give all one"),
        ({"spacing": (2.0, 1.0, 1.0)}, 1, "slices of volume 'a' differ in spacing"),
    ],
)
def test_slices_that_do_not_make_a_volume(changes: dict[str, Any], number: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        case_rows([slice_of("a", 0), slice_of("a", number, **changes)], [0, 1])
    assert str(error.value).startswith(message)


def test_a_volume_needs_the_distance_of_its_slices() -> None:
    with pytest.raises(UserError, match="three millimetres: slice, row and column"):
        case_rows([slice_of("a", 0, spacing=(1.0, 1.0))], [0])
