"""``multirater status``: states of the cells, computed from their folders."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("status")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--why", is_flag=True, help="Show why a cell did not finish.")
@click.option("--json", "as_json", is_flag=True)
def command(results: Path, why: bool, as_json: bool) -> int:
    """One line per cell: method, data set, fold, seed, preset, state."""
    from ..cell import State, all_cells, open_results

    rows = []
    for cell in all_cells(open_results(results)):
        spec, state = cell.spec, cell.state()
        last = cell.last_attempt() or {}
        row = {"method": spec["method"]["name"], "dataset": spec["dataset"]["name"], "preset": spec["preset"]}
        row |= {"fold": spec["fold"], "seed": spec["seed"], "state": str(state), "cell": cell.folder.name}
        if why:
            row["why"] = "" if state is State.DONE else last.get("message", "")
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in rows[0] if rows else ["no cells"]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(v) for v in row.values()))
    Console().print(table)
    return 0
