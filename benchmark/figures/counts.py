"""Counts of the scored cases of a row, as kept beside the values: figures of them need neither masks nor images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ..cell import Cell
from ..groups import Group, Row
from .source import LeftOut, patients_of

if TYPE_CHECKING:
    from ...metrics.components import Components


@dataclass(frozen=True)
class Counted:
    """All cases of all cells of a row for one output and class.

    Attributes:
        output: whose counts.
        cases: counts, a case of several seeds once for each.
        case_ids: as many ids.
        patients: as many numbers of patients, 0 to G-1.
        n_samples: S of the output.
    """

    output: str
    cases: list[Components]
    case_ids: list[str]
    patients: NDArray[np.intp]
    n_samples: int

    @property
    def n_cases(self) -> int:
        return len(set(self.case_ids))

    @property
    def n_patients(self) -> int:
        return int(self.patients.max()) + 1


def counted(group: Group, row: Row, outputs: tuple[str, ...], k: int = 0) -> Counted:
    """The counts of the first of `outputs` that the row has, for its k-th class (from 0).

    Raises:
        LeftOut: no finished cell, none of the outputs, or counts that were not stored or are damaged.
    """
    from ...metrics.components import load_components

    if not row.cells:
        raise LeftOut("no finished cell")
    output = next((o for o in outputs if any("n_samples" in c.outputs.get(o, {}) for c in row.cells)), None)
    if output is None:
        raise LeftOut(f"the method gives none of {', '.join(outputs)}")
    mark = f"-class{k + 1}" if group.class_names else ""
    cases: list[Components] = []
    patients: list[str] = []
    for cell in row.cells:
        path = Cell(cell.folder).eval_folder(cell.spec["eval_key"]) / f"components-{output}{mark}.npz"
        if not path.is_file():
            raise LeftOut(f"{cell.name} stores no counts of {output} (bundles and published records leave them behind)")
        patient_of = patients_of(cell)
        try:
            found = load_components(path)
        except UserError as error:
            raise LeftOut(str(error)) from error
        cases += found
        patients += [patient_of[case.case_id] for case in found]
    numbers = np.unique(patients, return_inverse=True)[1].astype(np.intp)
    samples = max(int(c.outputs.get(output, {}).get("n_samples", 0)) for c in row.cells)
    return Counted(output, cases, [case.case_id for case in cases], numbers, samples)
