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
from .collect import DamagedCell, StoredCell
from .columns import base_metric
from .directions import APPLIES_NOT, BY_DATA, BY_METHOD, undefined_by, worst_value
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
_CANONICAL = ("", "canonical")
_REGION = "box"  # canonical for region-dependent metrics on the leaderboard (metrics.md 5.3)
FULL = "full"  # the variant that stands for their other region, all pixels
Key = tuple[str, str, str, int]


@dataclass
class RowValues:
    """Case values of one row of a table, averaged over its seeds, after the rule for undefined values.

    Attributes:
        cases, patients: n case ids of all folds, sorted, and the patient of each.
        keys: K series: output, metric, variant and number of samples.
        values: n×K, NaN where a case does not count.
        replaced: K numbers of values that the worst value stands in for.
        dropped: K numbers of cases that the data leave undefined.
        seed_means: seeds×K means over the cases of single seeds.
    """

    cases: list[str]
    patients: list[str]
    keys: list[Key]
    values: NDArray[np.float64]
    replaced: NDArray[np.intp]
    dropped: NDArray[np.intp]
    seed_means: NDArray[np.float64]

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
        )


@dataclass
class _CellValues:
    """Values of one cell: cases × series, NaN with a code where undefined, absent series left out."""

    cases: list[str]
    patients: list[str]
    keys: list[Key]
    values: NDArray[np.float64]
    undefined: NDArray[np.uint8]  # `directions.BY_DATA`, `BY_METHOD`; 0 where defined or absent
    present: NDArray[np.bool_]


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


def _load(row: Row) -> list[_CellValues]:
    loaded, kept = [], []
    for cell in row.cells:
        try:
            loaded.append(_cell_values(cell))
            kept.append(cell)
        except DamagedCell as error:
            row.missing.append(replace(cell, state="damaged", why=str(error)))
    row.cells = kept
    return loaded


def _cell_values(cell: StoredCell) -> _CellValues:
    frame = cell.metrics()
    names = ["output", "metric", "variant", "region", "rater", "label", "n_samples"]
    series = _numbered(frame, names)
    heads = frame.loc[np.unique(series, return_index=True)[1], names]
    case_codes, case_names = _sorted_codes(frame["case_id"])
    patients = np.empty(len(case_names), dtype=object)
    patients[case_codes] = frame["patient_id"].cat.categories.to_numpy(dtype=object)[frame["patient_id"].cat.codes]

    shape = (len(case_names), len(heads))
    values = np.full(shape, np.nan)
    undefined = np.zeros(shape, dtype=np.uint8)
    present = np.zeros(shape, dtype=bool)
    number = frame["value"].to_numpy()
    lacking = np.isnan(number)
    reasons = frame["reason"].cat.categories
    code = np.array([undefined_by(str(r)) for r in reasons], dtype=np.uint8)
    by = code[frame["reason"].cat.codes.to_numpy()] if len(code) else np.zeros(len(frame), dtype=np.uint8)
    values[case_codes, series] = number
    undefined[case_codes, series] = np.where(lacking, by, APPLIES_NOT)
    present[case_codes, series] = ~lacking | (by != APPLIES_NOT)
    keys, columns = _series_keys(heads)
    return _merged_labels(_CellValues(case_names, list(map(str, patients)), keys, values, undefined, present), columns)


def _numbered(frame: pd.DataFrame, names: list[str]) -> NDArray[np.intp]:
    """The number of each line's combination of these columns, in the order in which combinations first appear."""
    combined = np.zeros(len(frame), dtype=np.int64)
    for name in names:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes, count = column.cat.codes.to_numpy(), len(column.cat.categories)
        else:
            codes, levels = pd.factorize(column, use_na_sentinel=False)
            count = len(levels)
        combined = combined * max(count, 1) + codes
    return np.asarray(pd.factorize(combined)[0], dtype=np.intp)


def _sorted_codes(column: pd.Series) -> tuple[NDArray[np.intp], list[str]]:
    """Number of each line's text among the sorted ones, and those."""
    texts = [str(text) for text in column.cat.categories]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.empty(len(texts), dtype=np.intp)
    place[order] = np.arange(len(texts))
    return place[column.cat.codes.to_numpy()], [texts[i] for i in order]


def _series_keys(heads: pd.DataFrame) -> tuple[list[Key], list[str]]:
    """Metric names with the rater in brackets, the canonical region without a mark, others as a variant; and labels."""
    text = heads.astype(dict.fromkeys(("output", "metric", "variant", "region", "rater", "label"), str))
    boxed = set(text.loc[text["region"] == _REGION, "metric"])
    keys: list[Key] = []
    for line in text.itertuples(index=False):
        metric = f"{line.metric.removesuffix('.each')}[{line.rater}]" if line.rater else line.metric
        variant = "" if line.variant in _CANONICAL else line.variant
        if line.metric in boxed and line.region != _REGION:
            variant = f"{variant} {line.region or FULL}".strip()
        samples = 0 if np.isnan(line.n_samples) else int(line.n_samples)
        keys.append((line.output, metric, variant, samples))
    return keys, list(text["label"])


def _merged_labels(cell: _CellValues, labels: list[str]) -> _CellValues:
    """One series per key: the one without label if there is one, else the mean over the classes of a case."""
    members: dict[Key, dict[str, int]] = defaultdict(dict)
    for i, (key, label) in enumerate(zip(cell.keys, labels, strict=True)):
        members[key][label] = i
    keys: list[Key] = []
    values, undefined, present = [], [], []
    for key, found in members.items():
        pick = [found[""]] if "" in found else list(found.values())
        block = cell.values[:, pick]
        keys.append(key)
        values.append(block.mean(1))  # a class that is undefined makes the mean undefined
        codes = cell.undefined[:, pick]
        undefined.append(np.where((codes == BY_DATA).any(1), np.uint8(BY_DATA), codes.max(1)))
        present.append(cell.present[:, pick].all(1))
        if len(found) > 1:
            output, metric, variant, samples = key
            for label, i in found.items():
                if label:
                    keys.append((output, f"{metric}{{{label}}}", variant, samples))
                    values.append(cell.values[:, i])
                    undefined.append(cell.undefined[:, i])
                    present.append(cell.present[:, i])
    return _CellValues(
        cell.cases, cell.patients, keys, np.stack(values, 1), np.stack(undefined, 1), np.stack(present, 1)
    )


def _undefined_by_data(loaded: list[list[_CellValues]]) -> dict[tuple[str, str], set[str]]:
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


def _row_values(row: Row, cells: list[_CellValues], dropped: dict[tuple[str, str], set[str]]) -> RowValues:
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
    seed_means = np.full((len(seeds), len(keys)), np.nan)
    for s, seed in enumerate(seeds):
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
        count = seed_times.sum(0)
        seed_means[s, count > 0] = seed_total.sum(0)[count > 0] / count[count > 0]

    with np.errstate(invalid="ignore"):
        values = np.where(times > 0, total / np.maximum(times, 1), np.nan)  # case values, averaged over seeds
    patients = [patient_of[c] for c in cases]
    return RowValues(cases, patients, keys, values, replaced, without.sum(0), seed_means)


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
                "n_seeds": len(over_seeds),
                "sd_seeds": float(over_seeds.std(ddof=1)) if len(over_seeds) > 1 else np.nan,
                "n_folds": len(row.folds),
                "n_replaced": int(found.replaced[i]),
                "n_dropped": int(found.dropped[i]),
                "fallback": "common mask" if _is_fallback(key[1], output.get("fallback", ())) else "",
                "note": intervals.note[i],
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
