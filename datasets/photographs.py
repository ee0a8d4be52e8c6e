"""What the loaders of large photographs share: shrinking while still in bytes, files in folders or zip archives."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..core.errors import UserError, brief
from .image_files import (
    SizeOption,
    distinct,
    read_picture,
    read_picture_bytes,
    resize_labels,
    target_size,
    to_channels,
    two_valued,
)
from .patterns import files_below
from .volume_files import same_size

MEMBER_BYTES = 1 << 27  # of a file in an archive, unpacked


@dataclass(frozen=True)
class Source:
    """A file on disk, or a member of an archive that is read where it lies and never unpacked to disk."""

    path: Path
    member: str = ""

    @property
    def shown(self) -> Path:
        return self.path / self.member if self.member else self.path

    def values(self, labels: bool = False) -> np.ndarray:
        """As `read_picture`.

        Raises:
            UserError: damaged, or more than `MEMBER_BYTES`.
        """
        if not self.member:
            return read_picture(self.path, labels).values
        with _naming(self.path):
            archive = _archive(self.path)
            if archive.getinfo(self.member).file_size > MEMBER_BYTES:
                raise UserError(f"{self.shown} unpacks to more than {MEMBER_BYTES >> 20} MiB; no picture here does")
            with archive.open(self.member) as stream:
                content = stream.read(MEMBER_BYTES + 1)  # the announced size may lie
        if len(content) > MEMBER_BYTES:
            raise UserError(f"{self.shown} unpacks to more than {MEMBER_BYTES >> 20} MiB; no picture here does")
        return read_picture_bytes(content, self.shown, labels).values


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, KeyError, zlib.error) as error:
        raise UserError(f"{path} is damaged or cannot be unpacked ({brief(error)}); get it again") from error


def _archive(path: Path) -> zipfile.ZipFile:
    """An open archive; its list of members, thousands, is read once as long as the file stays the same."""
    status = path.stat()
    return _opened(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _opened(path: Path, size: int, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def sources_below(root: Path, archives: Sequence[str] = ()) -> list[tuple[str, Source]]:
    """Relative name and source of every file below `root`, and of every file in the named archives.

    A file that lies there unpacked too is listed once, as the file.
    """
    found = {name: Source(root / name) for name in files_below(root)}
    for name in [n for n in found if n.rpartition("/")[2].casefold() in {a.casefold() for a in archives}]:
        with _naming(root / name):
            members = [info.filename for info in _archive(root / name).infolist() if not info.is_dir()]
        if len(set(members)) < len(members):
            raise UserError(f"{root / name} holds a file twice; get it again")
        for member in members:
            if not any(level.startswith((".", "__MACOSX")) for level in member.split("/")):
                found.setdefault(member, Source(root / name, member))
    return sorted(found.items())


def read_colour(source: Source, size: SizeOption) -> tuple[np.ndarray, tuple[int, int]]:
    """3×size float32 in [0, 1], linear with antialiasing, and the stored (height, width).

    A photograph is shrunk as bytes: a slide of 5,000 pixels a side takes 80 MB so, and 300 MB as floats.
    """
    from PIL import Image

    values = source.values()
    if values.dtype != np.uint8:
        raise UserError(f"{source.shown} holds values of {values.dtype}; expected is an 8-bit photograph")
    native = (values.shape[0], values.shape[1])
    height, width = target_size(size, native)
    if (height, width) != native:
        values = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
    return to_channels(values.astype(np.float32) / np.float32(255), "rgb"), native


def read_mask(source: Source, native: tuple[int, int], image: Source) -> np.ndarray:
    """Values H×W of a mask that has the size of its image."""
    values = source.values(labels=True)
    same_size(source.shown, values.shape, image.shown, native)
    return values


def binary(values: np.ndarray, source: Source) -> np.ndarray:
    """{0,1} of a mask that holds 0 and 1, or 0 and 255.

    Raises:
        UserError: other values, which are named.
    """
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    found = distinct(values)
    if not two_valued(found):
        shown = ", ".join(f"{float(v):g}" for v in found[:8]) + (", …" if len(found) > 8 else "")
        raise UserError(f"{source.shown} holds the values {shown}; a mask holds 0 and 1, or 0 and 255")
    return (values != 0).astype(np.uint8)


def shrunk(labels: np.ndarray, size: SizeOption) -> np.ndarray:
    return resize_labels(labels, target_size(size, labels.shape[-2:]))
