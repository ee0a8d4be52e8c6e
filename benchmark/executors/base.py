"""What an engine must do: start cells, say whether they may still run, stop them. The truth about a cell stays in its
folder, so that an engine may die at any moment."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cell import Cell

SIGNAL_DELAY = 120  # seconds before the time limit at which SLURM warns


@dataclass(frozen=True)
class Resources:
    """What each cell is given.

    Attributes:
        results: the results folder.
        threads: CPU threads of a cell.
        device: ``auto``, ``cpu`` or ``cuda``; settled by the cell where it runs.
        jobs: cells at the same time.
        gpus: ids of the GPUs that may be used, empty: no limits.
        per_gpu: cells that share a GPU.
        minutes: time limit of a job of the scheduler; None: the engine's default.
        memory_gb: memory of a job; None: the scheduler's default.
        options: further options of the engine, such as ``{"partition": "gpu"}``.
        expected: seconds that a cell will take, where finished ones tell; short ones share a job of the scheduler.
        form: of a script, ``list`` or ``sbatch``.
        output: file of a script; None: standard output.
    """

    results: Path
    threads: int = 1
    device: str = "cpu"
    jobs: int = 1
    gpus: tuple[str, ...] = ()
    per_gpu: int = 1
    minutes: int | None = None
    memory_gb: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    expected: Mapping[Cell, float] = field(default_factory=dict)
    form: str = "list"
    output: Path | None = None


@dataclass(frozen=True)
class Ending:
    """How the process behind a handle ended, as far as the engine knows.

    Attributes:
        code: exit code; None if a signal ended it.
        signal: number of that signal.
        out_of_memory: the kernel killed processes for their memory meanwhile.
        words: what it printed before it had a log.
    """

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    words: str = ""


def arguments(cell: Cell, resources: Resources) -> list[str]:
    """What ``python -m multirater.benchmark.worker`` is given: the cell, how it runs, and which evaluation to make."""
    asked = [] if cell.asked is None else ["--asked", evaluation(cell)]
    return [str(cell.folder), resources.device, str(resources.threads), *asked]


def evaluation(cell: Cell) -> str:
    """What a worker must know of the evaluation that is asked for, as JSON; ``null``: that of ``spec.json``."""
    asked = cell.asked
    return json.dumps(None if asked is None else {key: asked.get(key) for key in ("eval", "eval_key")})


class Executor(ABC):
    """An engine. Four members are enough: `name`, `submit`, `alive`, `cancel`; the rest has defaults.

    Imports of the engine's own library belong inside the module of a subclass, which is imported only when it is used.
    """

    name = "executor"
    waits = True  # `run` waits for the cells; False: it returns once they are handed over
    preemptible = False  # cells may be stopped that nobody cancelled
    detaches = False  # cells go on without the process that started them
    takes: Collection[str] | None = None  # names of `Resources` that it heeds beside threads, device, jobs; None: all

    @abstractmethod
    def submit(self, cells: Sequence[Cell], resources: Resources) -> list[Any]:
        """Start cells, or queue them, and return one handle each; `arguments` are those of each worker."""

    @abstractmethod
    def alive(self, handle: Any) -> bool:
        """Whether the cell behind a handle may still run or wait to run."""

    @abstractmethod
    def cancel(self, handles: Sequence[Any], kill: bool = False) -> None:
        """Ask cells to save and stop; with `kill` end them at once."""

    def capacity(self, resources: Resources) -> int | None:
        """Cells that may be submitted at the same time; None: any number, the engine queues them."""
        return None

    def ended(self, handle: Any) -> Ending | None:
        """How a handle that is not alive ended; None: the engine does not know."""
        return None
