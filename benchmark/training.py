"""The training part of a cell: stage after stage, each from its own seed, each resumable in the middle."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import read_json, replacing, write_json, write_text
from .cell import Cell, schema
from .phases import Phases
from .progress import Heartbeat
from .stopping import StopFlag


def build_method(spec: dict[str, Any], dataset: Any, device: Any) -> Any:
    import torch

    from ..core.seeding import seed_for
    from ..methods import create_method
    from ..methods.backbones import channels_last

    axes = {"dataset": spec["dataset"]["name"], "fold": spec["fold"], "seed": spec["seed"]}
    torch.manual_seed(seed_for("init", method=spec["method"]["name"], **axes))
    method = create_method(spec["method"]["name"], dataset.describe(), **spec["method"]["options"])
    if spec["train"]["channels_last"] and dataset.describe().spatial_dims == 2:
        method = channels_last(method)
    return method.to(device)


def load_method(cell: Cell, spec: dict[str, Any], dataset: Any, device: Any) -> Any:
    method = build_method(spec, dataset, device)
    method.load_state_dict(load_weights(cell.weights, device))
    return method.eval()


def load_weights(path: Path, device: Any) -> dict[str, Any]:
    """The tensors of a file of `save_weights`.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or delete it and train again") from error


def save_weights(path: Path, method: Any) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        # A copy each: modules may share tensors, which the format refuses.
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in method.state_dict().items()}, temporary)


def train_cell(
    cell: Cell,
    spec: dict[str, Any],
    dataset: Any,
    device: Any,
    heartbeat: Heartbeat,
    stop: StopFlag | None = None,
    phases: Phases | None = None,
) -> Any:
    """Train what is not trained yet and write ``weights.safetensors``, ``history.csv``, then ``train.json``.

    Raises:
        Diverged: the loss or the weights were not finite.
        Stopped: a stop was asked for; the running stage goes on from its last step next time.
    """
    import pandas as pd

    from . import numerics, provenance
    from .resume import StateKeeper
    from .trainer import StageRecord, Trainer

    phases = Phases(device.type) if phases is None else phases
    with phases.phase("prepare"):
        method = build_method(spec, dataset, device)
    keeper = StateKeeper(cell.folder / "state" / "running.safetensors")
    trainer = Trainer(method, dataset, spec, device, heartbeat, keeper, stop)
    records: list[StageRecord] = []
    for position, budget in enumerate(spec["train"]["stages"]):
        weights = cell.folder / "state" / f"{position}-{budget['name']}.safetensors"
        finished = weights.with_suffix(".json")
        if finished.is_file():
            method.load_state_dict(load_weights(weights, device))
            saved = read_json(finished)
            records.append(StageRecord(**saved["record"]))
            trainer.history.rows += [tuple(row) for row in saved["history"]]
            continue
        before = len(trainer.history.rows)
        with phases.phase("train"):
            records.append(trainer.run_stage(budget))
        if not trainer.team.first:
            continue
        save_weights(weights, method)
        write_json(finished, {"record": asdict(records[-1]), "history": trainer.history.rows[before:]})
        keeper.clear()
    if not trainer.team.first:
        return method
    save_weights(cell.weights, method)
    history = pd.DataFrame(trainer.history.rows, columns=["stage", "epoch", "step", "key", "value"])
    write_text(cell.folder / "history.csv", history.to_csv(index=False))
    record = {
        "schema": schema("train"),
        "train_key": spec["train_key"],
        "outcome": "ok",
        "stages": [asdict(r) for r in records],
        "nonfinite_steps": sum(r.nonfinite_steps for r in records),
        "parameters": sum(p.numel() for p in method.parameters()),
        # Of the training as a whole, whatever it was cut into; memory and energy are those of the last attempt.
        "seconds": {**phases.seconds, "train": round(sum(r.seconds for r in records), 3)},
        "peak_memory_mb": max(phases.memory_mb.values()),
        "peak_gpu_mb": phases.gpu_mb.get("train"),
        **phases.record(),
        "samples_seen": sum(r.samples for r in records),
        "code": provenance.code(),
        "machine": provenance.machine(device.type),
        "numerics": numerics.describe(spec["train"]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(cell.train_record, record)
    clear_state(cell)
    return method


def clear_state(cell: Cell) -> None:
    """Remove what a finished training no longer needs."""
    shutil.rmtree(cell.folder / "state", ignore_errors=True)
