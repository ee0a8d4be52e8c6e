"""Whose process a claim names: a process id means something in one place only, and a damaged claim nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
from multirater.benchmark import cancelling, claims, squeue
from multirater.benchmark.cell import State
from multirater.benchmark.states import scan

linux = pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="no PID namespaces here")


@pytest.fixture
def cell(planned):
    return planned


def hold(cell, seconds_ago=0.0, **changes):
    """A claim as this process would make it, but for the changes; its last sign of life was so long ago."""
    path = cell.folder / "claim.json"
    path.write_text(json.dumps({**claims.owner(), "id": "x", "taken": time.time(), **changes}))
    os.utime(path, (time.time() - seconds_ago,) * 2)


@linux
@pytest.mark.parametrize("change", [{"pid_namespace": "pid:[1]"}, {"boot": "another"}])
def test_a_process_of_another_container_or_a_clone_of_this_host_lives_by_its_signs_of_life(cell, change, monkeypatch):
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() - 9000)
    nobody = {"pid": 2**22 - 1, **change}  # no process has this number here
    hold(cell, **nobody)
    assert cell.state() is State.RUNNING
    assert cell.take() is None
    hold(cell, seconds_ago=4000, **nobody)
    assert cell.state() is State.LOST
    # The number of a living process of this place says nothing either.
    hold(cell, seconds_ago=4000, **change)
    assert cell.state() is State.LOST
    assert cell.take()


@linux
def test_a_claim_from_before_this_machine_was_started_again_is_lost(cell, monkeypatch):
    hold(cell, seconds_ago=100, boot="the one before")
    monkeypatch.setattr(psutil, "boot_time", lambda: time.time() - 50)
    assert cell.state() is State.LOST


@linux
def test_a_process_of_another_container_is_not_stopped_by_the_number_it_has_there(cell, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *arguments: pytest.fail("a process of this place was stopped"))
    hold(cell, pid_namespace="pid:[1]")
    done = cancelling.cancel(cell.folder.parents[3])
    assert (done.processes, len(done.elsewhere)) == ([], 1)


def test_a_claim_without_a_place_is_judged_as_before(cell):
    older = dict.fromkeys(("boot", "pid_namespace", "ticks"))
    hold(cell, **older)
    assert cell.state() is State.RUNNING
    hold(cell, **older, started=1.0)
    assert cell.state() is State.LOST


@pytest.mark.parametrize(
    "wrong",
    [{"pid": "12"}, {"pid": None}, {"pid": True}, {"started": "noon"}, {"host": 7}, {"taken": "noon", "job": "7"}],
)
def test_a_claim_with_values_of_the_wrong_type_lives_by_its_signs_of_life(cell, wrong, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *arguments: pytest.fail("a process that may be another's was stopped"))
    elsewhere = {"host": "elsewhere"} if "taken" in wrong else {}
    hold(cell, **{**elsewhere, **wrong})
    assert [one.state for one in scan(cell.folder.parents[3])] == ["running"]
    cancelling.cancel(cell.folder.parents[3])
    hold(cell, seconds_ago=4000, **{**elsewhere, **wrong})
    assert [one.state for one in scan(cell.folder.parents[3])] == ["lost"]
    assert cell.take()


@linux
def test_a_step_of_the_clock_does_not_kill_a_process(cell):
    hold(cell, started=claims.owner()["started"] - 10)
    assert cell.state() is State.RUNNING
    hold(cell, ticks=1)
    assert cell.state() is State.LOST


@pytest.mark.parametrize("pid", [-1, 0, 2**70])
def test_a_number_that_no_process_can_have_is_a_dead_one(cell, pid):
    hold(cell, pid=pid)
    assert cell.state() is State.LOST


def test_a_claim_that_is_not_text_is_lost(cell):
    (cell.folder / "claim.json").write_bytes(b"\xff\xfe{")
    assert cell.state() is State.LOST


@linux
@pytest.mark.parametrize("older", [False, True])
def test_a_killed_owner_whom_nobody_reaps_is_dead(cell, older):
    """As in a container whose first process waits for no child."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    there = psutil.Process(process.pid)
    mine = {"pid": process.pid, "started": there.create_time(), "ticks": claims._ticks(process.pid)}
    hold(cell, **{**mine, **({"boot": None, "pid_namespace": None, "ticks": None} if older else {})})
    assert cell.state() is State.RUNNING
    process.kill()
    while there.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert cell.state() is State.LOST
    assert cell.take()
    process.wait()


def test_a_process_that_this_user_may_not_see_lives_by_its_signs_of_life(cell, monkeypatch):
    """A ``/proc`` mounted with `hidepid` shows nothing of others' processes."""

    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    hold(cell, pid=2**22 - 1)
    assert cell.state() is State.RUNNING
    assert cell.take() is None
    hold(cell, pid=2**22 - 1, seconds_ago=4000)
    assert cell.state() is State.LOST


@pytest.mark.parametrize("place", [{"host": "another"}, {"pid_namespace": "pid:[1]"}])
def test_a_requeued_job_takes_what_its_earlier_run_left_and_nothing_of_the_present_one(cell, place, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setattr(squeue, "jobs", lambda newer_than=None: {"99": "RUNNING"})
    left = {"job": "99", "pid": 2**22 - 1, **place}
    hold(cell, restart=0, **left)
    assert cell.take() is None  # of another machine of this job, perhaps
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    hold(cell, restart=1, **left)
    assert cell.take() is None
    hold(cell, restart=0, **left)
    assert cell.take()
