"""Where cells run. The local executor is a queue of child processes; others come through the entry-point group."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..core.registry import Registry
from .cell import Cell

EXECUTORS: Registry[type[Executor]]


class Executor(ABC):
    """Starts cells; the truth about a cell stays in its folder."""

    name = "executor"

    @abstractmethod
    def submit(self, cell: Cell, resources: dict[str, Any]) -> Any:
        """Start a cell and return a handle."""

    @abstractmethod
    def alive(self, handle: Any) -> bool:
        """Whether the cell behind a handle may still be running."""

    @abstractmethod
    def cancel(self, handle: Any, kill: bool = False) -> None:
        """Ask a cell to stop; with `kill` end it at once."""


class LocalExecutor(Executor):
    """One child process per cell, with its own thread limit and log."""

    name = "local"

    def submit(self, cell: Cell, resources: dict[str, Any]) -> subprocess.Popen[bytes]:
        attempt = cell.new_attempt()
        threads = str(resources["threads"])
        environment = {
            # Waiting threads sleep instead of spinning: beside one other busy process a two-thread step on two cores
            # took 1.8 s with spinning and 0.7 s without. Changes no number.
            "OMP_WAIT_POLICY": "passive",
            **os.environ,
            "MULTIRATER_ATTEMPT": str(attempt),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "multirater.benchmark.worker", str(cell.folder), resources["device"], threads]
        with (attempt / "log.txt").open("wb") as log:
            # A session of its own: Ctrl-C reaches the coordinator only, which then asks its children to stop.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def alive(self, handle: subprocess.Popen[bytes]) -> bool:
        return handle.poll() is None

    def cancel(self, handle: subprocess.Popen[bytes], kill: bool = False) -> None:
        handle.kill() if kill else handle.terminate()


EXECUTORS = Registry("executor", "multirater.executors", "multirater.benchmark.executors:Executor")
EXECUTORS.add("local", "multirater.benchmark.executors:LocalExecutor", summary="child processes on this machine")


def heartbeat_path(cell: Cell) -> Path | None:
    attempts = cell.attempts()
    return attempts[-1] / "progress.json" if attempts else None
