"""Which figures a results folder gets, under which names, and the index that names those left out with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError, unknown
from ...core.files import read_json, write_json, write_text
from ...core.hashing import digest
from ..collect import DamagedCell, StoredCell
from ..groups import Group, Row
from ..leaderboard import sheets_of
from ..sheet import Sheet
from .source import LeftOut, open_once

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

VERSION = 3  # raised when a figure would look different from the same results
KINDS = {
    "qualitative": "image, readers, samples, outputs per reader, mean and entropy of fixed cases",
    "curves": "loss, its parts and the validation score over training",
    "ged_over_samples": "GED over the number of samples, with a perfect sampler",
    "per_rater": "Dice of each reader with intervals",
}
_PRESETS = ("smoke", "quick", "paper")  # the later one gives a data set's plain file names
_MADE = "figures.json"


@dataclass(frozen=True)
class Job:
    """One figure to draw: its file name, the cells it rests on, and how."""

    kind: str
    stem: str
    subject: str
    cells: tuple[StoredCell, ...]
    draw: Callable[[], tuple[Figure, pd.DataFrame]]

    @property
    def key(self) -> str:
        """Changes with anything that the figure shows, so that a finished one is not drawn again."""
        parts = [
            [c.name, c.result.get("metrics_sha256"), c.result.get("finished"), c.train.get("finished")]
            for c in self.cells
        ]
        return digest([VERSION, self.kind, self.subject, parts])


def draw_figures(results: str | Path, kinds: Sequence[str] = (), force: bool = False) -> list[Path]:
    """Draw what is new under ``derived/figures`` and write ``index.md``.

    Args:
        results: a results folder.
        kinds: kinds to draw; empty: all.
        force: draw also what is up to date.

    Returns:
        The PNG files of all figures that apply, whether drawn now or before.

    Raises:
        UserError: not a results folder, no finished cell, or an unknown kind.
    """
    from .style import paper_style, save

    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of figure", kind, KINDS)
    results = Path(results)
    sheets = sheets_of(results)
    if not any(row.cells for sheet in sheets for row in sheet.group.rows):
        raise UserError(f"no finished cell in {results}: nothing to draw yet; see `multirater status`")
    folder = results / "derived" / "figures"
    jobs = [job for job in _jobs(sheets) if not kinds or job.kind in kinds]
    made: dict[str, Any] = read_json(folder / _MADE) if (folder / _MADE).is_file() else {}
    done: dict[str, Any] = {}
    with paper_style(), open_once():
        for job in jobs:
            old = made.get(job.stem, {})
            fresh = old.get("key") == job.key and (bool(old.get("left_out")) or (folder / f"{job.stem}.png").is_file())
            if fresh and not force and not old.get("left_out"):
                done[job.stem] = old
                continue
            entry = {"key": job.key, "kind": job.kind, "subject": job.subject, "left_out": ""}
            try:
                figure, table = job.draw()
                save(figure, table, folder, job.stem)
            except (LeftOut, DamagedCell) as reason:
                entry["left_out"] = str(reason)
            done[job.stem] = entry
    kept = {} if not kinds else {stem: e for stem, e in made.items() if e["kind"] not in kinds}
    _remove_stale(folder, {stem for stem, e in {**kept, **done}.items() if not e["left_out"]})
    write_json(folder / _MADE, {**kept, **done})
    write_text(folder / "index.md", index({**kept, **done}))
    return [folder / f"{stem}.png" for stem, entry in done.items() if not entry["left_out"]]


def _jobs(sheets: Sequence[Sheet]) -> list[Job]:
    main: dict[str, Sheet] = {}
    for sheet in sheets:
        name = sheet.group.key["dataset"]
        if name not in main or _rank(sheet) > _rank(main[name]):
            main[name] = sheet
    jobs = []
    for sheet in sheets:
        group = sheet.group
        name = group.key["dataset"]
        tail = "" if main[name] is sheet else f"__{slug(group.slug)}"
        for row in group.methods:
            # The plain name is the method's; only configurations that stand side by side need more.
            alone = sum(other.method == row.method for other in group.methods) == 1
            stem = (
                f"{slug(name)}__{slug(row.method)}" + ("" if alone or not row.label else f"-{slug(row.label)}") + tail
            )
            subject = f"{row.name} on {group.title}"
            cells = tuple(row.cells)
            for k, name_of_class in enumerate(group.class_names or ("",)):
                mark, said = (f"-class{k + 1}", f", class {name_of_class}") if name_of_class else ("", "")
                draw = partial(_qualitative, group, row, k)
                jobs.append(Job("qualitative", f"qualitative__{stem}{mark}", subject + said, cells[:1], draw))
            jobs.append(Job("curves", f"curves__{stem}", subject, cells, partial(_curves, group, row)))
        every = tuple(cell for row in group.rows for cell in row.cells)
        stem = f"{slug(name)}{tail}"
        jobs.append(Job("ged_over_samples", f"ged_over_samples__{stem}", group.title, every, partial(_samples, group)))
        jobs.append(Job("per_rater", f"per_rater__{stem}", group.title, every, partial(_per_rater, sheet)))
    return jobs


def _rank(sheet: Sheet) -> tuple[Any, ...]:
    preset = sheet.group.key["preset"]
    done = sum(len(row.cells) for row in sheet.group.methods)
    return (_PRESETS.index(preset) if preset in _PRESETS else -1, done, sheet.group.slug)


# Drawing modules are imported when a figure is drawn: listing jobs needs neither matplotlib nor the predictions.
def _qualitative(group: Group, row: Row, k: int) -> tuple[Figure, pd.DataFrame]:
    from . import qualitative

    return qualitative.draw(group, row, k)


def _curves(group: Group, row: Row) -> tuple[Figure, pd.DataFrame]:
    from . import curves

    return curves.draw(group, row)


def _samples(group: Group) -> tuple[Figure, pd.DataFrame]:
    from . import samples_curve

    return samples_curve.draw(group)


def _per_rater(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    from . import per_rater

    return per_rater.draw(sheet)


def slug(text: str) -> str:
    """A part of a file name: letters, digits, dots, underscores, hyphens, equals signs."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-")


def _remove_stale(folder: Path, stems: set[str]) -> None:
    """Figures of cells that no longer exist must not lie beside the present ones."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.suffix in (".png", ".pdf", ".csv") and path.name.split("__")[0] in KINDS and path.stem not in stems:
            path.unlink()


def index(entries: dict[str, Any]) -> str:
    """``index.md``: every figure, and every one left out with its reason."""
    lines = ["# Figures", "", "Each figure lies here as PNG and PDF, with the CSV of what it draws beside it.", ""]
    for kind, said in KINDS.items():
        of_kind = {stem: e for stem, e in sorted(entries.items()) if e["kind"] == kind}
        if not of_kind:
            continue
        lines += [f"## {kind}: {said}", ""]
        for stem, entry in of_kind.items():
            if entry["left_out"]:
                lines.append(f"* left out: `{stem}` ({entry['subject']}): {entry['left_out']}")
            else:
                lines.append(f"* [{stem}]({stem}.png): {entry['subject']} ([PDF]({stem}.pdf), [data]({stem}.csv))")
        lines.append("")
    return "\n".join(lines)
