"""Copy finished results into a folder to commit: ``python -m multirater.benchmark.publish FROM TO``.

Kept per cell: the specification, the training record and history, the evaluation record, and the case values packed;
beside them leaderboard, figures, a compact table and each seed on its own. Left behind: weights, predictions, logs.
The copy is itself a results folder: its leaderboard can be made again with ``multirater leaderboard --results TO``.
"""

from __future__ import annotations

import lzma
import shutil
import sys
from pathlib import Path

from ..core.errors import UserError
from ..core.files import write_bytes, write_text
from .cell import State, all_cells, open_results, read_metrics
from .collect import load_results
from .summary import compact_table, seeds_table

RECORDS = ("spec.json", "train.json", "history.csv")
TABLES = ("leaderboard.md", "leaderboard.csv", "leaderboard_details.csv")


def publish(source: Path, target: Path) -> int:
    """Copy every finished cell, the leaderboard and the figures; return the number of cells.

    Raises:
        UserError: nothing is finished, or a cell is not.
    """
    cells = all_cells(open_results(source))
    unfinished = [cell.folder for cell in cells if cell.state() is not State.DONE]
    if unfinished or not cells:
        raise UserError(
            f"{unfinished[0] if unfinished else source} holds no finished result; run `multirater run` first"
        )
    for old in ("cells", "figures"):
        shutil.rmtree(target / old, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "index.json", target / "index.json")
    for cell in cells:
        folder = target / cell.folder.relative_to(source)
        key = cell.spec["eval_key"]
        record = cell.eval_folder(key)
        for name in RECORDS:
            if (cell.folder / name).is_file():
                write_bytes(folder / name, (cell.folder / name).read_bytes())
        packed = folder / record.relative_to(cell.folder)
        write_bytes(packed / "result.json", (record / "result.json").read_bytes())
        write_bytes(packed / "metrics.csv.xz", lzma.compress(read_metrics(record), preset=9 | lzma.PRESET_EXTREME))
    for name in TABLES:
        shutil.copy(source / "derived" / name, target / name)
    write_text(target / "table.md", compact_table(target / "leaderboard.csv"))
    write_text(target / "seeds.md", seeds_table(load_results(source)))
    shutil.copytree(source / "derived" / "figures", target / "figures")
    return len(cells)


if __name__ == "__main__":
    try:
        print(f"{publish(Path(sys.argv[1]), Path(sys.argv[2]))} cells published in {sys.argv[2]}")
    except UserError as error:
        sys.exit(f"publish: {error}")
