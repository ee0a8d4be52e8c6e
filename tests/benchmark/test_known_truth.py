"""The table of scores beside what is known exactly of `synthetic`."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.benchmark.known_truth import as_markdown, main, planted_table, truth_table
from multirater.core.errors import UserError
from multirater.datasets import open_dataset
from multirater.metrics import score_case

OPTIONS = {"cases": 16, "size": 32}


@pytest.fixture
def results(fabricate, tmp_path, monkeypatch):
    made = fabricate()
    """A sampler that emits every possible mask once, and personal maps that are the best there are."""
    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    dataset = open_dataset("synthetic", **OPTIONS)
    test = dataset.split(0).test
    ged, own, common = [], [], []
    for index in test:
        masks = dataset.arrays([index])[1][0].astype(bool)
        oracle = dataset.oracle(index)
        samples = oracle.masks.reshape(-1, *oracle.masks.shape[-2:]).astype(bool)
        ged.append(score_case(masks, samples, metrics=["ged"])["ged"])
        own.append(score_case(masks, rater_probs=oracle.best.astype(float), metrics=["dice_rater"])["dice_rater"])
        common.append(score_case(masks, mean_prob=oracle.mean, metrics=["dice_rater"])["dice_rater"])
    values = {
        "diverse": {"ged": ged},
        "personalised": {"ged": ged, "dice_rater": own},
        "consensus": {"ged": ged, "dice_rater": common},
    }
    made.cell(
        "oracle",
        values,
        dataset="synthetic",
        data_options=OPTIONS,
        n_samples={"diverse": 12, "personalised": 4, "consensus": 1},
        case_ids=[dataset.records[i].case_id for i in test],
    )
    return made.results


def test_a_perfect_method_comes_to_the_floor(results):
    table = truth_table(results).set_index("Output")
    diverse, personal = table.loc["diverse"], table.loc["personalised"]
    assert diverse["GED ↓"] == pytest.approx(diverse["lowest possible"], abs=0.02)  # few cases, their noise is drawn
    assert diverse["lowest possible"] < diverse["perfect sampler"]
    assert diverse["above it"] < 0
    assert personal["Dice of the raters ↑"] == pytest.approx(personal["best possible"], abs=0.02)
    assert personal["gain"] > 0.02
    assert np.isnan(diverse["gain"])
    text = as_markdown(truth_table(results))
    assert "nan" not in text
    assert len(text.splitlines()) == 4


def test_wrong_folders_are_one_sentence(fabricate, tmp_path, capsys):
    made = fabricate()
    made.cell("net", {"diverse": {"ged": [0.1, 0.2]}})
    with pytest.raises(UserError, match="no finished cell on 'synthetic'"):
        truth_table(made.results)
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main([]) == 2


def test_planted_matrices_stand_beside_the_found_ones(tmp_path, monkeypatch, capsys):
    from multirater.benchmark import run

    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    small = {"train": {"steps": 1}, "dataset": {"cases": 16, "size": 32}}
    run("cm_global", dataset="synthetic-confusion", preset="smoke", results=tmp_path / "r", overrides=small)
    table = planted_table(tmp_path / "r").set_index("Method")
    assert table.loc["majority of the raters", "rater 2"] == "0.800 / 0.800"
    assert 0.5 < table.loc["majority of the raters", "Dice with the truth ↑"] < 0.9
    specificity, sensitivity = map(float, table.loc["cm_global", "rater 1"].split(" / "))
    assert 0.8 < specificity <= 1  # one step from the start at 0.9
    assert 0.8 < sensitivity <= 1
    assert main([str(tmp_path / "r")]) == 0
    assert "as planted" in capsys.readouterr().out
