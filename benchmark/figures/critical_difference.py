"""Mean ranks within patients, with bars over the methods that cannot be told apart (Demšar 2006).

Bars join the runs in which no pair differs significantly by Wilcoxon's test after Holm's correction. Where Friedman's
test finds no difference at all, nothing is joined and the panel says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..ranked import Ranked
from ..sheet import Sheet
from ..statistics import nemenyi_distance
from .source import LeftOut
from .style import BLACK, BLUE, GREY, ONE_COLUMN, TWO_COLUMN, VERMILLION, caption, short
from .tracks import compared, footnote, grid_of, marked_names, rankings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 0.145  # inches of a name
_BAR = 0.07
_TOP = 0.16  # from the axis to the first name, without bars


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
    most = max(len(one.names) for one in found.values())
    bars = max(len(one.joined) for one in found.values() if not reasons[one.metric])
    reach = _TOP + _BAR * bars + _NAME * -(-most // 2) + 0.08
    height = reach + 0.47  # the axis with its numbers, and the title
    width = TWO_COLUMN if across > 1 else ONE_COLUMN
    figure, axes = plt.subplots(
        down, across, figsize=(width, height * down + 0.55), squeeze=False, layout="constrained"
    )
    records = []
    for ax, one in zip(axes.flat, found.values(), strict=False):
        ax.axis("off")
        ax.set_title(compared(one), loc="left", fontsize=7.5)
        if reasons[one.metric]:
            ax.text(0.5, 0.5, reasons[one.metric], transform=ax.transAxes, ha="center", va="center", fontsize=6.5)
        else:
            _diagram(ax, one, marked_names(sheet, one), reach)
        records.append(_table(one, joined=not reasons[one.metric]))
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    first = next(iter(found.values()))
    caption(
        figure,
        f"Mean rank of a method over {first.friedman.n} patients (1 = best)",
        "thick bars join methods without a significant difference (Wilcoxon, Holm, 5 %)",
        "red: Nemenyi's critical difference, for comparison with older papers",
        sheet.group.title,
        footnote(sheet, found),
        notice=sheet.group.notice,
    )
    return figure, pd.concat(records, ignore_index=True)


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


def _diagram(ax: Axes, one: Ranked, shown: dict[str, str], inches: float) -> None:
    """Ranks grow from left to right; the better half is named on the left, the others on the right."""
    ranks = dict(zip(one.names, one.friedman.mean_ranks, strict=True))
    order = sorted(one.names, key=lambda name: (ranks[name], name))
    size = len(order)
    span = max(size - 1, 1)
    left, right = 1 - 1.25 * span, size + 1.25 * span
    ax.set_xlim(left, right)
    ax.set_ylim(inches, -0.22)
    ax.plot([1, size], [0, 0], color=BLACK, linewidth=0.8)
    step = 1 if size <= 9 else 2 if size <= 12 else 4
    for place in range(1, size + 1):
        ax.plot([place, place], [0, -0.04], color=BLACK, linewidth=0.6)
        if (place - 1) % step == 0:
            ax.text(place, -0.06, str(place), ha="center", va="bottom", fontsize=6.5)
    bars = one.joined
    for i, bar in enumerate(bars):
        y = 0.1 + _BAR * i
        ends = [ranks[name] for name in bar]
        reach = 0.012 * (right - left)
        ax.plot(
            [min(ends) - reach, max(ends) + reach], [y, y], color=BLUE, linewidth=2.4, solid_capstyle="butt", zorder=3
        )
    top = _TOP + _BAR * len(bars)
    half = -(-size // 2)
    for i, name in enumerate(order):
        on_left = i < half
        y = top + _NAME * (i if on_left else size - 1 - i)
        end = 1 - 0.08 * span if on_left else size + 0.08 * span
        ax.plot([ranks[name], ranks[name], end], [0, y, y], color=GREY, linewidth=0.5, zorder=1)
        text = (
            f"{short(shown[name], 20)} {ranks[name]:.1f}" if on_left else f"{ranks[name]:.1f} {short(shown[name], 20)}"
        )
        ax.text(
            end, y, text + " " if on_left else " " + text, ha="right" if on_left else "left", va="center", fontsize=6.5
        )
    distance = nemenyi_distance(size, one.friedman.n)
    if distance < span:
        y = top + _NAME * half + 0.02
        ax.plot([1, 1 + distance], [y, y], color=VERMILLION, linewidth=1.0)
        for end in (1, 1 + distance):
            ax.plot([end, end], [y - 0.03, y + 0.03], color=VERMILLION, linewidth=1.0)
        ax.text(1 + distance, y, f" CD {distance:.2f}", ha="left", va="center", fontsize=6, color=VERMILLION)
