"""Figures from fabricated cells on a small synthetic data set: they exist, show something, and match their CSV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from multirater.benchmark.commands.figures import command
from multirater.benchmark.derived import level_sets
from multirater.benchmark.figures import draw_figures
from multirater.benchmark.figures.distances import iou_distances, over_samples, rater_diversity
from multirater.benchmark.figures.over_samples import _without_copies
from multirater.benchmark.figures.qualitative import chosen_cases, crop_box
from multirater.benchmark.figures.style import DPI, TWO_COLUMN
from multirater.benchmark.predictions import StoredPredictions, write_predictions
from multirater.core.errors import UserError
from multirater.metrics import score_case
from PIL import Image

Make = Callable[..., Any]
SAMPLES = 8


@pytest.fixture(scope="module")
def drawn(make_board: Make, fabricate_at: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the figures of `make_board`, drawn once."""
    results = make_board(fabricate_at(tmp_path_factory.mktemp("figures") / "results"))
    draw_figures(results)
    return results / "derived" / "figures"


EXPECTED = (
    "qualitative__synthetic__net",
    "qualitative__synthetic__plain",
    "curves__synthetic__net",
    "over_samples__synthetic",
    "per_rater__synthetic",
    "confusion__synthetic__net",
    "latent__synthetic__net",
    "reliability__synthetic__net",
    "diversity__synthetic",
    "cases__synthetic",
    "rank_stability__synthetic",
    "significance__synthetic",
    "critical_difference__synthetic",
    "cost__synthetic",
)


@pytest.mark.parametrize("stem", EXPECTED)
def test_figures_show_something(drawn: Path, stem: str) -> None:
    with Image.open(drawn / f"{stem}.png") as image:
        assert min(image.size) > 250
        assert round(image.info["dpi"][0]) == DPI
        assert image.size[0] <= round(TWO_COLUMN * DPI)
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    assert pixels.std() > 10
    assert (pixels.max(2) - pixels.min(2) > 60).mean() > 0.0005  # coloured lines, not only text
    pdf = (drawn / f"{stem}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/Type3" not in pdf  # letters are embedded as letters
    assert b"CreationDate" not in pdf
    assert len(pd.read_csv(drawn / f"{stem}.csv"))


def test_no_other_files(drawn: Path) -> None:
    assert {p.stem for p in drawn.glob("*.png")} == set(EXPECTED)


def test_index_names_what_is_left_out_and_why(drawn: Path) -> None:
    text = (drawn / "index.md").read_text()
    for stem in EXPECTED:
        assert f"[{stem}]({stem}.png)" in text
    assert "left out: `curves__synthetic__plain` (plain on synthetic" in text
    assert "no run has a training history" in text
    assert "left out: `qualitative__synthetic__missing`" in text
    assert "no finished cell" in text


def test_every_method_is_shown_on_the_same_cases(drawn: Path, data: Any) -> None:
    _, _, cases, _, masks = data
    net = pd.read_csv(drawn / "qualitative__synthetic__net.csv")
    plain = pd.read_csv(drawn / "qualitative__synthetic__plain.csv")
    assert net["case_id"].tolist() == plain["case_id"].tolist()
    assert net["percentile"].tolist() == [10, 30, 50, 70, 90]
    assert net["diversity_raters"].is_monotonic_increasing
    spread = [score_case(m, m, metrics=["diversity_raters"])["diversity_raters"] for m in masks]
    order = sorted(range(len(cases)), key=lambda i: (spread[i], cases[i]))
    assert net["case_id"][2] == cases[order[int(0.5 * (len(cases) - 1) + 0.5)]]
    readers = [c for c in net if c.startswith("dice_reader_")]
    assert len(readers) == 3
    assert (net[readers] == 1).all(axis=None)  # the stored rater maps are the readers' own masks
    assert not [c for c in plain if c.startswith(("dice_reader_", "area_sample_"))]
    picked = cases.index(net["case_id"][0])
    assert net["area_reader_rater 1"][0] == masks[picked, 0].sum()


def test_curve_over_samples_agrees_with_the_metric(drawn: Path, data: Any) -> None:
    _, _, cases, _, masks = data
    both = pd.read_csv(drawn / "over_samples__synthetic.csv")
    table = both[both["metric"] == "ged"].rename(columns={"value": "ged"})
    net = table[(table["method"] == "net") & (table["output"] == "diverse")].set_index("n_samples")
    assert net.index.tolist() == [1, 2, 4, 8]
    expected = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        samples = np.stack([m[rng.integers(0, 3, SAMPLES)] for m in masks])
        expected += [score_case(m, s[:4], metrics=["ged", "dice_match"]) for m, s in zip(masks, samples, strict=True)]
    assert net.loc[4, "ged"] == pytest.approx(np.mean([e["ged"] for e in expected]), abs=1e-12)
    match = both[(both["metric"] == "dice_match") & (both["n_samples"] == 4)].set_index(["method", "output"])["value"]
    assert match["net", "diverse"] == pytest.approx(np.mean([e["dice_match"] for e in expected]), abs=1e-12)
    assert match["human", "oracle"] == pytest.approx(match["net", "diverse"], abs=0.02)  # both draw from the readers
    assert net.loc[4, "n_cases"] == len(cases)
    oracle = table[table["method"] == "human"].set_index("n_samples")["ged"]
    assert oracle[8] == pytest.approx(oracle[1] / 8)
    spread = np.mean([score_case(m, m, metrics=["diversity_raters"])["diversity_raters"] for m in masks])
    assert oracle[1] == pytest.approx(spread, abs=1e-12)
    levels = table[(table["method"] == "plain") & (table["output"] == "levels")].set_index("n_samples")["ged"]
    first = [score_case(m, level_sets(m.mean(0).astype(np.float32), 8)[:2], metrics=["ged"])["ged"] for m in masks]
    assert levels[2] == pytest.approx(np.mean(first), abs=1e-12)


def test_level_sets_are_left_out_only_where_they_are_the_samples_in_every_case() -> None:
    one, other = [np.array([0.3, 0.2])], [np.array([0.4, 0.2])]
    same_once = {"diverse": {"a": one, "b": one}, "levels": {"a": one, "b": other}}
    assert _without_copies(same_once) == same_once
    always = {"diverse": {"a": one, "b": other}, "levels": {"a": one, "b": other}}
    assert set(_without_copies(always)) == {"diverse"}
    assert set(_without_copies({"levels": {"a": one}})) == {"levels"}


def test_curves_hold_every_run_and_their_mean(drawn: Path) -> None:
    table = pd.read_csv(drawn / "curves__synthetic__net.csv")
    loss = table[table["key"] == "loss"].set_index(["run", "step"])["value"]
    assert loss["fold 0 seed 1", 10] == pytest.approx(1.5)
    assert loss["mean", 10] == pytest.approx(1.25)
    assert set(table["key"]) == {"loss", "kl", "val_ged"}


def test_per_rater_table_marks_common_masks(drawn: Path) -> None:
    table = pd.read_csv(drawn / "per_rater__synthetic.csv")
    kinds = table.groupby(["method", "output"])["kind"].first().to_dict()
    assert kinds["net", "personalised"] == "method"
    mean = table[(table["output"] == "personalised") & (table["metric"] == "dice_rater")]
    assert mean["value"].tolist() == pytest.approx([0.9], abs=0.01)


def test_only_new_figures_are_drawn(drawn: Path) -> None:
    results = drawn.parents[1]
    before = {p.name: p.stat().st_mtime_ns for p in drawn.glob("*.p*")}
    stale = drawn / "curves__synthetic__gone.png"
    stale.write_bytes(b"old")
    paths = draw_figures(results)
    assert {p.name: p.stat().st_mtime_ns for p in drawn.glob("*.p*")} == before
    assert {p.stem for p in paths} == set(EXPECTED)
    draw_figures(results, ["per_rater"], force=True)
    after = {p.name: p.stat().st_mtime_ns for p in drawn.glob("*.p*")}
    assert {name for name in after if after[name] != before[name]} == {
        "per_rater__synthetic.png",
        "per_rater__synthetic.pdf",
    }
    assert "over_samples__synthetic.png" in (drawn / "index.md").read_text()


def test_drawing_again_gives_the_same_bytes(drawn: Path, make_board: Make, fabricate: Make) -> None:
    again = draw_figures(make_board(fabricate("elsewhere")))[0].parent
    names = sorted(p.name for p in drawn.iterdir() if p.suffix in (".png", ".pdf", ".csv"))
    assert len(names) == 3 * len(EXPECTED)
    assert [n for n in names if (drawn / n).read_bytes() != (again / n).read_bytes()] == []


def test_changed_data_leave_pictures_out_but_not_tables(data: Any, fabricate: Make) -> None:
    f = fabricate()
    _, options, cases, patients, masks = data
    n = len(cases)
    folder = f.cell(
        "net",
        {"diverse": {"ged": [0.2] * n, "dice_rater": [0.8] * n, "dice_rater.each": {"rater 1": [0.8] * n}}},
        dataset="synthetic",
        data_options=options,
        fingerprint="of other data",
        identity="synthetic",
        case_ids=cases,
        patient_ids=patients,
    )
    zeros = np.zeros((n, 2, 32, 32), np.float32)
    stored = StoredPredictions(cases, masks.mean(1).astype(np.float32), zeros, requested=50)
    write_predictions(folder / "predictions" / "test.safetensors", stored)
    paths = draw_figures(f.results, ["per_rater", "qualitative"])
    assert [p.stem for p in paths] == ["per_rater__synthetic"]
    assert "another fingerprint" in (f.results / "derived" / "figures" / "index.md").read_text()


def test_second_table_of_a_data_set_gets_its_own_names(fabricate: Make) -> None:
    f = fabricate()
    values = {"personalised": {"dice_rater": [0.5] * 12, "dice_rater.each": {"1": [0.5] * 12}}}
    f.cell("net", values, preset="smoke")
    f.cell("net", values, preset="quick")
    names = sorted(p.stem for p in draw_figures(f.results, ["per_rater"]))
    assert names == ["per_rater__toy", "per_rater__toy__smoke-mid-by_area-fixed-aaaa"]


def test_cases_are_chosen_by_percentile() -> None:
    diversity = np.array([0.5, np.nan, 0.1, 0.3, 0.2, 0.4, 0.3])
    chosen = chosen_cases(diversity)
    assert [p for p, _ in chosen] == [10, 30, 50, 70, 90]
    assert [i for _, i in chosen] == [4, 3, 6, 5, 0]  # nearest rank; equal values in the order of the cases
    assert chosen_cases(np.array([0.2])) == [(10, 0)]
    assert chosen_cases(np.array([np.nan])) == []


def test_nothing_drawn_is_cut_away() -> None:
    mask = np.zeros((1, 100, 80), dtype=bool)
    mask[0, 3, 70] = mask[0, 60, 75] = True
    rows, columns = crop_box([mask], (100, 80))
    assert mask[0, rows, columns].sum() == 2
    assert rows.stop - rows.start == columns.stop - columns.start
    assert crop_box([np.zeros((1, 50, 40), bool)], (50, 40)) == (slice(0, 50), slice(0, 40))


def test_distances_match_the_metric() -> None:
    rng = np.random.default_rng(0)
    samples, raters = rng.random((6, 9, 9)) > 0.6, rng.random((3, 9, 9)) > 0.5
    samples[2] = raters[1] = False
    expected = [score_case(raters, samples[:s], metrics=["ged"])["ged"] for s in (1, 3, 6)]
    np.testing.assert_allclose(over_samples(samples, raters, (1, 3, 6))[0], expected, atol=1e-12)
    assert iou_distances(np.stack([samples[2], raters[1]])).tolist() == [[0, 0], [0, 0]]
    valid = np.array([[True, True, False]])
    alone = rater_diversity(raters[None], valid)[0]
    assert alone == pytest.approx(iou_distances(raters[:2]).mean())
    assert np.isnan(rater_diversity(raters[None], np.zeros((1, 3), bool))).all()


def test_command(fabricate: Make) -> None:
    f = fabricate()
    values = {"personalised": {"dice_rater": [0.5] * 12, "dice_rater.each": {"1": [0.5] * 12}}}
    f.cell("net", values)
    f.cell("net", values, dataset="other")

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(command, ["--results", str(f.results), *arguments])

    found = call("--only", "per_rater", "--dataset", "toy")
    assert found.exit_code == 0
    assert found.output.splitlines()[:-1] == [str(f.results / "derived" / "figures" / "per_rater__toy.png")]
    for arguments, said in (
        (("--only", "per_ratr"), "did you mean 'per_rater'"),
        (("--method", "nett"), "did you mean 'net'"),
        (("--dataset", "toi"), "did you mean 'toy'"),
        (("--only", "per_rater", "--method", "net"), "leave out --method"),
    ):
        wrong = call(*arguments)
        assert isinstance(wrong.exception, UserError)
        assert said in str(wrong.exception)


def test_nothing_finished_is_one_sentence(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", None)
    with pytest.raises(UserError, match="no finished cell"):
        draw_figures(f.results)
