"""Figures of many methods: nothing hides anything, the width is used, captions say what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from multirater.benchmark.figures import draw_figures
from multirater.benchmark.figures.cost import draw as draw_cost
from multirater.benchmark.figures.critical_difference import draw as draw_critical_difference
from multirater.benchmark.figures.diversity import draw as draw_diversity
from multirater.benchmark.figures.labels import beside
from multirater.benchmark.figures.style import BLUE, VERMILLION, paper_style, save
from multirater.benchmark.leaderboard import sheets_of
from multirater.core.files import read_json, write_json

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def crowd(fabricate_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table of 17 methods that cost nearly the same, ten of them with a set of samples; with and without labels."""
    f = fabricate_at(tmp_path_factory.mktemp("crowd") / "results")
    rng = np.random.default_rng(0)
    for i in range(17):
        name, shift = f"unet_with_long_name_{i}", 0.01 * (i // 3)
        own = list(0.8 - shift + rng.normal(0, 0.02, 30))
        values: dict[str, Any] = {"dice_rater": own, "dice_rater.each": {"1": own}}
        values["dice_soft"] = list(0.8 - shift + rng.normal(0, 0.02, 30))
        if i < 10:
            values["ged"] = list(0.2 + shift + rng.normal(0, 0.02, 30))
            values["hm_iou"] = list(0.7 - shift + rng.normal(0, 0.02, 30))
        folder = f.cell(
            name,
            {"diverse": values},
            fallback={"diverse": ["dice_rater"]} if i < 8 else {},
            train={"seconds": {"train": 100.0 + i}, "peak_memory_mb": 550.0 + (400 if i == 16 else i)},
        )
        if i % 2:
            spec = read_json(folder / "spec.json")
            spec["method"]["label"] = "5 networks"
            write_json(folder / "spec.json", spec)
    return sheets_of(f.results)[0]


def drawn(draw: Callable[..., Any], sheet: Any) -> Any:
    """A figure that is laid out, and its renderer."""
    with paper_style():
        figure, _ = draw(sheet)
        figure.draw_without_rendering()
    return figure, figure.canvas.get_renderer()


def overlaps(boxes: list[Any]) -> list[tuple[int, int]]:
    """Pairs of boxes with common ground, beyond the half point that letters leave free at their edges."""
    inner = [b.padded(-0.5 * 200 / 72) for b in boxes]
    return [(i, j) for i, a in enumerate(inner) for j, b in enumerate(inner[:i]) if a.overlaps(b)]


def test_the_legend_of_cost_marks_common_masks_of_labelled_methods_too(crowd: Any) -> None:
    figure, _ = drawn(draw_cost, crowd)
    names = [text.get_text().split()[1] for text in figure.legends[0].get_texts()]
    assert sorted(n for n in names if n.endswith("†")) == sorted(f"unet_with_long_name_{i}†" for i in range(8))


def test_numbers_of_cost_hide_neither_each_other_nor_points(crowd: Any) -> None:
    figure, renderer = drawn(draw_cost, crowd)
    for ax in figure.axes:
        boxes = [Text.get_window_extent(text, renderer) for text in ax.texts]  # without the line to the point
        assert len(boxes) in (10, 17)
        assert overlaps(boxes) == []
        assert {text.get_fontsize() for text in ax.texts} == {6.0}
        frame = ax.get_window_extent().padded(3)
        assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)
        dots = np.concatenate(
            [ax.transData.transform(line.get_xydata()) for line in ax.lines if line.get_marker() == "o"]
        )
        assert len(dots) == len(boxes)
        assert [(b, d) for b in boxes for d in dots if b.padded(-2).contains(*d)] == []


def test_labels_of_points_on_one_place_stand_apart() -> None:
    points = np.concatenate([np.full((8, 2), 50.0), [[1.0, 1.0], [99.0, 79.0]]])
    sizes = np.tile([8.0, 6.0], (10, 1))
    centres = points + beside(points, sizes, np.array([100.0, 80.0]), 2.0, np.zeros((0, 2)))
    gaps = np.abs(centres[:, None] - centres) - sizes
    np.fill_diagonal(gaps[..., 0], 1)
    assert (gaps.max(2) >= 0).all()
    assert (centres >= sizes / 2).all()
    assert (centres <= np.array([100, 80]) - sizes / 2).all()
    assert beside(points[:1], sizes[:1], np.array([100.0, 80.0]), 2.0, np.zeros((0, 2))).tolist() == [[5.8, 0]]


def _scales(ax: Any) -> list[Any]:
    """The line of the ranks' axis and the bars of a diagram."""
    return [
        line for line in ax.lines if len(line.get_xdata()) == 2 and to_hex(line.get_color()) in ("#000000", "#0072b2")
    ]


def test_critical_difference_uses_its_width_and_joins_exact_ranks(crowd: Any) -> None:
    figure, renderer = drawn(draw_critical_difference, crowd)
    with paper_style():
        _, table = draw_critical_difference(crowd)
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert len(panels) == 4
    for ax, (_, part) in zip(panels, table.groupby("metric", sort=False), strict=True):
        ranks, (axis, *bars) = part["mean_rank"].to_numpy(), _scales(ax)
        ends = ax.transData.transform(axis.get_xydata())[:, 0]
        assert np.ptp(ends) > 0.5 * ax.get_window_extent().width
        assert bars
        for bar in bars:
            assert to_hex(bar.get_color()) == BLUE.lower()
            assert np.abs(np.subtract.outer(bar.get_xdata(), ranks)).min(1).max() < 1e-12
        assert overlaps([text.get_window_extent(renderer) for text in ax.texts]) == []
        assert min(text.get_fontsize() for text in ax.texts) >= 6
        lowest = min(text.get_window_extent(renderer).y0 for text in ax.texts)
        assert lowest == pytest.approx(ax.get_window_extent().y0, abs=0.2 * 200)  # no empty half below the names


@pytest.mark.parametrize("draw", [draw_critical_difference, draw_diversity])
def test_captions_name_the_colour_that_is_drawn(fabricate: Make, draw: Callable[..., Any]) -> None:
    f = fabricate()
    spread = np.random.default_rng(0).uniform(0, 1, 30)
    for method, value in (("a", 0.2), ("b", 0.5)):
        values = {"ged": list(value + 0.1 * spread), "diversity_samples": list(spread)}
        f.cell(method, {"diverse": {**values, "diversity_raters": list(spread)}})
    figure, _ = drawn(draw, sheets_of(f.results)[0])
    assert VERMILLION.lower() in {to_hex(line.get_color()) for ax in figure.axes for line in ax.lines}
    words = figure.get_supxlabel().replace(":", "").replace(";", "").split()
    assert "vermilion" in words
    assert "red" not in words


def test_outputs_with_the_same_masks_are_one_panel_of_diversity(fabricate: Make) -> None:
    f = fabricate()
    spread = [0.01 * i for i in range(12)]
    same = {"diversity_samples": spread, "diversity_raters": spread}
    other = {**same, "diversity_samples": spread[::-1]}
    f.cell("heads", {"diverse": same, "personalised": same}, n_samples=4)
    f.cell("twin", {"diverse": same, "personalised": other}, n_samples=4)
    with paper_style():
        figure, table = draw_diversity(sheets_of(f.results)[0])
    titles = [ax.get_title(loc="left").split(",")[0] for ax in figure.axes if ax.axison]
    assert titles == ["heads\ndiverse", "twin\ndiverse", "twin\npersonalised"]
    assert len(table) == 3 * 12
    assert "same masks: once" in " ".join(figure.get_supxlabel().split())


def test_a_figure_is_laid_out_once_for_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings: list[Any] = []
    draw = Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: drawings.append(renderer) or draw(self, renderer))
    with paper_style():
        figure, _ = plt.subplots(figsize=(3.5, 2), layout="constrained")
        save(figure, pd.DataFrame({"x": [1]}), tmp_path, "one")
    assert len(drawings) == 3  # to lay it out, the PNG, the PDF


def test_each_picture_is_named_when_it_is_written(fabricate: Make) -> None:
    f = fabricate()
    values = {"personalised": {"dice_rater": [0.5] * 12, "dice_rater.each": {"1": [0.5] * 12}}}
    f.cell("net", values)
    seen: list[tuple[str, int]] = []
    folder = f.results / "derived" / "figures"

    def said(path: Path) -> None:
        seen.append((path.name, len(list(folder.glob("*.png")))))

    first = draw_figures(f.results, ["per_rater", "cases"], said=said)
    assert [name for name, _ in seen] == [path.name for path in first]
    assert [count for _, count in seen] == [1, 2]
    draw_figures(f.results, ["per_rater", "cases"], said=said)  # up to date: named, too
    assert [name for name, _ in seen] == 2 * [path.name for path in first]
