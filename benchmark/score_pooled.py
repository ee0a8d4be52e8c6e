"""Values pooled over all cases: numbers that have no value per case, hence no interval and no test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core.errors import UserError
from ..metrics.case import CaseView
from ..metrics.pooled import Pool

# Pooled ids to the function of `multirater.metrics.pooled.Pool`: lists over the rater slots.
PER_RATER = {
    "dice_rater.pooled": Pool.dice_rater,
    "micro_miou.pooled": Pool.micro_miou,
    "cohens_kappa.pooled": Pool.cohens_kappa,
}
POOLED = tuple(PER_RATER)


def split_pooled(metrics: Sequence[str] | None) -> tuple[list[str] | None, list[str] | None]:
    """Metrics per case and pooled ones, of a list that may name both; None stands for all."""
    if metrics is None:
        return None, None
    per_case = [m for m in metrics if m not in POOLED]
    return per_case, [m for m in metrics if m in POOLED]


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
        maps = not given.isdisjoint({"samples", "probs", "rater_probs", "mean_prob"})
        pooled = split_pooled(metrics)[1]
        if pooled and not maps:
            raise UserError(f"{pooled[0]!r} needs samples, probs, rater_probs or mean_prob; give one of them")
        if pooled is not None and variant == "pionono" and any(m.startswith("dice_rater") for m in metrics or ()):
            pooled = [*pooled, "dice_rater.pooled"]
        self._names = [name for name in PER_RATER if maps and (pooled is None or name in pooled)]
        self._pool = Pool(variant)

    def add(self, view: CaseView) -> None:
        """Add a case."""
        if self._names:
            self._pool.add(view)

    def values(self) -> dict[str, float | list[float]]:
        """Ids without ``.pooled`` to the mean over the rater slots, and with ``.each`` to the list over them; nan: a
        slot that no case has."""
        out: dict[str, float | list[float]] = {}
        for name in self._names:
            each = PER_RATER[name](self._pool)
            known = [value for value in each if not math.isnan(value)]
            out[name.removesuffix(".pooled")] = float(np.mean(known)) if known else math.nan
            out[f"{name.removesuffix('.pooled')}.each"] = each
        return out
