"""What tables say of a row that lacks runs: which, why, and no spread over seeds that is one over cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.collect import find_cells
from multirater.benchmark.groups import Row, make_groups
from multirater.benchmark.layout import cost_table, mark_notes, track_table
from multirater.benchmark.leaderboard import leaderboard_frame, sheets_of
from multirater.benchmark.ranking_layout import ranking_tables
from multirater.benchmark.tables import default_console, print_sheet

Make = Callable[..., Any]
FOLDS = ([0.1, 0.3], [0.7])


def rows_of(results: Path) -> dict[str, Row]:
    (group,) = make_groups(find_cells(results))
    return {row.name: row for row in group.rows}


@pytest.fixture
def grid(fabricate: Make) -> Any:
    """A whole grid of folds and seeds, and rows with holes in theirs."""
    f = fabricate()
    for seed in (0, 1):
        for fold, values in enumerate(FOLDS):
            f.cell("whole", {"diverse": {"ged": [v + 0.1 * seed for v in values]}}, seed=seed, fold=fold)
            if (fold, seed) != (1, 1):
                f.cell("hole", {"diverse": {"ged": [v + 0.1 * seed for v in values]}}, seed=seed, fold=fold)
            if fold == seed:
                f.cell("apart", {"diverse": {"ged": values}}, seed=seed, fold=fold)
    f.cell("part", {"diverse": {"ged": FOLDS[0]}}, fold=0)
    folder = f.cell("part", None, fold=2)
    f.attempt(folder, "failed", "out of memory")
    f.cell("human", {"oracle": {"ged": FOLDS[0]}})
    return f


def test_runs_that_nobody_asked_for_are_named(grid: Any) -> None:
    rows = rows_of(grid.results)
    assert {name: row.not_run for name, row in rows.items()} == {
        "human": "folds 1, 2 not run",
        "whole": "fold 2 not run",
        "hole": "fold 1 not run with seed 1; fold 2 not run",
        "apart": "fold 0 not run with seed 1; fold 1 not run with seed 0; fold 2 not run",
        "part": "fold 1 not run",
    }
    assert rows["part"].missing_folds == (1, 2)
    table = cost_table(sheets_of(grid.results)[0])
    said = {entries[0].text: entries[-1].text for _, entries in table.lines}
    assert said["human§"] == "folds 1, 2 not run"
    assert said["part§"].endswith("(pending: out of memory), fold 1 not run")
    assert "none" not in said.values()


def test_a_whole_grid_has_no_mark(fabricate: Make) -> None:
    f = fabricate()
    for seed in (0, 1):
        for fold, values in enumerate(FOLDS):
            f.cell("net", {"diverse": {"ged": values}}, seed=seed, fold=fold)
    f.cell("one", {"diverse": {"ged": FOLDS[0]}}, seed=5)
    f.cell("one", {"diverse": {"ged": FOLDS[1]}}, seed=5, fold=1)
    table = cost_table(sheets_of(f.results)[0])
    assert [(e[0].text, e[-1].text) for _, e in table.lines] == [("net", "none"), ("one", "none")]


def test_a_fold_whose_values_were_changed_is_a_missing_one(fabricate: Make) -> None:
    f = fabricate()
    for fold, values in enumerate(FOLDS):
        folder = f.cell("net", {"diverse": {"ged": values}}, fold=fold)
    place = next(folder.glob("eval/*/metrics.csv"))
    place.write_text(place.read_text().replace("0.7", "0.6"))
    (sheet,) = sheets_of(f.results)
    assert sheet.group.rows[0].missing_folds == (1,)


def test_the_spread_over_seeds_is_one_over_the_same_cases(grid: Any) -> None:
    (sheet,) = sheets_of(grid.results)
    frame = leaderboard_frame([sheet], details=True).set_index(["method", "metric"])
    one_step = np.std([0.2, 0.3], ddof=1)  # every case is worse by 0.1 with the second seed
    assert frame.loc[("whole", "ged"), "sd_seeds"] == pytest.approx(one_step)
    assert frame.loc[("hole", "ged"), "sd_seeds"] == pytest.approx(one_step)
    assert frame.loc[("hole", "ged"), "value"] == pytest.approx((0.15 + 0.35 + 0.7) / 3)
    apart = frame.loc[("apart", "ged")]
    assert np.isnan(apart["sd_seeds"])
    assert apart["n_seeds"] == 2
    assert "the seeds have no case in common" in apart["note"]
    assert "no case in common" not in frame.loc[("hole", "ged"), "note"]
    table = track_table(sheet, "diversified")
    assert table is not None
    texts = {entries[0].text: entries[5].text for _, entries in table.lines}
    assert texts["hole§"] == "0.400 ±0.071"
    assert texts["apart§"] == "0.367"
    (note,) = [n for n in table.notes if n.startswith("±")]
    assert note.endswith("over the cases that all seeds of the row have, none without such cases: apart, hole")


def test_a_value_that_one_seed_leaves_undefined_counts_for_no_seed(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"mode_tv": [0.1, 0.9]}}, seed=0)
    f.cell("net", {"diverse": {"mode_tv": [0.2, (np.nan, "n/a")]}}, seed=1)
    (sheet,) = sheets_of(f.results)
    np.testing.assert_allclose(sheet.seed_means(sheet.lines[0], "mode_tv"), [0.1, 0.2])


def test_orders_of_seeds_with_other_folds_are_not_compared(fabricate: Make) -> None:
    f = fabricate()
    for seed in (0, 1):
        for fold, values in enumerate(FOLDS):
            f.cell("whole", {"diverse": {"ged": values}}, seed=seed, fold=fold)
            if (fold, seed) != (1, 1):
                f.cell("hole", {"diverse": {"ged": [v + 0.1 for v in values]}}, seed=seed, fold=fold)
    notes = [note for table in ranking_tables(sheets_of(f.results)[0]) for note in table.notes]
    assert [n for n in notes if "seeds" in n] == [
        "seeds have results of other folds, so no order of single seeds: hole"
    ]


def test_the_terminal_says_it_too(grid: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (sheet,) = sheets_of(grid.results)
    print_sheet(sheet, default_console())
    assert "hole: fold 1 not run with seed 1; fold 2 not run" in capsys.readouterr().out
    assert any(n.startswith("§") for n in mark_notes(sheet, []))
