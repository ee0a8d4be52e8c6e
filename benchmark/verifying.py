"""Run a finished cell again, from nothing but its specification, and compare the case values."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from .bundles import under_pseudonyms
from .cell import HUMAN, Cell, State, all_cells, case_values, eval_key, open_results, read_metrics, training_of
from .devices import pick_device
from .metric_lists import metric_versions

TOLERANCE = 1e-6  # of a mean: what another version of a library may change in a deterministic run


@dataclass(frozen=True)
class Verified:
    """How a second run compares.

    Attributes:
        values: number of case values.
        different: how many are not the same bits.
        largest: largest difference of a case value.
        worst: (output, metric, first mean, second mean) with the largest difference of means.
        undefined: values that are defined in one run only.
        reasons: circumstances that differ between the runs.
    """

    values: int
    different: int
    largest: float
    worst: tuple[str, str, float, float] | None
    undefined: int
    reasons: list[str]
    tolerance: float

    @property
    def passed(self) -> bool:
        apart = abs(self.worst[2] - self.worst[3]) if self.worst else 0.0
        return self.undefined == 0 and apart <= self.tolerance


def find_cell(results: Path, name: str) -> Cell:
    """A cell by its folder, or by its path below ``cells/`` (or the end of it).

    Raises:
        UserError: none or several match.
    """
    if (Path(name) / "spec.json").is_file():
        return Cell(Path(name))
    open_results(results)
    matching = [c for c in all_cells(results) if f"/{c.folder.as_posix()}".endswith(f"/{name.strip('/')}")]
    if len(matching) != 1:
        what = "no cell" if not matching else f"{len(matching)} cells"
        raise UserError(
            f"{name!r} names {what} of {results}; give METHOD/DATASET/NAME as `multirater status --cells` lists"
        )
    return matching[0]


def verify(cell: Cell, device: str = "auto", threads: int = 0, tolerance: float = TOLERANCE) -> Verified:
    """Train, predict and score a finished cell again in a temporary folder.

    Args:
        cell: which must be done.
        threads: CPU threads; 0: as many as the first run had.
        tolerance: largest difference of a mean over cases.

    Raises:
        UserError: the cell is not done, its data have changed, or the second run fails.
    """
    from .worker import run_cell

    spec = cell.spec
    if cell.state() is not State.DONE:
        raise UserError(f"{cell.folder} is {cell.state()}, not done; finish it with `multirater run` first")
    first = read_metrics(cell.eval_folder(spec["eval_key"]))
    train = training_of(cell.training(), cell.result(spec["eval_key"]) or {})
    machine = train.get("machine") or {}
    threads = threads or int(machine.get("threads") or 0)
    device = pick_device(device)
    with tempfile.TemporaryDirectory(prefix="multirater-verify-") as place:
        planned = {**spec, "eval_key": eval_key(spec, metric_versions())}
        again = Cell.plan(open_results(Path(place) / "results", create=True), planned)
        outcome = run_cell(again.folder, device, threads)
        if outcome != "ok":
            message = (again.last_attempt() or {}).get("message", "")
            raise UserError(f"the second run of {cell.folder} ended with {outcome}: {message}")
        second = read_metrics(again.eval_folder(again.eval_key))
        now = again.training()
    reasons = [] if again.eval_key == spec["eval_key"] else ["metrics: some have another version now"]
    reasons += [] if spec["method"]["name"] == HUMAN else _reasons(train, now)
    # A merged cell may name its cases by pseudonyms alone.
    first, second = (under_pseudonyms(metrics, spec["dataset"]["fingerprint"]) for metrics in (first, second))
    return compare(first, second, reasons, tolerance)


def _reasons(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs in code and machine between two records of training, in words."""
    keys = [("code", key) for key in ("multirater", "revision", "diff_sha256", "torch", "numpy")]
    keys += [("machine", key) for key in ("cpu", "device", "gpu")]
    pairs = [(key, *((record.get(part) or {}).get(key) for record in (then, now))) for part, key in keys]
    return [f"{key}: {old} then, {new} now" for key, old, new in pairs if old != new]


def compare(first: bytes, second: bytes, reasons: list[str], tolerance: float) -> Verified:
    """Case values of two runs of one specification, row by row."""
    tables = [case_values(first), case_values(second)]
    both = tables[0].keys() & tables[1].keys()
    undefined = len(tables[0].keys() ^ tables[1].keys())
    different, largest = 0, 0.0
    means: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for key in both:
        old, new = tables[0][key], tables[1][key]
        if (old == "") != (new == ""):
            undefined += 1
        elif old != "":
            a, b = float(old), float(new)
            different += a != b
            largest = max(largest, abs(a - b))
            means.setdefault((key[1], key[4]), []).append((a, b))
    rows = [
        (output, metric, math.fsum(a for a, _ in pairs) / len(pairs), math.fsum(b for _, b in pairs) / len(pairs))
        for (output, metric), pairs in means.items()
    ]
    worst = max(rows, key=lambda row: abs(row[2] - row[3]), default=None)
    return Verified(len(both), different, largest, worst, undefined, reasons, tolerance)
