"""What is done about cells that have no result, and about those that have one already."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from . import provenance
from .attempts import Outcome, attempt_folders, progress_of, read_attempt
from .cell import Cell, State, UnreadableRecord, training_of

LOSSES = 3  # attempts of one `run` that may end without a trace and without progress
AGAIN = {Outcome.OOM: 1, Outcome.HUNG: 1, Outcome.LOST: LOSSES - 1, Outcome.TIME_LIMIT: LOSSES - 1}
# An engine that moves jobs about may stop them at any time; on this machine somebody meant it.
PREEMPTIBLE = {**AGAIN, Outcome.INTERRUPTED: LOSSES - 1}
FREE = 64 * 2**20  # bytes without which no new cell is started after one found the disk full


class Overwrite(StrEnum):
    """Which of the planned cells `run` brings to a result."""

    MISSING = "missing"  # without a result, unless they failed and the code is the same
    FAILED = "failed"  # also those that failed
    OUTDATED = "outdated"  # also results of another revision of the code
    ALL = "all"  # every one, afresh
    NEVER = "never"  # only those that nobody ever tried


@dataclass
class Choice:
    """What a run does with its planned cells."""

    start: list[Cell] = field(default_factory=list)
    afresh: list[Cell] = field(default_factory=list)  # of `start`: those whose present files are set aside first
    done: int = 0
    failed: list[tuple[Cell, str]] = field(default_factory=list)  # left as they are
    left: list[Cell] = field(default_factory=list)  # not tried because of the choice


def choose(cells: Iterable[tuple[Cell, str]], overwrite: Overwrite, code: str) -> Choice:
    """Sort cells, given with their states, by what is to be done with them.

    Args:
        cells: cells and their states.
        overwrite: the user's choice.
        code: signature of the present code (`provenance.signature`).
    """
    choice = Choice()
    revision = provenance.code() if overwrite is Overwrite.OUTDATED else {}
    for cell, state in cells:
        if state == State.DONE:
            again = overwrite is Overwrite.ALL or (overwrite is Overwrite.OUTDATED and _outdated(cell, revision))
            if again:
                choice.start.append(cell)
                choice.afresh.append(cell)
            else:
                choice.done += 1
        elif overwrite is Overwrite.NEVER and (cell.attempts() or state == State.DAMAGED):
            choice.left.append(cell)
        elif state == State.DAMAGED and overwrite is not Overwrite.ALL and (why := _unreadable(cell)):
            choice.failed.append((cell, why))
        elif overwrite is Overwrite.MISSING and state == State.FAILED and repeats(cell, code):
            last = cell.last_attempt() or {}
            choice.failed.append((cell, f"{last.get('outcome')}: {last.get('message')}"))
        else:
            choice.start.append(cell)
            if overwrite is Overwrite.ALL or state == State.DAMAGED:
                choice.afresh.append(cell)
    return choice


def _unreadable(cell: Cell) -> str:
    """Why nobody can say whether a cell is trained; then its files must stay where they are."""
    try:
        cell.training()
    except UnreadableRecord as error:
        return str(error)
    except UserError:
        pass
    return ""


def repeats(cell: Cell, code: str) -> bool:
    """Whether a failed cell would fail again: the method raised or diverged, and no line of code has changed since."""
    last = cell.last_attempt() or {}
    return last.get("outcome") in (Outcome.ERROR, Outcome.DIVERGED) and last.get("code_signature") == code


def _outdated(cell: Cell, revision: dict[str, Any]) -> bool:
    result = cell.result(cell.eval_key) or {}
    made = (training_of(cell.training(), result) or result).get("code") or {}
    if made.get("revision") is None or revision.get("revision") is None:  # installed without a history
        return made.get("multirater") != revision.get("multirater")
    return any(made.get(k) != revision.get(k) for k in ("revision", "diff_sha256"))


def set_aside(cell: Cell) -> None:
    """Move what an earlier training of a cell left into ``superseded/<time>/``; `clean --superseded` removes it.

    Raises:
        UserError: somebody is running the cell.
    """
    ident = cell.take()
    if ident is None:
        raise UserError(f"{cell.folder} is being run by another process; wait for it or cancel it first")
    try:
        place = cell.folder / "superseded" / time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        while place.exists():
            place = place.with_name(place.name + "+")
        place.mkdir(parents=True)
        # The marks of being finished go first: a kill in between leaves a cell that is not done, never one half old.
        for name in ("eval", "train.json", "predictions", "weights.safetensors", "history.csv", "state"):
            if (cell.folder / name).exists():
                os.rename(cell.folder / name, place / name)
    finally:
        cell.release()


@dataclass
class Ledger:
    """Counts the failures of one `run`; a new run starts afresh.

    A failure counts only if its attempt achieved nothing.

    Args:
        retries: more attempts that a method which raised is given.
        preemptible: the engine may stop cells that nobody cancelled.
    """

    retries: int = 0
    preemptible: bool = False
    _counts: dict[tuple[Cell, str], int] = field(default_factory=dict)
    _reached: dict[Cell, list[Any]] = field(default_factory=dict)

    def begin(self, cell: Cell) -> None:
        self._reached[cell] = progress_of(cell.folder)

    def again(self, cell: Cell, outcome: str) -> bool:
        """Whether a cell whose attempt ended like this is tried once more."""
        reached = progress_of(cell.folder)
        advanced = reached != self._reached.get(cell)
        self._reached[cell] = reached
        allowed: dict[str, int] = {str(k): v for k, v in (PREEMPTIBLE if self.preemptible else AGAIN).items()}
        allowed[Outcome.ERROR] = self.retries
        if outcome not in allowed:
            return False
        count = self._counts.get((cell, outcome), 0) + (not advanced or outcome == Outcome.ERROR)
        self._counts[cell, outcome] = count
        return count <= allowed[outcome]


def last_outcome(cell: Cell, attempts_before: int) -> tuple[str, str]:
    """How the newest attempt ended, if there is one since `attempts_before`: outcome and message."""
    attempts = attempt_folders(cell.folder)
    if len(attempts) <= attempts_before:
        return "", ""
    last = read_attempt(attempts[-1])
    if last is None:
        log = attempts[-1] / "log.txt"
        return Outcome.LOST, f"the process ended without a record (killed?); its log is {log}"
    return str(last["outcome"]), str(last["message"])


def disk_is_full(results: Path) -> bool:
    return shutil.disk_usage(results).free < FREE
