"""A request to stop: signals set a flag, and the code that can stop cleanly looks at it."""

from __future__ import annotations

import ctypes
import signal
import sys
from types import FrameType
from typing import Any

CODE = 143  # exit code of a process that stopped on request, as after an unhandled SIGTERM

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # of a scheduler, before its time limit


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


class Stopped(Exception):
    """The cell was asked to stop and has kept what it had; it goes on from there."""


class StopFlag:
    """True once SIGTERM, SIGINT or a scheduler's warning of its time limit (SIGUSR1, or SIGUSR2 as submitit asks for)
    has arrived.

    Nothing is saved inside a handler: it may run in the middle of a step or of a write.
    """

    def __init__(self) -> None:
        self.reason = ""

    def __bool__(self) -> bool:
        return bool(self.reason)

    def install(self) -> dict[int, Any]:
        """Catch the signals from now on; a second Ctrl-C ends the process as usual.

        Returns:
            The handlers that were there before.
        """
        caught = (signal.SIGTERM, signal.SIGINT, *WARNINGS)
        return {number: signal.signal(number, self._handle) for number in caught}

    @property
    def time_limit(self) -> bool:
        """Whether it was the scheduler's warning."""
        return self.reason in {number.name for number in WARNINGS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise `Stopped` if a stop was asked for; its message names the signal."""
        if self.reason:
            raise Stopped(f"stopped by {self.reason}")
