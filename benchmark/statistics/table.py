"""The object that all statistics take: one metric on one data set, methods × cases, patients as clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ..bootstrap import cluster_sums
from ..columns import base_metric
from ..directions import direction as direction_of

if TYPE_CHECKING:
    import pandas as pd

FRAME_COLUMNS = ("method", "case_id", "patient_id", "value")
DIRECTIONS = ("higher", "lower", "target 0")
_DIGITS = 12  # beyond them two values are the same: sums in another order must not break a tie


@dataclass(frozen=True)
class CaseTable:
    """Case values after the nan policy (metrics.md 12), one row per method.

    Attributes:
        values: k×n case values; NaN where a method has none.
        methods: k names.
        clusters: n numbers of patients, 0 to G-1.
        direction: ``higher``, ``lower`` or ``target 0`` is better. A metric with a target is compared by the distance
            of each case from it, and aggregated by the distance of the mean.
        cases: n case ids; may be empty.

    Raises:
        UserError: shapes that do not fit, an infinite value, or a metric without direction.
    """

    values: NDArray[np.float64]
    methods: tuple[str, ...]
    clusters: NDArray[np.intp]
    direction: str = "higher"
    cases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise UserError(
                f"direction {self.direction!r}: methods can be compared by a metric with one of "
                f"{', '.join(map(repr, DIRECTIONS))} only; choose another metric"
            )
        k, n = len(self.methods), len(self.clusters)
        if self.values.shape != (k, n) or (self.cases and len(self.cases) != n):
            raise UserError(f"values of shape {self.values.shape} do not fit {k} methods and {n} cases; give k x n")
        if n == 0 or k == 0:
            raise UserError("no case values: nothing to compare; evaluate at least one cell with this metric")
        if np.isinf(self.values).any():
            row, column = np.argwhere(np.isinf(self.values))[0]
            name = f"case {self.cases[column]}" if self.cases else f"case number {column}"
            raise UserError(
                f"the value of {self.methods[row]} in {name} is infinite; replace it by the metric's worst value first"
            )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, metric: str = "", direction: str = "") -> CaseTable:
        """A table from long form, sorted by method and case, so that the order of the lines does not matter.

        Args:
            frame: the columns of `FRAME_COLUMNS`, one line per method and case, NaN or no line where there is no value.
            metric: id, for the direction.
            direction: given in place of `metric`.

        Raises:
            UserError: a column is missing, a method has two values of a case, a case two patients, or what the class
                refuses.
        """
        import pandas as pd

        lacking = [name for name in FRAME_COLUMNS if name not in frame]
        if lacking:
            raise UserError(f"the frame lacks {', '.join(lacking)}; it needs the columns {', '.join(FRAME_COLUMNS)}")
        keys = frame[["method", "case_id", "patient_id"]].astype(str)
        twice = keys.duplicated(["method", "case_id"])
        if twice.any():
            line = keys[twice].iloc[0]
            raise UserError(
                f"{line['method']} has two values of case {line['case_id']}; average over seeds first and give one each"
            )
        patient_of = keys.drop_duplicates(["case_id", "patient_id"])
        split = patient_of["case_id"].duplicated()
        if split.any():
            raise UserError(
                f"case {patient_of.loc[split, 'case_id'].iloc[0]} belongs to two patients; a case has one patient"
            )
        method_codes, methods = pd.factorize(keys["method"], sort=True)
        case_codes, cases = pd.factorize(keys["case_id"], sort=True)
        values = np.full((len(methods), len(cases)), np.nan)
        values[method_codes, case_codes] = frame["value"].to_numpy(dtype=np.float64)
        patients = np.empty(len(cases), dtype=object)
        patients[case_codes] = keys["patient_id"].to_numpy()
        clusters = np.unique(patients.astype(str), return_inverse=True)[1].astype(np.intp)
        way = direction or direction_of(base_metric(metric))
        return cls(values, tuple(map(str, methods)), clusters, way, tuple(map(str, cases)))

    @property
    def k(self) -> int:
        return len(self.methods)

    @property
    def n(self) -> int:
        return len(self.clusters)

    @property
    def n_clusters(self) -> int:
        return int(self.clusters.max()) + 1

    @property
    def sign(self) -> float:
        """What makes larger values better once multiplied with `comparable`."""
        return 1.0 if self.direction == "higher" else -1.0

    @cached_property
    def comparable(self) -> NDArray[np.float64]:
        """k×n values whose differences are tested: raw ones, or distances from the target; equal up to rounding."""
        return self.rounded(np.abs(self.values) if self.direction == "target 0" else self.values)

    @cached_property
    def _decimals(self) -> int:
        scale = np.nanmax(np.abs(self.values), initial=0.0, where=~np.isnan(self.values))
        return int(np.clip(_DIGITS - math.ceil(math.log10(scale)), 0, 300)) if scale > 0 else _DIGITS

    def rounded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values on the table's scale without the noise of floating-point sums, which would break ties."""
        return np.round(values, self._decimals) + 0.0

    def loss(self, aggregated: NDArray[np.float64]) -> NDArray[np.float64]:
        """Aggregated values as numbers of which the smallest is the best, ready to be ranked."""
        moved = np.abs(aggregated) if self.direction == "target 0" else -self.sign * aggregated
        return self.rounded(moved)

    def select(self, methods: Sequence[str]) -> CaseTable:
        """Some of the methods, in this order, on all cases.

        Raises:
            UserError: a method that is not in the table.
        """
        absent = [name for name in methods if name not in self.methods]
        if absent:
            raise UserError(f"{absent[0]!r} is not in this table; it holds {', '.join(self.methods)}")
        rows = [self.methods.index(name) for name in methods]
        return CaseTable(self.values[rows], tuple(methods), self.clusters, self.direction, self.cases)

    def replaced(self, values: NDArray[np.float64]) -> CaseTable:
        """The same methods and cases with other values."""
        return CaseTable(values, self.methods, self.clusters, self.direction, self.cases)

    def cluster_means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means per patient of rows×n case values: rows×G, NaN where a patient has none."""
        sums, counts = cluster_sums(values.T, self.clusters)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).T


def pair_indices(k: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs a < b of k methods."""
    return np.triu_indices(k, 1)
