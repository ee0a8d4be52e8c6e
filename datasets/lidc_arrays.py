"""LIDC as arrays: PHiSeg's ``data_lidc.hdf5``, and MoSE's ``lidc_npy`` folders made of it."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .hdf5_files import SafeFile
from .image_files import read_array
from .nodules import READERS
from .patterns import files_below
from .splits import PARTS
from .volume_files import by, codes

SUFFIXES = (".hdf5", ".h5")
_NPY = re.compile(r"(?:(?P<above>.*)/)?(?P<part>train|val|test)/(?P<kind>images|labels)/(?P<number>\d+)\.npy")
_TOLERANCE = 1e-6


class PhisegFile:
    """The open HDF5 file of one data set: groups train, val, test with images, labels (raters last) and uids."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: SafeFile | None = None
        self._arrays: dict[str, tuple[Any, Any]] = {}

    def list_cases(self, root: Path) -> list[RawCase]:
        """Rows of all groups; who shares a uid is one patient.

        Raises:
            UserError: no or several HDF5 files, or content of another kind.
        """
        path = _only_file(root)
        cases = []
        with SafeFile(path) as file:
            parts = [part for part in PARTS if part in file.names()]
            if not parts:
                raise UserError(
                    f"{path} holds none of the groups {', '.join(PARTS)}, but "
                    f"{', '.join(file.names()[:8]) or 'nothing'}; a file of `multirater data convert` is "
                    f"of the data set hdf5"
                )
            for part in parts:
                images, labels, uids = self._group(file, part)
                if images.ndim != 3 or labels.shape != (*images.shape, READERS) or uids.shape != images.shape[:1]:
                    raise UserError(
                        f"{path}: group {part!r} holds images of {by(images.shape)}, labels of {by(labels.shape)} and "
                        f"uids of {by(uids.shape)}; expected are N×H×W, N×H×W×{READERS} (raters last) and N"
                    )
                if uids.dtype.kind not in "iu" or images.dtype.kind != "f" or labels.dtype.kind not in "buif":
                    raise UserError(
                        f"{path}: group {part!r} holds images of {images.dtype}, labels of {labels.dtype} and uids of "
                        f"{uids.dtype}; expected are floats, uint8 and integers"
                    )
                with file.naming():
                    groups = uids[()].tolist()
                cases += [
                    RawCase(f"{part}/{row}", f"uid{group}", (path,), part=part, handle=(part, row))
                    for row, group in enumerate(groups)
                ]
        return cases

    def decode(self, raw: RawCase) -> Decoded:
        part, row = raw.handle
        path = raw.files[0]
        with self._lock:  # HDF5 has one lock of its own, so that threads gain nothing
            if self._open is None:
                self._open = SafeFile(path)
            if part not in self._arrays:
                self._arrays[part] = self._group(self._open, part)[:2]
            with self._open.naming():
                image, labels = (array[row] for array in self._arrays[part])
        return _case(image, labels, path, f" in row {row} of {part}")

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open, self._arrays = None, {}

    @staticmethod
    def _group(file: SafeFile, part: str) -> tuple[Any, Any, Any]:
        import h5py

        with file.naming():
            link = file.file.get(part, getlink=True)
            group = file.file.get(part) if type(link) is h5py.HardLink else None
            lacking = [n for n in ("images", "labels", "uids") if not isinstance(group, h5py.Group) or n not in group]
        if lacking:
            raise UserError(f"{file.path}: {part!r} is no group of its own with images, labels and uids; restore it")
        return file.array(f"{part}/images"), file.array(f"{part}/labels"), file.array(f"{part}/uids")


def list_npy(root: Path) -> list[RawCase]:
    """Pairs ``{train,val,test}/images/<i>.npy`` and ``labels/<i>.npy``, joined by their number.

    Raises:
        UserError: none there, or one without the other.
    """
    found: dict[tuple[str, int], dict[str, Path]] = {}
    for relative in files_below(root):
        match = _NPY.fullmatch(relative)
        if match:
            pair = found.setdefault((match["part"], int(match["number"])), {})
            if match["kind"] in pair:
                raise UserError(f"{pair[match['kind']]} and {root / relative} are one case; keep one of them")
            pair[match["kind"]] = root / relative
    if not found:
        raise UserError(f"{root} holds no train/images/0.npy, val/... or test/...; see multirater info lidc")
    cases = []
    for (part, number), pair in sorted(found.items()):
        if len(pair) < 2:
            ((kind, path),) = pair.items()
            lacking = "label" if kind == "images" else "image"
            raise UserError(f"{path} has no {lacking} of the same number beside it; restore it")
        name = f"{part}/{number}"
        paths = (pair["images"], pair["labels"])
        cases.append(RawCase(name, name, paths, part=part))
    return cases


def decode_npy(raw: RawCase) -> Decoded:
    image, labels = (read_array(path) for path in raw.files)
    if image.ndim != 2 or labels.shape != (*image.shape, READERS):
        raise UserError(
            f"{raw.files[1]} has shape {by(labels.shape)} and its image {by(image.shape)}; expected are "
            f"H×W×{READERS} (raters last) and H×W"
        )
    return _case(image, labels, raw.files[0], "", raw.files[1])


def _case(image: np.ndarray, labels: np.ndarray, path: Path, where: str, label_path: Path | None = None) -> Decoded:
    """Half is added to the image, which both forms store less a half."""
    low, high = float(image.min()), float(image.max())
    if not (low >= -0.5 - _TOLERANCE and high <= 0.5 + _TOLERANCE):  # NaN fails too
        raise UserError(f"{path} holds an image from {low:g} to {high:g}{where}, expected is -0.5 to 0.5")
    masks = codes(np.moveaxis(labels, -1, 0), {0: 0, 1: 1}, label_path or path)
    scaled = np.clip(image.astype(np.float64) + 0.5, 0, 1).astype(np.float32)
    return Decoded(scaled[None], masks, np.ones(READERS, bool))


def _only_file(root: Path) -> Path:
    if root.is_file():
        return root
    paths = [root / n for n in files_below(root) if n.lower().endswith(SUFFIXES)]
    if len(paths) != 1:
        raise UserError(f"{root} holds {len(paths) or 'no'} HDF5 files; give the folder of data_lidc.hdf5, or the file")
    return paths[0]
