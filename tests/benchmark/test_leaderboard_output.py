"""What is written and printed: the columns of the CSV, bold and marks, notes, terminal widths, commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from multirater.benchmark.commands.leaderboard import command
from multirater.benchmark.compare import compare
from multirater.benchmark.layout import duration, fixed
from multirater.benchmark.leaderboard import LAYOUTS, render, sheets_of, write_leaderboard
from multirater.benchmark.tables import print_results
from multirater.core.errors import UserError
from rich.console import Console

Make = Callable[..., Any]
COLUMNS = (
    "dataset,set,identity,split,preset,method,output,method_variant,track,metric,variant,n_samples,n_cases,n_patients,"
    "value,ci_low,ci_high,n_replaced,fallback,failed,train_seconds,predict_seconds,peak_memory_mb,fingerprint,protocol"
)
N = 12
NOTICE = "masks: LIDC readers; image: simulated (recipe v1)"


def same(value: float) -> list[float]:
    return [value] * N


@pytest.fixture
def results(fabricate: Make) -> Path:
    """A personalised method, a level-set method that beats it, a deterministic one, and one that diverged."""
    f = fabricate()
    common = {
        "fallback": {"diverse": ["dice_rater"], "consensus": ["dice_rater"], "levels": ["dice_rater"]},
        "notice": NOTICE,
    }

    def raters(a: float, b: float) -> dict[str, Any]:
        return {"dice_rater.each": {"1": same(a), "2": same(b)}, "dice_rater": same((a + b) / 2)}

    oracle = {"ged": same(0.01), "diversity_raters": same(0.2), "diversity_samples": same(0.2)}
    human = {"human": {"ged": same(0.35), **raters(0.99, 0.99)}, "oracle": oracle}
    f.cell("human", human, n_samples={"human": 1, "oracle": 50}, notice=NOTICE)
    outputs = {
        "diverse": {
            "ged": same(0.171),
            "dice_soft": same(0.885),
            "diversity_samples": same(0.13),
            **raters(0.83, 0.86),
        },
        "personalised": {"ged": same(0.01), **raters(0.85, 0.87), "dice_rater.gap": same(0.02)},
        "levels": {"ged": same(0.02), "dice_soft": same(0.999), **raters(0.83, 0.86)},
    }
    f.cell("dpersona", outputs, n_samples={"diverse": 50, "personalised": 2, "levels": 50}, **common)
    f.cell("unet_soft", {"diverse": {"ged": same(0.136), "dice_soft": same(0.866), **raters(0.84, 0.86)}}, **common)
    deterministic = {"ged": same(0.12), "dice_soft": same(0.80), **raters(0.80, 0.80)}
    f.cell("unet_majority", {"consensus": deterministic}, n_samples=1, **common)
    broken = f.cell("prob_unet", None, **common)
    (broken / "train.json").unlink()
    f.attempt(broken, "diverged", "Diverged: 11 steps with a non-finite loss")
    return f.results


def test_csv_has_exactly_the_columns_of_the_contract(results: Path) -> None:
    write_leaderboard(results)
    text = (results / "derived" / "leaderboard.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    frame = pd.read_csv(results / "derived" / "leaderboard.csv", keep_default_na=False, na_values={"value": [""]})
    line = frame[(frame.method == "dpersona") & (frame.output == "diverse") & (frame.metric == "ged")].iloc[0]
    assert line["value"] == pytest.approx(0.171)
    assert (line["track"], line["variant"], line["n_samples"], line["n_cases"]) == ("diversified", "canonical", "50", N)
    assert (line["dataset"], line["set"], line["identity"], line["split"]) == ("toy", "mid", "by_area", "fixed")
    assert (line["train_seconds"], line["predict_seconds"], line["peak_memory_mb"]) == ("126", "4", "812.5")
    personal = frame[(frame.output == "personalised") & (frame.metric == "dice_rater[2]")].iloc[0]
    assert (personal["track"], personal["fallback"]) == ("personalised", "")
    assert set(frame.loc[(frame.output == "diverse") & (frame.metric == "dice_rater"), "fallback"]) == {"common mask"}
    failed = frame[frame.method == "prob_unet"]
    assert failed["failed"].tolist() == ["1"] or failed["failed"].tolist() == [1]
    assert failed["value"].isna().all()


def test_writing_twice_gives_the_same_bytes(results: Path) -> None:
    first = {p.name: p.read_bytes() for p in write_leaderboard(results, ("tex", "html"))}
    second = {p.name: p.read_bytes() for p in write_leaderboard(results, ("tex", "html"))}
    assert first == second
    names = {"leaderboard.csv", "leaderboard.md", "leaderboard.tex", "leaderboard.html", "leaderboard_details.csv"}
    assert set(first) == names


def test_an_unknown_form_or_layout_is_one_sentence(results: Path) -> None:
    sheets = sheets_of(results)
    with pytest.raises(UserError, match=r"unknown layout of the leaderboard 'track'.*did you mean 'tracks'"):
        render(sheets, "md", "track")
    with pytest.raises(UserError, match="unknown form of the leaderboard 'latex'"):
        render(sheets, "latex")
    with pytest.raises(UserError, match="unknown layout"):
        write_leaderboard(results, layout="track")
    assert not list((results / "derived").glob("*.*"))
    option = next(o for o in command.params if o.name == "layout")
    assert set(option.type.choices) == set(LAYOUTS)


def test_bold_is_for_the_methods_own_outputs_at_the_same_s(results: Path) -> None:
    text = render(sheets_of(results), "md")
    section = text.split("### Track personalised")[0]
    bold = [line for line in section.splitlines() if "**" in line]
    # GED: the oracle (human), the level sets (trivial), two maps and one mask (S = 2, 1) are lower but do not compete.
    assert [line for line in bold if "**0.136" in line]
    assert not [line for line in section.splitlines() if "**0.010" in line or "**0.020" in line or "**0.120" in line]
    mean = text.split("### Track calibrated")[1].split("###")[0]
    assert "**0.885" in mean  # Dice soft: compared at any S, trivial 0.999 left aside
    assert "**0.999" not in text
    raters = text.split("### Track personalised")[1].split("###")[0]
    assert "**0.850**" in raters
    assert "**0.990" not in raters


def test_marks_and_notes_explain_what_is_shown(results: Path) -> None:
    text = render(sheets_of(results), "md")
    assert NOTICE in text
    assert "[quick]" in text
    assert "0.845†" in text
    assert "common mask" in text
    assert "n/a" in text
    assert "prob\\_unet§" in text
    assert "diverged: Diverged: 11 steps with a non-finite loss" in text
    assert "95 % percentile bootstrap over 12 patients, 10,000 draws, seed 20240229" in text
    assert "with 2 readers, 1 of 2 votes are background" in text
    assert "checkpoint: last step" in text
    assert "main 600 steps (13 epochs)" in text
    assert "data fingerprint aaaa" in text
    assert "trivial: nested level sets" in text
    assert "expected GED of a perfect sampler: 0.200/S" in text


def test_anonymous_readers_have_no_table(fabricate: Make) -> None:
    f = fabricate()
    values = {"diverse": {"ged": same(0.1), "dice_rater": same(0.5), "dice_rater.each": {"1": same(0.5)}}}
    f.cell("net", values, identity="none", data_options={"identity": "none"})
    text = render(sheets_of(f.results), "md")
    assert "Track personalised" not in text
    assert "Ranks by Dice mean" not in text
    assert "anonymous" in text


def test_replaced_values_and_seeds_are_marked(fabricate: Make) -> None:
    f = fabricate()
    bad = [*same(0.1)[1:], (float("nan"), "the sample set is broken")]
    f.cell("net", {"diverse": {"ged": bad}}, seed=0)
    f.cell("net", {"diverse": {"ged": same(0.2)}}, seed=1)
    text = render(sheets_of(f.results), "md")
    assert "‡" in text
    assert "count as the worst value (1 in this table)" in text
    assert "±" in text
    details = pd.read_csv(write_leaderboard(f.results)[-1])
    assert details["n_seeds"].tolist() == [2]
    assert details["n_replaced"].tolist() == [1]


def test_what_has_no_worst_value_is_counted_and_not_ranked(fabricate: Make) -> None:
    f = fabricate()
    lost = (float("nan"), "method: the map is not finite")
    f.cell("net", {"diverse": {"hd95": [*same(3.0)[2:], lost, lost]}})
    f.cell("whole", {"diverse": {"hd95": same(4.0)}})
    text = render(sheets_of(f.results), "md")
    said = "HD95 is undefined in some cases and has no worst value that could stand in; cases that count, of"
    assert f"{said} {N}: net diverse {N - 2}" in text
    with pytest.raises(UserError, match=f"values on {N - 2} of {N} cases"):
        compare(f.results, "net", "whole", ["hd95"])


@pytest.mark.parametrize("form", ["tex", "html"])
def test_other_forms_carry_the_numbers(results: Path, form: str) -> None:
    text = render(sheets_of(results), form)
    assert "0.171" in text
    bold = {"tex": r"\textbf{0.136 [0.136, 0.136]}", "html": "<b>0.136 [0.136, 0.136]</b>"}[form]
    assert bold in text
    assert ("unet\\_soft" if form == "tex" else "unet_soft") in text


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_terminal_tables_keep_to_the_width(results: Path, width: int) -> None:
    stream = StringIO()
    print_results(results, console=Console(file=stream, width=width, force_terminal=True, color_system=None))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = stream.getvalue()
    assert "0.171 [0.171, 0.171]" in text
    assert "0.830†" in text
    assert "own_threshold" not in text
    table = [line for line in lines if line.strip().startswith("dpersona")]
    assert table
    assert any("126 s" in line for line in lines)
    # Nothing is cut off: every number of the personalised row is there.
    for number in ("0.850", "0.870", "0.860", "0.020"):
        assert number in text


def test_human_rows_come_first(results: Path) -> None:
    stream = StringIO()
    print_results(results, console=Console(file=stream, width=160))
    lines = [line.split()[0] for line in stream.getvalue().splitlines() if line.strip()]
    assert lines.index("human") < lines.index("oracle") < lines.index("dpersona") < lines.index("unet_soft")


def test_only_the_cells_asked_for_are_printed(results: Path) -> None:
    stream = StringIO()
    cells = [next(results.glob("cells/unet_soft/*/*")), next(results.glob("cells/human/*/*"))]
    records = print_results(results, cells=cells, console=Console(file=stream, width=160))
    assert "dpersona" not in stream.getvalue()
    assert [row["method"] for row in records[0]["rows"]] == ["human", "human", "unet_soft"]


def test_json_is_complete_and_valid(results: Path) -> None:
    stream = StringIO()
    print_results(results, console=Console(file=stream, width=40), as_json=True)
    (table,) = json.loads(stream.getvalue())
    rows = {(row["method"], row["output"]): row for row in table["rows"]}
    assert rows["dpersona", "diverse"]["metrics"]["ged"]["value"] == pytest.approx(0.171)
    assert rows["dpersona", "levels"]["kind"] == "trivial"
    assert rows["human", "oracle"]["kind"] == "human"
    assert [m["state"] for m in table["missing"]] == ["diverged"]
    assert table["notice"] == NOTICE


def test_command_prints_and_writes(results: Path) -> None:
    runner = CliRunner()
    found = runner.invoke(command, ["--results", str(results), "--format", "md"])
    assert found.exit_code == 0
    assert found.output == (results / "derived" / "leaderboard.md").read_text()
    plain = runner.invoke(command, ["--results", str(results)])
    assert "dpersona" in plain.output
    assert "leaderboard.csv" in plain.output
    parsed = json.loads(runner.invoke(command, ["--results", str(results), "--json"]).output)
    assert parsed[0]["dataset"] == "toy"


def test_empty_results_folder_is_one_sentence(fabricate: Make) -> None:
    f = fabricate()
    with pytest.raises(UserError, match=r"no cells in .*: nothing was run there yet"):
        sheets_of(f.results)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0.44, "0.4 s"), (126.2, "126 s"), (3600, "60 min"), (50_000, "13.9 h")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_no_minus_before_zero() -> None:
    assert fixed(-1e-17, 3) == "0.000"
    assert fixed(-0.0206, 3) == "-0.021"
