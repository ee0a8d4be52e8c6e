"""``multirater compare A B``: a paired comparison from stored results, and a picture of the cases that decide it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option, list_option, names, results_option


@click.command("compare")
@click.argument("a")
@click.argument("b")
@results_option
@list_option("--metrics", help="Comma list of metric ids; default: the primary metrics of all tracks.")
@click.option("--dataset", default="", help="Only the tables of this data set.")
@click.option("--picture/--no-picture", default=True, help="Draw the comparison under derived/compare.")
@json_option()
def command(a: str, b: str, results: Path, metrics: str | None, dataset: str, picture: bool, as_json: bool) -> int:
    """Compare two methods or outputs, case by case.

    A and B are METHOD, METHOD/OUTPUT (dpersona/levels, human/oracle) or a row's name as the tables show it.
    """
    from ..compare import compare

    found, reasons = compare(results, a, b, names(metrics), dataset)
    paths: list[Path] = []
    if picture:
        from ..compare_picture import draw_comparisons

        paths = draw_comparisons(results, found)
    if as_json:
        records = {"comparisons": [one.record() for one in found], "not_compared": reasons}
        click.echo(json.dumps({**records, "files": [str(path) for path in paths]}, indent=1))
        return 0
    from ..compare_text import print_comparisons
    from ..tables import default_console

    print_comparisons(found, reasons, default_console())
    for path in paths:
        click.echo(path)
    return 0
