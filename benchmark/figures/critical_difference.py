"""Mean ranks within patients, with bars over the methods that cannot be told apart (Demšar 2006).

Bars join the runs in which no pair differs significantly by Wilcoxon's test after Holm's correction. Where Friedman's
test finds no difference at all, nothing is joined and the panel says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..ranked import Ranked
from ..sheet import Sheet
from ..statistics import nemenyi_distance
from .source import LeftOut
from .style import BLACK, BLUE, GREY, ONE_COLUMN, TWO_COLUMN, VERMILLION, caption, short, text_width
from .tracks import compared, footnote, grid_of, marked_names, rankings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 0.122  # inches of a name
_SIZE = 6.5  # of its letters, in points
_ELBOW = 0.03  # from a line to the name at its end
_BAR = 0.07
_TOP = 0.16  # from the axis to the first name, without bars
_STEPS = (1, 2, 5, 10, 20, 50, 100, 1000)  # from one numbered rank to the next


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """One diagram for each primary metric.

    Raises:
        LeftOut: fewer than two methods can be ranked, or Friedman's test finds no difference in any metric.
    """
    import matplotlib.pyplot as plt

    found = rankings_of(sheet, least=2)
    reasons = {one.metric: _reason(one) for one in found.values()}
    if all(reasons.values()):
        raise LeftOut("; ".join(f"{metric}: {why}" for metric, why in reasons.items()))
    down, across = grid_of(found)
    shown = list(found.values())
    reach = [0.0 if reasons[one.metric] else _reach(one) for one in shown]
    heights = [max(reach[across * i : across * (i + 1)]) for i in range(down)]  # of a line of panels, below the axis
    width = TWO_COLUMN if across > 1 else ONE_COLUMN
    above = 0.47  # the axis with its numbers, and the title
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(width, sum(heights) + above * down + 0.55),
        height_ratios=[height + above for height in heights],
        squeeze=False,
        layout="constrained",
    )
    records = []
    for i, (ax, one) in enumerate(zip(axes.flat, shown, strict=False)):
        ax.axis("off")
        ax.set_title(compared(one), loc="left", fontsize=7.5)
        if reasons[one.metric]:
            ax.text(0.5, 0.5, reasons[one.metric], transform=ax.transAxes, ha="center", va="center", fontsize=6.5)
        else:
            _diagram(ax, one, marked_names(sheet, one), width / across - 0.1, heights[i // across])
        records.append(_table(one, joined=not reasons[one.metric]))
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    caption(
        figure,
        f"Mean rank of a method over {shown[0].friedman.n} patients (1 = best)",
        "thick bars join methods without a significant difference (Wilcoxon, Holm, 5 %)",
        "vermilion: Nemenyi's critical difference, for comparison with older papers",
        sheet.group.title,
        footnote(sheet, found),
        notice=sheet.group.notice,
    )
    return figure, pd.concat(records, ignore_index=True)


def _reach(one: Ranked) -> float:
    """Inches from the axis to the lower end of a diagram."""
    return _TOP + _BAR * len(one.joined) + _NAME * len(one.names) + 0.1


def _reason(one: Ranked) -> str:
    test = one.friedman
    if test.note and np.isnan(test.p):
        return test.note
    return "" if test.significant else f"Friedman's test finds no difference (p = {test.p:.2g})"


def _table(one: Ranked, joined: bool) -> pd.DataFrame:
    test = one.friedman
    bars = one.joined if joined else []
    return pd.DataFrame(
        {
            "metric": one.metric,
            "n_samples": one.n_samples,
            "method": list(one.names),
            "mean_rank": test.mean_ranks,
            "bars": [" ".join(str(i + 1) for i, bar in enumerate(bars) if name in bar) for name in one.names],
            "friedman_statistic": test.statistic,
            "friedman_p": test.p,
            "n_patients": test.n,
            "nemenyi_distance": nemenyi_distance(len(one.names), test.n),
        }
    ).sort_values(["mean_rank", "method"], kind="stable", ignore_index=True)


def _diagram(ax: Axes, one: Ranked, shown: dict[str, str], width: float, height: float) -> None:
    """Ranks grow from left to right; each method is named left of its own line, the best one on top.

    A line ends at its name and all that are longer stand to the right of it: names need no room of their own but that
    of the first few left of the axis.
    """
    ranks = dict(zip(one.names, one.friedman.mean_ranks, strict=True))
    order = sorted(one.names, key=lambda name: (ranks[name], name))
    texts = [f"{short(shown[name], 24)} {ranks[name]:.1f}" for name in order]
    distance = nemenyi_distance(len(order), one.friedman.n)
    low = np.floor(ranks[order[0]])
    high = min(len(order), max(np.ceil(ranks[order[-1]]), low + 1, np.ceil(low + distance)))
    unit = _unit(np.array([ranks[name] for name in order]) - low, texts, high - low, width)
    ax.set_xlim(high + 0.08 / unit - width / unit, high + 0.08 / unit)
    ax.set_ylim(height, -0.22)
    ax.plot([low, high], [0, 0], color=BLACK, linewidth=0.8)
    ax.vlines(np.arange(low, high + 1), -0.04, 0, color=BLACK, linewidth=0.6)
    step = next(step for step in _STEPS if step * unit >= 0.2)
    for place in range(int(low), int(high) + 1):
        if (place - 1) % step == 0:
            ax.text(place, -0.06, str(place), ha="center", va="bottom", fontsize=6.5)
    for i, bar in enumerate(one.joined):
        ends = [min(ranks[name] for name in bar), max(ranks[name] for name in bar)]
        ax.plot(ends, [0.1 + _BAR * i] * 2, "|-", color=BLUE, lw=2, ms=4, mew=0.8, solid_capstyle="butt", zorder=3)
    top = _TOP + _BAR * len(one.joined)
    for i, (name, text) in enumerate(zip(order, texts, strict=True)):
        y, end = top + _NAME * i, ranks[name] - _ELBOW / unit
        ax.plot([ranks[name], ranks[name], end], [0, y, y], color=GREY, linewidth=0.5, zorder=1)
        ax.text(end, y, f"{text} ", ha="right", va="center", fontsize=_SIZE)
    if low + distance <= high:
        y = top + _NAME * len(order) + 0.02
        ax.plot([low, low + distance], [y, y], "|-", color=VERMILLION, linewidth=1.0, markersize=4, mew=1.0)
        ax.text(low, y, f"CD {distance:.2f}  ", ha="right", va="center", fontsize=_SIZE, color=VERMILLION)


def _unit(ranks: NDArray[np.float64], texts: list[str], span: float, width: float) -> float:
    """Inches of a rank: the most at which every name fits between the panel's edge and its line."""
    room = width - 0.08 - np.array([text_width(f"{text} ", _SIZE) + _ELBOW for text in texts])
    inside = ranks < span
    return float(min([(width - 0.6) / span, *(room[inside] / (span - ranks[inside]))]))
