"""Stop what runs or waits for a results folder: coordinators, cells on this machine, jobs of SLURM."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import UserError
from .cell import State
from .claims import process_of, read_claim
from .executors.slurm import cancel_jobs, queued_cells
from .runner import CANCEL
from .states import scan


@dataclass
class Cancelled:
    """What was asked to stop.

    Attributes:
        processes: cells on this machine.
        jobs: ids of SLURM jobs.
        elsewhere: (cell, host) of those that only their own host can stop.
    """

    processes: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    elsewhere: list[tuple[str, str]] = field(default_factory=list)


def cancel(results: Path, kill: bool = False) -> Cancelled:
    """Tell coordinators to stop, and every running cell to save and end.

    Args:
        kill: end them at once; they go on from their last kept state.

    Raises:
        UserError: the folder cannot be written.
    """
    done = Cancelled()
    found = scan(results)
    # First, so that no coordinator tries again what ends now.
    try:
        (results / CANCEL).touch()
    except OSError as error:
        raise UserError(
            f"cannot write {results / CANCEL}: {error.strerror}; only who may write to the folder can stop its cells"
        ) from error
    jobs = set(queued_cells(results))
    for one in found:
        if one.state != State.RUNNING:
            continue
        claim = read_claim(results / "cells" / one.path / "claim.json") or {}
        job = str(claim["job"]) if claim.get("job") else None
        if job in jobs:
            continue
        process = process_of(claim)
        if process is not None:
            # Before its job, which may be an allocation in which somebody runs cells beside other things.
            try:
                os.kill(process, signal.SIGKILL if kill else signal.SIGTERM)
                done.processes.append(one.path)
            except ProcessLookupError:
                pass
            except PermissionError:
                done.elsewhere.append((one.path, f"{claim['host']} as a process of another user"))
        elif job is not None:
            jobs.add(job)
        else:
            done.elsewhere.append((one.path, str(claim.get("host"))))
    if jobs:
        cancel_jobs(jobs, kill)
    done.jobs = sorted(jobs)
    return done
