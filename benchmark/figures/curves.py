"""Training curves: loss, its parts and the validation score of every stage; one thin line per run, their mean thick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..columns import BY_METRIC
from ..directions import direction
from ..groups import Row
from ..layout import ARROWS
from ..sheet import Sheet
from .source import LeftOut
from .style import BLUE, GREEN, TWO_COLUMN, VERMILLION, caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PER_LINE = 5
_HIDDEN = ("lr",)


def draw(sheet: Sheet, row: Row) -> tuple[Figure, pd.DataFrame]:
    """The curves of one row over its finished runs.

    Returns:
        The figure, and the points drawn: ``stage, key, run, epoch, step, value``, the mean under the run ``mean``.

    Raises:
        LeftOut: no run has a history of two epochs or more.
    """
    import matplotlib.pyplot as plt

    group = sheet.group
    history = _history(row)
    panels = _panels(history)
    lines = [panels[stage][i : i + _PER_LINE] for stage in panels for i in range(0, len(panels[stage]), _PER_LINE)]
    owners = [stage for stage in panels for _ in range(0, len(panels[stage]), _PER_LINE)]
    width = max(map(len, lines))
    figure, axes = plt.subplots(
        len(lines),
        width,
        figsize=(TWO_COLUMN if width > 2 else TWO_COLUMN * 0.6, 1.35 * len(lines) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    drawn = []
    shown: set[str] = set()
    for y, (stage, keys) in enumerate(zip(owners, lines, strict=True)):
        for x in range(width):
            ax = axes[y, x]
            if x >= len(keys):
                ax.axis("off")
                continue
            drawn.append(_panel(ax, history, stage, keys[x], row))
        axes[y, 0].set_ylabel(f"stage {stage}" if len(panels) > 1 and stage not in shown else "")
        shown.add(stage)
        for x in range(len(keys)):
            below = y + 1 < len(lines) and owners[y + 1] == stage and x < len(lines[y + 1])
            axes[y, x].set_xlabel("" if below else "step")
    runs = history["run"].nunique()
    what = f"{runs} runs: thin lines; their mean: thick" if runs > 1 else "one run"
    caption(
        figure,
        f"{row.name} on {group.title}",
        what,
        "circle: the chosen checkpoint" if any(k.startswith("val_") for keys in panels.values() for k in keys) else "",
        notice=group.notice,
    )
    return figure, pd.concat(drawn, ignore_index=True)


def _history(row: Row) -> pd.DataFrame:
    parts = []
    for cell in row.cells:
        path = cell.folder / "history.csv"
        if path.is_file():
            part = pd.read_csv(path, dtype={"stage": str, "key": str})
            parts.append(part.assign(run=f"fold {cell.spec['fold']} seed {cell.spec['seed']}"))
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["key"])
    frame = frame[~frame["key"].isin(_HIDDEN)]
    if frame.empty:
        raise LeftOut("no run has a training history")
    if frame.groupby(["stage", "key", "run"])["step"].nunique().max() < 2:
        raise LeftOut("the runs were shorter than two epochs: one point is no curve")
    return frame


def _panels(history: pd.DataFrame) -> dict[str, list[str]]:
    """Stages in training order; in each the loss, its parts in logged order, then the validation scores."""
    panels: dict[str, list[str]] = {}
    for stage, part in history.groupby("stage", sort=False):
        keys = list(dict.fromkeys(part["key"]))
        order = {k: (k != "loss", k.startswith("val_"), i) for i, k in enumerate(keys)}
        panels[str(stage)] = sorted(keys, key=order.__getitem__)
    return panels


def _panel(ax: Axes, history: pd.DataFrame, stage: str, key: str, row: Row) -> pd.DataFrame:
    part = history[(history["stage"] == stage) & (history["key"] == key)]
    validation = key.startswith("val_")
    colour = GREEN if validation else BLUE if key == "loss" else VERMILLION
    runs = list(part.groupby("run", sort=False))
    marker = "." if part["step"].nunique() <= 30 else ""
    mean = part.groupby("step", as_index=False).agg(
        value=("value", "mean"), epoch=("epoch", "first"), n=("value", "size")
    )
    mean = mean[mean["n"] == len(runs)]  # a run that stopped early must not bend the mean
    for _, run in runs:
        thin = len(runs) > 1
        style: dict[str, Any] = {"alpha": 0.4, "linewidth": 0.7} if thin else {"marker": marker}
        ax.plot(run["step"], run["value"], color=colour, **style)
    if len(runs) > 1:
        ax.plot(mean["step"], mean["value"], color=colour, marker=marker)
    if validation:
        _mark_chosen(ax, part, stage, key, row, colour)
    values = part["value"].to_numpy()
    finite = values[np.isfinite(values)]
    if not validation and len(finite) and finite.min() > 0 and finite.max() / finite.min() > 100:
        ax.set_yscale("log")
    ax.set_title(_title(key), loc="left")
    ax.margins(x=0.03, y=0.1)
    ax.locator_params(axis="x", nbins=4)
    out = part.assign(stage=stage, key=key)[["stage", "key", "run", "epoch", "step", "value"]]
    if len(runs) > 1:
        out = pd.concat([out, mean.assign(stage=stage, key=key, run="mean")[out.columns]], ignore_index=True)
    return out


def _title(key: str) -> str:
    if not key.startswith("val_"):
        return key
    metric = key.removeprefix("val_")
    label = BY_METRIC[metric].label if metric in BY_METRIC else metric
    return f"val. {label}{ARROWS[direction(metric)]}"


def _mark_chosen(ax: Axes, part: pd.DataFrame, stage: str, key: str, row: Row, colour: str) -> None:
    for cell in row.cells:
        record = next((s for s in cell.train.get("stages", []) if s.get("name") == stage), None)
        if record is None or record.get("val_metric") != key.removeprefix("val_"):
            continue
        run = part[part["run"] == f"fold {cell.spec['fold']} seed {cell.spec['seed']}"]
        chosen = record.get("selected_epoch") if record.get("selected") == "best" else None
        point = run[run["epoch"] == chosen] if chosen else run.tail(1)
        ax.plot(point["step"], point["value"], "o", mfc="white", mec=colour, ms=5, mew=1.1, zorder=5)
