"""Finished cells without a training, and bundles that were changed on their way."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from multirater.benchmark.cell import Cell, eval_key, open_results, read_metrics, schema, train_key
from multirater.benchmark.metric_lists import metric_versions

HEAD = "case_id,patient_id,output,rater,label,metric,variant,region,n_samples,value,reason\n"


def make(
    results: Path, method: str = "net", values=(0.25, 0.5), seed: int = 0, done: bool = True, samples: int = 2, **data
) -> Cell:
    """A finished cell, as the runner leaves it."""
    open_results(results, create=True)
    spec = {
        "schema": schema("cell"), "protocol": 1, "preset": "smoke", "fold": 0, "seed": seed,
        "method": {"name": method, "version": 1, "options": {"backbone_weights": None}, "files": {}},
        "dataset": {
            "name": "toy", "version": 1, "options": {"root": "/home/me/data", "size": 64}, "fingerprint": "f" * 16,
            "split": "cv4", "split_hash": "s0", "notice": "", "identity": "none", "rater_ids": ["1"], **data,
        },
        "train": {"steps": 3, "stages": [{"name": "main", "steps": 3}]},
        "eval": {"n_samples": samples, "max_cases": None},
    }  # fmt: skip
    spec["train_key"] = train_key(spec)
    spec["eval_key"] = eval_key(spec, metric_versions())
    cell = Cell.plan(results, spec)
    if not done:
        return cell
    common = {
        "train_key": spec["train_key"],
        "memory_mb": {"train": 9.0},
        "code": {"torch": "2"},
        "peak_memory_mb": 9.0,
    }
    machine = {"cpu": "some", "slurm_job": "17", "threads": 1}
    train = {
        "schema": schema("train"), "outcome": "ok", "stages": [], "parameters": 1, "seconds": {"train": 1.0},
        "numerics": {}, "samples_seen": 12, "machine": machine, **common,
    }  # fmt: skip
    (cell.folder / "train.json").write_text(json.dumps(train))
    text = HEAD + "".join(f"c{i},p{i},mean,,1,ged,canonical,full,{samples},{v},\n" for i, v in enumerate(values))
    folder = cell.eval_folder(spec["eval_key"])
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)
    result = {
        "schema": schema("result"), "eval_key": spec["eval_key"], "n_cases": 2, "n_patients": 2, "outputs": {},
        "metrics_sha256": hashlib.sha256(text.encode()).hexdigest(), "seconds": {"evaluate": 1.0},
        "metrics": metric_versions(), **common,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return cell


def values_of(cell: Cell) -> str:
    return read_metrics(cell.eval_folder(cell.spec["eval_key"])).decode()


def repacked(source: Path, target: Path, change, mend: bool = True) -> Path:
    """A bundle whose files were changed by `change(name, bytes) -> bytes`, its own hashes mended."""
    with zipfile.ZipFile(source) as pack:
        files = {name: change(name, pack.read(name)) for name in pack.namelist()}
    if mend:
        record = json.loads(files["bundle.json"])
        record["files"] = {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n != "bundle.json"}
        files["bundle.json"] = json.dumps(record).encode()
    with zipfile.ZipFile(target, "w") as pack:
        for name, data in files.items():
            pack.writestr(name, data)
    return target


def in_json(part: str, **values):
    def change(name: str, data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **values}).encode() if name.endswith(part) else data

    return change
