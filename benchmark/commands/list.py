"""``multirater list``: what there is, one line each; instant, for nothing is imported that is listed."""

from __future__ import annotations

import json

import click

from ..catalogue import KINDS, rows
from .options import json_option


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS), metavar="[" + "|".join(KINDS) + "]")
@json_option("Print as JSON: a list of rows per kind.")
def command(kind: str | None, as_json: bool) -> int:
    """One line each: name, capabilities, origin, what is missing."""
    tables = {k: rows(k) for k in ([kind] if kind else KINDS)}
    if as_json:
        click.echo(json.dumps(tables, indent=1, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for k, found in tables.items():
        table = Table(title=k, title_justify="left", title_style="bold", box=None, pad_edge=False, show_edge=False)
        shown = [c for c in ("name", "capabilities", "origin", "note", "summary") if any(row[c] for row in found)]
        for column in shown:
            table.add_column(column, no_wrap=column == "name", overflow="fold")
        for row in found:
            table.add_row(*(row[c] for c in shown))
        console.print(table)
        console.print()
    return 0
