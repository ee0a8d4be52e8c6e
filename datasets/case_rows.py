"""Which rows of a store make one case: all slices of a volume in order, or a single row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError

if TYPE_CHECKING:
    from .base import CaseRecord


@dataclass(frozen=True)
class CaseRows:
    """One case of an evaluation.

    Attributes:
        case_id: of the volume, or of the row.
        patient_id: whose case it is.
        rows: its rows in the case list, a volume's in the order of its slices.
        volume: the rows are slices of a volume (also of one with a single slice): it is scored in 3D.
        spacing: mm, (slice, row, column) of a volume, else as the row has it.
    """

    case_id: str
    patient_id: str
    rows: NDArray[np.intp]
    volume: bool = False
    spacing: tuple[float, ...] | None = None


def case_rows(records: Sequence[CaseRecord], indices: Sequence[int] | NDArray[Any]) -> list[CaseRows]:
    """Rows grouped into cases by ``meta["volume"]`` and ordered by ``meta["slice"]``.

    Cases come in the order of their first row in `indices`; a row that names no volume is a case of its own.

    Args:
        records: the case list.
        indices: rows of it, each at most once.

    Raises:
        UserError: slices of one volume that have one number, or differ in patient or spacing, or no slice distance.
    """
    groups: dict[tuple[bool, str], list[int]] = {}
    for index in map(int, indices):
        volume = records[index].meta.get("volume")
        key = (False, records[index].case_id) if volume is None else (True, str(volume))
        groups.setdefault(key, []).append(index)
    return [_case(records, name, volume, rows) for (volume, name), rows in groups.items()]


def _case(records: Sequence[CaseRecord], name: str, volume: bool, rows: list[int]) -> CaseRows:
    first = records[rows[0]]
    if not volume:
        return CaseRows(name, first.patient_id, np.array(rows), False, first.spacing)
    rows = sorted(rows, key=lambda r: int(records[r].meta["slice"]))
    numbers = [int(records[r].meta["slice"]) for r in rows]
    if len(set(numbers)) < len(numbers):
        raise UserError(f"slices of volume {name!r} have the same number; give each slice of a volume its own")
    for what in ("patient_id", "spacing"):
        found = {str(getattr(records[r], what)) for r in rows}
        if len(found) > 1:
            raise UserError(f"slices of volume {name!r} differ in {what} ({', '.join(sorted(found))}); give all one")
    if first.spacing is not None and len(first.spacing) != 3:
        raise UserError(
            f"volume {name!r} has the spacing {list(first.spacing)}; give three millimetres: slice, row and column"
        )
    return CaseRows(name, first.patient_id, np.array(rows), True, first.spacing)
