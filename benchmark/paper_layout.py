"""The two tables of the D-Persona paper in its own layout, from our results (Wu et al., CVPR 2024, tables 1 and 2).

Diversified: GED, Dice soft, Dice max and Dice match of the first S samples at several S. Personalised: the same for the
set of the maps meant for the readers, each reader's Dice, and their mean. Dice in percent, as there. Published numbers
stand below as quotations with their source.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from .columns import base_metric
from .directions import direction
from .figures.source import LeftOut, open_once, scored_classes
from .groups import Row
from .layout import (
    ARROWS,
    COMMON_MASK,
    COMMON_MASK_NOTE,
    NOT_CLAIMED,
    Entry,
    Table,
    TableLine,
    fixed,
    kind_of,
    name_of,
    output_of,
)
from .quotations import SECONDARY, Quotation, quotations
from .ranked import marks, ranked
from .sheet import Line, Sheet

if TYPE_CHECKING:
    import pandas as pd

SIZES = (10, 20, 30, 50)  # of the paper
METRICS = ("ged", "dice_soft", "dice_max_rater_to_sample", "dice_match")
LABELS = {"ged": "GED", "dice_soft": "Dice soft", "dice_max_rater_to_sample": "Dice max", "dice_match": "Dice match"}
OF_MASKS, QUOTED = "‖", "¶"
UNKNOWN = "not given"


def paper_tables(sheet: Sheet) -> list[Table]:
    """Both tables; the personalised one only where reader slots mean something."""
    found = [diversified_table(sheet)]
    if sheet.show_raters:
        found.append(personalised_table(sheet))
    return found


def paper_frame(sheets: Sequence[Sheet]) -> pd.DataFrame:
    """The same as plain columns: data set, protocol, fingerprint, table, kind, and the printed entries."""
    import pandas as pd

    lines = []
    for sheet in sheets:
        key = {k: v for k, v in sheet.group.key.items() if k != "note"}
        for name, table in zip(("diversified", "personalised"), paper_tables(sheet), strict=False):
            heads = [h.strip(" ↑↓") for h in table.heads]
            lines += [
                {**key, "table": name, "kind": kind} | {h: e.text for h, e in zip(heads, entries, strict=True)}
                for kind, entries in table.lines
            ]
    return pd.DataFrame(lines)


@open_once()
def diversified_table(sheet: Sheet) -> Table:
    """Sets of samples at several S."""
    heads = ["Method", "Output", "S", *(_head(m) for m in METRICS)]
    lines: list[TableLine] = []
    notes: list[str] = []
    best = _best(sheet)
    for line in sheet.lines:
        if line.kind == "trivial" or (line.output == "personalised") or sheet.score(line, "ged") is None:
            continue
        count = sheet.samples(line) or 0
        smaller = [s for s in SIZES if s < count] if line.kind == "method" else []
        if smaller:
            found = _first_samples(sheet, line, smaller)
            if isinstance(found, str):
                notes.append(f"{sheet.row(line).name}: only S = {count}: {found}")
            else:
                for size, values in zip(smaller, found, strict=True):
                    texts = [
                        _value(m, v) + (OF_MASKS if m == "dice_soft" else "")
                        for m, v in zip(METRICS, values, strict=True)
                    ]
                    lines.append((line.kind, [*_lead(sheet, line), Entry(str(size)), *map(Entry, texts)]))
        entries = [_score(sheet, line, m, line in best[m]) for m in METRICS]
        lines.append((line.kind, [*_lead(sheet, line), Entry(str(count or "")), *entries]))
    quoted, caveat = quotations(str(sheet.group.key["dataset"]), personalised=False)
    lines += [("quoted", [Entry(t) for t in _quoted(q, 0)]) for q in quoted]
    notes = [
        "the first S of one stored set; means over cases, canonical convention; all but Dice soft change with S",
        *notes,
    ]
    if any(OF_MASKS in e.text for _, entries in lines for e in entries):
        notes.append(f"{OF_MASKS} of the mean of the first S masks: the probabilities of single samples are not stored")
    return Table(
        "Diversified segmentation, as in the D-Persona paper", heads, lines, [*notes, *_notes(sheet, quoted, caveat)]
    )


def personalised_table(sheet: Sheet) -> Table:
    """Maps meant for the readers: as a set, and each against its reader."""
    raters = sheet.raters
    heads = ["Method", "Output", "S", *(_head(m) for m in METRICS), *(f"{r} ↑" for r in raters), "Mean ↑"]
    each = [*(f"dice_rater[{r}]" for r in raters), "dice_rater"]
    best = _best(sheet)
    lines: list[TableLine] = []
    chosen = _ranked_lines(sheet, "dice_rater")
    for line in sheet.lines:
        if line.kind == "trivial" or sheet.score(line, "dice_rater") is None:
            continue
        if line.kind == "method" and line.output != "personalised" and line not in chosen:
            continue  # a method stands once: with its maps for the readers, or with its common mask
        entries = [_score(sheet, line, m, False) for m in METRICS]
        entries += [_score(sheet, line, m, line in best["dice_rater"] and m == "dice_rater") for m in each]
        lines.append((line.kind, [*_lead(sheet, line), Entry(str(sheet.samples(line) or "")), *entries]))
    quoted, caveat = quotations(str(sheet.group.key["dataset"]), personalised=True)
    lines += [("quoted", [Entry(t) for t in _quoted(q, len(raters))]) for q in quoted]
    notes = ["per reader: paired by identity, never matched; mean: over the readers of a case, then over cases"]
    if any(COMMON_MASK in e.text for _, entries in lines for e in entries):
        notes.append(COMMON_MASK_NOTE)
    title = "Personalised segmentation, as in the D-Persona paper"
    return Table(title, heads, lines, [*notes, *_notes(sheet, quoted, caveat)])


def _first_samples(sheet: Sheet, line: Line, sizes: Sequence[int]) -> NDArray[np.float64] | str:
    """`first_samples` of a line, which takes long: once, whatever the forms of the table."""
    key = ("first samples", line, *sizes)
    if key not in sheet.memo:
        sheet.memo[key] = first_samples(sheet.row(line), line.output, sizes)
    found: NDArray[np.float64] | str = sheet.memo[key]
    return found


def first_samples(row: Row, output: str, sizes: Sequence[int]) -> NDArray[np.float64] | str:
    """Means over cases of `METRICS` for the first S of the stored samples, sizes×4; or why there are none.

    Case values are averaged over seeds first, several classes before that.
    """
    from ..metrics import score_case

    if output != "diverse":
        return f"the output {output!r} is no stored set of samples"
    values: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    try:
        for cell in row.cells:
            classes = scored_classes(cell)
            for i, case in enumerate(classes[0].case_ids):
                of_classes = []
                for one in classes:
                    if one.stored.samples is None:
                        return "no samples are stored"
                    masks, valid = one.masks[i], one.valid[i]
                    found = [
                        score_case(masks, one.stored.samples[i, :s], rater_valid=valid, metrics=list(METRICS))
                        for s in sizes
                    ]
                    of_classes.append([[f[m] for m in METRICS] for f in found])
                values[case].append(np.mean(of_classes, axis=0))
    except LeftOut as reason:
        return str(reason)
    return np.asarray(np.nanmean([np.mean(values[case], axis=0) for case in sorted(values)], axis=0))


def _head(metric: str) -> str:
    return LABELS[metric] + ARROWS[direction(base_metric(metric))]


def _value(metric: str, value: float) -> str:
    if math.isnan(value):
        return NOT_CLAIMED
    return fixed(value, 4) if metric == "ged" else fixed(100 * value, 2)


def _score(sheet: Sheet, line: Line, metric: str, bold: bool) -> Entry:
    score = sheet.score(line, metric)
    if score is None or math.isnan(score.value):
        return Entry(NOT_CLAIMED)
    return Entry(_value(metric, score.value) + (COMMON_MASK if score.fallback else ""), bold)


def _ranked_lines(sheet: Sheet, metric: str) -> tuple[Line, ...]:
    try:
        return ranked(sheet, metric).lines
    except UserError:
        return ()


def _best(sheet: Sheet) -> dict[str, set[Line]]:
    return {metric: marks(sheet, metric)[0] for metric in (*METRICS, "dice_rater")}


def _lead(sheet: Sheet, line: Line) -> list[Entry]:
    kind = kind_of(line)
    output = output_of(sheet, line)
    return [Entry(name_of(sheet, line)), Entry(output if kind in ("method", output) else f"{output} ({kind})")]


def _quoted(q: Quotation, n_raters: int) -> list[str]:
    def text(value: float | None, digits: int) -> str:
        return UNKNOWN if value is None else fixed(value, digits)

    numbers = [text(q.ged, 4), *(text(v, 2) for v in (q.dice_soft, q.dice_max, q.dice_match))]
    per_rater = [*([UNKNOWN] * n_raters), text(q.mean, 2)] if n_raters else []
    return [f"{q.method}{QUOTED}", "quoted", UNKNOWN if q.n_samples is None else str(q.n_samples), *numbers, *per_rater]


def _notes(sheet: Sheet, quoted: Sequence[Quotation], caveat: str) -> list[str]:
    notes = ["GED between 0 and 2; Dice in percent; bold: best of the methods, as in the leaderboard"]
    if not quoted:
        return notes
    by_source: dict[tuple[str, str], list[str]] = defaultdict(list)
    for q in quoted:
        by_source[q.source, q.variant].append(q.method)
    notes.append(f"{QUOTED} quoted from others, not measured here, no comparison: {caveat}")
    notes += [
        f"{QUOTED} {', '.join(names)} on {quoted[0].data}: {source}; {SECONDARY}; {variant}"
        for (source, variant), names in by_source.items()
    ]
    return notes
