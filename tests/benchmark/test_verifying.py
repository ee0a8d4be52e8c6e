"""What `verify` says of the circumstances of two runs."""

from __future__ import annotations

from bundle_support import make
from multirater.benchmark import worker
from multirater.benchmark.bundles import export
from multirater.benchmark.cell import Cell, read_metrics
from multirater.benchmark.merging import merge
from multirater.benchmark.verifying import _reasons, verify


def test_a_run_on_another_device_is_named_without_that_device():
    then = {"code": {"torch": "2.1", "numpy": "2"}, "machine": {"cpu": "a", "device": "cuda", "gpu": "H100"}}
    now = {"code": {"torch": "2.2", "numpy": "2"}, "machine": {"cpu": "a", "device": "cpu"}}
    assert _reasons(then, now) == [
        "torch: 2.1 then, 2.2 now",
        "device: cuda then, cpu now",
        "gpu: H100 then, None now",
    ]
    assert _reasons(now, now) == []


def test_a_merged_cell_whose_cases_have_pseudonyms_is_verified(tmp_path, monkeypatch):
    theirs = make(tmp_path / "theirs")
    export(tmp_path / "theirs", tmp_path / "a.zip")
    merge(tmp_path / "mine", [tmp_path / "a.zip"])
    merged = Cell(tmp_path / "mine" / "cells" / theirs.path)
    values = {"again": (0.25, 0.5)}
    monkeypatch.setattr(worker, "run_cell", lambda folder, *_: make(folder.parents[3], values=values["again"]) and "ok")
    assert b"c0" not in read_metrics(merged.eval_folder(merged.spec["eval_key"]))
    found = verify(merged, "cpu")
    assert (found.values, found.different, found.passed) == (2, 0, True)
    values["again"] = (0.25, 0.75)
    assert (verify(merged, "cpu").different, verify(merged, "cpu").passed) == (1, False)
