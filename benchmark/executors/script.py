"""Commands for schedulers that the suite does not know: one line a cell, or a ready sbatch array.

State is in the cells' folders, so that `status` knows of jobs that were started by hand.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import write_text
from ..cell import Cell
from .base import SIGNAL_DELAY, Executor, Resources, arguments, evaluation

ARRAY = 1000  # tasks of an array that every SLURM takes (MaxArraySize is 1001 by default)


class ScriptExecutor(Executor):
    """Writes commands and starts nothing."""

    name = "script"
    takes = ("minutes", "memory_gb", "options", "form", "output")
    waits = False

    def submit(self, cells: Sequence[Cell], resources: Resources) -> list[Any]:
        """Print or write the script.

        Raises:
            UserError: an array of more tasks than SLURM takes, without a file to write it to.
        """
        if resources.form == "list":
            texts = ["".join(f"{command(cell, resources)}\n" for cell in cells)]
        else:
            slices = [cells[i : i + ARRAY] for i in range(0, len(cells), ARRAY)]
            texts = [sbatch_array(part, resources) for part in slices]
        if resources.output is None:
            if len(texts) > 1:
                raise UserError(
                    f"{len(cells)} cells need {len(texts)} arrays of at most {ARRAY} tasks; give --output FILE"
                )
            print(texts[0], end="")
        else:
            for number, text in enumerate(texts, 1):
                path = resources.output
                if len(texts) > 1:
                    path = path.with_name(f"{path.stem}-{number}{path.suffix}")
                write_text(path, text)
                print(path)
        return list(cells)

    def alive(self, handle: Any) -> bool:
        return False

    def cancel(self, handles: Sequence[Any], kill: bool = False) -> None:
        """Nothing was started."""


def command(cell: Cell, resources: Resources) -> str:
    """The shell command of one cell; runs anywhere that sees the results folder and the prepared data."""
    return _line(shlex.join(arguments(Cell(cell.folder.resolve(), cell.asked), resources)), resources)


def _line(arguments: str, resources: Resources) -> str:
    words = [f"OMP_NUM_THREADS={resources.threads}", f"MKL_NUM_THREADS={resources.threads}"]
    for name in ("MULTIRATER_CACHE", "PYTHONPATH"):
        if os.environ.get(name):
            words.append(f"{name}={shlex.quote(os.environ[name])}")
    return " ".join([*words, shlex.quote(sys.executable), "-m multirater.benchmark.worker", arguments])


def sbatch_array(cells: Sequence[Cell], resources: Resources) -> str:
    """An sbatch script of one array.

    SLURM's warning reaches the batch script alone (``B:``), which hands it on; the cell saves and ends with 143, and
    the script puts its task back into the queue.
    """
    logs = Path(resources.results).resolve() / "jobs"
    logs.mkdir(parents=True, exist_ok=True)
    parallel = f"%{resources.jobs}" if resources.jobs > 1 else ""
    flags = {
        "job-name": "multirater",
        "array": f"0-{len(cells) - 1}{parallel}",
        "cpus-per-task": resources.threads,
        "time": resources.minutes,
        "mem": None if resources.memory_gb is None else f"{int(resources.memory_gb * 1024)}M",
        "gpus-per-node": 1 if resources.device == "cuda" else None,
        "open-mode": "append",
        "signal": f"B:USR1@{SIGNAL_DELAY}",
        "output": logs / "%A_%a.log",
        **{k.replace("_", "-"): v for k, v in resources.options.items()},
    }
    delay = flags.pop("signal-delay-s", None)
    if delay is not None:
        flags["signal"] = f"B:USR1@{delay}"
    lines = [f"#SBATCH --{k}={shlex.quote(str(v))}" for k, v in flags.items() if v is not None]
    folders = [f"  {shlex.quote(str(cell.folder.resolve()))}" for cell in cells]
    asked = [f"  {shlex.quote(evaluation(cell))}" for cell in cells]
    own = "[$SLURM_ARRAY_TASK_ID]"
    run = _line(f'"${{cells{own}}}" {resources.device} {resources.threads} --asked "${{asked{own}}}"', resources)
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "#SBATCH --requeue",
            "cells=(",
            *folders,
            ")",
            "asked=(",
            *asked,
            ")",
            "warned=0",
            f"env {run} &",
            "worker=$!",
            "trap 'warned=1; kill -USR1 $worker' USR1",
            "trap 'kill -TERM $worker' TERM",
            "wait $worker; code=$?",
            "while kill -0 $worker 2>/dev/null; do wait $worker; code=$?; done",
            "# Saved before the time limit: the same task goes on later.",
            "if [ $warned = 1 ] && [ $code = 143 ]; then",
            '  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" && exit 0',
            "fi",
            "exit $code",
            "",
        ]
    )
