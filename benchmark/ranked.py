"""Who ranks where, and how firmly: one metric of one table, as tables, figures and comparisons use it.

``ranked(sheet, "ged")`` gathers the case values of the outputs that may be compared and answers, lazily, with
everything of metrics.md 13: means, paired tests, ranks under all schemes, stability, Friedman's test. What may not be
compared is named with its reason instead of being ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError, unknown
from .columns import REAL_ORDER, base_metric
from .directions import compared_at_equal_samples, direction
from .sheet import Line, Sheet
from .statistics import (
    SCHEMES,
    CaseTable,
    Friedman,
    RaterOrders,
    Stability,
    friedman,
    groups_by_tests,
    holm,
    leave_one_rater_out,
    means,
    pairwise,
    rank_stability,
    ranking_table,
    ranks_of,
)
from .statistics.differences import ALPHA, paired_tests
from .statistics.raters import mean_without
from .statistics.table import DIRECTIONS, pair_indices

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Track:
    """One question of the leaderboard (metrics.md 14).

    Attributes:
        name: as it is printed.
        question: what it asks.
        primary: the metrics by which it ranks; the first is the one that is named beforehand.
        secondary: shown beside them.
        prefer: outputs of a method from the first to the last choice; a method competes with one.
    """

    name: str
    question: str
    primary: tuple[str, ...]
    secondary: tuple[str, ...]
    prefer: tuple[str, ...] = REAL_ORDER


TRACKS: dict[str, Track] = {
    "diversified": Track(
        "diversified",
        "does the set of samples cover the readers' masks?",
        ("ged", "hm_iou"),
        ("ged.debiased", "diversity_gap", "dice_match", "dice_max_rater_to_sample", "ncc", "empty_gap"),
        ("diverse", "personalised", "consensus"),
    ),
    "personalised": Track(
        "personalised",
        "does the mask meant for a reader agree with that reader?",
        ("dice_rater",),
        ("dice_rater.worst", "dice_rater.gap", "rater_identification", "hd95", "nsd"),
        ("personalised", "diverse", "consensus"),
    ),
    "calibrated mean": Track(
        "calibrated mean",
        "is the mean map the readers' vote share?",
        ("dice_soft",),
        ("ece", "ece.full", "brier", "brier.full", "nll"),
        ("diverse", "consensus", "personalised"),
    ),
}


def track_named(name: str) -> Track:
    """A track by its name; ``mean`` is short for the third.

    Raises:
        UserError: with the nearest valid name.
    """
    name = "calibrated mean" if name in ("mean", "calibrated-mean") else name
    if name not in TRACKS:
        raise unknown("track", name, TRACKS)
    return TRACKS[name]


def track_of(metric: str) -> Track:
    """The track that shows a metric; by what the metric judges if none does."""
    from .directions import track

    for found in TRACKS.values():
        if metric in (*found.primary, *found.secondary):
            return found
    return TRACKS.get(track(base_metric(metric)), TRACKS["calibrated mean"])


@dataclass(frozen=True)
class Ranked:
    """Outputs of methods that one metric may compare, and what follows from their case values.

    Attributes:
        metric: id.
        direction: ``higher``, ``lower`` or ``target 0``.
        n_samples: S at which all are compared; None where the metric does not depend on it.
        table: k×n case values; its methods are `names`.
        lines: k lines of the sheet, in the order of `names`.
        left_out: line to the reason why it is not compared, one clause.
        raters: reader to k×n values of this reader alone, for metrics that are means over readers.
    """

    metric: str
    direction: str
    n_samples: int | None
    table: CaseTable
    lines: tuple[Line, ...]
    left_out: dict[Line, str]
    raters: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """k names, unique in the sheet: the method, its differing options, and the output where it competes twice."""
        return self.table.methods

    @cached_property
    def means(self) -> pd.DataFrame:
        """Means with intervals: `statistics.differences.MEAN_COLUMNS`."""
        return means(self.table)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Every pair tested, one Holm family: `statistics.differences.PAIR_COLUMNS`."""
        return pairwise(self.table)

    @cached_property
    def to_best(self) -> pd.DataFrame:
        """Every other name against the first of the best: the columns of `pairs`, `method_b` is the best.

        ``p_holm`` and ``significant`` are those of the family of all pairs, as in `pairs`, which takes long for many
        methods and is not needed here.
        """
        best = self.best[0]
        at = self.names.index(best)
        others = [name for name in self.names if name != best]
        frame = pairwise(self.table, pairs=[(name, best) for name in others])
        frame["p_holm"] = [self.tests[0][self.names.index(name), at] for name in others]
        frame["significant"] = frame["p_holm"] <= ALPHA
        return frame.set_index("method_a", drop=False)

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Ranks under every scheme of `statistics.SCHEMES`, sorted by the canonical one."""
        return ranking_table(self.table)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names from the best to the worst by the canonical ranking."""
        return tuple(self.ranks["method"])

    @cached_property
    def tests(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Adjusted two-sided p-values and rank-biserial effects of all pairs as k×k in the order of `names`.

        Those of `pairs`, without what takes long there. The effect is above 0 where the row is better.
        """
        k = len(self.names)
        a, b = pair_indices(k)
        found = paired_tests(self.table, a, b)
        p, effect = np.full((k, k), np.nan), np.full((k, k), np.nan)
        p[a, b] = p[b, a] = holm(found.p)
        effect[a, b], effect[b, a] = found.rank_biserial, -found.rank_biserial
        return p, effect

    @cached_property
    def p(self) -> pd.DataFrame:
        """k×k adjusted two-sided p-values in the order of `order`; NaN on the diagonal: the significance map."""
        import pandas as pd

        frame = pd.DataFrame(self.tests[0], index=list(self.names), columns=list(self.names))
        return frame.loc[list(self.order), list(self.order)]

    @cached_property
    def friedman(self) -> Friedman:
        """Do the methods differ at all?"""
        return friedman(self.table)

    @cached_property
    def joined(self) -> list[tuple[str, ...]]:
        """Bars of the critical-difference diagram: runs in mean-rank order without a significant difference."""
        return groups_by_tests(self.names, self.friedman.mean_ranks, self.tests[0])

    def stability(self, scheme: str = "mean") -> Stability:
        """The ranking again in 1,000 bootstrap samples of the patients; kept for the next call."""
        if scheme not in self._stabilities:
            self._stabilities[scheme] = rank_stability(self.table, scheme)
        return self._stabilities[scheme]

    @cached_property
    def _stabilities(self) -> dict[str, Stability]:
        return {}

    @cached_property
    def without_a_rater(self) -> RaterOrders | None:
        """The ranking with every reader left out once; None for metrics that are no means over readers."""
        if len(self.raters) < 2 or len(self.names) < 2:
            return None
        return leave_one_rater_out(self.table, mean_without(self.table, self.raters))

    @cached_property
    def best(self) -> tuple[str, ...]:
        """Those with canonical rank 1; none if there is nobody to compare with."""
        if len(self.names) < 2:
            return ()
        first = ranks_of(self.table) == 1
        return tuple(name for name, is_first in zip(self.names, first, strict=True) if is_first)

    @cached_property
    def alike(self) -> tuple[str, ...]:
        """Those that are not the best but not significantly worse than any of the best either, in the order of `names`.

        Significantly worse: adjusted p ≤ 0.05 and the test favours the other. Where few cases decide the mean, the test
        may favour the one with the worse mean; that one is not worse.
        """
        p, effect = self.tests
        worse = (p <= ALPHA) & (effect < 0)
        best = [self.names.index(name) for name in self.best]
        return tuple(n for i, n in enumerate(self.names) if best and i not in best and not worse[i, best].any())

    def rank(self, line: Line, scheme: str = "mean") -> int | None:
        """Rank of a line under a scheme; None where it is not ranked."""
        if line not in self.lines or len(self.lines) < 2:
            return None
        if scheme not in SCHEMES:
            raise unknown("ranking scheme", scheme, SCHEMES)
        row = self.ranks[self.ranks["method"] == self.name_of(line)]
        return int(row[f"rank_{scheme}"].iloc[0])

    def name_of(self, line: Line) -> str:
        return self.names[self.lines.index(line)]


def ranked(sheet: Sheet, metric: str, track: str | Track | None = None, lines: Sequence[Line] | None = None) -> Ranked:
    """Compare the methods of a table by one metric.

    Every method competes with one output, the one its track prefers; a metric that depends on the number of samples
    compares at the table's S only. Human and trivial rows are never ranked.

    Args:
        sheet: a table.
        metric: id.
        track: of `TRACKS`; None: the one that shows the metric.
        lines: compare these lines instead, whatever their kind; those that cannot be are left out with the reason.

    Raises:
        UserError: the metric has no direction, or no line has a value that may be compared.
    """
    chosen_track = _track(track, metric)
    key = ("ranked", metric, chosen_track.name)
    if lines is None and key in sheet.memo:
        return sheet.memo[key]
    way = direction(base_metric(metric))
    if way not in DIRECTIONS:
        raise UserError(
            f"metric {metric!r} has no better direction and cannot rank methods; choose one with an arrow in "
            f"`multirater list metrics`"
        )
    at_s = compared_at_equal_samples(base_metric(metric))
    left_out: dict[Line, str] = {}
    chosen = list(lines) if lines is not None else _competing(sheet, metric, chosen_track, at_s, left_out)
    if lines is None:
        samples = sheet.table_samples if at_s else None
    else:
        used = [s for line in chosen if sheet.score(line, metric) and (s := sheet.samples(line)) is not None]
        samples = max(used, default=None) if at_s else None
    values = {}
    for line in chosen:
        held = sheet.case_values(line, metric)
        if held is None or np.isnan(held.values).all():
            left_out[line] = "no value of this metric"
        elif samples is not None and sheet.samples(line) != samples:
            left_out[line] = f"S = {sheet.samples(line)}, compared at S = {samples}"
        else:
            values[line] = held
    patient_of = {c: p for held in values.values() for c, p in zip(held.cases, held.patients, strict=True)}
    counted = {
        line: {c for c, v in zip(h.cases, h.values, strict=True) if not math.isnan(v)} for line, h in values.items()
    }
    cases = sorted(set().union(*counted.values())) if counted else []
    for line, own in counted.items():
        if len(own) < len(cases):
            left_out[line] = f"values on {len(own)} of {len(cases)} cases"
            del values[line]
    if not values:
        why = "; ".join(sorted(set(left_out.values()))) or "no method has a finished cell"
        raise UserError(f"nothing to rank by {metric} in {sheet.group.title}: {why}")
    kept = tuple(values)
    at = [np.array(_positions(values[line].cases, cases)) for line in kept]
    matrix = np.stack([values[line].values[i] for line, i in zip(kept, at, strict=True)])
    clusters = np.unique([patient_of[c] for c in cases], return_inverse=True)[1].astype(np.intp)
    table = CaseTable(matrix, _names(sheet, kept), clusters, way, tuple(cases))
    found = Ranked(metric, way, samples, table, kept, left_out, _of_raters(sheet, metric, kept, cases))
    if lines is None:
        sheet.memo[key] = found
    return found


def _track(track: str | Track | None, metric: str) -> Track:
    if track is None:
        return track_of(metric)
    return track if isinstance(track, Track) else track_named(track)


def _competing(sheet: Sheet, metric: str, track: Track, at_s: bool, left_out: dict[Line, str]) -> list[Line]:
    """One line per method: the first in the track's preference that can be compared, else the first with a value."""
    chosen = []
    for index, row in enumerate(sheet.group.rows):
        lines = [line for line in sheet.lines if line.row == index and line.kind == "method"]
        rank = {o: i for i, o in enumerate(track.prefer)}
        lines.sort(key=lambda line: (rank.get(line.output, len(rank)), line.output))
        having = [line for line in lines if sheet.score(line, metric) is not None]
        if not lines:
            continue  # human
        if not having:
            left_out[lines[0]] = "no result" if not row.cells else "no value of this metric"
            continue
        own = [line for line in having if not getattr(sheet.score(line, metric), "fallback", "")] or having
        fitting = [line for line in own if not at_s or sheet.samples(line) == sheet.table_samples]
        line = (fitting or own)[0]
        for other in having:
            if other is not line:
                left_out[other] = f"the method competes with its output {line.output!r}"
        if row.missing_folds:
            left_out[line] = f"no result of fold {', '.join(map(str, row.missing_folds))}"
        else:
            chosen.append(line)
    return chosen


def _names(sheet: Sheet, lines: Sequence[Line]) -> tuple[str, ...]:
    """Unique names: the output is added where a row competes twice."""
    rows = [line.row for line in lines]
    return tuple(sheet.row(line).name + (f" · {line.output}" if rows.count(line.row) > 1 else "") for line in lines)


def _positions(having: Sequence[str], wanted: Sequence[str]) -> list[int]:
    at = {case: i for i, case in enumerate(having)}
    return [at[case] for case in wanted]


def _of_raters(
    sheet: Sheet, metric: str, lines: Sequence[Line], cases: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Values of single readers behind a mean over readers; empty if a line has none."""
    found = {}
    for rater in sheet.raters if sheet.show_raters else []:
        rows = []
        for line in lines:
            held = sheet.case_values(line, f"{metric}[{rater}]")
            if held is None:
                return {}
            rows.append(held.values[_positions(held.cases, cases)])
        found[rater] = np.stack(rows)
    return found


def marks(sheet: Sheet, metric: str, track: str | Track | None = None) -> tuple[set[Line], set[Line]]:
    """The lines with the best value of a metric, and those not significantly worse; none where none compare."""
    try:
        found = ranked(sheet, metric, track)
    except UserError:
        return set(), set()
    of_name = dict(zip(found.names, found.lines, strict=True))
    return {of_name[name] for name in found.best}, {of_name[name] for name in found.alike}


def rankings(sheet: Sheet) -> dict[str, Ranked]:
    """The primary metrics of all tracks that the table can rank by, track after track."""
    found: dict[str, Ranked] = {}
    for track in TRACKS.values():
        for metric in track.primary:
            if sheet.has(metric):
                try:
                    found[metric] = ranked(sheet, metric, track)
                except UserError:
                    continue  # the table says who is not ranked and why
    return found
