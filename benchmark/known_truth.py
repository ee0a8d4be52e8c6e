"""Scores on `synthetic` beside what is known exactly: ``python -m multirater.benchmark.known_truth RESULTS``.

Prints the tables and the gates below, and ends with 1 if one of them is missed.

The rater distribution of `synthetic` is enumerable, so the lowest expected GED of any prediction, that of a perfect
sampler, and the highest expected Dice with each rater are finite sums over the test cases. A method that is right comes
near them; a method that is broken does not, whatever the others do.

On `synthetic-confusion` the truth and the raters' confusion matrices are known: the second table has the matrices that
the confusion-matrix methods found, and the Dice of every method's common mask with the truth that nobody saw.
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
from ..datasets.synthetic_confusion import SyntheticConfusion
from .cell import Cell, State
from .collect import StoredCell, find_cells, load_results

SAMPLES = ("diverse", "levels")  # outputs that are sets
# Gates, for trainings of a few minutes:
NEAR = 0.06  # GED of a sampling method above that of a perfect sampler with as many samples, at most
GAIN = 0.02  # Dice of personalised maps above the common mask of the same cell, at least
SMALL_GAIN = {"cm_global": 0.005}  # one matrix a rater moves the level at which the map is cut, and nothing else
PLANTED = {"cm_global": 0.06, "cm_pixel": 0.15}  # recovered specificity or sensitivity off the planted one, at most
# Measured, not gated: the samples of the first two show what a network does not know, and the raters' styles are known;
# the loss of tab is the cross-entropy of a sample, which is least without any spread (Jensen).
NO_RATERS = ("ensemble", "mc_dropout", "tab")
HEAD = [
    "Method",
    "Output",
    "Updates",
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
    """One row per method, output and number of updates, seeds and cases averaged.

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
    frame = frame.assign(updates=frame.cell.astype(str).map(_updates(results)))
    dataset = _dataset(results)
    position = {record.case_id: i for i, record in enumerate(dataset.records)}
    test = sorted(position[case] for case in frame.case_id.astype(str).unique())
    floor = float(dataset.ged_floor()[test].mean())
    seen = dataset.store.rater_valid[test]
    best = float((np.where(seen, dataset.best_dice_rater()[test], 0).sum(1) / seen.sum(1)).mean())

    rows = []
    for (method, updates, output), part in frame.groupby(["method", "updates", "output"], observed=True, sort=True):
        if output not in (*SAMPLES, "personalised"):
            continue
        means = part[part.variant.astype(str).isin(["", "canonical"])].groupby("metric", observed=True).value.mean()
        count = int(part.n_samples.max())
        row: dict[str, Any] = {"Method": method, "Output": output, "Updates": updates, "S": count}
        if output == "personalised":
            common = _mean(frame[frame.updates == updates], method, "consensus", "dice_rater")
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


def _finished(results: Path) -> list[StoredCell]:
    return [cell for cell in find_cells(results) if cell.state == State.DONE]


def _updates(results: Path) -> dict[str, int]:
    """Updates of the first stage by the name of a cell, its path below ``cells/``."""
    found = {}
    for cell in _finished(results):
        stages = cell.spec["train"].get("stages") or [{}]
        found[cell.name] = int(stages[0].get("steps") or 0)
    return found


def gates(table: pd.DataFrame, planted: pd.DataFrame) -> list[tuple[bool, str]]:
    """Whether each gate is kept, and a sentence of it; of several trainings of a method the longest counts.

    Args:
        table: `truth_table`.
        planted: `planted_table`, may be empty.
    """
    found = []
    longest = table.groupby("Method").Updates.transform("max") == table.Updates if len(table) else []
    for row in table[longest].to_dict("records") if len(table) else []:
        name = row["Method"]
        if row["Output"] == "diverse" and name not in NO_RATERS:
            above = row["above it"]
            found.append((above <= NEAR, f"{name}: GED {above:+.3f} from a perfect sampler's, at most {NEAR:+.3f}"))
        if row["Output"] == "personalised":
            gain, least = row["gain"], SMALL_GAIN.get(name, GAIN)
            found.append((gain >= least, f"{name}: Dice {gain:+.3f} from the common mask's, at least {least:+.3f}"))
    for name, most in PLANTED.items():
        rows = planted[planted.Method == name].to_dict("records") if len(planted) else []
        for row in rows:
            true = planted.iloc[0]
            raters = [c for c in planted.columns if c.startswith("rater")]
            pairs = [(_numbers(row[c]), _numbers(true[c])) for c in raters]
            off = max(float(np.abs(found_ - true_).max()) for found_, true_ in pairs)
            found.append((off <= most, f"{name}: planted rates found to {off:.3f}, at most {most:.3f} off"))
    return found


def _numbers(rates: str) -> np.ndarray:
    return np.array([float(part) for part in rates.split(" / ")])


def _has_synthetic(results: Path) -> bool:
    return any(cell.dataset == "synthetic" for cell in _finished(results))


def _dataset(results: Path) -> Synthetic:
    """The data set of the first finished cell on `synthetic`; all have one fingerprint."""
    for cell in _finished(results):
        if cell.dataset == "synthetic":
            dataset = open_dataset("synthetic", **cell.spec["dataset"]["options"])
            assert isinstance(dataset, Synthetic)
            return dataset
    raise UserError(f"{results} holds no finished cell on 'synthetic'")


def planted_table(results: Path) -> pd.DataFrame:
    """One row per finished cell on `synthetic-confusion`: Dice with the truth, and specificity and sensitivity found.

    The matrices of `cm_pixel` are averaged over pixels, weighted by the estimated truth: only where a label is true
    does the data say anything of its column.
    """
    import torch

    from .worker import load_cell

    rows: list[dict[str, Any]] = []
    votes: dict[str, Any] = {}
    for cell in find_cells(results):
        spec = cell.spec
        if cell.dataset != "synthetic-confusion" or not Cell(cell.folder).weights.is_file():
            continue
        dataset = open_dataset("synthetic-confusion", **spec["dataset"]["options"])
        assert isinstance(dataset, SyntheticConfusion)
        test = dataset.split(spec["fold"]).test
        images, masks, _ = dataset.arrays(test)
        truth = dataset.truth(test)
        method = load_cell(cell.folder)
        with torch.no_grad():
            means = [method.predict(torch.from_numpy(image[None]), 16, _generator()).mean[0] for image in images]
        mean = torch.stack(means).numpy()
        row = {"Method": cell.method, "Dice with the truth ↑": _dice(mean > 0.5, truth)}
        if hasattr(method, "average_matrices"):
            found = _average(method, images, mean)
            row |= {rater: _rates(m) for rater, m in zip(dataset.describe().rater_ids, found, strict=True)}
        rows.append(row)
        planted = {r: _rates(m) for r, m in zip(dataset.describe().rater_ids, dataset.matrices, strict=True)}
        votes = {
            "Method": "majority of the raters",
            "Dice with the truth ↑": _dice(masks.mean(1) > 0.5, truth),
            **planted,
        }
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame([votes, *sorted(rows, key=lambda r: r["Method"])]).fillna("")


def _generator() -> Any:
    from ..core.seeding import torch_generator

    return torch_generator("known truth")


def _average(method: Any, images: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """R×2×2: entry [r, said, true]."""
    import torch

    weights = np.stack([1 - mean, mean], 1)
    total, mass = 0.0, weights.sum((0, 2, 3))
    with torch.no_grad():
        for image, weight in zip(images, weights, strict=True):
            matrices = method.pixel_matrices(torch.from_numpy(image[None]))[0, :, 0].numpy()  # R×2×2×H×W or ×1×1
            total = total + (matrices * weight).sum((-2, -1))
    return np.asarray(total) / mass


def _rates(matrix: np.ndarray) -> str:
    return f"{matrix[0, 0]:.3f} / {matrix[1, 1]:.3f}"


def _dice(masks: np.ndarray, truth: np.ndarray) -> float:
    """Mean over cases."""
    both, sizes = (masks & truth).sum((1, 2)), masks.sum((1, 2)) + truth.sum((1, 2))
    return float(np.mean(2 * both / np.maximum(sizes, 1)))


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
        planted, table = planted_table(Path(arguments[0])), pd.DataFrame(columns=HEAD)
        if planted.empty or _has_synthetic(Path(arguments[0])):
            table = truth_table(Path(arguments[0]))
            print(as_markdown(table))
        if not planted.empty:
            print("\nColumns of raters: specificity / sensitivity; first row: as planted.\n")
            print(as_markdown(planted))
        kept = gates(table, planted)
    except UserError as error:
        print(f"known_truth: {error}", file=sys.stderr)
        return 2
    print("\nGates:\n")
    for passed, sentence in kept:
        print(f"* {'kept' if passed else 'MISSED'}: {sentence}")
    return 0 if all(passed for passed, _ in kept) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
