"""Reading 3D NIfTI files slice by slice: the header is checked before any value is read.

Orientation. A file stores its axes in any order and direction, and its affine says which is which. `Layout` turns them
to the order (slice, row, column) that is closest to LPS+, the coordinates of DICOM: slices from feet to head, rows
from front to back, columns from the patient's right to left, so that a slice looks as on a radiologist's screen. (RAS+,
nibabel's canonical order, is the same with rows and columns reversed.) Nothing is resampled: an oblique volume keeps
its own grid, and a slice is a plane of stored voxels.
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError, brief

SUFFIXES = (".nii", ".nii.gz")
MAX_VOXELS = 1 << 30
_DEFLATE = 1100  # gzip cannot shrink further than 1032 to 1
_CLOSE = 1e-3  # a scaled label may miss its code by the rounding of slope and intercept (seen in CURVAS)

# What nibabel mends in a header it tells on stderr; a file that cannot be read is told in one sentence below.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)

_DAMAGE = (OSError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True)
class Layout:
    """Stored axes that become slice, row and column, and which of them run backwards."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


@dataclass(frozen=True)
class Volume:
    """A NIfTI file by its header; its values stay on disk.

    Attributes:
        stored: the shape as stored, three axes or more; axes of length 1 after the third are left out.
        affine: 4×4, voxel to mm (RAS+).
        dtype: of the stored values, before slope and intercept.
    """

    path: Path
    stored: tuple[int, ...]
    affine: np.ndarray = field(compare=False)
    dtype: np.dtype

    @property
    def layout(self) -> Layout:
        """The layout that the affine asks for."""
        from nibabel.orientations import io_orientation

        order = io_orientation(self.affine)
        if not np.isfinite(order).all():
            raise UserError(f"{self.path} has an affine that leaves an axis without direction; mend its header")
        axes = [int(np.flatnonzero(order[:, 0] == world)[0]) for world in (2, 1, 0)]
        wanted = (1, -1, -1)  # feet to head; front to back is against A, right to left against R
        flips = [bool(order[axis, 1] != sign) for axis, sign in zip(axes, wanted, strict=True)]
        return Layout((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def shape(self, layout: Layout) -> tuple[int, int, int]:
        d, h, w = (self.stored[axis] for axis in layout.axes)
        return d, h, w

    def spacing(self, layout: Layout) -> tuple[float, float, float] | None:
        """mm between slices, rows and columns; None if the header gives none."""
        size = np.sqrt((self.affine[:3, :3] ** 2).sum(0))
        d, h, w = (float(size[axis]) for axis in layout.axes)
        return (d, h, w) if min(d, h, w) > 0 else None

    def array(self) -> np.ndarray:
        """All values with their scaling, in the stored order of axes.

        Raises:
            UserError: the file is damaged or holds values that are not finite.
        """
        with naming_file(self.path):
            values = np.asarray(_load(self.path).dataobj).reshape(self.stored)
        check_finite(values, self.path)
        return values

    def planes(self, layout: Layout) -> Iterator[tuple[int, np.ndarray]]:
        """Index and values H×W of every slice, with scaling, in the order in which they lie in the file.

        A file whose slices lie one after another is read one slice at a time, in one pass also if it is compressed;
        another is held in memory as stored.

        Raises:
            UserError: the file is damaged or holds values that are not finite.
        """
        if len(self.stored) != 3:
            raise UserError(f"{self.path} has shape {by(self.stored)}; only volumes of three axes are read")
        slices, rows, columns = layout.axes
        depth = self.stored[slices]
        slow = all(self.stored[axis] == 1 for axis in range(slices + 1, 3))
        with naming_file(self.path):
            proxy: Any = _load(self.path).dataobj
            whole = None if slow else np.asarray(proxy.get_unscaled()).reshape(self.stored)
            cut: list[Any] = [slice(None)] * 3 + [0] * (len(proxy.shape) - 3)
            for index in range(depth):
                if whole is None:
                    cut[slices] = index
                    plane = np.asarray(proxy[tuple(cut[: len(proxy.shape)])])
                    plane = plane.reshape([self.stored[axis] for axis in sorted((rows, columns))])
                else:
                    plane = np.take(whole, index, axis=slices)
                    if (proxy.slope, proxy.inter) != (1, 0):
                        plane = plane * float(proxy.slope) + float(proxy.inter)
                if rows > columns:
                    plane = plane.T
                plane = plane[:: -1 if layout.flips[1] else 1, :: -1 if layout.flips[2] else 1]
                check_finite(plane, self.path)
                yield depth - 1 - index if layout.flips[0] else index, plane


def open_volume(path: Path, axes: int = 3, max_voxels: int = MAX_VOXELS) -> Volume:
    """The checked header of a file; a file of fewer than `axes` axes gets axes of length 1 at the end.

    Raises:
        UserError: no NIfTI, damaged, more axes or voxels than allowed, values that are no real numbers, more voxels
            than the file has room for.
    """
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(f"{path} is of an unknown kind; allowed are {', '.join(SUFFIXES)}")
    with naming_file(path):
        image = _load(path)
        shape = tuple(int(n) for n in image.shape)
        dtype, affine = image.header.get_data_dtype(), np.asarray(image.affine, dtype=np.float64)
        size, start = path.stat().st_size, int(image.dataobj.offset)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > axes:
        raise UserError(f"{path} has shape {by(shape)}, but {axes} axes are expected; give one volume a file")
    voxels = math.prod(shape)
    if not shape or min(shape) < 1 or voxels > max_voxels:
        raise UserError(
            f"{path} announces shape {by(shape) or '()'}; volumes of 1 to {max_voxels} voxels are read, so restore the "
            f"file"
        )
    if dtype.kind not in "biuf":
        raise UserError(f"{path} holds values of type {dtype}; only real numbers are read, so store those")
    room = size * _DEFLATE if path.name.lower().endswith(".gz") else size - start
    if voxels * dtype.itemsize > room:
        raise UserError(f"{path} is cut short: it announces {by(shape)} voxels of {dtype} in {size} bytes; restore it")
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise UserError(f"{path} has an affine that is not finite; mend its header")
    return Volume(path, shape + (1,) * (axes - len(shape)), affine, dtype)


def match_layout(mask: Volume, image: Volume, layout: Layout) -> tuple[Layout, bool]:
    """How to read a mask so that its voxels lie on those of its image, and whether its header disagrees.

    A mask that fills the same box in space is read by its own affine, whatever the order of its axes. One of the same
    stored shape but another box (a wrong spacing or origin in the header) is matched voxel by voxel: that it was drawn
    on this image is sure, that its header is right is not.

    Args:
        layout: how the image is read.

    Raises:
        UserError: the mask fits neither way.
    """
    own = mask.layout
    if mask.shape(own) == image.shape(layout) and np.allclose(
        _corners(mask, own), _corners(image, layout), atol=0.5 * min(image.spacing(layout) or (1.0,))
    ):
        return own, False
    if mask.stored == image.stored:
        return layout, True
    raise UserError(
        f"{mask.path} has {by(mask.stored)} voxels, but its image {image.path} has {by(image.stored)}; a mask must "
        f"have the grid of its image"
    )


def codes(values: np.ndarray, classes: Mapping[int, int], path: Path) -> np.ndarray:
    """uint8 class indices of stored codes; near-integers of a scaled file are rounded.

    Args:
        classes: class index of each code that may occur.

    Raises:
        UserError: a value that is no code, with the file and the values allowed.
    """
    table = np.full(256, 255, np.uint8)
    table[list(classes)] = list(classes.values())
    if values.dtype in (np.uint8, np.bool_):
        found = table[values.astype(np.uint8, copy=False)]
        wrong = found == 255
    else:
        whole = np.rint(values) if values.dtype.kind == "f" else values
        wrong = ~((whole >= 0) & (whole <= 255))  # NaN too
        found = table[np.where(wrong, 0, whole).astype(np.uint8)]
        wrong |= found == 255
        if values.dtype.kind == "f":
            wrong |= np.abs(values - whole) > _CLOSE
    if wrong.any():
        allowed = ", ".join(map(str, sorted(classes)))
        raise UserError(f"{path} holds the value {values[wrong][0]:g}; a mask of this data set holds only {allowed}")
    return found


def check_finite(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite (NaN or infinite); replace them")


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn what a reader raises on a damaged file into one sentence with its name."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; restore it") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory; store a smaller volume") from error
    except (*_DAMAGE, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise UserError(f"{path} is damaged or not what its name says ({brief(error)}); restore the file") from error


def _load(path: Path) -> Any:
    import nibabel

    if not path.is_file():
        raise FileNotFoundError(path) if not path.exists() else ValueError("no regular file")
    # The file stays open: reopened for every slice, a compressed one would be unpacked from its start each time.
    image: Any = nibabel.load(path, keep_file_open=True)
    if not isinstance(image, nibabel.Nifti1Image):
        raise ValueError(f"a {type(image).__name__}, not NIfTI")
    return image


def _corners(volume: Volume, layout: Layout) -> np.ndarray:
    """Positions in mm of the first and the last voxel as read, and the steps along slice, row and column."""
    ends = np.zeros((2, 4))
    ends[:, 3] = 1
    steps = []
    for axis, flip in zip(layout.axes, layout.flips, strict=True):
        last = volume.stored[axis] - 1
        ends[:, axis] = (last, 0) if flip else (0, last)
        steps.append(volume.affine[:3, axis] * (-1 if flip else 1) * last)
    return np.concatenate([ends @ volume.affine.T[:, :3], steps])


def same_size(mask: Path, found: Sequence[int], image: Path, wanted: Sequence[int]) -> None:
    """Refuse a mask of `found` pixels for an image of `wanted`.

    Raises:
        UserError: the two differ.
    """
    if tuple(found) != tuple(wanted):
        raise UserError(
            f"{mask} has {by(found)} pixels, but its image {image} has {by(wanted)}; a mask must have the size of its "
            f"image"
        )


def by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
