"""The end of a run: table, leaderboard, figures; from stored results only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .runner import Report


def finish(report: Report, figures: bool = True, as_json: bool = False) -> int:
    """Print the table of the report's cells, update ``results/derived``, name what failed; return the exit code."""
    from .cell import HUMAN, State

    done = [cell for cell in report.cells if cell.state() is State.DONE]
    scored = [cell for cell in done if cell.spec["method"]["name"] != HUMAN]
    if scored:
        from .leaderboard import write_leaderboard
        from .tables import print_results

        print_results(report.results, cells=[c.folder for c in done], as_json=as_json)
        written = [write_leaderboard(report.results)]
        if figures:
            from .figures import draw_figures

            written.append(draw_figures(report.results))
        if not as_json:
            click.echo(f"leaderboard: {report.results / 'derived' / 'leaderboard.md'} and .csv")
            if figures:
                click.echo(f"figures:     {report.results / 'derived' / 'figures'}")
    for name, reason in report.skipped:
        click.echo(f"skipped {name}: {reason}", err=True)
    for cell, message in report.failed:
        attempts = cell.attempts()
        log = f"; log: {attempts[-1] / 'log.txt'}" if attempts else ""
        click.echo(f"failed {cell.folder}: {message}{log}", err=True)
    if report.interrupted:
        click.echo("interrupted; the same command goes on where it stopped", err=True)
    return report.exit_code
