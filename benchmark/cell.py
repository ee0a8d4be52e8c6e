"""A cell is a folder: its state is computed from its files, never kept anywhere else.

spec.json               resolved configuration, written by the planner, never changed
claim.json              who runs it now; absent otherwise
attempts/<n>/           log.txt, progress.json (heartbeat), attempt.json (outcome)
state/                  weights after each finished stage, state of the running one; removed at success
weights.safetensors     the chosen checkpoint
predictions/            packed samples, mean maps, rater maps
train.json              its presence means trained
eval/<key8>/            metrics.csv, components-<output>.npz (counts behind the values), then result.json: its presence
                        means done for this evaluation
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import lzma
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core.errors import UserError, brief
from ..core.files import read_json, write_json
from ..core.hashing import digest
from . import claims
from .attempts import attempt_folders, read_attempt
from .claims import owner_alive as owner_alive
from .upgrades import upgraded

PROTOCOL = 1  # raised when the loop, the sampling or the scoring rules change every number
SCHEMA = {"cell": 1, "train": 2, "result": 2, "multirater-results": 1, "attempt": 1, "bundle": 1}
PATHS = ("root", "config", "backbone_weights")  # options that name a place on this machine
# Options of the loop that are younger than the first results: at these values they are left out of a key.
NEUTRAL = {"precision": "fp32", "tf32": False, "compile": False, "processes": 1}
VALUE_KEYS = ("case_id", "output", "rater", "label", "metric", "variant", "region")  # columns that name a case value
# What of a specification may be another for the same training: how it is scored, and what it is called.
ASKED = ("eval", "eval_key", "overrides", "preset")
HUMAN = "human"  # the pseudo-method whose cell holds the human and oracle rows of a data set


class State(StrEnum):
    DONE = "done"
    TRAINED = "trained"
    RUNNING = "running"
    LOST = "lost"
    FAILED = "failed"
    PENDING = "pending"
    DAMAGED = "damaged"


class UnreadableRecord(UserError):
    """The file system does not give a record just now; what it says is unknown, and nothing may be made of that."""


class NewerRecord(UserError):
    """A record that a newer version wrote."""


def schema(name: str) -> dict[str, Any]:
    return {"name": name, "version": SCHEMA[name]}


def checked(record: Any, name: str, path: Path) -> dict[str, Any]:
    """A record as the present version writes it; one of another kind or of a newer version is refused.

    Raises:
        UserError: it is no such record; `NewerRecord`: with the advice to upgrade.
    """
    found = record.get("schema") if isinstance(record, dict) else None
    if not isinstance(found, dict) or found.get("name") != name or not _is_version(found.get("version")):
        raise UserError(f"{path} is not a {name!r} record of multirater; point --results to a results folder")
    if found["version"] > SCHEMA[name]:
        raise NewerRecord(
            f"{path} was written by a newer multirater (schema {name} {found['version']}, this version reads up to "
            f"{SCHEMA[name]}); upgrade multirater or choose another --results folder"
        )
    return upgraded(record, name, SCHEMA[name])


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def open_results(folder: Path, create: bool = False) -> Path:
    """A results folder whose schema this version can read.

    Raises:
        UserError: it does not exist, is not a results folder, is newer, or cannot be written.
    """
    index = folder / "index.json"
    if index.is_file():
        checked(read_json(index), "multirater-results", index)
        if create and not os.access(folder, os.W_OK):
            raise UserError(
                f"cannot write {folder}: permission denied; choose a folder you may write to with --results"
            )
        return folder
    if not create:
        raise UserError(
            f"no results in {folder}: it has no index.json; run `multirater run` first or give --results DIR"
        )
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder} is a link to a folder that does not exist; mend the link or give another --results")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder; give a folder with --results")
    from .. import __version__

    write_json(index, {"schema": schema("multirater-results"), "suite": __version__})
    return folder


def train_key(spec: dict[str, Any]) -> str:
    """Identity of a training: what changes its numbers, and nothing else (no paths, device, threads)."""
    dataset = {k: v for k, v in spec["dataset"].items() if k not in ("options", "notice")}
    dataset["options"] = {k: v for k, v in spec["dataset"]["options"].items() if k not in PATHS}
    # A file counts by its content (``files``), not by where it lies.
    method = {k: v for k, v in spec["method"].items() if k != "label"}
    method |= {"options": {k: v for k, v in spec["method"]["options"].items() if k not in PATHS}}
    parts = {k: spec[k] for k in ("fold", "seed", "protocol")}
    parts["train"] = {k: v for k, v in spec["train"].items() if k not in NEUTRAL or v != NEUTRAL[k]}
    return digest({**parts, "method": method, "dataset": dataset})


def eval_key(spec: dict[str, Any], metric_versions: dict[str, int]) -> str:
    return digest({"train": spec["train_key"], "eval": spec["eval"], "metrics": metric_versions})


def metrics_file(folder: Path) -> Path:
    """Where the case values of an evaluation are: ``metrics.csv``; published cells keep it packed (``.xz``)."""
    plain, packed = folder / "metrics.csv", folder / "metrics.csv.xz"
    return plain if plain.is_file() or not packed.is_file() else packed


def read_metrics(folder: Path) -> bytes:
    """The bytes of ``metrics.csv`` of an evaluation, unpacked.

    Raises:
        OSError: neither is there, or the packed one is damaged.
    """
    path = metrics_file(folder)
    if path.suffix != ".xz":
        return path.read_bytes()
    try:
        return lzma.decompress(path.read_bytes())
    except lzma.LZMAError as error:
        raise OSError(f"{path} is damaged: {error}") from error


def case_values(metrics: bytes) -> dict[tuple[str, ...], str]:
    """The values of a ``metrics.csv`` as they are written (empty: undefined), by the columns of `VALUE_KEYS`."""
    rows = csv.DictReader(io.StringIO(metrics.decode("utf-8")))
    return {tuple(row[k] for k in VALUE_KEYS): row["value"] for row in rows}


def _fault(train: dict[str, Any]) -> str:
    """What of a training record tables could not use, in words."""
    seconds, code = train.get("seconds", {}), train.get("code", {})
    numbers = [*(seconds.values() if isinstance(seconds, dict) else [""]), train.get("peak_memory_mb") or 0.0]
    if not all(isinstance(number, (int, float)) for number in numbers):
        return "its times or its memory are no numbers"
    return "" if isinstance(code, dict) else "its code is no record"


def training_of(train: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The record of the training that a result scores: a merged result may bring that of another one in ``origin``."""
    return (result.get("origin") or {}).get("train") or train


def check_keys(spec: dict[str, Any], where: Path, metric_versions: dict[str, int] | None = None) -> None:
    """Refuse a specification that is not the one its keys were made of: its numbers would stand under a wrong name.

    Args:
        spec: of a cell.
        where: the folder of the cell.
        metric_versions: present versions of the metrics; None: the evaluation is not looked at.

    Raises:
        UserError: which key does not follow, and what to do.
    """
    try:
        fault = "" if train_key(spec) == spec["train_key"] else "its train_key does not follow from its options"
    except (KeyError, TypeError, AttributeError):  # a part is gone, or no table
        fault = "its train_key does not follow from its options"
    if not isinstance(spec.get("eval"), dict):  # which is no part of that key
        fault = fault or "it has no eval options"
    if fault:
        raise UserError(
            f"{where / 'spec.json'} was changed after it was planned: {fault}; "
            f"give options with `multirater run --set`, which plans a cell of its own; `multirater run` with the "
            f"options of this one restores the file"
        )
    if metric_versions is not None and eval_key(spec, metric_versions) != spec["eval_key"]:
        raise UserError(
            f"the eval_key of {where / 'spec.json'} does not follow from its eval options and the present metrics: it "
            f"was changed by hand or planned by another version; `multirater run` with its options plans it again"
        )


@dataclass(frozen=True)
class Cell:
    """A cell, and the evaluation of it that is asked for.

    Attributes:
        folder: its folder.
        asked: the part `ASKED` of its specification; None: that of ``spec.json``, which a command that asks for another
            evaluation of the same training may change at any time.
    """

    folder: Path
    asked: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, results: Path, spec: dict[str, Any]) -> Cell:
        """Where the cell of a specification is or would be."""
        name = f"f{spec['fold']}-s{spec['seed']}-{spec['train_key'][:8]}"
        return cls(results / "cells" / spec["method"]["name"] / spec["dataset"]["name"] / name)

    @classmethod
    def plan(cls, results: Path, spec: dict[str, Any]) -> Cell:
        """The cell of a specification; writes ``spec.json`` if it is new or says something else."""
        cell = cls.at(results, spec)
        # The train key decides the folder; what else the spec names (evaluation, preset) is what was asked last.
        path = cell.folder / "spec.json"
        if not path.is_file() or read_json(path) != spec:
            write_json(path, spec)
        return cell.asking(spec)

    def asking(self, spec: Mapping[str, Any]) -> Cell:
        """The same cell with the evaluation of a specification asked for."""
        return Cell(self.folder, {k: spec[k] for k in ASKED if k in spec})

    @property
    def path(self) -> str:
        """``method/dataset/name``: its folder below ``cells/``."""
        return "/".join(self.folder.parts[-3:])

    @property
    def spec(self) -> dict[str, Any]:
        path = self.folder / "spec.json"
        return {**checked(read_json(path), "cell", path), **(self.asked or {})}

    @property
    def eval_key(self) -> str:
        """Of the evaluation that is asked for."""
        return str((self.asked or self.spec)["eval_key"])

    @property
    def train_record(self) -> Path:
        return self.folder / "train.json"

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    def predictions(self, part: str) -> Path:
        return self.folder / "predictions" / f"{part}.safetensors"

    def eval_folder(self, key: str) -> Path:
        return self.folder / "eval" / key[:8]

    def result(self, key: str) -> dict[str, Any] | None:
        """The valid record of an evaluation, or None: readable, key equal, checksum of the metrics right.

        Raises:
            NewerRecord: a newer version wrote it.
        """
        path = self.eval_folder(key) / "result.json"
        if not path.is_file():
            return None
        try:
            record = checked(read_json(path), "result", path)
            metrics = read_metrics(path.parent)
        except NewerRecord:
            raise
        except (UserError, OSError):  # cut off by a full disk: it is made again
            return None
        if record.get("eval_key") != key or hashlib.sha256(metrics).hexdigest() != record.get("metrics_sha256"):
            return None
        return record

    def training(self) -> dict[str, Any]:
        """The training record; empty if there is none.

        Raises:
            UserError: it is damaged, which only another training mends; `NewerRecord`: a newer version wrote it;
                `UnreadableRecord`.
        """
        path = self.train_record
        if not path.is_file():
            return {}
        try:
            data = path.read_bytes()
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UnreadableRecord(
                f"train.json of {self.path} cannot be read ({why}); make it readable: the training may be whole"
            ) from error
        try:
            record = checked(json.loads(data), "train", path)
            if why := _fault(record):
                raise ValueError(why)
        except NewerRecord:
            raise
        except (ValueError, RecursionError, UserError) as error:
            why = "no training record" if isinstance(error, UserError) else brief(error)
            raise UserError(
                f"train.json of {self.path} is damaged ({why}); restore it, or train again with `multirater retry`, "
                f"which keeps what is there in superseded/"
            ) from error
        return record

    def state(self) -> State:
        """What the files of the cell say (`states.state_of`)."""
        from .states import state_of

        return state_of(self.folder, self.eval_key)

    # -- attempts and claims --------------------------------------------------------------------

    def attempts(self) -> list[Path]:
        return attempt_folders(self.folder)

    def last_attempt(self) -> dict[str, Any] | None:
        attempts = self.attempts()
        return read_attempt(attempts[-1]) if attempts else None

    def claim(self) -> dict[str, Any] | None:
        """Who holds the cell, with the time of the owner's last sign of life."""
        return claims.read_claim(self.folder / "claim.json")

    def take(self) -> str | None:
        """Claim the cell for this process; None if a living owner has it. A lost claim is moved aside first."""
        return claims.take(self.folder)

    def release(self) -> None:
        """Give up the claim, if it is this process's own."""
        claims.release(self.folder)


def all_cells(results: Path) -> list[Cell]:
    """Every cell of a results folder, sorted by path."""
    return [Cell(path.parent) for path in sorted((results / "cells").glob("*/*/*/spec.json"))]
