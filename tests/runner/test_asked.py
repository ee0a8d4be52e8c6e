"""What a command asks for is what its workers make, whatever others ask for meanwhile; keys follow from options."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from multirater.benchmark.cell import Cell
from multirater.benchmark.commands import retry
from multirater.benchmark.executors import EXECUTORS, Ending, Executor, arguments
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.planning import plan
from multirater.benchmark.report import finish
from multirater.benchmark.runner import Settings, execute
from multirater.benchmark.worker import main, run_cell

REQUEST = ("methods", "dataset", "preset")


class Inline(Executor):
    """Runs each worker in this process."""

    told = True

    def submit(self, cells, resources):
        return [main([str(c.folder), "cpu", "1"] if not self.told else arguments(c, resources)) for c in cells]

    def alive(self, handle):
        return False

    def ended(self, handle):
        return Ending(code=handle)

    def cancel(self, handles, kill=False):
        raise AssertionError("nothing runs")


class Untold(Inline):
    """An engine that starts workers by their folder alone."""

    told = False


@pytest.fixture
def planned(toys, grid):
    """Plans one training of the toy; ``samples`` of its evaluation."""
    one = grid(steps=2)

    def make(samples=2):
        asked = one.arguments
        overrides = {**asked["overrides"], "eval": {"n_samples": samples, "max_cases": 3}}
        monitor = Monitor(quiet=True)
        request = [asked[key] for key in REQUEST]
        return plan(*request, (0,), (0,), overrides, Path(asked["results"]), monitor)

    return make


def ran(made, engine=None):
    return execute(made, Monitor(quiet=True), engine or Inline(), Settings(threads=1, device="cpu", jobs=1))


def test_a_command_makes_the_evaluation_that_it_asked_for(planned, capsys):
    first, second = planned(4), planned(2)  # of one training; spec.json names the second
    mine, others = first.cells[-1], second.cells[-1]
    assert mine == others
    assert mine.eval_key != others.eval_key
    report = ran(first)
    assert report.exit_code == 0
    assert max(output["n_samples"] for output in mine.result(mine.eval_key)["outputs"].values()) == 4
    assert mine.result(others.eval_key) is None
    assert (mine.state(), others.state()) == ("done", "trained")
    finish(report, figures=False)
    printed = capsys.readouterr()
    assert "another command asked for another evaluation (eval.*) of 1 of these cells meanwhile" in printed.err
    assert "toy" in printed.out
    assert ran(second).exit_code == 0
    assert others.result(others.eval_key) is not None
    again = planned(4)  # a remembered plan or a new one: what it asks for is there
    assert [state for _, state in again.states()] == ["done", "done"]
    finish(ran(again), figures=False)
    assert "another command" not in capsys.readouterr().err


def test_a_command_is_not_done_with_an_evaluation_that_it_did_not_ask_for(planned):
    first, _ = planned(4), planned(2)
    report = ran(first, Untold())
    assert report.exit_code == 1
    assert [message for _, message in report.failed] == [
        "error: its worker ended well but did not make the evaluation that was asked for"
    ]


def test_a_specification_that_was_edited_is_not_run_under_its_old_key(planned, monkeypatch):
    cell = planned().cells[-1]
    path = cell.folder / "spec.json"
    kept = path.read_bytes()
    spec = json.loads(kept)
    spec["train"]["stages"][0]["steps"] = 1
    path.write_text(json.dumps(spec))
    assert run_cell(cell.folder) == "refused"
    assert "spec.json was changed after it was planned: its train_key does not" in cell.last_attempt()["message"]
    assert not cell.train_record.exists()
    monkeypatch.setattr(EXECUTORS, "get", lambda name: Inline)
    words = ["--results", str(cell.folder.parents[3]), "--no-figures", "--device", "cpu"]
    assert CliRunner().invoke(retry.command, words, standalone_mode=False).return_value == 2
    planned()
    assert json.loads(path.read_bytes()) == json.loads(kept)  # `run` with its options restores it
    spec = json.loads(kept)
    spec["eval"]["n_samples"] = 3
    path.write_text(json.dumps(spec))
    assert run_cell(cell.folder) == "refused"
    assert "eval_key" in Cell(cell.folder).last_attempt()["message"]


def test_predictions_that_are_damaged_are_made_again_from_the_weights(planned):
    report = ran(planned())
    cell = report.cells[-1]
    weights = cell.weights.stat().st_mtime_ns
    file = cell.predictions("test")
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    more = ran(planned(1))
    assert more.exit_code == 0
    assert cell.weights.stat().st_mtime_ns == weights
    assert len(file.read_bytes()) <= len(whole)


def test_a_relative_root_holds_in_any_working_directory(toys, tmp_path, monkeypatch):
    import numpy as np
    from PIL import Image

    for i in range(40):
        folder = tmp_path / "mine" / f"c{i}"
        folder.mkdir(parents=True)
        for name in ("image", "rater_a", "rater_b"):
            drawn = np.zeros((16, 16), np.uint8)
            drawn[2 : 3 + i % 9, 3:9] = 255
            Image.fromarray(drawn).save(folder / f"{name}.png")
    (tmp_path / "mine" / "multirater.yaml").write_text(
        'image: "{case}/image.png"\nmask: "{case}/rater_{rater}.png"\npatient: case\n'
    )
    monkeypatch.chdir(tmp_path)
    train = {"steps": 1, "batch_size": 2, "validate_every": 0}

    def cell(root):
        overrides = {"dataset": {"root": root}, "train": train, "eval": {"n_samples": 1, "max_cases": 2}}
        made = plan(["toy"], "folder", "smoke", (0,), (0,), overrides, tmp_path / "results", Monitor(quiet=True))
        return made.cells[-1]

    relative, whole = cell("mine"), cell(str(tmp_path / "mine"))
    assert relative == whole
    cell("mine")
    assert relative.spec["dataset"]["options"]["root"] == str(tmp_path / "mine")
    os.chdir("/")
    assert run_cell(relative.folder, asked=relative.asked) == "ok"
