"""The picture of a comparison: every case of A against B, and the cases that decide it as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .compare import Comparison
from .figures.book import slug
from .figures.qualitative import crop_box
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
    sources = [_source(one, line) for line in one.found.lines]
    usable = next((s for s in sources if not isinstance(s, str)), None)
    rows = [r for r in chosen.to_dict("records") if usable is not None and r["case_id"] in usable.case_ids]
    height = max(2.9, 0.55 + len(rows) * (_PANEL + 0.06) + 0.3)
    width = 3.1 + (3 * (_PANEL + 0.06) + 0.9 if rows else 0.0)
    figure = plt.figure(figsize=(width, height))
    _scatter(figure.add_axes((0.5 / width, (height - 2.55) / height, 2.2 / width, 2.2 / height)), one, chosen)
    for y, record in enumerate(rows):
        top = height - 0.5 - y * (_PANEL + 0.06)
        for x in range(3):
            place = (3.75 + x * (_PANEL + 0.06)) / width, (top - _PANEL) / height, _PANEL / width, _PANEL / height
            ax = figure.add_axes(place)
            ax.set_axis_off()
            _panel(ax, one, sources, usable, record, x)
            if y == 0:
                ax.set_title(("image, readers", *one.names)[x], fontsize=6.5, loc="center", wrap=True)
        figure.text(3.7 / width, (top - _PANEL / 2) / height, _caption(y, record), ha="right", va="center", fontsize=6)
    missing = [s for s in sources if isinstance(s, str)]
    said = [one.sheet.group.title, *([one.sheet.group.notice] if one.sheet.group.notice else [])]
    if rows:
        said.append(
            "outlines: readers; masks for the readers in their colours, samples, or mean map > 0.5; grey: mean map"
        )
    if missing:
        said.append("no images: " + "; ".join(dict.fromkeys(missing)))
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


def _source(one: Comparison, line: Line) -> Scored | str:
    """The scored cases of a line's first cell, or why there are none."""
    row = one.sheet.row(line)
    if row.human:
        return "the readers predict nothing"
    cells = sorted(row.cells, key=lambda c: (c.spec["seed"], c.spec["fold"]))
    try:
        return scored(cells[0])
    except LeftOut as reason:
        return str(reason)


def _panel(
    ax: Axes, one: Comparison, sources: Sequence[Scored | str], usable: Scored | None, record: dict[str, Any], x: int
) -> None:
    assert usable is not None
    source = usable if x == 0 else sources[x - 1]
    if isinstance(source, str) or record["case_id"] not in source.case_ids:
        ax.text(0.5, 0.5, "not stored", ha="center", va="center", fontsize=6, color=GREY, transform=ax.transAxes)
        return
    i = source.case_ids.index(record["case_id"])
    readers = source.masks[i]
    stored = [s for s in sources if not isinstance(s, str) and record["case_id"] in s.case_ids]
    means = [s.stored.mean[s.case_ids.index(record["case_id"])] > 0.5 for s in stored]
    box = crop_box([readers, *means], readers.shape[-2:])
    if x == 0:
        image = source.image(i)[0]
        ax.imshow(image[box], cmap="gray")
        _outlines(ax, [m[box] for m in readers], [rater_colour(r) for r in range(len(readers))])
        return
    output = one.found.lines[x - 1].output
    ax.imshow(source.stored.mean[i][box], cmap="gray", vmin=0, vmax=1)
    if output == "personalised" and source.stored.raters is not None:
        maps = source.stored.raters[i] > 0.5
        _outlines(ax, [m[box] for m in maps], [rater_colour(r) for r in range(len(maps))])
    elif output == "diverse" and source.stored.samples is not None:
        shown = source.stored.samples[i, :_SAMPLES]
        _outlines(ax, [m[box] for m in shown], [VERMILLION] * len(shown), 0.5)
    else:
        _outlines(ax, [(source.stored.mean[i] > 0.5)[box]], [VERMILLION])


def _outlines(ax: Axes, masks: Sequence[NDArray[np.bool_]], colours: Sequence[str], width: float = 0.8) -> None:
    for mask, colour in zip(masks, colours, strict=True):
        if mask.any() and not mask.all():
            ax.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=width)
