"""``multirater compare``: the numbers of the pair, the cases that decide it, the names it takes, the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from multirater.benchmark.commands.compare import command
from multirater.benchmark.compare import compare
from multirater.benchmark.compare_text import sentences
from multirater.core.errors import UserError
from PIL import Image
from scipy import stats

Make = Callable[..., Any]
N = 40
RNG = np.random.default_rng(3)
BASE = RNG.uniform(0.2, 0.4, N)
A, B = BASE, BASE + RNG.normal(0.03, 0.02, N)


@pytest.fixture
def results(fabricate: Make) -> Path:
    f = fabricate()
    outputs = {
        "diverse": {"ged": list(A), "dice_rater": [0.7] * N},
        "personalised": {"ged": list(A), "dice_rater": [0.9] * N},
    }
    trivial = {"levels": {"ged": list(A + 0.01)}}
    counts = {"diverse": 50, "personalised": 2, "levels": 50}
    f.cell("a", {**outputs, **trivial}, n_samples=counts, fallback={"diverse": ["dice_rater"]}, cases_per_patient=2)
    f.cell(
        "b",
        {"diverse": {"ged": list(B), "dice_rater": [0.8] * N}},
        fallback={"diverse": ["dice_rater"]},
        cases_per_patient=2,
    )
    f.cell("c", {"diverse": {"ged": list(B + 0.2)}}, cases_per_patient=2)
    f.cell("mask", {"consensus": {"ged": list(B), "dice_rater": [0.8] * N}}, n_samples=1, cases_per_patient=2)
    f.cell("human", {"oracle": {"ged": [0.004] * N}}, cases_per_patient=2)
    f.cell("twice", {"diverse": {"ged": list(B)}}, options={"width": 1}, cases_per_patient=2)
    f.cell("twice", {"diverse": {"ged": list(A)}}, options={"width": 2}, cases_per_patient=2)
    return f.results


def test_numbers_of_the_pair(results: Path) -> None:
    found, reasons = compare(results, "a", "b", ["ged"])
    (one,) = found
    pair = one.pair
    delta = (A - B).reshape(-1, 2).mean(1)
    assert pair["difference"] == pytest.approx((A - B).mean())
    assert pair["p"] == pytest.approx(stats.wilcoxon(delta).pvalue)
    assert pair["win_rate"] == pytest.approx((delta < 0).mean())
    assert pair["better"] == "a"
    assert one.found.n_samples == 50
    assert one.p_table >= pair["p"]  # adjusted for the family of the table: a, b, c and both of twice
    assert one.n_table == 10
    assert reasons == []


def test_cases_that_decide_it(results: Path) -> None:
    (one,), _ = compare(results, "a", "b", ["ged"])
    cases = one.cases
    assert len(cases) == N
    assert (cases["gain"].abs().diff().dropna() <= 0).all()
    np.testing.assert_allclose(cases["gain"], -cases["difference"])  # lower is better
    deciding = one.deciding(3)
    assert list(deciding["favours"]) == ["a"] * 3 + ["b"] * min(3, int((B < A).sum()))
    assert deciding["case_id"].iloc[0] == f"c{int(np.argmax(B - A)):04d}"
    gains = np.sort(B - A)[::-1]
    literal = next(k for k in range(1, N + 1) if gains[k:].sum() <= 1e-12)
    assert one.turning == literal


def test_outputs_trivial_and_human_rows_can_be_named(results: Path) -> None:
    (one,), _ = compare(results, "a/levels", "a", ["ged"])
    assert one.names == ("a · levels", "a · diverse")
    assert np.isnan(one.p_table)
    (oracle,), _ = compare(results, "human/oracle", "a", ["ged"])
    assert oracle.pair["better"] == "human"
    (personal,), _ = compare(results, "a", "b", ["dice_rater"])
    assert [line.output for line in personal.found.lines] == ["personalised", "diverse"]
    assert personal.fallback == ("b",)
    assert any("common mask" in s for s in sentences(personal))
    (labelled,), _ = compare(results, "twice (method.width=1)", "a", ["ged"])
    assert labelled.names[0] == "twice (method.width=1)"


@pytest.mark.parametrize(
    ("a", "b", "metrics", "said"),
    [
        ("a", "d", [], "unknown method in these results 'd'"),
        ("a/levls", "b", [], "did you mean 'levels'"),
        ("a", "a", ["ged"], "are the same output"),
        ("a", "twice", ["ged"], "twice has 2 configurations in toy"),
        ("a", "mask", ["ged"], "S = 1, compared at S = 50"),
        ("a", "c", ["dice_rater"], "c has no value of it"),
        ("a", "b", ["gedd"], "unknown metric in these results 'gedd'.*did you mean 'ged'"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(results: Path, a: str, b: str, metrics: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        compare(results, a, b, metrics)


def test_one_reason_is_said_once(results: Path) -> None:
    with pytest.raises(UserError) as raised:
        compare(results, "a", "a")
    metrics = "ged, hm_iou, dice_rater, dice_soft"
    assert str(raised.value) == (
        f"nothing to compare a and a by {metrics}: both are the same output; name two, such as a/OUTPUT"
    )
    _, reasons = compare(results, "a", "c", ["ged", "dice_rater"])
    assert len(reasons) == 1
    assert reasons[0].startswith("dice_rater: c has no value of it")


def test_other_data_sets_are_not_mixed(fabricate: Make) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged": list(A)}}, fingerprint="aaaa")
    f.cell("b", {"diverse": {"ged": list(B)}}, fingerprint="bbbb")
    with pytest.raises(UserError, match="stand in no table together"):
        compare(f.results, "a", "b")
    with pytest.raises(UserError, match="unknown data set in these results 'tow'"):
        compare(f.results, "a", "b", dataset="tow")


def test_one_case_and_equal_values_are_said_plainly(fabricate: Make) -> None:
    f = fabricate()
    for method in "ab":
        f.cell(method, {"diverse": {"ged": [0.2]}})
    (one,), _ = compare(f.results, "a", "b", ["ged"])
    text = "\n".join(sentences(one))
    assert "no interval: 1 patients, fewer than 10" in text
    assert "the means are equal" in text
    assert "no significant difference is shown" in text
    assert one.turning is None
    assert one.deciding().empty


def test_most_patients_against_the_mean(fabricate: Make) -> None:
    f = fabricate()
    lucky = np.full(N, 0.81)
    lucky[:3] = 0.0
    f.cell("lucky", {"diverse": {"hm_iou": list(lucky)}})
    f.cell("steady", {"diverse": {"hm_iou": [0.8] * N}})
    (one,), _ = compare(f.results, "lucky", "steady", ["hm_iou"])
    assert "lucky is significantly better for most patients, but steady has the better mean" in "\n".join(
        sentences(one)
    )
    assert one.turning == 3


def run(results: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--results", str(results)], env={"COLUMNS": "150"})


def test_command_prints_draws_and_repeats_itself(results: Path) -> None:
    found = run(results, "a", "b")
    assert found.exit_code == 0, found.output
    assert "a is significantly better" in found.output
    assert "not compared: hm_iou" in found.output
    pictures = sorted((results / "derived" / "compare").glob("*.png"))
    assert [p.name for p in pictures] == [
        "dice_rater__toy__a-personalised__b-diverse.png",
        "ged__toy__a-diverse__b-diverse.png",
    ]
    before = {p.name: p.read_bytes() for p in (results / "derived" / "compare").iterdir()}
    assert run(results, "a", "b").output == found.output
    assert {p.name: p.read_bytes() for p in (results / "derived" / "compare").iterdir()} == before
    with Image.open(pictures[1]) as picture:
        assert min(picture.size) > 400
        assert np.asarray(picture.convert("L")).std() > 10
    drawn = pd.read_csv(pictures[1].with_suffix(".csv"))
    np.testing.assert_allclose(np.sort(drawn["a"]), np.sort(A))


def test_json_is_valid_and_complete(results: Path) -> None:
    found = json.loads(run(results, "a", "mask", "--json", "--no-picture").output)
    (one,) = found["comparisons"]
    assert one["metric"] == "dice_rater"
    assert one["mean_a"] == pytest.approx(0.9)
    assert len(one["deciding"]) == 5
    assert any("S = 1" in reason for reason in found["not_compared"])
    assert found["files"] == []
