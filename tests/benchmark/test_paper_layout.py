"""The tables in the layout of the D-Persona paper: our numbers at several S, quotations marked and kept apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from multirater.benchmark.commands.leaderboard import command
from multirater.benchmark.leaderboard import render, sheets_of
from multirater.benchmark.paper_layout import METRICS, diversified_table, personalised_table
from multirater.benchmark.predictions import StoredPredictions, write_predictions
from multirater.benchmark.quotations import QUOTATIONS, SECONDARY, quotations
from multirater.benchmark.ranked import rankings
from multirater.core.options import resolve_options
from multirater.datasets import DATASETS, open_dataset
from multirater.metrics import score_case

Make = Callable[..., Any]
SAMPLES = 12


@pytest.fixture
def stored(fabricate: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any, Any]:
    """Two seeds of a method with 12 stored samples on a small synthetic data set: results, masks, samples by seed."""
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    options = resolve_options(DATASETS.get("synthetic"), {"size": 32, "cases": 40, "raters": 3}, "dataset")
    dataset = open_dataset("synthetic", **options)
    test = dataset.split(0).test
    records = [dataset.records[i] for i in test]
    masks = dataset.arrays(test)[1].astype(bool)
    n, (height, width) = len(records), masks.shape[-2:]
    f = fabricate()
    drawn = {}
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        samples = np.stack([m[rng.integers(0, 3, SAMPLES)] for m in masks]) ^ (
            rng.random((n, SAMPLES, height, width)) < 0.02
        )
        ged = [score_case(m, s, metrics=["ged"])["ged"] for m, s in zip(masks, samples, strict=True)]
        folder = f.cell(
            "net",
            {"diverse": {"ged": ged, "dice_soft": [0.9] * n, "dice_match": [0.8] * n}},
            dataset="synthetic", data_options=options, fingerprint=dataset.fingerprint, identity="synthetic",
            rater_ids=dataset.describe().rater_ids, case_ids=[r.case_id for r in records],
            patient_ids=[r.patient_id for r in records], eval={"n_samples": SAMPLES, "max_cases": None},
            seed=seed, n_samples=SAMPLES,
        )  # fmt: skip
        mean = samples.mean(1).astype(np.float32)
        zeros = np.zeros((n, 2, height, width), np.float32)
        kept = StoredPredictions([r.case_id for r in records], mean, zeros, samples, None, SAMPLES)
        write_predictions(folder / "predictions" / "test.safetensors", kept)
        drawn[seed] = samples
    return f.results, masks, drawn


def test_smaller_sets_are_the_first_of_the_stored_ones(stored: tuple[Path, Any, Any]) -> None:
    results, masks, drawn = stored
    table = diversified_table(sheets_of(results)[0])
    rows = {entries[2].text: [e.text for e in entries] for _, entries in table.lines}
    assert list(rows) == ["10", "12"]
    expected = np.mean(
        [
            [score_case(m, s[:10], metrics=list(METRICS))[name] for name in METRICS]
            for seed in (0, 1)
            for m, s in zip(masks, drawn[seed], strict=True)
        ],
        axis=0,
    )
    assert rows["10"][3] == f"{expected[0]:.4f}"
    assert rows["10"][4] == f"{100 * expected[1]:.2f}‖"
    assert rows["10"][5:] == [f"{100 * v:.2f}" for v in expected[2:]]
    assert rows["12"][4] == "90.00"
    assert rows["12"][5] == "n/a"
    assert any(note.startswith("‖ of the mean of the first S masks") for note in table.notes)


def test_without_predictions_the_full_set_is_shown_and_the_reason(stored: tuple[Path, Any, Any]) -> None:
    results = stored[0]
    for path in results.glob("cells/net/*/*/predictions/test.safetensors"):
        path.unlink()
    table = diversified_table(sheets_of(results)[0])
    assert [entries[2].text for _, entries in table.lines] == ["12"]
    assert any("net: only S = 12:" in note and "stores no predictions" in note for note in table.notes)


@pytest.fixture
def lidc(fabricate: Make) -> Path:
    f = fabricate()
    common = {"dataset": "lidc-contours", "rater_ids": ("area1", "area2")}
    for method, own in (("dpersona", 0.86), ("other", 0.80)):
        each = {"dice_rater.each": {"area1": [own] * 12, "area2": [own - 0.02] * 12}, "dice_rater": [own - 0.01] * 12}
        values = {
            "diverse": {"ged": [0.17] * 12, "dice_rater": [0.7] * 12},
            "personalised": {"ged": [0.18] * 12, **each},
        }
        counts = {"diverse": 4, "personalised": 2}
        f.cell(method, values, n_samples=counts, fallback={"diverse": ["dice_rater"]}, **common)
    return f.results


def test_quotations_stand_apart_with_source_and_variant(lidc: Path) -> None:
    sheet = sheets_of(lidc)[0]
    for table, personalised in ((diversified_table(sheet), False), (personalised_table(sheet), True)):
        quoted = [entries for kind, entries in table.lines if kind == "quoted"]
        ours = [entries for kind, entries in table.lines if kind != "quoted"]
        assert [e[0].text.rstrip("¶") for e in quoted] == [
            q.method for q in quotations("lidc-contours", personalised)[0]
        ]
        assert all(e[0].text.endswith("¶") and e[1].text == "quoted" for e in quoted)
        assert not any(entry.bold for entries in quoted for entry in entries)
        assert any(entry.bold for entries in ours for entry in entries)
        assert [kind for kind, _ in table.lines] == ["method"] * 2 + ["quoted"] * len(quoted)
        notes = " ".join(table.notes)
        assert SECONDARY in notes
        assert "arXiv 2403.13417" in notes
        assert "variant unknown" in notes
        assert "simulated images" in notes
    # Never mixed into ranks.
    assert all(set(r.names) <= {"dpersona", "other"} for r in rankings(sheet).values())


def test_personalised_table_has_every_reader_and_the_mean(lidc: Path) -> None:
    table = personalised_table(sheets_of(lidc)[0])
    assert table.heads[-3:] == ["area1 ↑", "area2 ↑", "Mean ↑"]
    rows = {entries[0].text: entries for kind, entries in table.lines if kind == "method"}
    assert [e.text for e in rows["dpersona"][-3:]] == ["86.00", "84.00", "85.00"]
    assert rows["dpersona"][-1].bold
    assert rows["dpersona"][1].text == "personalised"


def test_other_data_have_no_quotations(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"ged": [0.2] * 12}})
    text = render(sheets_of(f.results), "md", "dpersona")
    assert "quoted" not in text
    assert "¶" not in text


def test_every_quotation_names_its_source() -> None:
    for q in QUOTATIONS:
        assert q.source
        assert "unknown" in q.variant
        values = [v for v in (q.dice_soft, q.dice_max, q.dice_match, q.mean) if v is not None]
        assert all(50 < v < 100 for v in values)
        assert q.ged is not None
        assert 0 < q.ged < 1


@pytest.mark.parametrize("form", ["md", "csv", "tex", "html"])
def test_command_writes_and_prints_each_form_twice_alike(lidc: Path, form: str) -> None:
    found = [
        CliRunner().invoke(command, ["--results", str(lidc), "--layout", "dpersona", "--format", form]) for _ in "ab"
    ]
    assert found[0].exit_code == 0, found[0].output
    assert found[0].output == found[1].output == (lidc / "derived" / f"dpersona.{form}").read_text()
    assert "D-Persona (I)" in found[0].output
