"""MedicalMatting's form of QUBIQ's brain-growth set: one pickle, 39 cases of 128×128, 7 masks each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import UserError
from .case_pickles import case_entries, check_count, only_file, read_masks, read_numbers
from .file_dataset import Decoded, RawCase

FILE = "brain_growth_alpha.pkl"


def list_matting(root: Path, raters: int) -> list[RawCase]:
    """The cases of the pickle below `root`; nothing of it is executed, and arrays stay in the file.

    Raises:
        UserError: no or several pickles, or content of another kind.
    """
    path = only_file(root, FILE)
    cases = []
    for name, value in case_entries(path):
        check_count(value["masks"], raters, path, name)
        cases.append(RawCase(name, name, (path,), handle=(value["image"], value["masks"], raters)))
    return cases


def decode_matting(raw: RawCase) -> Decoded:
    """Image in [0, 1] and masks; the matte and further keys are not used."""
    image, masks, raters = raw.handle
    path = raw.files[0]
    pixels = read_numbers(image, 2, path, raw.case_id)
    if pixels.dtype != np.uint8:
        raise UserError(f"{path} holds an image of type {pixels.dtype} in case {raw.case_id!r}, expected is uint8")
    labels = read_masks(masks, raters, pixels.shape, path, raw.case_id)
    return Decoded(pixels[None].astype(np.float32) / np.float32(255), labels, np.ones(len(labels), bool))
