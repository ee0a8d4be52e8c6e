"""Scores as JSON and CSV. Beside every number stand S, R and the region it runs over (metrics.md 11)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..core.files import write_text
from ..core.hashing import digest
from ..metrics.convention import CANONICAL, FIVE_LEVELS
from ..metrics.registry import info_of
from ..metrics.variants import conventions_of
from .score import Case, Result, Scores
from .score_pooled import region_of_pooled
from .score_summary import OVER_RATERS, Line, entries_of, pooled_lines, summarise

CASE_COLUMNS = "case_id rater label metric variant region n_samples n_raters value reason".split()
SUMMARY_COLUMNS = (
    "metric rater label variant region n_samples n_raters mean sd n left_out replaced mean_defined pooled reasons"
).split()


def region_of(metric: str) -> str:
    """``box`` or ``full``: the pixels a metric runs over."""
    return str(info_of(metric)["region"]) or "full"


def as_json(path: Path, result: Result, every: bool, rater_ids: Sequence[str] | None) -> dict[str, Any]:
    """Per-case values and summaries; nan becomes null."""
    cases = result.cases
    names = sorted({name for scored in result.scores.values() for name in scored.cases[0]})
    head: dict[str, Any] = {
        "file": str(path),
        "n_cases": len(cases),
        "multirater": __version__,
        "case_list": digest([case.case_id for case in cases]),
        "n_samples": [case.n_samples for case in cases],
        "n_raters": [case.n_raters for case in cases],
        "raters": list(rater_ids) if rater_ids else [str(r + 1) for r in range(len(cases[0].present))],
        "classes": list(cases[0].classes),
        "region": {name: region_of(name) for name in names},
        "metric_version": {name: int(info_of(name)["version"]) for name in names},
    }
    if not every:
        ((variant, scored),) = result.scores.items()
        return {**head, "variant": variant, **_variant(variant, scored, cases, rater_ids)}
    return {
        **head,
        "variants": {variant: _variant(variant, scored, cases, rater_ids) for variant, scored in result.scores.items()},
        "same_as_canonical": list(result.same),
    }


def _variant(variant: str, scored: Scores, cases: Sequence[Case], rater_ids: Sequence[str] | None) -> dict[str, Any]:
    lines = summarise(scored, cases, rater_ids)
    lists = {name for name, value in scored.cases[0].items() if isinstance(value, list)}

    def each(number: Callable[[Line], Any]) -> dict[str, Any]:
        found = {name: [number(line) for line in lines[name] if line.rater != OVER_RATERS] for name in lines}
        return {name: values if name in lists else values[0] for name, values in found.items()}

    out: dict[str, Any] = {
        "mean": each(lambda line: _plain(line.mean)),
        "sd": each(lambda line: _plain(line.sd)),
        "n": each(lambda line: line.n),
        "undefined": each(lambda line: line.undefined),
        "left_out": each(lambda line: line.left_out),
        "replaced": each(lambda line: line.replaced),
        "mean_defined": each(lambda line: _plain(line.mean_defined)),
        "over_raters": {
            line.metric: _plain(line.mean) for found in lines.values() for line in found if line.rater == OVER_RATERS
        },
        "why": [
            {"metric": line.name, "reason": reason, "treatment": treatment, "cases": count}
            for found in lines.values()
            for line in found
            for (reason, treatment), count in line.reasons.items()
        ],
        "convention": _convention(variant, cases),
        "thresholds": _thresholds(variant, cases, scored.cases[0]),
        "cases": [
            {"case_id": case.case_id, **{k: _plain(v) for k, v in values.items()}, "reasons": reasons}
            for case, values, reasons in zip(cases, scored.cases, scored.reasons, strict=True)
        ],
    }
    if scored.pooled:
        out["pooled"] = {}
        for name, pooled in scored.pooled.items():
            short = name.replace(".pooled", "")
            out["pooled"][short] = _plain(pooled.value)
            if pooled.each is not None:
                out["pooled"][f"{short}.each"] = _plain(pooled.each)
    return out


def _convention(variant: str, cases: Sequence[Case]) -> dict[str, Any]:
    """The fields of each family that differ from the canonical convention; nan as text."""
    families = conventions_of(variant, len(cases[0].classes) > 1)
    found = {family: c.differences() for family, c in families.items() if c != CANONICAL}
    return {family: {k: _named(v) for k, v in fields.items()} for family, fields in found.items()}


def _named(value: Any) -> Any:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _thresholds(variant: str, cases: Sequence[Case], values: dict[str, Any]) -> dict[str, list[float]]:
    families = conventions_of(variant, len(cases[0].classes) > 1)
    levels = {"dice_soft": "map", "iou_soft": "map", "dice_rater.soft": "rater", "human.loo_soft_dice": "map"}
    return {name: list(families[f].thresholds or FIVE_LEVELS) for name, f in levels.items() if name in values}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


# -- CSV -------------------------------------------------------------------------------------------


def write_case_csv(path: Path, result: Result, rater_ids: Sequence[str] | None) -> None:
    """One row per case, entry, metric and variant: the columns of a cell's ``metrics.csv`` as far as they apply.

    Raises:
        UserError: the file cannot be written.
    """
    rows = []
    for variant, scored in result.scores.items():
        for case, values, reasons in zip(result.cases, scored.cases, scored.reasons, strict=True):
            for metric, value in values.items():
                sizes = (region_of(metric), case.n_samples or "", case.n_raters)
                for entry in entries_of(metric, value, case, reasons, rater_ids):
                    row = (case.case_id, entry.rater, entry.label, metric, variant, *sizes)
                    rows.append((*row, _cell(entry.value), entry.reason))
    _write(path, CASE_COLUMNS, rows)


def write_summary_csv(path: Path, result: Result, rater_ids: Sequence[str] | None) -> None:
    """One row per metric, entry and variant, as in the table; S and R as ``4`` or ``3-4`` where they vary.

    Raises:
        UserError: the file cannot be written.
    """
    samples = _range([case.n_samples for case in result.cases])
    raters = _range([case.n_raters for case in result.cases])
    rows = []
    for variant, scored in result.scores.items():
        lines = [line for found in summarise(scored, result.cases, rater_ids).values() for line in found]
        for line in lines + pooled_lines(scored, len(result.cases), rater_ids):
            region = region_of_pooled(line.metric) if line.pooled else region_of(line.metric)
            reasons = "; ".join(f"{reason} ({how}: {n})" for (reason, how), n in line.reasons.items())
            row = (line.metric, line.rater, line.label, variant, region, samples, raters, _cell(line.mean))
            numbers = (_cell(line.sd), line.n, line.left_out, line.replaced, _cell(line.mean_defined))
            rows.append((*row, *numbers, "yes" if line.pooled else "", reasons))
    _write(path, SUMMARY_COLUMNS, rows)


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, stream.getvalue())
