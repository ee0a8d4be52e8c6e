"""Results folders made by hand, in the form in which the runner leaves them, with known numbers; and a browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from multirater.benchmark.cell import Cell, open_results, schema
from multirater.benchmark.predictions import StoredPredictions, write_predictions
from multirater.core.files import write_json, write_text
from multirater.core.hashing import digest, file_digest
from multirater.core.options import resolve_options
from multirater.datasets import DATASETS, open_dataset
from multirater.metrics import score_case
from multirater.metrics.calibration import bins_of
from multirater.metrics.components import components_of, save_components
from multirater.metrics.inputs import read_case
from multirater.metrics.score import evaluate

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
def planned(tmp_path: Path) -> Cell:
    """A cell that nobody has begun."""
    spec = {
        "schema": {"name": "cell", "version": 1}, "method": {"name": "m"}, "dataset": {"name": "d"}, "fold": 0,
        "seed": 0, "preset": "smoke", "eval_key": "e" * 64, "train_key": "t" * 64,
    }  # fmt: skip
    return Cell.plan(open_results(tmp_path / "results", create=True), spec)


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


SAMPLES_OF_BOARD = 8


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small synthetic data set: (data set, options, case ids, patient ids, masks N×R×H×W) of its test cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTIRATER_CACHE", str(tmp_path_factory.mktemp("cache")))
        options = resolve_options(DATASETS.get("synthetic"), {"size": 32, "cases": 48, "raters": 3}, "dataset")
        dataset = open_dataset("synthetic", **options)
        test = dataset.split(0).test
        records = [dataset.records[i] for i in test]
        masks = dataset.arrays(test)[1].astype(bool)
        yield dataset, options, [r.case_id for r in records], [r.patient_id for r in records], masks


@pytest.fixture(scope="session")
def make_board(data: Any) -> Callable[[Fabricator], Path]:
    """Fills a results folder: a personalised method with two seeds, a deterministic one, one without a finished cell.

    The personalised method is a perfect sampler with the readers' own masks as its maps, so that every number is known.
    """

    def fill(f: Fabricator) -> Path:
        return _board(f, data)

    return fill


def _board(f: Fabricator, data: Any) -> Path:
    dataset, options, cases, patients, masks = data
    n, raters = masks.shape[:2]
    common = {
        "dataset": "synthetic",
        "data_options": options,
        "fingerprint": dataset.fingerprint,
        "identity": "synthetic",
        "rater_ids": dataset.describe().rater_ids,
        "notice": dataset.notice,
        "case_ids": cases,
        "patient_ids": patients,
        "eval": {"n_samples": SAMPLES_OF_BOARD, "max_cases": None},
    }
    mean = masks.mean(1).astype(np.float32)
    maps = masks.astype(np.float32)
    zeros = np.zeros((n, 2, *mean.shape[1:]), np.float32)
    # Two dimensions: a projection on two components is then a rotation.
    codes = np.broadcast_to(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], np.float32), (n, raters, 2))
    spread = np.array([score_case(m, m, metrics=["diversity_raters"])["diversity_raters"] for m in masks])
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        samples = np.stack([m[rng.integers(0, raters, SAMPLES_OF_BOARD)] for m in masks])  # a perfect sampler
        noise = rng.normal(0, 0.01, n)
        diverse = {"ged": list(0.2 + noise), "hm_iou": list(0.8 + noise), "dice_soft": list(0.9 + noise)}
        diverse |= {"dice_rater": [0.8] * n, "diversity_raters": list(spread), "diversity_samples": list(0.9 * spread)}
        personal = {"dice_rater": list(0.9 + noise), "dice_rater.each": {r: [0.9] * n for r in common["rater_ids"]}}
        stages = [{"name": "main", "steps": 20, "epochs": 4, "selected": "last", "val_metric": "ged"}]
        folder = f.cell(
            "net",
            {"diverse": diverse, "personalised": personal},
            seed=seed,
            n_samples={"diverse": SAMPLES_OF_BOARD, "personalised": raters},
            train={"stages": stages},
            **common,
        )
        stored = StoredPredictions(
            cases,
            mean,
            zeros,
            samples,
            maps,
            SAMPLES_OF_BOARD,
            sample_codes=samples[:, :, :2, 0] * 1.0,
            rater_codes=codes,
        )
        write_predictions(folder / "predictions" / "test.safetensors", stored)
        place = next((folder / "eval").iterdir())
        for output, sets, own in (("diverse", samples, None), ("personalised", masks, maps)):
            views = [
                read_case(masks[i], sets[i], mean_prob=mean[i], rater_probs=None if own is None else own[i])
                for i in range(n)
            ]
            save_components(
                place / f"components-{output}.npz", [_counted(v, c) for v, c in zip(views, cases, strict=True)]
            )
        rows = [("main", e, 5 * e, key, (2 + seed) / e) for e in range(1, 5) for key in ("loss", "kl", "val_ged")]
        pd.DataFrame(rows, columns=["stage", "epoch", "step", "key", "value"]).to_csv(
            folder / "history.csv", index=False
        )
    worse = np.random.default_rng(2).normal(0, 0.01, n)
    values = {"ged": list(0.3 + worse), "dice_rater": list(0.7 + worse), "dice_soft": list(0.7 + worse)}
    plain = f.cell("plain", {"consensus": values}, n_samples=1, train={"seconds": {"train": 60.0}}, **common)
    write_predictions(
        plain / "predictions" / "test.safetensors", StoredPredictions(cases, mean, zeros, requested=SAMPLES_OF_BOARD)
    )
    f.cell("missing", None, **common)
    return f.results


def _counted(view: Any, case: str) -> Any:
    bins_of(view)
    if view.personalised:
        evaluate(view, ["dice_rater"])
    return components_of(view, case_id=case, every_variant=False)


_BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1400,1000"
).split()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with the driver of the system; nothing is downloaded."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver here; on Debian: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = selenium.ChromeOptions()
    options.binary_location = binary
    for flag in (*_BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = selenium.Chrome(options=options, service=Service(driver))
    found.implicitly_wait(10)
    yield found
    found.quit()
