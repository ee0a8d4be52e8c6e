"""Whom `cancel` tells to stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from multirater.benchmark import cancelling, cleaning, squeue
from multirater.benchmark.cleaning import Waste
from multirater.benchmark.commands import clean
from multirater.core.errors import UserError


@pytest.fixture
def cell(planned):
    return planned


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


def test_a_folder_that_may_not_be_written_is_one_sentence(cell, monkeypatch):
    def refuse(*arguments, **named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(UserError, match=r"cannot write .*cancel: Permission denied"):
        cancelling.cancel(cell.folder.parents[3])


def test_clean_does_not_say_removed_of_what_is_still_there(cell, monkeypatch):
    waste = Waste({"temporary files": [cell.folder / "spec.json"]}, {"temporary files": 1})
    monkeypatch.setattr(cleaning, "find_waste", lambda *arguments: waste)
    words = ["--results", str(cell.folder.parents[3])]

    def refuse(*arguments, **named):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        done = CliRunner().invoke(clean.command, words, standalone_mode=False)
    assert "1 of them cannot be removed" in str(done.exception)
    assert "removed\n" not in done.output
    assert CliRunner().invoke(clean.command, words, standalone_mode=False).output.endswith("removed\n")
