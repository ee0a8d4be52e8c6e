"""A training that was stopped or killed anywhere ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from multirater.benchmark import resume
from multirater.benchmark.cell import Cell
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.progress import Heartbeat
from multirater.benchmark.resume import StateKeeper, read_state, write_state
from multirater.benchmark.runner import plan
from multirater.benchmark.stopping import StopFlag, Stopped
from multirater.benchmark.training import train_cell
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.methods import METHODS

STEPS = 9  # 28 training cases in batches of 5: an epoch has 5 steps, and the second is cut short


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def planned(results: Path, method: str, steps: int = STEPS, **train: object) -> Cell:
    overrides = {
        "dataset": {"cases": 40, "size": 64 if method == "tab" else 32},
        "train": {"steps": steps, "batch_size": 5, "select": "best", **train},
        "eval": {"n_samples": 2, "max_cases": 4},
    }
    report = plan([method], "synthetic", "smoke", [0], [0], overrides, results, Monitor(quiet=True))
    return next(cell for cell in report.cells if cell.spec["method"]["name"] == method)


class StopAt(Heartbeat):
    """Asks for a stop after a step, counted over all stages."""

    def __init__(self, path: Path, stop: StopFlag, after: int) -> None:
        super().__init__(path, stop=stop)
        self.left = after

    def write(self, phase: str, done: int, total: int, force: bool = False, **values: object) -> None:
        self.left -= phase.startswith("train")
        if self.left == 0:
            self.stop.reason = "SIGTERM"


def train(cell: Cell, stop_after: int = 0) -> None:
    """One attempt; the generators that it finds are in any state."""
    random.random(), torch.rand(3), np.random.rand(2)  # noqa: NPY002
    spec, stop = cell.spec, StopFlag()
    dataset = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
    train_cell(cell, spec, dataset, torch.device("cpu"), StopAt(cell.folder / "beat.json", stop, stop_after), stop)


def outcome(cell: Cell) -> dict[str, object]:
    """What must not depend on how often a training was cut off."""
    record = json.loads(cell.train_record.read_text())
    stages = [{k: v for k, v in stage.items() if k != "seconds"} for stage in record["stages"]]
    return {
        "weights": cell.weights.read_bytes(),
        "history": (cell.folder / "history.csv").read_text(),
        "stages": stages,
        "nonfinite": record["nonfinite_steps"],
    }


# The first step, within an epoch, at its end, the last step of a stage; dpersona: also in and between two stages.
STOPS = {"unet_soft": [1, 2, 2, 4], "prob_unet": [3, 6], "dpersona": [4, 5, 3, 1, 5]}
EVERY = sorted(set(METHODS.names()) - set(STOPS))


@pytest.mark.parametrize("method", [*STOPS, *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY)])
def test_stops_anywhere_leave_no_trace(cache, tmp_path, method):
    whole, cut = planned(tmp_path / "whole", method), planned(tmp_path / "cut", method)
    train(whole)
    for after in STOPS.get(method, [4, 2]):
        with pytest.raises(Stopped):
            train(cut, stop_after=after)
        assert not cut.train_record.exists()
    train(cut)
    assert outcome(cut) == outcome(whole)
    assert not (cut.folder / "state").exists()


@pytest.mark.parametrize(
    "recipe", [{"optimizer": "sgd", "augment": "flips_rotate"}, {"optimizer": "adamw", "augment": "flips+scale+noise"}]
)
def test_other_recipes_resume_too(cache, tmp_path, recipe):
    cells = [planned(tmp_path / name, "unet_soft", grad_clip=1.0, **recipe) for name in ("whole", "cut")]
    train(cells[0])
    with pytest.raises(Stopped):
        train(cells[1], stop_after=6)
    train(cells[1])
    assert outcome(cells[0]) == outcome(cells[1])


def worker(cell: Cell) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "multirater.benchmark.worker", str(cell.folder), "cpu", "1"]
    environment = {**os.environ, "MULTIRATER_SAVE_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_a_killed_training_goes_on_from_its_last_state(cache, tmp_path):
    """SIGKILL in each of the two stages of dpersona; results from prediction and scoring included."""
    whole, cut = (planned(tmp_path / name, "dpersona", steps=60) for name in ("whole", "cut"))
    assert worker(whole).wait(timeout=300) == 0
    for stage in ("diverse", "personalised"):
        process = worker(cut)
        state = cut.folder / "state" / "running.safetensors"
        deadline = time.monotonic() + 300
        while not ((found := read_state(state)) and found[0]["stage"] == stage and found[0]["step"] >= 20):
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert worker(cut).wait(timeout=300) == 0
    assert outcome(cut) == outcome(whole)
    one, two = (next(cell.folder.glob("eval/*/metrics.csv")).read_bytes() for cell in (whole, cut))
    assert one == two


def test_a_signal_ends_a_worker_with_143_and_its_state_kept(cache, tmp_path):
    cell = planned(tmp_path, "unet_soft", steps=4000)
    process = worker(cell)
    deadline = time.monotonic() + 300
    while not (cell.folder / "state" / "running.safetensors").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=300) == 143
    assert cell.last_attempt()["outcome"] == "time_limit"
    assert "SIGUSR1" in cell.last_attempt()["message"]
    found = read_state(cell.folder / "state" / "running.safetensors")
    assert found is not None
    assert 0 < found[0]["step"] < 4000
    assert cell.claim() is None


def test_a_damaged_state_is_not_used(tmp_path):
    path = tmp_path / "state.safetensors"
    tensors = {"a": torch.tensor([float("nan"), -0.0]), "b": torch.tensor(3), "empty": torch.zeros(0, 2)}
    write_state(path, {"stage": "main", "step": 3}, tensors)
    facts, found = read_state(path)
    assert facts == {"stage": "main", "step": 3}
    assert all(found[k].numpy().tobytes() == tensors[k].numpy().tobytes() for k in tensors)
    assert StateKeeper(path).load("main") is not None
    assert StateKeeper(path).load("other") is None
    whole = path.read_bytes()
    for size in (0, 7, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert read_state(path) is None
    path.write_bytes(whole.replace(b'"form":"1"', b'"form":"9"'))
    assert read_state(path) is None


def test_a_failed_save_leaves_the_last_state(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    write_state(path, {"step": 1}, {"a": torch.ones(3)})
    monkeypatch.setattr(resume, "_same", lambda one, two: False)
    with pytest.raises(UserError, match="reads back differently"):
        write_state(path, {"step": 2}, {"a": torch.zeros(3)})
    assert read_state(path)[0] == {"step": 1}
    assert os.listdir(tmp_path) == [path.name]


def test_saving_keeps_to_its_share_of_the_time(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(resume.time, "monotonic", lambda: now)
    keeper = StateKeeper(tmp_path / "s", most=600, least=10, share=0.02)
    keeper.start(0)
    for now, epoch_end, due in ((9, True, False), (10, True, True), (500, False, False), (600, False, True)):
        assert keeper.due(epoch_end) is due, now
    keeper.cost = 1.0  # a save of one second: every 50 seconds at most
    now = 49
    assert not keeper.due(True)
    now = 50
    assert keeper.due(True)
    keeper.start(100_000_000)  # before the first save its time is estimated from the size
    now = 99
    assert not keeper.due(True)
    now = 100
    assert keeper.due(True)


def test_generators_come_back(tmp_path):
    resume.seed_all(5)
    facts, tensors = resume.generator_states()
    draws = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    resume.seed_all(6)
    write_state(tmp_path / "s", facts, tensors)
    resume.restore_generators(*read_state(tmp_path / "s"))
    assert draws == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002


def test_moments_keep_the_layout_of_their_parameters():
    layer = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.rand(1, 4, 5, 5)).sum().backward()
    optimizer.step()
    values, tensors = resume.optimizer_state(optimizer)
    again = torch.optim.Adam(layer.parameters())
    resume.restore_optimizer(again, values, {k: v.contiguous() for k, v in tensors.items()})
    for parameter in layer.parameters():
        one, two = optimizer.state[parameter], again.state[parameter]
        assert {k: v.stride() for k, v in one.items()} == {k: v.stride() for k, v in two.items()}
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_finished_cell_has_no_state_left(cache, tmp_path):
    """A kill between the last record and the clean-up leaves a folder that the next attempt removes."""
    cell = planned(tmp_path, "unet_soft", steps=2)
    assert worker(cell).wait(timeout=300) == 0
    (cell.folder / "state").mkdir()
    shutil.rmtree(cell.folder / "eval")
    assert worker(cell).wait(timeout=300) == 0
    assert not (cell.folder / "state").exists()
