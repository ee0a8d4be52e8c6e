"""GED and Dice match over the number of samples, from the first S of one stored set, with a perfect sampler's values.

Both change with S for any method, the first falling to its floor and the second rising with every sample: values at
different S cannot be compared, and the dotted line says how much of a change is due to S alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...core.seeding import numpy_generator
from ..bootstrap import percentile_intervals
from ..groups import Group, Row
from ..sheet import Sheet
from .distances import over_samples, perfect_sampler
from .source import LeftOut, Scored, scored_classes
from .style import BLACK, TWO_COLUMN, caption, look, short
from .style import counted as said_of
from .tracks import labels, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZES = (1, 2, 4, 8, 16, 32, 50)
METRICS = {"ged": "GED ↓", "dice_match": "Dice match ↑"}
COLUMNS = ("method", "output", "n_samples", "metric", "value", "ci_low", "ci_high", "n_cases", "n_patients")
Curves = dict[str, dict[str, list[NDArray[np.float64]]]]  # output, case, one 2×sizes array per seed
_ORACLE_DRAWS = 16
_BANDS = 6  # methods up to which bands of intervals, and level sets beside samples, can be told apart
_LEVELS = "levels"


def draw(sheet: Sheet) -> tuple[Figure, pd.DataFrame]:
    """Curves of every method's samples, and of the level sets of its mean map.

    Raises:
        LeftOut: no method of the table stores predictions.
    """
    import matplotlib.pyplot as plt

    group = sheet.group
    table = curves(group)
    methods = [m for m in dict.fromkeys(table["method"]) if m != "human"]
    figure, axes = plt.subplots(1, 2, figsize=(TWO_COLUMN, 2.6 + 0.13 * -(-len(methods) // 4)), layout="constrained")
    names = {row.name: short(row_name(sheet, index), 34) for index, row in enumerate(group.rows)}
    for ax, (metric, label) in zip(axes, METRICS.items(), strict=True):
        _panel(ax, table[table["metric"] == metric], {m: names[m] for m in methods})
        ax.set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    handles, said = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, said, loc="outside upper left", ncols=4, handlelength=2.2, columnspacing=1.2, borderaxespad=0.2
    )
    n, g = int(table["n_cases"].max()), int(table["n_patients"].max())
    caption(
        figure,
        group.title,
        "the first S of one stored set",
        said_of(n, g),
        "dashed, hollow: level sets of the mean map"
        + (" of methods without samples (all: in the CSV)" if len(methods) > _BANDS else ""),
        "bands: 95 % intervals over patients" if len(methods) <= _BANDS else "intervals: in the CSV",
        "perfect sampler: draws from the readers, GED v_R/S",
        labels(sheet),
        notice=group.notice,
    )
    return figure, table


def _panel(ax: Axes, table: pd.DataFrame, methods: dict[str, str]) -> None:
    for i, (method, shown) in enumerate(methods.items()):
        found = dict(list(table[table["method"] == method].groupby("output", sort=False)))
        for output, part in found.items():
            trivial = output == _LEVELS
            if trivial and len(found) > 1 and len(methods) > _BANDS:
                continue  # a rival for every curve would hide them all
            style = look(i)
            hollow: dict[str, Any] = {"linestyle": (0, (3, 1.5)), "markerfacecolor": "white", "linewidth": 0.8}
            name = shown if not trivial or len(found) == 1 else "_nolegend_"
            ax.plot(part["n_samples"], part["value"], **{**style, **(hollow if trivial else {})}, label=name, zorder=3)
            if not trivial and len(methods) <= _BANDS:
                ax.fill_between(
                    part["n_samples"], part["ci_low"], part["ci_high"], color=style["color"], alpha=0.13, lw=0
                )
    oracle = table[table["method"] == "human"]
    ax.plot(oracle["n_samples"], oracle["value"], color=BLACK, linestyle=":", label="perfect sampler", zorder=4)
    ax.set_xscale("log", base=2)
    sizes = sorted(set(table["n_samples"]))
    ax.set_xticks(sizes, [str(s) for s in sizes])
    ax.minorticks_off()
    ax.set_xlabel("number of samples S")


def curves(group: Group) -> pd.DataFrame:
    """The points drawn, with the columns of `COLUMNS`.

    Raises:
        LeftOut: no method of the table stores predictions; the message names the reasons.
    """
    frames: list[pd.DataFrame] = []
    reasons: list[str] = []
    perfect: dict[str, tuple[str, NDArray[np.float64]]] = {}
    for row in group.methods:
        try:
            frames += _row_curves(row, perfect)
        except LeftOut as reason:
            reasons.append(f"{row.name}: {reason}")
    if not frames:
        raise LeftOut("; ".join(reasons) or "no finished method")
    sizes = [s for s in SIZES if s <= max(int(frame["n_samples"].max()) for frame in frames)]
    mean = np.nanmean([v for _, v in perfect.values()], axis=0)[:, : len(sizes)]
    patients = len({patient for patient, _ in perfect.values()})
    oracle = _frame("human", "oracle", sizes, mean, np.full((2, *mean.shape), np.nan), len(perfect), patients)
    return pd.concat([oracle, *frames], ignore_index=True)[list(COLUMNS)]


def _frame(
    method: str,
    output: str,
    sizes: list[int],
    values: NDArray[np.float64],
    intervals: NDArray[np.float64],
    n_cases: int,
    n_patients: int,
) -> pd.DataFrame:
    """Points of one curve of each metric: values 2×sizes, intervals 2 (low, high)×2×sizes."""
    parts = [
        {"n_samples": sizes, "metric": metric, "value": values[m]}
        | {"ci_low": intervals[0, m], "ci_high": intervals[1, m]}
        for m, metric in enumerate(METRICS)
    ]
    frame = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
    return frame.assign(method=method, output=output, n_cases=n_cases, n_patients=n_patients)


def _row_curves(row: Row, perfect: dict[str, tuple[str, NDArray[np.float64]]]) -> list[pd.DataFrame]:
    if not row.cells:
        raise LeftOut("no finished cell")
    values: Curves = {}
    patient_of: dict[str, str] = {}
    sizes: list[int] = []
    for cell in row.cells:
        classes = scored_classes(cell)
        found = classes[0]
        count = int(cell.spec["eval"]["n_samples"]) if found.stored.samples is None else found.stored.samples.shape[1]
        sizes = [s for s in SIZES if s <= count]
        for i, case in enumerate(found.case_ids):
            patient_of[case] = found.patient_ids[i]
            if case not in perfect:
                perfect[case] = (found.patient_ids[i], _perfect(classes, i, case))
            # GED is linear in the distance: that of several classes is the mean of theirs (metrics.md 1.1).
            of_classes = [_case_curves(one, i, sizes, count) for one in classes]
            for output in of_classes[0]:
                curve = np.mean([curves_of_one[output] for curves_of_one in of_classes], axis=0)
                values.setdefault(output, {}).setdefault(case, []).append(curve)
    frames = []
    for output, by_case in _without_copies(values).items():
        cases = sorted(by_case)
        matrix = np.array([np.mean(by_case[c], axis=0) for c in cases])  # N×2×sizes
        clusters = np.unique([patient_of[c] for c in cases], return_inverse=True)[1].astype(np.intp)
        found_intervals = percentile_intervals(matrix.reshape(len(cases), -1), clusters)
        intervals = np.stack([found_intervals.low, found_intervals.high]).reshape(2, *matrix.shape[1:])
        mean = np.nanmean(matrix, axis=0)
        frames.append(_frame(row.name, output, sizes, mean, intervals, len(cases), int(clusters.max()) + 1))
    return frames


def _perfect(classes: list[Scored], i: int, case: str) -> NDArray[np.float64]:
    """2×sizes of a perfect sampler, which draws a reader's masks of all classes together."""
    seen = classes[0].valid[i]
    if not seen.any():
        return np.full((2, len(SIZES)), np.nan)
    draws = numpy_generator("perfect sampler", case=case).integers(0, int(seen.sum()), (_ORACLE_DRAWS, max(SIZES)))
    return np.mean([perfect_sampler(one.masks[i][seen], SIZES, draws) for one in classes], axis=0)


def _case_curves(found: Scored, i: int, sizes: list[int], count: int) -> dict[str, NDArray[np.float64]]:
    raters = found.masks[i][found.valid[i]]
    if not len(raters):
        return {}
    curves = {_LEVELS: over_samples(found.levels(i, count), raters, sizes)}
    if found.stored.samples is None:  # a deterministic method: its level sets begin with its own mask
        return curves
    return {"diverse": over_samples(found.stored.samples[i], raters, sizes), **curves}


def _without_copies(values: Curves) -> Curves:
    """A method whose samples are the level sets of its map is its own trivial row: the same curve in every case.

    Decided over all cases: the samples of another method may equal the level sets in a single one.
    """
    own, levels = values.get("diverse"), values.get("levels")
    if own is not None and levels is not None and all(np.array_equal(own[c], levels[c]) for c in own):
        return {"diverse": own}
    return values
