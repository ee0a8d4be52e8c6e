"""The picture of ``multirater compare``: every deciding case is shown from the fold that predicted it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from multirater.benchmark import compare_picture
from multirater.benchmark.compare import compare
from multirater.benchmark.figures.source import LeftOut
from multirater.benchmark.figures.style import paper_style

Make = Callable[..., Any]
SIDE = 40


def cell_of(cases: list[str], channels: int = 1) -> Any:
    """What `scored` gives of a cell: a square for both readers and every sample, at the left border of the image."""
    masks = np.zeros((len(cases), 2, SIDE, SIDE), bool)
    masks[:, :, 10:20, :12] = True
    image = np.linspace(0, 1000, channels * SIDE * SIDE, dtype=np.float32).reshape(channels, SIDE, SIDE)
    stored = SimpleNamespace(mean=masks.mean(1).astype(np.float32), samples=masks, raters=None)
    return SimpleNamespace(case_ids=cases, masks=masks, stored=stored, image=lambda i: image)


@pytest.fixture
def two_folds(fabricate: Make) -> Any:
    """A against B in two folds of twelve cases; those that decide lie in both."""
    f = fabricate()
    for fold in (0, 1):
        base = 0.3 + 0.01 * np.arange(12)
        f.cell("a", {"diverse": {"ged": list(base)}}, fold=fold)
        f.cell("b", {"diverse": {"ged": list(base + 0.1 + 0.005 * np.arange(12) * (fold == 1))}}, fold=fold)
    (one,), _ = compare(f.results, "a", "b", ["ged"])
    return one


def drawn(one: Any) -> tuple[list[Any], str]:
    """Panels with an image, and all that is written in the figure."""
    with paper_style():
        figure = compare_picture.draw(one)
    panels = [ax for ax in figure.axes if ax.images]
    return panels, "\n".join(t.get_text() for t in [*figure.texts, *(t for ax in figure.axes for t in ax.texts)])


def test_deciding_cases_of_every_fold_are_shown(two_folds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    deciding = list(two_folds.deciding(compare_picture.EACH_SIDE)["case_id"])
    assert any(case.startswith("c1") for case in deciding), "none of the second fold decides: nothing is tested"
    read = []

    def scored(cell: Any) -> Any:
        read.append(cell.name)
        return cell_of([f"c{i + 1000 * cell.spec['fold']:04d}" for i in range(12)])

    monkeypatch.setattr(compare_picture, "scored", scored)
    panels, said = drawn(two_folds)
    assert len(panels) == 3 * len(deciding)
    assert "not stored" not in said
    assert "images:" not in said
    assert len(read) == len(set(read)) == 4


def test_a_fold_without_predictions_is_said(two_folds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(cell: Any) -> Any:
        if cell.spec["fold"] == 1 and cell.method == "b":
            raise LeftOut(f"{cell.name} stores no predictions")
        return cell_of([f"c{i + 1000 * cell.spec['fold']:04d}" for i in range(12)])

    monkeypatch.setattr(compare_picture, "scored", scored)
    _, said = drawn(two_folds)
    assert "not stored" in said
    assert "not all images: b/toy/f1-s0" in said


def test_colours_stay_colours_and_outlines_close_at_the_border(two_folds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [f"c{i + 1000 * fold:04d}" for fold in (0, 1) for i in range(12)]
    monkeypatch.setattr(compare_picture, "scored", lambda cell: cell_of(cases, channels=3))
    panels, _ = drawn(two_folds)
    assert panels[0].images[0].get_array().shape[-1] == 3
    outline = panels[0].collections[0].get_paths()[0]
    assert outline.vertices[:, 0].min() < 0  # the side at the border is drawn as well


def test_an_empty_output_is_called_empty(two_folds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [f"c{i + 1000 * fold:04d}" for fold in (0, 1) for i in range(12)]

    def scored(cell: Any) -> Any:
        found = cell_of(cases)
        if cell.method == "b":
            found.stored.samples = np.zeros_like(found.stored.samples)
        return found

    monkeypatch.setattr(compare_picture, "scored", scored)
    panels, said = drawn(two_folds)
    assert said.count("empty") == len(panels) // 3
