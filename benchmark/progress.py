"""A cell's heartbeat: a small JSON that the process running the cell writes and the one that started it reads."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from .claims import holds
from .stopping import StopFlag

TAKEN = "another process, which took the cell over"


class Heartbeat:
    """Writes at most twice a second; replaced atomically, not synced (it is worthless after a crash).

    A call is also the place where work that keeps no state of its own (prediction, scoring) stops on request.

    Args:
        path: the file.
        every: least seconds between two writes.
        claim: touched with every write: the sign of life that another host sees.
        ident: identity of that claim; once it is another one, this process was given up for dead and must stop.
        stop: asked for at every call; raises `Stopped` once it is set. `write` does not ask.
    """

    def __init__(
        self,
        path: Path,
        every: float = 0.5,
        claim: Path | None = None,
        stop: StopFlag | None = None,
        ident: str | None = None,
    ) -> None:
        self.path = path
        self.ident = ident
        self.claim = claim
        self.stop = StopFlag() if stop is None else stop  # (a flag that is not set is false)
        self.every = every
        self._last = 0.0
        self._started = time.time()

    def __call__(self, phase: str, done: int, total: int, force: bool = False, **values: Any) -> None:
        """`write`, and raise `Stopped` if a stop was asked for."""
        self.stop.check()
        self.write(phase, done, total, force, **values)

    def write(self, phase: str, done: int, total: int, force: bool = False, **values: Any) -> None:
        now = time.monotonic()
        if not force and now - self._last < self.every:
            return
        self._last = now
        record = {"phase": phase, "done": done, "total": total, "time": time.time(), "started": self._started, **values}
        temporary = self.path.with_suffix(".tmp")
        # A full disk must not end a training here; what is kept will say so.
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(record))
            os.replace(temporary, self.path)
        if self.claim is not None:
            if self.ident is not None and not holds(self.claim.parent, self.ident):
                self.stop.reason = self.stop.reason or TAKEN
                return
            with contextlib.suppress(OSError):
                os.utime(self.claim)


def read_heartbeat(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
