"""``multirater clean``: remove what killed processes left behind."""

from __future__ import annotations

from pathlib import Path

import click

from .options import results_option


@click.command("clean")
@results_option
@click.option("--attempts", is_flag=True, help="Also logs of earlier attempts of finished cells, and of lost ones.")
@click.option("--superseded", is_flag=True, help="Also results that --overwrite set aside.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def command(results: Path, attempts: bool, superseded: bool, dry_run: bool) -> int:
    """Remove orphan temporaries, markers and states that nobody needs; results and running cells stay."""
    from ...core.errors import UserError
    from ..cleaning import find_waste

    waste = find_waste(results, attempts, superseded)
    for kind, paths in waste.paths.items():
        click.echo(f"{kind}: {len(paths)}, {waste.size[kind] / 1e6:.1f} MB")
    if not waste.paths:
        click.echo("nothing to remove")
    elif dry_run:
        click.echo("nothing was removed (--dry-run)")
    else:
        kept = waste.remove()
        if kept:
            raise UserError(f"{len(kept)} of them cannot be removed, such as {kept[0]}: check who may write there")
        click.echo("removed")
    return 0
