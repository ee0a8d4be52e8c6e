"""``multirater data``: check a data set, look at it, convert pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import dataset_options, json_option


@click.group("data")
def command() -> None:
    """Check a data set, look at it, convert pickles."""


@command.command("check")
@dataset_options
@click.option(
    "--checksums",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="List of checksums of your files, as sha256sum or md5sum writes it, or a table with such a column.",
)
@json_option("Print the report as JSON.")
def check(dataset: str, root: str | None, sets: tuple[str, ...], checksums: Path | None, as_json: bool) -> int:
    """Read all of DATASET: counts, shapes, values, duplicates, patients across splits, checksums.

    Exit code 1 if there are faults.
    """
    from ..data_check import check_dataset
    from .prepare import opened, progress_bar

    data = opened(dataset, root, sets, "data check")
    with progress_bar(f"checking {data.name}", as_json) as show:
        report = check_dataset(data, checksums, show)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    else:
        _print(report)
    return 1 if report.faults else 0


def _print(report: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, facts = Console(), report.facts
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    lines = {"data set": facts["dataset"]}
    if facts["prepared"]:
        rows = "" if facts["rows"] == facts["cases"] else f" in {facts['rows']} slices"
        lines |= {
            "cases": f"{facts['cases']}{rows} of {facts['patients']} patients",
            "images": " × ".join(map(str, facts["shapes"]["images"])),
            "masks": " × ".join(map(str, facts["shapes"]["masks"])),
            "identity": facts["identity"],
            "fingerprint": facts["fingerprint"],
        }
    if "mask_values" in facts:
        lines["image values"] = "; ".join(f"{low:g} to {high:g}" for low, high in facts["image_range"])
        lines["mask values"] = ", ".join(map(str, facts["mask_values"]))
    for key, value in lines.items():
        grid.add_row(key, Text(str(value)))
    console.print(grid)
    if "raters" in facts:
        table = Table(box=None, pad_edge=False)
        for column in ("rater", "rows", "missing", "empty", "mean area"):
            table.add_column(column, justify="left" if column == "rater" else "right")
        for row in facts["raters"]:
            area = "n/a" if row["mean_area"] is None else f"{row['mean_area']:.1f}"
            table.add_row(Text(row["rater"]), *(str(row[k]) for k in ("rows", "missing", "empty")), area)
        console.print(table)
    styles = {"fault": "bold red", "warning": "yellow", "note": "dim"}
    for one in report.findings:
        lacking = [name for name in one.files if name not in one.found]
        where = f" [{', '.join(lacking)}]" if lacking else ""
        console.print(
            Text(one.level, style=styles[one.level]), Text(f"{one.check}: {one.found}{where}"), soft_wrap=True
        )
    warnings = sum(one.level == "warning" for one in report.findings)
    count = f"{report.faults} fault{'s' * (report.faults != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    console.print(Text(count, style="bold"))


@command.command("show")
@dataset_options
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The PNG; default DATASET.png.")
@click.option("--cases", type=click.IntRange(1, 100), default=8, show_default=True, help="Number of cases.")
@click.option("--case", "chosen", multiple=True, metavar="ID", help="Show this case; may be given several times.")
@click.option("--crop", is_flag=True, help="Show the surroundings of the masks only.")
@json_option("Print the shown cases as JSON.")
def show(
    dataset: str,
    root: str | None,
    sets: tuple[str, ...],
    out: Path | None,
    cases: int,
    chosen: tuple[str, ...],
    crop: bool,
    as_json: bool,
) -> int:
    """Draw a contact sheet of DATASET: images with all raters' outlines, and maps of agreement."""
    from ..data_sheet import draw_sheet
    from .prepare import opened, progress_bar

    data = opened(dataset, root, sets, "data show")
    with progress_bar(f"preparing {data.name}", as_json) as bar:
        data.prepare(bar)
    path = out or Path(f"{data.name}.png")
    rows = draw_sheet(data, path, count=cases, chosen=chosen, crop=crop)
    if as_json:
        click.echo(json.dumps({"file": str(path), "cases": rows}, indent=1, ensure_ascii=False))
    else:
        click.echo(f"{path}: {len(rows)} cases, by rising agreement of the raters")
    return 0


@command.command("convert")
@click.argument("pickles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The HDF5 file; default PICKLE.h5.")
@click.option(
    "--identity",
    type=click.Choice(["none", "consistent"]),
    default="none",
    show_default=True,
    help="Whether mask r is of one and the same person in all cases (brain growth: consistent; LIDC: none).",
)
@click.option("--licence", default="", help="Kept in the file and shown with the data set.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@json_option("Print the facts as JSON.")
def convert(
    pickles: tuple[Path, ...], out: Path | None, identity: str, licence: str, force: bool, as_json: bool
) -> int:
    """Write PICKLES of the LIDC and MedicalMatting kinds as one HDF5 file; nothing in them is executed."""
    from ...core.errors import UserError
    from ...datasets.convert import convert_pickles
    from .prepare import progress_bar

    path = out or pickles[0].with_suffix(".h5")
    if path.exists() and not force:
        raise UserError(f"{path} is there already; give another name with --out, or --force to replace it")
    with progress_bar(f"writing {path.name}", as_json) as bar:
        facts = convert_pickles(pickles, path, identity=identity, licence=licence, progress=bar)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return 0
    shape = " × ".join(map(str, facts["image"]))
    click.echo(
        f"{path}: {facts['cases']} cases of {facts['patients']} patients, {facts['raters']} raters, images of {shape}"
    )
    if facts["left_out_keys"]:
        click.echo(f"left out: {', '.join(f'{k} ({n} cases)' for k, n in facts['left_out_keys'].items())}")
    if facts["cases_without_series_uid"]:
        click.echo(f"{facts['cases_without_series_uid']} cases name no series and count as patients of their own")
    click.echo(f"use it: multirater prepare hdf5 --root {path}")
    return 0
