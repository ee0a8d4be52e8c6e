"""What the figures of rankings, calibration, readers, codes and cost draw, against numbers known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.figures import draw_figures
from multirater.benchmark.figures.cost import _front
from multirater.benchmark.figures.diversity import draw as draw_diversity
from multirater.benchmark.figures.latent import _projection
from multirater.benchmark.figures.rank_stability import draw as draw_rank_stability
from multirater.benchmark.figures.significance import _verdicts
from multirater.benchmark.figures.source import LeftOut
from multirater.benchmark.figures.style import caption, paper_style, save, short
from multirater.benchmark.leaderboard import sheets_of
from multirater.benchmark.ranked import ranked
from multirater.core.errors import UserError

Make = Callable[..., Any]
RANKED = ("cases", "rank_stability", "significance", "critical_difference", "cost")


@pytest.fixture(scope="module")
def tables(make_board: Make, fabricate_at: Make, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind to the CSV of what was drawn."""
    results = make_board(fabricate_at(tmp_path_factory.mktemp("statistics") / "results"))
    kinds = ["confusion", "latent", "reliability", "diversity", *RANKED]
    return {path.stem.split("__")[0]: pd.read_csv(path.with_suffix(".csv")) for path in draw_figures(results, kinds)}


def left_out(results: Path) -> dict[str, str]:
    """Kind to the reason in the index."""
    text = (results / "derived" / "figures" / "index.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("* left out: ")]
    return {line.split("`")[1].split("__")[0]: line.split("): ", 1)[1] for line in lines}


def test_the_output_for_a_reader_that_is_the_reader(tables: Any, data: Any) -> None:
    masks = data[-1]
    own = tables["confusion"][tables["confusion"]["line"] == "output for"].pivot(
        index="of", columns="with", values="dice"
    )
    among = tables["confusion"][tables["confusion"]["line"] == "reader"].pivot(
        index="of", columns="with", values="dice"
    )
    np.testing.assert_allclose(np.diag(own), 1)
    sizes = masks.sum((2, 3))
    both = (masks[:, 0] & masks[:, 2]).sum((1, 2))
    total = sizes[:, 0] + sizes[:, 2]
    expected = np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0).mean()
    assert own.iloc[0, 2] == pytest.approx(expected)
    assert among.iloc[2, 0] == pytest.approx(expected)
    assert np.isnan(np.diag(among)).all()


def test_a_mean_map_that_is_the_vote_share_lies_on_the_diagonal(tables: Any, data: Any) -> None:
    masks = data[-1]
    table = tables["reliability"]
    whole = table[table["panel"] == "whole image"]
    assert whole["pixels"].sum() == 2 * masks[:, 0].size  # two seeds
    used = whole[whole["pixels"] > 0]
    np.testing.assert_allclose(used["probability"], used["share_of_readers"], atol=1e-6)
    readers = table[table["panel"].str.startswith("own map")]
    assert readers["map"].nunique() == 3
    assert set(readers.loc[readers["pixels"] > 0, "bin"]) == {1, 10}


def test_codes_of_two_dimensions_are_only_turned(tables: Any) -> None:
    readers = tables["latent"][tables["latent"]["kind"] == "reader"].set_index("of")
    assert readers["case_id"].isna().all()  # one code for all cases
    points = readers[["x", "y"]].to_numpy()
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert sorted(distances[np.triu_indices(3, 1)]) == pytest.approx([3, 4, 5])


def test_a_projection_needs_codes_that_differ() -> None:
    with pytest.raises(LeftOut, match="the same"):
        _projection(np.ones((3, 4, 2)), None)
    same_readers = _projection(np.random.default_rng(0).normal(size=(3, 4, 5)), np.ones((3, 2, 5)))
    assert not same_readers.of_raters
    assert sum(same_readers.share) <= 1


def test_diversity_is_that_of_the_cases(tables: Any) -> None:
    table = tables["diversity"]
    assert set(table["method"]) == {"net"}
    np.testing.assert_allclose(table["diversity_samples"], 0.9 * table["diversity_raters"])


def test_rankings_hold_what_was_fabricated(tables: Any, data: Any) -> None:
    n = len(data[2])
    cases = tables["cases"]
    assert cases.groupby(["metric", "method"]).size().to_dict() == {
        ("dice_rater", "net"): n,
        ("dice_rater", "plain"): n,
        ("dice_soft", "net"): n,
        ("dice_soft", "plain"): n,
        ("ged", "net"): n,  # `plain` has one mask: no GED at S = 8
        ("hm_iou", "net"): n,
    }
    pairs = tables["significance"]
    assert set(pairs["metric"]) == {"dice_rater", "dice_soft"}
    assert (pairs["win_rate"] == 1).all()  # as few patients as these do not make it significant
    assert set(pairs["better"]) == {"net"}
    ranks = tables["critical_difference"].set_index(["metric", "method"])["mean_rank"]
    assert ranks["dice_soft", "net"] == 1
    stability = tables["rank_stability"]
    share = stability[stability["what"] == "share"].set_index(["metric", "method", "rank"])["value"]
    assert share["dice_soft", "net", 1] == 1
    assert (stability.loc[stability["what"] == "tau", "value"] == 1).all()


def test_the_scheme_by_tests_is_named_as_it_ranks(fabricate: Make) -> None:
    """A method stands by how many others are significantly worse, not by how often it is beaten itself."""
    f = fabricate()
    for method, value in (("a", 0.2), ("b", 0.3)):
        f.cell(method, {"diverse": {"ged": [value + 0.001 * i for i in range(12)]}})
    (sheet,) = sheets_of(f.results)
    with paper_style():
        figure, _ = draw_rank_stability(sheet)
    said = " ".join(figure.get_supxlabel().split())
    assert "triangle: number of methods significantly worse" in said
    assert "defeats" not in said


def test_the_map_of_verdicts_is_that_of_the_tested_pairs(fabricate: Make) -> None:
    f = fabricate()
    rng = np.random.default_rng(0)
    for method, value in (("c", 0.4), ("a", 0.2), ("b", 0.21), ("d", 0.6)):
        f.cell(method, {"diverse": {"ged": list(value + rng.normal(0, 0.03, 14))}})
    one = ranked(sheets_of(f.results)[0], "ged")
    verdicts = pd.DataFrame(_verdicts(one), one.order, one.order)
    assert (np.diag(verdicts) == -2).all()
    seen = set()
    for pair in one.pairs.to_dict("records"):
        a, b = pair["method_a"], pair["method_b"]
        expected = np.sign(pair["rank_biserial"]) if pair["p_holm"] <= 0.05 else 0
        assert verdicts.loc[a, b] == expected == -verdicts.loc[b, a]
        seen.add(expected)
    assert {0, 1} <= {abs(v) for v in seen}


@pytest.mark.parametrize("outputs", [1, 2, 5, 6])
def test_labels_of_diversity_stand_clear_of_the_caption(fabricate: Make, outputs: int) -> None:
    f = fabricate()
    spread = [0.01 * i for i in range(12)]
    for i in range(outputs):
        f.cell(f"method_{i}", {"diverse": {"diversity_samples": spread, "diversity_raters": spread}})
    with paper_style():
        figure, _ = draw_diversity(sheets_of(f.results)[0])
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        caption_top = max(t.get_window_extent(renderer).y1 for t in figure.texts)
        panels = [ax.get_tightbbox(renderer) for ax in figure.axes if ax.axison]
    assert min(box.y0 for box in panels) > caption_top
    assert max(box.y1 for box in panels) < figure.bbox.y1


def test_tables_that_were_made_are_not_made_again(fabricate: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"ged": [0.1 * i for i in range(12)]}})
    sheets = sheets_of(f.results)
    monkeypatch.setattr("multirater.benchmark.figures.book.sheets_of", None)
    assert [p.name for p in draw_figures(f.results, ["cases"], sheets=sheets)] == ["cases__toy.png"]


def test_cost_names_whom_nobody_beats(tables: Any) -> None:
    table = tables["cost"]
    training = table[(table["cost"] == "train_seconds") & (table["metric"] == "dice_soft")].set_index("method")
    assert training["amount"].to_dict() == {"net": 126.0, "plain": 60.0}
    assert training["pareto"].all()  # one is better, the other cheaper
    memory = table[(table["cost"] == "peak_memory_mb") & (table["metric"] == "dice_soft")].set_index("method")
    assert memory["pareto"].to_dict() == {"net": True, "plain": False}
    points = pd.DataFrame({"value": [0.3, 0.2, 0.2, 0.5], "amount": [1.0, 2.0, 2.0, 0.5]})
    assert _front(points, "lower") == [True, True, True, True]
    assert _front(points, "higher") == [False, False, False, True]


def test_one_method_has_no_ranking(fabricate: Make) -> None:
    f = fabricate()
    f.cell("net", {"diverse": {"ged": [0.1 * i for i in range(12)]}})
    drawn = {p.stem for p in draw_figures(f.results, RANKED)}
    assert drawn == {"cases__toy"}
    said = left_out(f.results)
    assert {said[kind] for kind in RANKED[1:]} == {"one method can be ranked, 2 are needed"}


def test_one_case_and_constant_values_are_drawn(fabricate: Make) -> None:
    f = fabricate()
    for method, value in (("a", 0.2), ("b", 0.2)):
        f.cell(method, {"diverse": {"ged": [value]}})
    drawn = {p.stem for p in draw_figures(f.results, RANKED)}
    assert drawn == {"cases__toy", "rank_stability__toy", "significance__toy", "cost__toy"}
    assert "1 patient" in left_out(f.results)["critical_difference"]
    g = fabricate("constant")
    for method in "ab":
        g.cell(method, {"diverse": {"ged": [0.2] * 12}})
    drawn = {p.stem for p in draw_figures(g.results, RANKED)}
    assert "critical_difference__toy" not in drawn
    assert "no difference" in left_out(g.results)["critical_difference"]


def test_values_that_nothing_defines_are_named(fabricate: Make) -> None:
    f = fabricate()
    f.cell("a", {"diverse": {"ged": [(np.nan, "data: no rater")] * 3}})
    f.cell("b", None)
    draw_figures(f.results, RANKED)
    assert set(left_out(f.results)) >= set(RANKED)
    with pytest.raises(UserError, match="nothing was run there yet"):
        draw_figures(fabricate("empty").results)


def test_a_figure_has_the_width_of_its_column(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    with paper_style():
        figure, ax = plt.subplots(figsize=(3.5, 2), layout="constrained")
        caption(figure, "word " * 60, notice="image: simulated")
        paths = save(figure, pd.DataFrame({"x": [1]}), tmp_path, "one")
        from PIL import Image

        with Image.open(paths[0]) as image:
            assert image.size[0] == 700
        figure, ax = plt.subplots(figsize=(3.5, 2), layout="constrained")
        ax.text(1.5, 0.5, "outside", transform=ax.transAxes)
        with Image.open(save(figure, pd.DataFrame(), tmp_path, "two")[0]) as image:
            assert image.size[0] > 700  # nothing is cut away


def test_long_names_keep_both_ends() -> None:
    assert short("dpersona", 10) == "dpersona"
    assert short("dpersona (train.steps=1200)", 15) == "dperson…s=1200)"
    assert len(short("x" * 50, 12)) == 12
