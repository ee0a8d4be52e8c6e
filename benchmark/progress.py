"""A cell's heartbeat: a small JSON that the process running the cell writes and the one that started it reads."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any


class Heartbeat:
    """Writes at most twice a second; replaced atomically, not synced (it is worthless after a crash)."""

    def __init__(self, path: Path, every: float = 0.5, claim: Path | None = None) -> None:
        self.path = path
        self.claim = claim
        self.every = every
        self._last = 0.0
        self._started = time.time()

    def __call__(self, phase: str, done: int, total: int, force: bool = False, **values: Any) -> None:
        now = time.monotonic()
        if not force and now - self._last < self.every:
            return
        self._last = now
        record = {"phase": phase, "done": done, "total": total, "time": time.time(), "started": self._started, **values}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        os.replace(temporary, self.path)
        if self.claim is not None:  # the sign of life that another host sees
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.claim)


def read_heartbeat(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
