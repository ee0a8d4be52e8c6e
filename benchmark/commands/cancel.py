"""``multirater cancel``: stop what runs or waits for a results folder."""

from __future__ import annotations

from pathlib import Path

import click

from .options import results_option


@click.command("cancel")
@results_option
@click.option("--kill", is_flag=True, help="End cells at once instead of letting them save.")
def command(results: Path, kill: bool) -> int:
    """Stop every coordinator, running cell and waiting job of a results folder; what is kept is gone on with later."""
    from ..cancelling import cancel

    done = cancel(results, kill)
    click.echo(f"{len(done.processes)} cells on this machine and {len(done.jobs)} SLURM jobs were told to stop")
    for path, host in done.elsewhere:
        click.echo(f"{path} runs on {host}: call multirater cancel there", err=True)
    return 0
