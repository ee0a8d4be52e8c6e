"""Two outputs against each other, case by case: the paired test, its size, and the cases that decide it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError, unknown
from .columns import REAL_ORDER, base_metric
from .directions import compared_at_equal_samples
from .leaderboard import sheets_of
from .ranked import TRACKS, Ranked, ranked, track_of
from .sheet import Line, Sheet

if TYPE_CHECKING:
    import pandas as pd

DECIDING = 5  # cases shown on each side
CASE_COLUMNS = ("case_id", "patient_id", "a", "b", "difference", "gain", "favours")


@dataclass(frozen=True)
class Comparison:
    """A against B by one metric on one data set.

    Attributes:
        sheet: the table both stand in.
        metric: id.
        found: the two as a `Ranked`, A first.
        p_table: p-value of this pair within the family of all pairs of the table; NaN where one does not compete there.
        n_table: number of pairs of that family.
        fallback: names whose masks for the readers are their common mask.
    """

    sheet: Sheet
    metric: str
    found: Ranked
    p_table: float
    n_table: int
    fallback: tuple[str, ...]

    @property
    def names(self) -> tuple[str, str]:
        return self.found.names[0], self.found.names[1]

    @cached_property
    def pair(self) -> dict[str, Any]:
        """The line of `statistics.pairwise`: difference A − B, interval, p-values, effect sizes."""
        return dict(self.found.pairs.iloc[0])

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Every case, `CASE_COLUMNS`, those that move the mean most first.

        ``difference`` is A − B; ``gain`` is how much better A is, whatever the direction of the metric; ``favours``
        names whom the case speaks for, empty where both are equal.
        """
        import pandas as pd

        table = self.found.table
        gain = table.sign * table.rounded(table.comparable[0] - table.comparable[1])
        patients = self._patients()
        frame = pd.DataFrame(
            {
                "case_id": list(table.cases),
                "patient_id": [patients[c] for c in table.cases],
                "a": table.values[0],
                "b": table.values[1],
                "difference": table.rounded(table.values[0] - table.values[1]),
                "gain": gain,
                "favours": np.where(gain > 0, self.names[0], np.where(gain < 0, self.names[1], "")),
            },
            columns=list(CASE_COLUMNS),
        )
        order = np.lexsort((frame["case_id"], -frame["gain"].abs()))
        return frame.iloc[order].reset_index(drop=True)

    def _patients(self) -> dict[str, str]:
        held = self.sheet.case_values(self.found.lines[0], self.metric)
        assert held is not None
        return dict(zip(held.cases, held.patients, strict=True))

    def deciding(self, count: int = DECIDING) -> pd.DataFrame:
        """The `count` cases that favour A most, then those that favour B most."""
        import pandas as pd

        cases = self.cases
        parts = [cases[cases["favours"] == name].head(count) for name in self.names]
        return pd.concat(parts, ignore_index=True)

    @property
    def turning(self) -> int | None:
        """How many cases must be left out, those that favour the better mean most, for its lead to be gone.

        None where the means are equal. A small number says that few cases decide.
        """
        cases = self.cases
        total = float(cases["gain"].sum())
        if abs(total) <= 1e-12 * max(float(cases["gain"].abs().sum()), 1e-300):
            return None
        favouring = np.sort((np.sign(total) * cases["gain"]).to_numpy())[::-1]
        left = abs(total) - np.cumsum(favouring)
        return int(np.argmax(left <= 1e-12 * abs(total))) + 1

    def record(self) -> dict[str, Any]:
        """Everything as plain values, for ``--json``."""

        def plain(value: Any) -> Any:
            value = value.item() if isinstance(value, np.generic) else value
            return None if isinstance(value, float) and math.isnan(value) else value

        return {
            **self.sheet.group.key,
            "metric": self.metric,
            "direction": self.found.direction,
            "n_samples": self.found.n_samples,
            "a": self.names[0],
            "b": self.names[1],
            **{k: plain(v) for k, v in self.pair.items() if k not in ("method_a", "method_b", "p_holm", "significant")},
            "mean_a": plain(self.found.means["value"].iloc[0]),
            "mean_b": plain(self.found.means["value"].iloc[1]),
            "p_adjusted_in_table": plain(self.p_table),
            "pairs_in_table": self.n_table,
            "turning_cases": self.turning,
            "common_mask": list(self.fallback),
            "deciding": [{k: plain(v) for k, v in line.items()} for line in self.deciding().to_dict("records")],
        }


def compare(
    results: Path, a: str, b: str, metrics: Sequence[str] = (), dataset: str = ""
) -> tuple[list[Comparison], list[str]]:
    """Compare two methods, or two outputs, in every table that holds both.

    Args:
        results: a results folder.
        a, b: ``METHOD``, ``METHOD/OUTPUT`` (``human/oracle``, ``dpersona/levels``), or a row's name as tables show it.
            A method alone stands for the output that the metric's track prefers.
        metrics: ids; empty: the primary metrics of all tracks.
        dataset: only tables of this data set.

    Returns:
        The comparisons, and one sentence for each reason why there is none, with the metrics that it holds for.

    Raises:
        UserError: an unknown name, no table with both, a metric that cannot compare, or nothing left to compare.
    """
    sheets = sheets_of(Path(results))
    if dataset:
        known = sorted({str(s.group.key["dataset"]) for s in sheets})
        if dataset not in known:
            raise unknown("data set in these results", dataset, known)
        sheets = [s for s in sheets if s.group.key["dataset"] == dataset]
    for name in (a, b):
        _check_name(sheets, name)
    both = [s for s in sheets if _rows(s, a) and _rows(s, b)]
    if not both:
        raise UserError(
            f"{a} and {b} stand in no table together (other data, options, protocol or preset); see "
            f"`multirater leaderboard`"
        )
    scored = {metric for sheet in both for metric in sheet.metrics}
    for metric in metrics:
        if metric not in scored:
            raise unknown("metric in these results", metric, sorted(scored))
    found: list[Comparison] = []
    reasons: dict[str, dict[str, None]] = {}  # a reason and the metrics that it holds for
    tried = list(metrics) or [m for track in TRACKS.values() for m in track.primary]
    for sheet in both:
        for metric in tried:
            try:
                found.append(_compare(sheet, metric, a, b))
            except UserError as error:
                reasons.setdefault(str(error), {})[metric] = None
    said = [f"{', '.join(of)}: {why}" for why, of in reasons.items()]
    if not found:
        raise UserError(f"nothing to compare {a} and {b} by {'; '.join(said)}")
    return found, said


def _compare(sheet: Sheet, metric: str, a: str, b: str) -> Comparison:
    lines = [_line(sheet, name, metric, other) for name, other in ((a, b), (b, a))]
    if lines[0] == lines[1]:
        raise UserError(f"both are the same output; name two, such as {sheet.row(lines[0]).method}/OUTPUT")
    for name, line in zip((a, b), lines, strict=True):
        if sheet.score(line, metric) is None:
            raise UserError(f"{name} has no value of it in {sheet.group.title}")
    found = ranked(sheet, metric, lines=lines)
    if len(found.lines) < 2:
        why = "; ".join(f"{sheet.row(line).name} {line.output}: {reason}" for line, reason in found.left_out.items())
        raise UserError(why)
    p, count = math.nan, 0
    try:
        table = ranked(sheet, metric)
    except UserError:
        pass
    else:
        count = len(table.lines) * (len(table.lines) - 1) // 2
        if set(lines) <= set(table.lines):
            p = float(table.tests[0][table.lines.index(lines[0]), table.lines.index(lines[1])])
    common = [sheet.row(line).name for line in lines if getattr(sheet.score(line, metric), "fallback", "")]
    return Comparison(sheet, metric, found, p, count, tuple(common))


def _split(name: str) -> tuple[str, str]:
    """Row and output of ``METHOD/OUTPUT``; a label may hold slashes, an output cannot."""
    method, slash, output = name.rpartition("/")
    return (method, output) if slash and ")" not in output else (name, "")


def _rows(sheet: Sheet, name: str) -> list[int]:
    """Rows that a name may mean: by the whole name if that fits, else by the method."""
    wanted, output = _split(name)
    rows = list(enumerate(sheet.group.rows))
    exact = [i for i, row in rows if row.name == wanted]
    fitting = exact or [i for i, row in rows if row.method == wanted]
    outputs = {i: {line.output for line in sheet.lines if line.row == i} for i in fitting}
    return [i for i in fitting if not output or output in outputs[i]]


def _check_name(sheets: Sequence[Sheet], name: str) -> None:
    wanted, output = _split(name)
    names = sorted({n for s in sheets for row in s.group.rows for n in (row.method, row.name)})
    if wanted not in names:
        raise unknown("method in these results", wanted, names)
    outputs = sorted(
        {line.output for s in sheets for line in s.lines if wanted in (s.row(line).method, s.row(line).name)} - {""}
    )
    if output and output not in outputs:
        raise unknown(f"output of {wanted}", output, outputs)


def _line(sheet: Sheet, name: str, metric: str, other: str) -> Line:
    """The line that a name means for a metric.

    Raises:
        UserError: several configurations of the method fit.
    """
    rows = _rows(sheet, name)
    if len(rows) > 1:
        shown = ", ".join(repr(sheet.group.rows[i].name) for i in rows)
        raise UserError(f"{name} has {len(rows)} configurations in {sheet.group.title}; write one of {shown}")
    wanted, output = _split(name)
    lines = [line for line in sheet.lines if line.row == rows[0]]
    if output:
        return next(line for line in lines if line.output == output)
    having = [line for line in lines if sheet.score(line, metric) is not None] or lines
    own = [line for line in having if line.kind != "trivial"] or having
    prefer = [*track_of(metric).prefer, *REAL_ORDER]
    own.sort(key=lambda line: prefer.index(line.output) if line.output in prefer else len(prefer))
    if compared_at_equal_samples(base_metric(metric)) and wanted != _split(other)[0]:
        at_s = [line for line in own if sheet.samples(line) == sheet.table_samples]
        own = at_s or own
    return own[0]
