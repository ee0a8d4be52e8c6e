"""Compact tables of published results: the one that the README shows, and each seed on its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .layout import COMMON_MASK, NOT_CLAIMED, output_of, samples_of
from .markup import markdown_field
from .sheet import Line, Sheet

TRIVIAL = {
    "levels": "levels of its mean map",
    "own_threshold": "own threshold a reader",
    "area_ranks": "samples by area",
    "common_threshold": "one threshold",
}
HUMAN = {
    "human": "one reader against the rest",
    "oracle": "draws from the readers",
    "oracle_majority": "the true majority",
    "oracle_levels": "the true vote levels",
}


_ORDER = [*HUMAN, "diverse", "personalised", "consensus", *TRIVIAL]
_SEED_METRICS = ("ged", "diversity_samples", "dice_soft", "dice_match", "dice_rater", "dice_rater.gap")


def _number(sheet: Sheet, line: Line, metric: str, interval: bool = False) -> str:
    score = sheet.score(line, metric)
    if score is None or math.isnan(score.value):
        return NOT_CLAIMED
    text = f"{score.value:.3f}"
    if interval and score.has_interval:
        text += f" [{score.ci_low:.3f}, {score.ci_high:.3f}]"
    return text + (COMMON_MASK if score.fallback else "")


def compact_table(sheets: Sequence[Sheet]) -> str:
    """Markdown tables of the canonical values, one a sheet, one row per configuration and output.

    Where there are several, each has the title of its sheet above it.
    """
    return _document(sheets, _compact)


def seeds_table(sheets: Sequence[Sheet]) -> str:
    """Each seed as it came out, as `compact_table`: one row per configuration, output and seed.

    Seeds with other folds than the other seeds of their row count over the cases that all of these have.
    """
    return _document(sheets, _seeds)


def _document(sheets: Sequence[Sheet], table: Callable[[Sheet], list[list[str]]]) -> str:
    parts = []
    for sheet in sheets:
        lines = "".join("| " + " | ".join(cells) + " |\n" for cells in table(sheet))
        parts.append(f"**{markdown_field(sheet.group.title)}**\n\n{lines}" if len(sheets) > 1 else lines)
    return "\n".join(parts)


def _compact(sheet: Sheet) -> list[list[str]]:
    columns: dict[str, Callable[[Line], str]] = {
        "S": lambda line: samples_of(sheet, line),
        "GED ↓": lambda line: _number(sheet, line, "ged", interval=True),
        "Diversity": lambda line: _number(sheet, line, "diversity_samples"),
        "Dice soft ↑": lambda line: _number(sheet, line, "dice_soft"),
        "Dice max ↑": lambda line: _number(sheet, line, "dice_max_rater_to_sample"),
        "Dice match ↑": lambda line: _number(sheet, line, "dice_match"),
        **{
            f"Dice {markdown_field(r)} ↑": (lambda line, r=r: _number(sheet, line, f"dice_rater[{r}]"))  # type: ignore[misc]
            for r in sheet.raters
        },
        "Dice mean ↑": lambda line: _number(sheet, line, "dice_rater", interval=True),
        "Gap ↑": lambda line: _number(sheet, line, "dice_rater.gap"),
    }
    lines = [["Method", "Output", *columns], ["---"] * 2 + ["---:"] * len(columns)]
    for line in sorted(sheet.lines, key=lambda line: (line.row, _rank(line.output))):
        output = f"*{TRIVIAL[line.output]}*" if line.output in TRIVIAL else f"**{output_of(sheet, line)}**"
        shown = HUMAN.get(line.output, output)
        lines.append([_method(sheet, line), shown, *(make(line) for make in columns.values())])
    return lines


def _seeds(sheet: Sheet) -> list[list[str]]:
    lines = [["Method", "Output", "Seed", *_SEED_METRICS], ["---"] * 3 + ["---:"] * len(_SEED_METRICS)]
    own = sorted((line for line in sheet.lines if line.kind == "method"), key=lambda line: (line.row, line.output))
    order = list(dict.fromkeys(line.output for line in own))  # the same in all rows
    for line in sorted(own, key=lambda line: (line.row, order.index(line.output))):
        means = [sheet.seed_means(line, metric) for metric in _SEED_METRICS]
        for i, seed in enumerate(sheet.row(line).seeds):
            cells = [NOT_CLAIMED if m is None or math.isnan(m[i]) else f"{m[i]:.3f}" for m in means]
            lines.append([_method(sheet, line), line.output, str(seed), *cells])
    return lines


def _rank(output: str) -> tuple[int, str]:
    return (_ORDER.index(output) if output in _ORDER else len(_ORDER), output)


def _method(sheet: Sheet, line: Line) -> str:
    """The name of a row; with what its configuration differs in, where the method has several."""
    row = sheet.row(line)
    if row.human:
        return row.method
    several = sum(other.method == row.method for other in sheet.group.rows) > 1
    name = row.method.replace("|", "\\|")  # a pipe would end the field, even here
    return f"`{name}`" + (f" ({markdown_field(row.label)})" if several else "")
