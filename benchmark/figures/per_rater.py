"""Dice of each reader for every row of a table, with intervals over patients: learned, trivial and human together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..sheet import Line, Sheet
from .source import LeftOut
from .style import BLACK, BLUE, TWO_COLUMN, VERMILLION, caption, short
from .style import counted as said_of
from .tracks import labels, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOK: dict[str, dict[str, Any]] = {
    "human": {"color": BLACK, "marker": "D", "mfc": BLACK},
    "method": {"color": BLUE, "marker": "o", "mfc": BLUE},
    "common": {"color": BLUE, "marker": "o", "mfc": "white"},
    "trivial": {"color": VERMILLION, "marker": "s", "mfc": "white"},
}
_MOST = 56  # lines on a page
_SAID = {
    "human": "human and oracle",
    "method": "method, own mask per reader",
    "common": "method, common mask for all",
    "trivial": "trivial row",
}


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """One panel per reader and one for the mean; rows as in the table.

    Raises:
        LeftOut: reader slots mean nothing here, or no row has a Dice per reader.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    if not sheet.show_raters:
        raise LeftOut("the readers of this data set have no identity")
    metrics = [*(f"dice_rater[{r}]" for r in sheet.raters), "dice_rater"]
    lines, said = _shown(sheet, metrics)
    if not lines:
        raise LeftOut("no row has a Dice per reader")
    height = 0.15 * len(lines) + 1.05
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(TWO_COLUMN, height), sharey=True, sharex=True, layout="constrained"
    )
    records, used = [], []
    for ax, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        for y, line in enumerate(lines):
            score = sheet.score(line, metric)
            if score is None or np.isnan(score.value):
                continue
            look = "common" if line.kind == "method" and score.fallback else line.kind
            used.append(look)
            style = _LOOK[look]
            if score.has_interval:
                ax.plot([score.ci_low, score.ci_high], [y, y], color=style["color"], linewidth=0.9, zorder=2)
            ax.plot(score.value, y, linestyle="", markersize=3.8, markeredgewidth=0.9, zorder=3, **style)
            records.append(
                {
                    "method": sheet.row(line).name,
                    "output": line.output,
                    "kind": look,
                    "metric": metric,
                    "value": score.value,
                    "ci_low": score.ci_low,
                    "ci_high": score.ci_high,
                    "fallback": score.fallback,
                }
            )
        ax.set_title("mean" if metric == "dice_rater" else reader_name(metric[11:-1]), loc="left")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.locator_params(axis="x", nbins=3)
        _separate(ax, sheet, lines)
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(lines)), [_name(sheet, line) for line in lines])
    first.set_ylim(len(lines) - 0.5, -0.5)
    seen = [look for look in _LOOK if look in used]
    handles = [Line2D([], [], linestyle="", markersize=4, label=_SAID[look], **_LOOK[look]) for look in seen]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handletextpad=0.1, columnspacing=1.2)
    scores = [score for line in lines if (score := sheet.score(line, "dice_rater")) is not None]
    caption(
        figure,
        "Dice with the reader ↑, 95 % intervals over patients",
        *said,
        sheet.group.title,
        said_of(max(s.n_cases for s in scores), max(s.n_patients for s in scores)),
        labels(sheet),
        notice=sheet.group.notice,
    )
    return figure, pd.DataFrame(records)


def _shown(sheet: Sheet, metrics: list[str]) -> tuple[list[Line], list[str]]:
    """Lines to draw, and what to say of those that are not.

    Of the outputs of a row with the same numbers (one common mask behind all) the first is drawn. Where more lines are
    left than a page holds, trivial rows give way, the thresholds per reader last; the tables keep them all.
    """
    seen: set[tuple[Any, ...]] = set()
    lines = []
    having = [line for line in sheet.lines if sheet.score(line, "dice_rater") is not None]
    for line in having:
        scores = [sheet.score(line, metric) for metric in metrics]
        numbers = (line.row, *(None if s is None else (round(s.value, 9), s.fallback) for s in scores))
        if line.kind == "human" or numbers not in seen:
            lines.append(line)
        seen.add(numbers)
    said = ["outputs with the same masks for all readers: once"] if len(lines) < len(having) else []
    for keep, words in ((("own_threshold",), "further trivial rows"), ((), "trivial rows")):
        if len(lines) > _MOST:
            lines = [line for line in lines if line.kind != "trivial" or line.output in keep]
            said = [*said[:1], f"{words}: in the table only"]
    return lines, said


def reader_name(rater: str) -> str:
    """A heading for a reader: its own name, or "reader 3" where that is only a number."""
    return f"reader {rater}" if rater.isdigit() else rater


def _name(sheet: Sheet, line: Line) -> str:
    return line.output if line.kind == "human" else short(f"{row_name(sheet, line.row)}: {line.output}", 40)


def _separate(ax: Axes, sheet: Sheet, lines: list[Line]) -> None:
    """A thin rule between the rows of different methods."""
    for y in range(1, len(lines)):
        if lines[y].row != lines[y - 1].row:
            ax.axhline(y - 0.5, color="#DDDDDD", linewidth=0.6, zorder=1)
