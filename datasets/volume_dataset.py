"""What the loaders of volumes share: stacks of slices read lazily, intensities, and which slices are trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

from ..core.errors import UserError
from ..core.hashing import digest
from .file_dataset import Decoded, FileDataset, Side
from .image_files import resize_image, resize_labels, target_size
from .splits import Split
from .volume_files import Layout, Volume, codes, match_layout, open_volume

TrainSlices = Literal["foreground", "all"]
Size = Side | tuple[Side, Side] | None
SIZE_HELP = "side or [height, width] of a slice; null: as stored"
SOFT_TISSUE = (-160.0, 240.0)  # HU: level 40, width 400


@dataclasses.dataclass(frozen=True)
class Placed:
    """A volume and how its axes are read."""

    volume: Volume
    layout: Layout


@dataclasses.dataclass(frozen=True)
class Stack:
    """One case: its channels, and a mask per rater (None: the rater never saw it)."""

    channels: tuple[Placed, ...]
    masks: tuple[Placed | None, ...]

    @property
    def depth(self) -> int:
        return self.channels[0].volume.shape(self.channels[0].layout)[0]


class VolumeDataset(FileDataset):
    """Volumes, stored as one row a slice.

    Validation and test parts always hold whole volumes. Training rows are those where some rater drew something
    (``train_slices=foreground``) or all. A slice is resized as soon as it is read, so that no volume is ever held at
    full size.
    """

    def __init__(
        self,
        size: Annotated[Size, SIZE_HELP] = 256,
        train_slices: Annotated[
            TrainSlices, "slices to train on: those where some rater drew something, or all; tests use whole volumes"
        ] = "foreground",
        **options: Any,
    ) -> None:
        super().__init__(size=size, train_slices=train_slices, **options)

    @property
    def build_options(self) -> dict[str, Any]:
        return {k: v for k, v in super().build_options.items() if k != "train_slices"}

    def split(self, fold: int = 0) -> Split:
        found = super().split(fold)
        rows = self.training_rows(found.train)
        if len(rows) == len(found.train):
            return found
        if not len(rows):
            raise UserError(
                f"no slice of the training part of fold {fold} of {self.name} has any foreground; train on all with "
                f"--set dataset.train_slices=all"
            )
        ids = self._ids[0]
        return dataclasses.replace(found, train=rows, hash=digest([found.hash, sorted(ids[i] for i in rows)])[:16])

    def training_rows(self, rows: np.ndarray) -> np.ndarray:
        """Those of the training part's rows that are trained on."""
        if self.options["train_slices"] == "all":
            return rows
        return np.array([i for i in rows if self.store.records[i]["meta"].get("foreground", True)], dtype=np.intp)

    # -- for subclasses -------------------------------------------------------------------------

    def place(self, images: Sequence[Path], masks: Sequence[Path | None]) -> tuple[Stack, list[str]]:
        """Open the headers of a case and fit all files onto the grid of the first image.

        Returns:
            The stack, and the names of the masks whose header disagrees with the image.

        Raises:
            UserError: a file is damaged or does not fit.
        """
        first = open_volume(images[0])
        layout = first.layout
        channels = [Placed(first, layout)]
        for path in images[1:]:
            volume = open_volume(path)
            channels.append(Placed(volume, match_layout(volume, first, layout)[0]))
        placed: list[Placed | None] = []
        odd = []
        for mask in masks:
            if mask is None:
                placed.append(None)
                continue
            volume = open_volume(mask)
            fitted, differs = match_layout(volume, first, layout)
            placed.append(Placed(volume, fitted))
            odd += [mask.name] * differs
        return Stack(tuple(channels), tuple(placed)), odd

    def read_stack(
        self,
        stack: Stack,
        classes: Mapping[int, int],
        window: tuple[float, float] | None,
        step: int = 1,
        field: float | None = None,
    ) -> Decoded:
        """Slices of a case at the stored size.

        Args:
            classes: class index of each code of the masks.
            window: intensities that become 0 and 1, clipped. None: z-score of each channel of the volume, with mean and
                standard deviation of its non-zero voxels, applied to all voxels.
            step: keep every `step`-th slice.
            field: side in mm of a square about the middle of each slice; None: the whole slice.
        """
        layout = stack.channels[0].layout
        native = stack.channels[0].volume.spacing(layout)
        depth, *sides = stack.channels[0].volume.shape(layout)
        kept = len(range(0, depth, step))
        cut = tuple(
            _middle(n, field, native[axis + 1] if native else None, stack.channels[0].volume.path)
            for axis, n in enumerate(sides)
        )
        height, width = (part.stop - part.start for part in cut)
        size = self.slice_size(height, width)
        image = np.zeros((kept, len(stack.channels), *size), np.float32)
        for c, channel in enumerate(stack.channels):
            moments = Moments()
            for k, plane in channel.volume.planes(channel.layout):
                values = plane.astype(np.float32)
                if window is None:
                    moments.add(values)
                else:
                    values = np.clip((values - window[0]) / (window[1] - window[0]), 0, 1)
                if k % step == 0:
                    image[k // step, c] = resize_image(values[cut][None], size)[0]
            if window is None:
                image[:, c] = moments.standardise(image[:, c])
        masks = np.zeros((kept, len(stack.masks), *size), np.uint8)
        for r, mask in enumerate(stack.masks):
            for k, plane in mask.volume.planes(mask.layout) if mask else ():
                assert mask is not None
                found = codes(plane, classes, mask.volume.path)
                if k % step == 0:
                    masks[k // step, r] = resize_labels(found[cut], size)
        spacing = native and (native[0] * step, native[1] * height / size[0], native[2] * width / size[1])
        return Decoded(image, masks, np.array([m is not None for m in stack.masks]), spacing)

    def slice_size(self, height: int, width: int) -> tuple[int, int]:
        return target_size(self.options["size"], (height, width))


class Moments:
    """Mean and standard deviation of the non-zero voxels of a volume, gathered slice by slice."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        inside = values[values != 0].astype(np.float64)
        self.count += inside.size
        self.total += float(inside.sum())
        self.squares += float((inside**2).sum())

    def standardise(self, values: np.ndarray) -> np.ndarray:
        """(values - mean) / deviation; zeros if there is nothing to scale by."""
        if not self.count:
            return np.zeros_like(values)
        mean = self.total / self.count
        deviation = max(self.squares / self.count - mean**2, 0.0) ** 0.5
        if deviation <= 1e-6 * max(1.0, abs(mean)):
            return np.zeros_like(values)
        return ((values - np.float32(mean)) / np.float32(deviation)).astype(np.float32)


def _middle(pixels: int, field: float | None, spacing: float | None, path: Path) -> slice:
    """The pixels of the middle `field` mm, all if the slice is smaller."""
    if field is None:
        return slice(0, pixels)
    if not spacing:
        raise UserError(f"{path} gives no spacing, which dataset.field needs; take the whole slices with field=null")
    kept = min(pixels, max(8, round(field / spacing)))
    start = (pixels - kept) // 2
    return slice(start, start + kept)


Found = TypeVar("Found", bound=Sized)


def need(found: Found, what: str, root: Path) -> Found:
    """`found`, or one sentence what was looked for and is not there."""
    if not len(found):
        raise UserError(f"{root} holds no {what}; see how_to_get of `multirater info`")
    return found
