"""``multirater figures``: figures from stored results; nothing is trained or predicted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click

from ..figures.kinds import KINDS
from .options import json_option, list_option, names, results_option


@click.command("figures")
@results_option
@list_option("--only", "--kinds", "only", help=f"Comma list of kinds: {', '.join(KINDS)}.")
@list_option("--method", "-m", "methods", help="Comma list of methods: their own figures only.")
@list_option("--dataset", "-d", "datasets", help="Comma list of data sets.")
@click.option("--force", is_flag=True, help="Draw again what is up to date.")
@json_option("Print the paths as JSON.")
def command(
    results: Path, only: str | None, methods: str | None, datasets: str | None, force: bool, as_json: bool
) -> int:
    """Draw what is new under derived/figures, and its index.md; figures that do not apply are named there."""
    from ..figures import draw_figures

    # Each picture is named as soon as it lies there: with many methods drawing takes minutes.
    said = partial(click.echo, err=as_json)
    paths = draw_figures(results, names(only), force, names(methods), names(datasets), said=said)
    if as_json:
        click.echo(json.dumps([str(path) for path in paths], indent=1))
    else:
        click.echo(results / "derived" / "figures" / "index.md")
    return 0
