"""SLURM through submitit, which submits and is never asked about results.

What became of a job is read from its cells' folders and from ``squeue``: where accounting is off, a killed job stays
"unknown" for ever in submitit's eyes. ``srun`` stays in the batch script, or the warning before the time limit reaches
nothing.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import read_json, write_json
from .. import squeue
from ..cell import Cell
from ..estimates import MARGIN
from .base import SIGNAL_DELAY, Executor, Resources
from .slurm_job import CellJob

SHORT, PACK, MOST = 600.0, 1800.0, 50  # cells shorter than SHORT seconds share jobs of up to PACK seconds or MOST cells
TIMEOUTS = 1000  # time limits that submitit lets a job pass; the cell's own rule (no progress) ends it before
MINUTES = 720


@dataclass
class Job:
    """A cell in the queue.

    Attributes:
        id: as ``squeue`` prints it.
        since: ``time.monotonic()`` at which it was there for sure.
    """

    id: str
    cell: Cell
    since: float


class SlurmExecutor(Executor):
    """Job arrays; the process that submitted them may die."""

    name = "slurm"
    takes = ("minutes", "memory_gb", "options")
    preemptible = True
    detaches = True

    def submit(self, cells: Sequence[Cell], resources: Resources) -> list[Any]:
        """Submit what is not in the queue already.

        Raises:
            UserError: submitit or SLURM is missing, or SLURM refuses the jobs.
        """
        _check_available()
        adopted = {path: job for job, paths in queued_cells(resources.results).items() for path in paths}
        handles: dict[Cell, Job] = {}
        for cell in cells:
            job = adopted.get(cell.path)
            if job is not None:
                handles[cell] = Job(job, cell, time.monotonic())
        groups = grouped([c for c in cells if c not in handles], resources)
        size = max_array_size()
        for start in range(0, len(groups), size):
            part = groups[start : start + size]
            for job, group in zip(self._submit(part, resources), part, strict=True):
                handles |= {cell: Job(job, cell, time.monotonic()) for cell in group}
        return [handles[cell] for cell in cells]

    def _submit(self, groups: list[list[Cell]], resources: Resources) -> list[str]:
        import submitit

        folder = resources.results.resolve() / "jobs"
        executor = submitit.SlurmExecutor(folder=folder / "submitit", max_num_timeout=TIMEOUTS)
        executor.update_parameters(**parameters(resources))
        jobs = [
            CellJob([str(c.folder.resolve()) for c in g], resources.device, resources.threads, [c.asked for c in g])
            for g in groups
        ]
        try:
            with executor.batch():
                submitted = [executor.submit(job) for job in jobs]
        except Exception as error:  # submitit wraps whatever sbatch says
            lines = [line for line in str(error).splitlines() if "sbatch: error" in line] or str(error).splitlines()
            raise UserError(
                f"SLURM refuses the jobs: {lines[-1] if lines else error}; mend --slurm, --time or --memory"
            ) from error
        ids = [str(job.job_id) for job in submitted]
        record = {job: [c.path for c in group] for job, group in zip(ids, groups, strict=True)}
        write_json(folder / f"{time.time_ns()}-{uuid.uuid4().hex[:6]}.json", {"executor": self.name, "jobs": record})
        return ids

    def alive(self, handle: Job) -> bool:
        listed = squeue.jobs(newer_than=handle.since)
        return True if listed is None else handle.id in listed

    def cancel(self, handles: Sequence[Job], kill: bool = False) -> None:
        cancel_jobs({job.id for job in handles}, kill)


def _check_available() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UserError("the executor 'slurm' needs submitit: pip install 'multirater[slurm]'") from error
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "the executor 'slurm' needs sbatch and srun, which are not on this machine; run on a node of the cluster, "
            "or use --executor script"
        )


def parameters(resources: Resources) -> dict[str, Any]:
    """What submitit is told; options that it does not know go to sbatch as they are."""
    from submitit.slurm.slurm import _get_default_parameters

    known = {
        "job_name": "multirater",
        "time": resources.minutes or min(MINUTES, partition_minutes(resources.options.get("partition"))),
        "cpus_per_task": resources.threads,
        "array_parallelism": resources.jobs,
        "signal_delay_s": SIGNAL_DELAY,
        "stderr_to_stdout": True,
    }
    if resources.memory_gb is not None:
        known["mem"] = f"{int(resources.memory_gb * 1024)}MB"
    if resources.device == "cuda":
        known["gpus_per_node"] = 1
    defaults = _get_default_parameters()
    others = {}
    for key, value in resources.options.items():
        name = key.replace("-", "_")
        if name in ("use_srun", "additional_parameters", "setup", "teardown", "srun_args"):
            raise UserError(f"--slurm {key}={value} is not an option of sbatch; leave it out")
        if name in defaults:
            whole = isinstance(defaults[name], int) and not isinstance(defaults[name], bool)
            known[name] = int(value) if whole and value.isdigit() else value
        else:
            others[key.replace("_", "-")] = value
    return {**known, **({"additional_parameters": others} if others else {})}


def grouped(cells: Sequence[Cell], resources: Resources) -> list[list[Cell]]:
    """Cells that share a job: short ones together as far as its time limit goes, others and unknown ones alone."""
    room = min(PACK, resources.minutes * 60 / MARGIN) if resources.minutes else PACK
    groups: list[list[Cell]] = []
    filled = room
    for cell in sorted(cells, key=lambda c: resources.expected.get(c, float("inf"))):
        seconds = resources.expected.get(cell, float("inf"))
        if groups and seconds < SHORT and filled + seconds <= room and len(groups[-1]) < MOST:
            groups[-1].append(cell)
            filled += seconds
        else:
            groups.append([cell])
            filled = seconds
    return groups


def max_array_size() -> int:
    """Tasks of one array that this SLURM takes."""
    with suppress(OSError, subprocess.SubprocessError, ValueError, StopIteration):
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60, check=True)
        line = next(line for line in shown.stdout.splitlines() if line.startswith("MaxArraySize"))
        return max(1, int(line.partition("=")[2]))
    return 1001


def partition_minutes(name: str | None) -> int:
    """The time limit of a partition (None: the default one); a job that asks for more would wait for ever."""
    done = subprocess.CompletedProcess([], 1, "", "")
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["sinfo", "-h", "-o", "%P %l"], capture_output=True, text=True, timeout=60, check=False)
    for line in done.stdout.splitlines():
        partition, _, limit = line.partition(" ")
        if partition == name or (name is None and partition.endswith("*")):
            return minutes_of(limit.strip()) or MINUTES
    return MINUTES


def minutes_of(limit: str) -> int | None:
    """``2-12:00:00``, ``1:00:00``, ``30:00`` or ``infinite`` as whole minutes."""
    days, _, clock = limit.rpartition("-")
    parts = clock.split(":")
    if not all(p.isdigit() for p in parts) or len(parts) > 3:
        return None
    hours, minutes, _ = (["0"] * (3 - len(parts)) + parts) if len(parts) != 1 else ["0", parts[0], "0"]
    return max(1, int(days or 0) * 1440 + int(hours) * 60 + int(minutes))


def queued_cells(results: Path) -> dict[str, list[str]]:
    """Paths of the cells of this results folder that are in the queue, by job; empty where there is no SLURM."""
    listed = squeue.jobs()
    found: dict[str, list[str]] = {}
    if listed:
        for path in sorted((results / "jobs").glob("*.json")):
            for job, paths in read_json(path)["jobs"].items():
                if job in listed:
                    found[job] = paths
    return found


def cancel_jobs(ids: Iterable[str], kill: bool = False) -> None:
    """Take jobs out of the queue; running ones get SIGTERM, with which cells save, and are killed after KillWait."""
    chosen = sorted(ids)
    for start in range(0, len(chosen), 200):
        part = chosen[start : start + 200]
        for extra in (["--signal=KILL"], []) if kill else ([],):
            subprocess.run(["scancel", *extra, *part], capture_output=True, timeout=120, check=False)
