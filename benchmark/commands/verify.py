"""``multirater verify``: run a finished cell again and compare."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .options import json_option, results_option


@click.command("verify")
@click.argument("cell")
@results_option
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads (default: as the first run).")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=1e-6,
    show_default=True,
    help="Largest difference of a mean over cases. Same CPU, threads and versions: the same bits are expected.",
)
@json_option()
def command(cell: str, results: Path, device: str, threads: int, tolerance: float, as_json: bool) -> int:
    """Train, predict and score CELL (its folder, or METHOD/DATASET/NAME) again, in a temporary folder."""
    from ..verifying import find_cell, verify

    found = verify(find_cell(results, cell), device, threads, tolerance)
    if as_json:
        click.echo(json.dumps({**asdict(found), "passed": found.passed}, indent=1))
        return 0 if found.passed else 1
    click.echo(f"{found.values} case values, {found.different} differ, by {found.largest:g} at most")
    if found.undefined:
        click.echo(f"{found.undefined} values are there or defined in one run only")
    if found.worst is not None and found.different:
        output, metric, one, two = found.worst
        click.echo(f"largest difference of a mean: {metric} of {output}, {one:.6g} then, {two:.6g} now")
    for reason in found.reasons:
        click.echo(f"differs: {reason}")
    click.echo(f"{'verified' if found.passed else 'NOT verified'} within {found.tolerance:g}")
    return 0 if found.passed else 1
