"""The table of scores beside what is known exactly of `synthetic`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.known_truth import HEAD, as_markdown, gates, main, planted_table, truth_table
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
    assert main([str(tmp_path / "r")]) == 1  # one step finds nothing
    printed = capsys.readouterr().out
    assert "as planted" in printed
    assert "* MISSED: cm_global: planted rates found to 0." in printed


def table_of(**rows):
    """A truth table of rows ``name={column: value}``; what is left out does not apply."""
    return pd.DataFrame(
        [{"Method": name.rstrip("_"), "Updates": 200, **row} for name, row in rows.items()], columns=HEAD
    )


def test_gates_say_what_is_missed():
    table = table_of(
        near={"Output": "diverse", "above it": 0.01},
        far={"Output": "diverse", "above it": 0.2},
        ensemble={"Output": "diverse", "above it": 0.2},
        near_={"Output": "levels", "above it": 0.9},
        own={"Output": "personalised", "gain": 0.05},
        flat={"Output": "personalised", "gain": 0.001},
    )
    kept = {sentence.partition(":")[0]: passed for passed, sentence in gates(table, pd.DataFrame())}
    assert kept == {"near": True, "far": False, "own": True, "flat": False}  # neither trivial rows nor the ensemble
    longer = table_of(far={"Output": "diverse", "above it": 0.02}).assign(Updates=600)
    both = gates(pd.concat([table, longer]), pd.DataFrame())
    assert {s.partition(":")[0]: passed for passed, s in both}["far"] is True  # the longest training counts


def test_gates_of_planted_matrices():
    planted = pd.DataFrame(
        [
            {"Method": "majority of the raters", "rater 1": "0.950 / 0.950", "rater 2": "0.600 / 0.600"},
            {"Method": "cm_global", "rater 1": "0.950 / 0.920", "rater 2": "0.600 / 0.640"},
            {"Method": "cm_pixel", "rater 1": "0.950 / 0.950", "rater 2": "0.600 / 0.900"},
        ]
    )
    assert gates(pd.DataFrame(columns=HEAD), planted) == [
        (True, "cm_global: planted rates found to 0.040, at most 0.060 off"),
        (False, "cm_pixel: planted rates found to 0.300, at most 0.150 off"),
    ]


@pytest.mark.slow
def test_a_short_training_keeps_the_gates(tmp_path, monkeypatch):
    """The commands of docs/known-truth.md for one method of each kind."""
    from multirater.benchmark import run

    monkeypatch.setenv("MULTIRATER_CACHE", str(tmp_path / "cache"))
    short = {"train": {"steps": 200, "batch_size": 6}}
    methods = ["unet_soft", "dpersona", "pionono", "unet_per_rater"]
    assert run(methods, "synthetic", "quick", results=tmp_path / "r", overrides=short).exit_code == 0
    longer = {"train": {"steps": 300, "batch_size": 8}}
    assert run("cm_global", "synthetic-confusion", "quick", results=tmp_path / "r", overrides=longer).exit_code == 0
    found = gates(truth_table(tmp_path / "r"), planted_table(tmp_path / "r"))
    assert len(found) == 8
    assert [sentence for passed, sentence in found if not passed] == []


def test_the_committed_table_keeps_the_gates_that_it_says_it_keeps():
    page = (Path(__file__).parents[2] / "docs" / "known-truth.md").read_text()
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heads = [i for i, row in enumerate(cells) if row[0] == "Method"]
    first, second = cells[heads[0] : heads[1]], cells[heads[1] :]
    table = pd.DataFrame(first[2:], columns=first[0])
    numbers = ["Updates", "S", *HEAD[4:]]
    table[numbers] = table[numbers].apply(pd.to_numeric)
    planted = pd.DataFrame(second[2:], columns=second[0])
    said = [line for line in page.splitlines() if line.startswith(("* kept: ", "* MISSED: "))]
    found = dict(reversed(pair) for pair in gates(table, planted))
    assert len(found) == len(said) >= 18
    for line in said:
        passed, _, sentence = line.removeprefix("* ").partition(": ")
        method, rest = sentence.split(": ")
        match = [p for s, p in found.items() if s.startswith(f"{method}: {rest.split()[0]} ")]
        assert match == [passed == "kept"], line
