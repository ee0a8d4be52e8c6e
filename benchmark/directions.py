"""Direction, track and worst value of a metric (from its registration), and who leaves a value undefined."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..metrics.registry import METRICS, info_of

APPLIES_NOT, BY_DATA, BY_METHOD = 0, 1, 2

# Metrics give their reasons in words. What a prediction can change is the method's; what the readers alone decide, the
# data's.
_METHODS = re.compile(r"\b(samples?|maps?|predict\w*|outputs?)\b")
_DATAS = re.compile(r"\b(raters?|readers?|pixels?|this case)\b")


@lru_cache(maxsize=1024)
def _info(metric: str) -> Mapping[str, Any]:
    """Metadata; a metric of a package that is not installed here has none and is shown without direction."""
    name = f"{metric}.each" if metric not in METRICS and f"{metric}.each" in METRICS else metric
    return info_of(name) if name in METRICS else {}


def direction(metric: str) -> str:
    """``higher``, ``lower``, ``target 0`` or ``none``."""
    return str(_info(metric).get("direction", "none"))


def depends_on_samples(metric: str) -> bool:
    """Whether its expectation changes with S, so that values at different S must not be compared."""
    return bool(_info(metric).get("depends_on_samples", False))


def compared_at_equal_samples(metric: str) -> bool:
    """Whether rows are compared at one S only.

    A mean map is compared as it is: a deterministic one would otherwise have no rival (metrics.md 14, rule 2).
    """
    return depends_on_samples(metric) and track(metric) != "mean"


def worst_value(metric: str) -> float:
    """The value that stands in where a method leaves a metric undefined (metrics.md 12); NaN if there is none."""
    worst = _info(metric).get("worst")
    return math.nan if worst is None else float(worst)


def track(metric: str) -> str:
    """What a metric judges: ``diversified`` (a set of samples), ``personalised`` (a map per reader), ``mean`` or
    ``data``."""
    needs = [set(group.split("|")) for group in _info(metric).get("needs", ())]
    for given, name in (("rater_probs", "personalised"), ("mean_prob", "mean"), ("samples", "diversified")):
        if any(given in group for group in needs):
            return name
    return "data"


def undefined_by(reason: str) -> int:
    """Who left a value undefined: `APPLIES_NOT`, `BY_DATA` or `BY_METHOD`.

    A reason may say so itself (``n/a``, ``data: …``, ``method: …``); one that cannot be placed is the method's, which
    costs the method and not the comparison.
    """
    head = reason.partition(":")[0].strip()
    if head in ("", "n/a", "not claimed"):
        return APPLIES_NOT
    if head in ("data", "method"):
        return BY_DATA if head == "data" else BY_METHOD
    if _METHODS.search(reason):
        return BY_METHOD
    return BY_DATA if _DATAS.search(reason) else BY_METHOD
