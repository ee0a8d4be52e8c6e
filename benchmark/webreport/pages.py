"""Writes the report's folder: a page, its style and script, one data file for the tables and one for every row.

A page that is opened from disk may load scripts but no other files, so the data are scripts too; those of a row are
loaded when the row is opened.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from ... import __version__
from ...core.errors import UserError
from ...core.files import write_text
from ..figures.source import open_once
from ..leaderboard import sheets_of
from ..sheet import Sheet
from .gallery import Gallery
from .records import Names, group_record, line_records, row_record, tracks

_MARK = "multirater-report.txt"
_NOTES = {
    "ids": "Case and patient ids are shown as they are.",
    "hashed": "Case and patient ids are pseudonyms: hashes, the same in every report of these data.",
    "images": "The report holds images of cases.",
    "masks": "The report holds no images; outlines of a few cases stand on an empty ground.",
    "none": "The report holds neither images nor outlines of cases.",
}


def write_report(
    results: str | Path,
    folder: str | Path | None = None,
    with_ids: bool = False,
    with_images: bool = False,
    samples: bool = True,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the report of a results folder; a report that is there is replaced as a whole.

    Args:
        results: a results folder.
        folder: where to write; None: ``derived/report`` of the results.
        with_ids: case and patient ids in place of pseudonyms.
        with_images: images of the shown cases, and the figures that show images.
        samples: outlines of readers and samples of a few cases a row, as far as predictions and data are here.
        tick: called after every row.

    Returns:
        ``index.html``.

    Raises:
        UserError: not a results folder, no cell in it, or `folder` holds something else than a report.
    """
    results = Path(results)
    target = Path(folder) if folder is not None else results / "derived" / "report"
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; give an empty folder, or that of an older report, with --out")
    if target.is_dir() and any(target.iterdir()) and not (target / _MARK).is_file():
        raise UserError(f"{target} is not empty and holds no report; give another folder with --out")
    sheets = sheets_of(results)
    fresh = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        fresh.mkdir(parents=True)
        with open_once():
            _write(results, sheets, fresh, with_ids, with_images, samples, tick)
        if target.is_dir():
            shutil.rmtree(target)
        os.rename(fresh, target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}; give another folder with --out") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target / "index.html"


def _write(
    results: Path,
    sheets: list[Sheet],
    folder: Path,
    with_ids: bool,
    with_images: bool,
    samples: bool,
    tick: Callable[[int, int], None],
) -> None:
    names: dict[str, Names] = {}
    gallery = Gallery(results, folder, with_ids, with_images, samples)
    groups: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    total, row_id = sum(len(sheet.group.rows) for sheet in sheets), 0
    for number, sheet in enumerate(sheets):
        fingerprint = str(sheet.group.key["fingerprint"])
        known = names.setdefault(fingerprint, Names(fingerprint, with_ids))
        first = row_id
        for index in range(len(sheet.group.rows)):
            record = row_record(sheet, index, known)
            record |= {
                "figures": gallery.figures_of_row(sheet, index, known),
                "samples": gallery.samples_of_row(sheet, index, row_id, known),
            }
            _script(folder / "data" / f"row-{row_id}.js", f"multirater.rows[{row_id}]", record)
            row_id += 1
            tick(row_id, total)
        groups.append({**group_record(sheet, number), "figures": gallery.figures_of_table(sheet, known)})
        lines += line_records(sheet, number, first)
    shown = "images" if with_images else "masks" if gallery.any_samples else "none"
    board = {
        "suite": __version__,
        "notes": [_NOTES["ids" if with_ids else "hashed"], _NOTES[shown], *gallery.notes],
        "tracks": tracks(),
        "groups": groups,
        "lines": lines,
    }
    _script(folder / "data" / "board.js", "multirater.board", board)
    _page(folder, board)
    write_text(folder / _MARK, f"Report of multirater {__version__}; open index.html in a browser.\n")


def _script(path: Path, name: str, value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Not for keeping: the folder appears whole or not at all, so single files need no care of their own.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{name}={text};\n", encoding="utf-8")


def _page(folder: Path, board: dict[str, Any]) -> None:
    from jinja2 import Environment, StrictUndefined

    assets = resources.files(__package__) / "assets"
    for name in ("report.css", "report.js"):
        write_text(folder / "assets" / name, (assets / name).read_text(encoding="utf-8"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string((assets / "index.html.j2").read_text(encoding="utf-8"))
    write_text(folder / "index.html", page.render(board=board) + "\n")
