"""Whom `cancel` tells to stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from multirater.benchmark import cancelling, squeue
from multirater.benchmark.cell import Cell, open_results


@pytest.fixture
def cell(tmp_path):
    results = open_results(tmp_path / "results", create=True)
    spec = {
        "schema": {"name": "cell", "version": 1}, "method": {"name": "m"}, "dataset": {"name": "d"}, "fold": 0,
        "seed": 0, "preset": "smoke", "eval_key": "e" * 64, "train_key": "t" * 64,
    }  # fmt: skip
    return Cell.plan(results, spec)


@pytest.fixture
def cancelled(monkeypatch):
    """Ids of the jobs that SLURM was asked to end."""
    asked: list[str] = []
    monkeypatch.setattr(cancelling, "cancel_jobs", lambda ids, kill: asked.extend(sorted(ids)))
    return asked


def test_a_cell_of_this_machine_is_stopped_alone_inside_an_allocation(cell, cancelled):
    """The executor `local` inside an salloc: its job is everything that the user does there."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = psutil.Process(process.pid).create_time()
    claim = {"host": socket.gethostname(), "pid": process.pid, "started": started, "id": "x", "job": "99"}
    (cell.folder / "claim.json").write_text(json.dumps(claim))
    done = cancelling.cancel(cell.folder.parents[3])
    assert process.wait(30) == -signal.SIGTERM
    assert len(done.processes) == 1
    assert done.jobs == cancelled == []


def test_a_job_on_another_host_is_taken_out_of_the_queue(cell, cancelled, monkeypatch):
    monkeypatch.setattr(squeue, "jobs", lambda newer_than=None: {"99": "RUNNING"})
    claim = {"host": "elsewhere", "pid": 1, "started": 1.0, "id": "x", "job": "99"}
    (cell.folder / "claim.json").write_text(json.dumps(claim))
    done = cancelling.cancel(cell.folder.parents[3])
    assert done.jobs == cancelled == ["99"]
    assert done.processes == done.elsewhere == []


def test_a_job_that_was_submitted_for_this_folder_is_ended_as_a_job(cell, cancelled, monkeypatch):
    results = cell.folder.parents[3]
    (results / "jobs").mkdir()
    record = {"executor": "slurm", "jobs": {"99": ["m/d/" + cell.folder.name]}}
    (results / "jobs" / "1.json").write_text(json.dumps(record))
    monkeypatch.setattr(squeue, "jobs", lambda newer_than=None: {"99": "RUNNING"})
    process = psutil.Process()
    claim = {"host": socket.gethostname(), "pid": process.pid, "started": process.create_time(), "job": "99"}
    (cell.folder / "claim.json").write_text(json.dumps(claim))
    done = cancelling.cancel(results)
    assert done.jobs == cancelled == ["99"]
    assert done.processes == []
