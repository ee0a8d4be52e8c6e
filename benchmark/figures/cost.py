"""Quality over cost: which methods nobody beats on both at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..ranked import Ranked
from ..sheet import Line, Sheet
from .source import LeftOut
from .style import BLACK, BLUE, GREY, TWO_COLUMN
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
        figsize=(TWO_COLUMN, 1.65 * len(found) + 0.5 + 0.13 * -(-len(numbers) // 4)),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for y, one in enumerate(found.values()):
        for x, cost in enumerate(costs):
            _panel(axes[y, x], one, table[(table["metric"] == one.metric) & (table["cost"] == cost)])
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


def _panel(ax: Axes, one: Ranked, table: pd.DataFrame) -> None:
    front = table[table["pareto"]].sort_values("amount")
    ax.plot(front["amount"], front["value"], color=BLUE, linewidth=0.8, zorder=1, drawstyle="steps-post")
    for point in table.itertuples():
        if not np.isnan(point.ci_low):
            ax.plot([point.amount] * 2, [point.ci_low, point.ci_high], color="#CCCCCC", linewidth=0.7, zorder=0)
        look: dict[str, Any] = {"mfc": BLUE, "mec": BLUE} if point.pareto else {"mfc": "white", "mec": GREY}
        ax.plot(point.amount, point.value, "o", markersize=7.5, markeredgewidth=0.7, zorder=2 + point.pareto, **look)
        colour = "white" if point.pareto else BLACK
        ax.text(
            point.amount,
            point.value,
            str(point.number),
            ha="center",
            va="center_baseline",
            fontsize=5.5,
            color=colour,
            zorder=4 + point.pareto,
        )
    amounts = table["amount"]
    if len(amounts) and amounts.max() > 8 * amounts.min():
        ax.set_xscale("log")
    ax.margins(x=0.12, y=0.1)


def _legend(figure: Figure, sheet: Sheet, found: dict[str, Ranked], numbers: dict[str, int]) -> None:
    from matplotlib.lines import Line2D

    shown: dict[str, str] = {}
    for one in found.values():
        for name, text in marked_names(sheet, one).items():
            shown[name] = text if text != name else shown.get(name, name)
    handles = [Line2D([], [], linestyle="", label=f"{number}  {shown[name]}") for name, number in numbers.items()]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=4, handlelength=0, handletextpad=0, columnspacing=1.4
    )
