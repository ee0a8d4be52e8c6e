"""The tables of ranks, and what tables say where there is little to rank: one method, one case, ties, nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.leaderboard import render, sheets_of, write_leaderboard
from multirater.benchmark.ranking_layout import p_text, ranking_tables

Make = Callable[..., Any]
N = 40
NOISE = np.random.default_rng(0).normal(0, 0.02, (6, N))


def around(mean: float, i: int = 0) -> list[float]:
    return list(mean + NOISE[i])


def section(text: str, title: str) -> str:
    return text.split(f"### {title}")[1].split("\n### ")[0]


def rows(part: str) -> dict[str, list[str]]:
    """First field of each line of a Markdown table to all its fields."""
    lines = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("|")][2:]
    return {fields[0].strip(): [f.strip() for f in fields] for fields in lines}


def test_ranks_of_all_schemes_with_the_distance_to_the_best(fabricate: Make) -> None:
    f = fabricate()
    for method, mean, i in (("best", 0.10, 0), ("near", 0.101, 1), ("far", 0.40, 2)):
        f.cell(method, {"diverse": {"ged": around(mean, i)}})
    f.cell("one_mask", {"consensus": {"ged": around(0.05, 3)}}, n_samples=1)
    f.attempt(f.cell("broken", None), "error", "boom")
    part = section(render(sheets_of(f.results), "md"), "Ranks by GED ↓ (track diversified)")
    found = rows(part)
    assert list(found) == ["best", "near", "far"]
    assert found["far"][4:10] == ["3", "3", "3", "3", "3", "0.00"]
    assert found["best"][10:] == ["best", "", ""]
    assert found["best"][3].startswith("**0.")
    assert found["far"][10].startswith("0.30")
    assert found["far"][11:] == ["<0.001", "0 %"]
    assert float(found["near"][11]) > 0.05
    assert "not ranked: one_mask (S = 1, compared at S = 50)".replace("_", "\\_") in part
    assert "not ranked: broken (no result)" in part
    assert "40 patients: F = " in part
    assert "adjusted for all 3 pairs (Holm)" in part


def test_methods_with_fewer_samples_are_ranked_by_what_s_does_not_move(fabricate: Make) -> None:
    f = fabricate()
    f.cell("many", {"diverse": {"ged": around(0.2), "ged.debiased": around(0.19)}})
    f.cell("more", {"diverse": {"ged": around(0.3, 1), "ged.debiased": around(0.29, 1)}})
    f.cell("heads", {"personalised": {"ged": around(0.25, 2), "ged.debiased": around(0.10, 2)}}, n_samples=4)
    text = render(sheets_of(f.results), "md")
    assert "not ranked: heads (S = 4, compared at S = 50)" in section(text, "Ranks by GED ↓")
    found = rows(section(text, "Ranks by GED deb. ↓ (track diversified)"))
    assert "fixed sets (one map a reader, members of an ensemble) are favoured" in text
    assert [(name, fields[2]) for name, fields in found.items()] == [("heads", "4"), ("many", "50"), ("more", "50")]


def test_a_move_between_schemes_is_marked(fabricate: Make) -> None:
    f = fabricate()
    lucky = np.full(N, 0.8)
    lucky[:3] = 0.0
    f.cell("lucky", {"diverse": {"hm_iou": list(lucky)}})
    f.cell("steady", {"diverse": {"hm_iou": [0.79] * N}})
    part = section(render(sheets_of(f.results), "md"), "Ranks by HM-IoU")
    assert rows(part)["steady"][4:8] == ["1⇅", "2", "2", "2"]
    assert "⇅ the schemes disagree" in part


def test_orders_of_single_seeds_and_without_a_reader(fabricate: Make) -> None:
    f = fabricate()
    for method, one, two in (("a", 0.9, 0.5), ("b", 0.6, 0.6)):
        for seed, shift in ((0, 0.0), (1, 0.2)):
            two_now = two - shift if method == "a" else two
            each = {"1": [one] * N, "2": [two_now] * N}
            f.cell(
                method, {"personalised": {"dice_rater.each": each, "dice_rater": [(one + two_now) / 2] * N}}, seed=seed
            )
    part = section(render(sheets_of(f.results), "md"), "Ranks by Dice mean")
    assert "order of single seeds (0, 1) against this one: Kendall's τ 1.00, n/a" in part or "-1.00" in part
    assert "order with one reader left out: Kendall's τ at least -1.00 (without 1)" in part


@pytest.mark.parametrize("form", ["md", "csv", "tex", "html"])
def test_one_method_has_a_table_and_no_ranks(fabricate: Make, form: str) -> None:
    f = fabricate()
    f.cell("only", {"diverse": {"ged": around(0.2), "dice_soft": around(0.8)}})
    text = render(sheets_of(f.results), form)
    assert "only" in text
    assert "Ranks by" not in text
    assert "not significantly" not in text


@pytest.mark.parametrize("form", ["md", "tex", "html"])
def test_one_case_has_numbers_without_intervals(fabricate: Make, form: str) -> None:
    f = fabricate()
    for method, value in (("a", 0.2), ("b", 0.3)):
        f.cell(method, {"diverse": {"ged": [value], "dice_soft": [1 - value]}})
    text = render(sheets_of(f.results), form)
    assert "no intervals: 1 patient, fewer than 10" in text
    assert "nan" not in text.lower().replace("nanometre", "")
    assert "with 1 patient no difference among 2 methods can be significant" in text
    assert "0.200" in text


def test_ties_and_constants_share_the_first_rank(fabricate: Make) -> None:
    f = fabricate()
    for method in ("a", "b", "c"):
        f.cell(method, {"diverse": {"ged": [0.25] * N}})
    (table,) = ranking_tables(sheets_of(f.results)[0])
    assert [entries[4].text for _, entries in table.lines] == ["1", "1", "1"]
    assert all(entries[3].bold for _, entries in table.lines)
    assert any("all methods are tied for every patient" in note for note in table.notes)
    assert [entries[11].text for _, entries in table.lines[1:]] == ["1.000", "1.000"]


def test_missing_failed_and_undefined_cells_are_visible(fabricate: Make) -> None:
    f = fabricate()
    for fold in (0, 1):
        f.cell("whole", {"diverse": {"ged": around(0.2)}}, fold=fold)
    f.cell("half", {"diverse": {"ged": [*around(0.1)[1:], (float("nan"), "method: no samples")]}}, fold=0)
    f.attempt(f.cell("half", None, fold=1), "error", "RuntimeError: out of memory")
    broken = f.cell("gone", None)
    (broken / "train.json").unlink()
    f.attempt(broken, "diverged", "Diverged: non-finite loss")
    text = render(sheets_of(f.results), "md")
    table = section(text, "Track diversified")
    assert "half§" in table
    assert "‡" in table
    assert rows(table)["gone§"][1] == "diverged"
    assert "RuntimeError: out of memory" in text
    assert "**" not in table  # nobody is left to be better than


def test_other_fingerprints_and_protocols_stand_apart(fabricate: Make) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged": around(0.2)}}, fingerprint="aaaa")
    f.cell("b", {"diverse": {"ged": around(0.1, 1)}}, fingerprint="bbbb")
    f.cell("c", {"diverse": {"ged": around(0.3, 2)}}, fingerprint="aaaa", protocol=2)
    sheets = sheets_of(f.results)
    assert [[row.method for row in sheet.group.rows] for sheet in sheets] == [["a"], ["c"], ["b"]]
    text = render(sheets, "md")
    assert "**" not in text
    for mark in ("1 · aaaa", "2 · aaaa", "1 · bbbb"):
        assert mark in text


def test_results_without_any_finished_cell_still_make_every_form(fabricate: Make) -> None:
    f = fabricate()
    f.attempt(f.cell("a", None), "error", "boom")
    for path in write_leaderboard(f.results, ("tex", "html")):
        assert path.stat().st_size > 0
    text = render(sheets_of(f.results), "md")
    assert "boom" in text


def test_p_values_are_printed_as_papers_do() -> None:
    found = [p_text(p) for p in (0.0004, 0.001, 0.0123, 0.04996, 0.05012, 1.0, float("nan"))]
    # Near the level three digits would not say on which side of it a value lies.
    assert found == ["<0.001", "0.001", "0.012", "0.04996", "0.05012", "1.000", "n/a"]
