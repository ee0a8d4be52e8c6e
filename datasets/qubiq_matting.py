"""MedicalMatting's form of QUBIQ's brain-growth set: one pickle, 39 cases of 128×128, 7 masks each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .patterns import files_below
from .safe_pickle import read_pickle
from .volume_files import by, codes

FILE = "brain_growth_alpha.pkl"


def list_matting(root: Path, raters: int) -> list[RawCase]:
    """The cases of the pickle below `root`; nothing of it is executed, and arrays stay in the file.

    Raises:
        UserError: no or several pickles, or content of another kind.
    """
    paths = [root / name for name in files_below(root) if name.split("/")[-1] == FILE]
    if len(paths) != 1:
        raise UserError(f"{root} holds {len(paths) or 'no'} files {FILE}; give a folder that holds one")
    path = paths[0]
    content = read_pickle(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no dict of cases; get the file of the MedicalMatting repository")
    cases = []
    for key, value in content.items():
        name = str(key)
        if not isinstance(value, dict) or not {"image", "masks"} <= set(value):
            raise UserError(f"{path} holds case {name!r} without image and masks; restore the file")
        masks = value["masks"]
        if not isinstance(masks, list) or len(masks) != raters:
            count = len(masks) if isinstance(masks, list) else type(masks).__name__
            raise UserError(f"{path} holds case {name!r} with masks: {count}, but {raters} are expected; restore it")
        cases.append(RawCase(name, name, (path,), handle=(value["image"], masks)))
    return cases


def decode_matting(raw: RawCase) -> Decoded:
    """Image in [0, 1] and masks; the matte and further keys are not used."""
    image, masks = raw.handle
    path = raw.files[0]
    pixels = _read(image, raw)
    if pixels.dtype != np.uint8:
        raise UserError(f"{path} holds an image of type {pixels.dtype} in case {raw.case_id!r}, expected is uint8")
    planes = [_read(mask, raw) for mask in masks]
    for plane in planes:
        if plane.shape != pixels.shape:
            raise UserError(
                f"{path} holds a mask of {by(plane.shape)} for an image of {by(pixels.shape)} in case {raw.case_id!r}"
            )
    labels = np.stack([codes(plane, {0: 0, 1: 1}, path) for plane in planes])
    return Decoded(pixels[None].astype(np.float32) / np.float32(255), labels, np.ones(len(labels), bool))


def _read(stored: Any, raw: RawCase) -> np.ndarray:
    values = stored.read() if hasattr(stored, "read") else None
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "buif" or not values.size:
        found = by(values.shape) if isinstance(values, np.ndarray) else type(stored).__name__
        raise UserError(f"{raw.files[0]} holds {found} in case {raw.case_id!r}, expected is a 2D array of numbers")
    return values
