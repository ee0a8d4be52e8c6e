"""Predictions of a trained cell for new images: samples, masks for the readers and the mean map, as files.

An image is scaled to [0, 1] as the cell's data set scaled its own where that reads such files or declares a window; it
stays as it is where its values already lie there, and else is scaled as the `folder` data set does. It is brought to
the size that the cell was trained on, and what comes out is brought back to the image's own grid before it is cut into
masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..datasets.image_files import read_array, read_picture, resize_image, to_channels, to_unit_range, unit_window
from ..datasets.volume_files import SUFFIXES as NIFTI
from ..datasets.volume_files import Layout, Volume, open_volume
from .class_layout import ClassLayout

if TYPE_CHECKING:
    import torch

    from ..methods.base import Method

Floats = NDArray[np.float32]
_ASPECT = 0.02  # an image may be that much wider or higher than the cell's own shape before it counts as stretched


@dataclass(frozen=True)
class Scaling:
    """How grey values of files become those that a cell knows.

    Attributes:
        window: grey values that become 0 and 1; None: by type and values of each image.
        by: whose window it is.
        channels: ``grey``, ``rgb`` or ``as_stored``; empty: by the number of channels.
        from_files: the cell's data set scaled such files itself: values within [0, 1] are scaled as all others.
        standardised: the cell knows other values than [0, 1]: only arrays that were made alike can be taken.
    """

    window: tuple[float, float] | None = None
    by: str = "--window"
    channels: str = ""
    from_files: bool = False
    standardised: str = ""

    def apply(self, values: NDArray[Any], found: NewImage) -> Floats:
        """Float32 in [0, 1], and what was done into `found`."""
        typed = values.dtype in (np.bool_, np.uint8)
        if self.window is None and not typed and not self.from_files and values.min() >= 0 and values.max() <= 1:
            found.low, found.high, found.rule = 0.0, 1.0, AS_STORED
            return values.astype(np.float32)
        found.low, found.high = self.window or unit_window(values)
        found.rule = self.by if self.window else (f"range of {values.dtype}" if typed else PERCENTILES)
        return to_unit_range(values, self.window if typed else (found.low, found.high))


AS_STORED = "as stored"
PERCENTILES = "percentiles 0.5 and 99.5"


@dataclass
class NewImage:
    """One image, ready to be predicted.

    Attributes:
        path: where it lies.
        planes: D slices C×H×W in [0, 1] at their own size; one of a picture.
        volume, layout: of a NIfTI volume.
        spacing: mm (row, column) of a picture that knows it.
        low, high: grey values that became 0 and 1.
        rule: where these come from.
    """

    path: Path
    planes: list[Floats]
    volume: Volume | None = None
    layout: Layout | None = None
    spacing: tuple[float, float] | None = None
    low: float = 0.0
    high: float = 1.0
    rule: str = AS_STORED

    @property
    def name(self) -> str:
        name = self.path.name
        for suffix in (".nii.gz", self.path.suffix):
            if suffix and name.lower().endswith(suffix.lower()):
                return name[: -len(suffix)]
        return name


@dataclass
class Predicted:
    """What a method gives for an image, at the image's own size; D is 1 for a picture.

    Attributes:
        mean: D×[C×]H×W float32 probability.
        samples: S×D×H×W masks: bool of binary data, class numbers, or S×K×D×H×W bool of overlapping classes; or None.
        raters: R×D×[C×]H×W float32 probability of the map meant for each reader, or None.
        rater_masks: R×… as `samples`, or None.
        rater_ids: names of the readers.
    """

    mean: Floats
    samples: NDArray[Any] | None = None
    raters: Floats | None = None
    rater_masks: NDArray[Any] | None = None
    rater_ids: tuple[str, ...] = field(default=())


def read_image(path: Path, channels: int, scaling: Scaling | None = None) -> NewImage:
    """A picture, an npy array (H×W, H×W×3, or C×H×W already in [0, 1]) or a NIfTI file of one or many slices.

    Args:
        path: of the image.
        channels: of the images that the cell was trained on.
        scaling: of its values; a volume is scaled as one.

    Raises:
        UserError: a file that cannot be read, another number of channels, or values that the cell cannot know.
    """
    scaling = scaling or Scaling()
    how = scaling.channels or {1: "grey", 3: "rgb"}.get(channels, "as_stored")
    low = path.name.lower()
    found = NewImage(path, [])
    array = read_array(path) if low.endswith(".npy") and (channels != 1 or scaling.standardised) else None
    if scaling.standardised:
        if array is None or array.ndim != 3:
            raise UserError(
                f"{path} cannot be scaled like the cell's images, {scaling.standardised}; give it prepared in the same "
                f"way, as npy C×H×W"
            )
        found.planes = [array.astype(np.float32)]
    elif low.endswith(NIFTI) and sum(n > 1 for n in open_volume(path, axes=7).stored) > 2:
        found.volume = open_volume(path)
        found.layout = found.volume.layout
        planes = dict(found.volume.planes(found.layout))
        stack = scaling.apply(np.stack([planes[i] for i in range(len(planes))]), found)
        found.planes = [to_channels(plane, how) for plane in stack]
    elif array is not None and array.ndim == 3 and array.shape[0] == channels:
        if array.min() < 0 or array.max() > 1:
            raise UserError(f"{path} has {channels} channels outside [0, 1]; scale each to that range first")
        found.planes = [array.astype(np.float32)]
    else:
        picture = read_picture(path)
        found.planes, found.spacing = [to_channels(scaling.apply(picture.values, found), how)], picture.spacing
    given = found.planes[0].shape[0]
    if given != channels:
        raise UserError(f"{path} has {given} channels, but the cell was trained on {channels}; give an npy file C×H×W")
    return found


def predict_image(
    method: Method, image: NewImage, n_samples: int, seed: int, device: torch.device, stretch: bool = False
) -> Predicted:
    """Predict every slice, with the same noise in all slices of a volume, so that a sample goes through them.

    Raises:
        UserError: the image has another shape than the cell's images and `stretch` was not given.
    """
    from .predictions import check_prediction, predict_case

    layout = ClassLayout.of(method.data)
    own = image.planes[0].shape[1:]
    size = (method.data.size[0], method.data.size[1])
    _check_shape(image.path, own, size, stretch)
    maps: dict[str, list[Floats]] = {"mean": [], "samples": [], "raters": []}
    for plane in image.planes:
        small = np.ascontiguousarray(resize_image(plane, size))
        found = predict_case(method, small[None], n_samples, device, dataset="new image", case=image.name, seed=seed)
        check_prediction(found, small[None], str(image.path), method)
        for name, kept in maps.items():
            value = getattr(found, name)
            if value is not None:
                kept.append(_resized(value[0].float().cpu().numpy(), (own[0], own[1])))
    samples = np.stack(maps["samples"], 1) if maps["samples"] else None
    raters = np.stack(maps["raters"], 1) if maps["raters"] else None
    return Predicted(
        np.stack(maps["mean"]),
        None if samples is None else _masks(samples, layout),
        raters,
        None if raters is None else _masks(raters, layout),
        tuple(map(str, method.data.rater_ids)) if raters is not None else (),
    )


def _check_shape(path: Path, own: Sequence[int], size: tuple[int, int], stretch: bool) -> None:
    ratio = (own[0] / own[1]) / (size[0] / size[1])
    if not stretch and abs(np.log(ratio)) > _ASPECT:
        raise UserError(
            f"{path} has {own[0]}×{own[1]} pixels, but the cell works on {size[0]}×{size[1]}: it would be stretched; "
            f"crop it to that shape, or give --stretch"
        )


def _resized(maps: Floats, size: tuple[int, int]) -> Floats:
    """…×H×W maps at another size, still in [0, 1]."""
    flat = maps.reshape(-1, *maps.shape[-2:])
    return np.clip(resize_image(flat, size), 0, 1).reshape(*maps.shape[:-2], *size)


def _masks(maps: Floats, layout: ClassLayout) -> NDArray[Any]:
    """Masks N×D×[K×]H×W maps are cut into: bool, class numbers, or bool planes N×K×D×H×W of overlapping classes."""
    if layout.kind == "binary":
        return np.asarray(maps > 0.5)
    if layout.kind == "exclusive":
        return np.asarray(maps.argmax(-3).astype(np.uint8))
    return np.asarray(np.moveaxis(maps > 0.5, -3, 1))
