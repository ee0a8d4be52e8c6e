"""``multirater leaderboard``: tables from stored results; nothing is trained or predicted."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option, results_option


@click.command("leaderboard")
@results_option
@click.option(
    "--format", "form", type=click.Choice(["md", "csv", "tex", "html"]), help="Write this form too, and print it."
)
@click.option(
    "--layout",
    type=click.Choice(["tracks", "dpersona"]),
    default="tracks",
    show_default=True,
    help="The suite's tables, or the two tables of the D-Persona paper (needs stored predictions for smaller S).",
)
@json_option("Print the tables as JSON.")
def command(results: Path, form: str | None, layout: str, as_json: bool) -> int:
    """Write derived/leaderboard.csv and .md from stored results, and print the tables."""
    from ..leaderboard import as_records, sheets_of, write_leaderboard

    sheets = sheets_of(results)
    written = write_leaderboard(results, (form,) if form else (), sheets, layout)
    if as_json:
        click.echo(json.dumps(as_records(sheets), indent=1))
    elif form or layout != "tracks":
        shown = f"{'leaderboard' if layout == 'tracks' else layout}.{form or 'md'}"
        click.echo((results / "derived" / shown).read_text(encoding="utf-8"), nl=False)
    else:
        from ..tables import default_console, print_sheet

        console = default_console()
        for sheet in sheets:
            print_sheet(sheet, console)
        console.print()
        for path in written:
            click.echo(path)
    return 0
