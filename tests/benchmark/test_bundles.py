"""Bundles: what is shared, what is checked, what is reported; and the schemas of the records in them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from bundle_support import HEAD, in_json, make, repacked, values_of
from multirater.benchmark import merging
from multirater.benchmark.bundles import export, hashed
from multirater.benchmark.cell import SCHEMA, Cell, checked, read_metrics
from multirater.benchmark.merging import merge
from multirater.benchmark.records import MODELS, schema_path, schema_text, validate
from multirater.benchmark.verifying import compare, find_cell
from multirater.core.errors import UserError

RECORDS = Path(__file__).parent / "records"


def test_a_bundle_holds_records_and_hashed_ids_and_nothing_private(tmp_path):
    cell = make(tmp_path / "mine")
    make(tmp_path / "mine", seed=1, done=False)
    assert len(export(tmp_path / "mine", tmp_path / "a.zip")) == 1
    with zipfile.ZipFile(tmp_path / "a.zip") as pack:
        content = {name: pack.read(name).decode() for name in pack.namelist()}
    everything = "".join(content.values())
    for private in ("/home/me", "slurm_job", "c0,", "p1,"):
        assert private not in everything
    assert hashed("f" * 16, "c0") in everything
    assert sorted(name.rpartition("/")[2] for name in content) == [
        "bundle.json", "metrics.csv", "result.json", "spec.json", "train.json",
    ]  # fmt: skip
    assert "c0,p0" in values_of(cell)  # the folder itself keeps them
    first = (tmp_path / "a.zip").read_bytes()
    export(tmp_path / "mine", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == first


def test_predictions_are_shared_only_with_ids(tmp_path):
    cell = make(tmp_path / "mine")
    (cell.folder / "predictions").mkdir()
    (cell.folder / "predictions" / "test.safetensors").write_bytes(b"12345678")
    with pytest.raises(UserError, match="give --with-ids as well"):
        export(tmp_path / "mine", tmp_path / "a.zip", with_images=True)
    export(tmp_path / "mine", tmp_path / "a.zip", with_ids=True, with_images=True)
    merge(tmp_path / "theirs", [tmp_path / "a.zip"])
    there = Cell(tmp_path / "theirs" / cell.folder.relative_to(tmp_path / "mine"))
    assert (there.folder / "predictions" / "test.safetensors").read_bytes() == b"12345678"
    assert values_of(there) == values_of(cell)


def test_merging_into_an_empty_folder_and_again(tmp_path):
    cell = make(tmp_path / "mine")
    export(tmp_path / "mine", tmp_path / "a.zip")
    merged = merge(tmp_path / "theirs", [tmp_path / "a.zip"])
    assert merged.added == ["/".join(cell.folder.parts[-3:])]
    there = Cell(tmp_path / "theirs" / cell.folder.relative_to(tmp_path / "mine"))
    assert there.state() == "done"
    record = there.result(there.spec["eval_key"])
    assert record["origin"]["bundle"] == "a.zip"
    assert record["origin"]["ids"] == "hashed"
    again = merge(tmp_path / "theirs", [tmp_path / "a.zip"])
    assert (again.added, again.same) == ([], merged.added)
    # The one who has the data reads his own ids, so that tables can pair the cases.
    make(tmp_path / "third", method="other")
    merge(tmp_path / "third", [tmp_path / "a.zip"])
    assert "c0,p0" in values_of(Cell(tmp_path / "third" / cell.folder.relative_to(tmp_path / "mine")))


def test_other_numbers_of_the_same_key_are_a_conflict_and_what_was_here_stays(tmp_path):
    make(tmp_path / "theirs", values=(0.25, 0.75))
    export(tmp_path / "theirs", tmp_path / "a.zip")
    cell = make(tmp_path / "mine")
    before = values_of(cell)
    merged = merge(tmp_path / "mine", [tmp_path / "a.zip"])
    ((_, words),) = merged.conflicts
    assert words == "1 of 2 values differ, most of all ged of mean: 0.5 here, 0.75 in the bundle"
    assert values_of(cell) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "e" * 16}, "has|have the fingerprint eeee"),
        ({"split_hash": "s1"}, "its split of 'toy', fold 0, is another"),
    ],
)
def test_other_data_or_splits_are_refused_and_the_rest_is_merged(tmp_path, change, reason):
    make(tmp_path / "theirs", **change)
    make(tmp_path / "theirs", method="far", options={"root": "/x", "size": 128}, fingerprint="d" * 16)
    export(tmp_path / "theirs", tmp_path / "a.zip")
    make(tmp_path / "mine", method="another")
    merged = merge(tmp_path / "mine", [tmp_path / "a.zip"])
    assert [path.split("/")[0] for path in merged.added] == ["far"]
    ((path, words),) = merged.refused
    assert path.startswith("net/")
    assert any(part in words for part in reason.split("|"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_json("spec.json", protocol=2), "its protocol is 2, that of this version 1"),
        (in_json("spec.json", seed=5), "its train key does not follow"),
        (in_json("result.json", n_cases="many"), "result.json is not a valid 'result' record: n_cases"),
        (in_json("result.json", schema={"name": "result", "version": 99}), "newer multirater"),
        (
            lambda n, d: d.replace(b"0.25", b"0.15") if n.endswith(".csv") else d,
            "not the one that its record describes",
        ),
        (lambda n, d: b"{" if n.endswith("train.json") else d, "its train.json is not valid JSON"),
    ],
)
def test_a_cell_that_contradicts_itself_is_refused(tmp_path, change, words):
    make(tmp_path / "theirs")
    export(tmp_path / "theirs", tmp_path / "a.zip")
    merged = merge(tmp_path / "mine", [repacked(tmp_path / "a.zip", tmp_path / "b.zip", change)])
    assert not merged.added
    assert words in merged.refused[0][1]
    assert not list((tmp_path / "mine").glob("cells/*/*/*"))


def test_a_damaged_or_hostile_bundle_is_refused_before_anything_is_written(tmp_path):
    make(tmp_path / "theirs")
    good = tmp_path / "a.zip"
    export(tmp_path / "theirs", good)
    (tmp_path / "cut.zip").write_bytes(good.read_bytes()[:-40])
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as pack:
        pack.writestr("readme", "x")
    repacked(good, tmp_path / "changed.zip", lambda n, d: d + b" " if n.endswith("spec.json") else d, mend=False)
    repacked(good, tmp_path / "newer.zip", in_json("bundle.json", schema={"name": "bundle", "version": 9}))
    with zipfile.ZipFile(good) as pack, zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        record = json.loads(pack.read("bundle.json"))
        record["files"] = {"../../evil.txt": hashlib.sha256(b"x").hexdigest()}
        evil.writestr("bundle.json", json.dumps(record))
        evil.writestr("../../evil.txt", "x")
    for name, words in {
        "missing": "does not exist", "cut": "damaged or no bundle", "text": "damaged or no bundle",
        "other": "has no bundle.json", "changed": "was changed after", "newer": "newer multirater",
        "evil": "which no bundle has",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words):
            merge(tmp_path / "mine", [good, tmp_path / f"{name}.zip"])
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("name", ["train", "result", "cell"])
def test_stored_samples_of_past_versions_are_upgraded_and_valid(name):
    for path in sorted(RECORDS.glob(f"{name}.v*.json")):
        before = path.read_bytes()
        old = json.loads(before)
        assert old["schema"]["version"] == int(path.stem.rpartition("v")[2])
        record = checked({**old, "unknown": 1}, name, path)
        assert record["schema"]["version"] == SCHEMA[name]
        assert record["unknown"] == 1
        assert {k: record[k] for k in old if k != "schema"} == {k: old[k] for k in old if k != "schema"}
        validate(record, name, path.name)
        assert path.read_bytes() == before
    versions = {int(p.stem.rpartition("v")[2]) for p in RECORDS.glob(f"{name}.v*.json")}
    assert versions >= set(range(1, SCHEMA[name])) | {1}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_json_schemas_are_those_of_the_models(name):
    assert schema_path(name).read_text() == schema_text(name), "run python -m multirater.benchmark.records"


def test_a_second_run_is_compared_value_by_value():
    one = HEAD + "c0,p0,mean,,1,ged,canonical,full,2,0.25,\nc1,p1,mean,,1,ged,canonical,full,2,0.5,\n"
    same = compare(one.encode(), one.encode(), [], 1e-6)
    assert (same.values, same.different, same.passed) == (2, 0, True)
    other = compare(one.encode(), one.replace("0.25", "0.35").encode(), [], 1e-6)
    assert other.different == 1
    assert other.worst[:2] == ("mean", "ged")
    assert not other.passed
    assert compare(one.encode(), one.replace("0.25", "0.35").encode(), [], 0.06).passed
    undefined = compare(one.encode(), one.replace("0.25,", ",empty").encode(), [], 1.0)
    assert undefined.undefined == 1
    assert not undefined.passed


def test_cells_are_found_by_folder_path_and_name(tmp_path):
    cell = make(tmp_path / "r")
    make(tmp_path / "r", method="other")
    path = "/".join(cell.folder.parts[-3:])
    assert find_cell(tmp_path / "r", path).folder == cell.folder
    assert find_cell(tmp_path / "r", str(cell.folder)).folder == cell.folder
    for name, words in (("nothing", "names no cell"), (cell.folder.name[:3], "names no cell")):
        with pytest.raises(UserError, match=words):
            find_cell(tmp_path / "r", name)


def test_ids_are_asked_of_one_cell_for_all_that_share_its_cases(tmp_path, monkeypatch):
    """Of those that a bundle left with pseudonyms none can tell."""
    theirs = make(tmp_path / "theirs", method="a")
    export(tmp_path / "theirs", tmp_path / "a.zip")
    mine = tmp_path / "mine"
    merge(mine, [tmp_path / "a.zip"])
    for seed in range(3):
        make(mine, method="b", seed=seed)
    make(tmp_path / "theirs", method="c")
    export(tmp_path / "theirs", tmp_path / "b.zip")
    read: list[str] = []
    monkeypatch.setattr(merging, "read_metrics", lambda folder: read.append(folder.parts[-5]) or read_metrics(folder))
    merged = merge(mine, [tmp_path / "b.zip"])
    assert merged.same == ["/".join(theirs.folder.parts[-3:])]
    (added,) = merged.added
    assert "c0,p0" in values_of(Cell(mine / "cells" / added))
    assert sorted(read) == ["a", "a", "b"]  # once to compare
