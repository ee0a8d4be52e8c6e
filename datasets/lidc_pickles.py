"""LIDC as pickles: MedicalMatting's ``lidc_attributes.pkl`` and the Probabilistic U-Net's ``data_lidc.pickle``.

Nothing of a pickle is executed (`safe_pickle`); its arrays stay in the file until a case is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from .case_pickles import case_entries, check_count, only_file, read_masks, read_numbers
from .contours import load_contours
from .file_dataset import Decoded, RawCase
from .nodules import READERS
from .patterns import files_below

MATTING = "lidc_attributes.pkl"
_TOLERANCE = 1e-6  # of images that were scaled to [0, 1]


def list_matting(root: Path) -> list[RawCase]:
    """Cases of ``lidc_attributes.pkl``, in the order of its dict (``meta["order"]``), on which its splits hang.

    The part of ``series_uid`` before the first ``_`` is the last component of the study's UID, which gives patient and
    pixel size; of an unknown study it stands for the patient itself.

    Raises:
        UserError: no or several such files, a zip, or content of another kind.
    """
    path = only_file(root, MATTING)
    cases = []
    for order, (key, value) in enumerate(_entries(path)):
        uid = _uid(value, key, path)
        group, underscore, _ = uid.partition("_")
        if not underscore or not group:
            raise UserError(
                f"{path} holds case {key!r} with the series_uid {uid!r}; expected is <study>_slice<k>, so choose "
                f"another dataset.preparation or restore the file"
            )
        patient, spacing = known_scans().get(group, (group, None))
        meta = {"order": order, "group": group}
        handle = (value, np.uint8, spacing)
        cases.append(RawCase(key, patient, (path,), handle=handle, meta=meta))
    return cases


def list_pickles(root: Path) -> list[RawCase]:
    """Cases of all files below `root` whose name holds ``.pickle``, in the order of their dicts.

    Raises:
        UserError: no such file, content of another kind. (A case that two files hold is refused by the caller.)
    """
    paths = [root] if root.is_file() else [root / n for n in files_below(root) if ".pickle" in n.rpartition("/")[2]]
    if not paths:
        raise UserError(f"{root} holds no file *.pickle; give the folder of data_lidc.pickle (multirater info lidc)")
    cases: list[RawCase] = []
    for path in paths:
        for key, value in _entries(path):
            uid = _uid(value, key, path)
            last = uid.rpartition(".")[2].partition("_")[0]
            patient, _ = known_scans().get(last, (uid, None))
            meta = {"order": len(cases), "group": uid}
            cases.append(RawCase(key, patient, (path,), handle=(value, None, None), meta=meta))
    return cases


def decode_pickle(raw: RawCase) -> Decoded:
    """Image in [0, 1] and four masks; the matte and further keys are not used."""
    value, kind, spacing = raw.handle
    path, case = raw.files[0], raw.case_id
    image = read_numbers(value["image"], 2, path, case)
    if kind is not None and image.dtype != kind:
        raise UserError(f"{path} holds an image of {image.dtype} in case {case!r}, expected is {np.dtype(kind)}")
    pixels = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image.astype(np.float32)
    low, high = (float(v) for v in (pixels.min(), pixels.max()))
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # NaN fails too
        raise UserError(
            f"{path} holds an image from {low:g} to {high:g} in case {case!r}, expected is 0 to 1 (or uint8); another "
            f"dataset.preparation may fit"
        )
    labels = read_masks(value["masks"], READERS, image.shape, path, case)
    shown = (spacing, spacing) if spacing else None
    return Decoded(np.clip(pixels, 0, 1)[None], labels, np.ones(READERS, bool), shown)


@lru_cache(maxsize=1)
def known_scans() -> Mapping[str, tuple[str, float]]:
    """Patient and pixel size (mm) by the last component of a study's or series' UID."""
    table = load_contours()
    found = {}
    for scan in range(len(table.scan_patient)):
        facts = (table.patient_id(scan), float(table.scan_spacing[scan]))
        found[table.scan_study[scan].decode()] = facts
        found[table.scan_series[scan].decode()] = facts
    return found


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in case_entries(path):
        check_count(value["masks"], READERS, path, key)
        yield key, value


def _uid(value: Mapping[str, Any], key: str, path: Path) -> str:
    uid = value.get("series_uid")
    if not isinstance(uid, str) or not 0 < len(uid) <= 500 or not uid.isprintable():
        raise UserError(
            f"{path} holds case {key!r} without a series_uid, so its patient cannot be told and no split would be "
            f"sound; restore the file"
        )
    return uid
