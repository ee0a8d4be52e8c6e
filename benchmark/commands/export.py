"""``multirater export``: a bundle of results for others."""

from __future__ import annotations

from pathlib import Path

import click

from .options import list_option, names, results_option


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@results_option
@list_option("--method", "-m", help="Comma list: only these methods.")
@click.option("--with-ids", is_flag=True, help="Case and patient ids as they are, instead of hashes.")
@click.option("--with-images", is_flag=True, help="Also stored predictions (needs --with-ids).")
def command(file: Path, results: Path, method: str | None, with_ids: bool, with_images: bool) -> int:
    """Write records and case values of the finished cells into one zip file.

    No images, no weights, no paths, hosts or user names; ids are hashed with the fingerprint of the data.
    """
    from ..bundles import export
    from ..cell import State
    from ..states import scan

    methods = None if method is None else names(method)
    shared = export(results, file, methods, with_ids, with_images)
    for one in scan(results):
        if one.state == State.DAMAGED and (methods is None or one.facts["method"] in methods):
            click.echo(f"left out {one.path}: {one.why}", err=True)
    click.echo(f"{len(shared)} cells in {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0
