"""A cell whose training record is damaged: tables name it, others stay, and there is a way on."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path

import pytest
from bundle_support import make
from click.testing import CliRunner
from multirater.benchmark.bundles import export
from multirater.benchmark.cell import Cell, State, open_results
from multirater.benchmark.collect import collect, find_cells
from multirater.benchmark.commands import export as export_command
from multirater.benchmark.commands import retry, status
from multirater.benchmark.executors import EXECUTORS, Executor
from multirater.benchmark.leaderboard import write_leaderboard
from multirater.benchmark.policy import Overwrite, choose
from multirater.benchmark.predictions import read_predictions
from multirater.benchmark.states import scan
from multirater.benchmark.training import load_weights
from multirater.benchmark.webreport import write_report
from multirater.core.errors import UserError

DAMAGES = ["", "{", "[]", '{"schema": {"name": "train", "version": 2}, "seconds": {"train": "long"}}', b"\xff\xfe"]


@pytest.fixture(params=DAMAGES)
def cells(request, tmp_path):
    """A finished cell and one whose record cannot be read."""
    whole, damaged = make(tmp_path, method="whole"), make(tmp_path, method="damaged")
    text = request.param if isinstance(request.param, bytes) else request.param.encode()
    (damaged.folder / "train.json").write_bytes(text)
    return whole, damaged


def invoke(command, *arguments):
    done = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    assert done.exception is None, done.exception
    return done


def test_it_is_named_everywhere_and_costs_the_others_nothing(tmp_path, cells):
    whole, damaged = cells
    assert damaged.state() is State.DAMAGED
    states = {one.path: (one.state, one.why) for one in scan(tmp_path)}
    assert states[whole.path] == ("done", "")
    assert states[damaged.path][0] == "damaged"
    values, missing = collect(tmp_path)
    assert set(values["cell"]) == {whole.path}
    assert (missing["state"].item(), missing["cell"].item()) == ("damaged", damaged.path)
    done = invoke(export_command.command, tmp_path / "a.zip", "--results", tmp_path)
    assert "1 cells in" in done.output
    shown = invoke(status.command, "--results", tmp_path, "--why").output
    for words in (states[damaged.path][1], missing["why"].item(), done.output, shown):
        assert f"train.json of {damaged.path} is damaged (" in words
        assert "train again with `multirater retry`" in words
    with zipfile.ZipFile(tmp_path / "a.zip") as pack:
        assert not [name for name in pack.namelist() if "damaged" in name]


def test_a_state_that_was_remembered_is_looked_at_again_once_the_record_has_changed(tmp_path):
    cells = [make(tmp_path, seed=seed) for seed in range(21)]
    assert {one.state for one in scan(tmp_path)} == {"done"}
    assert (tmp_path / "derived" / "states.json").is_file()
    record = cells[3].train_record.read_bytes()
    cells[3].train_record.write_bytes(record[:-5])
    assert [one.path for one in scan(tmp_path) if one.state == "damaged"] == [cells[3].path]
    cells[3].train_record.write_bytes(record)
    assert {one.state for one in scan(tmp_path)} == {"done"}


class Asked(Executor):
    """Takes the cells and starts nothing."""

    waits = False
    detaches = True
    asked: list[Cell] = []  # noqa: RUF012 - of the last call

    def submit(self, cells, resources):
        Asked.asked = list(cells)
        return list(cells)

    def alive(self, handle):
        return False

    def cancel(self, handles, kill=False):
        raise AssertionError("nothing runs")


def test_retry_trains_it_again_and_keeps_what_was_there(tmp_path, cells, monkeypatch):
    _, damaged = cells
    record = damaged.train_record.read_bytes()
    lost = make(tmp_path, method="lost")
    (lost.folder / "spec.json").write_text("{")
    monkeypatch.setattr(EXECUTORS, "get", lambda name: Asked)
    done = invoke(retry.command, "--results", tmp_path)
    assert [cell.path for cell in Asked.asked] == [damaged.path]
    assert f"{damaged.path}: train.json is damaged; trained again" in done.stderr
    assert f"left out {lost.path}: spec.json of" in done.stderr
    assert damaged.state() is State.PENDING
    (kept,) = damaged.folder.glob("superseded/*/train.json")
    assert kept.read_bytes() == record
    assert list(damaged.folder.glob("superseded/*/eval/*/metrics.csv"))


@pytest.mark.parametrize(("overwrite", "starts"), [(Overwrite.MISSING, 1), (Overwrite.FAILED, 1), (Overwrite.NEVER, 0)])
def test_run_does_the_same(tmp_path, overwrite, starts):
    cell = make(tmp_path)
    cell.train_record.write_text("{")
    choice = choose([(cell, "damaged")], overwrite, "code")
    assert (len(choice.start), len(choice.afresh), len(choice.left)) == (starts, starts, 1 - starts)


def test_a_record_of_a_newer_version_is_not_called_damaged(tmp_path):
    cell = make(tmp_path)
    cell.train_record.write_text(json.dumps({"schema": {"name": "train", "version": 99}}))
    for use in (cell.state, lambda: scan(tmp_path), lambda: find_cells(tmp_path)):
        with pytest.raises(UserError, match=r"newer multirater .*upgrade"):
            use()


def test_a_damaged_specification_is_a_table_of_its_own_and_no_end_of_the_others(tmp_path):
    whole, damaged = make(tmp_path, method="whole"), make(tmp_path, method="damaged", seed=3)
    (damaged.folder / "spec.json").write_text("{")
    assert {one.path: one.state for one in scan(tmp_path)} == {whole.path: "done", damaged.path: "damaged"}
    write_leaderboard(tmp_path, ["html", "tex"])
    text = (tmp_path / "derived" / "leaderboard.md").read_text()
    assert text.count("\n## ") == 2
    assert "spec.json is not valid JSON" in text
    assert f"{damaged.path} (damaged" in text
    (damaged.folder / "spec.json").write_text('{"schema": {"name": "cell", "version": 1}}')
    values, missing = collect(tmp_path)
    assert set(values["cell"]) == {whole.path}
    assert missing["why"].item() == f"spec.json of {damaged.path} lacks 'eval_key'"
    assert missing[["method", "fold", "seed"]].values.tolist() == [["damaged", 0, 3]]
    write_report(tmp_path)


def test_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "weights.safetensors"
    for content in (None, b"cut"):
        path.write_bytes(content) if content else None
        with pytest.raises(UserError, match=r"weights\.safetensors cannot be read \(.*restore it, or delete it"):
            load_weights(path, "cpu")
    with pytest.raises(UserError, match="absent cannot be read: no such file"):
        read_predictions(tmp_path / "absent")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(UserError, match="link to a folder that does not exist"):
        open_results(tmp_path / "link", create=True)


def test_a_damaged_result_is_a_row_without_scores_and_no_end_of_the_tables(tmp_path):
    whole, damaged = make(tmp_path, method="whole"), make(tmp_path, method="damaged")
    (damaged.eval_folder(damaged.spec["eval_key"]) / "result.json").write_text("{")
    assert damaged.result(damaged.spec["eval_key"]) is None
    assert {one.path: one.state for one in scan(tmp_path)} == {whole.path: "done", damaged.path: "pending"}
    values, missing = collect(tmp_path)
    assert set(values["cell"]) == {whole.path}
    assert missing["why"].item() == f"{damaged.path}: result.json cannot be read; run evaluate again"
    assert export(tmp_path, tmp_path / "a.zip") == [whole.path]


@pytest.mark.parametrize("overwrite", [Overwrite.MISSING, Overwrite.FAILED])
def test_a_record_that_cannot_be_read_just_now_costs_no_training(tmp_path, overwrite, monkeypatch):
    cell = make(tmp_path)
    read = Path.read_bytes

    def refuse(path):
        if path.name == "train.json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert cell.state() is State.DAMAGED
    choice = choose([(cell, cell.state())], overwrite, "code")
    assert choice.start == choice.afresh == []
    ((named, why),) = choice.failed
    assert named == cell
    assert "cannot be read (permission denied); make it readable" in why
    monkeypatch.undo()
    assert cell.state() is State.DONE
