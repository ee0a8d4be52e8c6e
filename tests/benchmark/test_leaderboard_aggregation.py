"""One number per row from case values: seeds, folds, undefined values, fallbacks, and which cells share a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multirater.benchmark.aggregate import score_group
from multirater.benchmark.cell import SCHEMA
from multirater.benchmark.collect import collect, find_cells, load_results
from multirater.benchmark.directions import APPLIES_NOT, BY_DATA, BY_METHOD, undefined_by
from multirater.benchmark.groups import make_groups
from multirater.core.errors import UserError

NAN = float("nan")
Make = Callable[..., Any]


def scores(results: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(method and label, output, metric) to its line; every table of the folder together."""
    found = {}
    for group in make_groups(find_cells(results)):
        frame = score_group(group)
        for line in frame.to_dict("records"):
            found[f"{line['method']} {line['method_variant']}".strip(), line["output"], line["metric"]] = line
    return found


def test_load_results_has_one_row_per_case_value(fabricate: Make) -> None:
    f = fabricate()
    f.cell(
        "a", {"diverse": {"ged": [0.1, 0.2], "dice_rater.each": {"1": [0.5, 0.6], "NA": [0.7, (NAN, "absent rater")]}}}
    )
    f.cell("b", {"consensus": {"ged": [0.3, 0.4]}}, seed=3, notice="not used")
    frame = load_results(f.results)
    assert len(frame) == 8
    assert set(frame["method"]) == {"a", "b"}
    assert frame.loc[frame["method"] == "b", "seed"].unique().tolist() == [3]
    odd = frame[(frame["rater"] == "NA") & (frame["case_id"] == "c0001")]  # a rater called NA is no missing value
    assert odd["value"].isna().all()
    assert odd["reason"].tolist() == ["absent rater"]
    assert frame["value"].sum() == pytest.approx(0.1 + 0.2 + 0.5 + 0.6 + 0.7 + 0.3 + 0.4)


def test_seeds_are_averaged_per_case_and_folds_pooled(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"ged": [0.1, 0.3]}}, seed=0)
    f.cell("net", {"diverse": {"ged": [0.3, 0.5]}}, seed=1)
    f.cell("net", {"diverse": {"ged": [0.7]}}, seed=0, fold=1)
    line = scores(f.results)["net", "diverse", "ged"]
    assert line["value"] == pytest.approx((0.2 + 0.4 + 0.7) / 3)
    assert (line["n_cases"], line["n_seeds"], line["n_folds"]) == (3, 2, 2)
    means = [0.2, 0.4]  # over the cases of both
    assert line["sd_seeds"] == pytest.approx(np.std(means, ddof=1))
    assert line["sd_cases"] == pytest.approx(np.std([0.2, 0.4, 0.7], ddof=1))
    assert "fewer than 10" in line["note"]


def test_method_undefined_counts_as_the_worst_value(fabricate: Make) -> None:
    f = fabricate()
    f.cell("good", {"diverse": {"ged": [0.2, 0.4], "dice_soft": [0.8, 0.8]}})
    gap = (NAN, "the samples are not finite")
    f.cell("bad", {"diverse": {"ged": [0.2, gap], "dice_soft": [0.8, (NAN, "method: no output")]}})
    found = scores(f.results)
    assert found["bad", "diverse", "ged"]["value"] == pytest.approx((0.2 + 2.0) / 2)
    assert found["bad", "diverse", "ged"]["n_replaced"] == 1
    assert found["bad", "diverse", "dice_soft"]["value"] == pytest.approx(0.4)
    assert found["good", "diverse", "ged"]["value"] == pytest.approx(0.3)
    assert found["good", "diverse", "ged"]["n_replaced"] == 0


def test_data_undefined_is_dropped_for_every_method(fabricate: Make) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged.debiased": [0.2, (NAN, "needs at least 2 raters, this case has 1"), 0.4]}})
    f.cell("b", {"diverse": {"ged.debiased": [0.6, 0.9, 0.6]}})
    f.cell("human", {"human": {"ged.debiased": [(NAN, "one rater has no other rater"), 0.1, 0.1]}})
    found = scores(f.results)
    assert found["a", "diverse", "ged.debiased"]["value"] == pytest.approx(0.3)
    assert found["b", "diverse", "ged.debiased"]["value"] == pytest.approx(0.6)
    assert found["b", "diverse", "ged.debiased"]["n_cases"] == 2
    assert found["b", "diverse", "ged.debiased"]["n_dropped"] == 1
    # What the human row cannot answer (one reader left out of one) takes nothing from the methods.
    assert found["human", "human", "ged.debiased"]["n_cases"] == 1


def test_a_metric_undefined_everywhere_does_not_apply(fabricate: Make) -> None:
    f = fabricate()
    one = (NAN, "one sample has no pair of different members")
    f.cell("net", {"consensus": {"ged": [0.3, 0.3], "ged.debiased": [one, one]}}, n_samples=1)
    found = scores(f.results)
    assert ("net", "consensus", "ged") in found
    assert ("net", "consensus", "ged.debiased") not in found


@pytest.mark.parametrize(
    ("reason", "who"),
    [
        ("", APPLIES_NOT),
        ("n/a", APPLIES_NOT),
        ("data: identical readers", BY_DATA),
        ("needs at least 2 raters, this case has 1", BY_DATA),
        ("undefined for this case", BY_DATA),
        ("method: nothing predicted", BY_METHOD),
        ("a sample and a rater have no similarity under this convention (both empty)", BY_METHOD),
        ("something nobody foresaw", BY_METHOD),
    ],
)
def test_reasons(reason: str, who: int) -> None:
    assert undefined_by(reason) == who


def test_per_rater_values_by_name_and_the_two_means(fabricate: Make) -> None:
    f = fabricate()
    absent = (NAN, "undefined for this case")
    values = {"dice_rater.each": {"1": [0.8, 0.6], "2": [0.4, absent]}, "dice_rater": [0.6, 0.6]}
    f.cell("net", {"personalised": values}, n_samples=2)
    f.cell("common", {"diverse": {"dice_rater": [0.5, 0.5]}}, fallback={"diverse": ["dice_rater"]})
    found = scores(f.results)
    assert found["net", "personalised", "dice_rater[1]"]["value"] == pytest.approx(0.7)
    assert found["net", "personalised", "dice_rater[2]"]["value"] == pytest.approx(0.4)
    assert found["net", "personalised", "dice_rater[2]"]["n_cases"] == 1
    assert found["net", "personalised", "dice_rater"]["value"] == pytest.approx(0.6)
    assert found["net", "personalised", "dice_rater.over_raters"]["value"] == pytest.approx(0.55)
    assert found["net", "personalised", "dice_rater"]["fallback"] == ""
    assert found["common", "diverse", "dice_rater"]["fallback"] == "common mask"


def test_fallback_covers_the_values_per_rater(fabricate: Make) -> None:
    f = fabricate()
    values = {"dice_rater": [0.5], "dice_rater.each": {"1": [0.5]}, "dice_soft": [0.9]}
    f.cell("net", {"diverse": values}, fallback={"diverse": ["dice_rater"]})
    found = scores(f.results)
    assert found["net", "diverse", "dice_rater[1]"]["fallback"] == "common mask"
    assert found["net", "diverse", "dice_soft"]["fallback"] == ""


def test_box_is_canonical_and_classes_are_averaged(fabricate: Make) -> None:
    f = fabricate()
    folder = f.cell("net", {"diverse": {"ece": [0.1], "ged": [0.2]}})
    path = next(folder.glob("eval/*/metrics.csv"))
    lines = path.read_text().splitlines()
    box = next(line for line in lines if ",ece," in line)
    ged = next(line for line in lines if ",ged," in line)
    lines += [
        box.replace(",full,", ",box,").replace(",0.1,", ",0.3,"),
        ged.replace(",,1,ged,", ",,2,ged,").replace(",0.2,", ",0.6,"),
    ]
    path.write_text("\n".join(lines) + "\n")
    _reseal(path)
    (group,) = make_groups(find_cells(f.results))
    found = {(r["metric"], r["variant"]): r["value"] for r in score_group(group).to_dict("records")}
    assert found["ece", ""] == pytest.approx(0.3)
    assert found["ece", "full"] == pytest.approx(0.1)
    assert found["ged", ""] == pytest.approx(0.4)
    assert found["ged{1}", ""] == pytest.approx(0.2)
    assert found["ged{2}", ""] == pytest.approx(0.6)


def test_fingerprints_presets_and_identities_stay_apart(fabricate: Make) -> None:
    f = fabricate()
    values = {"diverse": {"ged": [0.1]}}
    f.cell("a", values, fingerprint="one")
    f.cell("b", values, fingerprint="one")
    f.cell("a", values, fingerprint="two")
    f.cell("a", values, fingerprint="one", preset="paper")
    f.cell("a", values, fingerprint="one", data_options={"set": "mid", "identity": "group"})
    groups = make_groups(find_cells(f.results))
    assert sorted(len(g.rows) for g in groups) == [1, 1, 1, 2]
    for group in groups:
        assert len({c.spec["dataset"]["fingerprint"] for row in group.rows for c in row.cells}) == 1


def test_one_fold_split_in_two_ways_makes_two_tables(fabricate: Make) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged": [0.1]}})
    other = f.cell("b", {"diverse": {"ged": [0.1]}})
    spec = json.loads((other / "spec.json").read_text())
    spec["dataset"]["split_hash"] = "changed"
    (other / "spec.json").write_text(json.dumps(spec))
    assert len(make_groups(find_cells(f.results))) == 2


def test_rows_are_labelled_by_the_options_that_differ(fabricate: Make) -> None:
    f = fabricate()
    values = {"diverse": {"ged": [0.1]}}
    f.cell("net", values, options={"beta": 1, "latent": 6})
    f.cell("net", values, options={"beta": 2, "latent": 6})
    f.cell("net", values, options={"beta": 2, "latent": 6}, seed=1)
    f.cell("other", values, options={"beta": 5})
    (group,) = make_groups(find_cells(f.results))
    assert [(row.name, row.seeds) for row in group.rows] == [
        ("net (method.beta=1)", (0,)),
        ("net (method.beta=2)", (0, 1)),
        ("other", (0,)),
    ]


def test_human_rows_stand_beside_every_row_of_the_same_evaluation(fabricate: Make) -> None:
    f = fabricate()
    values = {"diverse": {"ged": [0.1]}}
    human = {"oracle": {"ged": [0.0]}}
    f.cell("human", human, preset="quick")
    f.cell("human", human, preset="smoke", eval={"n_samples": 8, "max_cases": 24})
    f.cell("net", values, preset="quick")
    f.cell("net", values, preset="mine")  # same evaluation as quick, no human cell of its own
    f.cell("net", values, preset="smoke", eval={"n_samples": 8, "max_cases": 24})
    f.cell("net", values, preset="odd", eval={"n_samples": 5, "max_cases": 3})
    groups = {g.key["preset"]: g for g in make_groups(find_cells(f.results))}
    counts = {preset: sum(row.human for row in g.rows) for preset, g in groups.items()}
    assert counts == {"quick": 1, "smoke": 1, "mine": 1, "odd": 0}
    assert groups["smoke"].rows[0].cells[0].spec["eval"]["n_samples"] == 8


def test_unfinished_cells_are_listed_with_their_reason(fabricate: Make) -> None:
    f = fabricate()
    f.cell("fine", {"diverse": {"ged": [0.1]}})
    failed = f.cell("failed")
    (failed / "train.json").unlink()
    f.attempt(failed, "error", "Traceback\nRuntimeError: out of luck")
    diverged = f.cell("diverged")
    (diverged / "train.json").unlink()
    f.attempt(diverged, "diverged", "Diverged: stage 'main': 11 steps with a non-finite loss")
    f.cell("outcome", {"diverse": {"ged": [0.1]}}, train={"outcome": "diverged"})
    damaged = f.cell("damaged", {"diverse": {"ged": [0.1]}})
    with next(damaged.glob("eval/*/metrics.csv")).open("a") as stream:
        stream.write("edited\n")
    values, missing = collect(f.results)
    assert set(values["method"]) == {"fine"}
    states = dict(zip(missing["method"], missing["state"], strict=True))
    assert states == {"failed": "failed", "diverged": "diverged", "outcome": "diverged", "damaged": "damaged"}
    whys = dict(zip(missing["method"], missing["why"], strict=True))
    assert whys["failed"] == "RuntimeError: out of luck"
    assert "changed after its record" in whys["damaged"]
    (group,) = make_groups(find_cells(f.results))
    score_group(group)  # goes on without the damaged cell
    assert [c.state for row in group.rows for c in row.missing if row.method == "damaged"] == ["damaged"]


def test_a_row_with_missing_folds_is_marked(fabricate: Make) -> None:
    f = fabricate()
    for fold in (0, 1):
        f.cell("whole", {"diverse": {"ged": [0.1]}}, fold=fold)
    f.cell("part", {"diverse": {"ged": [0.1]}}, fold=0)
    (group,) = make_groups(find_cells(f.results))
    assert {row.name: row.missing_folds for row in group.rows} == {"part": (1,), "whole": ()}


@pytest.mark.parametrize("record", ["result", "cell", "multirater-results"])
def test_newer_records_are_refused(fabricate: Make, record: str) -> None:
    f = fabricate()
    newer = {"name": record, "version": SCHEMA[record] + 1}
    changes: dict[str, Any] = {"result": {"result_schema": newer}, "cell": {"schema": newer}}.get(record, {})
    f.cell("net", {"diverse": {"ged": [0.1]}}, **changes)
    if record == "multirater-results":
        (f.results / "index.json").write_text(json.dumps({"schema": newer}))
    with pytest.raises(UserError, match=r"newer multirater.*upgrade"):
        load_results(f.results)


def test_a_folder_without_results_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run `multirater run` first"):
        load_results(tmp_path / "nowhere")


def test_many_cells_are_read_in_one_walk(fabricate: Make) -> None:
    f = fabricate()
    for seed in range(60):
        f.cell("net", {"diverse": {"ged": [0.1 + seed / 1000] * 3}}, seed=seed)
    frame = load_results(f.results)
    assert len(frame) == 180
    assert sorted(frame["seed"].unique()) == list(range(60))
    assert scores(f.results)["net", "diverse", "ged"]["n_seeds"] == 60


def _reseal(path: Path) -> None:
    from multirater.core.hashing import file_digest

    record = json.loads(path.with_name("result.json").read_text())
    record["metrics_sha256"] = file_digest(path)
    path.with_name("result.json").write_text(json.dumps(record))
