"""``multirater cite``: BibTeX of what a results folder used, or of entries by name."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option, results_option


@click.command("cite")
@click.argument("names", nargs=-1)
@results_option
@json_option()
def command(names: tuple[str, ...], results: Path, as_json: bool) -> int:
    """Print the BibTeX of methods, data sets and metrics: of NAMES, or of all that the tables of --results used."""
    from ..cite import as_bibtex, as_records, cite_names, cite_results

    found = cite_names(names) if names else cite_results(results)
    click.echo(json.dumps(as_records(found), indent=1) if as_json else as_bibtex(found), nl=as_json)
    return 0
