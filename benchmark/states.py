"""States of cells from their files: one by one, or of a whole results folder in one walk.

The walk remembers in ``derived/states.json`` which evaluations it has found valid, by size and time of their files as
git does, so that ten thousand finished cells are not hashed again by every command. Deleting that file costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import write_text
from .attempts import Outcome, attempt_folders, read_attempt
from .cell import Cell, NewerRecord, State, open_results
from .claims import owner_alive, read_claim

# How an attempt ended after which only a change or a request makes another one worth while; see `policy`.
FAILURES = (
    Outcome.ERROR,
    Outcome.DIVERGED,
    Outcome.REFUSED,
    Outcome.OOM,
    Outcome.HUNG,
    Outcome.DISK_FULL,
)
_FORM = 3  # of the memory
Signature = list[int]


@dataclass(slots=True)
class Found:
    """A cell as the walk found it.

    Attributes:
        path: ``method/dataset/name`` below ``cells/``.
        state: a `State`; ``damaged`` also where the specification cannot be read.
        facts: method, dataset, preset, fold, seed, eval_key of the specification.
        spec_signature: size and time of ``spec.json``.
        why: what is damaged.
    """

    path: str
    state: str
    facts: dict[str, Any]
    spec_signature: Signature
    why: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def state_for(self, cell: Cell) -> str:
        """The state of this cell for the evaluation that `cell` asks for, which may be another than the one found."""
        return self.state if cell.asked is None or cell.eval_key == self.facts["eval_key"] else str(cell.state())


def state_of(folder: Path, eval_key: str, valid: bool | None = None, fault: str | None = None) -> State:
    """The state of a cell.

    Args:
        folder: its folder.
        eval_key: of the evaluation that is wanted.
        valid: whether its evaluation is known to be valid; None: look.
        fault: what `damage` says, where it is known; None: look.
    """
    cell = Cell(folder)
    claim = read_claim(folder / "claim.json")
    if claim is not None and owner_alive(claim):
        return State.RUNNING
    if damage(cell) if fault is None else fault:
        return State.DAMAGED
    if valid is None:
        valid = cell.result(eval_key) is not None
    if valid:
        return State.DONE
    if claim is not None:
        return State.LOST
    if cell.train_record.is_file() and cell.predictions("test").is_file():
        return State.TRAINED
    attempts = attempt_folders(folder)
    last = read_attempt(attempts[-1]) if attempts else None
    if attempts and last is None:  # killed between its first and its last word
        return State.LOST
    outcome = (last or {}).get("outcome")
    if outcome in FAILURES:
        return State.FAILED
    return State.LOST if outcome == Outcome.LOST else State.PENDING


def damage(cell: Cell) -> str:
    """What is wrong with the training record, in one sentence; empty if nothing is, or if there is none."""
    try:
        cell.training()
    except NewerRecord:
        raise
    except UserError as error:
        return str(error)
    return ""


def scan(results: Path) -> list[Found]:
    """Every cell of a results folder with its state, sorted by path.

    Raises:
        UserError: not a results folder, or one that a newer version wrote.
    """
    open_results(results)
    root = os.path.join(results, "cells")
    memory_path = results / "derived" / "states.json"
    memory = _read_memory(memory_path)
    known: dict[str, list[Any]] = {}
    found = [_look(root, path, memory, known) for path in _walk(root)]
    if known != memory and len(known) > 20:
        with contextlib.suppress(UserError, OSError):  # a folder that may only be read
            write_text(memory_path, json.dumps({"form": _FORM, "cells": known}, separators=(",", ":")))
    return [one for one in found if one is not None]


def _read_memory(path: Path) -> dict[str, list[Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found["cells"] if isinstance(found, dict) and found.get("form") == _FORM else {}


def _walk(root: str) -> list[str]:
    """``method/dataset/name`` of every cell folder, sorted."""
    paths = []
    for method in _folders(root):
        for dataset in _folders(os.path.join(root, method)):
            base = f"{method}/{dataset}"
            paths += [f"{base}/{name}" for name in _folders(os.path.join(root, base))]
    return paths


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _look(root: str, path: str, memory: dict[str, list[Any]], known: dict[str, list[Any]]) -> Found | None:
    folder = f"{root}/{path}"
    spec_signature = file_signature(f"{folder}/spec.json")
    if spec_signature is None:
        return None
    claimed = os.path.exists(f"{folder}/claim.json")
    old = memory.get(path)
    if old is not None and old[0] == spec_signature:
        facts, signature = old[1], old[2]
        if signature is not None and _evaluation(folder, facts["eval_key"]) == signature:
            known[path] = old
            if not claimed:
                return Found(path, str(State.DONE), facts, spec_signature)
            return Found(
                path, str(state_of(Path(folder), facts["eval_key"], valid=True, fault="")), facts, spec_signature
            )
    cell = Cell(Path(folder))
    try:
        spec = cell.spec
        facts = {
            "method": spec["method"]["name"],
            "dataset": spec["dataset"]["name"],
            "preset": spec["preset"],
            "fold": spec["fold"],
            "seed": spec["seed"],
            "eval_key": spec["eval_key"],
        }
    except NewerRecord:
        raise
    except (UserError, KeyError, TypeError) as error:
        method, dataset, name = path.split("/")
        facts = {"method": method, "dataset": dataset, "preset": "", "fold": -1, "seed": -1, "eval_key": ""}
        return Found(path, "damaged", facts, spec_signature, f"spec.json of {name} cannot be read: {error}")
    before = _evaluation(folder, facts["eval_key"])
    valid = before is not None and cell.result(facts["eval_key"]) is not None
    fault = damage(cell)
    known[path] = [spec_signature, facts, before if valid and not fault else None]
    return Found(path, str(state_of(Path(folder), facts["eval_key"], valid, fault)), facts, spec_signature, fault)


def _evaluation(folder: str, key: str) -> Signature | None:
    """Size and time of the files of an evaluation and of the training record; None if one of the first is missing."""
    base = f"{folder}/eval/{key[:8]}"
    record = file_signature(f"{base}/result.json")
    values = file_signature(f"{base}/metrics.csv") or file_signature(f"{base}/metrics.csv.xz")
    train = file_signature(f"{folder}/train.json") or []
    return None if record is None or values is None else record + values + train


def file_signature(path: str) -> Signature | None:
    """Size, time and inode: others once a file was written again; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def why(folder: Path) -> str:
    """Why a cell has no result, in one line: the last attempt's own words."""
    attempts = attempt_folders(folder)
    if not attempts:
        return ""
    last = read_attempt(attempts[-1])
    if last is None:
        if read_claim(folder / "claim.json") is not None:
            return ""
        return f"the process ended without a record (killed?); its log is {attempts[-1] / 'log.txt'}"
    return f"{last['outcome']}: {last['message']}" if last["outcome"] != Outcome.OK else ""


def fingerprint_of(found: Iterable[Found], results: Path) -> str:
    """Changes with the results of these cells: by it, tables know whether they are up to date."""
    digest = hashlib.sha256()
    for one in found:
        signature = _evaluation(f"{results}/cells/{one.path}", one.facts["eval_key"])
        digest.update(json.dumps([one.path, one.state, one.facts, signature], sort_keys=True).encode())
    return digest.hexdigest()
