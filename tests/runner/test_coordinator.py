"""What the coordinator makes of endings that leave no record, with an engine that plays them."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest
from multirater.benchmark import claims, policy, runner
from multirater.benchmark.attempts import BUSY, EXIT, Outcome
from multirater.benchmark.cell import Cell, open_results
from multirater.benchmark.executors import Ending, Executor, Resources
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.runner import Coordinator, Report, Settings
from multirater.benchmark.worker import run_cell
from multirater.core.errors import UserError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Played(Executor):
    """Each cell ends as the first of its endings that is left; the last one is repeated."""

    name = "played"

    def __init__(self, endings: dict[str, list[Ending]], jobs: int) -> None:
        self.endings, self.jobs = endings, jobs
        self.started: list[str] = []

    def capacity(self, resources):
        return self.jobs

    def submit(self, cells, resources):
        self.started += [cell.folder.name for cell in cells]
        return [cell.folder.name for cell in cells]

    def alive(self, handle):
        return False

    def ended(self, handle):
        left = self.endings[handle]
        return left.pop(0) if len(left) > 1 else left[0]

    def cancel(self, handles, kill=False):
        raise AssertionError("nothing runs")


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    """Three planned cells that nobody has tried."""
    results = open_results(tmp_path / "results", create=True)
    spec = {
        "schema": {"name": "cell", "version": 1}, "method": {"name": "m"}, "dataset": {"name": "d"}, "seed": 0,
        "preset": "smoke", "eval_key": "e" * 64, "train_key": "t" * 64,
    }  # fmt: skip
    return [Cell.plan(results, {**spec, "fold": fold}) for fold in range(3)]


def coordinate(cells: list[Cell], *endings: Ending | list[Ending], jobs: int = 1, **settings) -> tuple[Report, Played]:
    played = {c.folder.name: e if isinstance(e, list) else [e] for c, e in zip(cells, endings, strict=True)}
    engine = Played(played, jobs)
    results = cells[0].folder.parents[3]
    report = Report(results, cells)
    resources = Resources(results, jobs=jobs)
    Coordinator(report, Monitor(quiet=True), engine, Settings(**settings), resources, cells, len(cells)).run()
    return report, engine


def test_a_cell_whose_heartbeat_cannot_be_written_lives_by_its_claim(cells):
    """On a full disk the file of the heartbeat stays old; the claim is touched all the same."""
    (cell, *_), ended = cells, []
    engine = Played({}, 1)
    engine.cancel = lambda handles, kill=False: ended.append((handles, kill))
    report = Report(cell.folder.parents[3], cells)
    coordinator = Coordinator(
        report, Monitor(quiet=True), engine, Settings(stall=60), Resources(report.results), cells, len(cells)
    )
    coordinator.started -= 1000
    assert cell.take()
    attempt = cell.folder / "attempts" / "1"
    attempt.mkdir(parents=True)
    (attempt / "progress.json").write_text(json.dumps({"time": time.time() - 900, "phase": "predict test"}))
    coordinator._check_stall(cell, "handle", 0)
    assert ended == []
    os.utime(cell.folder / "claim.json", (time.time() - 100,) * 2)
    coordinator._check_stall(cell, "handle", 0)
    assert ended == [(["handle"], True)]
    assert cell.last_attempt()["message"].startswith("no sign of life for 100 s in phase 'predict test'")


def test_a_disk_that_is_full_before_an_attempt_starts_no_new_cells(cells, monkeypatch):
    monkeypatch.setattr(policy, "disk_is_full", lambda results: True)
    ending = Ending(code=EXIT[Outcome.DISK_FULL], words=f"OSError: {FULL}")
    report, engine = coordinate(cells, ending, ending, ending)
    assert report.failed == [(cells[0], f"disk_full: OSError: {FULL}")]
    assert report.left == cells[1:]
    assert engine.started == [cells[0].folder.name]
    assert report.exit_code == 1


def test_a_full_disk_is_seen_behind_any_failure(cells, monkeypatch):
    monkeypatch.setattr(policy, "disk_is_full", lambda results: True)
    report, engine = coordinate(cells, *[Ending(signal=signal.SIGKILL)] * 3)  # it would be tried again
    assert [cell for cell, _ in report.failed] == cells[:1]
    assert report.left == cells[1:]
    assert len(engine.started) == 1


def test_nothing_is_started_again_after_the_first_failure_of_a_run_that_fails_fast(cells):
    """The second cell was held by somebody who let go of it, the third was killed: both would be tried again."""
    endings = [Ending(code=1, words="ValueError: no"), Ending(code=BUSY), Ending(signal=signal.SIGKILL)]
    report, engine = coordinate(cells, *endings, jobs=3, fail_fast=True)
    assert sorted(engine.started) == [cell.folder.name for cell in cells]
    assert [cell for cell, _ in report.failed] == [cells[0], cells[2]]
    assert report.left == cells[1:2]


def test_a_cell_whose_claim_cannot_be_written_ends_as_a_full_disk(cells, monkeypatch, capfd):
    def full(*arguments):
        raise FULL

    monkeypatch.setattr(claims, "_create", full)
    assert run_cell(cells[0].folder) == "disk_full"
    assert str(FULL) in capfd.readouterr().err


def test_a_cell_whose_attempt_cannot_be_written_ends_as_a_full_disk(cells, monkeypatch, capfd):
    make = Path.mkdir

    def full(path, *arguments, **named):
        if "attempts" in path.parts:
            raise FULL
        make(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", full)
    assert run_cell(cells[0].folder) == "disk_full"
    assert str(FULL) in capfd.readouterr().err
    assert cells[0].claim() is None


def test_a_cell_that_two_coordinators_take_from_each_other_is_given_up(cells, monkeypatch):
    """Each believes that the other's process is dead: such losses count like those of one's own processes."""
    cell = cells[0]
    engine = Played({cell.folder.name: [Ending(code=BUSY)]}, 1)
    claim = cell.folder / "claim.json"

    def submit(batch, resources):
        claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 1.0, "id": "x"}))
        engine.started.append(cell.folder.name)
        assert len(engine.started) < 9
        return [cell.folder.name]

    engine.submit = submit
    monkeypatch.setattr(runner, "LOOK", 0.0)
    monkeypatch.setattr(Monitor, "waiting", lambda *arguments: os.utime(claim, (1, 1)))
    report = Report(cell.folder.parents[3], [cell])
    Coordinator(report, Monitor(quiet=True), engine, Settings(), Resources(report.results), [cell], 1).run()
    assert report.failed == [(cell, "lost: the process that held it ended without a record (killed?)")]
    assert len(engine.started) <= 4


def test_cancel_stops_who_began_before_it_whatever_the_clocks_say(cells):
    mark = cells[0].folder.parents[3] / runner.CANCEL
    mark.touch()
    os.utime(mark, (time.time() + 9000,) * 2)  # of a file server whose clock is ahead
    ending = Ending(code=1, words="ValueError: no")
    report, _ = coordinate(cells, ending, ending, ending)
    assert (report.stopped, len(report.failed)) == ("", 3)
    engine = Played({cells[0].folder.name: [ending]}, 1)
    engine.alive = lambda handle: not mark.touch() and handle not in engine.told
    engine.told = []
    engine.cancel = lambda handles, kill=False: engine.told.extend(handles)
    report = Report(mark.parent, cells[:1])
    Coordinator(report, Monitor(quiet=True), engine, Settings(), Resources(mark.parent), cells[:1], 1).run()
    assert report.stopped == "stopped by multirater cancel"


@pytest.mark.parametrize(
    ("executor", "given", "words"),
    [
        ("local", {"memory_gb": 0.1, "options": {"partition": "gpu"}}, "'local' has no use for --memory, --slurm;"),
        ("local", {"minutes": 5}, "'local' has no use for --time;"),
        ("slurm", {"output": Path("x.txt")}, "'slurm' has no use for --output;"),
        ("script", {"gpus": ("0",)}, "'script' has no use for --gpus;"),
        ("local", {"gpus": ("0", "1")}, "torch sees no CUDA device"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(executor, given, words, monkeypatch):
    monkeypatch.setattr(runner, "pick_device", lambda device: "cpu")
    with pytest.raises(UserError, match=words):
        Settings(executor, **given).engine()
    assert Settings(executor).engine().name == executor
