"""What SLURM's queue says, asked for at most twice a minute; its accounting may be off and is never asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

EVERY = 30.0  # seconds between two questions; MULTIRATER_SQUEUE_SECONDS sets it

_last: tuple[float, dict[str, str] | None] = (float("-inf"), None)


def jobs(newer_than: float | None = None) -> dict[str, str] | None:
    """The user's jobs, by id (``17`` or ``17_3``), with their states.

    Args:
        newer_than: ``time.monotonic()`` of an event that the answer must be able to show.

    Returns:
        None if the queue cannot be asked, or was not asked since `newer_than` and may not be asked yet.
    """
    global _last
    asked, answer = _last
    every = float(os.environ.get("MULTIRATER_SQUEUE_SECONDS", EVERY))
    if time.monotonic() - asked >= every:
        started = time.monotonic()
        answer = _ask()
        asked = started
        _last = (asked, answer)
    return None if newer_than is not None and asked <= newer_than else answer


def _ask() -> dict[str, str] | None:
    if shutil.which("squeue") is None:
        return None
    # -r: each task of an array on a line of its own; all states that are not final are listed.
    command = ["squeue", "--noheader", "-r", "--me", "-o", "%i|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.strip().split("|") for line in done.stdout.splitlines() if "|" in line)
    final = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
    return {job: state for job, state in pairs if not state.startswith(final)}
