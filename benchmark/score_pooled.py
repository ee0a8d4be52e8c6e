"""Values pooled over all cases: numbers that have no value per case, hence no interval and no test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from ..metrics.bins import Bins, pooled_ece
from ..metrics.calibration import bins_of
from ..metrics.case import CaseView
from ..metrics.components import NotKept
from ..metrics.pooled import Pool

# Pooled ids to the function of `multirater.metrics.pooled.Pool` that gives a list over the rater slots.
PER_RATER = {
    "dice_rater.pooled": Pool.dice_rater,
    "micro_miou.pooled": Pool.micro_miou,
    "cohens_kappa.pooled": Pool.cohens_kappa,
}
# Pooled ids to the bins of `multirater.metrics.calibration.bins_of`.
CALIBRATION = {
    f"{kind}.pooled{region}": f"{kind}{region}"
    for kind in ("ece", "ece.top", "ece.each", "ece.disagree", "ece.rater")
    for region in ("", ".full")
}
POOLED = (*PER_RATER, *CALIBRATION)
_MAPS = {"samples", "probs", "mean_prob"}


@dataclass(frozen=True)
class Pooled:
    """A value over all cases, and its parts by rater slot if it has any; nan: nothing to pool."""

    value: float
    each: list[float] | None = None


def split_pooled(metrics: Sequence[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """Metrics per case and pooled ones, of a list that may name both; None stands for all."""
    if metrics is None:
        return None, None
    per_case = [m for m in metrics if m not in POOLED]
    return per_case, [m for m in metrics if m in POOLED]


def region_of_pooled(name: str) -> str:
    """``box`` or ``full``."""
    return "box" if name in CALIBRATION and not name.endswith(".full") else "full"


class PooledValues:
    """Sums of counts under one variant, case by case; nothing of a case's pixels is kept.

    Args:
        variant: name of the variant.
        given: the inputs of the cases.
        metrics: ids asked for, of which the pooled ones count (and ``dice_rater*`` under ``pionono``, whose release
            pools it); None: all that the inputs allow.

    Raises:
        UserError: a pooled id that was asked for and whose inputs are missing.
    """

    def __init__(self, variant: str, given: frozenset[str], metrics: Sequence[str] | None) -> None:
        asked = split_pooled(metrics)[1]
        for name in asked or ():
            lacking = _lacking(name, given)
            if lacking:
                raise UserError(f"{name!r} needs {lacking}, which was not given; pass it or leave the metric out")
        if asked is not None and variant == "pionono" and any(m.startswith("dice_rater") for m in metrics or ()):
            asked = [*asked, "dice_rater.pooled"]
        self._names = [n for n in POOLED if not _lacking(n, given) and (asked is None or n in asked)]
        self._variant = variant
        self._strict = asked is not None
        self._pool = Pool(variant)
        self._bins: dict[str, list[Bins]] = {name: [] for name in self._names if name in CALIBRATION}

    def add(self, view: CaseView) -> None:
        """Add a case."""
        if any(name in PER_RATER for name in self._names):
            self._pool.add(view)
        if self._bins:
            try:
                found = bins_of(view, self._variant)
            except NotKept:  # components of a version without these bins
                if self._strict:
                    raise
                self._names = [name for name in self._names if name not in self._bins]
                self._bins = {}
                return
            for name, cases in self._bins.items():
                cases.append(found[CALIBRATION[name]])

    def values(self) -> dict[str, Pooled]:
        """The value of each pooled id."""
        out = {}
        for name in self._names:
            if name in CALIBRATION:
                out[name] = Pooled(float(pooled_ece(self._bins[name])))
            else:
                each = PER_RATER[name](self._pool)
                known = [value for value in each if not math.isnan(value)]
                out[name] = Pooled(float(np.mean(known)) if known else math.nan, each)
        return out


def _lacking(name: str, given: frozenset[str]) -> str:
    """Inputs of a pooled id that are missing, or nothing."""
    if name.startswith("ece.rater."):
        return "" if "rater_probs" in given else "rater_probs"
    allowed = _MAPS if name in CALIBRATION else _MAPS | {"rater_probs"}
    return "" if given & allowed else " or ".join(sorted(allowed))
