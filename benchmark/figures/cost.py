"""Quality over cost: which methods nobody beats on both at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..ranked import Ranked
from ..sheet import Line, Sheet
from .labels import CLOSE, beside
from .source import LeftOut
from .style import BLACK, BLUE, GREY, TWO_COLUMN, text_width
from .tracks import marked_names, metric_label, ranked_caption, rankings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {
    "train_seconds": "training time [s]",
    "predict_ms_per_case": "prediction [ms per case]",
    "peak_memory_mb": "peak memory [MB]",
}
COLUMNS = ("metric", "n_samples", "cost", "number", "method", "output", "value", "amount", "pareto")
_METRICS = ("ged", "dice_rater", "dice_soft")
_NUMBER = 6.0  # size of a number beside its point
_DOT = 1.8  # radius of a point


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """One line of panels a track, one column a cost; methods are numbers, explained in the legend.

    Raises:
        LeftOut: fewer than two methods can be ranked by any metric, or no cost is recorded.
    """
    import matplotlib.pyplot as plt

    every = rankings_of(sheet, least=2)
    found = {m: one for m, one in every.items() if m in _METRICS} or every
    numbers: dict[str, int] = {}
    for one in found.values():
        for name in one.order:
            numbers.setdefault(name, len(numbers) + 1)
    table = pd.concat([_points(sheet, one, cost, numbers) for one in found.values() for cost in COSTS])
    table = table.reset_index(drop=True)
    if table.empty:
        raise LeftOut("no cost is recorded")
    costs = [cost for cost in COSTS if (table["cost"] == cost).any()]
    figure, axes = plt.subplots(
        len(found),
        len(costs),
        figsize=(TWO_COLUMN, 1.8 * len(found) + 0.5 + 0.13 * -(-len(numbers) // 4)),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for y, one in enumerate(found.values()):
        for x, cost in enumerate(costs):
            _panel(axes[y, x], table[(table["metric"] == one.metric) & (table["cost"] == cost)])
            axes[y, x].set_xlabel(COSTS[cost] if y == len(found) - 1 else "")
        axes[y, 0].set_ylabel(metric_label(one.metric) + (f"\nS = {one.n_samples}" if one.n_samples else ""))
    _legend(figure, sheet, found, numbers)
    machines = sorted({str(c.train.get("machine", {}).get("cpu", "")) for r in sheet.group.methods for c in r.cells})
    ranked_caption(
        figure,
        sheet,
        found,
        "filled, joined: nobody is better in both; bars: 95 % intervals over patients",
        f"measured on: {', '.join(filter(None, machines))}; shared machines make times rough" if any(machines) else "",
    )
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    for y, one in enumerate(found.values()):
        for x, cost in enumerate(costs):
            part = table[(table["metric"] == one.metric) & (table["cost"] == cost)]
            if len(part):
                _number(axes[y, x], part)
    return figure, table[list(COLUMNS)]


def _points(sheet: Sheet, one: Ranked, cost: str, numbers: dict[str, int]) -> pd.DataFrame:
    means = one.means.set_index("method")
    lines = []
    for name, line in zip(one.names, one.lines, strict=True):
        amount = _amount(sheet, line, cost)
        if amount is None or not amount > 0 or np.isnan(means.loc[name, "value"]):
            continue
        lines.append(
            {
                "metric": one.metric,
                "n_samples": one.n_samples,
                "cost": cost,
                "number": numbers[name],
                "method": name,
                "output": line.output,
                "amount": amount,
                **{column: means.loc[name, column] for column in ("value", "ci_low", "ci_high")},
            }
        )
    frame = pd.DataFrame(lines, columns=[*COLUMNS[:-1], "ci_low", "ci_high"])
    return frame.assign(pareto=_front(frame, one.direction))


def _amount(sheet: Sheet, line: Line, cost: str) -> float | None:
    row = sheet.row(line)
    if cost == "train_seconds":
        return row.seconds("train")
    if cost == "peak_memory_mb":
        return row.peak_memory_mb
    seconds = row.seconds("predict")
    cases = [int(c.result.get("n_cases", 0)) for c in row.cells]
    return None if seconds is None or not sum(cases) else 1000 * seconds / (sum(cases) / len(cases))


def _front(frame: pd.DataFrame, direction: str) -> list[bool]:
    """Whether no other method is at least as good and at least as cheap, and one of both strictly."""
    loss = {"higher": -frame["value"], "target 0": frame["value"].abs()}.get(direction, frame["value"]).to_numpy()
    amount = frame["amount"].to_numpy()
    out = []
    for i in range(len(frame)):
        no_worse = (loss <= loss[i]) & (amount <= amount[i])
        out.append(not (no_worse & ((loss < loss[i]) | (amount < amount[i]))).any())
    return out


def _panel(ax: Axes, table: pd.DataFrame) -> None:
    front = table[table["pareto"]].sort_values("amount")
    ax.plot(front["amount"], front["value"], color=BLUE, linewidth=0.8, zorder=1, drawstyle="steps-post")
    known = table[table["ci_low"].notna()]
    ax.vlines(known["amount"], known["ci_low"], known["ci_high"], color="#D5D5D5", linewidth=0.7, zorder=0)
    for pareto, colour in ((False, "white"), (True, BLUE)):
        part = table[table["pareto"] == pareto]
        look: dict[str, Any] = {"mfc": colour, "mec": BLUE if pareto else GREY, "markeredgewidth": 0.7}
        ax.plot(part["amount"], part["value"], "o", markersize=2 * _DOT, zorder=4 + pareto, **look)
    amounts = table["amount"]
    if len(amounts) and amounts.max() > 8 * amounts.min():
        ax.set_xscale("log")
    ax.margins(x=0.16, y=0.1)


def _number(ax: Axes, table: pd.DataFrame) -> None:
    """Numbers beside the points of a panel that has its place in the figure."""
    points = 72 / ax.figure.dpi  # a pixel in printer's points
    frame = ax.get_window_extent()
    places = (ax.transData.transform(table[["amount", "value"]].to_numpy()) - frame.min) * points
    widths = [text_width(str(number), _NUMBER) * 72 + 1 for number in table["number"]]
    sizes = np.column_stack([widths, np.full(len(table), _NUMBER)])
    keep = _steps(places[table["pareto"].to_numpy()])
    offsets = beside(places, sizes, np.array(frame.size) * points, _DOT + 0.5, keep)
    line = {"arrowstyle": "-", "linewidth": 0.4, "color": "#555555", "shrinkA": 0, "shrinkB": _DOT}
    for point, offset in zip(table.itertuples(), offsets, strict=True):
        label = ax.annotate(
            str(point.number),
            (point.amount, point.value),
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_NUMBER,
            color=BLUE if point.pareto else BLACK,
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"},
            arrowprops=line if np.hypot(*offset) > CLOSE else None,
            zorder=3,
        )
        label.set_in_layout(False)  # the panel keeps the place that the numbers were found for


def _steps(front: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places along the stepped line through the points of a front."""
    front = front[np.argsort(front[:, 0], kind="stable")]
    corners = np.column_stack([np.repeat(front[:, 0], 2)[1:], np.repeat(front[:, 1], 2)[:-1]])
    along = np.linspace(0, 1, 40)[:, None, None]
    return np.asarray(corners[:-1] + along * np.diff(corners, axis=0)).reshape(-1, 2)


def _legend(figure: Figure, sheet: Sheet, found: dict[str, Ranked], numbers: dict[str, int]) -> None:
    from matplotlib.lines import Line2D

    shown: dict[str, str] = {}
    for one in found.values():
        for name, text in marked_names(sheet, one).items():
            shown[name] = max(shown.get(name, ""), text, key=len)  # with the dagger, if any metric has it
    handles = [Line2D([], [], linestyle="", label=f"{number}  {shown[name]}") for name, number in numbers.items()]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=4, handlelength=0, handletextpad=0, columnspacing=1.4
    )
