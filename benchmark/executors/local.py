"""Child processes on this machine, each with its own limits on threads and GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from ..cell import Cell
from .base import Ending, Executor, Resources, arguments


@dataclass
class Child:
    process: subprocess.Popen[bytes]
    words: IO[bytes]  # what it prints before it has a log of its own
    gpu: str | None
    kills: int | None  # of the kernel for lack of memory, before it started


class LocalExecutor(Executor):
    """One child process per cell. Children die with their parent, after they saved."""

    name = "local"
    takes = ("gpus", "per_gpu")

    def __init__(self) -> None:
        self._children: list[Child] = []

    def capacity(self, resources: Resources) -> int:
        slots = len(resources.gpus) * resources.per_gpu
        return min(resources.jobs, slots) if slots else resources.jobs

    def submit(self, cells: Sequence[Cell], resources: Resources) -> list[Any]:
        return [self._start(cell, resources) for cell in cells]

    def _start(self, cell: Cell, resources: Resources) -> Child:
        threads = str(resources.threads)
        gpu = self._free_gpu(resources)
        environment = {
            # Waiting threads sleep instead of spinning: beside one other busy process a two-thread step on two cores
            # took 1.8 s with spinning and 0.7 s without. Changes no number.
            "OMP_WAIT_POLICY": "passive",
            **os.environ,
            **({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {}),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "multirater.benchmark.worker", *arguments(cell, resources)]
        words = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the child has ended
        kills = kernel_kills()
        # A session of its own: Ctrl-C reaches the coordinator only, which then asks its children to stop.
        process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env=environment,
            start_new_session=True,
        )
        child = Child(process, words, gpu, kills)
        self._children = [c for c in self._children if c.process.returncode is None] + [child]
        return child

    def _free_gpu(self, resources: Resources) -> str | None:
        """The least used of the GPUs."""
        if not resources.gpus or resources.device == "cpu":
            return None
        used = Counter(c.gpu for c in self._children if c.process.poll() is None)
        return min(resources.gpus, key=lambda gpu: used[gpu])

    def alive(self, handle: Child) -> bool:
        return handle.process.poll() is None

    def cancel(self, handles: Sequence[Child], kill: bool = False) -> None:
        for child in handles:
            with suppress(ProcessLookupError):
                # The whole session when killing: what the cell started must not outlive it.
                os.killpg(child.process.pid, signal.SIGKILL) if kill else child.process.terminate()

    def ended(self, handle: Child) -> Ending:
        code = handle.process.returncode
        words = ""
        with suppress(ValueError, OSError):
            handle.words.seek(0)
            words = handle.words.read(20_000).decode(errors="replace").strip()
            handle.words.close()
        now = kernel_kills()
        starved = code == -signal.SIGKILL and handle.kills is not None and now is not None and now > handle.kills
        return Ending(code if code >= 0 else None, -code if code < 0 else None, starved, words)


def kernel_kills() -> int | None:
    """How many processes the kernel has ended for lack of memory since it started; None where it does not say."""
    with suppress(OSError), open("/proc/vmstat") as stream:
        for line in stream:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
