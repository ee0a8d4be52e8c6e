"""How firm the order is: ranks in bootstrap samples of the patients, and Kendall's τ of each sample with all data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..ranked import Ranked
from ..sheet import Sheet
from ..statistics import Stability
from .style import BLACK, BLUE, GREY, SKY, TWO_COLUMN, VERMILLION, short
from .tracks import compared, grid_of, marked_names, metric_label, ranked_caption, rankings_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SCHEMES = {"rank": ("s", "ranks of cases, averaged"), "test": ("^", "number of methods significantly worse")}


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """A blob plot for each primary metric, and violins of τ.

    Raises:
        LeftOut: fewer than two methods can be ranked by any metric.
    """
    import matplotlib.pyplot as plt

    found = rankings_of(sheet, least=2)
    most = max(len(one.names) for one in found.values())
    down, across = grid_of(found)
    height = 0.155 * most + 0.55
    figure = plt.figure(figsize=(TWO_COLUMN, down * height + 0.32 * len(found) + 1.25), layout="constrained")
    grid = figure.add_gridspec(down + 1, across, height_ratios=[height] * down + [0.32 * len(found) + 0.35])
    records = []
    for i, one in enumerate(found.values()):
        ax = figure.add_subplot(grid[i // across, i % across])
        stable = one.stability()
        _blobs(ax, one, stable, marked_names(sheet, one))
        records.append(_blob_table(one, stable))
    below = figure.add_subplot(grid[down, :])
    for y, one in enumerate(found.values()):
        stable = one.stability()
        _violin(below, y, stable)
        defined = stable.tau[~np.isnan(stable.tau)]
        points = {"metric": one.metric, "what": "tau", "method": "", "rank": np.arange(1, len(defined) + 1)}
        records.append(pd.DataFrame({**points, "value": defined}))
    below.set_yticks(range(len(found)), [metric_label(one.metric) for one in found.values()])
    below.set_ylim(len(found) - 0.5, -0.5)
    below.set_xlim(np.floor(min(_lowest(found), 0.8) * 10) / 10 - 0.02, 1.02)
    below.set_xlabel("Kendall's τ of a sample's ranking with that of all data (dot: median; bar: quartiles)")
    below.grid(axis="y", visible=False)
    first = next(iter(found.values()))
    excluded = sum(one.stability().excluded for one in found.values())
    ranked_caption(
        figure,
        sheet,
        found,
        f"{len(first.stability().ranks)} bootstrap samples of the patients",
        "area of a blob: share of the samples; cross: rank on all data; line: 95 % of the ranks",
        "hollow: where another scheme gives another rank ("
        + "; ".join(f"{'square' if s == 'rank' else 'triangle'}: {t}" for s, (_, t) in _SCHEMES.items())
        + ")",
        f"{excluded} samples in which all are tied have no τ" if excluded else "",
    )
    return figure, pd.concat(records, ignore_index=True)


def _lowest(found: dict[str, Ranked]) -> float:
    values = np.concatenate([one.stability().tau for one in found.values()])
    return float(np.nanmin(values)) if not np.isnan(values).all() else 0.0


def _blobs(ax: Axes, one: Ranked, stable: Stability, shown: dict[str, str]) -> None:
    share = stable.frequencies()
    summary = stable.summary().set_index("method")
    schemes = one.ranks.set_index("method")
    order = list(one.order)
    size = len(order)
    for y, name in enumerate(order):
        places = share.columns.to_numpy(dtype=float)
        found = share.loc[name].to_numpy()
        use = found > 0
        low, high = summary.loc[name, ["rank_low", "rank_high"]]
        ax.plot([low, high], [y, y], color=GREY, linewidth=0.8, zorder=1)
        ax.scatter(places[use], np.full(use.sum(), y), s=found[use] * 62, color=SKY, edgecolors=BLUE, lw=0.4, zorder=2)
        for scheme, (marker, _) in _SCHEMES.items():
            if schemes.loc[name, f"rank_{scheme}"] == schemes.loc[name, "rank_mean"]:
                continue
            ax.plot(
                schemes.loc[name, f"rank_{scheme}"], y, marker, ms=4.2, mfc="none", mec=VERMILLION, mew=0.7, zorder=4
            )
        ax.plot(schemes.loc[name, "rank_mean"], y, "x", color=BLACK, markersize=3.2, markeredgewidth=0.9, zorder=3)
    ax.set_yticks(range(size), [short(shown[name], 26) for name in order])
    ax.set_ylim(size - 0.45, -0.55)
    ax.set_xlim(0.5, size + 0.5)
    step = 1 if size <= 10 else 2
    ax.set_xticks(range(1, size + 1, step))
    ax.set_title(compared(one), loc="left", fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def _blob_table(one: Ranked, stable: Stability) -> pd.DataFrame:
    share = stable.frequencies().loc[list(one.order)]
    long = share.reset_index().melt("method", var_name="rank", value_name="value")
    return long.assign(metric=one.metric, what="share")[["metric", "what", "method", "rank", "value"]]


def _violin(ax: Axes, y: float, stable: Stability) -> None:
    tau = stable.tau[~np.isnan(stable.tau)]
    if not len(tau):
        ax.text(0.0, y, "every sample is tied", ha="left", va="center", fontsize=6.5)
        return
    if np.ptp(tau) > 1e-9:
        parts: dict[str, Any] = ax.violinplot(
            tau, positions=[y], orientation="horizontal", widths=0.75, showextrema=False
        )
        for body in parts["bodies"]:
            body.set(facecolor=SKY, alpha=0.6, edgecolor=BLUE, linewidth=0.5)
            # A kernel reaches beyond the values; τ does not.
            vertices = np.asarray(body.get_paths()[0].vertices)
            vertices[:, 0] = np.clip(vertices[:, 0], tau.min(), tau.max())
    low, middle, high = stable.tau_quartiles
    ax.plot([low, high], [y, y], color=BLACK, linewidth=2.4, solid_capstyle="butt", zorder=3)
    ax.plot(middle, y, "o", color="white", mec=BLACK, markersize=3.4, markeredgewidth=0.8, zorder=4)
    ax.text(1.01, y, f" {middle:.2f}".replace("-", "−"), transform=ax.get_yaxis_transform(), va="center", fontsize=6.5)
