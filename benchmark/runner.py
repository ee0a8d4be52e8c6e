"""Plan cells, run those that are not done, report. The coordinator never trains: one process per cell."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import UnsupportedPair, UserError
from ..core.files import write_json
from ..core.hashing import file_digest
from ..datasets import DATASETS, open_dataset
from ..methods import METHODS
from .cell import HUMAN, PATHS, PROTOCOL, Cell, State, all_cells, eval_key, open_results, schema, train_key
from .config import resolve
from .evaluation import metric_versions
from .executors import EXECUTORS
from .monitor import Monitor


@dataclass
class Report:
    """What `run` did.

    Attributes:
        cells: every planned cell, human rows included.
        skipped: (method, reason) of pairs that a method refuses.
        failed: (cell, message) of cells that did not finish.
    """

    results: Path
    cells: list[Cell] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[Cell, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.failed:  # 2: every failure is the user's to mend, none the method's
            return 2 if all(message.startswith("refused:") for _, message in self.failed) else 1
        return 0


def pick_device(device: str) -> str:
    """``auto`` is CUDA where there is one.

    Raises:
        UserError: CUDA was asked for and there is none.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "--device cuda was given, but torch sees no CUDA device; use --device cpu or install a CUDA build"
        )
    return "cuda" if torch.cuda.is_available() else "cpu"


def method_names(methods: Sequence[str]) -> list[str]:
    return METHODS.names() if list(methods) == ["all"] else list(dict.fromkeys(methods))


def plan(
    methods: Sequence[str],
    dataset: str,
    preset: str,
    folds: Sequence[int] | None,
    seeds: Sequence[int],
    overrides: Mapping[str, Mapping[str, Any]],
    results: Path,
    monitor: Monitor,
) -> Report:
    """Validate every name and key, prepare the data, and write the specifications of all cells.

    Raises:
        UserError: anything unknown or not allowed; one refused pair if it is the only one asked for.
    """
    names = method_names(methods)
    if not names:
        raise UserError("no method given; name one or several with --method, or all (`multirater list methods`)")
    DATASETS.entry(dataset)
    for name in names:
        METHODS.entry(name)
    # Keys under `method.` must exist in every method of a list: a silent drop would compare different things.
    resolved = [resolve(name, dataset, preset, overrides) for name in names]
    for name in names:
        _check_importable(name)
    report = Report(open_results(results, create=True))
    accepted = []
    for name, config in zip(names, resolved, strict=True):
        data = open_dataset(config["dataset"]["name"], **config["dataset"]["options"])
        with monitor.preparing(config["dataset"]["name"]) as progress:
            data.prepare(progress)
        try:
            METHODS.get(name).check_supported(data.describe(), config["method"]["options"])
        except UnsupportedPair as refusal:
            if len(names) == 1:
                raise
            report.skipped.append((name, str(refusal)))
            continue
        config["overrides"] = {k: dict(v) for k, v in overrides.items()}
        chosen = list(range(data.folds)) if folds is None else folds
        for fold in chosen:
            _check_split(data, fold, config["train"]["select"])
        accepted.append((config, data, chosen))
    # Nothing is written before everything is checked.
    for config, data, chosen in accepted:
        for fold in chosen:
            # One cell per evaluation: the rows of another number of samples or cases are other rows.
            human = {"method": {"name": HUMAN, "version": 1, "options": {}}, "train": {"eval": config["eval"]}}
            report.cells.append(_cell(results, data, {**config, **human}, fold, 0))
            report.cells += [_cell(results, data, config, fold, seed) for seed in seeds]
    report.cells = list(dict.fromkeys(report.cells))
    return report


def _check_split(data: Any, fold: int, select: str) -> None:
    """Refuse a fold that could not be trained, selected or scored before anything is spent on it.

    Raises:
        UserError: which part is empty and what to do.
    """
    split = data.split(fold)
    needed = {"training": split.train, "test": split.test} | ({"validation": split.val} if select == "best" else {})
    for part, cases in needed.items():
        if not len(cases):
            advice = "--set train.select=last" if part == "validation" else "another --fold or more patients"
            raise UserError(
                f"fold {fold} of {data.name!r} (split {split.name}, {len(data)} cases) has no {part} cases; "
                f"use {advice}"
            )


def _cell(results: Path, data: Any, config: dict[str, Any], fold: int, seed: int) -> Cell:
    description, split = data.describe(), data.split(fold)
    spec: dict[str, Any] = {
        "schema": schema("cell"),
        "protocol": PROTOCOL,
        **config,
        "dataset": {
            **config["dataset"],
            # As the data set settled them: an option left to it (which slices?) is recorded with its value.
            "options": {**config["dataset"]["options"], **data.options},
            "fingerprint": data.fingerprint,
            "split": split.name,
            "split_hash": split.hash,
            "notice": data.full_notice,
            "identity": description.identity,
            "rater_ids": list(description.rater_ids),
            **_classes(data, description),
        },
        "fold": fold,
        "seed": seed,
    }
    files = {k: v for k, v in spec["method"]["options"].items() if k in PATHS and v is not None}
    spec["method"] = {**spec["method"], "files": {k: _digest(k, v) for k, v in files.items()}}
    spec["train_key"] = train_key(spec)
    spec["eval_key"] = eval_key(spec, metric_versions())
    return Cell.plan(results, spec)


def _classes(data: Any, description: Any) -> dict[str, Any]:
    """What the tables say of several classes; nothing of binary data, whose keys are older than this."""
    if description.classes == 1:
        return {}
    names = data.store.meta.get("class_names") or [str(k + 1) for k in range(description.classes)]
    return {"class_names": list(names), "overlapping": description.overlapping}


def _digest(option: str, value: str) -> str:
    path = Path(value).expanduser()
    if not path.is_file():
        raise UserError(f"method.{option} = {value!r} is not a file; give the path of a weights file or leave it out")
    return file_digest(path)


def _check_importable(name: str) -> None:
    """A cell runs in a process of its own, which knows entry points only."""
    if METHODS.entry(name).local:
        raise UserError(
            f"method {name!r} is registered in this process only, but cells run in processes of their own; "
            f"install it as a package with an entry point (docs/adding-a-method.md)"
        )


def execute(report: Report, monitor: Monitor, executor: str, jobs: int, threads: int, device: str) -> None:
    """Run every cell that is not done; one that fails never stops the others."""
    pending = [cell for cell in report.cells if cell.state() is not State.DONE]
    engine = EXECUTORS.get(executor)()
    running: dict[Cell, Any] = {}
    monitor.start(len(report.cells), len(report.cells) - len(pending))
    resources = {"threads": threads or max(1, available_cores() // jobs), "device": device}
    try:
        while pending or running:
            while pending and len(running) < jobs:
                cell = pending.pop(0)
                state = cell.state()
                if state is State.RUNNING:  # another coordinator has it: come back to it later
                    pending.append(cell)
                    break
                if state is not State.DONE:
                    running[cell] = engine.submit(cell, resources)
                    monitor.begin(cell)
            time.sleep(0.2)
            for cell, handle in list(running.items()):
                monitor.update(cell)
                if not engine.alive(handle):
                    del running[cell]
                    state = cell.state()
                    if state is State.DONE:
                        monitor.end(cell, "")
                    elif state is State.RUNNING:  # another coordinator was quicker: wait for its result
                        pending.append(cell)
                        monitor.end(cell, "is run by another process; waiting for it")
                    else:
                        message = _message(cell)
                        report.failed.append((cell, message))
                        monitor.end(cell, message)
    except KeyboardInterrupt:
        report.interrupted = True
        monitor.say("stopping: finished stages and cells are kept (Ctrl-C again kills)")
        _stop(engine, running.values())
    finally:
        monitor.stop()


def available_cores() -> int:
    """Cores this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _message(cell: Cell) -> str:
    """Why the last attempt did not finish, in one line."""
    attempts = cell.attempts()
    last = cell.last_attempt()
    if last is None:
        return f"the process ended without a record (killed?); its log is {attempts[-1] / 'log.txt'}"
    return f"{last['outcome']}: {last['message']}"


def _stop(engine: Any, handles: Iterable[Any], patience: float = 20) -> None:
    handles = list(handles)
    for handle in handles:
        engine.cancel(handle)
    deadline = time.monotonic() + patience
    try:
        while any(engine.alive(h) for h in handles) and time.monotonic() < deadline:
            time.sleep(0.1)
    except KeyboardInterrupt:
        pass
    for handle in handles:
        if engine.alive(handle):
            engine.cancel(handle, kill=True)


def run(
    methods: Sequence[str] | str,
    dataset: str = "lidc-contours",
    preset: str = "quick",
    folds: Sequence[int] | None = (0,),
    seeds: Sequence[int] = (0,),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    results: str | Path = "results",
    executor: str = "local",
    jobs: int = 1,
    threads: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Report:
    """Train and evaluate cells as ``multirater run`` does, skipping what is done.

    Args:
        methods: registry names, or ``"all"``: every method that can run on the data set.
        folds: folds of the split; None: all of them.
        overrides: sections ``dataset``, ``method``, ``train``, ``eval`` to option values.
        threads: CPU threads a cell; 0: cores / jobs.

    Raises:
        UserError: wrong usage or input, before anything is trained.
    """
    monitor = Monitor(quiet=quiet)
    EXECUTORS.entry(executor)
    chosen = pick_device(device)
    names = [methods] if isinstance(methods, str) else list(methods)
    report = plan(names, dataset, preset, folds, seeds, overrides or {}, Path(results), monitor)
    execute(report, monitor, executor, jobs, threads, chosen)
    return report


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
    report = Report(open_results(results, create=True))
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
