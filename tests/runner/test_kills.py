"""SIGKILL at random instants, of workers and coordinators: nothing is lost, the numbers are those of a quiet run."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import time

import pytest

CELLS = 7  # two seeds of three methods, and the human rows
COSTS = ("train_seconds", "predict_seconds", "peak_memory_mb")  # differ between any two runs


def kill_at_random(grid, start, kills: int, coordinators: int, seed: int) -> int:
    """Run a grid while workers and coordinators are killed; returns how many of them were."""
    draw = random.Random(seed)
    living = [start(grid, log=grid.results.with_suffix(f".{i}")) for i in range(coordinators)]
    done, killed = {}, 0
    deadline = time.monotonic() + 60 * kills + 600
    while killed < kills and time.monotonic() < deadline:
        time.sleep(draw.uniform(0.0, draw.choice([0.3, 3.0])))
        for path, digest in finished(grid).items():
            assert done.setdefault(path, digest) == digest, "a finished cell has changed"
        for i, process in enumerate(living):
            if process.exitcode is not None:
                living[i] = start(grid, log=grid.results.with_suffix(f".{i}"))
        workers = owners(grid)
        coordinating = [p.pid for p in living if p.exitcode is None]
        victims = workers if workers and (not coordinating or draw.random() < 0.6) else coordinating
        if not victims:
            continue
        try:
            os.kill(draw.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed += 1
        whole(grid)
        if len(done) == CELLS:
            break
    for process in living:
        process.join(0 if process.exitcode is not None else 240)
    assert set(done) <= set(finished(grid)), "a finished cell was lost"
    return killed


def owners(grid) -> list[int]:
    """Processes that hold a cell."""
    return [claim["pid"] for cell in grid.cells() if (claim := cell.claim()) and "pid" in claim]


def finished(grid) -> dict[str, str]:
    """Hashes of the case values of finished cells."""
    found = {}
    for path in grid.results.glob("cells/*/*/*/eval/*/result.json"):
        record = json.loads(path.read_text())
        digest = hashlib.sha256((path.parent / "metrics.csv").read_bytes()).hexdigest()
        assert digest == record["metrics_sha256"], "a record stands beside other values"
        found[str(path)] = digest
    return found


def whole(grid) -> None:
    """No file is half written."""
    for path in grid.results.rglob("*.json"):
        if not path.name.startswith(".") and path.name != "progress.json":
            try:
                text = path.read_text()
            except FileNotFoundError:
                continue
            json.loads(text)


def table(grid) -> list[dict[str, str]]:
    """The leaderboard without what a run costs."""
    from multirater.benchmark.leaderboard import write_leaderboard

    write_leaderboard(grid.results)
    rows = csv.DictReader((grid.results / "derived" / "leaderboard.csv").open())
    return [{k: v for k, v in row.items() if k not in COSTS} for row in rows]


def check(grid, start, finish, kills: int, coordinators: int, seed: int) -> None:
    sizes = {"methods": ["toy", "two_stages", "poison"], "seeds": (0, 1), "steps": 12, "options": {}}
    quiet = grid("quiet", **sizes)
    assert finish(quiet)["exit_code"] == 0
    cut = grid("cut", **sizes, settings={"jobs": 2 if coordinators == 1 else 1})
    killed = kill_at_random(cut, start, kills, coordinators, seed)
    assert finish(cut)["exit_code"] == 0
    assert all(cell.state() == "done" for cell in cut.cells())
    assert cut.numbers() == quiet.numbers()
    assert table(cut) == table(quiet)
    assert killed >= 3


@pytest.mark.parametrize("coordinators", [1, 2])
def test_a_few_kills(grid, start, finish, toys, coordinators):
    check(grid, start, finish, 5, coordinators, seed=coordinators)


@pytest.mark.slow
@pytest.mark.parametrize("coordinators", [1, 2])
def test_a_hundred_kills(grid, start, finish, toys, coordinators):
    """As many grids as it takes: a grid that is killed all the time still ends, after some twenty kills."""
    total = seed = 0
    while total < 100:
        seed += 1
        sizes = {"methods": ["toy", "two_stages", "poison"], "seeds": (0, 1), "steps": 12}
        cut = grid(f"cut{seed}", **sizes, settings={"jobs": 2 if coordinators == 1 else 1})
        total += kill_at_random(cut, start, 25, coordinators, seed)
        assert finish(cut)["exit_code"] == 0
        if seed == 1:
            quiet = grid("quiet", **sizes)
            assert finish(quiet)["exit_code"] == 0
        assert cut.numbers() == quiet.numbers()
        assert table(cut) == table(quiet)
