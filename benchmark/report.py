"""The end of a run: table, leaderboard, figures; from stored results only.

What was printed is kept in ``derived/tables``: a run that had nothing to do prints it again without reading ten
thousand files of case values.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UserError
from ..core.files import write_text
from ..core.hashing import digest

if TYPE_CHECKING:
    from rich.console import Console

    from .cell import Cell
    from .runner import Report
    from .states import Found

_KEPT = 20  # printed tables


def finish(report: Report, figures: bool = True, as_json: bool = False) -> int:
    """Print the table of the report's cells, update ``results/derived``, name what failed; return the exit code.

    Raises:
        UserError: tables or figures cannot be made or written, though every cell has its result.
    """
    trouble: UserError | None = None
    if not report.handed_over:
        try:
            _tables(report, figures, as_json)
        except UserError as error:  # a full disk, which cells have found too: what became of them is said first
            trouble = error
    for name, reason in report.skipped:
        click.echo(f"skipped {name}: {reason}", err=True)
    for cell, message in report.failed:
        attempts = cell.attempts()
        log = f"; log: {attempts[-1] / 'log.txt'}" if attempts and report.logs else ""
        click.echo(f"failed {cell.folder}: {message}{log}", err=True)
    if report.failed and not report.ran:
        click.echo("multirater retry tries them again; so does run once the code has changed", err=True)
    if report.left:
        click.echo(f"{len(report.left)} cells were not tried; the same command goes on with them", err=True)
    if report.stopped:
        click.echo(report.stopped, err=True)
    if report.interrupted:
        click.echo("interrupted; the same command goes on where it stopped", err=True)
    if trouble is not None:
        if not report.exit_code:
            raise trouble
        click.echo(str(trouble), err=True)
    return report.exit_code


def _tables(report: Report, figures: bool, as_json: bool) -> None:
    from .states import scan

    found = report.found if report.found is not None and not report.ran else scan(report.results)
    asked = [cell.path for cell in report.cells]
    known = {one.path: one for one in found}
    done = [cell for cell in report.cells if cell.path in known and known[cell.path].state_for(cell) == "done"]
    other = [cell for cell in done if cell.eval_key != known[cell.path].facts["eval_key"]]
    if not any(not cell.path.startswith("human/") for cell in done):
        return
    console = _console()
    shown = [as_json, console.width, console.is_terminal, figures]
    derived = report.results / "derived"
    kept = kept_table(report.results, found, asked, shown)
    whole = (derived / "leaderboard.md").is_file() and (not figures or (derived / "figures").is_dir())
    if not report.ran and whole and kept.is_file() and not other:
        click.echo(kept.read_text(encoding="utf-8"), nl=False)
    else:
        _write_tables(report, done, console, figures, as_json, None if other else kept)
    if other:
        click.echo(
            f"another command asked for another evaluation (eval.*) of {len(other)} of these cells meanwhile: the "
            f"table above shows the one of this command, leaderboard and figures the one that was asked for last; give "
            f"this command again to see its own there too",
            err=True,
        )
    if not as_json:
        click.echo(f"leaderboard: {derived / 'leaderboard.md'} and .csv")
        if figures:
            click.echo(f"figures:     {derived / 'figures'}")


def kept_table(results: Path, found: list[Found], asked: list[str], shown: list[Any]) -> Path:
    """Where what was printed for these cells is kept; another file once a result or the code has changed."""
    from . import provenance
    from .states import fingerprint_of

    key = digest([fingerprint_of(found, results), asked, provenance.signature(), shown])[:16]
    return results / "derived" / "tables" / f"{key}.txt"


def _console() -> Console:
    from .tables import default_console

    return default_console()


def _write_tables(
    report: Report, done: list[Cell], console: Console, figures: bool, as_json: bool, kept: Path | None
) -> None:
    from .leaderboard import sheets_of, write_leaderboard
    from .tables import print_results

    with console.capture() as printed:
        print_results(report.results, cells=done, console=console, as_json=as_json)
    click.echo(printed.get(), nl=False)
    sheets = sheets_of(report.results)
    write_leaderboard(report.results, sheets=sheets)
    if figures:
        from .figures import draw_figures

        draw_figures(report.results, sheets=sheets)
    if kept is None:
        return
    with contextlib.suppress(UserError, OSError):
        write_text(kept, printed.get())
        for old in sorted(kept.parent.glob("*.txt"), key=lambda p: p.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
