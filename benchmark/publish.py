"""Copy finished results into a folder to commit: ``python -m multirater.benchmark.publish FROM TO``.

Kept per cell: the specification, the training record and history, the evaluation record, and the case values packed;
beside them leaderboard, figures, a compact table and each seed on its own. Left behind: weights, predictions, logs, and
options that name a place on this machine. The copy is itself a results folder: its leaderboard can be made again with
``multirater leaderboard --results TO``.
"""

from __future__ import annotations

import lzma
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import read_json, write_bytes, write_json, write_text
from .cell import PATHS, Cell, State, all_cells, open_results, read_metrics
from .leaderboard import sheets_of
from .summary import compact_table, seeds_table

RECORDS = ("train.json", "history.csv")
TABLES = ("leaderboard.md", "leaderboard.csv", "leaderboard_details.csv")


def publish(source: Path, target: Path) -> int:
    """Copy every finished cell, the leaderboard and the figures; return the number of cells.

    Files of `target` that a publication does not make (its README) stay.

    Raises:
        UserError: the folders are one, a cell is not finished, or tables and figures are missing.
    """
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UserError(f"cannot publish {source} into {target}: neither may lie in the other; give another folder")
    if (
        target.exists()
        and any(target.iterdir())
        and not {"index.json", "README.md"} & {p.name for p in target.iterdir()}
    ):
        raise UserError(f"{target} is not empty and holds no publication; give an empty folder")
    cells = all_cells(open_results(source))
    unfinished = [cell.folder for cell in cells if cell.state() is not State.DONE]
    if unfinished or not cells:
        raise UserError(
            f"{unfinished[0] if unfinished else source} holds no finished result; use `multirater run` first"
        )
    derived = source / "derived"
    if not all((derived / name).exists() for name in (*TABLES, "figures")):
        raise UserError(
            f"{derived} lacks tables or figures; use `multirater leaderboard` and `multirater figures` first"
        )

    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        fresh.mkdir(parents=True)
        shutil.copy(source / "index.json", fresh / "index.json")
        for cell in cells:
            _copy_cell(cell, fresh / cell.folder.relative_to(source))
        for name in TABLES:
            shutil.copy(derived / name, fresh / name)
        shutil.copytree(derived / "figures", fresh / "figures")
        sheets = sheets_of(source)
        write_text(fresh / "table.md", compact_table(sheets))
        write_text(fresh / "seeds.md", seeds_table(sheets))
        target.mkdir(parents=True, exist_ok=True)
        for made in fresh.iterdir():
            old = target / made.name
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
            os.rename(made, old)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return len(cells)


def _copy_cell(cell: Cell, folder: Path) -> None:
    spec = cell.spec
    write_json(folder / "spec.json", _without_paths(spec))
    for name in RECORDS:
        if (cell.folder / name).is_file():
            write_bytes(folder / name, (cell.folder / name).read_bytes())
    record = cell.eval_folder(spec["eval_key"])
    packed = folder / record.relative_to(cell.folder)
    write_json(packed / "result.json", read_json(record / "result.json"))
    write_bytes(packed / "metrics.csv.xz", lzma.compress(read_metrics(record), preset=9 | lzma.PRESET_EXTREME))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if k not in PATHS or v is None}
    return value


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        sys.exit("publish: give two folders, python -m multirater.benchmark.publish FROM TO")
    source, target = (Path(a) for a in arguments)
    try:
        print(f"{publish(source, target)} cells published in {target}")
    except UserError as error:
        print(f"publish: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
