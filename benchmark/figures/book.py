"""Which figures a results folder gets, under which names, and the index that names those left out with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError, unknown
from ...core.files import read_json, write_json, write_text
from ...core.hashing import digest
from ..collect import StoredCell
from ..groups import Group
from ..leaderboard import sheets_of
from ..sheet import Sheet
from .kinds import KINDS, Kind
from .source import LeftOut, open_once

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

VERSION = 8  # raised when a figure would look different from the same results
_PRESETS = ("smoke", "quick", "paper")  # the later one gives a data set's plain file names
_MADE = "figures.json"
_SUFFIXES = (".png", ".pdf", ".csv")


@dataclass(frozen=True)
class Job:
    """One figure to draw: its file name, whose it is, the cells it rests on, and how."""

    kind: str
    stem: str
    subject: str
    table: str
    dataset: str
    method: str
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


def draw_figures(
    results: str | Path,
    only: Sequence[str] = (),
    force: bool = False,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
    sheets: Sequence[Sheet] | None = None,
    said: Callable[[Path], object] = lambda path: None,
) -> list[Path]:
    """Draw what is new under ``derived/figures`` and write ``index.md``.

    Args:
        results: a results folder.
        only: kinds to draw; empty: all.
        force: draw also what is up to date.
        methods: draw the figures of these methods only, and none of a whole table; empty: all.
        datasets: draw those of these data sets only; empty: all.
        sheets: the tables of `results`, if they were computed already.
        said: called with each PNG of the returned list as soon as it lies there.

    Returns:
        The PNG files of all chosen figures that apply, whether drawn now or before.

    Raises:
        UserError: not a results folder, no finished cell, an unknown kind, method or data set, or a choice that no
            figure meets.
    """
    from .style import paper_style, save

    for kind in only:
        if kind not in KINDS:
            raise unknown("kind of figure", kind, KINDS)
    results = Path(results)
    sheets = sheets_of(results) if sheets is None else sheets
    if not any(row.cells for sheet in sheets for row in sheet.group.rows):
        raise UserError(f"no finished cell in {results}: nothing to draw yet; see `multirater status`")
    folder = results / "derived" / "figures"
    every = _jobs(sheets)
    jobs = _chosen(every, only, methods, datasets, results)
    made: dict[str, Any] = read_json(folder / _MADE) if (folder / _MADE).is_file() else {}
    done: dict[str, Any] = {}
    with paper_style(), open_once():
        for job in jobs:
            old = made.get(job.stem, {})
            whole = all((folder / f"{job.stem}{suffix}").is_file() for suffix in _SUFFIXES)
            if old.get("key") == job.key and whole and not old.get("left_out") and not force:
                done[job.stem] = old
                said(folder / f"{job.stem}.png")
                continue
            entry = {"key": job.key, "kind": job.kind, "subject": job.subject, "table": job.table, "left_out": ""}
            try:
                figure, table = job.draw()
                said(save(figure, table, folder, job.stem)[0])
            except (LeftOut, UserError) as reason:  # damaged files of one cell must not cost the other figures
                entry["left_out"] = str(reason)
            done[job.stem] = entry
    exist = {job.stem for job in every}
    entries = {**{stem: e for stem, e in made.items() if stem in exist}, **done}
    _remove_stale(folder, {stem for stem, e in entries.items() if not e["left_out"]})
    write_json(folder / _MADE, entries)
    write_text(folder / "index.md", index(entries))
    return [folder / f"{stem}.png" for stem, entry in done.items() if not entry["left_out"]]


def _chosen(
    jobs: list[Job], only: Sequence[str], methods: Sequence[str], datasets: Sequence[str], results: Path
) -> list[Job]:
    there = {"method": {job.method for job in jobs if job.method}, "data set": {job.dataset for job in jobs}}
    for kind, names in (("method", methods), ("data set", datasets)):
        for name in names:
            if name not in there[kind]:
                raise unknown(f"{kind} in {results}", name, there[kind])
    whole = [kind for kind in only if KINDS[kind].scope == "table"]
    if methods and whole:
        raise UserError(
            f"{whole[0]!r} shows all methods of a data set together; leave out --method, or choose among "
            f"{', '.join(k.name for k in KINDS.values() if k.scope != 'table')}"
        )
    return [
        job
        for job in jobs
        if (not only or job.kind in only)
        and (not methods or job.method in methods)
        and (not datasets or job.dataset in datasets)
    ]


def _jobs(sheets: Sequence[Sheet]) -> list[Job]:
    main: dict[str, Sheet] = {}
    for sheet in sheets:
        name = sheet.group.key["dataset"]
        if name not in main or _rank(sheet) > _rank(main[name]):
            main[name] = sheet
    jobs = []
    for sheet in sheets:
        tail = "" if main[sheet.group.key["dataset"]] is sheet else f"__{slug(sheet.group.slug)}"
        for kind in KINDS.values():
            jobs += _jobs_of_table(kind, sheet, tail) if kind.scope == "table" else _jobs_of_rows(kind, sheet, tail)
    return jobs


def _jobs_of_table(kind: Kind, sheet: Sheet, tail: str) -> list[Job]:
    group, dataset = sheet.group, sheet.group.key["dataset"]
    cells = tuple(cell for row in group.rows for cell in row.cells)
    stem = f"{kind.name}__{slug(dataset)}{tail}"
    return [Job(kind.name, stem, group.title, table_key(group), dataset, "", cells, kind.drawing(sheet))]


def _jobs_of_rows(kind: Kind, sheet: Sheet, tail: str) -> list[Job]:
    group, dataset = sheet.group, sheet.group.key["dataset"]
    table = table_key(group)
    jobs = []
    for row in group.methods:
        # The plain name is the method's; only configurations that stand side by side need more.
        alone = sum(other.method == row.method for other in group.methods) == 1
        label = "" if alone or not row.label else f"-{slug(row.label)}"
        stem = f"{kind.name}__{slug(dataset)}__{slug(row.method)}{label}{tail}"
        subject, cells = f"{row.name} on {group.title}", tuple(row.cells)
        if kind.scope == "method":
            jobs.append(Job(kind.name, stem, subject, table, dataset, row.method, cells, kind.drawing(sheet, row)))
            continue
        for k, name in enumerate(group.class_names or ("",)):
            mark, said = (f"-class{k + 1}", f", class {name}") if name else ("", "")
            draw = kind.drawing(sheet, row, k)
            jobs.append(Job(kind.name, stem + mark, subject + said, table, dataset, row.method, cells, draw))
    return jobs


def _rank(sheet: Sheet) -> tuple[Any, ...]:
    preset = sheet.group.key["preset"]
    done = sum(len(row.cells) for row in sheet.group.methods)
    return (_PRESETS.index(preset) if preset in _PRESETS else -1, done, sheet.group.slug)


def table_key(group: Group) -> str:
    """What tells two tables apart whose titles are the same (another fingerprint, another protocol)."""
    return digest({k: str(v) for k, v in group.key.items()})[:12]


def slug(text: str) -> str:
    """A part of a file name: letters, digits, dots, underscores, hyphens, equals signs."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-")


def _remove_stale(folder: Path, stems: set[str]) -> None:
    """Figures of cells that no longer exist must not lie beside the present ones."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.suffix in _SUFFIXES and path.name.split("__")[0] in KINDS and path.stem not in stems:
            path.unlink()


def index(entries: dict[str, Any]) -> str:
    """``index.md``: every figure, and every one left out with its reason."""
    lines = ["# Figures", "", "Each figure lies here as PNG and PDF, with the CSV of what it draws beside it.", ""]
    for kind in KINDS.values():
        of_kind = {stem: e for stem, e in sorted(entries.items()) if e["kind"] == kind.name}
        if not of_kind:
            continue
        lines += [f"## {kind.name}: {kind.said}", ""]
        for stem, entry in of_kind.items():
            if entry["left_out"]:
                lines.append(f"* left out: `{stem}` ({entry['subject']}): {entry['left_out']}")
            else:
                lines.append(f"* [{stem}]({stem}.png): {entry['subject']} ([PDF]({stem}.pdf), [data]({stem}.csv))")
        lines.append("")
    return "\n".join(lines)
