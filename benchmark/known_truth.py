"""Scores on `synthetic` beside what is known exactly: ``python -m multirater.benchmark.known_truth RESULTS``.

The rater distribution of `synthetic` is enumerable, so the lowest expected GED of any prediction, that of a perfect
sampler, and the highest expected Dice with each rater are finite sums over the test cases. A method that is right comes
near them; a method that is broken does not, whatever the others do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import UserError
from ..datasets import open_dataset
from ..datasets.synthetic import Synthetic
from .collect import load_results

SAMPLES = ("diverse", "levels")  # outputs that are sets
HEAD = [
    "Method",
    "Output",
    "S",
    "GED ↓",
    "perfect sampler",
    "above it",
    "lowest possible",
    "Dice of the raters ↑",
    "common mask",
    "gain",
    "best possible",
]


def truth_table(results: Path) -> pd.DataFrame:
    """One row per method and output, seeds and cases averaged.

    Args:
        results: a results folder with finished cells on `synthetic` (one set of options).

    Raises:
        UserError: no such cell, or cells on different versions of the data.
    """
    frame = load_results(results)
    frame = frame[(frame.dataset == "synthetic") & (frame.method != "human")]
    if frame.empty:
        raise UserError(
            f"{results} holds no finished cell on 'synthetic'; run `multirater run --method all --dataset synthetic "
            f"--results {results}` first"
        )
    if frame.fingerprint.nunique() > 1:
        raise UserError(f"{results} holds cells on different data of 'synthetic'; give a folder with one of them")
    dataset = _dataset(results)
    position = {record.case_id: i for i, record in enumerate(dataset.records)}
    test = sorted(position[case] for case in frame.case_id.astype(str).unique())
    floor = float(dataset.ged_floor()[test].mean())
    seen = dataset.store.rater_valid[test]
    best = float((np.where(seen, dataset.best_dice_rater()[test], 0).sum(1) / seen.sum(1)).mean())

    rows = []
    for (method, output), part in frame.groupby(["method", "output"], observed=True, sort=True):
        if output not in (*SAMPLES, "personalised"):
            continue
        means = part[part.variant.astype(str).isin(["", "canonical"])].groupby("metric", observed=True).value.mean()
        count = int(part.n_samples.max())
        row: dict[str, Any] = {"Method": method, "Output": output, "S": count}
        if output == "personalised":
            common = _mean(frame, method, "consensus", "dice_rater")
            row |= {"Dice of the raters ↑": means["dice_rater"], "common mask": common, "best possible": best}
            row["gain"] = row["Dice of the raters ↑"] - common
        else:
            sampler = float(dataset.ged_sampler(count)[test].mean())
            row |= {"GED ↓": means["ged"], "perfect sampler": sampler, "lowest possible": floor}
            row["above it"] = means["ged"] - sampler
        rows.append(row)
    return pd.DataFrame(rows, columns=HEAD)


def _mean(frame: pd.DataFrame, method: str, output: str, metric: str) -> float:
    part = frame[(frame.method == method) & (frame.output == output) & (frame.metric == metric)]
    return float(part.value.mean())


def _dataset(results: Path) -> Synthetic:
    """The data set of the first cell on `synthetic`; all have one fingerprint."""
    from .cell import all_cells, open_results

    for cell in all_cells(open_results(results)):
        spec = cell.spec
        if spec["dataset"]["name"] == "synthetic":
            dataset = open_dataset("synthetic", **spec["dataset"]["options"])
            assert isinstance(dataset, Synthetic)
            return dataset
    raise UserError(f"{results} holds no cell on 'synthetic'")


def as_markdown(table: pd.DataFrame) -> str:
    """The table with three decimals; an empty cell does not apply."""
    text = table.map(
        lambda v: "" if isinstance(v, float) and np.isnan(v) else f"{v:.3f}" if isinstance(v, float) else v
    )
    return text.to_markdown(index=False, disable_numparse=True)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m multirater.benchmark.known_truth RESULTS", file=sys.stderr)
        return 2
    try:
        print(as_markdown(truth_table(Path(arguments[0]))))
    except UserError as error:
        print(f"known_truth: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
