"""The printed table of a score."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .score import Result
from .score_summary import OVER_RATERS, Line, in_order, pooled_lines, summarise

_FEW_REMARKS = 3
_WIDE = 1000  # where there is no terminal: nothing is cut off
_NAME_WIDTH, _COLUMN_WIDTH = 34, 11  # of long metric ids, and of numbers such as -0.1234 (10)


def print_scores(name: str, result: Result, wanted: Sequence[str] | None, rater_ids: Sequence[str] | None) -> None:
    """Means over the cases: of one variant with their spread and counts, or of several side by side."""
    found = {variant: summarise(scored, result.cases, rater_ids) for variant, scored in result.scores.items()}
    names = [metric for lines in found.values() for metric in lines]
    side_by_side = len(found) > 1
    if side_by_side and not wanted:
        names = [metric for metric in names if not metric.startswith("human.")]  # a long table; --metrics names them
    order = list(dict.fromkeys([*wanted, *names])) if wanted else in_order(names)
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False)
    title = _title(name, result)
    if names:
        for part in _that_fit(found, console.width):
            console.print(_table(title, part, order))
        if side_by_side:
            console.print("(k): k cases without a value of their own; below is how they enter the mean.", markup=False)
    pooled: dict[str, dict[str, list[Line]]] = {variant: {} for variant in result.scores}
    for variant, scored in result.scores.items():
        for line in pooled_lines(scored, len(result.cases), rater_ids):
            pooled[variant].setdefault(line.metric, []).append(line)
    if any(pooled.values()):
        together = "pooled over all cases" if names else f"{title}, pooled over all cases"
        metrics = list(dict.fromkeys(metric for lines in pooled.values() for metric in lines))
        for part in _that_fit(pooled, console.width):
            console.print(_table(together, part, metrics, several=side_by_side))
    if result.same:
        console.print(f"Same as canonical here: {', '.join(result.same)}.", markup=False)
    for text in _explanations(result, found, set(order)):
        console.print(text, soft_wrap=True, markup=False)


def _title(name: str, result: Result) -> str:
    count = len(result.cases)
    samples = _range([case.n_samples for case in result.cases])
    raters = _range([case.n_raters for case in result.cases])
    title = (
        f"{name}: {count} case{'' if count == 1 else 's'}, R = {raters}, S = {samples if samples != '0' else 'none'}"
    )
    return title if len(result.scores) > 1 else f"{title}, variant {next(iter(result.scores))}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _that_fit(found: Mapping[str, dict[str, list[Line]]], width: int) -> list[dict[str, dict[str, list[Line]]]]:
    """Variants side by side as far as the terminal is wide, canonical in each part."""
    first, *others = found
    parts: list[list[str]] = []
    room = 0
    for name in others:
        needed = max(len(name), _COLUMN_WIDTH) + 2
        if not parts or room < needed:
            parts.append([first])
            room = width - _NAME_WIDTH - max(len(first), _COLUMN_WIDTH)
        parts[-1].append(name)
        room -= needed
    return [{variant: found[variant] for variant in part} for part in parts or [[first]]]


def _table(
    title: str, found: Mapping[str, dict[str, list[Line]]], order: Sequence[str], several: bool | None = None
) -> Table:
    several = len(found) > 1 if several is None else several
    table = _empty(title)
    pooled = all(line.pooled for lines in found.values() for entry in lines.values() for line in entry)
    alone = ["value"] if pooled else ["mean", "sd", "n", "left out", "replaced"]
    columns = list(found) if several else alone
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for metric in order:
        rows: dict[str, dict[str, Line]] = {}
        for variant, lines in found.items():
            for line in lines.get(metric, []):
                rows.setdefault(line.name, {})[variant] = line
        for shown, per_variant in rows.items():
            if several:
                table.add_row(Text(shown), *(_cell(per_variant.get(variant)) for variant in found))
            else:
                (line,) = per_variant.values()
                rest = (_number(line.sd), str(line.n), str(line.left_out), str(line.replaced))
                table.add_row(Text(shown), _number(line.mean), *(() if pooled else rest))
    return table


def _empty(title: str) -> Table:
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False, show_edge=False
    )
    table.add_column("metric", no_wrap=True)
    return table


def _number(value: float) -> str:
    return "nan" if value != value else f"{value:.4f}"


def _cell(line: Line | None) -> str:
    if line is None:
        return "-"
    return _number(line.mean) + (f" ({line.undefined})" if line.undefined else "")


def _explanations(result: Result, found: Mapping[str, dict[str, list[Line]]], shown: set[str]) -> list[str]:
    """Why values are undefined and how they are treated, and which mask was used; each once, with its variants."""
    times: dict[tuple[str, str, int], dict[str, dict[str, None]]] = {}
    for variant, lines in found.items():
        for metric in [name for name in lines if name in shown]:
            for line in lines[metric]:
                if line.rater == OVER_RATERS:
                    continue
                for (reason, how), count in line.reasons.items():
                    times.setdefault((reason, how, count), {}).setdefault(variant, {})[line.name] = None
        scored = result.scores[variant]
        for reason, names, count in _remarks(scored.cases, scored.reasons, shown):
            for metric in names:
                times.setdefault((reason, "", count), {}).setdefault(variant, {})[metric] = None
    out = []
    for (reason, how, count), per_variant in times.items():
        metrics = dict.fromkeys(name for names in per_variant.values() for name in names)
        where = "" if len(per_variant) == len(found) else f" [{', '.join(per_variant)}]"
        how = f", {how}" if how else ""
        out.append(f"{', '.join(metrics)}{where}: {reason} ({count} of {len(result.cases)} cases{how})")
    return out


def _remarks(
    cases: Sequence[dict[str, object]], reasons: Sequence[dict[str, str]], shown: set[str]
) -> list[tuple[str, list[str], int]]:
    """Notes on values that are defined ("common mask"): the note, its metrics, the number of cases."""
    times: dict[tuple[str, str], int] = {}
    for values, noted in zip(cases, reasons, strict=True):
        for metric, reason in noted.items():
            value = values[metric]
            numbers = value if isinstance(value, list) else [value]
            if metric in shown and any(number == number for number in numbers):
                times[metric, reason] = times.get((metric, reason), 0) + 1
    different: dict[str, int] = {}
    for metric, _ in times:
        different[metric] = different.get(metric, 0) + 1
    grouped: dict[tuple[str, int], list[str]] = {}
    for (metric, reason), count in times.items():
        if different[metric] <= _FEW_REMARKS:
            grouped.setdefault((reason, count), []).append(metric)
    for metric, kinds in different.items():
        if kinds > _FEW_REMARKS:  # counts of pairs, another in every case
            count = sum(times[m, reason] for m, reason in times if m == metric)
            grouped.setdefault(("remarks on single cases, see --json", count), []).append(metric)
    return [(reason, metrics, count) for (reason, count), metrics in grouped.items()]
