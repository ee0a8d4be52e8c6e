"""LIDC from the CT itself: the nodules, masks and splits of `lidc-contours`, with the real crop as image.

The tree of TCIA holds CT series and chest radiographs, as ``LIDC-IDRI-NNNN/<StudyUID>/<SeriesUID>/*.dcm`` or under
shortened names, so that a series is known by the UID in its headers. The outlines come with the package; the XML
files are not needed. Headers are read once: what they say is kept in the cache as long as the files of a folder stay
the same.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.cache import cache_root
from ..core.errors import UserError, brief
from ..core.files import read_json, write_json
from ..core.hashing import digest, key8
from .contours import load_contours, rasterise
from .digests import stamp
from .file_dataset import Decoded, RawCase
from .lidc_cases import UID_ROOT, NoduleCases, restriction, select_nodules
from .lidc_personas import persona_masks
from .nodules import READERS
from .patterns import files_below, natural
from .simulated_ct import FRAME, HU_RANGE, unit_of_hu

_TOLERANCE = 0.1  # mm between the z of an outline and of its slice
_TAGS = ["Modality", "SeriesInstanceUID", "ImagePositionPatient", "PixelSpacing"]
_OTHER = ""  # stands for a series that holds no outline


@dataclass(frozen=True)
class Crop:
    """One slice of one nodule and the file that shows it."""

    cases: NoduleCases
    index: int
    path: Path


class DicomCases:
    """The nodules of one set whose CT lies below a root."""

    def __init__(self, root: Path, set_name: str, identity: str) -> None:
        self.root = root
        self.set_name = set_name
        self.identity = identity
        self.lacking: list[str] = []  # scans of the set without their CT

    def list_cases(self) -> list[RawCase]:
        """One case a slice; nodules of scans that are not there are left out (`lacking`).

        Raises:
            UserError: no series of LIDC at all, a slice of an outline that its series does not have.
        """
        table = load_contours()
        wanted = {uid.decode() for uid in table.scan_series}
        series = series_below(self.root, wanted)
        if not series:
            raise UserError(
                f"{self.root} holds no CT series of LIDC-IDRI; expected are *.dcm below LIDC-IDRI-NNNN/<study>/<series>"
            )
        listed = []
        missing = set()
        for patient, cases in _nodules(self.set_name, restriction(self.identity, self.set_name)):
            if cases.scene.scan not in series:
                missing.add(cases.scene.scan)
                continue
            slices = series[cases.scene.scan]
            for index in cases.slices:
                path = slices.at(cases.z[index])
                record = cases.record(patient, index, path.name, simulated=False)
                handle = Crop(cases, index, path)
                listed.append(RawCase(record["case_id"], patient, (path,), handle=handle, meta=record["meta"]))
        self.lacking = sorted(missing)
        return listed

    def decode(self, raw: RawCase) -> Decoded:
        """Image (HU + 1000) / 1400 in [0, 1], 1×128×128, and masks 4×128×128."""
        crop: Crop = raw.handle
        scene = crop.cases.scene
        units, spacing = hounsfield(crop.path)
        if abs(spacing - scene.spacing) > 0.01 * scene.spacing:
            raise UserError(
                f"{crop.path} has pixels of {spacing:g} mm, but the outlines were drawn on {scene.spacing:g} mm; the "
                f"series was resampled, so get the original"
            )
        image = np.full((FRAME, FRAME), HU_RANGE[0])
        (top, left), (height, width) = crop.cases.corner, units.shape
        rows, columns = slice(max(top, 0), min(top + FRAME, height)), slice(max(left, 0), min(left + FRAME, width))
        image[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = units[rows, columns]
        masks = crop.cases.masks()[:, crop.index]
        if self.identity == "persona":
            stream = scene.stream("personas", nodule=scene.nodule, slice=scene.first_slice + crop.index)
            masks = persona_masks(masks, scene.spacing, stream)
        return Decoded(
            unit_of_hu(image)[None], masks.astype(np.uint8), np.ones(READERS, bool), (scene.spacing, scene.spacing)
        )


@lru_cache(maxsize=1)
def _nodules(set_name: str, kept: str) -> list[tuple[str, NoduleCases]]:
    table = load_contours()
    return list(select_nodules(table, rasterise(table), set_name, kept))


@dataclass
class Slices:
    """Files of one series by their z."""

    found: list[tuple[float, Path]]

    @cached_property
    def _order(self) -> tuple[np.ndarray, list[Path]]:
        # Of two files at one z, which a few series have, the first by name counts.
        kept = sorted(self.found, key=lambda f: (f[0], natural(f[1].name)))
        return np.array([z for z, _ in kept]), [path for _, path in kept]

    def at(self, z: float) -> Path:
        positions, paths = self._order
        nearest = int(np.argmin(np.abs(positions - z)))
        if abs(positions[nearest] - z) > _TOLERANCE:
            raise UserError(
                f"{paths[0].parent} has no slice at z = {z:g} mm, where an outline was drawn (the nearest is at "
                f"{positions[nearest]:g}); download the series again"
            )
        return paths[nearest]


def series_below(root: Path, wanted: Iterable[str]) -> dict[str, Slices]:
    """Slices of the wanted CT series by the last component of their UID.

    Raises:
        UserError: pydicom is not installed, a file that is no DICOM or lacks a position.
    """
    memory = cache_root() / "dicom" / f"{key8(os.path.abspath(root))}.json"
    try:
        known = read_json(memory) if memory.is_file() else {}
    except UserError:
        known = {}
    keep = set(wanted)
    found: dict[str, list[tuple[float, Path]]] = defaultdict(list)
    fresh: dict[str, Any] = {}
    changed = False
    for folder, names in _folders(root):
        now = digest([[name, stamp(folder / name)] for name in names])
        entry = known.get(str(folder))
        if entry is None or entry["stamp"] != now:
            entry = {"stamp": now, "slices": _headers(folder, names, keep)}
            changed = True
        fresh[str(folder)] = entry
        for name, uid, z in entry["slices"]:
            if uid in keep:
                found[uid].append((z, folder / name))
    if changed or len(fresh) != len(known):
        write_json(memory, fresh)
    return {uid: Slices(slices) for uid, slices in found.items()}


def _folders(root: Path) -> Iterable[tuple[Path, list[str]]]:
    """Folders that hold DICOM files, with their names in natural order."""
    below: dict[Path, list[str]] = defaultdict(list)
    for relative in files_below(root):
        if relative.lower().endswith(".dcm"):
            path = root / relative
            below[path.parent].append(path.name)
    for folder in sorted(below):
        yield folder, sorted(below[folder], key=natural)


def _headers(folder: Path, names: list[str], wanted: set[str]) -> list[list[Any]]:
    """Name, series and z of every file; of a folder that begins with another series or a radiograph nothing."""
    out: list[list[Any]] = []
    for name in names:
        path = folder / name
        header = _read(path, pixels=False)
        uid = str(header.get("SeriesInstanceUID", ""))
        last = uid.removeprefix(UID_ROOT)
        if header.get("Modality") != "CT" or last not in wanted:
            if not out:
                return [[name, _OTHER, 0.0]]
            continue
        position = header.get("ImagePositionPatient")
        if position is None or len(position) != 3:
            raise UserError(f"{path} has no ImagePositionPatient, so its place in the scan is not known; restore it")
        out.append([name, last, float(position[2])])
    return out


def hounsfield(path: Path) -> tuple[np.ndarray, float]:
    """Values H×W in HU, and the side of a pixel in mm.

    Raises:
        UserError: damaged, not a single slice, or without the slope that turns stored values into HU.
    """
    data = _read(path, pixels=True)
    try:
        stored = data.pixel_array
        slope, intercept = float(data.RescaleSlope), float(data.RescaleIntercept)
        spacing = float(data.PixelSpacing[0])
        if not np.isfinite([slope, intercept, spacing]).all():
            raise ValueError(f"slope {slope:g}, intercept {intercept:g}, spacing {spacing:g}")
    except Exception as error:  # pydicom's decoders raise whatever their libraries do
        raise UserError(f"{path} has no pixels in HU that can be read ({brief(error)}); get the file again") from error
    if stored.ndim != 2:
        raise UserError(f"{path} holds an array of {stored.ndim} axes; expected is one slice")
    return stored * slope + intercept, spacing


def _read(path: Path, pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise UserError("preparation=dicom needs pydicom: pip install 'multirater[dicom]'") from error
    try:
        if pixels:
            return pydicom.dcmread(path)
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except Exception as error:  # damaged files raise errors of many kinds
        raise UserError(f"{path} is damaged or no DICOM file ({brief(error)}); get it again") from error
