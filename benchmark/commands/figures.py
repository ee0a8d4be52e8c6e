"""``multirater figures``: figures from stored results; nothing is trained or predicted."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..figures.kinds import KINDS
from .options import json_option, results_option


@click.command("figures")
@results_option
@click.option("--only", "--kinds", "only", default="", help=f"Comma list of kinds: {', '.join(KINDS)}.")
@click.option("--method", "-m", "methods", default="", help="Comma list of methods: their own figures only.")
@click.option("--dataset", "-d", "datasets", default="", help="Comma list of data sets.")
@click.option("--force", is_flag=True, help="Draw again what is up to date.")
@json_option("Print the paths as JSON.")
def command(results: Path, only: str, methods: str, datasets: str, force: bool, as_json: bool) -> int:
    """Draw what is new under derived/figures, and its index.md; figures that do not apply are named there."""
    from ..figures import draw_figures

    paths = draw_figures(results, _names(only), force, _names(methods), _names(datasets))
    if as_json:
        click.echo(json.dumps([str(path) for path in paths], indent=1))
    else:
        for path in paths:
            click.echo(path)
        click.echo(results / "derived" / "figures" / "index.md")
    return 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
