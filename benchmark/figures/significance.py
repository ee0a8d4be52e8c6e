"""Which differences are real: every method against every other after Holm's correction, in the order of the ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..ranked import Ranked
from ..sheet import Sheet
from ..statistics.differences import ALPHA
from .style import BLUE, ONE_COLUMN, ORANGE, TWO_COLUMN, short
from .tracks import compared, grid_of, marked_names, ranked_caption, rankings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BETTER, _WORSE, _ALIKE, _NO_TEST = 1, -1, 0, -2
_COLOURS = {_BETTER: BLUE, _WORSE: ORANGE, _ALIKE: "#ECECEC", _NO_TEST: "#FFFFFF"}
_SAID = {
    _BETTER: "line significantly better than column",
    _WORSE: "line significantly worse",
    _ALIKE: "no significant difference",
}
_LETTERS = {_BETTER: "+", _WORSE: "−"}  # also legible in grey print


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """One matrix for each primary metric.

    Raises:
        LeftOut: fewer than two methods can be ranked by any metric.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    found = rankings_of(sheet, least=2)
    most = max(len(one.names) for one in found.values())
    down, across = grid_of(found)
    width = TWO_COLUMN if across > 1 else ONE_COLUMN * 1.3
    side = min(0.17 * most + 1.25, width / across)
    figure, axes = plt.subplots(down, across, figsize=(width, side * down + 0.75), squeeze=False, layout="constrained")
    records = []
    for ax, one in zip(axes.flat, found.values(), strict=False):
        verdicts = _verdicts(one)
        _matrix(ax, one, verdicts, marked_names(sheet, one))
        pairs = one.pairs.assign(metric=one.metric, n_samples=one.n_samples)
        records.append(pairs[["metric", "n_samples", *one.pairs.columns]])
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    handles = [Patch(facecolor=_COLOURS[v], edgecolor="#999999", linewidth=0.4, label=s) for v, s in _SAID.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=1 if across == 1 else 3, handlelength=1.1)
    ranked_caption(
        figure,
        sheet,
        found,
        "two-sided Wilcoxon tests of the patients' means, Holm's correction over all pairs of a metric, 5 % level",
        "methods from the best mean to the worst",
    )
    return figure, pd.concat(records, ignore_index=True)


def _verdicts(one: Ranked) -> NDArray[np.intp]:
    """k×k in the order of the ranking: is the line significantly better than the column?"""
    at = [one.names.index(name) for name in one.order]
    p, effect = one.p.to_numpy(), one.tests[1][np.ix_(at, at)]
    verdicts = np.where(p > ALPHA, _ALIKE, np.where(effect > 0, _BETTER, _WORSE))
    return np.where(np.isnan(p), _NO_TEST, verdicts)


def _matrix(ax: Axes, one: Ranked, verdicts: NDArray[np.intp], shown: dict[str, str]) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    size = len(verdicts)
    values = sorted(_COLOURS)
    norm = BoundaryNorm([v - 0.5 for v in (*values, values[-1] + 1)], len(values))
    ax.imshow(verdicts, cmap=ListedColormap([_COLOURS[v] for v in values]), norm=norm)
    for r in range(size):
        for c in range(size):
            if verdicts[r, c] in _LETTERS:
                colour = "white" if verdicts[r, c] == _BETTER else "black"
                ax.text(c, r, _LETTERS[verdicts[r, c]], ha="center", va="center", fontsize=6.5, color=colour)
    ax.set_xticks(np.arange(-0.5, size), minor=True)
    ax.set_yticks(np.arange(-0.5, size), minor=True)
    ax.grid(visible=False)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="both", length=0)
    names = [short(shown[name], 26) for name in one.order]
    ax.set_yticks(range(size), [f"{name}  {i + 1}" for i, name in enumerate(names)])
    ax.set_xticks(range(size), [str(i + 1) for i in range(size)], fontsize=6 if size > 12 else 7)
    for edge in ax.spines.values():
        edge.set_visible(False)
    ax.set_title(compared(one), loc="left", fontsize=7.5)
