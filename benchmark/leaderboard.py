"""The leaderboard of a results folder: one long CSV and a readable document, both derived and safe to delete."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import UserError, unknown
from ..core.files import write_text
from .cell import Cell
from .collect import find_cells
from .columns import base_metric
from .directions import track
from .groups import Group, make_groups
from .layout import Table, border_table, cost_table, header_notes, output_notes, track_table
from .markup import document
from .ranked import TRACKS
from .ranking_layout import ranking_tables
from .sheet import Sheet

COLUMNS = (
    "dataset",
    "set",
    "identity",
    "split",
    "preset",
    "method",
    "output",
    "method_variant",
    "track",
    "metric",
    "variant",
    "n_samples",
    "n_cases",
    "n_patients",
    "value",
    "ci_low",
    "ci_high",
    "n_replaced",
    "fallback",
    "failed",
    "train_seconds",
    "predict_seconds",
    "peak_memory_mb",
    "fingerprint",
    "protocol",
)
DETAILS = ("n_folds", "n_seeds", "sd_cases", "sd_seeds", "n_dropped", "missing_folds", "note")
FORMATS = ("md", "csv", "tex", "html")
TITLE = "Leaderboard"
LAYOUTS = {"tracks": "the suite's own tables, by track", "dpersona": "the two tables of the D-Persona paper"}


def sheets_of(results: Path, only: Sequence[str | Path | Cell] | None = None) -> list[Sheet]:
    """The scored tables of a results folder.

    Raises:
        UserError: not a results folder, or no cell in it.
    """
    cells = find_cells(results, only)
    if not cells:
        raise UserError(
            f"no cells in {results}: nothing was run there yet; run `multirater run` first or give --results DIR"
        )
    return [Sheet(group) for group in make_groups(cells)]


def leaderboard_frame(sheets: Sequence[Sheet], details: bool = False) -> pd.DataFrame:
    """One line per row, output, metric and variant, with the columns of `COLUMNS` (and `DETAILS`).

    A configuration without any result has one line with an empty metric, so that failures are not left out.
    """
    columns = [*COLUMNS, *(DETAILS if details else ())]
    lines: list[dict[str, Any]] = []
    for sheet in sheets:
        group = sheet.group
        by_row = {index: part.to_dict("records") for index, part in sheet.scores.groupby("row", sort=False)}
        for index, row in enumerate(group.rows):
            shared = {
                **{k: v for k, v in group.key.items() if k != "note"},
                "method": row.method,
                "method_variant": row.label,
                "failed": len(row.missing),
                "train_seconds": row.seconds("train"),
                "predict_seconds": row.seconds("predict"),
                "peak_memory_mb": row.peak_memory_mb,
                "missing_folds": " ".join(map(str, row.missing_folds)),
            }
            for record in by_row.get(index, []):
                lines.append({**record, **shared, "track": track(base_metric(record["metric"]))})
            if index not in by_row:
                lines.append({**shared, "n_cases": 0, "n_patients": 0, "n_replaced": 0})
    frame = pd.DataFrame(lines, columns=columns)
    frame["variant"] = frame["variant"].replace("", "canonical")
    keys = [
        "dataset",
        "set",
        "identity",
        "split",
        "preset",
        "fingerprint",
        "method",
        "method_variant",
        "output",
        "metric",
    ]
    frame = frame.sort_values([*keys, "variant", "n_samples"], kind="stable", ignore_index=True, na_position="first")
    for name in ("n_samples", "n_cases", "n_patients", "n_replaced", "failed"):
        frame[name] = frame[name].astype("Int64")
    return frame


def tables_of(sheet: Sheet) -> list[Table]:
    """The tables of one group, each with the notes that explain its columns and marks."""
    tracks = [track_table(sheet, name) for name in TRACKS]
    found = [table for table in (*tracks, *ranking_tables(sheet), border_table(sheet)) if table is not None]
    if sheet.group.methods:
        found.append(cost_table(sheet))
    return found


def render(sheets: Sequence[Sheet], form: str, layout: str = "tracks") -> str:
    """The leaderboard as ``md``, ``csv``, ``tex`` or ``html`` text.

    Args:
        sheets: the tables.
        form: of `FORMATS`.
        layout: of `LAYOUTS`.

    Raises:
        UserError: another form or layout.
    """
    _check("form", form, FORMATS)
    _check("layout", layout, LAYOUTS)
    if layout == "dpersona":
        from .paper_layout import paper_frame, paper_tables

        if form == "csv":
            return _csv(paper_frame(sheets))
        sections = [(sheet.group.title, header_notes(sheet), paper_tables(sheet)) for sheet in sheets]
        return document("Tables in the layout of the D-Persona paper", sections, form)
    if form == "csv":
        return _csv(leaderboard_frame(sheets))
    sections = [(sheet.group.title, [*header_notes(sheet), *output_notes(sheet)], tables_of(sheet)) for sheet in sheets]
    return document(TITLE, sections, form)


def _check(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise unknown(f"{what} of the leaderboard", name, known)


def _csv(frame: pd.DataFrame) -> str:
    # Ten digits: sums differ in the last bits between machines, and the text should not.
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.10g")


def write_leaderboard(
    results: Path, forms: Sequence[str] = (), sheets: Sequence[Sheet] | None = None, layout: str = "tracks"
) -> list[Path]:
    """Write ``derived/leaderboard.csv`` and ``.md``, further forms if asked, and ``leaderboard_details.csv``.

    The details add what the fixed columns of the leaderboard have no place for: standard deviations over cases and
    seeds, numbers of folds and seeds, dropped cases, and why an interval is missing.

    Args:
        results: a results folder.
        forms: further forms among `FORMATS`.
        sheets: its tables, if they were computed already.
        layout: of `LAYOUTS`; another than ``tracks`` writes ``derived/<layout>.md`` and the `forms` of it.

    Returns:
        The files written.

    Raises:
        UserError: not a results folder, no cell in it, or another form or layout.
    """
    _check("layout", layout, LAYOUTS)
    sheets = sheets_of(results) if sheets is None else sheets
    folder = results / "derived"
    texts = {}
    if layout == "tracks":
        for form in dict.fromkeys(("csv", "md", *forms)):
            texts[folder / f"leaderboard.{form}"] = render(sheets, form)
        texts[folder / "leaderboard_details.csv"] = _csv(leaderboard_frame(sheets, details=True))
    else:
        for form in dict.fromkeys(("md", *forms)):
            texts[folder / f"{layout}.{form}"] = render(sheets, form, layout)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def as_records(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """The tables as plain data without NaN, for ``--json``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    out = []
    for sheet in sheets:
        group: Group = sheet.group
        missing = [{"cell": c.name, "state": c.state, "why": c.why} for row in group.rows for c in row.missing]
        head = {"notice": group.notice, "rater_ids": list(group.rater_ids), "notes": header_notes(sheet)}
        out.append({**group.key, **head, "rows": plain(sheet.records()), "missing": missing})
    return out
