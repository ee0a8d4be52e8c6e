"""Does the output for one reader follow that reader? Its Dice with every reader, beside that of the readers alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..groups import Row
from ..sheet import Sheet
from .counts import counted
from .per_rater import reader_name
from .source import LeftOut
from .style import BLACK, ONE_COLUMN, TWO_COLUMN, caption
from .style import counted as said_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_MANY = 6  # readers beyond which the two heatmaps need the width of a page
_MOST = 16  # beyond which numbers in the cells would touch


def draw(sheet: Sheet, row: Row, k: int = 0) -> tuple[Figure, pd.DataFrame]:
    """Heatmaps of one row and class: output for r against reader q, and reader r against reader q.

    Raises:
        LeftOut: the readers have no identity, the method has no map for single readers, or no counts are stored.
    """
    import matplotlib.pyplot as plt

    group = sheet.group
    if not sheet.show_raters:
        raise LeftOut("the readers of this data set have no identity")
    found = counted(group, row, ("personalised",), k)
    from ...metrics.per_rater import scores

    size = len(group.rater_ids)
    own, among = _Mean(size), _Mean(size)
    for case in found.cases:
        view = case.view()
        if view.void or not len(view.present):
            continue  # nobody saw it
        if not view.personalised:
            raise LeftOut("the method has no map for single readers")
        own.add(view.present, scores(view).T)  # line: the output for r, column: reader q
        label = view.classes[0]
        counts = case.arrays[f"counts {label}"][: view.R, : view.R].astype(np.float64)
        sizes = counts.diagonal()
        total = sizes[:, None] + sizes[None]
        among.add(view.present, np.where(total > 0, 2 * counts / np.maximum(total, 1), 1.0))
    np.fill_diagonal(among.total, np.nan)  # a reader with itself says nothing and would stretch the colours
    matrices = {"output for": own.value(), "reader": among.value()}
    names = [reader_name(r) for r in group.rater_ids]
    width = ONE_COLUMN * 1.45 if size <= _MANY else TWO_COLUMN
    figure, axes = plt.subplots(1, 2, figsize=(width, width / 2 + 0.62), layout="constrained")
    both = np.concatenate([m[~np.isnan(m)] for m in matrices.values()])
    low, high = float(both.min()), float(both.max())
    records = []
    for ax, (what, matrix) in zip(axes, matrices.items(), strict=True):
        image = _heat(ax, matrix, names, low, high if high > low else low + 1e-3)
        ax.set_title("output for one reader" if what == "output for" else "readers among themselves", loc="left")
        ax.set_xlabel("Dice with this reader ↑")
        records += [
            {"line": what, "of": group.rater_ids[r], "with": group.rater_ids[q], "dice": matrix[r, q]}
            for r in range(size)
            for q in range(size)
        ]
    axes[1].set_yticklabels([])
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=25, pad=0.02)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6)
    of_class = f", class {group.class_names[k]}" if group.class_names else ""
    gap = _gap(own.value())
    caption(
        figure,
        f"{row.name} on {group.title}{of_class}",
        f"one mask per reader, S = {size}",
        said_of(found.n_cases, found.n_patients),
        f"own reader minus the others, mean over readers: {gap:+.3f}",
        notice=group.notice,
    )
    return figure, pd.DataFrame(records)


class _Mean:
    """Mean over cases of a matrix of reader slots, of which a case fills those of its readers."""

    def __init__(self, size: int) -> None:
        self.total, self.n = np.zeros((size, size)), np.zeros((size, size))

    def add(self, present: NDArray[np.intp], matrix: NDArray[np.float64]) -> None:
        self.total[np.ix_(present, present)] += matrix
        self.n[np.ix_(present, present)] += 1

    def value(self) -> NDArray[np.float64]:
        return np.where(self.n > 0, self.total / np.maximum(self.n, 1), np.nan)


def _gap(matrix: NDArray[np.float64]) -> float:
    """Mean over columns (readers) of the diagonal minus the mean of the others."""
    size = len(matrix)
    if size < 2:
        return float("nan")
    others = np.where(np.eye(size, dtype=bool), np.nan, matrix)
    seen = ~np.isnan(others).all(0)
    return float((matrix.diagonal()[seen] - np.nanmean(others[:, seen], axis=0)).mean()) if seen.any() else float("nan")


def _heat(ax: Axes, matrix: NDArray[np.float64], names: list[str], low: float, high: float) -> AxesImage:
    from matplotlib.patches import Rectangle

    size = len(matrix)
    image = ax.imshow(matrix, cmap="cividis", vmin=low, vmax=high)
    ax.grid(visible=False)
    ax.set_xticks(range(size), names, rotation=0 if size <= 4 and max(map(len, names)) <= 9 else 90)
    ax.set_yticks(range(size), names)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    for r in range(size):
        for q in range(size):
            if size > _MOST or np.isnan(matrix[r, q]):
                continue
            dark = (matrix[r, q] - low) / (high - low) < 0.55
            text = f"{matrix[r, q]:.3f}".replace("0.", ".", 1)
            colour = "white" if dark else BLACK
            ax.text(q, r, text, ha="center", va="center", fontsize=6.5 if size <= _MANY else 5.5, color=colour)
        ax.add_patch(Rectangle((r - 0.5, r - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.2))
    return image
