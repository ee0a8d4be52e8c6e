"""`evaluate` scores whatever it can, and names the rest."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from multirater.benchmark import claims
from multirater.benchmark.cell import Cell
from multirater.benchmark.commands import evaluate as command
from multirater.benchmark.monitor import Monitor
from multirater.benchmark.planning import plan
from multirater.benchmark.rescore import evaluate
from multirater.benchmark.worker import run_cell
from multirater.core.errors import UserError


@pytest.fixture
def cells(toys, grid) -> list[Cell]:
    """Three finished cells of the toy, in the order of their paths, with four samples a case."""
    one = grid(steps=2).arguments
    overrides = {**one["overrides"], "eval": {"n_samples": 4, "max_cases": 3}}
    made = plan(
        one["methods"], "synthetic", "smoke", (0,), (0, 1, 2), overrides, Path(one["results"]), Monitor(quiet=True)
    )
    for cell in made.cells:
        assert run_cell(cell.folder) == "ok"
    return [cell for cell in made.cells if "toy" in cell.path]


FEWER = {"eval": {"max_cases": 2}}


def results(cells):
    return cells[0].folder.parents[3]


def asked_last(cells):
    return [Cell(cell.folder).spec["eval"]["max_cases"] for cell in cells]


def test_a_cell_with_damaged_predictions_does_not_stop_the_others(cells):
    file = cells[0].predictions("test")
    file.write_bytes(file.read_bytes()[:-50])
    report = evaluate(results(cells), FEWER)
    assert report.exit_code == 1
    ((cell, message),) = report.failed
    assert cell == cells[0]
    assert f"{file} is damaged" in message
    assert "`multirater run`" in message
    assert asked_last(cells) == [3, 2, 2]
    assert [Cell(c.folder).state() for c in cells] == ["done"] * 3


def test_a_cell_without_predictions_is_named_where_they_are_needed(cells, capsys):
    cells[1].predictions("test").unlink()
    for path in (cells[2].predictions("test"), cells[2].weights):  # as a merged bundle leaves it
        path.unlink()
    report = evaluate(results(cells), {})
    assert report.exit_code == 0  # these evaluations are there
    report = evaluate(results(cells), FEWER)
    assert [(cell, message.partition(",")[0]) for cell, message in report.failed] == [
        (cells[1], "it is trained but stores no predictions")
    ]
    assert report.skipped == [("1 of the cells", "records alone, without predictions or weights: nothing to score")]
    assert asked_last(cells) == [2, 3, 3]


def test_a_specification_without_its_evaluation_does_not_stop_the_others(cells):
    path = cells[0].folder / "spec.json"
    spec = json.loads(path.read_text())
    path.write_text(json.dumps({**spec, "eval": None}))
    report = evaluate(results(cells), FEWER)
    ((cell, message),) = report.failed
    assert cell == cells[0]
    assert "was changed after it was planned" in message


@pytest.mark.parametrize("samples", [2, 8])
def test_another_number_of_samples_needs_other_predictions(cells, samples):
    """Fewer too: the stored mean maps are of all samples, and a number must follow from its key alone."""
    report = evaluate(results(cells), {"eval": {"n_samples": samples}})
    assert [cell for cell, _ in report.failed] == cells
    assert all("stores 4 samples of 3 cases and their mean maps" in message for _, message in report.failed)
    assert all(f"`multirater run --set eval.n_samples={samples}`" in message for _, message in report.failed)
    assert [Cell(c.folder).spec["eval"]["n_samples"] for c in cells] == [4] * 3


def test_scores_of_fewer_samples_do_not_depend_on_what_was_predicted_before(cells, grid):
    one = grid(steps=2).arguments

    def metrics(folder):
        overrides = {**one["overrides"], "eval": {"n_samples": 2, "max_cases": 3}}
        made = plan(one["methods"], "synthetic", "smoke", (0,), (0,), overrides, folder, Monitor(quiet=True))
        (cell,) = (cell for cell in made.cells if "toy" in cell.path)
        assert run_cell(cell.folder) == "ok"
        return (cell.eval_folder(cell.eval_key) / "metrics.csv").read_bytes()

    assert metrics(results(cells)) == metrics(results(cells).with_name("fresh"))


def test_a_cell_that_was_edited_or_is_being_run_is_named(cells):
    path = cells[0].folder / "spec.json"
    path.write_text(path.read_text().replace('"fold": 0', '"fold": 1'))
    claim = {**claims.owner(), "id": "x"}
    assert claims._create(cells[1].folder / "claim.json", claim)
    report = evaluate(results(cells), FEWER)
    assert [cell for cell, _ in report.failed] == cells[:2]
    assert "was changed after it was planned" in report.failed[0][1]
    assert "is being run by another process" in report.failed[1][1]


def test_a_full_disk_ends_it_in_one_sentence(cells, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(claims, "_create", full)
    words = ["--results", str(results(cells)), "--set", "eval.n_samples=2"]
    done = CliRunner().invoke(command.command, words, standalone_mode=False)
    assert done.exception is None
    assert done.return_value == 1
    assert done.stderr.count("No space left on device") == 1
    assert "3 cells were not tried" in done.stderr


def test_a_folder_that_is_none_is_refused_and_not_made(tmp_path):
    with pytest.raises(UserError, match="no results in"):
        evaluate(tmp_path / "typo", {})
    assert not (tmp_path / "typo").exists()
