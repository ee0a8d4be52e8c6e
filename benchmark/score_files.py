"""Masks and probability maps of single files, with the grid their header describes."""

from __future__ import annotations

import gzip
import re
import struct
import tokenize
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..datasets.folder_config import COMPARISONS, Foreground
from ..datasets.image_files import lossy, read_picture
from ..datasets.volume_files import by

NIFTI = (".nii", ".nii.gz")
VOLUMES = (*NIFTI, ".npy")
_DAMAGE = (
    OSError, ValueError, EOFError, SyntaxError, struct.error, zlib.error, gzip.BadGzipFile, IndexError, KeyError,
    OverflowError, tokenize.TokenError,
)  # fmt: skip
_SAME = 1e-3  # relative: headers hold float32, and tools round


@dataclass(frozen=True)
class Array:
    """Values of a file, spatial (H×W or D×H×W) or with channels in front, and what its header says of the grid."""

    path: Path
    values: NDArray
    spacing: tuple[float, ...] | None = None
    axes: str = ""  # directions of the NIfTI axes, such as RAS

    def check_same_grid(self, other: Array, dims: int, headers: bool = True) -> None:
        """Raise `UserError` unless both files lie on one grid.

        Args:
            headers: compare spacing and directions too.
        """
        mine, theirs = self.values.shape[-dims:], other.values.shape[-dims:]
        if mine != theirs:
            raise UserError(
                f"{self.path} has {by(mine)} pixels and {other.path} of the same case {by(theirs)}; all files of a "
                f"case must have one size"
            )
        if not (headers and self.axes and other.axes):
            return
        if self.axes != other.axes:
            raise UserError(
                f"{self.path} has axes {self.axes} and {other.path} of the same case {other.axes}: their voxels do not "
                f"lie on each other; store them in one orientation, or give --spacing to take the arrays as they are"
            )
        if self.spacing and other.spacing and not np.allclose(self.spacing, other.spacing, rtol=_SAME, atol=0):
            raise UserError(
                f"{self.path} has spacing {_mm(self.spacing)} mm and {other.path} of the same case "
                f"{_mm(other.spacing)} mm; mend the header, or give --spacing to take the arrays as they are"
            )


def _mm(spacing: tuple[float, ...]) -> str:
    return "×".join(f"{s:g}" for s in spacing)


# -- reading -----------------------------------------------------------------------------------------


def read_array(path: Path, dims: int, labels: bool) -> Array:
    """A mask (`labels`) or a probability map.

    2D: pictures, NIfTI of one slice, npy; 3D: NIfTI and npy, turned to depth × height × width (z, y, x). A probability
    map in npy may have a channel axis in front.

    Raises:
        UserError: damaged, of an unknown kind, of another number of axes, or not finite; colours.
    """
    name = path.name.lower()
    if name.endswith(".npy") and (dims == 3 or not labels):
        return Array(path, _npy(path, dims, labels))
    if dims == 3:
        if not name.endswith(NIFTI):
            raise UserError(f"{path} is no volume; with --spatial-dims 3 the files must be {', '.join(VOLUMES)}")
        return _volume(path)
    picture = read_picture(path, labels=labels)
    values = picture.values
    if values.ndim == 3:
        if not (values == values[..., :1]).all():
            raise UserError(f"{path} is in colour; store one number a pixel")
        values = values[..., 0]
    axes = _header(path)[1] if name.endswith(NIFTI) else ""
    return Array(path, values, picture.spacing, axes)


def _npy(path: Path, dims: int, labels: bool) -> NDArray:
    try:
        with path.open("rb") as stream:
            values: NDArray = np.lib.format.read_array(stream, allow_pickle=False)
    except _DAMAGE as error:
        what = (
            "holds Python objects, which are not read" if "Object arrays" in str(error) else "is damaged or no npy file"
        )
        raise UserError(f"{path} {what}; store a plain array of numbers") from error
    allowed = {dims} if labels else {dims, dims + 1}
    if values.ndim not in allowed:
        give = "depth x height x width" if dims == 3 else "height x width"
        more = "" if labels else ", or channels in front of them"
        raise UserError(f"{path} has shape {by(values.shape)}; give {give}{more}")
    _check_numbers(values, path)
    return values


def _volume(path: Path) -> Array:
    image, axes = _header(path)
    try:
        values = np.asarray(image.dataobj)
        zooms = tuple(float(z) for z in image.header.get_zooms())
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged or not what its name says ({_short(error)}); restore the file") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or values.dtype.fields:
        raise UserError(f"{path} has shape {by(values.shape)} of {values.dtype}; give one volume of numbers a file")
    _check_numbers(values, path)
    spacing = zooms[:3][::-1]
    return Array(path, values.transpose(2, 1, 0), spacing if all(z > 0 for z in spacing) else None, axes)


def _header(path: Path) -> tuple[Any, str]:
    """The opened image and the directions of its axes; no values are read."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
        codes = nibabel.aff2axcodes(image.affine)
    except (ImageFileError, HeaderDataError, *_DAMAGE) as error:
        raise UserError(f"{path} is damaged or not what its name says ({_short(error)}); restore the file") from error
    return image, "".join(code or "?" for code in codes)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _check_numbers(values: NDArray, path: Path) -> None:
    if values.dtype.kind not in "buif":
        raise UserError(f"{path} holds values of type {values.dtype}; only real numbers are read, so store those")
    if not values.size:
        raise UserError(f"{path} has shape {by(values.shape)} and no pixel; restore or remove the file")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path} holds values that are not finite (NaN or infinite); replace them")


# -- meaning -----------------------------------------------------------------------------------------


def foreground_of(text: str | None) -> Foreground:
    """The rule of ``--foreground``: a comparison such as ``> 127``, or foreground values such as ``1,2`` (0 is not).

    Raises:
        UserError: neither.
    """
    if text is None:
        return Foreground()
    comparison = re.fullmatch(r"\s*(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?)\s*", text)
    if comparison:
        return Foreground(test=(comparison.group(1), float(comparison.group(2))))
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        signs = " ".join(COMPARISONS)
        raise UserError(
            f"--foreground {text!r} cannot be read; give a comparison ({signs}) such as '> 127', or values such as 1,2"
        ) from error
    return Foreground(classes=dict.fromkeys(values, 1), background=() if 0.0 in values else (0.0,))


def labels_of(array: Array, foreground: Foreground, class_map: bool) -> NDArray:
    """Booleans of a mask, or the integers of a class map.

    Raises:
        UserError: other values than the rule allows.
    """
    values, path = array.values, array.path
    if class_map:
        if lossy(path):
            raise UserError(f"{path} is a JPEG, which blurs labels; store class maps without loss, as png or nii.gz")
        if values.dtype.kind == "f" and not (values == np.floor(values)).all():
            raise UserError(f"{path} holds fractions; with --classes masks hold whole labels")
        if values.min() < 0:
            raise UserError(f"{path} holds the negative label {values.min():g}; labels are 0 (background) and above")
        return values.astype(np.int64)
    undeclared = foreground.test is None and not foreground.classes and not lossy(path)
    if undeclared and values.dtype.kind != "b":
        found = np.unique(values)
        if not (np.isin(found, (0, 1)).all() or np.isin(found, (0, 255)).all()):
            shown = ", ".join(f"{v:g}" for v in found[:6]) + (", …" if len(found) > 6 else "")
            raise UserError(
                f"{path} holds the values {shown}, but a mask holds 0 and 1, or 0 and 255; give --classes 1,2 for a "
                f"class map, or --foreground '> 127'"
            )
        return values != 0
    return foreground.apply(values, path).astype(bool)


def probabilities_of(array: Array) -> tuple[NDArray, bool | None]:
    """Probabilities in [0, 1]: floats as they are, whole numbers divided by the largest of their type (255, 65535).

    Returns:
        The map, and whether its whole numbers are all 0 or 1 with a 1 among them, which hard masks would be: None if
        there is nothing to tell (floats, or all 0).

    Raises:
        UserError: outside [0, 1], or whole numbers of a type that pictures do not have.
    """
    values, path = array.values, array.path
    if values.dtype.kind == "b":
        return values.astype(np.float64), None
    if values.dtype.kind == "f":
        low, high = values.min(), values.max()
        if low < 0 or high > 1:
            raise UserError(f"{path} holds values from {low:g} to {high:g}; give probabilities between 0 and 1")
        return values if values.dtype.itemsize >= 4 else values.astype(np.float32), None
    if values.dtype not in (np.uint8, np.uint16):
        raise UserError(
            f"{path} holds whole numbers of type {values.dtype}; give probabilities as floats, or as 8- or 16-bit "
            f"pictures, where 255 or 65535 is 1"
        )
    high = int(values.max())
    return values / np.float64(np.iinfo(values.dtype).max), None if high == 0 else high == 1
