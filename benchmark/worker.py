"""Runs one cell in its own process: ``python -m multirater.benchmark.worker FOLDER``.

It makes the evaluation that it is told, not the one that ``spec.json`` names by the time it starts: another command may
have asked for another evaluation of the same training meanwhile.

Idempotent, and ignorant of who started it: it trains what is not trained, predicts what is not predicted and scores
what is not scored. A training that was cut off goes on from its last kept state with the same numbers.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_json, write_text
from ..core.hashing import file_digest
from . import claims, provenance
from .attempts import (
    BUSY,
    EXIT,
    Outcome,
    logged,
    new_attempt,
    outcome_of,
    progress_of,
    stalled,
    words_of,
    write_attempt,
)
from .cell import HUMAN, Cell, check_keys, schema
from .devices import pick_device
from .metric_lists import metric_versions
from .phases import Phases
from .progress import Heartbeat
from .stopping import StopFlag, Stopped, die_with_parent
from .training import clear_state, load_method, train_cell


def run_cell(
    folder: Path,
    device: str = "cpu",
    threads: int = 0,
    stop: StopFlag | None = None,
    log: bool = True,
    asked: Mapping[str, Any] | None = None,
) -> str:
    """Bring a cell to `done` and return the outcome of this attempt; ``busy`` if a living owner has the cell.

    A stop that `stop` asks for is obeyed at the next step or case. Everything that can be wrong ends in
    ``attempt.json``.

    Args:
        folder: of the cell.
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: CPU threads; 0: torch's own choice.
        stop: a request to stop.
        log: send what is printed, the traceback included, to the attempt's ``log.txt``.
        asked: the evaluation (`Cell.asked`); None: the one of ``spec.json``.
    """
    cell, stop = Cell(folder, asked), StopFlag() if stop is None else stop
    try:
        ident = cell.take()
    except OSError as error:  # a full disk, or a folder that may only be read; there is no attempt to tell it
        print(words_of(error), file=sys.stderr)
        return str(outcome_of(error))
    if ident is None:
        return "busy"
    attempt: Path | None = None
    outcome, message, facts = Outcome.INTERRUPTED, "the process was told to exit", {}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        # Not before: a contender that comes too late leaves no attempt behind.
        attempt = new_attempt(folder)
        claims.note(folder, ident, attempt=int(attempt.name))
        with logged(attempt / "log.txt") if log else nullcontext():
            try:
                heartbeat = Heartbeat(attempt / "progress.json", claim=folder / "claim.json", stop=stop, ident=ident)
                # Of the code that is about to run: somebody may mend it meanwhile.
                facts["code_signature"] = provenance.signature()
                facts["device"] = device = pick_device(device)
                _run(cell, device, threads, heartbeat, stop)
                outcome, message = Outcome.OK, ""
            except (Stopped, KeyboardInterrupt) as error:
                outcome = Outcome.TIME_LIMIT if stop.time_limit else Outcome.INTERRUPTED
                message = str(error) or "interrupted by the user"
            except Exception as error:
                outcome = outcome_of(error)
                message = words_of(error)
                with suppress(OSError):
                    traceback.print_exc()
    except OSError as error:
        outcome, message = outcome_of(error), words_of(error)
        if attempt is None:
            print(message, file=sys.stderr)
    finally:
        if attempt is not None and claims.holds(folder, ident):
            write_attempt(
                attempt,
                outcome,
                message,
                started=started,
                threads=threads,
                progress=progress_of(folder),
                host=socket.gethostname(),
                job=claims.job_id(),
                command=["multirater.benchmark.worker", device, str(threads)],
                **facts,
            )
        claims.release(folder, ident)
    return str(outcome)


def _run(cell: Cell, device: str, threads: int, heartbeat: Heartbeat, stop: StopFlag) -> None:
    heartbeat("start", 0, 1, force=True)
    spec = cell.spec
    cell.training()  # a damaged one is refused: whoever starts cells sets it aside first
    if cell.result(spec["eval_key"]) is not None:  # somebody finished it between the plan and now
        return
    check_keys(spec, cell.folder, metric_versions())
    provenance.code()  # kept for the records: of the code that is about to run
    import torch

    from ..datasets import open_dataset

    if threads:
        torch.set_num_threads(threads)
    phases = Phases("cpu" if device == "cpu" else "cuda")
    with phases.phase("prepare"):
        dataset = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
        check_fingerprint(spec, dataset)
    target = torch.device(device)
    if spec["method"]["name"] != HUMAN:
        method = None
        # A record alone, as a merged bundle leaves it, predicts nothing.
        if cell.train_record.is_file() and (cell.weights.is_file() or _predicted(cell, spec, dataset)):
            clear_state(cell)
        elif spec["train"].get("processes", 1) > 1:
            from .distributed import launch

            assert heartbeat.ident is not None
            launch(cell, heartbeat.path.parent, device, threads, spec["train"]["processes"], heartbeat.ident, stop)
        else:
            method = train_cell(cell, spec, dataset, target, heartbeat, stop, phases)
        if not _predicted(cell, spec, dataset):
            with phases.phase("predict"):
                method = method or load_method(cell, spec, dataset, target)
                _predict(cell, spec, dataset, method, target, heartbeat)
    if cell.result(spec["eval_key"]) is None:
        evaluate(cell, spec, dataset, heartbeat, phases)


def check_fingerprint(spec: dict[str, Any], dataset: Any) -> None:
    """Refuse data that are not those the cell was planned for."""
    if dataset.fingerprint != spec["dataset"]["fingerprint"]:
        raise UserError(
            f"the data of {spec['dataset']['name']!r} have changed since this cell was planned (fingerprint "
            f"{dataset.fingerprint}, planned {spec['dataset']['fingerprint']}); use `multirater run` to plan new cells"
        )


def parts(spec: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """Rows of the scored test cases and of the validation cases, the slices of a volume one after another."""
    from .scored_cases import rows_of, subset

    split = dataset.split(spec["fold"])
    limit = spec["eval"]["max_cases"]
    return {part: rows_of(subset(dataset.volumes(getattr(split, part)), limit)) for part in ("test", "val")}


def wanted(spec: dict[str, Any], dataset: Any) -> dict[str, list[str]]:
    """Ids of the rows of the scored test cases and of the validation cases, as far as there are any."""
    records = dataset.records
    return {
        part: [records[i].case_id for i in indices] for part, indices in parts(spec, dataset).items() if len(indices)
    }


def _predicted(cell: Cell, spec: dict[str, Any], dataset: Any) -> bool:
    from .predictions import DamagedPredictions, read_predictions

    try:
        return all(
            cell.predictions(part).is_file()
            and read_predictions(cell.predictions(part)).covers(cases, spec["eval"]["n_samples"])
            for part, cases in wanted(spec, dataset).items()
        )
    except DamagedPredictions as error:  # made again
        print(error, file=sys.stderr)
        return False


def _predict(cell: Cell, spec: dict[str, Any], dataset: Any, method: Any, device: Any, heartbeat: Heartbeat) -> None:
    from . import numerics
    from .predictions import predict_cases, write_predictions

    numerics.apply({})  # in single precision, whether this process has trained or only predicts
    # Test last: its file marks the predictions as complete.
    for part in ("val", "test"):
        indices = parts(spec, dataset)[part]
        if part == "val" and not len(indices):
            continue

        def tick(done: int, total: int, part: str = part) -> None:
            heartbeat(f"predict {part}", done, total)

        stored = predict_cases(method, dataset, indices, spec["eval"]["n_samples"], spec["seed"], device, tick)
        write_predictions(cell.predictions(part), stored)


def evaluate(
    cell: Cell, spec: dict[str, Any], dataset: Any, heartbeat: Heartbeat, phases: Phases | None = None
) -> None:
    """Write ``metrics.csv``, then ``result.json``."""
    phases = Phases() if phases is None else phases
    with phases.phase("evaluate"):
        found = _score(cell, spec, dataset, heartbeat)
    folder = cell.eval_folder(spec["eval_key"])
    predict = found.pop("predict_seconds", None)
    seconds = {**({} if predict is None else {"predict": predict}), "evaluate": phases.seconds["evaluate"]}
    write_json(
        folder / "result.json",
        {
            "schema": schema("result"),
            "eval_key": spec["eval_key"],
            "train_key": spec["train_key"],
            "metrics": metric_versions(),
            "metrics_sha256": file_digest(folder / "metrics.csv"),
            **found,
            "seconds": seconds,
            "peak_memory_mb": max(phases.memory_mb.values()),
            **phases.record(),
            "code": provenance.code(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    heartbeat("done", 1, 1, force=True)


def _score(cell: Cell, spec: dict[str, Any], dataset: Any, heartbeat: Heartbeat) -> dict[str, Any]:
    """Write ``metrics.csv`` and the counts behind it; return what the record says of them."""
    from .evaluation import Evaluation
    from .predictions import read_predictions

    found: dict[str, Any] = {}
    test = parts(spec, dataset)["test"]
    evaluation = Evaluation(
        dataset, dataset.describe(), spec["fold"], test, lambda done, total: heartbeat("score", done, total)
    )
    if spec["method"]["name"] == HUMAN:
        evaluation.human(spec["eval"]["n_samples"])
    else:
        count = spec["eval"]["n_samples"]
        stored = {}
        for part, cases in wanted(spec, dataset).items():
            kept = read_predictions(cell.predictions(part))
            if not kept.covers(cases, count):
                raise UserError(
                    f"{cell.folder} stores {kept.requested} samples of {len(kept.case_ids)} cases and their mean maps, "
                    f"but {count} of {len(cases)} are asked for; predict them with "
                    f"`multirater run --set eval.n_samples={count}`"
                )
            stored[part] = kept.select(cases, count)
        found["predict_seconds"] = stored["test"].seconds
        evaluation.method(stored["test"], stored.get("val"), count)
    frame = evaluation.frame()
    folder = cell.eval_folder(spec["eval_key"])
    write_text(folder / "metrics.csv", frame.to_csv(index=False))
    evaluation.write_components(folder)
    return {
        **found,
        "n_cases": int(frame.case_id.nunique()),
        "n_patients": int(frame.patient_id.nunique()),
        "outputs": evaluation.outputs,
    }


def load_cell(path: str | Path, device: str = "cpu") -> Any:
    """The trained method of a cell folder, in eval mode, ready to `predict`.

    Raises:
        UserError: the cell is not trained.
    """
    import torch

    from ..datasets import open_dataset

    cell = Cell(Path(path))
    if not cell.weights.is_file():
        raise UserError(f"{path} holds no trained weights; finish it with `multirater run`")
    spec = cell.spec
    dataset = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
    return load_method(cell, spec, dataset, torch.device(device))


def main(arguments: list[str]) -> int:
    """``FOLDER [DEVICE [THREADS]] [--asked JSON] [--parent PID]``: 75 if others have the cell, else as `EXIT` says."""
    named: dict[str, str] = {}
    for name in ("--parent", "--asked"):
        if name in arguments:
            at = arguments.index(name)
            named[name] = arguments[at + 1]
            arguments = [*arguments[:at], *arguments[at + 2 :]]
    parent = int(named["--parent"]) if "--parent" in named else None
    asked = json.loads(named.get("--asked", "null"))
    folder, device, threads = Path(arguments[0]), (arguments[1:] or ["auto"])[0], int((arguments[2:] or ["0"])[0])
    if not (folder / "spec.json").is_file():
        print(f"{folder} is no cell: it has no spec.json; give a folder below results/cells", file=sys.stderr)
        return EXIT[Outcome.REFUSED]
    stop = StopFlag()
    stop.install()
    if parent is not None and sys.platform == "linux":
        die_with_parent()
        if os.getppid() != parent:  # it died before that
            return EXIT[Outcome.INTERRUPTED]
    outcome = run_cell(folder, device, threads, stop, asked=asked)
    if outcome == Outcome.TIME_LIMIT and stalled(folder):  # another run would be cut off at the same point
        return EXIT[Outcome.ERROR]
    return BUSY if outcome == "busy" else EXIT[Outcome(outcome)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
