"""One training on two processes: gloo on the CPU, through torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from multirater.benchmark.distributed import check_batch
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.planning import plan
from multirater.core.errors import UserError
from safetensors.torch import load_file


def planned(results, processes, steps=6, batch_size=4):
    overrides = {
        "dataset": {"cases": 40, "size": 32},
        "train": {"steps": steps, "batch_size": batch_size, "processes": processes, "validate_every": 0},
        "eval": {"n_samples": 2, "max_cases": 3},
        "method": {"noise": 0.0},
    }
    return plan(["toy"], "synthetic", "smoke", [0], [0], overrides, results, Monitor(quiet=True)).cells[1]


def begin(cell, environment):
    command = [sys.executable, "-m", "multirater.benchmark.worker", str(cell.folder), "cpu", "2"]
    return subprocess.Popen(command, env={**os.environ, **environment})


@pytest.mark.slow
def test_two_processes_train_what_one_trains_and_go_on_after_a_stop(toys, environment, tmp_path):
    """Without noise and batch norm the mean gradient of two halves is that of the batch."""
    alone, team, cut = (planned(tmp_path / name, n, 60) for name, n in (("alone", 1), ("team", 2), ("cut", 2)))
    assert alone.folder.name != team.folder.name == cut.folder.name
    running = [begin(cell, environment) for cell in (alone, team)]
    assert [process.wait(timeout=900) for process in running] == [0, 0]
    one, two = load_file(alone.weights), load_file(team.weights)
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)
    record = json.loads(team.train_record.read_text())
    assert record["numerics"]["processes"] == 2
    assert record["samples_seen"] == 60 * 4
    assert team.state() == "done"

    process = begin(cut, environment)
    deadline = time.monotonic() + 600
    while not (cut.folder / "state" / "running.safetensors").is_file():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=600) == 143
    assert cut.last_attempt()["outcome"] == "interrupted"
    assert begin(cut, environment).wait(timeout=900) == 0
    three = load_file(cut.weights)
    assert all(torch.equal(two[k], three[k]) for k in two)


@pytest.mark.slow
def test_a_method_that_raises_in_a_team_says_so(toys, environment, tmp_path):
    cell = planned(tmp_path, 2, batch_size=3)
    assert begin(cell, environment).wait(timeout=900) == 2
    assert cell.last_attempt()["outcome"] == "refused"
    assert "cannot share batches of 3 equally" in cell.last_attempt()["message"]


def test_a_batch_must_be_shared_equally():
    check_batch(2, 4)
    with pytest.raises(UserError, match=r"train.processes=3 cannot share batches of 4 equally"):
        check_batch(3, 4)
