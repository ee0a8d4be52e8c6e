"""``multirater retry``: try again what failed, as it was planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import engine_options, json_option, list_option, names, results_option, settings


@click.command("retry")
@results_option
@list_option("--method", "-m", help="Comma list: only these methods.")
@click.option("--failed", is_flag=True, help="Only cells that failed; default: also lost, damaged and unfinished ones.")
@engine_options
@click.option("--figures/--no-figures", default=True, show_default=True, help="Draw the figures at the end.")
@json_option()
def command(results: Path, method: str | None, failed: bool, figures: bool, as_json: bool, **engine: Any) -> int:
    """Run every cell of a results folder that was tried and has no result, from its stored specification."""
    from ...core.errors import UserError
    from ...methods import METHODS
    from ..cell import Cell, State
    from ..monitor import Monitor
    from ..planning import Plan
    from ..policy import Overwrite
    from ..report import finish
    from ..runner import Settings, execute
    from ..states import scan

    chosen = []
    found = scan(results)
    present = {one.facts["method"] for one in found}
    # A plug-in may be gone, its cells are not; any other name is a wrong one.
    wanted = None if method is None else {n if n in present else METHODS.entry(n).name for n in names(method)}
    for one in found:
        if wanted is not None and one.facts["method"] not in wanted:
            continue
        cell = Cell(results / "cells" / one.path)
        if one.state == State.DAMAGED and not one.facts["eval_key"]:
            click.echo(f"left out {one.path}: {one.why}", err=True)
            continue
        unfinished = one.state in (State.LOST, State.TRAINED, State.PENDING) and cell.attempts()
        if one.state == State.FAILED or (not failed and (one.state == State.DAMAGED or unfinished)):
            chosen.append(cell.asking(cell.spec))  # now: another command may ask for another evaluation
    if not chosen:
        of = "" if wanted is None else f" of {', '.join(sorted(wanted))}"
        raise UserError(f"nothing to retry in {results}: no cell{of} {'failed' if failed else 'is unfinished'}")
    made = Settings(**settings(**engine, overwrite=Overwrite.FAILED))
    report = execute(Plan(results, chosen, found=found), Monitor(), made.engine(), made)
    return finish(report, figures=figures, as_json=as_json)
