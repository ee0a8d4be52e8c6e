"""``multirater evaluate``: metrics again from stored predictions; nothing is trained."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, results_option


@click.command("evaluate")
@results_option
@click.option("--set", "sets", multiple=True, metavar="EVAL.B=C", help="Override an option under eval.")
@click.option("--force", is_flag=True, help="Also where this evaluation exists.")
@json_option("Print the table as JSON.")
def command(results: Path, sets: tuple[str, ...], force: bool, as_json: bool) -> int:
    """Score every trained cell with the present metrics."""
    from ...core.overrides import parse_sets
    from ..report import finish
    from ..rescore import evaluate

    return finish(evaluate(results, parse_sets(sets), force), figures=False, as_json=as_json)
