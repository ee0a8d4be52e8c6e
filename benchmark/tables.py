"""The table in the terminal after a run: what was asked for, with the human and trivial rows beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cell import Cell
from .columns import Column
from .layout import (
    Entry,
    Table,
    assemble,
    duration,
    header_notes,
    mark_notes,
    name_of,
    output_of,
    samples_of,
    terminal_columns,
)
from .leaderboard import as_records, sheets_of
from .sheet import Line, Sheet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

_LOG_WIDTH = 150
_STYLES = {"human": "italic cyan", "method": "", "trivial": "dim"}


def print_results(
    results: str | Path,
    cells: Iterable[str | Path | Cell] | None = None,
    console: Console | None = None,
    as_json: bool = False,
) -> list[dict[str, Any]]:
    """Print the tables of some cells, or of a whole results folder.

    Args:
        results: a results folder.
        cells: cell folders, or cells with the evaluation to show; None: all.
        console: where to print; None: standard output, 150 columns wide where that is a file or a pipe.
        as_json: print JSON instead of tables.

    Returns:
        The same as plain data: one dict per table with its ``rows`` and the cells that are ``missing``.

    Raises:
        UserError: not a results folder, or no cell in it.
    """
    console = console or default_console()
    sheets = sheets_of(Path(results), None if cells is None else list(cells))
    records = as_records(sheets)
    if as_json:
        console.print(json.dumps(records, indent=1), soft_wrap=True, highlight=False, markup=False)
    else:
        for sheet in sheets:
            print_sheet(sheet, console)
    return records


def default_console() -> Console:
    """Standard output; a log has no width, so that tables need not be cut there."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _LOG_WIDTH
    return console


def print_sheet(sheet: Sheet, console: Console) -> None:
    """One table, in several parts where the terminal is too narrow for one."""
    console.print(f"\n[bold]{_escape(sheet.group.title)}[/bold]", highlight=False)
    notes = header_notes(sheet)
    if sheet.group.notice:
        console.print(_escape(notes[0]), style="yellow", highlight=False)
        notes = notes[1:]
    first, second = terminal_columns(sheet)
    for part in _split(*_table(sheet, first, second), console.width):
        console.print(_rich(part))
    for note in [*notes, *mark_notes(sheet, [*first, *second], spread=False)]:
        console.print(_escape(note), style="dim", highlight=False)
    for row in sheet.group.rows:
        said = [f"{cell.name}: {cell.state}. {cell.why}" for cell in row.missing]
        for one in [*said, f"{row.name}: {row.not_run}"] if row.not_run else said:
            # A line each in a log.
            console.print(_escape(one), style="red", highlight=False, soft_wrap=not console.is_terminal)


_LEAD = 3  # method, output, S: repeated in every part of a table that is too wide


def _table(sheet: Sheet, first: list[Column], second: list[Column]) -> tuple[Table, list[int]]:
    """The whole table, and the sizes of its blocks of columns: samples, readers, cost."""
    leads, costs = [], []
    previous: int | None = None
    for line in sheet.lines:
        repeated = line.row == previous
        name = "" if repeated else name_of(sheet, line)
        leads.append([Entry(name), Entry(output_of(sheet, line)), Entry(samples_of(sheet, line))])
        costs.append([Entry("")] * 3 if repeated else _cost(sheet, line))
        previous = line.row
    table = assemble(sheet, "", ["method", "output", "S"], leads, [*first, *second], ("ged",))
    table.heads += ["train", "predict", "memory"]
    for (_, entries), cost in zip(table.lines, costs, strict=True):
        entries += cost
    return table, [len(first), len(second), 3]


def _split(table: Table, blocks: list[int], width: int) -> list[Table]:
    """The table in parts no wider than `width`; a block is kept together if a part can hold it."""
    from rich.cells import cell_len

    # A column takes its widest text and one space; the frame adds two.
    rows = [_wrapped(h).split("\n") for h in table.heads]
    texts = [[*rows[i], *(entries[i].text for _, entries in table.lines)] for i in range(len(table.heads))]
    sizes = [max(map(cell_len, column)) + 1 for column in texts]
    room = width - 2 - sum(sizes[:_LEAD])
    parts: list[list[int]] = [[]]
    used, start = 0, _LEAD
    for block in blocks:
        columns = list(range(start, start + block))
        start += block
        whole = sum(sizes[i] for i in columns)
        pieces = [columns] if whole <= room else [[i] for i in columns]
        for piece in pieces:
            size = sum(sizes[i] for i in piece)
            if used + size > room and parts[-1]:
                parts.append([])
                used = 0
            parts[-1] += piece
            used += size
    found = []
    for part in parts:
        chosen = [*range(_LEAD), *part]
        # A part that holds nothing but the cost has nothing to say of most lines.
        lines = [(kind, [es[i] for i in chosen]) for kind, es in table.lines if any(es[i].text for i in part)]
        found.append(Table("", [table.heads[i] for i in chosen], lines))
    return found


def _wrapped(head: str) -> str:
    """A heading of several words in two lines: the numbers below it are narrow."""
    label, _, rest = head.partition(" ")
    return f"{label}\n{rest}" if rest and rest[0].isalnum() else head


def _cost(sheet: Sheet, line: Line) -> list[Entry]:
    row = sheet.row(line)
    memory = row.peak_memory_mb
    texts = (duration(row.seconds("train")), duration(row.seconds("predict")), f"{memory:.0f} MB" if memory else "")
    return [Entry(t) for t in (("", "", "") if row.human else texts)]


def _rich(table: Table) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    drawn = RichTable(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, head in enumerate(table.heads):
        left = i < 2
        text = _escape(head if left else _wrapped(head))
        drawn.add_column(text, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for i, (kind, entries) in enumerate(table.lines):
        following = table.lines[i + 1] if i + 1 < len(table.lines) else None
        texts = [f"[bold green]{_escape(e.text)}[/]" if e.bold else _escape(e.text) for e in entries]
        starts = following is not None and bool(following[1][0].text)
        drawn.add_row(*texts, style=_STYLES[kind], end_section=starts)
    return drawn


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
