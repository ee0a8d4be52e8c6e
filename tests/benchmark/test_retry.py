"""`retry` gives every cell what its own specification says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from multirater.benchmark.attempts import write_attempt
from multirater.benchmark.cell import Cell, open_results
from multirater.benchmark.commands import retry
from multirater.benchmark.executors import EXECUTORS, Executor
from multirater.benchmark.states import scan


class Asked(Executor):
    """Takes the cells and starts nothing."""

    waits = False
    detaches = True
    asked: dict[str, float] = {}  # noqa: RUF012 - of the last call

    def submit(self, cells, resources):
        Asked.asked = {cell.folder.name: resources.expected[cell] for cell in cells}
        return list(cells)

    def alive(self, handle):
        return False

    def cancel(self, handles, kill=False):
        raise AssertionError("nothing runs")


def plan(results, fold, preset):
    spec = {
        "schema": {"name": "cell", "version": 1}, "method": {"name": "m"}, "dataset": {"name": "d"}, "seed": 0,
        "preset": preset, "fold": fold, "eval_key": "e" * 64, "train_key": f"{fold}" * 64,
    }  # fmt: skip
    return Cell.plan(results, spec)


@pytest.fixture
def results(tmp_path):
    """A finished cell of 60 s in `smoke` and one of 600 s in `quick`, and one that failed in each."""
    results = open_results(tmp_path / "results", create=True)
    for fold, preset, seconds in ((0, "smoke", 60.0), (1, "quick", 600.0)):
        cell = plan(results, fold, preset)
        folder = cell.eval_folder("e" * 64)
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("")
        empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing
        record = {"schema": {"name": "result", "version": 2}, "eval_key": "e" * 64, "metrics_sha256": empty}
        (folder / "result.json").write_text(json.dumps({**record, "seconds": {"evaluate": seconds}}))
        failed = plan(results, fold + 2, preset)
        attempt = failed.folder / "attempts" / "1"
        attempt.mkdir(parents=True)
        write_attempt(attempt, "error", "no")
    assert sorted(one.state for one in scan(results)) == ["done", "done", "failed", "failed"]
    return results


def test_every_cell_is_expected_to_take_what_its_own_preset_takes(results, monkeypatch):
    monkeypatch.setattr(EXECUTORS, "get", lambda name: Asked)
    done = CliRunner().invoke(retry.command, ["--results", str(results)], standalone_mode=False)
    assert done.exception is None, done.exception
    assert Asked.asked == {"f2-s0-22222222": 60.0, "f3-s0-33333333": 600.0}


def test_retry_does_not_take_an_option_that_it_would_ignore(results):
    done = CliRunner().invoke(retry.command, ["--results", str(results), "--overwrite", "never"])
    assert done.exit_code == 2
    assert "--overwrite" in done.output


def test_retry_names_a_method_that_does_not_exist(results):
    def words(*arguments):
        done = CliRunner().invoke(retry.command, ["--results", str(results), *arguments], standalone_mode=False)
        return str(done.exception)

    assert words("-m", "dpersonna").startswith("unknown method 'dpersonna'")
    assert words("-m", "unet_soft").endswith("no cell of unet_soft is unfinished")
