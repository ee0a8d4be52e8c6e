"""The case values of one cell as arrays, kept beside the results so that large tables need not be parsed each time.

A ``metrics.csv`` has one line per case and value (a thousand cases make a quarter of a million lines); a leaderboard of
hundreds of cells would spend minutes on parsing them. What was parsed is kept in ``derived/values``, where deleting it
costs time only. It is used as long as the file it came from is the same one, untouched (size, times and inode, as git
tells changes), and the code that parses is the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.files import replacing
from . import collect, directions
from .cell import metrics_file
from .collect import StoredCell
from .directions import APPLIES_NOT, BY_DATA, undefined_by

_CANONICAL = ("", "canonical")
_REGION = "box"  # canonical for region-dependent metrics on the leaderboard (metrics.md 5.3)
FULL = "full"  # the variant that stands for their other region, all pixels
_ARRAYS = {"values": np.float64, "undefined": np.uint8, "present": np.bool_}  # of `CellValues`, as they are kept
Key = tuple[str, str, str, int]


@dataclass
class CellValues:
    """Values of one cell: cases × series, NaN with a code where undefined, absent series left out."""

    cases: list[str]
    patients: list[str]
    keys: list[Key]
    values: NDArray[np.float64]
    undefined: NDArray[np.uint8]  # `directions.BY_DATA`, `BY_METHOD`; 0 where defined or absent
    present: NDArray[np.bool_]


def cell_values(cell: StoredCell) -> CellValues:
    """The values of a finished cell, parsed or as kept.

    Raises:
        DamagedCell: the file is missing, changed after its record was written, or not in the known form.
    """
    stamp = _stamp(cell)
    path = cell.folder.parents[3] / "derived" / "values" / f"{cell.name}-{cell.spec['eval_key'][:8]}.npz"
    found = _kept(path, stamp) if stamp else None
    if found is None:
        found = _parsed(cell)
        if stamp:
            with contextlib.suppress(UserError):  # a folder that one may only read
                _keep(path, stamp, found)
    return found


def _stamp(cell: StoredCell) -> dict[str, Any] | None:
    """What tells that the file of values is the one that was parsed; None where there is none."""
    path = metrics_file(cell.metrics_folder)
    try:
        found = os.stat(path)
    except OSError:
        return None
    return {
        "file": [path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino],
        "sha256": cell.result.get("metrics_sha256"),
        "code": _code(),
    }


@cache
def _code() -> str:
    """Hash of the modules that make the arrays: those of another version are not used."""
    sources = b"".join(Path(str(file)).read_bytes() for file in (__file__, collect.__file__, directions.__file__))
    return hashlib.sha256(sources).hexdigest()


def _kept(path: Path, stamp: dict[str, Any]) -> CellValues | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            head = json.loads(stored["head"].tobytes())
            if head["stamp"] != stamp:
                return None
            keys = [(str(o), str(m), str(v), int(n)) for o, m, v, n in head["keys"]]
            found = CellValues(head["cases"], head["patients"], keys, *(stored[name] for name in _ARRAYS))
            return found if _fits(found) else None
    except Exception:  # not there yet, cut off, damaged anywhere: zip and npy readers raise of everything
        return None


def _fits(found: CellValues) -> bool:
    """Whether all arrays are of the form that is kept: a checksum does not cover a header that announces less."""
    shape = (len(found.cases), len(found.keys))
    arrays = [getattr(found, name) for name in _ARRAYS]
    kinds = [(array.shape, array.dtype) for array in arrays]
    return len(found.patients) == shape[0] and kinds == [(shape, np.dtype(kind)) for kind in _ARRAYS.values()]


def _keep(path: Path, stamp: dict[str, Any], found: CellValues) -> None:
    head = json.dumps({"stamp": stamp, "cases": found.cases, "patients": found.patients, "keys": found.keys})
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            head=np.frombuffer(head.encode(), dtype=np.uint8),
            **{name: getattr(found, name) for name in _ARRAYS},
        )


def _parsed(cell: StoredCell) -> CellValues:
    frame = cell.metrics()
    names = ["output", "metric", "variant", "region", "rater", "label", "n_samples"]
    series = _numbered(frame, names)
    heads = frame.loc[np.unique(series, return_index=True)[1], names]
    case_codes, case_names = _sorted_codes(frame["case_id"])
    patients = np.empty(len(case_names), dtype=object)
    patients[case_codes] = frame["patient_id"].cat.categories.to_numpy(dtype=object)[frame["patient_id"].cat.codes]

    shape = (len(case_names), len(heads))
    values = np.full(shape, np.nan)
    undefined = np.zeros(shape, dtype=np.uint8)
    present = np.zeros(shape, dtype=bool)
    number = frame["value"].to_numpy()
    lacking = np.isnan(number)
    reasons = frame["reason"].cat.categories
    code = np.array([undefined_by(str(r)) for r in reasons], dtype=np.uint8)
    by = code[frame["reason"].cat.codes.to_numpy()] if len(code) else np.zeros(len(frame), dtype=np.uint8)
    values[case_codes, series] = number
    undefined[case_codes, series] = np.where(lacking, by, APPLIES_NOT)
    present[case_codes, series] = ~lacking | (by != APPLIES_NOT)
    keys, columns = _series_keys(heads)
    return _merged_labels(CellValues(case_names, list(map(str, patients)), keys, values, undefined, present), columns)


def _numbered(frame: pd.DataFrame, names: list[str]) -> NDArray[np.intp]:
    """The number of each line's combination of these columns, in the order in which combinations first appear."""
    combined = np.zeros(len(frame), dtype=np.int64)
    for name in names:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes, count = column.cat.codes.to_numpy(), len(column.cat.categories)
        else:
            codes, levels = pd.factorize(column, use_na_sentinel=False)
            count = len(levels)
        combined = combined * max(count, 1) + codes
    return np.asarray(pd.factorize(combined)[0], dtype=np.intp)


def _sorted_codes(column: pd.Series) -> tuple[NDArray[np.intp], list[str]]:
    """Number of each line's text among the sorted ones, and those."""
    texts = [str(text) for text in column.cat.categories]
    order = sorted(range(len(texts)), key=texts.__getitem__)
    place = np.empty(len(texts), dtype=np.intp)
    place[order] = np.arange(len(texts))
    return place[column.cat.codes.to_numpy()], [texts[i] for i in order]


def _series_keys(heads: pd.DataFrame) -> tuple[list[Key], list[str]]:
    """Metric names with the rater in brackets, the canonical region without a mark, others as a variant; and labels."""
    text = heads.astype(dict.fromkeys(("output", "metric", "variant", "region", "rater", "label"), str))
    boxed = set(text.loc[text["region"] == _REGION, "metric"])
    keys: list[Key] = []
    for line in text.itertuples(index=False):
        metric = f"{line.metric.removesuffix('.each')}[{line.rater}]" if line.rater else line.metric
        variant = "" if line.variant in _CANONICAL else line.variant
        if line.metric in boxed and line.region != _REGION:
            variant = f"{variant} {line.region or FULL}".strip()
        samples = 0 if np.isnan(line.n_samples) else int(line.n_samples)
        keys.append((line.output, metric, variant, samples))
    return keys, list(text["label"])


def _merged_labels(cell: CellValues, labels: list[str]) -> CellValues:
    """One series per key: the one without label if there is one, else the mean over the classes of a case."""
    members: dict[Key, dict[str, int]] = defaultdict(dict)
    for i, (key, label) in enumerate(zip(cell.keys, labels, strict=True)):
        members[key][label] = i
    keys: list[Key] = []
    values, undefined, present = [], [], []
    for key, found in members.items():
        pick = [found[""]] if "" in found else list(found.values())
        block = cell.values[:, pick]
        keys.append(key)
        values.append(block.mean(1))  # a class that is undefined makes the mean undefined
        codes = cell.undefined[:, pick]
        undefined.append(np.where((codes == BY_DATA).any(1), np.uint8(BY_DATA), codes.max(1)))
        present.append(cell.present[:, pick].all(1))
        if len(found) > 1:
            output, metric, variant, samples = key
            for label, i in found.items():
                if label:
                    keys.append((output, f"{metric}{{{label}}}", variant, samples))
                    values.append(cell.values[:, i])
                    undefined.append(cell.undefined[:, i])
                    present.append(cell.present[:, i])
    return CellValues(
        cell.cases, cell.patients, keys, np.stack(values, 1), np.stack(undefined, 1), np.stack(present, 1)
    )
