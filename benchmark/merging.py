"""Bundles of others into a results folder: checked, never trusted, never silently preferred.

A bundle is refused as a whole if it is damaged or newer. A cell is left out, with its reason, if its protocol is
another, its keys do not follow from its specification, its values are not in the known form, its data or split differ
from those that the folder has under the same name and options, or its numbers differ from those of the same key.

What a cell has here stays: its training, its evaluations, and the one that tables show (`spec.json`). Another
evaluation of the same training key is added beside them, with the record of the training that it scored.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..core.errors import UserError, brief
from ..core.files import write_bytes, write_json
from ..core.hashing import canonical_json, file_digest
from .bundles import PRIVATE, PSEUDONYM, hashed, rename_ids, under_pseudonyms, without
from .cell import PATHS, PROTOCOL, Cell, State, case_values, checked, eval_key, open_results, read_metrics, train_key
from .collect import METRIC_COLUMNS
from .metric_lists import metric_versions
from .records import validate
from .states import scan

_NAME = re.compile(
    r"cells/[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*/f\d+-s\d+-[0-9a-f]{8}/"
    r"(spec\.json|train\.json|history\.csv|eval/[0-9a-f]{8}/(metrics\.csv|result\.json)|predictions/\w+\.safetensors)"
)
_LARGEST = 4 * 2**30  # bytes of a file of a bundle
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


@dataclass
class Merged:
    """What became of the cells of the bundles, by path.

    Attributes:
        added: now in the folder.
        same: there already, with the same numbers.
        conflicts: (path, what differs): same key, other numbers.
        refused: (path, reason).
        notes: (path, what to know) of cells that were added.
    """

    added: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Known:
    """What the folder says of its data: by name, options and fold the fingerprint and split, and its case ids."""

    data: dict[str, tuple[str, str]] = field(default_factory=dict)
    ids: dict[str, dict[str, str]] = field(default_factory=dict)  # by fingerprint: pseudonyms to ids
    _read: set[tuple[Any, ...]] = field(default_factory=set)  # data, fold and limit whose ids are known

    def note(self, cell: Cell, spec: Mapping[str, Any], done: bool) -> None:
        data, name = spec["dataset"], data_name(spec)
        self.data[name] = (data["fingerprint"], data["split_hash"])
        # All that are scored on the same cases name the same ones: of a thousand cells one is read.
        cases = (name, data["fingerprint"], spec["eval"].get("max_cases"))
        if done and cases not in self._read:
            rows = csv.DictReader(io.StringIO(read_metrics(cell.eval_folder(spec["eval_key"])).decode()))
            found = {ident for row in rows for ident in (row["case_id"], row["patient_id"])}
            names = self.ids.setdefault(data["fingerprint"], {})
            names |= {hashed(data["fingerprint"], ident): ident for ident in found}
            if not any(map(PSEUDONYM.fullmatch, found)):  # as a bundle may have left them, which a later cell resolves
                self._read.add(cases)


def data_name(spec: Mapping[str, Any]) -> str:
    """What must have one fingerprint and one split: a data set with its options, and the fold."""
    data = spec["dataset"]
    return canonical_json([data["name"], without(data["options"], PATHS), data["split"], spec["fold"]])


def merge(results: Path, bundles: Sequence[Path]) -> Merged:
    """Add the cells of bundles to a results folder, which is made if need be.

    Raises:
        UserError: a bundle is missing, damaged, newer, or no bundle.
    """
    opened = [(path, *read_bundle(path)) for path in bundles]  # all are looked at before anything is written
    results = open_results(results, create=True)
    known = Known()
    for one in scan(results):
        if one.facts["eval_key"]:  # its specification can be read
            cell = Cell(results / "cells" / one.path)
            known.note(cell, cell.spec, one.state == State.DONE)
    merged = Merged()
    for path, record, cells in opened:
        origin = {"bundle": path.name, "sha256": file_digest(path), "suite": record["suite"], "ids": record["ids"]}
        for name, files in sorted(cells.items()):
            _merge_cell(results, name, files, {**origin, "merged": _now()}, known, merged)
    return merged


def read_bundle(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, bytes]]]:
    """The record of a bundle, and the files of its cells by path below ``cells/``.

    Raises:
        UserError: no bundle, a newer one, or one that was changed after it was written.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a file written by multirater export")
    try:
        with zipfile.ZipFile(path) as pack:
            infos = {info.filename: info for info in pack.infolist() if not info.is_dir()}
            if "bundle.json" not in infos:
                raise UserError(f"{path} has no bundle.json; give a file written by multirater export")
            record = checked(json.loads(pack.read("bundle.json")), "bundle", path / "bundle.json")
            validate(record, "bundle", f"{path}: bundle.json")
            if set(record["files"]) != set(infos) - {"bundle.json"}:
                raise UserError(f"{path} does not hold the files that its bundle.json names; ask for it again")
            cells: dict[str, dict[str, bytes]] = {}
            for name, digest in record["files"].items():
                if not _NAME.fullmatch(name) or infos[name].file_size > _LARGEST:
                    raise UserError(f"{path} holds {name!r}, which no bundle has; it was not written by this suite")
                data = pack.read(name)
                if hashlib.sha256(data).hexdigest() != digest:
                    raise UserError(f"{path}: {name} was changed after the bundle was written; ask for it again")
                parts = name.split("/")
                cells.setdefault("/".join(parts[1:4]), {})["/".join(parts[4:])] = data
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, RuntimeError) as error:
        raise UserError(f"{path} is damaged or no bundle ({error}); ask for it again") from error
    return record, cells


def _merge_cell(
    results: Path, path: str, files: dict[str, bytes], origin: dict[str, Any], known: Known, merged: Merged
) -> None:
    cell = Cell(results / "cells" / path)
    try:
        spec = _spec(path, files)
        result, train, metrics = _result(path, spec, files)
        _check_data(spec, known)
        here = cell.spec if (cell.folder / "spec.json").is_file() else None
        fingerprint = spec["dataset"]["fingerprint"]
        if origin["ids"] == "hashed":
            names = known.ids.get(fingerprint, {})
            metrics = rename_ids(metrics, lambda ident: names.get(ident, ident))
        if here is not None and cell.result(spec["eval_key"]) is not None:
            ours = read_metrics(cell.eval_folder(spec["eval_key"]))
            differs = difference(ours, metrics, fingerprint)
            merged.conflicts.append((path, differs)) if differs else merged.same.append(path)
            return
        foreign = here is not None and _trained_otherwise(cell, here, spec, train)
    except UserError as error:
        merged.refused.append((path, str(error)))
        return
    if train:  # kept with the scores also where it is the cell's own: another evaluation may be trained for here
        origin = {**origin, "train": train}
    result |= {"metrics_sha256": hashlib.sha256(metrics).hexdigest(), "origin": origin}
    _place(results, path, spec, {} if foreign else files, result, metrics)
    known.note(cell, spec, True)
    merged.added.append(path)
    if result.get("metrics") is None and eval_key(spec, metric_versions()) != spec["eval_key"]:
        merged.notes.append((path, "scored by other versions of the metrics, which its record does not name"))
    if here is not None and here["eval_key"] != spec["eval_key"]:
        merged.notes.append((path, _beside(here, spec)))


def _trained_otherwise(cell: Cell, here: Mapping[str, Any], spec: Mapping[str, Any], train: dict[str, Any]) -> bool:
    """Whether the folder holds a training of this cell that is not the one of the bundle.

    Raises:
        UserError: the cell may not be touched, or its own scores of this very evaluation are still to be made.
    """
    state = cell.state()
    if state is State.RUNNING:
        raise UserError("it is being run here; merge again when it is done")
    ours = cell.training()
    if without(ours, PRIVATE) == train:
        return False
    if not (ours or cell.weights.is_file() or any(cell.folder.glob("predictions/*"))):
        return False
    if here["eval_key"] == spec["eval_key"]:
        raise UserError("it was trained here and has no scores yet; score it with `multirater run` and merge again")
    return True


def _beside(here: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """What to know of an evaluation that is not the one tables show."""
    ours, theirs = here["eval"], spec["eval"]
    names = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    stays = "added beside the evaluation that was asked for here last, which tables go on to show"
    if not names:
        return f"scored by other versions of the metrics; {stays}"
    shown, added = (" ".join(f"eval.{name}={json.dumps(one.get(name))}" for name in names) for one in (ours, theirs))
    return f"scored with {added}; {stays} ({shown}); `multirater run` or evaluate with --set {added} shows this one"


def _spec(path: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The specification, whose keys must follow from it."""
    spec = checked(_parsed(files, "spec.json"), "cell", Path(path) / "spec.json")
    validate(spec, "cell", "spec.json")
    if spec["protocol"] != PROTOCOL:
        raise UserError(f"its protocol is {spec['protocol']}, that of this version {PROTOCOL}: not comparable")
    if train_key(spec) != spec["train_key"]:  # the evaluation's: see `_result`, which knows the metrics
        raise UserError("its train key does not follow from its specification: it was edited")
    if path != Cell.at(Path(), spec).path:
        raise UserError("it lies where another cell belongs")
    return spec


def _result(
    path: str, spec: dict[str, Any], files: Mapping[str, bytes]
) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The records of evaluation and training (empty: none), and the case values."""
    place = f"eval/{spec['eval_key'][:8]}"
    result = checked(_parsed(files, f"{place}/result.json"), "result", Path(path) / place / "result.json")
    validate(result, "result", "result.json")
    metrics = files.get(f"{place}/metrics.csv", b"")
    if result["eval_key"] != spec["eval_key"] or result["train_key"] != spec["train_key"]:
        raise UserError("its result belongs to another specification")
    versions = result.get("metrics")  # records before this field do not say which metrics made their key
    if versions is not None and eval_key(spec, versions) != spec["eval_key"]:
        raise UserError(
            "its evaluation key does not follow from its specification and metrics: it was edited, or scored by "
            "metrics of another version than it names (evaluate it again there)"
        )
    if hashlib.sha256(metrics).hexdigest() != result["metrics_sha256"]:
        raise UserError("its metrics.csv is not the one that its record describes")
    check_values(metrics)
    train: dict[str, Any] = {}
    if "train.json" in files:
        train = checked(_parsed(files, "train.json"), "train", Path(path) / "train.json")
        validate(train, "train", "train.json")
        if train["train_key"] != spec["train_key"]:
            raise UserError("its training record belongs to another specification")
    return result, train, metrics


def check_values(metrics: bytes) -> None:
    """Refuse case values that are not what an evaluation writes.

    Raises:
        UserError: the first line that is wrong, and how.
    """
    try:
        rows = csv.reader(io.StringIO(metrics.decode("utf-8")), strict=True)
        head = next(rows, [])
        if sorted(head) != sorted(METRIC_COLUMNS):
            raise UserError(
                f"its metrics.csv has the columns {ascii(','.join(head))[:120]}, not {','.join(METRIC_COLUMNS)}"
            )
        value, count, reason = (head.index(name) for name in ("value", "n_samples", "reason"))
        seen = set()
        for row in rows:
            if len(row) != len(head):
                raise UserError(f"line {rows.line_num} of its metrics.csv has {len(row)} fields, not {len(head)}")
            for text in (row[value], row[count]):
                if text and not (_NUMBER.fullmatch(text) and math.isfinite(float(text))):
                    raise UserError(f"line {rows.line_num} of its metrics.csv has {ascii(text)[:60]} for a number")
            name = tuple(text for i, text in enumerate(row) if i not in (value, reason))
            if name in seen:
                raise UserError(f"line {rows.line_num} of its metrics.csv gives a value that was given before")
            seen.add(name)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"its metrics.csv is no CSV text in UTF-8 ({brief(error)})") from error
    if not seen:
        raise UserError("its metrics.csv holds no values")


def _parsed(files: Mapping[str, bytes], name: str) -> Any:
    if name not in files:
        raise UserError(f"it has no {name}")
    try:
        return json.loads(files[name], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"its {name} is not valid JSON ({brief(error)})") from error


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _check_data(spec: Mapping[str, Any], known: Known) -> None:
    ours = known.data.get(data_name(spec))
    if ours is None:
        return
    data = spec["dataset"]
    if data["fingerprint"] != ours[0]:
        raise UserError(
            f"its data {data['name']!r} have the fingerprint {data['fingerprint']}, those of this folder under the "
            f"same options {ours[0]}: other cases, raters or masks"
        )
    if data["split_hash"] != ours[1]:
        raise UserError(f"its split of {data['name']!r}, fold {spec['fold']}, is another than that of this folder")


def difference(ours: bytes, theirs: bytes, fingerprint: str) -> str:
    """What differs between the case values of the same key, in words; empty if nothing does."""
    one, two = (case_values(under_pseudonyms(text, fingerprint)) for text in (ours, theirs))
    if one.keys() != two.keys():
        return f"{len(one.keys() ^ two.keys())} of {len(one.keys() | two.keys())} values are on one side only"
    apart = [(key, float(one[key] or "nan"), float(two[key] or "nan")) for key in one if one[key] != two[key]]
    if not apart:
        return ""
    worst = max(apart, key=lambda entry: abs(entry[1] - entry[2]) if math.isfinite(entry[1] - entry[2]) else math.inf)
    (_, output, rater, _, metric, *_), here, there = worst
    where = f"{metric} of {output}" + (f", {rater}" if rater else "")
    return f"{len(apart)} of {len(one)} values differ, most of all {where}: {here:g} here, {there:g} in the bundle"


def _place(
    results: Path,
    path: str,
    spec: dict[str, Any],
    files: Mapping[str, bytes],
    result: dict[str, Any],
    metrics: bytes,
) -> None:
    """Write the scores of a cell and these files beside them, as far as they are not there; ``result.json`` last."""
    folder = results / "cells" / path
    place = f"eval/{spec['eval_key'][:8]}"
    fresh = not folder.exists()
    target = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp") if fresh else folder
    try:
        if fresh or not (folder / "spec.json").is_file():
            write_json(target / "spec.json", spec)
        for name, data in files.items():
            if not name.startswith("eval/") and name != "spec.json" and not (target / name).is_file():
                write_bytes(target / name, data)
        write_bytes(target / place / "metrics.csv", metrics)
        write_json(target / place / "result.json", result)
        if fresh:
            target.rename(folder)
    finally:
        if fresh:
            shutil.rmtree(target, ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
