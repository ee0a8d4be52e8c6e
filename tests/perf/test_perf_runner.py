"""What the runner costs beside the training, and what two jobs gain on two cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.planning import plan
from multirater.benchmark.progress import Heartbeat
from multirater.benchmark.resume import StateKeeper
from multirater.benchmark.trainer import Trainer
from multirater.benchmark.training import build_method
from multirater.datasets import open_dataset

STEPS = 60
LIMIT = 0.02  # of the time of a bare loop
pytestmark = pytest.mark.perf


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    overrides = {"dataset": {"cases": 80, "size": 64}, "train": {"steps": STEPS, "batch_size": 8, "validate_every": 0}}
    made = plan(["unet_soft"], "synthetic", "smoke", [0], [0], overrides, tmp_path / "results", Monitor(quiet=True))
    return made.cells[1]


class Timed:
    """Adds up the processor time spent inside calls of an object's methods."""

    def __init__(self, target: object, *names: str) -> None:
        self.spent = 0.0
        for name in names:
            setattr(target, name, self._timed(getattr(target, name)))

    def _timed(self, function):
        def call(*arguments, **named):
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                self.spent += time.process_time() - started

        return call


@pytest.mark.usefixtures("one_thread")
def test_heartbeats_claims_and_states_cost_less_than_two_percent_of_a_training(cell):
    """In processor time, so that other work on the machine does not count: everything that the runner adds to a
    step (heartbeat with its look at the claim, the decision whether to save, the saves) against the whole of it."""
    spec = cell.spec
    dataset = open_dataset("synthetic", **spec["dataset"]["options"])
    device = torch.device("cpu")
    ident = cell.take()
    heartbeat = Heartbeat(cell.folder / "progress.json", claim=cell.folder / "claim.json", ident=ident)
    keeper = StateKeeper(cell.folder / "state" / "running.safetensors")
    trainer = Trainer(build_method(spec, dataset, device), dataset, spec, device, heartbeat, keeper)
    extra = Timed(heartbeat, "write")
    saves = Timed(trainer, "_keep")
    asked = Timed(keeper, "due", "start")
    trainer.run_stage({**spec["train"]["stages"][0], "steps": 3})  # the first steps load what they need
    for counter in (extra, saves, asked):
        counter.spent = 0.0
    started = time.process_time()
    trainer.run_stage(spec["train"]["stages"][0])
    whole = time.process_time() - started
    added = extra.spent + saves.spent + asked.spent
    cell.release()
    assert added / (whole - added) < LIMIT


def worker_seconds(results: Path) -> list[tuple[float, float]]:
    """Start and end of every attempt by its heartbeat."""
    beats = [json.loads(p.read_text()) for p in results.glob("cells/unet_soft/*/*/attempts/*/progress.json")]
    return [(beat["started"], beat["time"]) for beat in beats]


@pytest.mark.slow
def test_two_jobs_of_one_thread_are_faster_than_one(tmp_path):
    """1.6 times on two free cores. On a busy machine what counts is the share that two processes get at the same time
    of what one gets alone: a bare loop in one and in two processes is timed beside the grids, and bounds them."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    environment = {**os.environ, "MULTIRATER_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    words = [
        "-m", "unet_soft", "-d", "synthetic", "-p", "smoke", "--seed", "0,1,2,3", "--threads", "1", "--no-figures",
        "--device", "cpu", "--set", "train.steps=150", "--set", "dataset.cases=80",
    ]  # fmt: skip
    spent, ideal = {}, {}
    for jobs in (1, 2):
        results = tmp_path / str(jobs)
        command = [sys.executable, "-m", "multirater.benchmark", "run", *words, "--results", str(results)]
        ideal[jobs] = bare_loops(jobs)
        started = time.monotonic()
        done = subprocess.run([*command, "--jobs", str(jobs)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        times = worker_seconds(results)
        spent[jobs] = max(e for _, e in times) - min(s for s, _ in times)
        assert spent[jobs] <= time.monotonic() - started
        ideal[jobs] = (ideal[jobs] + bare_loops(jobs)) / 2
    one, two = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).glob("cells/**/metrics.csv")}
        for n in ("1", "2")
    )
    assert one == two
    possible = 2 * ideal[1] / ideal[2]  # 2 on two free cores
    assert spent[1] / spent[2] > 0.8 * possible


def bare_loops(processes: int) -> float:
    """Seconds that so many processes take for the same work each, at the same time."""
    code = "import time\nx = 0\nfor i in range(20_000_000): x += i"
    started = time.monotonic()
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    for process in running:
        process.wait()
    return time.monotonic() - started
