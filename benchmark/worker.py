"""Runs one cell in its own process: ``python -m multirater.benchmark.worker FOLDER``.

Idempotent, and ignorant of who started it: it trains what is not trained, predicts what is not predicted and scores
what is not scored. A training that was cut off goes on from its last kept state with the same numbers.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_json, write_text
from ..core.hashing import file_digest
from .cell import HUMAN, Cell, schema
from .progress import Heartbeat
from .stopping import CODE, StopFlag, Stopped
from .training import clear_state, load_method, train_cell

EXIT = {"ok": 0, "error": 1, "diverged": 1, "refused": 2, "interrupted": CODE}


def run_cell(folder: Path, device: str = "cpu", threads: int = 0, stop: StopFlag | None = None) -> str:
    """Bring a cell to `done` and return the outcome of this attempt.

    A stop that `stop` asks for is obeyed at the next step or case. Everything that can be wrong ends in
    ``attempt.json``; the traceback goes to stderr, which is the attempt's log.
    """
    cell = Cell(folder)
    if not cell.take():
        return "busy"
    # The owner made the attempt's folder for the log; a cell started by hand makes its own.
    attempt = Path(os.environ["MULTIRATER_ATTEMPT"]) if "MULTIRATER_ATTEMPT" in os.environ else cell.new_attempt()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    outcome, message = "ok", ""
    try:
        heartbeat = Heartbeat(attempt / "progress.json", claim=folder / "claim.json", stop=stop)
        _run(cell, device, threads, heartbeat, stop)
    except UserError as error:
        outcome, message = "refused", str(error)
        traceback.print_exc()
    except (Stopped, KeyboardInterrupt) as error:
        outcome, message = "interrupted", str(error) or "interrupted by the user"
    except Exception as error:
        traceback.print_exc()
        outcome = "diverged" if type(error).__name__ == "Diverged" else "error"
        message = f"{type(error).__name__}: {error}"
    finally:
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "schema": schema("attempt"),
            "outcome": outcome,
            "message": message,
            "started": started,
            "ended": ended,
        }
        with suppress(UserError, OSError):
            write_json(attempt / "attempt.json", record)
        cell.release()
    return outcome


def _run(cell: Cell, device: str, threads: int, heartbeat: Heartbeat, stop: StopFlag | None = None) -> None:
    import torch

    from ..datasets import open_dataset

    heartbeat("start", 0, 1, force=True)
    if threads:
        torch.set_num_threads(threads)
    spec = cell.spec
    dataset = open_dataset(spec["dataset"]["name"], **spec["dataset"]["options"])
    check_fingerprint(spec, dataset)
    target = torch.device(device)
    if spec["method"]["name"] != HUMAN:
        method = None
        if cell.train_record.is_file():
            clear_state(cell)
        else:
            method = train_cell(cell, spec, dataset, target, heartbeat, stop)
        if not _predicted(cell, spec, dataset):
            method = method or load_method(cell, spec, dataset, target)
            _predict(cell, spec, dataset, method, target, heartbeat)
    if cell.result(spec["eval_key"]) is None:
        evaluate(cell, spec, dataset, heartbeat)


def check_fingerprint(spec: dict[str, Any], dataset: Any) -> None:
    """Refuse data that are not those the cell was planned for."""
    if dataset.fingerprint != spec["dataset"]["fingerprint"]:
        raise UserError(
            f"the data of {spec['dataset']['name']!r} have changed since this cell was planned (fingerprint "
            f"{dataset.fingerprint}, planned {spec['dataset']['fingerprint']}); use `multirater run` to plan new cells"
        )


def parts(spec: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """Indices of the scored test cases and of the validation cases."""
    from .evaluation import subset

    split = dataset.split(spec["fold"])
    patients = [r.patient_id for r in dataset.records]
    limit = spec["eval"]["max_cases"]
    return {"test": subset(split.test, patients, limit), "val": subset(split.val, patients, limit)}


def wanted(spec: dict[str, Any], dataset: Any) -> dict[str, list[str]]:
    """Case ids of the scored test cases and of the validation cases, as far as there are any."""
    records = dataset.records
    return {
        part: [records[i].case_id for i in indices] for part, indices in parts(spec, dataset).items() if len(indices)
    }


def _predicted(cell: Cell, spec: dict[str, Any], dataset: Any) -> bool:
    from .predictions import read_predictions

    return all(
        cell.predictions(part).is_file()
        and read_predictions(cell.predictions(part)).covers(cases, spec["eval"]["n_samples"])
        for part, cases in wanted(spec, dataset).items()
    )


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


def evaluate(cell: Cell, spec: dict[str, Any], dataset: Any, heartbeat: Heartbeat) -> None:
    """Write ``metrics.csv``, then ``result.json``."""
    from . import provenance
    from .evaluation import Evaluation
    from .predictions import read_predictions

    started = time.perf_counter()
    seconds: dict[str, float] = {}
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
            found = read_predictions(cell.predictions(part))
            if not found.covers(cases, count):
                raise UserError(
                    f"{cell.folder} stores {found.requested} samples of {len(found.case_ids)} cases, but {count} of "
                    f"{len(cases)} are asked for; predict them with `multirater run --set eval.n_samples={count}`"
                )
            stored[part] = found.select(cases, count)
        seconds["predict"] = stored["test"].seconds
        evaluation.method(stored["test"], stored.get("val"), count)
    frame = evaluation.frame()
    folder = cell.eval_folder(spec["eval_key"])
    write_text(folder / "metrics.csv", frame.to_csv(index=False))
    evaluation.write_components(folder)
    write_json(
        folder / "result.json",
        {
            "schema": schema("result"),
            "eval_key": spec["eval_key"],
            "train_key": spec["train_key"],
            "metrics_sha256": file_digest(folder / "metrics.csv"),
            "n_cases": int(frame.case_id.nunique()),
            "n_patients": int(frame.patient_id.nunique()),
            "outputs": evaluation.outputs,
            "seconds": {**seconds, "evaluate": round(time.perf_counter() - started, 3)},
            "peak_memory_mb": provenance.peak_memory_mb(),
            "code": provenance.code(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    heartbeat("done", 1, 1, force=True)


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
    folder, device, threads = Path(arguments[0]), arguments[1], int(arguments[2])
    if sys.platform == "linux":  # die with the parent: PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    stop = StopFlag()
    stop.install()
    return EXIT.get(run_cell(folder, device, threads, stop), 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
