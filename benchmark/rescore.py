"""Metrics again from stored predictions: nothing is trained or predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_json
from ..datasets import open_dataset
from .cell import HUMAN, all_cells, eval_key, open_results
from .metric_lists import metric_versions
from .runner import Report


def evaluate(results: Path, overrides: Mapping[str, Mapping[str, Any]], force: bool = False) -> Report:
    """Score every trained cell with the present metrics (and other ``eval`` options); nothing is trained.

    Raises:
        UserError: keys outside ``eval``, or more samples than a cell has stored.
    """
    from .config import EvalConfig, validated
    from .progress import Heartbeat
    from .worker import check_fingerprint
    from .worker import evaluate as score

    for section in overrides:
        if section != "eval":
            raise UserError(
                f"evaluate changes nothing but eval.*, not {section}.*; use `multirater run` for a new training"
            )
    report = Report(open_results(results, create=True), ran=1)
    for cell in all_cells(results):
        spec = cell.spec
        trained = cell.predictions("test").is_file() or spec["method"]["name"] == HUMAN
        if not trained:
            continue
        spec["eval"] = validated(EvalConfig, {**spec["eval"], **overrides.get("eval", {})}, "eval").model_dump()
        spec["eval_key"] = eval_key(spec, metric_versions())
        report.cells.append(cell)
        if cell.result(spec["eval_key"]) is None or force:
            if not cell.take():
                raise UserError(f"{cell.folder} is being run by another process; evaluate again when it is done")
            try:
                data = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
                check_fingerprint(spec, data)
                score(cell, spec, data, Heartbeat(cell.folder / "progress.json"))
            finally:
                (cell.folder / "progress.json").unlink(missing_ok=True)
                cell.release()
        write_json(cell.folder / "spec.json", spec)  # tables show the evaluation that was asked for last
    if not report.cells:
        raise UserError(f"no trained cells in {results}; run `multirater run` first")
    return report
