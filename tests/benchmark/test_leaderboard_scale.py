"""Large tables and their report: 20 methods × 5 data sets × 4 folds × 1,000 cases, a minute of processor time each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.leaderboard import sheets_of, write_leaderboard
from multirater.benchmark.webreport import write_report

pytestmark = pytest.mark.slow
Make = Callable[..., Any]
METHODS, DATASETS, FOLDS, CASES = 20, 5, 4, 1000
METRICS = "ged ged.debiased hm_iou diversity_gap dice_match dice_max_rater_to_sample ncc empty_gap dice_soft".split()


@pytest.fixture(scope="module")
def large(fabricate_at: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    f = fabricate_at(tmp_path_factory.mktemp("large") / "results")
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
    return Path(f.results)


def test_a_large_leaderboard_takes_less_than_a_minute(large: Path) -> None:
    seconds = []
    for _ in range(2):  # the second time, the values of the cells are there as arrays
        start = time.process_time()
        sheets = sheets_of(large)
        write_leaderboard(large, ("tex", "html"), sheets)
        seconds.append(time.process_time() - start)
    assert len(sheets) == DATASETS
    assert all(sheet.most("n_cases") == FOLDS * CASES for sheet in sheets)
    print(f"{seconds[0]:.1f} s, again {seconds[1]:.1f} s")
    assert max(seconds) < 60


@pytest.mark.browser
def test_its_report_is_written_in_less_than_a_minute_and_keeps_up_with_typing(large: Path, browser: Any) -> None:
    start = time.process_time()
    page = write_report(large)
    seconds = time.process_time() - start
    browser.get(page.as_uri())
    browser.find_element("css selector", "#table tbody tr")
    assert browser.find_element("id", "count").text == f"{2 * METHODS} of {2 * METHODS} rows"
    browser.execute_script(
        "const box = document.getElementById('group'); box.value = 'all'; box.dispatchEvent(new Event('change'));"
    )
    filtering = _quickest(browser, "filter", "m07 diverse")
    assert browser.find_element("id", "count").text == f"{DATASETS} of {2 * METHODS * DATASETS} rows"
    browser.execute_script("location.hash = 'row/7/cases'")
    browser.find_element("css selector", "#output")
    within = _quickest(browser, "within", "7")
    print(f"written in {seconds:.1f} s; filter {filtering:.0f} ms, within {FOLDS * CASES} cases {within:.0f} ms")
    assert seconds < 60
    assert filtering < 200
    assert within < 200


def _quickest(browser: Any, box: str, text: str, times: int = 5) -> float:
    """Milliseconds from a key to the new layout, of typing or of clearing, whichever takes longer.

    Each is the least of some: other processes can only add to it.
    """
    script = (
        "const box = document.getElementById(arguments[0]); const timed = text => { const start = performance.now();"
        "box.value = text; box.dispatchEvent(new Event('input')); document.body.offsetHeight;"
        "return performance.now() - start; }; const typing = [], clearing = [];"
        "for (let i = 0; i < arguments[2]; i++) { typing.push(timed(arguments[1])); clearing.push(timed('')); }"
        "timed(arguments[1]); return Math.max(Math.min(...typing), Math.min(...clearing));"
    )
    return float(browser.execute_script(script, box, text, times))
