"""`qubiq`: the QUBIQ challenges 2020 and 2021, six sets of MRI and CT with two to seven raters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ..core.errors import UserError
from .file_dataset import Decoded, RawCase
from .image_files import to_unit_range
from .orders import Order
from .patterns import files_below
from .qubiq_matting import decode_matting, list_matting
from .volume_dataset import SIZE_HELP, SOFT_TISSUE, Placed, Size, Stack, TrainSlices, VolumeDataset
from .volume_files import Layout, Volume, by, codes, open_volume, same_size

SetName = Literal["brain-growth", "brain-tumor", "kidney", "prostate", "pancreas", "pancreatic-lesion"]
CODES = {0: 0, 1: 1, 255: 1}
_FILE = re.compile(
    r"(?:(?P<above>.*)/)?(?P<case>[^/]+)/(?:(?P<image>image)|task(?P<task>\d\d)_seg(?P<rater>\d\d))\.nii\.gz"
)
_LEVELS = {"training": "train", "validation": "val", "testing": "test", "test": "test"}


@dataclass(frozen=True)
class SetInfo:
    """What the challenge says of a set.

    Attributes:
        classes: structure of each task.
        window: HU of a CT; None: MRI, scaled by its own percentiles.
        volumes: the files are volumes.
    """

    raters: int
    classes: tuple[str, ...]
    channels: int = 1
    window: tuple[float, float] | None = None
    volumes: bool = False


SETS: Mapping[str, SetInfo] = MappingProxyType(
    {
        "brain-growth": SetInfo(7, ("white matter",)),
        "brain-tumor": SetInfo(3, ("whole tumour", "tumour core", "enhancing tumour"), channels=4),
        "kidney": SetInfo(3, ("kidney",), window=SOFT_TISSUE),
        "prostate": SetInfo(6, ("task01", "task02")),
        "pancreas": SetInfo(2, ("pancreas",), window=SOFT_TISSUE, volumes=True),
        "pancreatic-lesion": SetInfo(2, ("lesion",), window=SOFT_TISSUE, volumes=True),
    }
)


@dataclass
class _Found:
    image: Path | None = None
    masks: dict[tuple[int, int], Path] = field(default_factory=dict)  # (task, rater)


class Qubiq(VolumeDataset):
    """One set and one task of QUBIQ, or all tasks of a set as overlapping classes.

    Sets: ``brain-growth`` (7 raters), ``brain-tumor`` (3 raters, 4 sequences, tasks 1-3), ``kidney`` (3), ``prostate``
    (6, tasks 1-2), and the volumes ``pancreas`` and ``pancreatic-lesion`` (2).

    A rater without a file did not see the case; with ``task=all`` one who lacks a task is missing altogether. Rater
    numbers mean the same person within a set only, so the ids are ``<set>/<task>/<number>``.
    """

    title = "QUBIQ: quantification of uncertainties in biomedical image quantification (2020, 2021)"
    citation = (
        "Li, Navarro, Ezhov, et al., QUBIQ: Uncertainty Quantification for Biomedical Image Segmentation Challenge, "
        "arXiv:2405.18435, 2024"
    )
    licence = "challenge terms: non-commercial research, no redistribution"
    how_to_get = (
        "register at qubiq21.grand-challenge.org (2020: qubiq.grand-challenge.org), download the training and "
        "validation archives and unpack them into one folder, so that it holds training_data_v3_QC/<set>/... and "
        "validation_data_qubiq2021_QC/<set>/... (training_data_v2, training_data_v3 and the names without _QC are read "
        "too; of two generations of one archive keep one); then: multirater prepare qubiq --root FOLDER --set "
        "set=brain-growth. Or put brain_growth_alpha.pkl of the MedicalMatting repository into FOLDER and add --set "
        "preparation=matting. Loader not yet tried on the original files"
    )
    declared = "consistent"
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "compat": "official training cases against official validation cases (test cases where their masks are "
            "there); without test cases, about one in eight training patients serves for selection"
        }
    )

    def __init__(
        self,
        root: Annotated[str | None, "folder that holds the unpacked archives"] = None,
        set: Annotated[SetName, "which data set of the challenge"] = "brain-growth",
        task: Annotated[Literal["all"] | int, "task of the set, or all as overlapping classes"] = 1,
        preparation: Annotated[Literal["nifti", "matting"], "challenge archives, or MedicalMatting's pickle"] = "nifti",
        window: Annotated[tuple[float, float] | None, "intensities shown as 0 and 1; null: as the set needs"] = None,
        size: Annotated[Size | Literal["auto"], f"{SIZE_HELP}; auto: 256, of the pickle as stored"] = "auto",
        identity: Annotated[Order | None, "null: as_stored; none: slots shuffled per case"] = None,
        split: Annotated[str, "cv4, fixed, or compat: the challenge's"] = "cv4",
        train_slices: Annotated[TrainSlices, "slices of volumes to train on"] = "foreground",
    ) -> None:
        if size == "auto":
            size = None if preparation == "matting" else 256
        super().__init__(
            root=root, set=set, task=task, preparation=preparation, window=window, size=size, identity=identity,
            split=split, train_slices=train_slices,
        )  # fmt: skip
        self.info = SETS[set]
        tasks = len(self.info.classes)
        if task != "all" and not 1 <= task <= tasks:
            raise UserError(f"dataset.task = {task} does not exist: set {set!r} has tasks 1 to {tasks}; choose one")
        if preparation == "matting" and set != "brain-growth":
            raise UserError(f"dataset.preparation=matting holds the set brain-growth only, not {set!r}; use nifti")
        if window and not window[0] < window[1]:
            raise UserError(f"dataset.window = {list(window)} is not allowed: give two rising numbers")
        self.tasks = tuple(range(1, tasks + 1)) if task == "all" else (task,)
        self.overlapping = len(self.tasks) > 1
        self.class_names = tuple(self.info.classes[t - 1] for t in self.tasks)
        name = "all" if task == "all" else f"{task:02d}"
        self.rater_names = tuple(f"{set}/{name}/{r:02d}" for r in range(1, self.info.raters + 1))
        self.unused["left_out"] = []

    # -- listing --------------------------------------------------------------------------------

    def list_cases(self, root: Path) -> list[RawCase]:
        if self.options["preparation"] == "matting":
            return list_matting(root, self.info.raters)
        cases = []
        folders = self._folders(root)
        for (folder, part), found in folders.items():
            name = f"{part}/{folder.name}" if part else folder.name
            if found.image is None:
                raise UserError(f"{folder} holds masks, but no image.nii.gz; restore the image or remove the folder")
            self._check(folder, found)
            masks = [[found.masks.get((t, r + 1)) for t in self.tasks] for r in range(self.info.raters)]
            if not any(all(row) for row in masks):
                self.unused["left_out"].append(name)
                continue
            used = [path for row in masks if all(row) for path in row if path]
            # case<k>-<j> are several scans of one patient, numbered on from training to validation
            patient = folder.name.split("-")[0] if self.info.volumes else name
            handle: Any = (found.image, masks)
            depth = 1
            if self.info.volumes:
                handle = _stack(found.image, [row[0] for row in masks])
                depth = handle.depth
            cases.append(RawCase(name, patient, (found.image, *used), slices=depth, part=part, handle=handle))
        if not cases:
            what = f"{len(folders)} cases, but no mask of task {self.options['task']}" if folders else "no case"
            raise UserError(
                f"{root} holds {what} of the QUBIQ set {self.options['set']!r}; expected "
                f"{self.options['set']}/Training/case01/task01_seg01.nii.gz below it (multirater info qubiq)"
            )
        return cases

    def _folders(self, root: Path) -> dict[tuple[Path, str], _Found]:
        """Case folders of the chosen set with their part, whichever level of the archives `root` is."""
        chosen = self.options["set"]
        found: dict[tuple[Path, str], _Found] = {}
        outer = root.resolve().parts
        for relative in files_below(root):
            match = _FILE.fullmatch(relative)
            if not match:
                continue
            levels = [*outer, *(match["above"] or "").split("/")] if match["above"] else [*outer]
            part = _LEVELS.get(levels[-1].lower(), "")
            if part:
                levels.pop()
            if not levels or levels[-1] != chosen:
                continue
            archive = levels[-2].lower() if len(levels) > 1 else ""
            part = part or next((p for word, p in _LEVELS.items() if word in archive), "")
            path = root / relative
            case = found.setdefault((path.parent, part), _Found())
            if match["image"]:
                case.image = path
            else:
                case.masks[int(match["task"]), int(match["rater"])] = path
        return found

    def _check(self, folder: Path, found: _Found) -> None:
        """Files that the set should not have mean that it is another set, or another release."""
        for (task, rater), path in found.masks.items():
            if not 1 <= task <= len(self.info.classes) or not 1 <= rater <= self.info.raters:
                raise UserError(
                    f"{path} is not expected: set {self.options['set']!r} has tasks 1 to {len(self.info.classes)} and "
                    f"raters 1 to {self.info.raters}; check that {folder} belongs to it"
                )

    # -- reading --------------------------------------------------------------------------------

    @property
    def window(self) -> tuple[float, float] | None:
        return super().window or self.info.window

    def decode(self, raw: RawCase) -> Decoded:
        if self.options["preparation"] == "matting":
            return decode_matting(raw)
        if self.info.volumes:
            return self.read_stack(raw.handle, CODES, self.window)
        path, masks = raw.handle
        image, spacing = _picture(path, self.info.channels)
        labels = np.zeros((len(masks), len(self.tasks), *image.shape[1:]), np.uint8)
        valid = np.array([all(row) for row in masks])
        for r in np.flatnonzero(valid):
            for t, mask in enumerate(masks[r]):
                labels[r, t] = _mask(mask, image.shape[1:], path)
        scaled = np.stack([to_unit_range(channel, self.window) for channel in image])
        # NIfTI's (x, y) to (row, column)
        return Decoded(
            scaled.swapaxes(1, 2), (labels if self.overlapping else labels[:, 0]).swapaxes(-1, -2), valid, spacing
        )

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        rows = self.official(("train", "val"))
        return rows if rows["test"] else self.official_halves(8, test="val")


def _picture(path: Path, channels: int) -> tuple[np.ndarray, tuple[float, float] | None]:
    """C×X×Y of a 2D image, and mm along (y, x); the sequences of a tumour case may be its first or last axis."""
    volume = open_volume(path, axes=5)
    values = volume.array()
    long = [axis for axis, n in enumerate(values.shape) if n > 1]
    image = values.squeeze()
    if channels > 1 and image.ndim == 3:
        ends = [axis for axis in (0, 2) if image.shape[axis] == channels]
        if len(ends) == 1:
            image = np.moveaxis(image, ends[0], 0)
            del long[ends[0]]
    elif channels == 1 and image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] != channels:
        what = f"a 2D image with {channels} sequences as first or last axis" if channels > 1 else "one 2D image"
        raise UserError(f"{path} has shape {by(values.shape)}; expected is {what}: check dataset.set")
    size = np.sqrt((volume.affine[:3, :3] ** 2).sum(0))
    known = max(long) < 3 and (size[long] > 0).all()
    return image, (float(size[long[1]]), float(size[long[0]])) if known else None


def _mask(path: Path, shape: tuple[int, ...], image: Path) -> np.ndarray:
    """X×Y in {0,1}; transposed only if that alone makes it fit its image."""
    values = open_volume(path, axes=5).array().squeeze()
    if values.shape != shape and values.shape[::-1] == shape:
        values = values.T
    same_size(path, values.shape, image, shape)
    return codes(values, CODES, path)


def _stack(image: Path, masks: list[Path | None]) -> Stack:
    """A volume and its masks, voxel on voxel.

    The headers of these sets say nothing (1 mm, no orientation), and slices are stored along the first axis: the slice
    axis is the one whose length differs from the two others. Only if none does is the header believed.
    """
    first = open_volume(image)
    layout = _layout(first)
    placed: list[Placed | None] = []
    for path in masks:
        if path is None:
            placed.append(None)
            continue
        mask = open_volume(path)
        if mask.stored == first.stored:
            placed.append(Placed(mask, layout))
        elif mask.stored == first.stored[::-1]:  # written in the order of axes of another library
            a, b, c = layout.axes
            placed.append(Placed(mask, Layout((2 - a, 2 - b, 2 - c), layout.flips)))
        else:
            raise UserError(
                f"{path} has {by(mask.stored)} voxels, but its image {image} has {by(first.stored)}; a mask must have "
                f"the grid of its image"
            )
    return Stack((Placed(first, layout),), tuple(placed))


def _layout(volume: Volume) -> Layout:
    x, y, z = volume.stored
    if y == z != x:
        return Layout((0, 1, 2), (False, False, False))
    if x == z != y:
        return Layout((1, 2, 0), (False, False, False))
    if x == y != z:
        return Layout((2, 1, 0), (False, False, False))
    return volume.layout
