"""Case values of every method: density, quartiles and each single case, for the primary metrics of the tracks."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.seeding import numpy_generator
from ..ranked import Ranked
from ..sheet import Sheet
from .style import BLACK, BLUE, SKY, TWO_COLUMN, short
from .tracks import compared, mark, ranked_caption, rankings_of, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LANE = 0.36  # inches of a method
_GRID = 200  # points of a density


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """One panel a metric, one lane a method, in the order of the first metric's ranking.

    Raises:
        LeftOut: no method has a value that can be ranked.
    """
    import matplotlib.pyplot as plt

    found = rankings_of(sheet)
    rows = list(dict.fromkeys(one.lines[one.names.index(name)].row for one in found.values() for name in one.order))
    figure, axes = plt.subplots(
        1,
        len(found),
        figsize=(TWO_COLUMN, _LANE * len(rows) + 0.85),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    records = []
    for ax, one in zip(axes[0], found.values(), strict=True):
        by_row = {line.row: i for i, line in enumerate(one.lines)}
        for y, row in enumerate(rows):
            if row not in by_row:
                why = _why(one, row)
                ax.text(0.5, y, why, transform=ax.get_yaxis_transform(), ha="center", va="center", fontsize=5.5)
                continue
            i = by_row[row]
            values = one.table.values[i]
            _lane(ax, y, values, one.metric, one.names[i])
            records.append(
                pd.DataFrame({"case_id": one.table.cases, "value": values}).assign(
                    metric=one.metric, method=one.names[i], output=one.lines[i].output, n_samples=one.n_samples
                )
            )
            dagger = mark(sheet, one, one.lines[i])
            if dagger:
                ax.text(1.0, y, dagger, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=7)
        _finish(ax, one)
    axes[0, 0].set_yticks(range(len(rows)), [short(row_name(sheet, r), 24) for r in rows])
    axes[0, 0].set_ylim(len(rows) - 0.45, -0.6)
    ranked_caption(
        figure,
        sheet,
        found,
        "a dot is a case, averaged over seeds; box: quartiles and median; whiskers: 5 and 95 %; diamond: mean",
    )
    table = pd.concat(records, ignore_index=True)
    return figure, table[["metric", "method", "output", "n_samples", "case_id", "value"]]


def _why(one: Ranked, row: int) -> str:
    """Why a row is not compared, in short lines; of its outputs, the one that would have competed says it."""
    reasons = [why for line, why in one.left_out.items() if line.row == row]
    own = [why for why in reasons if not why.startswith("the method competes")] or reasons or ["not compared"]
    return "\n".join(textwrap.wrap(own[0], 26))


def _lane(ax: Axes, y: float, values: NDArray[np.float64], metric: str, name: str) -> None:
    values = values[~np.isnan(values)]
    grid, density = _density(values)
    if density is not None:
        ax.fill_between(grid, y - 0.06, y - 0.06 - 0.4 * density, color=SKY, alpha=0.55, linewidth=0, zorder=2)
    # The jitter is drawn from the names: another method in the table does not move the dots of this one.
    jitter = numpy_generator("jitter", metric=metric, method=name).uniform(0.12, 0.36, len(values))
    ax.scatter(values, y + jitter, s=1.6, color=BLUE, alpha=0.35, linewidths=0, zorder=2, rasterized=True)
    low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    ax.plot([low, high], [y, y], color=BLACK, linewidth=0.7, zorder=3)
    ax.plot([first, third], [y, y], color=BLACK, linewidth=3.2, solid_capstyle="butt", zorder=3)
    ax.plot([middle], [y], marker="|", color="white", markersize=4, markeredgewidth=1.2, zorder=4)
    ax.plot([values.mean()], [y], marker="D", color="#D55E00", markersize=2.6, markeredgewidth=0, zorder=5)


def _density(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """A Gaussian kernel estimate with the largest value 1, within the range of the values; None for a constant."""
    from scipy.stats import gaussian_kde

    grid = np.linspace(values.min(), values.max(), _GRID)
    if len(values) < 5 or np.ptp(values) < 1e-9:
        return grid, None
    density = gaussian_kde(values)(grid)
    return grid, density / density.max()


def _finish(ax: Axes, one: Ranked) -> None:
    ax.set_title(compared(one), loc="left", fontsize=7.5)
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=4)
