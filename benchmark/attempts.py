"""Attempts of a cell: what was tried, how it ended, and how far the work has come."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_json


class Outcome(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    ERROR = "error"  # the method raised
    DIVERGED = "diverged"  # loss or weights not finite: a result
    REFUSED = "refused"  # wrong configuration or input
    INTERRUPTED = "interrupted"  # asked to stop
    TIME_LIMIT = "time_limit"  # warned by the scheduler
    OOM = "oom"  # out of memory, of the GPU or the host
    DISK_FULL = "disk_full"
    LOST = "lost"  # the process vanished
    HUNG = "hung"  # no sign of life


# Exit codes of a worker; a killed process has none of these.
BUSY = 75
EXIT = {
    Outcome.OK: 0,
    Outcome.ERROR: 1,
    Outcome.DIVERGED: 1,
    Outcome.REFUSED: 2,
    Outcome.INTERRUPTED: 143,
    Outcome.TIME_LIMIT: 143,
    Outcome.OOM: 137,
    Outcome.DISK_FULL: 74,
}


def write_attempt(folder: Path, outcome: str, message: str, **facts: Any) -> None:
    """Write ``attempt.json``; a disk that is full does not stop it from being tried."""
    record = {
        "schema": {"name": "attempt", "version": 1},
        "outcome": str(outcome),
        "message": message,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }
    with contextlib.suppress(UserError, OSError):
        write_json(folder / "attempt.json", record)


def attempt_folders(folder: Path) -> list[Path]:
    try:
        names = [int(name) for name in os.listdir(folder / "attempts") if name.isdigit()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / "attempts" / str(number) for number in sorted(names)]


def new_attempt(folder: Path) -> Path:
    """The next numbered folder below ``attempts/``."""
    number = max((int(attempt.name) for attempt in attempt_folders(folder)), default=0) + 1
    while True:
        made = folder / "attempts" / str(number)
        try:
            made.mkdir(parents=True)
        except FileExistsError:  # another process was quicker
            number += 1
        else:
            return made


def read_attempt(attempt: Path) -> dict[str, Any] | None:
    """The record of an attempt; None if it has none (yet), or a damaged one."""
    try:
        found = json.loads((attempt / "attempt.json").read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None


def progress_of(folder: Path) -> list[Any]:
    """How far the work on a cell has come: equal before and after an attempt that achieved nothing.

    Read from what is kept, without torch: finished stages, step of the running one, finished training, predictions.
    """
    state = folder / "state"
    stages = sorted(p.name for p in state.glob("*.json")) if state.is_dir() else []
    facts = read_header(state / "running.safetensors").get("facts")
    running = json.loads(facts) if facts else {}
    eval_folder = folder / "eval"
    kept = [
        (folder / "train.json").is_file(),
        *sorted(p.name for p in (folder / "predictions").glob("*.safetensors")),
        *(
            sorted(p.name for p in eval_folder.iterdir() if (p / "result.json").is_file())
            if eval_folder.is_dir()
            else []
        ),
    ]
    return [stages, running.get("stage"), running.get("step"), kept]


def read_header(path: Path) -> dict[str, str]:
    """The text part of a safetensors file; empty if it is missing or damaged."""
    try:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > 100_000_000:
                return {}
            return json.loads(stream.read(size)).get("__metadata__") or {}
    except (OSError, struct.error, ValueError):
        return {}


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Send what this process and its children write to a file."""
    try:
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full disk must not hide what happens next
        yield
        return
    _flush()
    kept = [os.dup(1), os.dup(2)]
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        yield
    finally:
        _flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def words_of(error: BaseException) -> str:
    """What an attempt or a report says of an exception."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def outcome_of(error: BaseException) -> Outcome:
    """What kind of failure an exception is, by what it is and what caused it."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    for one in chain:
        name, text = type(one).__name__, str(one)
        if isinstance(one, OSError) and one.errno in FULL:
            return Outcome.DISK_FULL
        # The writer of safetensors is no Python code: its errors carry the code in words.
        if name == "SafetensorError" and any(f"os error {code})" in text for code in FULL):
            return Outcome.DISK_FULL
        if isinstance(one, MemoryError) or name == "OutOfMemoryError":
            return Outcome.OOM
        if isinstance(one, OSError) and one.errno == errno.ENOMEM:
            return Outcome.OOM
        if isinstance(one, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text):
            return Outcome.OOM
    if isinstance(error, UserError):
        return Outcome.REFUSED
    return Outcome.DIVERGED if type(error).__name__ == "Diverged" else Outcome.ERROR


def stalled(folder: Path, most: int = 3) -> bool:
    """Whether the last `most` attempts were all cut off by the time limit at the same point."""
    records = [read_attempt(path) for path in attempt_folders(folder)[-most:]]
    if len(records) < most or any(r is None or r.get("outcome") != Outcome.TIME_LIMIT for r in records):
        return False
    return all(r is not None and r.get("progress") == records[-1]["progress"] for r in records)  # type: ignore[index]
