"""Splits: patient-level by a rule that needs no library (the MD5 of the patient id), or as somebody published them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import __version__
from ..core.errors import UserError, unknown
from ..core.hashing import digest

SplitName = Literal["fixed", "cv4"]
FOLDS: dict[str, int] = {"fixed": 1, "cv4": 4}
PARTS = ("train", "val", "test")
RULES = {
    "fixed": "h = int(md5(patient id), 16); h mod 10 in 0-2: test, 3: validation, 4-9: training",
    "cv4": "h = int(md5(patient id), 16); h mod 4 = fold: test; of the rest (h // 4) mod 8 = 0: validation",
}


@dataclass(frozen=True)
class Split:
    """Indices into the case list.

    No patient is in two parts of a split by rule. A published one may share them.

    Attributes:
        shared: training patients that are in another part too.
        selected: validation patients that are in the test part too.
    """

    name: str
    fold: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    hash: str
    shared: tuple[str, ...] = ()
    selected: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Rows by the name of the part, in the order of `PARTS`."""
        return {"train": self.train, "val": self.val, "test": self.test}


def patient_number(patient_id: str) -> int:
    return int(hashlib.md5(patient_id.encode(), usedforsecurity=False).hexdigest(), 16)


def make_split(name: str, case_ids: Sequence[str], patient_ids: Sequence[str], fold: int = 0) -> Split:
    """`fixed`: h mod 10 in 0-2 test, 3 validation, 4-9 training. `cv4`: test h mod 4 = fold, validation
    (h // 4) mod 8 = 0 among the rest.

    Raises:
        UserError: unknown split, or a fold that the split does not have.
    """
    if name not in FOLDS:
        raise unknown("split", name, FOLDS)
    if not 0 <= fold < FOLDS[name]:
        raise UserError(
            f"fold {fold} does not exist: split {name!r} has {'only fold 0' if name == 'fixed' else 'folds 0-3'}; "
            f"use --fold 0" + (" or --set dataset.split=cv4" if name == "fixed" else " to 3")
        )
    numbers = [patient_number(p) for p in patient_ids]
    if name == "fixed":
        part = np.array(["test" if h % 10 < 3 else "val" if h % 10 == 3 else "train" for h in numbers])
    else:
        part = np.array(["test" if h % 4 == fold else "val" if (h // 4) % 8 == 0 else "train" for h in numbers])
    return _split(name, fold, {p: np.flatnonzero(part == p) for p in PARTS}, case_ids, patient_ids)


def published_split(
    name: str, fold: int, parts: Mapping[str, Sequence[int]], case_ids: Sequence[str], patient_ids: Sequence[str]
) -> Split:
    """The split of a publication, from the rows of its parts.

    Cases may stand in no part. Some publications select on the test cases: then ``val`` holds rows of ``test``.

    Args:
        parts: rows of ``train``, ``val`` and ``test``; a part that is left out is empty.

    Raises:
        UserError: a row that does not exist, twice in a part, or in ``train`` and in another part.
    """
    rows = {part: np.array(sorted(parts.get(part, ())), dtype=np.intp) for part in PARTS}
    if set(parts) - set(PARTS):
        raise UserError(f"split {name!r} has a part {min(set(parts) - set(PARTS))!r}; give {', '.join(PARTS)}")
    for part, found in rows.items():
        if len(found) and not 0 <= found[0] <= found[-1] < len(case_ids):
            raise UserError(f"part {part} of split {name!r} names row {found[-1]}, but there are {len(case_ids)} cases")
        again = found[1:][found[1:] == found[:-1]]
        also = np.intersect1d(found, rows["train"]) if part != "train" else again
        for what, faulty in ((f"twice in part {part}", again), (f"in part train and in part {part}", also)):
            if len(faulty):
                raise UserError(
                    f"case {case_ids[faulty[0]]!r} stands {what} of split {name!r}; mend the split of that data set"
                )
    return _split(name, fold, rows, case_ids, patient_ids)


def _split(
    name: str, fold: int, rows: Mapping[str, np.ndarray], case_ids: Sequence[str], patient_ids: Sequence[str]
) -> Split:
    patients = {part: {patient_ids[i] for i in rows[part]} for part in PARTS}
    train, val, test = patients.values()
    listing = {part: sorted(case_ids[i] for i in rows[part]) for part in PARTS}
    shared, selected = (tuple(sorted(found)) for found in (train & (val | test), val & test))
    return Split(name, fold, rows["train"], rows["val"], rows["test"], digest(listing)[:16], shared, selected)


def split_record(
    split: Split, dataset: str, rule: str, case_ids: Sequence[str], patient_ids: Sequence[str]
) -> dict[str, Any]:
    """What the file of a fold holds: everything that another program needs to use the same split."""
    return {
        "schema": "multirater.split/1",
        "dataset": dataset,
        "split": split.name,
        "fold": split.fold,
        "rule": rule,
        "hash": split.hash,
        "patients": {part: sorted({patient_ids[i] for i in found}) for part, found in split.parts.items()},
        "shared_patients": list(split.shared),
        "selected_patients": list(split.selected),
        "multirater": __version__,
        **{part: [case_ids[i] for i in found] for part, found in split.parts.items()},
    }
