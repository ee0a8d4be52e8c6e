"""``multirater merge``: bundles of others into a results folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .options import json_option, results_option


@click.command("merge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@results_option
@json_option()
def command(files: tuple[Path, ...], results: Path, as_json: bool) -> int:
    """Add the cells of bundles; what contradicts this folder is reported and left out (exit code 1)."""
    from ..merging import merge

    merged = merge(results, files)
    if as_json:
        click.echo(json.dumps(asdict(merged), indent=1))
    else:
        click.echo(f"{len(merged.added)} cells added, {len(merged.same)} were there with the same numbers")
        for path, words in merged.notes:
            click.echo(f"note {path}: {words}", err=True)
        for path, words in merged.conflicts:
            click.echo(f"conflict {path}: {words}; what was here stays", err=True)
        for path, words in merged.refused:
            click.echo(f"refused {path}: {words}", err=True)
    return 1 if merged.conflicts or merged.refused else 0
