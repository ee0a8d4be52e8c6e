"""``multirater report``: the HTML report from stored results; nothing is trained or predicted."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option, results_option


@click.command("report")
@results_option
@click.option("--out", type=click.Path(path_type=Path), help="Where to write; default: derived/report of the results.")
@click.option("--with-ids", is_flag=True, help="Show case and patient ids in place of pseudonyms.")
@click.option("--with-images", is_flag=True, help="Include images of the shown cases.")
@click.option(
    "--samples/--no-samples", default=True, show_default=True, help="Outlines of samples of a few cases a row."
)
@json_option("Print the path as JSON.")
def command(results: Path, out: Path | None, with_ids: bool, with_images: bool, samples: bool, as_json: bool) -> int:
    """Write a folder that a browser opens from disk: tables, cases, figures, configuration and provenance."""
    from ..webreport import write_report

    page = write_report(results, out, with_ids, with_images, samples)
    click.echo(json.dumps({"page": str(page)}) if as_json else page)
    return 0
