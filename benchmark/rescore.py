"""Metrics again from stored predictions: nothing is trained or predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_json
from ..datasets import open_dataset
from .attempts import Outcome, outcome_of, words_of
from .cell import HUMAN, Cell, all_cells, check_keys, eval_key, open_results
from .metric_lists import metric_versions
from .runner import Report


def evaluate(results: Path, overrides: Mapping[str, Mapping[str, Any]], force: bool = False) -> Report:
    """Score every trained cell with the present metrics (and other ``eval`` options); nothing is trained.

    A cell that cannot be scored is named in the report, and the others are scored; a full disk ends it.

    Raises:
        UserError: keys outside ``eval``, a wrong value, or no trained cell.
    """
    from .config import EvalConfig, validated

    for section in overrides:
        if section != "eval":
            raise UserError(
                f"evaluate changes nothing but eval.*, not {section}.*; use `multirater run` for a new training"
            )
    validated(EvalConfig, overrides.get("eval", {}), "eval")
    open_results(results)
    report = Report(open_results(results, create=True), ran=1, logs=False)
    waiting, records = all_cells(results), 0
    while waiting:
        cell = waiting.pop(0)
        try:
            spec = cell.spec
            check_keys(spec, cell.folder)
            spec["eval"] = validated(EvalConfig, {**spec["eval"], **overrides.get("eval", {})}, "eval").model_dump()
            spec["eval_key"] = eval_key(spec, metric_versions())
            asked = cell.asking(spec)
            if asked.result(asked.eval_key) is None or force:
                if not _trained(cell, spec):
                    records += cell.train_record.is_file()
                    continue
                _score(asked, spec)
            report.cells.append(asked)
            if cell.spec != spec:
                write_json(cell.folder / "spec.json", spec)  # tables show the evaluation that was asked for last
        except (UserError, OSError) as error:
            report.failed.append((cell, words_of(error)))
            if outcome_of(error) == Outcome.DISK_FULL:
                report.left = waiting
                break
    if records:
        report.skipped.append(
            (f"{records} of the cells", "records alone, without predictions or weights: nothing to score")
        )
    if not report.cells and not report.failed:
        raise UserError(f"no trained cells in {results}; run `multirater run` first")
    return report


def _trained(cell: Cell, spec: Mapping[str, Any]) -> bool:
    """Whether there is something to score.

    Raises:
        UserError: there could be, from the weights.
    """
    if spec["method"]["name"] == HUMAN or cell.predictions("test").is_file():
        return True
    if cell.weights.is_file() and cell.train_record.is_file():
        raise UserError(
            "it is trained but stores no predictions, and evaluate makes none; `multirater run` with its options and "
            "this --set makes them from its weights"
        )
    return False


def _score(cell: Cell, spec: dict[str, Any]) -> None:
    """Make the evaluation that is asked for.

    Raises:
        UserError: somebody runs the cell, its specification or data are others, or its predictions are damaged or few.
    """
    from .progress import Heartbeat
    from .worker import check_fingerprint
    from .worker import evaluate as score

    if not cell.take():
        raise UserError("it is being run by another process; evaluate again when it is done")
    try:
        data = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
        check_fingerprint(spec, data)
        score(cell, spec, data, Heartbeat(cell.folder / "progress.json"))
    finally:
        (cell.folder / "progress.json").unlink(missing_ok=True)
        cell.release()
