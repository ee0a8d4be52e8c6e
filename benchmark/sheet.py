"""One table's numbers, looked up by line and metric, with the order of the lines and the best of each column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .aggregate import RowValues, scores_and_values
from .cell_values import FULL, Key
from .columns import HUMAN_OUTPUTS, REAL_ORDER, TRIVIAL
from .groups import Group, Row

Kind = Literal["human", "method", "trivial", "quoted"]  # of a line in a table


@dataclass(frozen=True)
class Line:
    """One printed line: an output of a row, or a row without any result (`output` empty)."""

    row: int
    output: str
    kind: Kind


@dataclass(frozen=True)
class Score:
    """One number of the table, as in the columns of `aggregate.SCORE_COLUMNS`."""

    metric: str
    variant: str
    n_samples: int
    n_cases: int
    n_patients: int
    value: float
    ci_low: float
    ci_high: float
    sd_cases: float
    n_seeds: int
    sd_seeds: float
    n_replaced: int
    n_dropped: int
    fallback: str
    note: str

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.ci_low)


@dataclass(frozen=True)
class CaseValues:
    """Case values of one output and metric: ids of n cases, their patients, n values (NaN: does not count)."""

    cases: list[str]
    patients: list[str]
    values: NDArray[np.float64]


class Sheet:
    """The canonical scores of a group; those over the whole image instead of the box have the id ``<metric>.full``.

    Args:
        group: a table of `groups.make_groups`.

    Attributes:
        scores: every score of the group, as `aggregate.score_group` gives them.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.scores, self._values = scores_and_values(group, lambda key: key[2] in ("", FULL))
        names = list(Score.__dataclass_fields__)
        self._found: dict[tuple[int, str, str], Score] = {}
        for record in self.scores[self.scores["variant"].isin(("", FULL))].to_dict("records"):
            metric = str(record["metric"]) + (f".{FULL}" if record["variant"] == FULL else "")
            key = (int(record["row"]), str(record["output"]), metric)
            old = self._found.get(key)
            if old is None or old.n_samples < record["n_samples"]:  # the full set; subsets are for curves
                self._found[key] = Score(**{name: record[name] for name in names})
        self.lines = self._ordered()
        self.memo: dict[Any, Any] = {}  # what was derived from the sheet and takes long

    def _ordered(self) -> list[Line]:
        order = (*HUMAN_OUTPUTS, *REAL_ORDER, *TRIVIAL)
        lines = []
        for index, row in enumerate(self.group.rows):
            outputs = sorted({output for r, output, _ in self._found if r == index})
            rank = {o: (o in TRIVIAL, order.index(o) if o in order else len(order), o) for o in outputs}
            if row.human:
                lines += [Line(index, o, "human") for o in sorted(outputs, key=rank.__getitem__)]
            else:
                found = sorted(outputs, key=rank.__getitem__)
                lines += [Line(index, o, "trivial" if o in TRIVIAL else "method") for o in found]
                if not outputs:
                    lines.append(Line(index, "", "method"))
        return lines

    def row(self, line: Line) -> Row:
        return self.group.rows[line.row]

    def score(self, line: Line, metric: str) -> Score | None:
        """The score, or None where the output does not claim the metric."""
        return self._found.get((line.row, line.output, metric))

    def case_values(self, line: Line, metric: str) -> CaseValues | None:
        """The case values behind a score, averaged over seeds; None where the output does not claim the metric."""
        row, column = self._column(line, metric)
        return None if row is None else CaseValues(row.cases, row.patients, row.values[:, column])

    def seed_means(self, line: Line, metric: str) -> NDArray[np.float64] | None:
        """Means of every seed of the row over the cases that all have, as ``row.seeds``; None as `case_values`."""
        row, column = self._column(line, metric)
        return None if row is None else row.seed_means[:, column]

    def _column(self, line: Line, metric: str) -> tuple[RowValues | None, int]:
        score, row = self.score(line, metric), self._values[line.row]
        if score is None or row is None:
            return None, -1
        base, variant = (metric.removesuffix(f".{FULL}"), FULL) if score.variant == FULL else (metric, "")
        key: Key = (line.output, base, variant, score.n_samples)
        return (row, row.keys.index(key)) if key in row.keys else (None, -1)  # no key: a mean over others

    @cached_property
    def metrics(self) -> set[str]:
        """Ids of all scores, with the reader in brackets where there is one."""
        return {metric for _, _, metric in self._found}

    def has(self, metric: str) -> bool:
        return any(key[2] == metric for key in self._found)

    def samples(self, line: Line) -> int | None:
        """S of an output: what its evaluation recorded, else what its set metrics used."""
        recorded = self.row(line).outputs.get(line.output, {}).get("n_samples")
        if recorded is not None:
            return int(recorded)
        used = [s.n_samples for (r, o, _), s in self._found.items() if (r, o) == (line.row, line.output)]
        return max(used, default=0) or None

    @cached_property
    def table_samples(self) -> int | None:
        """S at which sample metrics are compared: the largest of any method's own output."""
        found = [s for line in self.lines if line.kind == "method" and (s := self.samples(line)) is not None]
        return max(found, default=None)

    @cached_property
    def raters(self) -> list[str]:
        """Readers with a per-reader Dice, in the order of the data set."""
        found = {m[len("dice_rater[") : -1] for _, _, m in self._found if m.startswith("dice_rater[") and "{" not in m}
        known = [r for r in self.group.rater_ids if r in found]
        return known + sorted(found - set(known))

    @property
    def show_raters(self) -> bool:
        """Whether a per-reader table means anything: anonymous slots have none (metrics.md 4)."""
        return self.group.identity_kind != "none" and bool(self.raters)

    def most(self, attribute: str) -> int:
        """The largest number of cases or patients of any line."""
        return max((getattr(s, attribute) for s in self._found.values()), default=0)

    def data_value(self, metric: str) -> float:
        """A metric of the data alone, the same for every line (``diversity_raters``); NaN if nothing recorded it."""
        return next((s.value for (_, _, m), s in self._found.items() if m == metric), math.nan)

    def records(self) -> list[dict[str, Any]]:
        """The lines as plain data, for ``--json``."""
        out: list[dict[str, Any]] = []
        for line in self.lines:
            row = self.row(line)
            metrics = {
                m: {"value": s.value, "ci_low": s.ci_low, "ci_high": s.ci_high, "n_cases": s.n_cases}
                | {
                    "n_patients": s.n_patients,
                    "n_replaced": s.n_replaced,
                    "sd_seeds": s.sd_seeds,
                    "fallback": s.fallback,
                }
                for (r, o, m), s in self._found.items()
                if (r, o) == (line.row, line.output)
            }
            out.append(
                {
                    "method": row.method,
                    "method_variant": row.label,
                    "output": line.output,
                    "kind": line.kind,
                    "n_samples": self.samples(line),
                    "folds": list(row.folds),
                    "seeds": list(row.seeds),
                    "missing_folds": list(row.missing_folds),
                    "not_run": row.not_run,
                    "train_seconds": row.seconds("train"),
                    "predict_seconds": row.seconds("predict"),
                    "peak_memory_mb": row.peak_memory_mb,
                    "metrics": metrics,
                }
            )
        return out
