"""``multirater plan``: which cells a run would have, their states, and what they would take."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from .options import cell_options, json_option


@click.command("plan")
@cell_options
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Cells at the same time.")
@json_option()
def command(
    asked: dict[str, Any],
    results: Path,
    jobs: int,
    as_json: bool,
) -> int:
    """Print cells, states and estimated hours; the hours are medians over finished cells of the same kind.

    Nothing is written into the results folder; embedded data sets are prepared in the cache.
    """
    from ..estimates import Estimates, kind_of
    from ..monitor import Monitor
    from ..planning import plan

    planned = plan(**asked, results=results, monitor=Monitor(), write=False)
    states = planned.states()
    known = Estimates.of(results, planned.found or ())
    rows = []
    for cell, state in states:
        name, data, folder = cell.folder.parts[-3:]
        kind = kind_of({"method": name, "dataset": data, "preset": asked["preset"]})
        fold_text, seed_text, _ = folder.split("-")
        rows.append(
            {
                "method": name,
                "dataset": data,
                "preset": asked["preset"],
                "fold": int(fold_text[1:]),
                "seed": int(seed_text[1:]),
                "state": state,
                "cell": folder,
                "seconds": known.seconds.get(kind),
                "memory_mb": known.memory_mb.get(kind),
                "estimated_from": known.counts.get(kind, 0),
            }
        )
    todo = [row for row in rows if row["state"] != "done"]
    spent = sum(row["seconds"] or 0.0 for row in todo)
    unknown = sum(row["seconds"] is None for row in todo)
    total = {
        "cells": len(rows),
        "states": dict(Counter(row["state"] for row in rows)),
        "hours": round(spent / 3600, 3),
        "wall_hours": round(spent / 3600 / jobs, 3),
        "without_estimate": unknown,
        "skipped": [{"method": m, "reason": reason} for m, reason in planned.skipped],
    }
    if as_json:
        click.echo(json.dumps({"cells": rows, "total": total}, indent=1))
        return 0
    _print(rows, total, jobs)
    return 0


def _print(rows: list[dict[str, object]], total: dict[str, object], jobs: int) -> None:
    from ..layout import duration
    from ..listing import listing_console, print_rows

    console = listing_console()
    heads = ("method", "dataset", "preset", "fold", "seed", "state", "cell", "time", "memory")
    lines = []
    for row in rows:
        seconds, memory = row["seconds"], row["memory_mb"]
        time = duration(seconds) if isinstance(seconds, float) else "unknown"
        used = f"{memory:.0f} MB" if isinstance(memory, float) and memory else ""
        lines.append([*(row[c] for c in heads[:7]), time, used])
    print_rows(console, heads, lines, right=("time", "memory"))
    states = total["states"]
    assert isinstance(states, dict)
    words = ", ".join(f"{n} {state}" for state, n in states.items())
    console.print(f"\n{total['cells']} cells: {words}")
    line = f"estimated {total['hours']:.2f} h of work, {total['wall_hours']:.2f} h with --jobs {jobs}"
    if total["without_estimate"]:
        line += f"; {total['without_estimate']} cells have no finished one of their kind to judge by"
    console.print(line)
    skipped = total["skipped"]
    assert isinstance(skipped, list)
    for pair in skipped:
        console.print(f"skipped {pair['method']}: {pair['reason']}")
