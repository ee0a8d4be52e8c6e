"""``multirater run``: train and evaluate cells; skip what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import cell_options, engine_options, json_option, overwrite_option, settings


@click.command("run")
@cell_options
@engine_options
@overwrite_option
@click.option("--figures/--no-figures", default=True, show_default=True, help="Draw the figures at the end.")
@json_option()
def command(
    asked: dict[str, Any],
    results: Path,
    figures: bool,
    as_json: bool,
    **engine: Any,
) -> int:
    """Train and evaluate cells, print the table, update leaderboard and figures. What is done is skipped."""
    from ..report import finish
    from ..runner import run

    return finish(run(**asked, results=results, **settings(**engine)), figures=figures, as_json=as_json)
