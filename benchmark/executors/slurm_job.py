"""What a SLURM job does: bring its cells to a result, one after the other. Pickled by name."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..attempts import Outcome, stalled
from ..stopping import StopFlag
from ..worker import run_cell


class CellJob:
    """Called by submitit inside the job.

    submitit's own handlers would save in the middle of a step, and ignore SIGTERM. Ours set a flag that the training
    looks at; only when the cell has saved and stopped is submitit's handler of the warning called, which puts the job
    back into the queue.
    """

    def __init__(
        self, folders: list[str], device: str, threads: int, asked: Sequence[Mapping[str, Any] | None] | None = None
    ) -> None:
        self.folders = folders
        self.device = device
        self.threads = threads
        self.asked = list(asked or [None] * len(folders))

    def __call__(self) -> list[str]:
        stop = StopFlag()
        submitits = stop.install()
        outcomes: list[str] = []
        for done, (folder, asked) in enumerate(zip(self.folders, self.asked, strict=True), 1):
            if stalled(Path(folder)):  # it never gets anywhere within the time limit
                outcomes.append(str(Outcome.TIME_LIMIT))
                continue
            outcomes.append(run_cell(Path(folder), self.device, self.threads, stop, asked=asked))
            more = done < len(self.folders) or (outcomes[-1] == Outcome.TIME_LIMIT and not stalled(Path(folder)))
            if stop.time_limit and more:
                warning = signal.Signals[stop.reason]
                handler: Any = submitits[warning]
                handler(warning, None)  # puts the job back into the queue and ends the process
            if stop:
                sys.exit(143)
        return outcomes

    def checkpoint(self) -> Any:
        """What is put back into the queue: the same job, for the state is in the cells' folders."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
