"""Results to share: one zip file of records and case values, without images and weights, ids hashed unless asked for.

A hash of a case id is made with the fingerprint of its data, so that two bundles on the same data agree and a table can
still pair their cases. It is a pseudonym: who has the data can find out which case it is.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import read_json, replacing
from .cell import PATHS, Cell, State, open_results, read_metrics, schema, training_of
from .states import scan

IDS = ("case_id", "patient_id")
_DATE = (1980, 1, 1, 0, 0, 0)  # of every entry: the same results make the same bytes
PSEUDONYM = re.compile("h[0-9a-f]{16}")  # what `hashed` returns
PRIVATE = ("host", "slurm_job", "command")


def hashed(fingerprint: str, ident: str) -> str:
    """The pseudonym of a case or patient."""
    return "h" + hashlib.sha256(f"{fingerprint}/{ident}".encode()).hexdigest()[:16]


def under_pseudonyms(metrics: bytes, fingerprint: str) -> bytes:
    """``metrics.csv`` with all ids as `hashed` gives them, whether or not some are already."""
    return rename_ids(metrics, lambda ident: ident if PSEUDONYM.fullmatch(ident) else hashed(fingerprint, ident))


def rename_ids(metrics: bytes, rename: Callable[[str], str]) -> bytes:
    """``metrics.csv`` with other ids; rows keep their order."""
    rows = list(csv.reader(io.StringIO(metrics.decode("utf-8"))))
    columns = [i for i, name in enumerate(rows[0]) if name in IDS]
    known: dict[str, str] = {}
    for row in rows[1:]:
        for i in columns:
            if row[i] not in known:
                known[row[i]] = rename(row[i])
            row[i] = known[row[i]]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def export(
    results: Path,
    target: Path,
    methods: Sequence[str] | None = None,
    with_ids: bool = False,
    with_images: bool = False,
) -> list[str]:
    """Write a bundle of the finished cells; returns their paths.

    Args:
        methods: only these; None: all.
        with_ids: keep case and patient ids as they are.
        with_images: also the stored predictions, which show the masks and name the cases; needs `with_ids`.

    Raises:
        UserError: no finished cell, or predictions without ids.
    """
    if with_images and not with_ids:
        raise UserError("--with-images shares predictions, which name their cases; give --with-ids as well")
    open_results(results)
    files: dict[str, bytes] = {}
    shared = []
    for one in scan(results):
        if one.state != State.DONE or (methods is not None and one.facts["method"] not in methods):
            continue
        shared.append(one.path)
        cell = Cell(results / "cells" / one.path)
        files |= {f"cells/{one.path}/{name}": data for name, data in _files(cell, with_ids, with_images)}
    if not shared:
        raise UserError(f"nothing to export: {results} has no finished cell{' of these methods' if methods else ''}")
    from .. import __version__

    record = {
        "schema": schema("bundle"),
        "suite": __version__,
        "ids": "plain" if with_ids else "hashed",
        "images": with_images,
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    files["bundle.json"] = _json(record)
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as pack:
        for name in sorted(files, key=lambda n: (n != "bundle.json", n)):
            pack.writestr(zipfile.ZipInfo(name, _DATE), files[name], zipfile.ZIP_DEFLATED)
    return shared


def _files(cell: Cell, with_ids: bool, with_images: bool) -> Iterable[tuple[str, bytes]]:
    spec = cell.spec
    fingerprint = spec["dataset"]["fingerprint"]
    yield "spec.json", _json(without(spec, PATHS))
    folder = cell.eval_folder(spec["eval_key"])
    metrics, record = read_metrics(folder), read_json(folder / "result.json")
    own = without(cell.training(), PRIVATE)
    train = without(training_of(own, record), PRIVATE)
    if train:
        yield "train.json", _json(train)
        if train == own and (cell.folder / "history.csv").is_file():
            yield "history.csv", (cell.folder / "history.csv").read_bytes()
    if not with_ids:
        metrics = rename_ids(metrics, lambda ident: hashed(fingerprint, ident))
        record["metrics_sha256"] = hashlib.sha256(metrics).hexdigest()
    place = folder.relative_to(cell.folder).as_posix()
    yield f"{place}/metrics.csv", metrics
    yield f"{place}/result.json", _json(without(record, PRIVATE))
    if with_images and train == own:
        for path in sorted((cell.folder / "predictions").glob("*.safetensors")):
            yield f"predictions/{path.name}", path.read_bytes()


def without(value: Any, names: Sequence[str]) -> Any:
    """A JSON value without the entries of these names, at any depth."""
    if isinstance(value, dict):
        return {k: without(v, names) for k, v in value.items() if k not in names or v is None}
    return [without(v, names) for v in value] if isinstance(value, list) else value


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
