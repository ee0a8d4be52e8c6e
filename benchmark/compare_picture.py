"""The picture of a comparison: every case of A against B, and the cases that decide it as images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .compare import Comparison
from .figures.book import slug
from .figures.qualitative import contour, crop_box, picture
from .figures.source import LeftOut, Scored, open_once, scored
from .figures.style import BLUE, GREY, VERMILLION, paper_style, rater_colour, save
from .layout import ARROWS, fixed
from .sheet import Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EACH_SIDE = 3  # cases shown as images
_SAMPLES = 8  # outlines of samples in a panel
_PANEL = 0.95  # inches


def draw_comparisons(results: Path, found: Sequence[Comparison]) -> list[Path]:
    """``derived/compare/<metric>__<dataset>__<A>__<B>.png``, ``.pdf`` and ``.csv`` (all cases) of each."""
    folder = Path(results) / "derived" / "compare"
    written: list[Path] = []
    names: dict[str, int] = {}
    with paper_style(), open_once():
        for one in found:
            stem = "__".join(
                slug(p) for p in (one.metric, str(one.sheet.group.key["dataset"]), *map(_name(one), (0, 1)))
            )
            names[stem] = names.get(stem, 0) + 1
            if names[stem] > 1:  # a second table of the data set
                stem += f"__{slug(one.sheet.group.slug)}"
            written += save(draw(one), one.cases, folder, stem)
    return written


def _name(one: Comparison) -> Any:
    return lambda i: f"{one.names[i]}-{one.found.lines[i].output}"


def draw(one: Comparison) -> Figure:
    """Left the values of all cases, right the deciding ones: image with readers' outlines, A's output, B's output."""
    import matplotlib.pyplot as plt

    chosen = one.deciding(EACH_SIDE)
    sides = [_shown(one, line, set(chosen["case_id"])) for line in one.found.lines]
    rows = [r for r in chosen.to_dict("records") if any(r["case_id"] in cases for cases, _ in sides)]
    height = max(2.9, 0.55 + len(rows) * (_PANEL + 0.06) + 0.3)
    width = 3.1 + (3 * (_PANEL + 0.06) + 0.9 if rows else 0.0)
    figure = plt.figure(figsize=(width, height))
    _scatter(figure.add_axes((0.5 / width, (height - 2.55) / height, 2.2 / width, 2.2 / height)), one, chosen)
    for y, record in enumerate(rows):
        top = height - 0.5 - y * (_PANEL + 0.06)
        of_case = [cases.get(record["case_id"]) for cases, _ in sides]
        for x in range(3):
            place = (3.75 + x * (_PANEL + 0.06)) / width, (top - _PANEL) / height, _PANEL / width, _PANEL / height
            ax = figure.add_axes(place)
            ax.set_axis_off()
            _panel(ax, of_case, [line.output for line in one.found.lines], x)
            if y == 0:
                ax.set_title(("image, readers", *one.names)[x], fontsize=6.5, loc="center", wrap=True)
        figure.text(3.7 / width, (top - _PANEL / 2) / height, _caption(y, record), ha="right", va="center", fontsize=6)
    missing = [why for _, why in sides if why]
    said = [one.sheet.group.title, *([one.sheet.group.notice] if one.sheet.group.notice else [])]
    if rows:
        said.append(
            "outlines: readers; masks for the readers in their colours, samples, or mean map > 0.5; grey: mean map"
        )
    if rows and one.sheet.group.class_names:
        said.append(f"images: class {one.sheet.group.class_names[0]} alone")
    if missing:
        said.append(f"{'not all' if rows else 'no'} images: " + "; ".join(dict.fromkeys(missing)))
    figure.text(0.02, 0.01, "\n".join(said), fontsize=5.5, color=GREY, va="bottom")
    return figure


def _scatter(ax: Axes, one: Comparison, chosen: Any) -> None:
    table = one.found.table
    a, b = table.values
    low, high = float(min(a.min(), b.min())), float(max(a.max(), b.max()))
    margin = 0.05 * (high - low) or 0.05
    ends = (low - margin, high + margin)
    ax.plot(ends, ends, color=GREY, linewidth=0.7, zorder=1)
    ax.scatter(a, b, s=7, color=BLUE, alpha=0.5, linewidths=0, zorder=2)
    ax.scatter(chosen["a"], chosen["b"], s=14, facecolors="none", edgecolors=VERMILLION, linewidths=0.9, zorder=3)
    for i, record in enumerate(chosen.to_dict("records")):
        ax.annotate(str(i + 1), (record["a"], record["b"]), xytext=(3, 2), textcoords="offset points", fontsize=6)
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)
    ax.set_aspect("equal")
    ax.set_xlabel(f"A: {one.names[0]}")
    ax.set_ylabel(f"B: {one.names[1]}")
    at_s = f", S = {one.found.n_samples}" if one.found.n_samples else ""
    ax.set_title(f"{one.metric}{ARROWS[one.found.direction]}{at_s}, {table.n} cases", fontsize=7.5)


def _caption(i: int, record: dict[str, Any]) -> str:
    side = "A" if record["gain"] > 0 else "B"
    return f"{i + 1}: for {side}\nA {fixed(record['a'], 3)}\nB {fixed(record['b'], 3)}"


@dataclass(frozen=True)
class _Shown:
    """A deciding case as one side has it: image C×H×W, readers R×H×W, mean map H×W, and what else is stored."""

    image: NDArray[np.float32]
    readers: NDArray[np.bool_]
    mean: NDArray[np.float32]
    raters: NDArray[np.bool_] | None
    samples: NDArray[np.bool_] | None

    @classmethod
    def of(cls, found: Scored, i: int) -> _Shown:
        stored = found.stored
        raters = None if stored.raters is None else stored.raters[i] > 0.5
        samples = None if stored.samples is None else stored.samples[i, :_SAMPLES].copy()
        return cls(found.image(i), found.masks[i], stored.mean[i].copy(), raters, samples)


def _shown(one: Comparison, line: Line, wanted: set[str]) -> tuple[dict[str, _Shown], str]:
    """The wanted cases by id, each from the line's first seed that predicts it; and why some are not there."""
    row = one.sheet.row(line)
    if row.human:
        return {}, "the readers predict nothing"
    shown: dict[str, _Shown] = {}
    reasons = []
    for cell in sorted(row.cells, key=lambda c: (c.spec["seed"], c.spec["fold"])):
        if wanted <= set(shown):
            break
        try:
            found = scored(cell)
        except LeftOut as reason:
            reasons.append(str(reason))
            continue
        position = {case: i for i, case in enumerate(found.case_ids)}
        shown |= {case: _Shown.of(found, position[case]) for case in sorted(wanted - set(shown)) if case in position}
    return shown, "" if wanted <= set(shown) else "; ".join(dict.fromkeys(reasons))


def _panel(ax: Axes, of_case: Sequence[_Shown | None], outputs: Sequence[str], x: int) -> None:
    """Image and readers (x = 0), or what A (1) or B (2) gives."""
    there = [side for side in of_case if side is not None]
    side = there[0] if x == 0 else of_case[x - 1]
    if side is None:
        ax.text(0.5, 0.5, "not stored", ha="center", va="center", fontsize=6, color=GREY, transform=ax.transAxes)
        return
    height, width = side.readers.shape[-2:]
    box = crop_box([side.readers, *(s.mean > 0.5 for s in there)], (height, width))
    if x == 0:
        ax.imshow(picture(side.image)[box], cmap="gray", vmin=0, vmax=1)
        _outlines(ax, side.readers, box)
        return
    ax.imshow(side.mean[box], cmap="gray", vmin=0, vmax=1)
    output = outputs[x - 1]
    if output == "personalised" and side.raters is not None:
        _outlines(ax, side.raters, box)
    elif output == "diverse" and side.samples is not None:
        _outlines(ax, side.samples, box, VERMILLION, 0.5)
    else:
        _outlines(ax, (side.mean > 0.5)[None], box, VERMILLION)


def _outlines(
    ax: Axes, masks: NDArray[np.bool_], box: tuple[slice, slice], colour: str = "", width: float = 0.8
) -> None:
    """Masks M×H×W; without a colour each in that of its reader. Where all are empty, a word says so."""
    if not masks.any():
        ax.text(0.5, 0.5, "empty", ha="center", va="center", fontsize=6, color=GREY, transform=ax.transAxes)
    for r, mask in enumerate(masks):
        if mask.any():
            contour(ax, mask[box].astype(np.float32), colour or rater_colour(r), width)
