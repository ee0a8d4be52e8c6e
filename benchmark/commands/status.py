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
    from ..listing import listing_console, print_rows

    console = listing_console()
    if not rows:
        console.print("no cells")
        return 0
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for row in rows:
        counts.setdefault((row["method"], row["dataset"], row["preset"]), Counter())[row["state"]] += 1
    states = [s for s in _ORDER if any(c[s] for c in counts.values())]
    lines = [(*kind, *(count[s] or "" for s in states)) for kind, count in counts.items()]
    print_rows(console, ("method", "dataset", "preset", *states), lines, right=states)
    listed = rows if every else [row for row in rows if row["state"] != "done"]
    if not listed:
        return 0
    shown = listed if every or why else listed[:_SHOWN]
    console.print()
    # A terminal is too narrow for a sentence beside the other columns.
    below = [row.pop("why") for row in shown] if why and console.is_terminal else []
    print_rows(console, list(shown[0]), [list(row.values()) for row in shown])
    for row, reason in zip(shown, below, strict=False):
        if reason:
            console.print(f"\n{row['method']}/{row['dataset']}/{row['cell']}: {reason}")
    if len(shown) < len(listed):
        console.print(f"and {len(listed) - len(shown)} more: --cells lists all, --why says why")
    return 0
