"""A large leaderboard: 20 methods × 5 data sets × 4 folds × 1,000 cases, in a minute of processor time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.leaderboard import sheets_of, write_leaderboard

Make = Callable[..., Any]
METHODS, DATASETS, FOLDS, CASES = 20, 5, 4, 1000
METRICS = "ged ged.debiased hm_iou diversity_gap dice_match dice_max_rater_to_sample ncc empty_gap dice_soft".split()


@pytest.mark.slow
def test_a_large_leaderboard_takes_less_than_a_minute(fabricate: Make) -> None:
    f = fabricate()
    rng = np.random.default_rng(0)
    for d in range(DATASETS):
        for m in range(METHODS):
            for fold in range(FOLDS):
                values = {metric: np.round(rng.normal(0.5 + m / 100, 0.1, CASES), 6) for metric in METRICS}
                raters = {str(r): np.round(rng.normal(0.8, 0.1, CASES), 6) for r in range(4)}
                personal = {"dice_rater.each": raters, "dice_rater": np.mean(list(raters.values()), axis=0)}
                f.cell(
                    f"m{m:02d}",
                    {"diverse": values, "personalised": {**personal, "ged": values["ged"]}},
                    dataset=f"data{d}",
                    fold=fold,
                    n_samples={"diverse": 50, "personalised": 4},
                    rater_ids=tuple(raters),
                    cases_per_patient=3,
                )
    seconds = []
    for _ in range(2):  # the second time, the values of the cells are there as arrays
        start = time.process_time()
        sheets = sheets_of(Path(f.results))
        write_leaderboard(f.results, ("tex", "html"), sheets)
        seconds.append(time.process_time() - start)
    assert len(sheets) == DATASETS
    assert all(sheet.most("n_cases") == FOLDS * CASES for sheet in sheets)
    print(f"{seconds[0]:.1f} s, again {seconds[1]:.1f} s")
    assert max(seconds) < 60
