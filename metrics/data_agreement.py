"""How far the raters of a data set agree (specification section 7), for its data card.

What is a mean over cases and what is pooled:

* Dice, IoU, `gci` and STAPLE have a value for each case; the data set's is the mean over the cases where it is defined,
  and `undefined` counts the others.
* Kappas and the histogram of votes are computed once from counts summed over all cases. A case without any mark has no
  kappa of its own, and small cases make noisy ones.

Missing raters: a case counts for the pairs of raters who saw it. Fleiss' kappa and Krippendorff's alpha take the number
of raters of every pixel as it is; cases with one rater are left out of both. Cohen's kappa is that of each pair on the
cases both saw, then the mean over the pairs that share a case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from .agreement import cohen, fleiss, krippendorff_of
from .case import CaseView, Undefined
from .overlap import Floats
from .patterns import Counts, patterns_of
from .region import Region
from .score import Cases, evaluate
from .variants import conventions_of

_REGIONS: tuple[tuple[Region, str], ...] = (("box", ""), ("full", ".full"))
_MEANS = ("pairwise_dice", "pairwise_iou", "gci", "staple.dice")
_LISTS = ("staple.dice.each", "staple.sensitivity.each", "staple.specificity.each")


def agreement_cases(
    raters: Any, rater_valid: Any = None, spacing: Any = None, valid: Any = None, classes: Sequence[int] | None = None
) -> dict[str, Any]:
    """Agreement of the raters over N cases.

    Args:
        raters: N×R×H×W (or N×R×D×H×W), or a list of N arrays with the same R, which may differ in size.
        rater_valid: N×R, or R for all cases: False where a rater did not annotate a case.
        spacing: millimetres per pixel of every case, or N rows; sets the size of the box around the raters.
        valid: N×H×W, or H×W for all cases: pixels that count.
        classes: as in `multirater.metrics.score_cases`.

    Returns:
        Plain numbers, lists and dicts; undefined numbers are nan. Several classes: every value is the mean over the
        classes, and ``per_class`` holds those of each.

        ===================================== ===================================================================
        key                                   value
        ===================================== ===================================================================
        n_cases, n_raters, classes            numbers of cases and rater slots, evaluated labels
        cases_by_raters                       {number of raters: cases}
        pairwise_dice, pairwise_iou, gci,     mean over the cases where defined
        staple.dice
        staple.*.each                         the same for each rater slot
        undefined                             {metric: cases where it is undefined}, of the metrics above
        fleiss_kappa, cohen_kappa,            of counts pooled over cases; box, and with ``.full`` all pixels
        krippendorff, vote_histogram
        pair_dice                             R×R, mean Dice of two raters over the cases both saw; 1 on the diagonal
        pair_cases                            R×R, number of those cases; the diagonal: cases each rater saw
        rater_cases                           R, cases each rater saw
        rater_area                            R, mean number of marked pixels over those cases, all classes together
        rater_area_mm                         R, the same in mm² (mm³); only with a spacing
        ===================================== ===================================================================

    Raises:
        UserError: as `multirater.metrics.score_cases`; no case; or cases with different numbers of rater slots.

    Example:
        >>> import numpy as np
        >>> a = np.zeros((4, 4), bool); a[:, :2] = True
        >>> found = agreement_cases([np.stack([a, a.T]), np.stack([a, a])])
        >>> found["pairwise_dice"], found["pair_cases"]
        (0.75, [[2, 2], [2, 2]])
    """
    if not len(raters):
        raise UserError("raters holds no case; give at least one")
    table: AgreementTable | None = None
    for view in Cases(raters, {"rater_valid": rater_valid, "valid": valid, "spacing": spacing}, classes):
        if table is None:
            table = AgreementTable(view.slots, view.classes)
        table.add(view)
    assert table is not None
    return table.result()


class AgreementTable:
    """Sums over cases, for data sets that are read one case at a time.

    Args:
        slots: number of rater slots R of every case.
        classes: evaluated labels of every case.
    """

    def __init__(self, slots: int, classes: Sequence[int]) -> None:
        self.slots = slots
        self.classes = tuple(classes)
        self.cases = 0
        self._by_raters: dict[int, int] = {}
        self._parts = {label: _Sums(slots) for label in self.classes}
        self._whole = _Sums(slots)  # of several classes the mean for each case

    def add(self, view: CaseView) -> None:
        """Count a checked case.

        Raises:
            UserError: other rater slots or classes than the cases before.
        """
        if view.slots != self.slots:
            raise UserError(
                f"case {self.cases} has {view.slots} raters, the cases before {self.slots}; give all cases the same "
                f"raters and mark missing ones in rater_valid"
            )
        if view.classes != self.classes:
            raise UserError(f"case {self.cases} has classes {view.classes}, not {self.classes}; give classes")
        self.cases += 1
        self._by_raters[view.R] = self._by_raters.get(view.R, 0) + 1
        view.conventions = conventions_of(None, len(self.classes) > 1)
        self._whole.add_values(view)
        if view.void:
            return
        for label in self.classes:
            self._parts[label].add_counts(view, label)
        if len(self.classes) > 1:
            for label in self.classes:
                self._parts[label].add_values(_one_class(view, label))

    def result(self) -> dict[str, Any]:
        """The dict of `agreement_cases`."""
        parts = list(self._parts.values())
        out: dict[str, Any] = {
            "n_cases": self.cases,
            "n_raters": self.slots,
            "classes": list(self.classes),
            "cases_by_raters": dict(sorted(self._by_raters.items())),
            **self._whole.means(),
            **_over_classes([part.pooled() for part in parts]),
            **self._whole.pairs(),
            **_areas(parts, self._whole.seen.diagonal()),
        }
        if len(parts) > 1:
            seen = self._whole.seen.diagonal()
            out["per_class"] = {
                label: {**part.means(), **part.pooled(), **part.pairs(), **_areas([part], seen)}
                for label, part in self._parts.items()
            }
        return out


def _one_class(view: CaseView, label: int) -> CaseView:
    one = view.one_class(label)
    one.valid, one.spacing = view.valid, view.spacing
    return one


def _over_classes(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.mean([row[name] for row in rows], axis=0).tolist() for name in rows[0]}


def _areas(parts: Sequence[_Sums], seen: Counts) -> dict[str, list[float]]:
    out = {"rater_area": _divided(sum(part.area for part in parts), seen)}
    if parts[0].scaled:
        out["rater_area_mm"] = _divided(sum(part.area_mm for part in parts), seen)
    return out


def _divided(sums: Any, counts: Counts) -> list[float]:
    known = counts > 0
    return np.where(known, sums / np.where(known, counts, 1), math.nan).tolist()


class _Sums:
    """Sums over cases of one class, or of the values of all classes together."""

    def __init__(self, slots: int) -> None:
        square = (slots, slots)
        self.votes = {region: np.zeros((slots + 1, slots + 1), np.int64) for region, _ in _REGIONS}
        # For pairs on the cases both saw: intersections, size of the first, pixels of each region.
        self.inter, self.size = np.zeros(square, np.int64), np.zeros(square, np.int64)
        self.pixels = {region: np.zeros(square, np.int64) for region, _ in _REGIONS}
        self.area, self.area_mm, self.scaled = np.zeros(slots), np.zeros(slots), False
        self.seen = np.zeros(square, np.int64)
        self.dice = np.zeros(square)
        self.values: dict[str, list[Any]] = {name: [] for name in (*_MEANS, *_LISTS)}

    def add_counts(self, view: CaseView, label: int) -> None:
        found = patterns_of(view, label)
        pairs = np.ix_(view.present, view.present)
        inter = found.intersections()
        self.inter[pairs] += inter
        self.size[pairs] += inter.diagonal()[:, None]
        for region, _ in _REGIONS:
            self.votes[region][view.R, : view.R + 1] += found.votes(region)
            self.pixels[region][pairs] += found.pixels[region]
        self.area[view.present] += inter.diagonal()
        if view.spacing is not None:
            self.scaled = True
            self.area_mm[view.present] += inter.diagonal() * math.prod(view.spacing)

    def add_values(self, view: CaseView) -> None:
        for name, value in evaluate(view, self.values).items():
            self.values[name].append(value)
        if not view.void:
            pairs = np.ix_(view.present, view.present)
            self.seen[pairs] += 1
            self.dice[pairs] += view.similarity("dice", view.convention("agreement")).rr

    def means(self) -> dict[str, Any]:
        """Means over the cases where a value is defined, and how many are not."""
        out: dict[str, Any] = {}
        for name in _MEANS:
            out[name] = float(_known_mean(np.array(self.values[name])))
        for name in _LISTS:
            out[name] = _known_mean(np.array(self.values[name])).tolist()
        missing = {name: int(np.isnan(self.values[name]).sum()) for name in _MEANS}
        missing |= {name: int(np.isnan(self.values[name]).all(axis=1).sum()) for name in _LISTS}
        return {**out, "undefined": missing}

    def pooled(self) -> dict[str, Any]:
        """Coefficients of the counts of all cases."""
        out: dict[str, Any] = {}
        for region, mark in _REGIONS:
            table = self.votes[region]
            out["fleiss_kappa" + mark] = _or_nan(fleiss, table)
            out["cohen_kappa" + mark] = self._cohen(region)
            out["krippendorff" + mark] = _or_nan(krippendorff_of, table)
            total = int(table.sum())
            out["vote_histogram" + mark] = (table.sum(axis=0) / total if total else table[0] * math.nan).tolist()
        return out

    def _cohen(self, region: Region) -> float:
        pixels = self.pixels[region]
        upper = np.triu(pixels > 0, 1)
        values = cohen(np.stack([self.inter, self.size]), pixels)[upper]
        return float(values.mean()) if len(values) else math.nan

    def pairs(self) -> dict[str, Any]:
        known = self.seen > 0
        dice = np.where(known, self.dice / np.where(known, self.seen, 1), math.nan)
        return {
            "pair_dice": dice.tolist(),
            "pair_cases": self.seen.tolist(),
            "rater_cases": self.seen.diagonal().tolist(),
        }


def _known_mean(values: NDArray) -> Floats:
    """Mean over the first axis of the values that are not nan; nan if there are none."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), math.nan)


def _or_nan(function: Callable[[Counts], float], table: Counts) -> float:
    try:
        return function(table)
    except Undefined:
        return math.nan
