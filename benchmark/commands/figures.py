"""``multirater figures``: figures from stored results; nothing is trained or predicted."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("figures")
@click.option("--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True)
@click.option("--kinds", default="", help="Comma list of qualitative, curves, ged_over_samples, per_rater.")
@click.option("--force", is_flag=True, help="Draw again what is up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def command(results: Path, kinds: str, force: bool, as_json: bool) -> int:
    """Draw what is new under derived/figures, and its index.md; figures that do not apply are named there."""
    from ..figures import draw_figures

    chosen = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    paths = draw_figures(results, chosen, force)
    if as_json:
        click.echo(json.dumps([str(path) for path in paths], indent=1))
    else:
        for path in paths:
            click.echo(path)
        click.echo(results / "derived" / "figures" / "index.md")
    return 0
