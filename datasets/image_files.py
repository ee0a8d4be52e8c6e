"""Reading 2D pictures and masks: png, tif, jpg, gif, bmp, ppm (Pillow), nii and nii.gz (nibabel), npy (no pickle)."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import threading
import tokenize
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..core.errors import UserError, brief
from .volume_files import by

PILLOW = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".gif", ".bmp", ".ppm", ".pgm", ".pbm")
JPEG = (".jpg", ".jpeg")
SUFFIXES = (*PILLOW, ".nii", ".nii.gz", ".npy")

SizeOption = int | Sequence[int] | None  # ``dataset.size``

# Pillow warns of what it skips in damaged files; one that cannot be read is told in one sentence below.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

# What the readers raise on files that are cut short or not what their name says.
_DAMAGE = (
    OSError, ValueError, EOFError, SyntaxError, struct.error, zlib.error, IndexError, KeyError, OverflowError,
    tokenize.TokenError,
)  # fmt: skip

# The header of an npy file is a Python literal. Python 3.11 counts for all threads together how deep one is nested: of
# two threads that parse at once, one may end with a SystemError.
_PARSING = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """Values as stored, H×W or H×W×C (no alpha), and pixel spacing (row, column) in mm if the file has one."""

    values: np.ndarray
    spacing: tuple[float, float] | None = None


def lossy(path: Path) -> bool:
    """Whether the kind of file blurs values, by its suffix; a mask in such a file is cut, not read as it is."""
    return path.suffix.lower() in JPEG


def read_picture(path: Path, labels: bool = False) -> Picture:
    """One picture, or one mask if `labels`.

    Palette files give colours as pictures and their palette indices as masks. NIfTI arrays (x, y) are turned to (row,
    column). An alpha channel is dropped. The EXIF orientation is applied, so that rows and columns are those that a
    viewer shows: an image from a camera and the mask that was drawn on its display agree.

    Raises:
        UserError: unknown kind of file, damaged, several frames or slices, values that are no real finite numbers, no
            pixels, a colour mask.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise UserError(f"{path} is of an unknown kind; allowed are {', '.join(SUFFIXES)}")
    with _naming(path):
        if name.endswith(PILLOW):
            with path.open("rb") as stream:
                picture = _read_pillow(stream, path, labels)
        elif name.endswith(".npy"):
            picture = Picture(_single_slice(_read_npy(path), path))
        else:
            picture = _read_nifti(path)
    _check_numbers(picture.values, path)
    return Picture(_one_channel(picture.values, path), picture.spacing) if labels else picture


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what the readers raise on a damaged file into one sentence with its name."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; restore it") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied") from error
    except MemoryError as error:
        raise UserError(
            f"{path} does not fit into memory, or announces more than it holds; restore the file"
        ) from error
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged or not what its name says ({brief(error)}); restore the file") from error


def read_picture_bytes(content: bytes, path: Path, labels: bool = False) -> Picture:
    """As `read_picture`, of a picture that was unpacked into memory; `path` names it in messages."""
    with _naming(path):
        picture = _read_pillow(io.BytesIO(content), path, labels)
    _check_numbers(picture.values, path)
    return Picture(_one_channel(picture.values, path), picture.spacing) if labels else picture


def read_array(path: Path) -> np.ndarray:
    """The array of an npy file, of any shape; nothing in it is unpickled.

    Raises:
        UserError: missing, damaged, values that are no real finite numbers.
    """
    with _naming(path):
        return _read_npy(path)


def _read_npy(path: Path) -> np.ndarray:
    """The array of an npy file. `np.load` would also open zip archives and pickles, whatever the suffix says."""
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        with _PARSING:
            shape, _, dtype = read(stream)
        announced, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - stream.tell()
        if min(shape, default=1) < 0 or (announced > there and not dtype.hasobject):
            raise ValueError(f"it announces {announced} bytes and holds {there}")
        stream.seek(0)
        with _PARSING:
            values = np.lib.format.read_array(stream, allow_pickle=False)
    _check_numbers(values, path)  # before the shape is judged: what is no number has no channels
    return values


def _check_numbers(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of type {values.dtype}; only real numbers are read, so store those")
    if not values.size:
        raise UserError(f"{path} has shape {by(values.shape)} and no pixel; restore or remove the file")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite (NaN or infinite); replace them")


def _read_pillow(stream: IO[bytes], path: Path, labels: bool) -> Picture:
    from PIL import Image, ImageOps

    try:
        # From a stream: given a path, Pillow maps an uncompressed tif that is to be turned with its sides swapped, and
        # the rows are scrambled (seen in 13.0).
        with Image.open(stream) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise UserError(f"{path} holds {frames} frames; only single pictures are read, so store one a file")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("P", "PA"):
                values = np.asarray(image) if labels else np.asarray(image.convert("RGB"))
                return Picture(values[..., 0] if labels and values.ndim == 3 else values)
            if image.mode in ("LA", "La"):
                return Picture(np.asarray(image)[..., 0])
            if image.mode in ("RGBA", "RGBX", "RGBa"):
                return Picture(np.asarray(image)[..., :3])
            if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
                return Picture(np.asarray(image.convert("RGB")))
            return Picture(np.asarray(image))
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large to read safely ({error}); store a smaller picture") from error


def _read_nifti(path: Path) -> Picture:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj)
        zooms = [float(z) for z in image.header.get_zooms()]
    except (ImageFileError, HeaderDataError) as error:
        raise ValueError(str(error)) from error
    long = [i for i, n in enumerate(values.shape) if n > 1]
    short = [i for i, n in enumerate(values.shape) if n == 1]
    axes = sorted((long + short)[:2])
    if len(long) > 2 or len(axes) < 2 or values.dtype.fields:
        raise UserError(
            f"{path} has shape {by(values.shape)} of {values.dtype}: only 2D files and single slices "
            f"of numbers are read; cut a volume into slices and give them one {{patient}}"
        )
    spacing = (zooms[axes[1]], zooms[axes[0]])
    return Picture(values.reshape([values.shape[i] for i in axes]).T, spacing if all(z > 0 for z in spacing) else None)


def _single_slice(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (1, 3)):
        return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    raise UserError(
        f"{path} has shape {by(values.shape)}: an npy file must be H×W, or H×W×3 for colour; store it in that shape"
    )


def _one_channel(values: np.ndarray, path: Path) -> np.ndarray:
    if values.ndim == 2:
        return values
    if (values == values[..., :1]).all():
        return values[..., 0]
    raise UserError(f"{path} is a mask in colour; store one number a pixel (grey, palette or 1-bit)")


def distinct(values: np.ndarray) -> np.ndarray:
    """The values that occur, ascending."""
    if values.dtype == np.uint8:  # twenty times faster than sorting
        return np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    return np.unique(values)


def two_valued(found: np.ndarray) -> bool:
    """Whether the values that occur in a mask say by themselves what is foreground: 0 and 1, or 0 and 255."""
    return bool(np.isin(found, [0, 1]).all() or np.isin(found, [0, 255]).all())


def to_channels(values: np.ndarray, channels: str) -> np.ndarray:
    """C×H×W of a float32 picture, H×W or H×W×3.

    ``grey`` is one channel, the ITU-R 601 luminance of a colour picture; ``rgb`` three; ``as_stored`` what the file
    has.
    """
    if values.ndim == 2:
        return np.repeat(values[None], 3 if channels == "rgb" else 1, axis=0)
    if channels != "grey":
        return np.moveaxis(values, 2, 0)
    if (values == values[..., :1]).all():  # grey kept as colour stays as it is, to the last bit
        return values[None, ..., 0]
    return (values @ np.array([0.299, 0.587, 0.114], np.float32))[None]


def unit_window(values: np.ndarray) -> tuple[float, float]:
    """The grey values that `to_unit_range` makes 0 and 1 where no window is given."""
    if values.dtype in (np.bool_, np.uint8):
        return 0.0, 1.0 if values.dtype == np.bool_ else 255.0
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def to_unit_range(values: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Float32 in [0, 1] with the shape of `values`.

    With a `window` (low, high) linear between them and clipped. Else 1-bit as 0 and 1, 8-bit divided by 255, and all
    other types (16-bit, float) linear from the 0.5th to the 99.5th percentile of the picture, clipped; a constant one
    is 0. The values must be finite, as `read_picture` sees to.
    """
    if window is None and values.dtype == np.bool_:
        return values.astype(np.float32)
    if window is None and values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    low, high = window or unit_window(values)
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)


def target_size(size: SizeOption, native: Sequence[int]) -> tuple[int, int]:
    """Height and width that ``dataset.size`` asks for; None: the native ones."""
    if size is None:
        return native[0], native[1]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """C×H×W float32 to C×size, linear with antialiasing (the filter widens when shrinking)."""
    from PIL import Image

    if image.shape[1:] == size:
        return image
    height, width = size
    return np.stack(
        [np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BILINEAR)) for c in image]
    ).astype(np.float32)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """...×H×W labels to ...×size by the nearest pixel centre: no value that was not there."""
    rows, columns = (
        ((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[..., rows[:, None], columns]
