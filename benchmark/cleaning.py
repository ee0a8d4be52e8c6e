"""What killed and finished processes leave in a results folder and nobody needs: found, counted, removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .attempts import attempt_folders
from .cell import State
from .states import scan

_OLD = 60.0  # seconds after which a temporary file of nobody's is an orphan


@dataclass
class Waste:
    """Paths by kind, and their bytes."""

    paths: dict[str, list[Path]] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        self.paths.setdefault(kind, []).append(path)
        self.size[kind] = self.size.get(kind, 0) + _size(path)

    def remove(self) -> list[Path]:
        """Remove the paths; returns those that are still there."""
        found = [path for paths in self.paths.values() for path in paths]
        for path in found:
            with contextlib.suppress(OSError):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        return [path for path in found if os.path.lexists(path)]


def find_waste(results: Path, attempts: bool = False, superseded: bool = False) -> Waste:
    """What can go; a cell that somebody runs is left alone.

    Always: temporary files of killed processes, markers of claims, states of finished cells, remembered plans,
    tables and values.

    Args:
        attempts: also logs of all attempts of finished cells but the last, and of lost attempts.
        superseded: also results that `run --overwrite` set aside.
    """
    waste = Waste()
    for one in scan(results):
        folder = results / "cells" / one.path
        if one.state == State.RUNNING:
            continue
        for path in _hidden(folder):
            waste.add("temporary files", path)
        if one.state == State.DONE and (folder / "state").exists():
            waste.add("states of finished cells", folder / "state")
        tried = attempt_folders(folder)
        if attempts:
            for path in tried[:-1] if one.state == State.DONE else [p for p in tried[:-1] if _lost(p)]:
                waste.add("old attempts", path)
        if superseded and (folder / "superseded").exists():
            waste.add("superseded results", folder / "superseded")
    for name in ("plans", "tables", "values", "states.json"):
        if (results / "derived" / name).exists():
            waste.add("remembered plans, tables and values", results / "derived" / name)
    return waste


def _hidden(folder: Path) -> Iterator[Path]:
    """Temporary files and markers below a cell that are older than a minute."""
    for base, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f != "superseded"]
        for name in names:
            path = Path(base, name)
            if name.startswith(".") and name.endswith((".tmp", ".json")) and time.time() - path.stat().st_mtime > _OLD:
                yield path


def _lost(attempt: Path) -> bool:
    return any(attempt.glob("lost-claim-*.json"))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(os.path.getsize(os.path.join(base, name)) for base, _, names in os.walk(path) for name in names)
