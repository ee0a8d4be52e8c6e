"""The table of scores beside what is known exactly of `synthetic`."""

from __future__ import annotations

import numpy as np
import pytest
from multirater.benchmark.known_truth import as_markdown, main, truth_table
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
