"""From case values to one number per row and metric (metrics.md 12), with intervals over patients.

The rule for undefined values: where the *data* leave a metric undefined the case is dropped for every row and counted;
where a *method* does, its worst value takes the place and is counted. A value is never dropped for one row only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .bootstrap import cluster_sums, percentile_intervals
from .cell_values import CellValues, Key, cell_values
from .collect import DamagedCell
from .columns import base_metric
from .directions import BY_DATA, BY_METHOD, worst_value
from .groups import Group, Row

SERIES = ("output", "metric", "variant", "n_samples")
SCORE_COLUMNS = (
    "row",
    "method",
    "method_variant",
    *SERIES,
    "n_cases",
    "n_patients",
    "value",
    "ci_low",
    "ci_high",
    "sd_cases",
    "n_seeds",
    "sd_seeds",
    "n_folds",
    "n_replaced",
    "n_dropped",
    "fallback",
    "note",
)


@dataclass
class RowValues:
    """Case values of one row of a table, averaged over its seeds, after the rule for undefined values.

    Attributes:
        cases, patients: n case ids of all folds, sorted, and the patient of each.
        keys: K series: output, metric, variant and number of samples.
        values: n×K, NaN where a case does not count.
        replaced: K numbers of values that the worst value stands in for.
        dropped: K numbers of cases that the data leave undefined.
        seed_means: seeds×K means of single seeds over the cases that all seeds with any value have; else they would
            differ by their cases. NaN where there is no such case.
        seeds_with: K numbers of seeds with a value.
    """

    cases: list[str]
    patients: list[str]
    keys: list[Key]
    values: NDArray[np.float64]
    replaced: NDArray[np.intp]
    dropped: NDArray[np.intp]
    seed_means: NDArray[np.float64]
    seeds_with: NDArray[np.intp]

    def only(self, wanted: Callable[[Key], bool]) -> RowValues:
        """Some of the series."""
        pick = [i for i, key in enumerate(self.keys) if wanted(key)]
        return RowValues(
            self.cases,
            self.patients,
            [self.keys[i] for i in pick],
            self.values[:, pick],
            self.replaced[pick],
            self.dropped[pick],
            self.seed_means[:, pick],
            self.seeds_with[pick],
        )


def score_group(group: Group) -> pd.DataFrame:
    """One line per row, output, metric, variant and number of samples of a table.

    Args:
        group: a table of `make_groups`.

    Returns:
        A frame with `SCORE_COLUMNS`; `row` is the index into ``group.rows``.

    A cell whose metrics were changed after they were recorded is moved to its row's missing cells.
    """
    return scores_and_values(group, lambda key: False)[0]


def scores_and_values(group: Group, keep: Callable[[Key], bool]) -> tuple[pd.DataFrame, list[RowValues | None]]:
    """`score_group`, and for each row the case values of the series that `keep` wants; None without a finished cell."""
    loaded = [_load(row) for row in group.rows]
    # The human rows leave one reader out, which a case with one reader does not allow; methods can be scored there.
    dropped = _undefined_by_data([cells for row, cells in zip(group.rows, loaded, strict=True) if not row.human])
    frames: list[pd.DataFrame] = []
    kept: list[RowValues | None] = []
    for i, row in enumerate(group.rows):
        cells, loaded[i] = loaded[i], []  # what is aggregated need not be held any longer
        found = _row_values(row, cells, dropped) if cells else None
        if found is not None:
            frames.append(_row_scores(i, row, found))
        kept.append(found and found.only(keep))
    if not frames:
        return pd.DataFrame(columns=list(SCORE_COLUMNS)), kept
    return pd.concat(frames, ignore_index=True)[list(SCORE_COLUMNS)], kept


def _load(row: Row) -> list[CellValues]:
    loaded, kept = [], []
    for cell in row.cells:
        try:
            loaded.append(cell_values(cell))
            kept.append(cell)
        except DamagedCell as error:
            row.missing.append(replace(cell, state="damaged", why=str(error)))
    row.cells = kept
    return loaded


def _undefined_by_data(loaded: list[list[CellValues]]) -> dict[tuple[str, str], set[str]]:
    """(metric, variant) to the cases that the data leave undefined, over all these rows."""
    dropped: dict[tuple[str, str], set[str]] = defaultdict(set)
    for cells in loaded:
        for cell in cells:
            for column in np.flatnonzero((cell.undefined == BY_DATA).any(0)):
                _, metric, variant, _ = cell.keys[column]
                dropped[metric, variant].update(
                    cell.cases[i] for i in np.flatnonzero(cell.undefined[:, column] == BY_DATA)
                )
    return dropped


def _row_values(row: Row, cells: list[CellValues], dropped: dict[tuple[str, str], set[str]]) -> RowValues:
    patient_of = {c: p for cell in cells for c, p in zip(cell.cases, cell.patients, strict=True)}
    cases = sorted(patient_of)
    position = {case: i for i, case in enumerate(cases)}
    keys = list(dict.fromkeys(key for cell in cells for key in cell.keys))
    column = {key: i for i, key in enumerate(keys)}
    seeds = sorted({int(c.spec["seed"]) for c in row.cells})

    worst = np.array([worst_value(base_metric(key[1])) for key in keys])
    without = np.zeros((len(cases), len(keys)), dtype=bool)
    for i, (_, metric, variant, _) in enumerate(keys):
        without[[position[c] for c in dropped.get((metric, variant), ()) if c in position], i] = True

    total = np.zeros((len(cases), len(keys)))
    times = np.zeros_like(total)
    replaced = np.zeros(len(keys), dtype=int)
    sums, counts = [], []  # of the seeds
    for seed in seeds:
        seed_total, seed_times = np.zeros_like(total), np.zeros_like(total)
        for stored, cell in zip(row.cells, cells, strict=True):
            if int(stored.spec["seed"]) != seed:
                continue
            at = np.ix_([position[c] for c in cell.cases], [column[k] for k in cell.keys])
            without[at] |= cell.undefined == BY_DATA
            # A metric that an output leaves undefined in every case does not apply to it (one sample has no pair).
            applies = ~np.isnan(cell.values).all(0) & ~np.isnan(worst[at[1][0]])
            lost = (cell.undefined == BY_METHOD) & ~without[at] & applies
            replaced[at[1][0]] += lost.sum(0)
            value = np.where(lost, worst[at[1][0]], cell.values)
            use = cell.present & ~np.isnan(value) & ~without[at]
            seed_total[at] += np.where(use, value, 0.0)
            seed_times[at] += use
        total += seed_total
        times += seed_times
        sums.append(seed_total)
        counts.append(seed_times)

    values = np.where(times > 0, total / np.maximum(times, 1), np.nan)  # case values, averaged over seeds
    patients = [patient_of[c] for c in cases]
    seed_means, seeds_with = _of_seeds(sums, counts)
    return RowValues(cases, patients, keys, values, replaced, without.sum(0), seed_means, seeds_with)


def _of_seeds(
    sums: list[NDArray[np.float64]], counts: list[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """`RowValues.seed_means` and `seeds_with` from sums of values and their counts, n×K for every seed."""
    having = np.array([count.any(0) for count in counts])  # seeds×K
    common = np.all([(count > 0) | ~has for count, has in zip(counts, having, strict=True)], axis=0) & having.any(0)
    means = np.full(having.shape, np.nan)
    for s, (total, count) in enumerate(zip(sums, counts, strict=True)):
        number = np.where(common, count, 0).sum(0)
        some = number > 0
        means[s, some] = np.where(common, total, 0.0).sum(0)[some] / number[some]
    return means, having.sum(0)


def _row_scores(index: int, row: Row, found: RowValues) -> pd.DataFrame:
    clusters = np.unique(found.patients, return_inverse=True)[1].astype(np.intp)
    intervals = percentile_intervals(found.values, clusters)
    counted = ~np.isnan(found.values)
    n = counted.sum(0)
    patients_with = (cluster_sums(found.values, clusters)[1] > 0).sum(0)
    lines: list[dict[str, Any]] = []
    for i, key in enumerate(found.keys):
        if n[i] == 0 and not (found.dropped[i] or found.replaced[i]):
            continue  # every case "does not apply": the output does not claim this metric
        case_values = found.values[counted[:, i], i]
        over_seeds = found.seed_means[~np.isnan(found.seed_means[:, i]), i]
        no_spread = "" if len(over_seeds) == found.seeds_with[i] else "no sd_seeds: the seeds have no case in common"
        output = row.outputs.get(key[0], {})
        lines.append(
            {
                "row": index,
                "method": row.method,
                "method_variant": row.label,
                **dict(zip(SERIES, key, strict=True)),
                "n_cases": int(n[i]),
                "n_patients": int(patients_with[i]),
                "value": float(case_values.mean()) if n[i] else np.nan,
                "ci_low": intervals.low[i],
                "ci_high": intervals.high[i],
                "sd_cases": float(case_values.std(ddof=1)) if n[i] > 1 else np.nan,
                "n_seeds": int(found.seeds_with[i]),
                "sd_seeds": float(over_seeds.std(ddof=1)) if len(over_seeds) > 1 else np.nan,
                "n_folds": len(row.folds),
                "n_replaced": int(found.replaced[i]),
                "n_dropped": int(found.dropped[i]),
                "fallback": "common mask" if _is_fallback(key[1], output.get("fallback", ())) else "",
                "note": "; ".join(filter(None, (intervals.note[i], no_spread))),
            }
        )
    lines += _mean_over_raters(lines)
    return pd.DataFrame(lines, columns=list(SCORE_COLUMNS))


def _is_fallback(metric: str, fallback: Any) -> bool:
    return any(metric == f or metric.startswith((f"{f}.", f"{f}[")) for f in fallback or ())


def _mean_over_raters(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean of the raters' means, where it differs from the case-level mean because raters miss cases."""
    means: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        if line["metric"].startswith("dice_rater[") and "{" not in line["metric"]:
            means.setdefault((line["output"], line["variant"], line["n_samples"]), []).append(line)
    extra = []
    for found in means.values():
        if len({line["n_cases"] for line in found}) > 1:
            value = float(np.mean([line["value"] for line in found]))
            blank = {"ci_low": np.nan, "ci_high": np.nan, "sd_cases": np.nan, "sd_seeds": np.nan}
            note = "mean of the per-reader means; no interval"
            extra.append({**found[0], **blank, "metric": "dice_rater.over_raters", "value": value, "note": note})
    return extra
