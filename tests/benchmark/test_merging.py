"""Bundles into a folder that has something of the same cell, and bundles that hold what no evaluation writes."""

from __future__ import annotations

import hashlib
import json
import zipfile

import pytest
from bundle_support import HEAD, in_json, make, repacked, values_of
from click.testing import CliRunner
from multirater.benchmark.bundles import export
from multirater.benchmark.cell import Cell
from multirater.benchmark.collect import find_cells
from multirater.benchmark.commands import merge as merge_command
from multirater.benchmark.merging import merge


def files_of(cell: Cell) -> dict[str, bytes]:
    return {str(p.relative_to(cell.folder)): p.read_bytes() for p in cell.folder.rglob("*") if p.is_file()}


@pytest.fixture
def theirs(tmp_path):
    """A bundle of the cell with S = 4, trained on another machine, and its cell."""
    cell = make(tmp_path / "theirs", samples=4)
    train = json.loads((cell.folder / "train.json").read_text())
    train |= {"machine": {"cpu": "other"}, "seconds": {"train": 77.0}, "parameters": 5}
    (cell.folder / "train.json").write_text(json.dumps(train))
    (cell.folder / "history.csv").write_text("stage\n")
    export(tmp_path / "theirs", tmp_path / "a.zip")
    return tmp_path / "a.zip"


def test_another_evaluation_is_added_beside_and_everything_that_was_here_stays(tmp_path, theirs):
    cell = make(tmp_path / "mine")
    (cell.folder / "weights.safetensors").write_bytes(b"w")
    before = files_of(cell)
    done = CliRunner().invoke(merge_command.command, [str(theirs), "--results", str(tmp_path / "mine")])
    assert "1 cells added" in done.output
    note = next(line for line in done.output.splitlines() if line.startswith(f"note {cell.path}: "))
    assert "which tables go on to show (eval.n_samples=2)" in note
    assert "--set eval.n_samples=4 shows this one" in note
    after = files_of(cell)
    assert {name: after[name] for name in before} == before
    assert {name.partition("/")[0] for name in after.keys() - before.keys()} == {"eval"}
    (shown,) = find_cells(tmp_path / "mine")
    assert shown.train["seconds"] == {"train": 1.0}
    assert merge(tmp_path / "mine", [theirs]).same == [cell.path]
    # Once it is asked for, it comes with the training that it scored, also to those who get it from here.
    asked = make(tmp_path / "third", samples=4, done=False).spec
    Cell.plan(tmp_path / "mine", asked)
    (shown,) = find_cells(tmp_path / "mine")
    assert (shown.state, shown.train["seconds"]) == ("done", {"train": 77.0})
    export(tmp_path / "mine", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as pack:
        names = {name.rpartition("/")[2]: name for name in pack.namelist()}
        assert json.loads(pack.read(names["train.json"]))["machine"] == {"cpu": "other"}
        assert "history.csv" not in names
    assert files_of(cell)["train.json"] == before["train.json"]


def test_a_cell_that_is_only_planned_gets_all_of_a_bundle_and_stays_as_planned(tmp_path, theirs):
    cell = make(tmp_path / "mine", done=False)
    merged = merge(tmp_path / "mine", [theirs])
    assert [path for path, _ in merged.notes] == merged.added == [cell.path]
    assert cell.spec["eval"]["n_samples"] == 2
    assert cell.training()["machine"] == {"cpu": "other"}
    assert "origin" in cell.result(make(tmp_path / "third", samples=4, done=False).spec["eval_key"])


def test_merged_scores_keep_their_training_when_the_cell_is_trained_here_for_others(tmp_path, theirs):
    merge(tmp_path / "mine", [theirs])
    (found,) = find_cells(tmp_path / "mine")
    record = json.loads((found.folder / "train.json").read_text())
    (found.folder / "train.json").write_text(json.dumps({**record, "seconds": {"train": 1.0}}))
    (found,) = find_cells(tmp_path / "mine")
    assert found.train["seconds"] == {"train": 77.0}


def test_scores_of_another_training_never_stand_for_those_that_are_still_to_be_made(tmp_path, theirs):
    cell = make(tmp_path / "mine", samples=4, done=False)
    (cell.folder / "predictions").mkdir()
    (cell.folder / "predictions" / "test.safetensors").write_bytes(b"p")
    before = files_of(cell)
    ((_, words),) = merge(tmp_path / "mine", [theirs]).refused
    assert "it was trained here and has no scores yet" in words
    assert files_of(cell) == before


def test_damaged_scores_are_mended_by_the_bundle_that_they_came_from(tmp_path, theirs):
    merge(tmp_path / "mine", [theirs])
    (cell,) = (Cell(found.folder) for found in find_cells(tmp_path / "mine"))
    values = values_of(cell)
    for damaged in ("metrics.csv", "result.json"):
        (cell.eval_folder(cell.spec["eval_key"]) / damaged).write_text("{")
        assert merge(tmp_path / "mine", [theirs]).added == [cell.path]
        assert values_of(cell) == values


def test_a_damaged_cell_of_this_folder_is_named_and_the_others_are_merged(tmp_path, theirs):
    damaged = make(tmp_path / "mine", samples=2)
    (damaged.folder / "train.json").write_text("{")
    make(tmp_path / "theirs", method="other", samples=4)
    export(tmp_path / "theirs", theirs)
    for name, words in (("train.json", "`multirater retry`"), ("spec.json", "restore it or delete its folder")):
        (damaged.folder / name).write_text("{")
        merged = merge(tmp_path / "mine", [theirs])
        ((path, why),) = merged.refused
        assert (path, words in why) == (damaged.path, True)
        assert [path.partition("/")[0] for path in merged.added + merged.same] == ["other"]


def edited(change):
    """Changes ``metrics.csv`` and the checksum that its record names."""
    text = HEAD + "h0,h1,mean,,1,ged,canonical,full,2,0.25,\n"
    data = change(text)
    data = data if isinstance(data, bytes) else data.encode()
    digest = in_json("result.json", metrics_sha256=hashlib.sha256(data).hexdigest())
    return lambda name, old: data if name.endswith("metrics.csv") else digest(name, old)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_json("spec.json", eval={"n_samples": 50, "max_cases": None}), "its evaluation key does not follow"),
        (in_json("result.json", metrics={"ged": 7}), "its evaluation key does not follow"),
        (in_json("spec.json", schema={"name": "cell", "version": 0}), "is not a 'cell' record"),
        (lambda n, d: d.replace(b"9.0", b"NaN") if n.endswith("result.json") else d, "NaN is no JSON number"),
        (lambda n, d: b"[" * 10**5 if n.endswith("train.json") else d, "its train.json is not valid JSON"),
        (edited(lambda t: ""), "has the columns"),
        (edited(lambda t: HEAD), "holds no values"),
        (edited(lambda t: t.replace("metric,", "metrik,")), "output,rater,label,metrik"),
        (edited(lambda t: t.replace("value,", "value,value,")), "has the columns"),
        (edited(lambda t: t + t.removeprefix(HEAD)), "line 3 of its metrics.csv gives a value that was given before"),
        (edited(lambda t: t.replace("0.25", "abc")), "line 2 of its metrics.csv has 'abc' for a number"),
        (edited(lambda t: t.replace("0.25", "1e999")), "'1e999' for a number"),
        (edited(lambda t: t.replace("0.25", "1_0")), "'1_0' for a number"),
        (edited(lambda t: t.replace(",2,", ",two,")), "'two' for a number"),
        (edited(lambda t: t + "h2\n"), "line 3 of its metrics.csv has 1 fields, not 11"),
        (edited(lambda t: t.encode().replace(b"mean", b"m\xff")), "is no CSV text in UTF-8"),
        (edited(lambda t: t + '"h2'), "is no CSV text in UTF-8"),
    ],
)  # fmt: skip
def test_what_no_evaluation_writes_is_refused_in_a_sentence_and_the_rest_is_merged(tmp_path, change, words):
    make(tmp_path / "theirs")
    export(tmp_path / "theirs", tmp_path / "a.zip")
    repacked(tmp_path / "a.zip", tmp_path / "b.zip", change)
    make(tmp_path / "good", method="other")
    export(tmp_path / "good", tmp_path / "c.zip")
    merged = merge(tmp_path / "mine", [tmp_path / "b.zip", tmp_path / "c.zip"])
    assert [path.partition("/")[0] for path in merged.added] == ["other"]
    ((path, why),) = merged.refused
    assert path.startswith("net/")
    assert words in why
    assert not list((tmp_path / "mine" / "cells").glob("net/*/*"))


def test_an_evaluation_names_the_metrics_of_which_its_key_is_made(tmp_path):
    """So that results of other metrics can be told from edited ones; earlier records name none, and that is said."""
    from multirater.benchmark.cell import eval_key

    cell = make(tmp_path / "theirs")
    spec = cell.spec
    old = cell.eval_folder(spec["eval_key"])
    record = json.loads((old / "result.json").read_text())
    del record["metrics"]
    spec["eval_key"] = record["eval_key"] = eval_key(spec, {"ged": 9})
    Cell.plan(tmp_path / "theirs", spec)
    old.rename(cell.eval_folder(spec["eval_key"]))
    for metrics, notes in (({}, 1), ({"metrics": {"ged": 9}}, 0)):  # records of earlier versions name none
        (cell.eval_folder(spec["eval_key"]) / "result.json").write_text(json.dumps({**record, **metrics}))
        export(tmp_path / "theirs", tmp_path / "a.zip")
        merged = merge(tmp_path / f"mine {notes}", [tmp_path / "a.zip"])
        assert (merged.added, merged.refused) == ([cell.path], [])
        assert ["which its record does not name" in words for _, words in merged.notes] == [True] * notes
