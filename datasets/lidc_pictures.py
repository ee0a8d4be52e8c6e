"""LIDC as pictures: crops of the Hierarchical Probabilistic U-Net (PNG) and CIMD's folders (JPEG)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .image_files import read_picture, to_channels
from .nodules import READERS
from .patterns import files_below
from .volume_files import codes, same_size

PNG_SPACING = (0.5, 0.5)  # mm
_PNG = re.compile(
    r"(?:(?P<above>.*)/)?(?P<kind>images|gt)/(?P<patient>LIDC-IDRI-\d{4})/(?P<case>[^/]+?_c\d+)(?:_l(?P<rater>\d+))?\.png"
)
_JPG = re.compile(r"(?:(?P<above>.*)/)?(?P<case>\d+)/(?:(?P<image>image)_\d+|label(?P<rater>\d+)_)\.jpe?g")
_PARTS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test"}
_CUT = 127


@dataclass
class _Found:
    image: Path | None = None
    masks: dict[int, Path] = field(default_factory=dict)

    def put(self, rater: int | None, path: Path) -> None:
        other = self.image if rater is None else self.masks.get(rater)
        if other is not None:
            raise UserError(f"{other} and {path} are the same picture of one case; keep one of them")
        if rater is None:
            self.image = path
        else:
            self.masks[rater] = path

    def files(self, what: str) -> tuple[Path, ...]:
        """Image and the four masks; these forms store an empty mask too, so that a missing file is a loss."""
        there = self.image or next(iter(self.masks.values()))
        if self.image is None:
            raise UserError(f"{there} has no image {what}; restore it or remove the masks")
        if sorted(self.masks) != list(range(READERS)):
            have = ", ".join(map(str, sorted(self.masks))) or "none"
            raise UserError(
                f"{there} has the masks {have}, expected are 0 to {READERS - 1} (an empty mask is a file too); restore "
                f"the others"
            )
        return (self.image, *(self.masks[r] for r in range(READERS)))


def list_png(root: Path) -> list[RawCase]:
    """Cases of ``<part>/images/<patient>/z-<z>_c<c>.png`` and ``<part>/gt/<patient>/..._l{0,1,2,3}.png``."""
    found: dict[tuple[str, str, str], _Found] = {}
    for relative in files_below(root):
        match = _PNG.fullmatch(relative)
        if match and (match["kind"] == "gt") == (match["rater"] is not None):
            level = (match["above"] or root.resolve().name).rpartition("/")[2].rpartition("_")[2]
            key = (_PARTS.get(level, ""), match["patient"], match["case"])
            rater = None if match["rater"] is None else int(match["rater"])
            found.setdefault(key, _Found()).put(rater, root / relative)
    if not found:
        raise UserError(
            f"{root} holds no <part>/images/LIDC-IDRI-NNNN/z-<z>_c<c>.png with gt beside it; see multirater info lidc"
        )
    return [
        RawCase(f"{patient}/{case}", patient, files.files(f"{patient}/{case}.png"), part=part)
        for (part, patient, case), files in found.items()
    ]


def list_jpg(root: Path) -> list[RawCase]:
    """Cases of ``{training,testing}/<n>/image_<n+1>.jpg`` and ``label{0,1,2,3}_.jpg``; the patient is not known."""
    found: dict[tuple[str, str], _Found] = {}
    for relative in files_below(root):
        match = _JPG.fullmatch(relative)
        if match:
            level = (match["above"] or root.resolve().name).rpartition("/")[2]
            key = (_PARTS.get(level.lower(), ""), match["case"])
            rater = None if match["image"] else int(match["rater"])
            found.setdefault(key, _Found()).put(rater, root / relative)
    if not found:
        raise UserError(
            f"{root} holds no training/<n>/image_<n+1>.jpg with label0_.jpg beside it; see multirater info lidc"
        )
    cases = []
    for (part, number), files in found.items():
        name = f"{part}/{number}" if part else number
        cases.append(RawCase(name, name, files.files("image_<n+1>.jpg"), part=part))
    return cases


def decode_png(raw: RawCase) -> Decoded:
    image, masks = _read(raw)
    labels = np.stack([codes(mask, {0: 0, 255: 1}, path) for path, mask in masks])
    return Decoded(image, labels, np.ones(READERS, bool), PNG_SPACING)


def decode_jpg(raw: RawCase) -> Decoded:
    """Masks are cut at 127: JPEG blurs their two values into ten to fifteen."""
    image, masks = _read(raw)
    for path, mask in masks:
        if mask.dtype != np.uint8 or 0 < mask.max() <= _CUT:
            raise UserError(f"{path} holds values of {mask.dtype} up to {mask.max():g}; a mask has 0 and 255, blurred")
    labels = np.stack([mask > _CUT for _, mask in masks]).astype(np.uint8)
    return Decoded(image, labels, np.ones(READERS, bool))


def _read(raw: RawCase) -> tuple[np.ndarray, list[tuple[Path, np.ndarray]]]:
    """Image 1×H×W in [0, 1] and the values of the masks, all of one size."""
    path, *others = raw.files
    values = read_picture(path).values
    if values.dtype != np.uint8:
        raise UserError(f"{path} holds values of {values.dtype}; expected is an 8-bit grey picture")
    image = to_channels(values.astype(np.float32) / np.float32(255), "grey")
    masks = [(other, read_picture(other, labels=True).values) for other in others]
    for other, mask in masks:
        same_size(other, mask.shape, path, image.shape[1:])
    return image, masks
