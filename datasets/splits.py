"""Patient-level splits by a rule that needs no library: the MD5 of the patient id, read as an integer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.errors import UserError, unknown
from ..core.hashing import digest

SplitName = Literal["fixed", "cv4"]
FOLDS: dict[str, int] = {"fixed": 1, "cv4": 4}


@dataclass(frozen=True)
class Split:
    """Indices into the case list; no patient is in two parts."""

    name: str
    fold: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    hash: str


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
    listing = {p: sorted(c for c, q in zip(case_ids, part, strict=True) if q == p) for p in ("train", "val", "test")}
    indices = {p: np.flatnonzero(part == p) for p in listing}
    return Split(name, fold, indices["train"], indices["val"], indices["test"], digest(listing)[:16])
