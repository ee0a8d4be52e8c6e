"""The tables of a sheet as plain text entries, whatever they are printed to (terminal, Markdown, LaTeX, HTML)."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from ..core.errors import UserError
from .budget import budget_note
from .columns import (
    BORDER_COLUMNS,
    BY_METRIC,
    CALIBRATION_COLUMNS,
    MEAN_COLUMNS,
    OUTPUT_NOTES,
    RATER_EXTRA,
    RATER_MEAN,
    RATER_OVER,
    SAMPLE_COLUMNS,
    TERMINAL_COLUMNS,
    Column,
    base_metric,
    rater_column,
)
from .directions import compared_at_equal_samples, direction, worst_value
from .groups import Row
from .ranked import TRACKS, Track, marks, ranked
from .revisions import revision_note
from .sheet import Kind, Line, Score, Sheet

NOT_CLAIMED = "n/a"
FEW_PATIENTS = 40  # below them percentile intervals cover less than they say (docs/coverage.py)
COMMON_MASK, REPLACED, FEWER, ALIKE = "†", "‡", "§", "≈"
COMMON_MASK_NOTE = f"{COMMON_MASK} common mask: the output has no mask per reader; its mean map > 0.5 stands for all"
ARROWS = {"higher": " ↑", "lower": " ↓", "target 0": " → 0", "none": ""}
IDENTITY_NOTES = {
    "by_area": "slots ordered by area, one order per nodule or case (by volume): slot 1 drew least, it is not a person",
    "by_area_slice": "slots ordered by area in every slice: slot 1 drew least there, it is not a person",
}


@dataclass(frozen=True)
class Entry:
    """One field of a table."""

    text: str
    bold: bool = False


TableLine = tuple[Kind, list[Entry]]


@dataclass
class Table:
    """Headings, lines of entries (with the kind of line), and the notes that explain both."""

    title: str
    heads: list[str]
    lines: list[TableLine]
    notes: list[str] = field(default_factory=list)


def head(column: Column) -> str:
    return column.label + ARROWS[direction(base_metric(column.metric))]


def number(
    sheet: Sheet, line: Line, column: Column, interval: bool = False, spread: bool = False, mark: str = ""
) -> str:
    """A score with its marks, or ``n/a`` where the output does not claim it."""
    score = sheet.score(line, column.metric)
    if score is None or math.isnan(score.value):
        return NOT_CLAIMED
    marks = (COMMON_MASK if score.fallback else "") + (REPLACED if score.n_replaced else "") + mark
    digits = column.digits
    text = fixed(score.value, digits) + marks
    if interval and score.has_interval:
        text += f" [{fixed(score.ci_low, digits)}, {fixed(score.ci_high, digits)}]"
    if spread and not math.isnan(score.sd_seeds):
        text += f" ±{fixed(score.sd_seeds, digits)}"
    return text


def fixed(value: float, digits: int) -> str:
    """A number with a fixed number of decimals; rounding never leaves a minus before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def count(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def name_of(sheet: Sheet, line: Line) -> str:
    return _marked(sheet.row(line))


def _marked(row: Row) -> str:
    return row.name + (FEWER if row.incomplete else "")


def output_of(sheet: Sheet, line: Line) -> str:
    if line.output:
        return line.output
    states = sorted({cell.state for cell in sheet.row(line).missing})
    return "/".join(states) or "no result"


def samples_of(sheet: Sheet, line: Line) -> str:
    samples = sheet.samples(line)
    return "" if samples is None else str(samples)


def _runs(row: Row) -> str:
    if not row.cells:
        return ""
    folds, seeds = ",".join(map(str, row.folds)), ",".join(map(str, row.seeds))
    return f"fold {folds}; seed {seeds}"


def assemble(
    sheet: Sheet,
    title: str,
    lead: list[str],
    leads: list[list[Entry]],
    columns: Sequence[Column],
    intervals: Container[str] | None = None,
) -> Table:
    """A table of leading entries and metric columns.

    Args:
        sheet: the numbers.
        title: heading.
        lead: headings of the leading entries.
        leads: leading entries of each line of the sheet.
        columns: metric columns.
        intervals: metrics shown with their interval; None: as the columns say, with the spread over seeds.
    """
    found = {column.metric: marks(sheet, column.metric) for column in columns}
    lines: list[TableLine] = []
    for line, first in zip(sheet.lines, leads, strict=True):
        entries = list(first)
        for c in columns:
            wide = c.interval if intervals is None else c.metric in intervals
            best, alike = found[c.metric]
            mark = ALIKE if line in alike else ""
            text = number(sheet, line, c, wide, spread=wide and intervals is None, mark=mark)
            entries.append(Entry(text, line in best))
        lines.append((line.kind, entries))
    return Table(title, [*lead, *(head(c) for c in columns)], lines, column_notes(columns))


def track_table(sheet: Sheet, name: str) -> Table | None:
    """The table of one track: every output, trivial and human rows too, with the rank by the primary metric.

    None where nothing of it was scored, or where reader slots mean nothing (personalised).
    """
    track = TRACKS[name]
    shown = _track_columns(sheet, name)
    if not shown:
        return None
    if name == "personalised" and not sheet.show_raters:
        return None
    lead = ["method", "output", "kind", "S", f"rank ({SHORT.get(track.primary[0], track.primary[0])})"]
    table = assemble(sheet, f"Track {name}: {track.question}", lead, _leads(sheet, track), shown)
    return _claimed(sheet, table, shown, failed=True)


SHORT = {"ged": "GED", "hm_iou": "HM-IoU", "dice_rater": "Dice mean", "dice_soft": "Dice soft"}


def _track_columns(sheet: Sheet, name: str) -> list[Column]:
    if name == "personalised":
        return rater_columns(sheet)
    columns = SAMPLE_COLUMNS if name == "diversified" else (*MEAN_COLUMNS, *CALIBRATION_COLUMNS)
    return [c for c in columns if sheet.has(c.metric)]


def _leads(sheet: Sheet, track: Track) -> list[list[Entry]]:
    return [
        [
            Entry(name_of(sheet, line)),
            Entry(output_of(sheet, line)),
            Entry(kind_of(line)),
            Entry(samples_of(sheet, line)),
            Entry(rank_of(sheet, line, track)),
        ]
        for line in sheet.lines
    ]


def kind_of(line: Line) -> str:
    """``human`` for readers, ``oracle`` for what is derived from the readers' masks, ``method``, ``trivial``."""
    return "oracle" if line.kind == "human" and line.output.startswith("oracle") else line.kind


def rank_of(sheet: Sheet, line: Line, track: Track) -> str:
    """Rank by the track's first metric; empty where the line is not ranked."""
    try:
        rank = ranked(sheet, track.primary[0], track).rank(line)
    except UserError:
        return ""
    return "" if rank is None else str(rank)


def _claimed(sheet: Sheet, table: Table, columns: Sequence[Column], failed: bool = False) -> Table:
    """The table without lines that claim none of its columns; rows without any result stay if `failed`."""
    claims = [
        any(sheet.score(line, c.metric) is not None for c in columns) or (failed and not line.output)
        for line in sheet.lines
    ]
    table.lines = [line for line, claimed in zip(table.lines, claims, strict=True) if claimed]
    table.notes += mark_notes(sheet, columns)
    return table


def border_table(sheet: Sheet) -> Table | None:
    """Distances between the borders of the masks meant for the readers (or the common mask) and the readers'."""
    if not sheet.has("hd95"):
        return None
    shown = [c for c in BORDER_COLUMNS if sheet.has(c.metric)]
    leads = [[Entry(name_of(sheet, line)), Entry(output_of(sheet, line)), Entry(kind_of(line))] for line in sheet.lines]
    table = assemble(sheet, "Borders of the masks for the readers", ["method", "output", "kind"], leads, shown)
    return _claimed(sheet, table, shown)


def rater_columns(sheet: Sheet) -> list[Column]:
    extra = [c for c in (RATER_MEAN, RATER_OVER, *RATER_EXTRA) if sheet.has(c.metric)]
    return [*(rater_column(r) for r in sheet.raters), *extra]


def cost_table(sheet: Sheet) -> Table:
    """What each row took, and which of its cells are missing."""
    lines: list[TableLine] = []
    for row in (r for r in sheet.group.rows if not r.human or r.incomplete):
        budget = "; ".join(
            f"{s['name']} {s['steps']} steps" + (f" ({s['epochs']} epochs)" if s.get("epochs") else "")
            for s in (row.cells[0].train.get("stages", []) if row.cells else [])
        )
        parameters = row.cells[0].train.get("parameters") if row.cells else None
        memory = row.peak_memory_mb
        failed = [f"{c.name} ({c.state}{': ' + c.why if c.why else ''})" for c in row.missing]
        texts = [
            _marked(row),
            _runs(row),
            budget,
            f"{parameters / 1e6:.2f} M" if parameters else "",
            duration(row.seconds("train")),
            duration(row.seconds("predict")),
            f"{memory:.0f} MB" if memory is not None else "",
            f"{sheet.group.key['protocol']} · {sheet.group.key['fingerprint']}",
            ", ".join([*failed, *filter(None, [row.not_run])]) or "none",
        ]
        lines.append(("method", [Entry(t) for t in texts]))
    heads = ["method", "runs", "budget", "parameters", "train", "predict", "peak memory"]
    heads += ["protocol · data", "cells without a result"]
    notes = [
        "train, predict: mean wall time of a cell; peak memory: largest of the cells",
        "protocol · data: version of the evaluation protocol, fingerprint of the data; others stand in other tables",
    ]
    return Table("Cost and completeness", heads, lines, notes)


def terminal_columns(sheet: Sheet) -> tuple[list[Column], list[Column]]:
    """The columns of the terminal table: sample metrics, and per-reader Dice."""
    first = [BY_METRIC[m] for m in TERMINAL_COLUMNS if sheet.has(m)]
    second = [c for c in rater_columns(sheet) if c.metric != "rater_identification"] if sheet.show_raters else []
    return first, second


# -- notes --------------------------------------------------------------------------------------


def column_notes(columns: Sequence[Column]) -> list[str]:
    notes = [f"{c.label}: {c.note}" for c in columns if not c.metric.startswith("dice_rater[")]
    if any(c.metric.startswith("dice_rater[") for c in columns):
        notes.insert(0, "reader columns: Dice of the mask meant for that reader, by identity, never matched")
    return notes


def header_notes(sheet: Sheet) -> list[str]:
    """What every number of the table rests on: data, readers, cases, intervals, rules."""
    group = sheet.group
    from .bootstrap import DRAWS, MIN_CLUSTERS, SEED

    raters = len(group.rater_ids)
    spread = sheet.data_value("diversity_raters")
    notes = []
    if group.notice:
        notes.append(group.notice)
    readers = count(raters, "reader")
    if not math.isnan(spread):
        readers += f", their diversity {spread:.3f} (expected GED of a perfect sampler: {spread:.3f}/S)"
    cases, patients = count(sheet.most("n_cases"), "test case"), count(sheet.most("n_patients"), "patient")
    notes.append(f"{cases} of {patients}; {readers}")
    identity = group.key["identity"]
    meaning = IDENTITY_NOTES.get(identity) or {
        "none": "reader slots are anonymous: no per-reader table",
        "derived": "slots computed from the masks: a slot is not a person",
        "consistent": "a slot is the same reader or group in every case",
        "synthetic": "made readers",
    }.get(group.identity_kind, "")
    notes.append(f"identity {identity} ({group.identity_kind}): {meaning}")
    most = sheet.most("n_patients")
    notes.append(
        f"[low, high]: 95 % percentile bootstrap over {most} patients, {DRAWS:,} draws, seed {SEED}, ratio of sums, "
        f"the same draws for every row"
        if most >= MIN_CLUSTERS
        else f"no intervals: {count(most, 'patient')}, fewer than {MIN_CLUSTERS}"
    )
    if MIN_CLUSTERS <= most < FEW_PATIENTS:
        notes.append(
            f"intervals of {most} patients are somewhat narrow: percentiles cover about 90 % with 10 patients and 93 % "
            f"with 30, not 95 % (docs/statistics.md)"
        )
    half = (
        f"with {raters} readers, {raters // 2} of {raters} votes are background" if raters and raters % 2 == 0 else ""
    )
    if group.class_names:
        named = ", ".join(f"{k + 1} = {name}" for k, name in enumerate(group.class_names))
        notes.append(
            f"{len(group.class_names)} classes ({named}): each is scored against the rest, a number is the mean over "
            f"the classes; those of one class stand in leaderboard.csv as metric{{class}}"
        )
    mask = "most probable class" if group.class_names and not group.overlapping else "probability > 0.5"
    notes.append(f"mask = {mask}; majority is strict" + (f": {half}" if half else ""))
    rules = sorted({str((c.spec.get("train") or {}).get("select", "")) for r in group.methods for c in r.cells} - {""})
    said = {"last": "last step", "best": "best on validation patients"}
    if rules:
        notes.append("checkpoint: " + ", ".join(said.get(r, r) for r in rules))
    budget = budget_note((row.name, c.spec) for row in group.methods for c in row.cells[:1])
    if budget:
        notes.append(budget)
    revisions = revision_note(cell for row in group.rows for cell in row.cells)
    if revisions:
        notes.append(revisions)
    if group.key.get("note"):
        notes.append(str(group.key["note"]))
    notes.append(f"data fingerprint {group.key['fingerprint']}; protocol {group.key['protocol']}")
    return notes


def mark_notes(sheet: Sheet, columns: Sequence[Column], spread: bool = True) -> list[str]:
    """The meaning of the marks that these columns really carry; `spread`: ± over seeds is shown."""
    found: list[Score] = [s for c in columns for line in sheet.lines if (s := sheet.score(line, c.metric))]
    notes = []
    if any(s.fallback for s in found):
        notes.append(COMMON_MASK_NOTE)
    if any(s.n_replaced for s in found):
        replaced = sum(s.n_replaced for s in found)
        notes.append(
            f"{REPLACED} values that the method left undefined count as the worst value ({replaced} in this table)"
        )
    dropped = max((s.n_dropped for s in found), default=0)
    if dropped:
        notes.append(f"up to {dropped} cases are left out for every row where the data leave a metric undefined")
    notes += _undefined_notes(sheet, columns)
    if any(row.incomplete for row in sheet.group.rows):
        notes.append(f"{FEWER} some cells of this row have no result; the mean is over fewer cases or runs")
    if spread and any(s.n_seeds > 1 for s in found):
        notes.append("±: standard deviation over seeds of the mean; case values are averaged over seeds first")
        uneven = [row.name for row in sheet.group.methods if row.uneven_seeds]
        if uneven:
            notes[-1] += (
                f"; over the cases that all seeds of the row have, none without such cases: {', '.join(uneven)}"
            )
    at_s = any(compared_at_equal_samples(base_metric(c.metric)) for c in columns) and sheet.table_samples
    compared = f"; metrics that change with S compare outputs with S = {sheet.table_samples} only" if at_s else ""
    if any(marks(sheet, c.metric)[0] for c in columns):
        notes.append(f"bold: best of the methods, each with the one output that it competes with{compared}")
    if any(marks(sheet, c.metric)[1] for c in columns):
        notes.append(
            f"{ALIKE} not significantly worse than the best: Wilcoxon signed-rank test of patients' means, p > 0.05 "
            f"after Holm's adjustment for all pairs of the column"
        )
    notes.append(f"{NOT_CLAIMED}: not claimed by this output")
    return notes


def _undefined_notes(sheet: Sheet, columns: Sequence[Column]) -> list[str]:
    """Whose means are over fewer cases because a metric has no worst value that could stand in."""
    notes = []
    for c in columns:
        if not math.isnan(worst_value(base_metric(c.metric))):
            continue
        found = {line: s.n_cases for line in sheet.lines if (s := sheet.score(line, c.metric)) and line.kind != "human"}
        most = max(found.values(), default=0)
        fewer = [
            f"{sheet.row(line).name} {line.output} {n}"
            for line, n in found.items()
            if n < most and not sheet.row(line).missing_folds
        ]
        if fewer:
            notes.append(
                f"{c.label} is undefined in some cases and has no worst value that could stand in; cases that count, "
                f"of {most}: {', '.join(fewer)}"
            )
    return notes


def output_notes(sheet: Sheet) -> list[str]:
    shown = list(dict.fromkeys(line.output for line in sheet.lines if line.output))
    return [f"{output}: {OUTPUT_NOTES[output]}" for output in shown if output in OUTPUT_NOTES]
