"""Reliability diagrams: how often the readers mark a pixel, over the probability that the mean map gives it.

One panel for each region, since most pixels of a whole image are easy background, and one for the maps meant for single
readers. Below each stands where the pixels are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..bootstrap import MIN_CLUSTERS, draw_counts
from ..groups import Row
from ..sheet import Sheet
from .counts import Counted, counted
from .per_rater import reader_name
from .source import LeftOut
from .style import BLUE, GREY, ONE_COLUMN, TWO_COLUMN, VERMILLION, caption
from .style import counted as said_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAPS = ("diverse", "consensus", "personalised")
_DRAWS = 1000
_REGIONS = {"ece": "box around the readers' masks", "ece.full": "whole image"}
# Against white, in the order of the readers; the light colours of outlines on tissue would vanish.
READER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07A00", "#2A9FD6", "#000000", "#7A7A00")


def draw(sheet: Sheet, row: Row, k: int = 0) -> tuple[Figure, pd.DataFrame]:
    """The diagrams of one row and class, pooled over its cases, folds and seeds.

    Raises:
        LeftOut: no finished cell, or no stored counts.
    """
    import matplotlib.pyplot as plt

    group = sheet.group
    found = counted(group, row, _MAPS, k)
    sums = _pooled(found, tuple(_REGIONS))
    panels: list[tuple[str, list[tuple[str, dict[str, Any], str]], float]] = []
    for metric, region in _REGIONS.items():
        panels.append((region, [("mean map", sums[metric], BLUE)], sums[metric]["ece"]))
    readers = _readers(sheet, row, k)
    if readers is not None:
        curves = [
            (reader, one, READER_COLOURS[i % len(READER_COLOURS)]) for i, (reader, one) in enumerate(readers.items())
        ]
        panels.append(("own map of each reader, box", curves, float(np.mean([one["ece"] for _, one, _ in curves]))))
    width = TWO_COLUMN if len(panels) > 2 else ONE_COLUMN * 1.35
    figure, axes = plt.subplots(
        2,
        len(panels),
        figsize=(width, width / len(panels) * 1.27 + 0.45),
        sharex=True,
        sharey="row",
        height_ratios=(4, 1),
        layout="constrained",
    )
    records: list[dict[str, Any]] = []
    for x, (title, curves, error) in enumerate(panels):
        _panel(axes[0, x], axes[1, x], title, curves, error)
        for name, one, _ in curves:
            records += [{"panel": title, "map": name, "bin": b + 1, **bin_} for b, bin_ in enumerate(one["bins"])]
    axes[0, 0].set_ylabel("share of readers")
    axes[1, 0].set_ylabel("pixels")
    for ax in axes[1]:
        ax.set_xlabel("probability")
    of_class = f", class {group.class_names[k]}" if group.class_names else ""
    band = "bands: 95 % bootstrap intervals over patients" if found.n_patients >= MIN_CLUSTERS else "too few patients"
    caption(
        figure,
        f"{row.name} on {group.title}{of_class}",
        f"output {found.output}, S = {found.n_samples}",
        said_of(found.n_cases, found.n_patients),
        f"10 bins pooled over all pixels; {band}" if found.n_patients >= MIN_CLUSTERS else f"10 bins; no bands: {band}",
        notice=group.notice,
    )
    return figure, pd.DataFrame(records)


def _pooled(found: Counted, metrics: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    from ...metrics.calibration import bins_of

    kept: dict[str, list[Any]] = {metric: [] for metric in metrics}
    for case in found.cases:
        bins = bins_of(case.view())
        for metric in metrics:
            if metric not in bins:
                raise LeftOut("no counts of calibration are stored")
            kept[metric].append(bins[metric])
    return {metric: _sums(found, [(b.count[0], b.sum_p[0], b.sum_q[0]) for b in bins]) for metric, bins in kept.items()}


def _readers(sheet: Sheet, row: Row, k: int) -> dict[str, dict[str, Any]] | None:
    """Sums of the map meant for each reader in the box; None where there are none."""
    from ...metrics.calibration import bins_of

    if not sheet.show_raters:
        return None
    try:
        found = counted(sheet.group, row, ("personalised",), k)
    except LeftOut:
        return None
    bins = [bins_of(case.view()).get("ece.rater") for case in found.cases]
    if any(b is None for b in bins):
        return None
    names = sheet.group.rater_ids
    return {
        reader_name(names[r]): _sums(found, [(b.count[0, r], b.sum_p[0, r], b.sum_q[0, r]) for b in bins if b])
        for r in range(len(names))
    }


def _sums(found: Counted, parts: list[tuple[NDArray[np.float64], ...]]) -> dict[str, Any]:
    """Pooled bins with intervals over patients, and their calibration error."""
    count, sum_p, sum_q = (np.stack(column) for column in zip(*parts, strict=True))  # N×bins each
    per_patient = np.zeros((found.n_patients, 2, count.shape[1]))
    np.add.at(per_patient, found.patients, np.stack([count, sum_q], axis=1))
    low = high = np.full(count.shape[1], np.nan)
    if found.n_patients >= MIN_CLUSTERS:
        drawn = np.concatenate([np.tensordot(d, per_patient, 1) for d in draw_counts(found.n_patients, _DRAWS)])
        share = np.where(drawn[:, 0] > 0, drawn[:, 1] / np.maximum(drawn[:, 0], 1), np.nan)
        seen = ~np.isnan(share).all(0)
        low, high = np.full(count.shape[1], np.nan), np.full(count.shape[1], np.nan)
        low[seen], high[seen] = np.nanquantile(share[:, seen], [0.025, 0.975], axis=0)
    n, p, q = count.sum(0), sum_p.sum(0), sum_q.sum(0)
    bins = [
        {
            "pixels": int(n[b]),
            "probability": p[b] / n[b] if n[b] else np.nan,
            "share_of_readers": q[b] / n[b] if n[b] else np.nan,
            "ci_low": low[b],
            "ci_high": high[b],
        }
        for b in range(len(n))
    ]
    return {"bins": bins, "ece": float(np.abs(p - q).sum() / n.sum()) if n.sum() else np.nan}


def _panel(above: Axes, below: Axes, title: str, curves: list[tuple[str, dict[str, Any], str]], error: float) -> None:
    above.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    several = len(curves) > 1
    width = 1 / len(curves[0][1]["bins"])
    for i, (name, one, colour) in enumerate(curves):
        frame = pd.DataFrame(one["bins"])
        full = frame[frame["pixels"] > 0]
        if not several:
            above.fill_between(full["probability"], full["ci_low"], full["ci_high"], color=colour, alpha=0.2, lw=0)
        above.plot(
            full["probability"],
            full["share_of_readers"],
            color=colour,
            marker="osD^vPX*"[i % 8],
            markersize=3,
            linewidth=1.0,
            label=name,
            zorder=3,
        )
        centres = (np.arange(len(frame)) + 0.5) * width
        if several:
            below.step(centres, frame["pixels"], where="mid", color=colour, linewidth=0.8)
        else:
            below.bar(centres, frame["pixels"], width=width * 0.9, color=colour, alpha=0.65)
    above.set_title(title, loc="left", fontsize=7.5)
    said = f"pooled ECE {error:.3f}" if not several else f"mean of pooled ECE {error:.3f}"
    above.text(0.97, 0.04, said, transform=above.transAxes, ha="right", va="bottom", fontsize=6.5, color=VERMILLION)
    if several:
        above.legend(loc="upper left", fontsize=6.5, handlelength=1.6, borderaxespad=0.2, labelspacing=0.25)
    above.set_xlim(-0.02, 1.02)
    above.set_ylim(-0.02, 1.02)
    above.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    above.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    below.set_yscale("log")
    below.grid(axis="x", visible=False)
