"""Grids through a real SLURM without accounting: killed jobs, time limits, a front node that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def numbers(results: Path) -> dict[str, bytes]:
    files = [*results.glob("cells/**/metrics.csv"), *results.glob("cells/**/weights.safetensors")]
    return {str(p.relative_to(results)): p.read_bytes() for p in files}


def states(call, results: Path) -> dict[str, str]:
    _, out, err = call("status", "--results", str(results), "--json", "--why")
    assert out, err
    return {f"{row['method']}-{row['seed']}": row["state"] for row in json.loads(out)}


def wait_for(look, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s")


def queue(environment: dict[str, str]) -> list[str]:
    done = subprocess.run(["squeue", "-h", "-r", "-o", "%i %T"], env=environment, capture_output=True, text=True)
    return done.stdout.split("\n")[:-1]


@pytest.fixture
def idle(environment):
    """No job of another test is left."""
    yield
    subprocess.run(["scancel", "--signal=KILL", "--user=root"], env=environment, capture_output=True)
    subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
    wait_for(lambda: not queue(environment), 90)


def test_killed_jobs_and_a_dead_front_node_end_in_the_records_of_local(environment, begin, call, asked, tmp_path, idle):
    slurm, local = tmp_path / "slurm", tmp_path / "local"
    grid = ("toy,two_stages", "train.steps=40", "method.pause=0.1")
    code, _, err = call("submit", *asked(slurm, *grid, seeds="0,1"), "--executor", "slurm", "--time", "10")
    assert code == 0, err
    assert "5 cells handed over" in err
    assert len(list((slurm / "jobs").glob("*.json"))) == 1
    # Asked again while they wait: nothing is submitted twice.
    code, _, err = call("submit", *asked(slurm, *grid, seeds="0,1"), "--executor", "slurm", "--time", "10")
    assert len(list((slurm / "jobs").glob("*.json"))) == 1, err

    # The front node dies: a coordinator that waits for these jobs is killed while one of them trains.
    coordinator = begin("run", *asked(slurm, *grid, seeds="0,1"), "--executor", "slurm", "--no-figures")
    claim = wait_for(lambda: list(slurm.glob("cells/*/*/*/state/running.safetensors")))[0].parents[1] / "claim.json"
    coordinator.send_signal(signal.SIGKILL)
    # And a job dies, in which accounting would say so and nothing else does.
    os.kill(json.loads(claim.read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: not queue(environment), 600)
    found = states(call, slurm)
    assert sorted(found.values()).count("done") >= 3, found
    assert "lost" in found.values()

    code, _, err = call("run", *asked(slurm, *grid, seeds="0,1"), "--executor", "slurm", "--no-figures")
    assert code == 0, err
    assert set(states(call, slurm).values()) == {"done"}
    code, _, err = call("run", *asked(local, *grid, seeds="0,1"), "--no-figures", "--jobs", "2")
    assert code == 0, err
    assert numbers(slurm) == numbers(local)
    attempt = json.loads(next(slurm.glob("cells/toy/*/*/attempts/1/attempt.json")).read_text())
    assert attempt["job"]


def test_a_job_is_requeued_at_its_time_limit_and_goes_on(environment, call, asked, tmp_path, idle):
    """The training takes three minutes, the limit is two."""
    results = tmp_path / "slurm"
    words = asked(results, "toy", "train.steps=180", "method.pause=1.0")
    code, _, err = call(
        "run", *words, "--executor", "slurm", "--no-figures", "--time", "2", "--slurm", "signal_delay_s=50"
    )
    assert code == 0, err
    (cell,) = results.glob("cells/toy/*/*")
    attempts = [json.loads(p.read_text()) for p in sorted(cell.glob("attempts/*/attempt.json"))]
    assert [a["outcome"] for a in attempts][:1] == ["time_limit"]
    assert attempts[-1]["outcome"] == "ok"
    assert len({a["job"] for a in attempts}) == 1  # requeued, not submitted again
    steps = [a["progress"][2] for a in attempts[:-1]]
    assert steps == sorted(set(steps))
    record = json.loads((cell / "train.json").read_text())
    assert record["stages"][0]["steps"] == 180


def test_the_sbatch_script_requeues_too(environment, call, asked, tmp_path, idle):
    results, script = tmp_path / "slurm", tmp_path / "jobs.sbatch"
    words = asked(results, "toy", "train.steps=180", "method.pause=1.0")
    code, out, err = call(
        "submit", *words, "--executor", "script", "--script-form", "sbatch", "--output", str(script), "--time", "2",
        "--slurm", "signal_delay_s=50",
    )  # fmt: skip
    assert code == 0, err
    assert out.strip() == str(script)
    subprocess.run(["sbatch", str(script)], env=environment, check=True, capture_output=True)
    (cell,) = wait_for(lambda: list(results.glob("cells/toy/*/*")))
    wait_for(lambda: list(cell.glob("eval/*/result.json")), 900)
    attempts = [json.loads(p.read_text()) for p in sorted(cell.glob("attempts/*/attempt.json"))]
    assert attempts[0]["outcome"] == "time_limit"
    assert len({a["job"] for a in attempts}) == 1


def test_cancel_takes_jobs_out_of_the_queue_and_lets_cells_save(environment, call, asked, tmp_path, idle):
    results = tmp_path / "slurm"
    words = asked(results, "toy", "train.steps=600", "method.pause=0.5", seeds="0,1,2")
    code, _, err = call("submit", *words, "--executor", "slurm", "--time", "20")
    assert code == 0, err
    wait_for(lambda: list(results.glob("cells/toy/*/*/state/running.safetensors")))
    code, out, err = call("cancel", "--results", str(results))
    assert code == 0, err
    assert "SLURM jobs were told to stop" in out
    wait_for(lambda: not queue(environment), 120)
    outcomes = [json.loads(p.read_text())["outcome"] for p in results.glob("cells/toy/*/*/attempts/*/attempt.json")]
    assert "interrupted" in outcomes
    assert "running" not in states(call, results).values()


def test_a_poison_job_is_retired_and_wrong_options_are_one_sentence(environment, call, asked, tmp_path, idle):
    results = tmp_path / "slurm"
    words = asked(results, "poison,toy", "train.steps=8")
    code, _, err = call(
        "run", *words, "--executor", "slurm", "--no-figures", POISON="kills", MULTIRATER_SAVE_SECONDS="60"
    )
    assert code == 1, err
    assert "trying again, lost" in err
    assert states(call, results) == {"human-0": "done", "poison-0": "lost", "toy-0": "done"}
    code, _, err = call("submit", *words, "--executor", "slurm", "--slurm", "partition=nowhere")
    assert code == 2
    assert "SLURM refuses the jobs" in err
    assert "Traceback" not in err
