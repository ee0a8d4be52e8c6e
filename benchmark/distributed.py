"""One training on several processes, each with its share of every batch: DistributedDataParallel under ``torchrun``.

``train.processes=N`` is part of a cell's key where it is not 1: batch norm sees a share only, and every process has a
noise of its own. The first process validates, keeps the state and writes; the one that holds the claim starts the
others, waits for them, and then predicts alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..core.errors import UserError
from ..core.files import read_json, write_json
from .stopping import StopFlag, Stopped, die_with_parent

_PATIENCE = timedelta(hours=24)  # others wait while the first validates


class _Step(nn.Module):
    """`training_step` as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: dict[str, Any], stage: str) -> Any:
        return self.method.training_step(batch, stage=stage)


class Team:
    """The processes of a training; most have one."""

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size() if together else 1
        self.rank = dist.get_rank() if together else 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def step(self, method: Any) -> Callable[..., Any]:
        """`training_step`, with gradients averaged over the team; weights of all become those of the first process."""
        if self.size == 1:
            return method.training_step
        wrapped = nn.parallel.DistributedDataParallel(_Step(method), find_unused_parameters=True)
        return lambda batch, stage: wrapped(batch, stage)

    def share(self, batch: dict[str, Any]) -> dict[str, Any]:
        """This process's rows of a batch."""
        return batch if self.size == 1 else {key: rows[self.rank :: self.size] for key, rows in batch.items()}

    def any(self, *flags: bool) -> list[bool]:
        """Which flags are set in any process."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([float(bool(f)) for f in flags])
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return [bool(v) for v in values]

    def mean(self, value: float) -> float:
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total) / self.size

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the first one; what others get is of no use."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def check_batch(processes: int, batch_size: int) -> None:
    """Refuse shares of unequal size, whose mean of means would be another loss.

    Raises:
        UserError: the batch cannot be shared equally.
    """
    if batch_size % processes:
        raise UserError(
            f"train.processes={processes} cannot share batches of {batch_size} equally; choose train.batch_size as a "
            f"multiple of {processes}"
        )


def launch(cell: Any, attempt: Path, device: str, threads: int, processes: int, ident: str, stop: StopFlag) -> None:
    """Train a cell on several processes and wait for them.

    Raises:
        Stopped: a stop was asked for, and the state is kept.
        UserError, Diverged, RuntimeError: as the first process says.
    """
    told = attempt / "distributed.json"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m",
        "multirater.benchmark.distributed", str(cell.folder), device, str(threads), str(attempt), ident,
    ]  # fmt: skip
    process = subprocess.Popen(command, preexec_fn=die_with_parent)
    asked = False
    try:
        while process.poll() is None:
            if stop and not asked:
                process.terminate()
                asked = True
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            process.kill()
    if cell.train_record.is_file():
        return
    record = read_json(told) if told.is_file() else {"kind": "", "message": f"torchrun ended with {process.returncode}"}
    if stop or record["kind"] == "Stopped":
        raise Stopped(f"stopped by {stop.reason or record['message']}")
    if record["kind"] == "UserError":
        raise UserError(record["message"])
    if record["kind"] == "Diverged":
        from .trainer import Diverged

        raise Diverged(record["message"])
    raise RuntimeError(f"{record['kind']} in a process of the team: {record['message']}")


def main(arguments: list[str]) -> int:
    """One process of a team, started by torchrun: ``FOLDER DEVICE THREADS ATTEMPT CLAIM``."""
    from ..datasets import open_dataset
    from . import provenance
    from .cell import Cell
    from .progress import Heartbeat
    from .training import train_cell

    folder, device, threads, attempt, ident = arguments
    die_with_parent()
    stop = StopFlag()
    stop.install()
    rank = int(os.environ["RANK"])
    if rank == 0:
        provenance.code()  # kept for the record: of the code that is about to run
    torch.set_num_threads(max(1, int(threads) // int(os.environ["WORLD_SIZE"])))
    place = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    cell = Cell(Path(folder))
    spec = cell.spec
    claim = Path(folder) / "claim.json" if rank == 0 else None
    beat = Path(attempt) / ("progress.json" if rank == 0 else f"progress-{rank}.json")
    try:
        dataset = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
        heartbeat = Heartbeat(beat, claim=claim, stop=stop, ident=ident if rank == 0 else None)
        train_cell(cell, spec, dataset, place, heartbeat, stop)
    except Exception as error:
        if rank == 0 or not isinstance(error, Stopped):
            write_json(Path(attempt) / "distributed.json", {"kind": type(error).__name__, "message": str(error)})
        raise
    finally:
        beat.unlink(missing_ok=True) if rank else None
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
