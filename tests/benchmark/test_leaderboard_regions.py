"""Regions, classes and mean maps in tables: box and full side by side, means over classes, fair bold numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.collect import find_cells
from multirater.benchmark.columns import CALIBRATION_COLUMNS
from multirater.benchmark.groups import make_groups
from multirater.benchmark.layout import track_table
from multirater.benchmark.leaderboard import leaderboard_frame, render, sheets_of
from multirater.benchmark.sheet import Sheet
from multirater.core.files import read_json, write_json, write_text
from multirater.core.hashing import file_digest

Make = Callable[..., Any]
N = 12


def rewrite(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the case values of a cell, and its record with them."""
    (place,) = (folder / "eval").iterdir()
    frame = pd.read_csv(place / "metrics.csv", dtype=str, keep_default_na=False)
    write_text(place / "metrics.csv", change(frame).to_csv(index=False))
    write_json(
        place / "result.json",
        {**read_json(place / "result.json"), "metrics_sha256": file_digest(place / "metrics.csv")},
    )


def with_regions(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics named ``x.box`` and ``x.full`` as evaluations write them."""
    parts = frame.metric.str.extract(r"^(.*?)(?:\.(box|full))?$")
    return frame.assign(metric=parts[0], region=parts[1].fillna("full"))


def regions(f: Any, method: str, box: float, full: float, output: str = "consensus", n_samples: int = 1) -> Path:
    values = {output: {"ged": [0.3] * N, "ece.box": [box] * N, "ece.full": [full] * N, "brier.box": [box / 2] * N}}
    folder = f.cell(method, values, n_samples=n_samples)
    rewrite(folder, with_regions)
    return folder


def test_both_regions_are_in_every_table(fabricate: Make) -> None:
    f = fabricate()
    regions(f, "net", 0.05, 0.01)
    sheets = sheets_of(f.results)
    frame = leaderboard_frame(sheets)
    ece = frame[frame.metric == "ece"].set_index("variant")
    assert ece.value.to_dict() == pytest.approx({"canonical": 0.05, "full": 0.01})
    assert set(ece.track) == {"mean"}
    line = sheets[0].lines[0]
    for metric, value in {"ece": 0.05, "ece.full": 0.01, "brier": 0.025}.items():
        score = sheets[0].score(line, metric)
        assert score is not None
        assert score.value == pytest.approx(value)
    text = render(sheets, "md")
    part = text[text.index("### Track calibrated mean") :]
    head = next(row for row in part.splitlines() if row.startswith("| method"))
    assert [c.strip() for c in head.split("|")[6:-1]] == ["Brier ↓", "ECE ↓", "ECE full ↓"]
    assert "| net" in part


def test_results_without_calibration_have_no_empty_table(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"consensus": {"ged": [0.3] * N, "dice_soft": [0.5] * N}})
    assert "Brier" not in render(sheets_of(f.results), "md")
    assert "Borders" not in render(sheets_of(f.results), "md")


def test_a_deterministic_map_rivals_the_mean_of_samples(fabricate: Make) -> None:
    f = fabricate()
    regions(f, "plain", 0.02, 0.01)
    regions(f, "sampler", 0.04, 0.02, output="diverse", n_samples=50)
    sheet = Sheet(make_groups(find_cells(f.results))[0])
    table = track_table(sheet, "calibrated mean")
    assert table is not None
    bold = {entries[0].text: [e.bold for e in entries[5:]] for _, entries in table.lines}
    assert bold == {"plain": [True] * 3, "sampler": [False] * 3}
    samples = track_table(sheet, "diversified")
    assert samples is not None
    ged = next(c for c in samples.lines[0][1] if c.text.startswith("0.3"))
    assert not ged.bold  # sets of 1 and of 50 are not compared
    assert all(c.metric in ("ece.rater", "brier.rater") or c.note for c in CALIBRATION_COLUMNS)


def classes(frame: pd.DataFrame) -> pd.DataFrame:
    """Metrics named ``x@2`` as those of class 2."""
    parts = frame.metric.str.extract(r"^(.*)@(\d)$")
    return frame.assign(metric=parts[0], label=parts[1])


def test_a_table_shows_the_mean_over_classes_and_keeps_each(fabricate: Make) -> None:
    f = fabricate()
    folder = f.cell("net", {"diverse": {"ged@1": [0.2] * N, "ged@2": list(np.linspace(0.3, 0.5, N))}})
    rewrite(folder, classes)
    frame = leaderboard_frame(sheets_of(f.results)).set_index("metric")
    assert frame.value.to_dict() == pytest.approx({"ged": 0.3, "ged{1}": 0.2, "ged{2}": 0.4})
    assert frame.track.to_dict() == dict.fromkeys(("ged", "ged{1}", "ged{2}"), "diversified")


def test_a_class_that_the_data_leave_undefined_drops_the_case_for_all(fabricate: Make) -> None:
    f = fabricate()
    gone, lost = (float("nan"), "data: the raters agree"), (float("nan"), "method: the samples say nothing")
    first = {"diverse": {"ncc@1": [gone, *[0.5] * (N - 1)], "ncc@2": [lost, *[0.7] * (N - 1)]}}
    second = {"diverse": {"ncc@1": [gone, *[0.2] * (N - 1)], "ncc@2": [0.9, *[0.4] * (N - 1)]}}
    for method, values in (("a", first), ("b", second)):
        rewrite(f.cell(method, values), classes)
    frame = leaderboard_frame(sheets_of(f.results), details=True)
    found = frame[frame.metric == "ncc"].set_index("method")
    assert found.value.to_dict() == pytest.approx({"a": 0.6, "b": 0.3})
    assert found.n_dropped.tolist() == [1, 1]
    assert found.n_replaced.tolist() == [0, 0]


def test_several_classes_are_named_above_the_table(fabricate: Make) -> None:
    f = fabricate()
    folder = f.cell("net", {"diverse": {"ged": [0.2] * N}})
    spec = read_json(folder / "spec.json")
    for overlapping, mask in ((True, "probability > 0.5"), (False, "most probable class")):
        spec["dataset"] |= {"class_names": ["disc", "cup"], "overlapping": overlapping}
        write_json(folder / "spec.json", spec)
        text = render(sheets_of(f.results), "md")
        assert "2 classes (1 = disc, 2 = cup): each is scored against the rest" in text
        assert f"mask = {mask}" in text
