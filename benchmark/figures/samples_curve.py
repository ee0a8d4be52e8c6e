"""GED over the number of samples, from the first S of one stored set, with the expectation of a perfect sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..bootstrap import percentile_intervals
from ..groups import Group, Row
from .distances import ged_over_samples, rater_diversity
from .source import LeftOut, Scored, scored
from .style import BLACK, GREY, MARKERS, series_colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (1, 2, 4, 8, 16, 32, 50)
Curves = dict[str, dict[str, list[NDArray[np.float64]]]]  # output, case, one curve per seed
COLUMNS = ("method", "output", "n_samples", "ged", "ci_low", "ci_high", "n_cases", "n_patients")


def draw(group: Group) -> tuple[Figure, pd.DataFrame]:
    """Curves of every method's samples, and of the level sets of its mean map.

    Raises:
        LeftOut: no method of the table stores predictions.
    """
    import matplotlib.pyplot as plt

    table = curves(group)
    figure, ax = plt.subplots(figsize=(6.6, 2.9), layout="constrained")
    methods = [m for m in dict.fromkeys(table["method"]) if m != "human"]
    for i, method in enumerate(methods):
        for output, part in table[table["method"] == method].groupby("output", sort=False):
            trivial = output == "levels"
            ax.plot(
                part["n_samples"],
                part["ged"],
                color=series_colour(i),
                marker=MARKERS[i % len(MARKERS)],
                linestyle=(0, (3, 1.5)) if trivial else "-",
                markerfacecolor="white" if trivial else series_colour(i),
                linewidth=1.0 if trivial else 1.4,
                label=f"{method}: level sets of its mean map" if trivial else method,
                zorder=3,
            )
            if not trivial:
                ax.fill_between(
                    part["n_samples"], part["ci_low"], part["ci_high"], color=series_colour(i), alpha=0.13, lw=0
                )
    oracle = table[table["method"] == "human"]
    ax.plot(
        oracle["n_samples"], oracle["ged"], color=BLACK, linestyle=":", label="perfect sampler of the readers, $v_R/S$"
    )
    ax.set_xscale("log", base=2)
    sizes = sorted(set(table["n_samples"]))
    ax.set_xticks(sizes, [str(s) for s in sizes])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("number of samples $S$ (the first $S$ of one stored set)")
    ax.set_ylabel("GED ↓")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, handlelength=2.4)
    n, g = int(table["n_cases"].max()), int(table["n_patients"].max())
    ax.set_title(
        f"{group.title}\n{n} cases, {g} patients; bands: 95 % intervals over patients", loc="left", fontsize=7.5
    )
    if group.notice:
        figure.supxlabel(group.notice, x=0.01, ha="left", fontsize=6.5, color=GREY)
    return figure, table


def curves(group: Group) -> pd.DataFrame:
    """The points drawn, with the columns of `COLUMNS`.

    Raises:
        LeftOut: no method of the table stores predictions; the message names the reasons.
    """
    frames: list[pd.DataFrame] = []
    reasons: list[str] = []
    spread: dict[str, tuple[str, float]] = {}
    for row in group.methods:
        try:
            frames += _row_curves(row, spread)
        except LeftOut as reason:
            reasons.append(f"{row.name}: {reason}")
    if not frames:
        raise LeftOut("; ".join(reasons) or "no finished method")
    sizes = sorted({int(s) for frame in frames for s in frame["n_samples"]})
    mean = float(np.nanmean([v for _, v in spread.values()]))
    oracle = {
        "method": "human",
        "output": "oracle",
        "n_samples": sizes,
        "ged": [mean / s for s in sizes],
        "ci_low": np.nan,
        "ci_high": np.nan,
        "n_cases": len(spread),
        "n_patients": len({patient for patient, _ in spread.values()}),
    }
    return pd.concat([pd.DataFrame(oracle), *frames], ignore_index=True)[list(COLUMNS)]


def _row_curves(row: Row, spread: dict[str, tuple[str, float]]) -> list[pd.DataFrame]:
    if not row.cells:
        raise LeftOut("no finished cell")
    values: Curves = {}
    patient_of: dict[str, str] = {}
    sizes: list[int] = []
    for cell in row.cells:
        classes = [scored(cell)]
        classes += [scored(cell, k) for k in range(1, classes[0].layout.classes)]
        found = classes[0]
        count = int(cell.spec["eval"]["n_samples"]) if found.stored.samples is None else found.stored.samples.shape[1]
        sizes = [s for s in SIZES if s <= count]
        diversity = np.mean([rater_diversity(one.masks, one.valid) for one in classes], axis=0)
        for i, case in enumerate(found.case_ids):
            patient_of[case] = found.patient_ids[i]
            spread[case] = (found.patient_ids[i], diversity[i])
            # GED is linear in the distance: that of several classes is the mean of theirs (metrics.md 1.1).
            of_classes = [_case_curves(one, i, sizes, count) for one in classes]
            for output in of_classes[0]:
                curve = np.mean([curves_of_one[output] for curves_of_one in of_classes], axis=0)
                values.setdefault(output, {}).setdefault(case, []).append(curve)
    frames = []
    for output, by_case in _without_copies(values).items():
        cases = sorted(by_case)
        matrix = np.array([np.mean(by_case[c], axis=0) for c in cases])
        clusters = np.unique([patient_of[c] for c in cases], return_inverse=True)[1]
        intervals = percentile_intervals(matrix, clusters)
        points = {
            "method": row.name,
            "output": output,
            "n_samples": sizes,
            "ged": np.nanmean(matrix, axis=0),
            "ci_low": intervals.low,
            "ci_high": intervals.high,
            "n_cases": len(cases),
            "n_patients": int(clusters.max()) + 1,
        }
        frames.append(pd.DataFrame(points))
    return frames


def _case_curves(found: Scored, i: int, sizes: list[int], count: int) -> dict[str, NDArray[np.float64]]:
    raters = found.masks[i][found.valid[i]]
    if not len(raters):
        return {}
    levels = found.levels(i, count)
    if found.stored.samples is None:  # a deterministic method: its level sets begin with its own mask
        return {"levels": ged_over_samples(levels, raters, sizes)}
    samples = found.stored.samples[i]
    return {
        "diverse": ged_over_samples(samples, raters, sizes),
        "levels": ged_over_samples(levels, raters, sizes),
    }


def _without_copies(values: Curves) -> Curves:
    """A method whose samples are the level sets of its map is its own trivial row: the same curve in every case.

    Decided over all cases: the samples of another method may equal the level sets in a single one.
    """
    own, levels = values.get("diverse"), values.get("levels")
    if own is not None and levels is not None and all(np.array_equal(own[c], levels[c]) for c in own):
        return {"diverse": own}
    return values
