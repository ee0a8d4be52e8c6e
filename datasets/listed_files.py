"""Cases whose image and mask files are listed one by one: what `folder` and `manifest` share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.hashing import digest
from .base import Identity, Progress
from .digests import file_digests
from .file_dataset import Decoded, RawCase
from .folder_config import Foreground
from .image_files import (
    distinct,
    lossy,
    read_picture,
    resize_image,
    resize_labels,
    to_channels,
    to_unit_range,
    unit_window,
)
from .volume_dataset import Placed, Stack, VolumeDataset
from .volume_files import SUFFIXES, open_volume, same_size

WHOLE = ""  # stands for the class where one file holds all classes


@dataclass
class ListedCase:
    """Files of one case.

    Attributes:
        image: the picture or volume; the first channel if there are `further` ones.
        masks: by rater, then class name (`WHOLE` if masks are not split by class); a rater that is left out is absent.
    """

    case_id: str
    patient_id: str
    image: Path
    masks: dict[str, dict[str, Path]] = field(default_factory=dict)
    further: tuple[Path, ...] = ()
    part: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image, *self.further, *(p for by_class in self.masks.values() for p in by_class.values()))


@dataclass(frozen=True)
class Reading:
    """How values become images and classes; all of it is hashed into the fingerprint as `meaning`.

    Attributes:
        classes: foreground classes, in the order of their indices.
        where: what the user mends: the file that declares all this.
    """

    foreground: Foreground
    classes: tuple[str, ...]
    overlapping: bool
    channels: str
    window: tuple[float, float] | None
    spacing: tuple[float, float] | None
    identity: Identity
    where: str
    meaning: dict[str, Any]


class ListedFiles(VolumeDataset):
    """Pictures, or NIfTI volumes stored as one row a slice.

    A rater without a file for a case did not see it (``rater_valid`` is False); an empty mask is an answer.
    """

    reading: Reading
    listed: list[ListedCase]

    @property
    def build_options(self) -> dict[str, Any]:
        return {"size": self.options["size"]}

    @property
    def window(self) -> tuple[float, float] | None:
        _ = self.cases  # reads the declaration
        return self.reading.window

    @abstractmethod
    def list_files(self, root: Path) -> tuple[Reading, list[ListedCase], tuple[str, ...]]:
        """How the files are read, the cases, and the raters."""

    def list_cases(self, root: Path) -> list[RawCase]:
        self.reading, self.listed, self.rater_names = self.list_files(root)
        self.class_names = self.reading.classes
        self.overlapping = self.reading.overlapping
        self.declared = self.reading.identity
        if self.options["identity"] is None:  # settled, so that left out or given it is one fingerprint, one table
            self.options["identity"] = "as_stored" if self.declared == "consistent" else "none"
        return [self._raw(case) for case in self.listed]

    def _raw(self, case: ListedCase) -> RawCase:
        stack = None
        if _volumetric(case.image):
            masks = [p for by_class in case.masks.values() for p in by_class.values()]
            flat = [p for p in (*case.further, *masks) if not p.name.lower().endswith(SUFFIXES)]
            if flat:
                raise UserError(f"{flat[0]} is no NIfTI file, but its image {case.image} is a volume; store it as one")
            stack = self.place([case.image, *case.further], masks)[0]
        return RawCase(
            case.case_id,
            case.patient_id,
            case.files,
            slices=stack.depth if stack else 1,
            part=case.part,
            handle=(case, stack),
        )

    @cached_property
    def _source(self) -> dict[str, Any]:
        """Hashes of all files used, by case, rater and class: where they lie does not matter.

        Of the names only this counts: whether a mask is a JPEG, because undeclared foreground is cut in those alone.
        """
        digests = file_digests(sorted({f for case in self.cases for f in case.files}))
        files = [
            [
                case.case_id,
                case.patient_id,
                [digests[f] for f in (case.image, *case.further)],
                [
                    [rater, name, digests[path], lossy(path)]
                    for rater, by_class in sorted(case.masks.items())
                    for name, path in sorted(by_class.items())
                ],
                case.part,
            ]
            for case in self.listed
        ]
        return {
            "files": digest(sorted(files)),
            "raters": list(self.rater_names),
            "classes": list(self.class_names),
            "identity": self.declared,
            **self.reading.meaning,
        }

    # -- decoding -------------------------------------------------------------------------------

    def decode(self, raw: RawCase) -> Decoded:
        case, stack = raw.handle
        return self._decode_volume(case, stack) if stack else self._decode_picture(case)

    def _decode_picture(self, case: ListedCase) -> Decoded:
        reading = self.reading
        picture = read_picture(case.image)
        native = picture.values.shape[:2]
        channels = [to_channels(to_unit_range(picture.values, reading.window), reading.channels)]
        for path in case.further:
            values = read_picture(path).values
            same_size(path, values.shape[:2], case.image, native)
            channels.append(to_channels(to_unit_range(values, reading.window), reading.channels))

        def read(path: Path) -> np.ndarray:
            values = read_picture(path, labels=True).values
            same_size(path, values.shape, case.image, native)
            return reading.foreground.apply(values, path)

        masks, valid = self._masks(case, read, native)
        return Decoded(np.concatenate(channels), masks, valid, reading.spacing or picture.spacing)

    def _decode_volume(self, case: ListedCase, stack: Stack) -> Decoded:
        first = stack.channels[0]
        depth, height, width = first.volume.shape(first.layout)
        size = self.slice_size(height, width)
        image = np.stack([self._channel(placed, depth, size) for placed in stack.channels], axis=1)
        rule = self.reading.foreground
        placed = dict(zip((p for by_class in case.masks.values() for p in by_class.values()), stack.masks, strict=True))

        def read(path: Path) -> np.ndarray:
            mask = placed[path]
            assert mask is not None
            planes = np.zeros((depth, *size), np.uint8)
            values: set[float] = set()
            for k, plane in mask.volume.planes(mask.layout):
                planes[k] = resize_labels(rule.apply(plane, path), size)
                if not rule.declared:
                    values.update(distinct(plane).tolist())
            if values:
                rule.apply(np.array(sorted(values)), path)  # not 0 and 1 in one slice, 0 and 255 in another
            return planes

        masks, valid = self._masks(case, read, (depth, *size))
        native = first.volume.spacing(first.layout)
        if native and self.reading.spacing:
            native = (native[0], *self.reading.spacing)
        spacing = native and (native[0], native[1] * height / size[0], native[2] * width / size[1])
        return Decoded(image, np.moveaxis(masks, -3, 0), valid, spacing)

    def _channel(self, placed: Placed, depth: int, size: tuple[int, int]) -> np.ndarray:
        """D×size float32 in [0, 1], scaled as one: a slice's own range says nothing of the next slice's."""
        planes: list[np.ndarray] = [np.empty(0)] * depth
        for k, plane in placed.volume.planes(placed.layout):
            planes[k] = plane
        window, whole = self.reading.window, np.stack(planes)
        if window is None and whole.dtype not in (np.bool_, np.uint8):
            window = unit_window(whole)
        return np.stack([resize_image(to_unit_range(plane, window)[None], size)[0] for plane in whole])

    def _masks(self, case: ListedCase, read: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Masks R×shape (or R×K×shape) and which raters are there; `read` gives the foreground of a file."""
        classes = (len(self.class_names),) if self.overlapping else ()
        masks = np.zeros((len(self.rater_names), *classes, *shape), np.uint8)
        valid = np.array([rater in case.masks for rater in self.rater_names])
        for r in np.flatnonzero(valid):
            files = case.masks[self.rater_names[r]]
            masks[r] = read(files[WHOLE]) if WHOLE in files else self._merged(case, self.rater_names[r], files, read)
        return masks, valid

    def _merged(self, case: ListedCase, rater: str, files: Mapping[str, Path], read: Any) -> np.ndarray:
        planes = np.stack([read(files[name]) for name in self.class_names])
        if self.overlapping:
            return planes
        if (planes.sum(0) > 1).any():
            raise UserError(
                f"classes {', '.join(self.class_names)} of rater {rater!r} overlap in case {case.case_id!r}; remove "
                f"overlapping: false from the {self.reading.where}"
            )
        numbers = np.arange(1, len(planes) + 1, dtype=np.uint8).reshape(-1, *[1] * (planes.ndim - 1))
        merged: np.ndarray = (planes * numbers).max(0)
        return merged

    # -- checks of the whole --------------------------------------------------------------------

    def build(self, folder: Path, progress: Progress) -> None:
        super().build(folder, progress)
        masks = np.load(folder / "masks.npy", mmap_mode="r")
        valid = np.load(folder / "rater_valid.npy")
        if not any(rows.any() for rows in masks):
            example = next(iter(next(iter(self.listed[0].masks.values())).values()))
            raise UserError(
                f"no mask has any foreground, for example {example}; declare the foreground values in the "
                f"{self.reading.where}, for example foreground: '> 0'"
            )
        if len(self.class_names) == 1 and all(rows[seen].all() for rows, seen in zip(masks, valid, strict=True)):
            raise UserError(
                f"every pixel of every mask is foreground; declare the foreground values in the {self.reading.where}"
            )


def _volumetric(path: Path) -> bool:
    """Whether a file is a volume: NIfTI with three axes longer than 1. Anything else is judged when it is read."""
    if not path.name.lower().endswith(SUFFIXES):
        return False
    return sum(n > 1 for n in open_volume(path, axes=7).stored) > 2
