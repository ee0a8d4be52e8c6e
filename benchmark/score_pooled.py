"""Values pooled over all cases: numbers that have no value per case, hence no interval and no test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..metrics.case import CaseView
from ..metrics.overlap import Floats, fraction, over_classes
from ..metrics.per_rater import own_counts


class Pool:
    """Adds up counts case by case.

    Args:
        variant: name of the variant; `dice_rater` is pooled where its release does (``pionono``).
        metrics: ids asked for; None: all.
    """

    def __init__(self, variant: str, metrics: Sequence[str] | None) -> None:
        self._dice = variant == "pionono" and (metrics is None or any(m.startswith("dice_rater") for m in metrics))
        self._counts: Floats | None = None
        self._present: np.ndarray = np.zeros(0, bool)
        self._view: CaseView | None = None

    def add(self, view: CaseView) -> None:
        """Add a case that has been scored under this variant; nothing of its pixels is kept."""
        if not self._dice or view.void:
            return
        counts = np.stack(own_counts(view))
        present = np.isin(np.arange(view.slots), view.present)
        if self._counts is None:
            self._counts, self._present = counts, present
            self._convention = view.convention("rater")
        else:
            self._counts = self._counts + counts
            self._present = self._present | present

    def values(self) -> dict[str, float | list[float]]:
        """Pooled ids to values: ``dice_rater.pooled`` of every rater slot; nan: a slot that no case has."""
        if self._counts is None:
            return {}
        inter, size_rater, size_map = self._counts
        parts = fraction("dice", inter, size_rater, size_map)
        each = over_classes(*parts, self._convention, reference=size_rater)
        each = np.where(self._present, each, math.nan)
        return {"dice_rater": float(np.nanmean(each)), "dice_rater.each": each.tolist()}
