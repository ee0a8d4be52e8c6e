"""Rows of arrays as the cases that are scored: a single row, or all slices of a volume as one array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..datasets.case_rows import CaseRows
from .class_layout import ClassLayout, Mask

if TYPE_CHECKING:
    from ..datasets.base import Dataset


def as_case(rows: NDArray, volume: bool) -> NDArray:
    """Arrays of the rows of one case, n×…×H×W, as …×D×H×W of a volume or …×H×W of a single row."""
    return np.moveaxis(rows, 0, -3) if volume else rows[0]


def places(cases: Sequence[CaseRows]) -> list[slice]:
    """Where each case lies in arrays whose rows are those of all cases, one after another."""
    ends = np.cumsum([len(case.rows) for case in cases])
    return [slice(int(end) - len(case.rows), int(end)) for end, case in zip(ends, cases, strict=True)]


def masks_of(dataset: Dataset, case: CaseRows) -> tuple[NDArray, NDArray]:
    """Masks R×[K×][D×]H×W and which raters saw the case (R bool).

    Raises:
        UserError: a rater who saw some slices of a volume only.
    """
    masks, valid = dataset.masks(case.rows)
    if (valid != valid[0]).any():
        rater = int(np.flatnonzero((valid != valid[0]).any(0))[0])
        raise UserError(
            f"rater {dataset.describe().rater_ids[rater]!r} saw some slices of volume {case.case_id!r} of "
            f"{dataset.name}, but not all; a volume is scored as a whole, so give that rater all of its slices or none"
        )
    return as_case(masks, case.volume), valid[0]


def region_of(dataset: Dataset, case: CaseRows) -> NDArray | None:
    """The pixels [D×]H×W of a case that count, None if all do; metrics leave out the others."""
    found = dataset.valid_region(case.rows)
    return None if found is None else as_case(found, case.volume)


def subset(cases: Sequence[CaseRows], limit: int | None) -> list[CaseRows]:
    """At most `limit` of `cases`, taken one patient after the other so that they spread over patients."""
    if limit is None or len(cases) <= limit:
        return list(cases)
    seen: dict[str, int] = {}
    turn = []
    for case in cases:
        seen[case.patient_id] = seen.get(case.patient_id, 0) + 1
        turn.append(seen[case.patient_id])
    return [cases[i] for i in np.sort(np.argsort(turn, kind="stable")[:limit])]


def rows_of(cases: Sequence[CaseRows]) -> NDArray[np.intp]:
    """The rows of all cases, one case after another."""
    return np.concatenate([case.rows for case in cases]) if cases else np.zeros(0, np.intp)


@dataclass(frozen=True)
class OneClass:
    """The masks of one class of a case, against which everything is scored; of a volume …×D×H×W.

    Attributes:
        case: ids, rows and spacing.
        label: the class, as in the column ``label``; empty: all classes together.
        raters: R×H×W bool (class indices for all classes together).
        valid: R bool.
        region: [D×]H×W bool, the pixels that count (a field of view); None: all do.
    """

    case: CaseRows
    label: str
    raters: NDArray
    valid: Mask
    region: Mask | None = None


@dataclass(frozen=True)
class Scored:
    """One case and how its arrays hold the classes.

    Attributes:
        masks: R×[K×][D×]H×W as the data set gives them.
        planes: R×K×[D×]H×W bool.
        valid: R bool.
        region: [D×]H×W bool, the pixels that count; None: all do.
    """

    case: CaseRows
    layout: ClassLayout
    masks: NDArray
    planes: Mask
    valid: Mask
    region: Mask | None = None

    @classmethod
    def of(cls, dataset: Dataset, layout: ClassLayout, case: CaseRows) -> Scored:
        """A case of a data set, whose rows have the given layout."""
        own = layout.of_case(case)
        masks, valid = masks_of(dataset, case)
        return cls(case, own, masks, own.planes(masks), valid, region_of(dataset, case))

    def classes(self) -> Iterator[tuple[int, OneClass]]:
        for k, label in enumerate(self.layout.labels):
            yield k, OneClass(self.case, label, self.planes[:, k], self.valid, self.region)
