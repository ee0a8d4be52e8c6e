"""One line for each metric over the cases of a score: means under the rule for undefined values (metrics.md 12).

Where the *data* leave a metric undefined, the case is left out and counted; where the *predictions* do, the metric's
worst value takes the place and is counted. A metric that the predictions leave undefined in every case does not apply
to them (one sample has no pair): it has no mean.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..metrics.registry import METRICS, info_of
from .directions import BY_DATA, BY_METHOD, track, undefined_by, worst_value
from .score import Case, Scores

MISSING_RATER = "this rater did not annotate this case"
NO_ENTRY = "undefined for this entry"
OVER_RATERS = "mean of the raters' means"


@dataclass(frozen=True)
class Line:
    """A metric, or an entry of a list-valued one, over all cases.

    Attributes:
        name: as printed, for example ``dice_rater[2]``.
        metric: the registered id.
        rater, label: of an entry of a list, else empty.
        mean: over `n` cases, replaced values included; nan: there is none.
        sd: standard deviation over these cases (n − 1).
        n: cases in the mean.
        left_out: cases that the data leave undefined (or that have no worst value), not in the mean.
        replaced: cases that the predictions leave undefined, in the mean with the worst value.
        mean_defined: over the defined values alone.
        reasons: (reason, ``left out`` or ``replaced by <worst>``) to the number of cases.
    """

    name: str
    metric: str
    rater: str
    label: str
    mean: float
    sd: float
    n: int
    left_out: int
    replaced: int
    mean_defined: float
    reasons: dict[tuple[str, str], int] = field(default_factory=dict)
    pooled: bool = False

    @property
    def undefined(self) -> int:
        """Cases without a value of their own."""
        return self.left_out + self.replaced


@dataclass(frozen=True)
class Entry:
    """A value of a case: a scalar metric's, or one entry of a list."""

    metric: str
    rater: str
    label: str
    value: float
    reason: str
    worst: float = math.nan  # what stands in where the predictions leave it undefined; nan: nothing does


def entries_of(
    name: str, value: Any, case: Case, reasons: dict[str, str], rater_ids: Sequence[str] | None
) -> list[Entry]:
    """The entries of a metric of one case, each undefined one with its reason."""
    worst = _worst(name, case)
    if not isinstance(value, list):
        reason = reasons.get(name, "") if math.isnan(value) else ""
        return [Entry(name, "", "", value, reason, worst)]
    kind = info_of(name)["values"]
    out = []
    for i, number in enumerate(value):
        reason = ""
        if math.isnan(number):
            missing = kind == "rater" and i < len(case.present) and not case.present[i]
            reason = MISSING_RATER if missing else reasons.get(name, NO_ENTRY)
        rater = (rater_ids[i] if rater_ids else str(i + 1)) if kind == "rater" else ""
        label = str(case.classes[i]) if kind == "class" else "" if kind == "rater" else str(i)
        out.append(Entry(name, rater, label, number, reason, worst))
    return out


def _worst(metric: str, case: Case) -> float:
    """The metric's worst value; of a distance in the image its diagonal, which differs from case to case."""
    worst = worst_value(metric)
    if math.isnan(worst) and info_of(metric)["family"] == "surface":
        return case.diagonal
    return worst


def summarise(scores: Scores, cases: Sequence[Case], rater_ids: Sequence[str] | None = None) -> dict[str, list[Line]]:
    """Lines of each metric: one, or one for each entry of a list (``dice_rater[1]``, ``ged[class 2]``)."""
    columns: dict[str, dict[tuple[str, str], list[Entry]]] = {}
    for case, values, reasons in zip(cases, scores.cases, scores.reasons, strict=True):
        for name, value in values.items():
            for entry in entries_of(name, value, case, reasons, rater_ids):
                columns.setdefault(name, {}).setdefault((entry.rater, entry.label), []).append(entry)
    out = {}
    for name, entries in columns.items():
        lines = [_line(name, rater, label, found) for (rater, label), found in entries.items()]
        out[name] = lines + _over_raters(name, lines)
    return out


def pooled_lines(scores: Scores, cases: int, rater_ids: Sequence[str] | None = None) -> list[Line]:
    """Lines of the values pooled over all cases."""
    out = []
    for name, pooled in scores.pooled.items():
        each = pooled.each or []
        raters = [rater_ids[i] if rater_ids else str(i + 1) for i in range(len(each))]
        for rater, value in [("", pooled.value), *zip(raters, each, strict=True)]:
            n = 0 if math.isnan(value) else cases
            shown = f"{name}[{rater}]" if rater else name
            out.append(Line(shown, name, rater, "", value, math.nan, n, 0, 0, value, {}, pooled=True))
    return out


def shown_name(metric: str, rater: str, label: str) -> str:
    """``dice_rater[2]``, ``ged[class 1]``, ``vote_histogram[3 votes]``, or the id itself."""
    if rater:
        return f"{metric.removesuffix('.each')}[{rater}]"
    if label:
        kind = info_of(metric)["values"]
        text = f"class {label}" if kind == "class" else f"{label} {kind}"
        return f"{metric.removesuffix('.per_class')}[{text}]"
    return metric


def _line(metric: str, rater: str, label: str, entries: Sequence[Entry]) -> Line:
    applies = any(not math.isnan(e.value) for e in entries)
    values, defined = [], []
    reasons: Counter[tuple[str, str]] = Counter()
    left_out = replaced = 0
    for entry in entries:
        if not math.isnan(entry.value):
            values.append(entry.value)
            defined.append(entry.value)
        elif applies and not math.isnan(entry.worst) and _by(entry) == BY_METHOD:
            values.append(entry.worst)
            replaced += 1
            reasons[entry.reason, f"replaced by {entry.worst:g}"] += 1
        else:
            left_out += 1
            reasons[entry.reason, "left out"] += 1
    numbers = np.array(values)
    return Line(
        name=shown_name(metric, rater, label),
        metric=metric,
        rater=rater,
        label=label,
        mean=float(numbers.mean()) if len(numbers) else math.nan,
        sd=float(numbers.std(ddof=1)) if len(numbers) > 1 and np.isfinite(numbers).all() else math.nan,
        n=len(numbers),
        left_out=left_out,
        replaced=replaced,
        mean_defined=float(np.mean(defined)) if defined else math.nan,
        reasons=dict(reasons),
    )


def _by(entry: Entry) -> int:
    if entry.reason == MISSING_RATER or track(entry.metric) == "data":
        return BY_DATA
    return undefined_by(entry.reason)


def _over_raters(metric: str, lines: Sequence[Line]) -> list[Line]:
    """The mean of the raters' means, where it differs from the case-level mean because raters miss cases."""
    if info_of(metric)["values"] != "rater" or len({line.n for line in lines}) < 2:
        return []
    known = [line.mean for line in lines if not math.isnan(line.mean)]
    if not known:
        return []
    mean = float(np.mean(known))
    name = f"{metric.removesuffix('.each')}.over_raters"
    return [Line(name, metric, OVER_RATERS, "", mean, math.nan, max(line.n for line in lines), 0, 0, mean)]


def in_order(names: Iterable[str]) -> list[str]:
    """Metrics by section of the specification, then as registered."""
    rank = {name: i for i, name in enumerate(METRICS.names())}

    def key(name: str) -> tuple[list[int], int, str]:
        section = [int(part) for part in str(info_of(name)["section"]).split(".") if part.isdigit()]
        return section, rank.get(name, len(rank)), name

    return sorted(dict.fromkeys(names), key=key)
