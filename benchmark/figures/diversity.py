"""Is a method as diverse as the readers where the readers are? Case by case, one small panel for every method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..sheet import Line, Sheet
from .source import LeftOut
from .style import BLUE, GREY, TWO_COLUMN, VERMILLION, caption, short
from .style import counted as said_of
from .tracks import labels, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRICS = ("diversity_samples", "diversity_raters")
_ACROSS = 5
_BINS = 8  # of the trend line, each with as many cases


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """v_S over v_R for every output that is a set of samples or of maps for the readers.

    Raises:
        LeftOut: no method gives more than one mask.
    """
    import matplotlib.pyplot as plt

    group = sheet.group
    having: list[tuple[Line, pd.DataFrame]] = []
    for line in sheet.lines:
        if line.kind == "method" and line.output and (sheet.samples(line) or 0) > 1:
            values = _values(sheet, line)
            if len(values):
                having.append((line, values))
    if not having:
        raise LeftOut("no method gives more than one mask")
    panels = _once(sheet, having)
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    limit = max(float(v[list(_METRICS)].to_numpy().max()) for _, v in panels) * 1.04 or 1.0
    size = TWO_COLUMN / (_ACROSS if across > 2 else 4)  # few panels may be larger
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(TWO_COLUMN if across > 2 else size * across, size * down),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (line, values) in zip(axes.flat, panels, strict=False):
        _panel(ax, values, limit)
        ax.set_title(
            f"{short(row_name(sheet, line.row), 20)}\n{line.output}, S = {sheet.samples(line)}",
            loc="left",
            fontsize=6.5,
        )
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for x in range(across):
        last = max(y for y in range(down) if y * across + x < len(panels))
        axes[last, x].tick_params(labelbottom=True)
        axes[last, x].set_xlabel("$v_R$ of the readers", fontsize=6.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("$v_S$ of the outputs", fontsize=6.5)
    cases = {case for _, v in panels for case in v["case_id"]}
    patients = {patient for _, v in panels for patient in v["patient_id"]}
    caption(
        figure,
        "diversity v: mean 1 − IoU of all pairs, diagonal included; up: of the outputs, across: of the readers",
        "dashed: as diverse as the readers",
        "vermilion: mean of cases in bins of equal number",
        "r: Pearson's correlation",
        "outputs of a method with the same masks: once" if len(panels) < len(having) else "",
        group.title,
        said_of(len(cases), len(patients)),
        labels(sheet),
        notice=group.notice,
    )
    # Panels keep their size above a caption of any number of lines: with too little room, labels would lie over it.
    lines, ragged = figure.get_supxlabel().count("\n") + 1, down * across > len(panels)  # labels of two rows of panels
    figure.set_figheight(size * down * 1.14 + 0.35 + 0.12 * lines + 0.25 * ragged)
    table = pd.concat(
        [v.assign(method=sheet.row(line).name, output=line.output, n_samples=sheet.samples(line)) for line, v in panels]
    )
    columns = ["method", "output", "n_samples", "case_id", "patient_id", "diversity_raters", "diversity_samples"]
    return figure, table[columns].reset_index(drop=True)


def _values(sheet: Sheet, line: Line) -> pd.DataFrame:
    """One line a case, averaged over seeds (and classes): ids and both diversities."""
    found = {metric: sheet.case_values(line, metric) for metric in _METRICS}
    first = found[_METRICS[0]]
    if first is None or found[_METRICS[1]] is None:
        return pd.DataFrame(columns=["case_id", "patient_id", *_METRICS])
    columns = {metric: one.values for metric, one in found.items() if one is not None}
    return pd.DataFrame({"case_id": first.cases, "patient_id": first.patients, **columns}).dropna(ignore_index=True)


def _once(sheet: Sheet, having: list[tuple[Line, pd.DataFrame]]) -> list[tuple[Line, pd.DataFrame]]:
    """Of the outputs of a row that are the same set of masks the first."""
    seen: dict[tuple[Any, ...], tuple[Line, pd.DataFrame]] = {}
    for line, values in having:
        numbers = values[list(_METRICS)].to_numpy().round(9).tobytes()
        seen.setdefault((line.row, sheet.samples(line), tuple(values["case_id"]), numbers), (line, values))
    return list(seen.values())


def _panel(ax: Axes, values: pd.DataFrame, limit: float) -> None:
    readers, own = values["diversity_raters"].to_numpy(), values["diversity_samples"].to_numpy()
    ax.plot([0, limit], [0, limit], color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=2)
    ax.scatter(readers, own, s=4, color=BLUE, alpha=0.45, linewidths=0, zorder=1)
    if len(values) >= 3 * _BINS:
        order = np.argsort(readers, kind="stable")
        parts = np.array_split(order, _BINS)
        ax.plot(
            [readers[p].mean() for p in parts],
            [own[p].mean() for p in parts],
            color=VERMILLION,
            marker="o",
            markersize=2,
            linewidth=1,
            zorder=3,
        )
    if len(values) > 2 and readers.std() > 1e-12 and own.std() > 1e-12:
        r = float(np.corrcoef(readers, own)[0, 1])
        ax.text(0.04, 0.96, f"r {r:.2f}".replace("-", "−"), transform=ax.transAxes, ha="left", va="top", fontsize=6.5)
    ax.set_xlim(0, limit)
    ax.set_ylim(0, limit)
    ax.set_aspect("equal", adjustable="box")
    ax.locator_params(nbins=3)
