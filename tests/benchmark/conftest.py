"""Results folders made by hand, in the form in which the runner leaves them, with numbers known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.cell import schema
from multirater.core.files import write_json, write_text
from multirater.core.hashing import digest, file_digest

COLUMNS = "case_id,patient_id,output,rater,label,metric,variant,region,n_samples,value,reason".split(",")
Value = float | tuple[float, str]


class Fabricator:
    """Writes cells into a results folder.

    Case i is ``c<i>`` of patient ``p<i // cases_per_patient>``; folds shift the numbers, so that cases are apart.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        write_json(results / "index.json", {"schema": schema("multirater-results"), "suite": "0.1.0"})

    def cell(
        self,
        method: str = "net",
        values: Mapping[str, Mapping[str, Sequence[Value] | Mapping[str, Sequence[Value]]]] | None = None,
        *,
        dataset: str = "toy",
        options: Mapping[str, Any] | None = None,
        data_options: Mapping[str, Any] | None = None,
        fold: int = 0,
        seed: int = 0,
        preset: str = "quick",
        n_samples: Mapping[str, int] | int = 50,
        fallback: Mapping[str, Sequence[str]] | None = None,
        fingerprint: str = "aaaa",
        identity: str = "derived",
        rater_ids: Sequence[str] = ("1", "2"),
        notice: str = "",
        cases_per_patient: int = 1,
        case_ids: Sequence[str] | None = None,
        patient_ids: Sequence[str] | None = None,
        train: Mapping[str, Any] | None = None,
        result_schema: Mapping[str, Any] | None = None,
        **spec_changes: Any,
    ) -> Path:
        """One cell: ``values[output][metric]`` are case values, or such lists by rater; (nan, reason) is undefined."""
        spec: dict[str, Any] = {
            "schema": schema("cell"),
            "protocol": 1,
            "method": {"name": method, "version": 1, "options": dict(options or {})},
            "dataset": {
                "name": dataset,
                "version": 1,
                "options": dict({"set": "mid", "identity": "by_area"} if data_options is None else data_options),
                "fingerprint": fingerprint,
                "split": "fixed",
                "split_hash": f"split-{fold}",
                "notice": notice,
                "identity": identity,
                "rater_ids": list(rater_ids),
            },
            "train": {"steps": 600, "select": "last", "stages": [{"name": "main", "steps": 600}]},
            "eval": {"n_samples": 50, "max_cases": None},
            "preset": preset,
            "fold": fold,
            "seed": seed,
            **spec_changes,
        }
        spec["train_key"] = digest(spec)
        spec["eval_key"] = digest([spec["train_key"], "eval"])
        folder = self.results / "cells" / method / dataset / f"f{fold}-s{seed}-{spec['train_key'][:8]}"
        write_json(folder / "spec.json", spec)
        if method != "human":
            record = {
                "schema": schema("train"),
                "outcome": "ok",
                "stages": [{"name": "main", "steps": 600, "epochs": 13}],
                "parameters": 490_000,
                "seconds": {"prepare": 1.0, "train": 126.0},
                "peak_memory_mb": 812.5,
            }
            write_json(folder / "train.json", {**record, **(train or {})})
        if values is not None:
            self._evaluate(
                folder, spec, values, n_samples, fallback or {}, cases_per_patient, case_ids, patient_ids, result_schema
            )
        return folder

    def _evaluate(
        self,
        folder: Path,
        spec: dict[str, Any],
        values: Mapping[str, Any],
        n_samples: Mapping[str, int] | int,
        fallback: Mapping[str, Sequence[str]],
        cases_per_patient: int,
        case_ids: Sequence[str] | None,
        patient_ids: Sequence[str] | None,
        result_schema: Mapping[str, Any] | None,
    ) -> None:
        rows = []
        for output, metrics in values.items():
            count = n_samples if isinstance(n_samples, int) else n_samples[output]
            for metric, found in metrics.items():
                for rater, series in found.items() if isinstance(found, Mapping) else [("", found)]:
                    for i, value in enumerate(series):
                        number, reason = value if isinstance(value, tuple) else (value, "")
                        j = i + 1000 * spec["fold"]
                        case = case_ids[i] if case_ids else f"c{j:04d}"
                        patient = patient_ids[i] if patient_ids else f"p{j // cases_per_patient:04d}"
                        stored = None if np.isnan(number) else number
                        row = (case, patient, output, rater, "1", metric, "canonical", "full", count, stored, reason)
                        rows.append(row)
        frame = pd.DataFrame(rows, columns=COLUMNS)
        place = folder / "eval" / spec["eval_key"][:8]
        write_text(place / "metrics.csv", frame.to_csv(index=False))
        outputs = {
            output: {
                "n_samples": n_samples if isinstance(n_samples, int) else n_samples[output],
                "claims": ["samples", "mean"],
                "fallback": list(fallback.get(output, ())),
            }
            for output in values
        }
        record = {
            "schema": dict(result_schema or schema("result")),
            "eval_key": spec["eval_key"],
            "metrics_sha256": file_digest(place / "metrics.csv"),
            "n_cases": int(frame.case_id.nunique()),
            "n_patients": int(frame.patient_id.nunique()),
            "outputs": outputs,
            "seconds": {"predict": 4.0, "evaluate": 1.5},
        }
        write_json(place / "result.json", record)

    def attempt(self, folder: Path, outcome: str, message: str) -> None:
        """An attempt that did not finish."""
        path = folder / "attempts" / "1" / "attempt.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"schema": schema("attempt"), "outcome": outcome, "message": message}))


@pytest.fixture
def fabricate(tmp_path: Path) -> Callable[..., Fabricator]:
    """A maker of results folders: ``fabricate()`` or ``fabricate("name")``."""

    def make(name: str = "results") -> Fabricator:
        return Fabricator(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def fabricate_at() -> Callable[[Path], Fabricator]:
    """A maker of results folders at a given path, for fixtures that outlive one test."""
    return Fabricator
