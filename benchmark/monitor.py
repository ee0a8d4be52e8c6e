"""What a person sees while cells run: one progress bar per running cell, plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .attempts import attempt_folders
from .cell import Cell
from .progress import read_heartbeat


class Monitor:
    """Shows phase, epoch, loss, validation score and remaining time from the cells' heartbeats."""

    def __init__(self, quiet: bool = False, every: float = 15.0) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self.every = every
        self._bars: Progress | None = None
        self._tasks: dict[Cell, TaskID] = {}
        self._phase: dict[Cell, str] = {}
        self._spoken: dict[Cell, float] = {}
        self._looked: dict[Cell, float] = {}
        self._others: set[Cell] = set()
        self._total = TaskID(0)

    @contextmanager
    def preparing(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """A progress callback for the preparation of a data set; silent if the arrays are there already."""
        with self._progress() as bars:
            task: list[TaskID] = []

            def progress(done: int, total: int, what: str) -> None:
                if not task:
                    self.say(f"preparing {name}") if not self.live else None
                    task.append(bars.add_task(f"prepare {name}", total=total, note=""))
                bars.update(task[0], completed=done, total=total, note=what)

            yield progress

    def start(self, cells: int, done: int) -> None:
        self._bars = self._progress()
        self._total = self._bars.add_task("cells", total=cells, completed=done, note="")
        self._bars.start()

    def begin(self, cell: Cell, show: bool = True) -> None:
        """A cell was handed over; `show` it at once, or when it shows its first sign of life."""
        if not show:
            return
        if not self.live:
            self.say(f"{cell.path}: started")
        self._show(cell, "starting")

    def _show(self, cell: Cell, note: str) -> TaskID:
        assert self._bars is not None
        self._tasks[cell] = self._bars.add_task(cell.path, total=None, note=note)
        self._spoken[cell] = time.monotonic()
        return self._tasks[cell]

    def update(self, cell: Cell) -> None:
        if self._bars is None or time.monotonic() - self._looked.get(cell, 0.0) < 0.5:
            return
        self._looked[cell] = time.monotonic()
        path = heartbeat_path(cell)
        beat = read_heartbeat(path) if path else None
        if beat is None:
            return
        task = self._tasks[cell] if cell in self._tasks else self._show(cell, "")
        if self._phase.get(cell) != beat["phase"]:  # a new phase: the remaining time starts afresh
            self._phase[cell] = beat["phase"]
            self._bars.reset(task, description=f"{cell.path} · {beat['phase']}")
        self._bars.update(task, completed=beat["done"], total=beat["total"], note=describe(beat))
        if not self.live and time.monotonic() - self._spoken[cell] >= self.every:
            self._spoken[cell] = time.monotonic()
            self.say(f"{cell.path}: {beat['phase']} {beat['done']}/{beat['total']} {describe(beat)}")

    def waiting(self, cell: Cell, claim: dict[str, Any] | None) -> None:
        """A cell that another process runs; said once."""
        if cell not in self._others:
            self._others.add(cell)
            owner = f"process {claim.get('pid')} on {claim.get('host')}" if claim else "another process"
            self.say(f"{cell.path}: is run by {owner}; waiting for it")

    def end(self, cell: Cell, failure: str, again: bool = False, waiting: bool = False) -> None:
        """A cell has ended: done, failed, to be tried `again`, or taken by another process (`waiting`)."""
        assert self._bars is not None
        if cell in self._tasks:
            self._bars.remove_task(self._tasks.pop(cell))
        self._phase.pop(cell, None)
        if waiting:
            return
        if not again:
            self._bars.advance(self._total)
        words = f"{'trying again, ' if again else 'failed, '}{failure}" if failure else "done"
        self.say(f"{cell.path}: {words}")

    def stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        (self._bars.console if self._bars is not None else self.console).print(text, markup=False, soft_wrap=True)

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.live,
        )


def heartbeat_path(cell: Cell) -> Path | None:
    attempts = attempt_folders(cell.folder)
    return attempts[-1] / "progress.json" if attempts else None


def describe(beat: dict[str, Any]) -> str:
    """Epoch, loss and the last validation score in words."""
    words = []
    if beat.get("epoch") is not None:
        words.append(f"epoch {beat['epoch']}")
    if beat.get("loss") is not None:
        words.append(f"loss {beat['loss']:.4f}")
    if beat.get("val") is not None:
        words.append(f"val {beat['val_metric']} {beat['val']:.4f}")
    return " ".join(words)
