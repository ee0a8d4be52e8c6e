"""Lists of cells on standard output: a line each where it is a file or a pipe, within its width on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console

_LONG = 100_000  # characters of a line that is never cut
WHOLE = ("fold", "seed", "state", "cell", "time", "memory")  # columns that are not folded on a narrow terminal


def listing_console() -> Console:
    """Standard output for words of others: nothing in them is markup."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _LONG
    return console


def print_rows(
    console: Console, heads: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()
) -> None:
    """Rows below their headings; the columns of `right` hold numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in heads:
        side: Literal["left", "right"] = "right" if head in right else "left"
        table.add_column(head, justify=side, overflow="fold", no_wrap=head in WHOLE or head in right)
    for row in rows:
        table.add_row(*(" ".join(str(value).split()) for value in row))
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        click.echo(line.rstrip(), color=True)
