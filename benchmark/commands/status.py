"""``multirater status``: states of the cells, computed from their folders."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from .options import json_option, results_option

_ORDER = ("done", "trained", "running", "pending", "lost", "failed", "damaged")
_SHOWN = 40  # cells that are listed without --cells


@click.command("status")
@results_option
@click.option("--why", is_flag=True, help="Show why a cell did not finish.")
@click.option("--cells", "every", is_flag=True, help="List every cell.")
@json_option()
def command(results: Path, why: bool, every: bool, as_json: bool) -> int:
    """Cells by method and data set, and those that are not done."""
    from ..states import scan
    from ..states import why as why_of

    found = scan(results)
    rows = []
    for one in found:
        row = {k: one.facts[k] for k in ("method", "dataset", "preset", "fold", "seed")}
        row |= {"state": one.state, "cell": one.name}
        if why:
            reason = one.why if one.state == "damaged" else why_of(results / "cells" / one.path)
            row["why"] = "" if one.state == "done" else reason
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not rows:
        console.print("no cells")
        return 0
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for row in rows:
        counts.setdefault((row["method"], row["dataset"], row["preset"]), Counter())[row["state"]] += 1
    states = [s for s in _ORDER if any(c[s] for c in counts.values())]
    table = Table(box=None, pad_edge=False)
    for column in ("method", "dataset", "preset"):
        table.add_column(column, overflow="fold")
    for state in states:
        table.add_column(state, justify="right")
    for kind, count in counts.items():
        table.add_row(*kind, *(str(count[s] or "") for s in states))
    console.print(table)
    listed = rows if every else [row for row in rows if row["state"] != "done"]
    if not listed:
        return 0
    shown = listed if every or why else listed[:_SHOWN]
    console.print()
    table = Table(box=None, pad_edge=False)
    for column in shown[0]:
        table.add_column(column, overflow="fold", no_wrap=column in ("fold", "seed", "state"))
    for row in shown:
        table.add_row(*(str(v) for v in row.values()))
    console.print(table)
    if len(shown) < len(listed):
        console.print(f"and {len(listed) - len(shown)} more: --cells lists all, --why says why")
    return 0
