"""What the report shows, as plain data: tables, rows, cells and case values, with ids and paths taken out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cell import PATHS
from ..collect import StoredCell
from ..columns import (
    BORDER_COLUMNS,
    CALIBRATION_COLUMNS,
    MEAN_COLUMNS,
    OUTPUT_NOTES,
    RATER_EXTRA,
    RATER_MEAN,
    SAMPLE_COLUMNS,
    Column,
    base_metric,
    rater_column,
)
from ..directions import direction
from ..groups import Row
from ..layout import COMMON_MASK, REPLACED, header_notes
from ..pseudonyms import pseudonyms
from ..ranked import TRACKS, marks, rankings
from ..sheet import Line, Score, Sheet

_PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:\\|/)[^\s:;,'\"()]*[/\\]([^\s:;,'\"()/\\]+)")
CASE_METRICS = (
    "ged",
    "ged.debiased",
    "hm_iou",
    "diversity_samples",
    "diversity_raters",
    "dice_soft",
    "dice_max_rater_to_sample",
    "dice_match",
    "dice_rater",
    "dice_rater.gap",
    "ncc",
    "ece",
    "brier",
    "hd95",
)
_DIGITS = 5  # of values in the report; the records hold them all


@dataclass
class Names:
    """Ids as the report shows them: pseudonyms of one data set, or the ids themselves."""

    fingerprint: str
    plain: bool
    cases: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)

    def learn(self, cases: list[str], patients: list[str]) -> None:
        """Add ids; a case keeps its name in every row."""
        for kind, ids, known in (("case", cases, self.cases), ("patient", patients, self.patients)):
            new = {name for name in ids if name not in known}
            known.update({name: name for name in new} if self.plain else pseudonyms(kind, self.fingerprint, new))


def metric_columns(sheet: Sheet) -> dict[str, list[Column]]:
    """Heading of a group of columns to its columns, as far as some line has them."""
    raters = [rater_column(r) for r in sheet.raters] if sheet.show_raters else []
    personal = [RATER_MEAN, *raters, *RATER_EXTRA] if sheet.show_raters else []
    groups = {
        "diversified": [*SAMPLE_COLUMNS],
        "personalised": personal,
        "calibrated mean": [*MEAN_COLUMNS, *CALIBRATION_COLUMNS],
        "borders": [*BORDER_COLUMNS],
    }
    return {name: [c for c in columns if sheet.has(c.metric)] for name, columns in groups.items()}


def group_record(sheet: Sheet, index: int) -> dict[str, Any]:
    """One table: its key, notes, columns and the rankings of its tracks."""
    group = sheet.group
    columns = metric_columns(sheet)
    return {
        "id": index,
        "title": group.title,
        "key": {k: v for k, v in group.key.items() if v not in ("", None)},
        "notice": group.notice,
        "notes": header_notes(sheet),
        "raters": list(group.rater_ids),
        "columns": {
            name: [
                {"metric": c.metric, "label": c.label, "note": c.note, "digits": c.digits, "way": way(c.metric)}
                for c in found
            ]
            for name, found in columns.items()
            if found
        },
    }


def way(metric: str) -> str:
    return direction(base_metric(metric.removesuffix(".full")))


def line_records(sheet: Sheet, group: int, first_row: int) -> list[dict[str, Any]]:
    """The lines of a table with the numbers of its columns.

    Args:
        sheet: the table.
        group: its number.
        first_row: number of its first row within the report.
    """
    wanted = {c.metric for columns in metric_columns(sheet).values() for c in columns}
    places = _places(sheet)
    records = []
    for line in sheet.lines:
        row = sheet.row(line)
        scores = {m: _score(s) for m in wanted if (s := sheet.score(line, m)) is not None and not math.isnan(s.value)}
        records.append(
            {
                "group": group,
                "row": first_row + line.row,
                "method": row.method,
                "name": row.name,
                "output": line.output,
                "kind": line.kind,
                "S": sheet.samples(line),
                "folds": list(row.folds),
                "seeds": list(row.seeds),
                "missing": len(row.missing),
                "missing_folds": list(row.missing_folds),
                "not_run": row.not_run,
                "train_s": _rounded(row.seconds("train")),
                "predict_s": _rounded(row.seconds("predict")),
                "memory_mb": _rounded(row.peak_memory_mb),
                "scores": scores,
                "place": places.get(line, {}),
            }
        )
    return records


def _places(sheet: Sheet) -> dict[Line, dict[str, str]]:
    """Line to metric to ``best`` or ``alike`` (not significantly worse than the best)."""
    places: dict[Line, dict[str, str]] = {}
    for metric in rankings(sheet):
        for lines, name in zip(marks(sheet, metric), ("best", "alike"), strict=True):
            for line in lines:
                places.setdefault(line, {})[metric] = name
    return places


def _score(score: Score) -> list[Any]:
    """value, interval (or null), cases, marks."""
    said = (COMMON_MASK if score.fallback else "") + (REPLACED if score.n_replaced else "")
    interval = [_rounded(score.ci_low), _rounded(score.ci_high)] if score.has_interval else None
    return [_rounded(score.value), interval, score.n_cases, said]


def row_record(sheet: Sheet, index: int, names: Names) -> dict[str, Any]:
    """One row in full: all its scores, its cells with configuration and provenance, and its case values."""
    row = sheet.group.rows[index]
    lines = [line for line in sheet.lines if line.row == index]
    return {
        "name": row.name,
        "method": row.method,
        "title": "; ".join(filter(None, [sheet.group.title, sheet.group.notice])),
        "outputs": {line.output: OUTPUT_NOTES.get(line.output, "") for line in lines if line.output},
        "all_scores": _all_scores(sheet, lines),
        "cells": [cell_record(cell) for cell in (*row.cells, *row.missing)],
        "cases": _cases(sheet, row, lines, names),
    }


def _all_scores(sheet: Sheet, lines: list[Line]) -> list[list[Any]]:
    """output, metric, variant, S, cases, patients, value, low, high, replaced, dropped, note."""
    outputs = {line.output for line in lines}
    if not lines:
        return []
    scores = sheet.scores[sheet.scores["row"] == lines[0].row]
    names = "output metric variant n_samples n_cases n_patients value ci_low ci_high n_replaced n_dropped note".split()
    found = scores[scores["output"].isin(outputs)].sort_values(["output", "metric", "variant"], kind="stable")
    return [[_plain(v) for v in values] for values in found[names].itertuples(index=False, name=None)]


def _cases(sheet: Sheet, row: Row, lines: list[Line], names: Names) -> dict[str, Any]:
    """Case values of the row's outputs, for the metrics that a reader of a table asks about."""
    raters = [f"dice_rater[{r}]" for r in sheet.raters] if sheet.show_raters else []
    metrics = [*CASE_METRICS[:9], *raters, *CASE_METRICS[9:]]
    ids: list[str] = []
    patients: list[str] = []
    outputs: dict[str, dict[str, list[float | None]]] = {}
    for line in lines:
        for metric in metrics:
            found = sheet.case_values(line, metric)
            if found is None:
                continue
            ids, patients = found.cases, found.patients
            outputs.setdefault(line.output, {})[metric] = _values(found.values)
    names.learn(ids, patients)
    shown = [names.cases[c] for c in ids]
    # In the order of what is shown: the order of the ids would say which pseudonym is which.
    order = sorted(range(len(ids)), key=shown.__getitem__)
    return {
        "ids": [shown[i] for i in order],
        "patients": [names.patients[patients[i]] for i in order],
        "outputs": {
            output: {metric: [values[i] for i in order] for metric, values in found.items()}
            for output, found in outputs.items()
        },
        "ways": {m: way(m) for m in metrics},
    }


def _values(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(v) else v for v in np.round(values, _DIGITS).tolist()]


def cell_record(cell: StoredCell) -> dict[str, Any]:
    """A cell's state, configuration and provenance, without paths of this machine."""
    result = {k: v for k, v in cell.result.items() if k != "outputs"}
    return {
        "name": cell.name,
        "fold": cell.spec["fold"],
        "seed": cell.spec["seed"],
        "state": cell.state,
        "why": without_paths(cell.why),
        "config": _clean(cell.spec),
        "training": _clean(cell.train),
        "evaluation": _clean(result),
        "outputs": _clean(cell.outputs),
    }


def without_paths(text: str) -> str:
    """Words that are absolute paths, cut to their last part."""
    return _PATH.sub(lambda found: found.group(1), text)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items() if k not in PATHS or v is None}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    return without_paths(value) if isinstance(value, str) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 6)


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return _rounded(float(value))
    return int(value) if isinstance(value, np.integer) else value


def tracks() -> list[dict[str, Any]]:
    """The tracks in the order of the leaderboard."""
    return [{"name": t.name, "question": t.question, "primary": list(t.primary)} for t in TRACKS.values()]
