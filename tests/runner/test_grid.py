"""A grid of toys: what is run, what is skipped, what is set aside."""

from __future__ import annotations

import json
import shutil
import time

import pytest


def test_a_grid_is_run_once_and_a_second_run_does_nothing(grid, finish):
    one = grid(methods=["toy", "two_stages"], seeds=(0, 1))
    first = finish(one)
    assert first == {"exit_code": 0, "failed": [], "ran": 5, "left": 0, "cells": 5}
    assert all(cell.state() == "done" for cell in one.cells())
    before = {p: p.stat().st_mtime_ns for p in one.results.glob("cells/**/*") if p.is_file()}
    assert finish(one)["ran"] == 0
    assert before == {p: p.stat().st_mtime_ns for p in one.results.glob("cells/**/*") if p.is_file()}


def test_records_say_how_long_how_much_and_how(grid, finish):
    one = grid(steps=3)
    finish(one)
    (cell,) = one.cells("toy")
    train = json.loads(cell.train_record.read_text())
    result = json.loads(next(cell.folder.glob("eval/*/result.json")).read_text())
    assert set(train["seconds"]) == {"prepare", "train"}
    assert set(train["memory_mb"]) == {"prepare", "train"}
    assert train["peak_memory_mb"] == max(train["memory_mb"].values()) > 50
    assert train["samples_seen"] == 3 * 4
    assert set(result["seconds"]) == {"predict", "evaluate"}
    assert set(result["memory_mb"]) >= {"predict", "evaluate"}
    attempt = cell.last_attempt()
    assert attempt["outcome"] == "ok"
    assert attempt["code_signature"]
    assert str(one.results) not in json.dumps([train, result])


def test_overwriting_sets_the_old_results_aside(grid, finish):
    one = grid(steps=3)
    finish(one)
    old = one.numbers()
    assert finish(grid(steps=3, settings={"overwrite": "never"}))["ran"] == 0
    assert finish(grid(steps=3, settings={"overwrite": "outdated"}))["ran"] == 0
    again = finish(grid(steps=3, settings={"overwrite": "all"}))
    assert again["ran"] == 2
    assert one.numbers() == old  # the same code and seeds
    (cell,) = one.cells("toy")
    (aside,) = (cell.folder / "superseded").iterdir()
    assert {p.name for p in aside.iterdir()} >= {"eval", "train.json", "predictions", "weights.safetensors"}
    record = json.loads(cell.train_record.read_text())
    record["code"]["revision"] = "another"
    cell.train_record.write_text(json.dumps(record))
    assert finish(grid(steps=3, settings={"overwrite": "outdated"}))["ran"] == 1


def test_a_damaged_result_is_made_again_from_the_predictions(grid, finish):
    one = grid(steps=3)
    finish(one)
    numbers = one.numbers()
    for damage in ("cut", "text", "gone"):
        (cell,) = one.cells("toy")
        weights = cell.weights.stat().st_mtime_ns
        folder = next(cell.folder.glob("eval/*"))
        if damage == "cut":
            (folder / "metrics.csv").write_bytes((folder / "metrics.csv").read_bytes()[:-9])
        elif damage == "text":
            (folder / "result.json").write_text('{"schema": ')
        else:
            shutil.rmtree(folder)
        assert cell.state() == "trained"
        assert finish(one)["ran"] == 1
        assert one.numbers() == numbers
        assert cell.weights.stat().st_mtime_ns == weights


def test_two_jobs_run_side_by_side(grid, finish):
    one = grid(seeds=(0, 1, 2), settings={"jobs": 3}, options={"pause": 0.05}, steps=10)
    assert finish(one)["exit_code"] == 0
    times = []
    for cell in one.cells("toy"):
        claim = json.loads((cell.folder / "attempts" / "1" / "progress.json").read_text())
        times.append((claim["started"], claim["time"]))
    assert max(start for start, _ in times) < min(end for _, end in times)


def test_moving_the_results_keeps_every_cell(grid, finish, tmp_path):
    one = grid(steps=3)
    finish(one)
    shutil.move(one.results, tmp_path / "moved")
    assert finish(grid("moved", steps=3))["ran"] == 0


def test_cancel_stops_a_coordinator_and_keeps_the_state(grid, start, finish, toys):
    from multirater.benchmark.cancelling import cancel

    one = grid(steps=400, options={"pause": 0.02})
    process = start(one)
    deadline = time.monotonic() + 120
    while not list(one.results.glob("cells/toy/*/*/state/running.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = cancel(one.results)
    assert len(done.processes) == 1
    process.join(60)
    report = json.loads(one.results.with_suffix(".json").read_text())
    assert report["exit_code"] == 1
    (cell,) = one.cells("toy")
    assert cell.last_attempt()["outcome"] == "interrupted"
    assert cell.claim() is None
    assert cell.last_attempt()["progress"][2] > 0


def test_a_cell_that_another_process_runs_is_waited_for(grid, start, finish):
    one = grid(steps=60, options={"pause": 0.02})
    first = start(one)
    second = start(grid(steps=60, options={"pause": 0.02}), log=one.results.with_suffix(".second"))
    first.join(120)
    second.join(120)
    reports = [json.loads(one.results.with_suffix(end).read_text()) for end in (".json", ".second")]
    assert [r["exit_code"] for r in reports] == [0, 0]
    assert all(len(cell.attempts()) == 1 for cell in one.cells())


@pytest.mark.parametrize("victim", ["claim", "attempt"])
def test_clean_removes_what_is_of_no_use_and_nothing_else(grid, finish, toys, victim):
    import os

    from multirater.benchmark.cleaning import find_waste

    one = grid(steps=3)
    finish(one)
    (cell,) = one.cells("toy")
    name = ".claim.abc.tmp" if victim == "claim" else "attempts/1/.attempt.json.abc.tmp"
    orphan = cell.folder / name
    orphan.write_text("{}")
    os.utime(orphan, (1, 1))
    (cell.folder / "state").mkdir()
    before = one.numbers()
    waste = find_waste(one.results)
    assert waste.paths["temporary files"] == [orphan]
    assert waste.paths["states of finished cells"] == [cell.folder / "state"]
    waste.remove()
    assert not orphan.exists()
    assert one.numbers() == before
    assert finish(one)["ran"] == 0
