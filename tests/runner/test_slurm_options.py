"""What the slurm executor asks for, without a cluster."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from multirater.benchmark.cell import Cell
from multirater.benchmark.executors import Resources
from multirater.benchmark.executors.base import evaluation
from multirater.benchmark.executors.script import command, sbatch_array
from multirater.benchmark.executors.slurm import grouped, minutes_of, parameters
from multirater.benchmark.stopping import StopFlag
from multirater.core.errors import UserError


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("2-12:00:00", 3600), ("1:00:00", 60), ("30:00", 30), ("infinite", None), ("n/a", None), ("0:30", 1)],
)
def test_time_limits_of_partitions(limit, minutes):
    assert minutes_of(limit) == minutes


def test_options_that_submitit_does_not_know_go_to_sbatch(tmp_path):
    options = {"partition": "gpu", "signal_delay_s": "300", "reservation": "x"}
    asked = parameters(
        Resources(tmp_path, threads=3, minutes=90, memory_gb=1.5, jobs=7, device="cuda", options=options)
    )
    assert asked["partition"] == "gpu"
    assert asked["signal_delay_s"] == 300
    assert asked["additional_parameters"] == {"reservation": "x"}
    assert (asked["time"], asked["mem"], asked["cpus_per_task"], asked["array_parallelism"]) == (90, "1536MB", 3, 7)
    assert asked["gpus_per_node"] == 1
    with pytest.raises(UserError, match="use_srun=false is not an option of sbatch"):
        parameters(Resources(tmp_path, minutes=1, options={"use_srun": "false"}))


def test_short_cells_share_a_job_and_unknown_ones_do_not(tmp_path):
    cells = [Cell(tmp_path / str(i)) for i in range(6)]
    expected = {cells[0]: 500.0, cells[1]: 500.0, cells[2]: 550.0, cells[3]: 550.0, cells[4]: 5000.0}
    groups = grouped(cells, Resources(tmp_path, expected=expected))
    assert sorted(len(group) for group in groups) == [1, 1, 1, 3]
    assert {c for g in groups for c in g} == set(cells)


def test_a_shared_job_ends_within_its_time_limit(tmp_path):
    """15 minutes are 1.5 times 10: three cells of 5 minutes each are as many as two jobs take."""
    cells = [Cell(tmp_path / str(i)) for i in range(3)]
    groups = grouped(cells, Resources(tmp_path, minutes=15, expected=dict.fromkeys(cells, 300.0)))
    assert [len(group) for group in groups] == [2, 1]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_both_warnings_of_a_scheduler_are_time_limits(number):
    stop = StopFlag()
    before = stop.install()
    try:
        os.kill(os.getpid(), number)
        assert stop
        assert stop.time_limit
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_scripts_quote_their_paths(tmp_path):
    cell = Cell(tmp_path / "with space" / "m" / "d" / "f0-s0-abc")
    resources = Resources(tmp_path, threads=2, device="cpu", minutes=30)
    assert "'" in command(cell, resources)
    text = sbatch_array([cell], resources)
    assert "#SBATCH --array=0-0\n" in text
    assert "#SBATCH --signal=B:USR1@120" in text
    assert "#SBATCH --time=30" in text
    assert "gpus" not in text


def test_scripts_say_which_evaluation_is_asked_for(tmp_path):
    asked = {"eval": {"n_samples": 8, "max_cases": None}, "eval_key": "ab", "preset": "quick"}
    cell = Cell(tmp_path / "m" / "d" / "f0-s0-abc", asked)
    words = shlex.split(command(cell, Resources(tmp_path)))
    assert json.loads(words[words.index("--asked") + 1]) == {"eval": asked["eval"], "eval_key": "ab"}
    lines = sbatch_array([cell, Cell(tmp_path / "x")], Resources(tmp_path)).replace("env ", "echo ").splitlines()
    start = lines.index("cells=(")
    script = "\n".join(["SLURM_ARRAY_TASK_ID=0", *lines[start : lines.index("worker=$!")], "wait"])
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith('--asked {"eval": {"n_samples": 8, "max_cases": null}, "eval_key": "ab"}')


def test_a_script_asks_for_a_gpu_where_cells_need_one(tmp_path):
    cell = Cell(tmp_path / "m" / "d" / "f0-s0-abc")
    text = sbatch_array([cell], Resources(tmp_path, device="cuda"))
    assert "#SBATCH --gpus-per-node=1\n" in text
    text = sbatch_array([cell], Resources(tmp_path, device="cuda", options={"gpus_per_node": "a100:1"}))
    assert "#SBATCH --gpus-per-node=a100:1\n" in text


def test_a_cell_of_which_nothing_is_asked_makes_what_its_specification_names():
    assert json.loads(evaluation(Cell(Path("m/d/f0")))) is None
