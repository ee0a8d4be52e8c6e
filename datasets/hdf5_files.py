"""Opening HDF5 files of unknown origin: nothing but what lies in the file itself, nothing larger than it says.

HDF5 can point out of a file (external links, external storage, virtual data sets), load filter plug-ins, and announce
arrays that it does not hold. Every array is opened here, where all of that is refused before a value is read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError, brief
from .volume_files import by

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_CHUNK_BYTES = 64 << 20  # a chunk is unpacked whole
_CACHE_BYTES = 2 * _CHUNK_BYTES
_STRING_BYTES = 64 << 20  # of one array of strings
_STRINGS_AT_ONCE = 16  # variable-length strings may all refer to one long one
_ROWS = 1 << 22
_LARGE, _RATIO = 1 << 30, 100  # above so many bytes, images that shrink more than this are no images
_DAMAGE = (
    OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, NotImplementedError, UnicodeError,
    MemoryError,
)  # fmt: skip


class SafeFile:
    """An HDF5 file that is only read; a context manager.

    Raises:
        UserError: no regular file, not HDF5, damaged.
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            raise UserError(f"{path} {what}; give the HDF5 file itself")
        with self.naming():
            self.file = h5py.File(path, "r", locking=False, rdcc_nbytes=_CACHE_BYTES)

    def __enter__(self) -> SafeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(*_DAMAGE):
            self.file.close()

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Turn what HDF5 raises on a damaged file into one sentence with its name."""
        try:
            yield
        except PermissionError as error:
            raise UserError(f"{self.path} cannot be read: permission denied") from error
        except _DAMAGE as error:
            raise UserError(f"{self.path} is damaged or not HDF5 ({brief(error)}); restore the file") from error

    def names(self) -> list[str]:
        """Names in the root group, none of them followed."""
        with self.naming():
            return sorted(self.file)

    def array(self, name: str) -> Any:
        """The h5py data set of that name.

        Raises:
            UserError: missing; a link, a group, or a data set whose values lie elsewhere; a filter that HDF5 would have
                to load; chunks that do not fit into memory; values that are announced but not stored.
        """
        import h5py

        with self.naming():
            link = self.file.get(name, getlink=True)
            if link is None:
                raise UserError(f"{self.path} lacks the data set {name!r}; docs/generic.md lists what it needs")
            if type(link) is not h5py.HardLink:
                raise UserError(
                    f"{self.path}: {name!r} is a {type(link).__name__}, which may lead to another file; links are not "
                    f"followed, so store the data itself"
                )
            found = h5py.h5o.open(self.file.id, name.encode())
            if not isinstance(found, h5py.h5d.DatasetID):
                raise UserError(f"{self.path}: {name!r} is a group; store a data set of that name")
            # Asked before the shape: for a virtual data set HDF5 opens other files to tell it.
            plan = found.get_create_plist()
            if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
                raise UserError(f"{self.path}: the values of {name!r} lie in other files; store them in this one")
            for i in range(plan.get_nfilters()):
                code = plan.get_filter(i)[0]
                if code not in _FILTERS:
                    raise UserError(
                        f"{self.path}: {name!r} is packed by filter {code}; only {', '.join(_FILTERS.values())} are "
                        f"read, so write it with one of them"
                    )
            array = h5py.Dataset(found)
            self._check_extent(array, name)
            return array

    def _check_extent(self, array: Any, name: str) -> None:
        if array.shape is None or not array.size:
            raise UserError(f"{self.path}: {name!r} is empty; store at least one case")
        total, stored = int(array.size) * array.dtype.itemsize, array.id.get_storage_size()
        chunks = array.chunks
        if chunks is None:
            missing = stored < total
        else:
            if math.prod(chunks) * array.dtype.itemsize > _CHUNK_BYTES:
                raise UserError(
                    f"{self.path}: the chunks of {name!r}, {by(chunks)} values, have more than {_CHUNK_BYTES >> 20} "
                    f"MiB; write it with one case a chunk"
                )
            expected = math.prod(-(-n // c) for n, c in zip(array.shape, chunks, strict=True))
            missing = array.id.get_num_chunks() < expected
        if missing:
            raise UserError(
                f"{self.path}: {name!r} announces {by(array.shape)} values, but not all of them are in the file; write "
                f"it again"
            )
        if total > _LARGE and name.rpartition("/")[2] == "images" and total > _RATIO * stored:
            raise UserError(
                f"{self.path}: {name!r} announces {total >> 20} MiB and stores {stored >> 20}; no images shrink so much"
            )

    def strings(self, name: str) -> list[str]:
        """A one-dimensional array of strings; each printable, none empty."""
        import h5py

        array = self.array(name)
        kind = h5py.check_string_dtype(array.dtype)
        if kind is None or array.ndim != 1:
            raise UserError(
                f"{self.path}: {name!r} has shape {by(array.shape)} of {array.dtype}; store a list of strings"
            )
        if len(array) > _ROWS or (kind.length or 0) * len(array) > _STRING_BYTES:
            raise UserError(f"{self.path}: {name!r} has {len(array)} strings of {kind.length} bytes, which is too much")
        found: list[bytes] = []
        size = 0
        step = len(array) if kind.length else _STRINGS_AT_ONCE
        for start in range(0, len(array), step):
            with self.naming():
                block = array[start : start + step].tolist()
            size += sum(map(len, block))
            if size > _STRING_BYTES:
                raise UserError(f"{self.path}: the strings of {name!r} have more than {_STRING_BYTES >> 20} MiB")
            found += block
        return [self._text(value, name, i) for i, value in enumerate(found)]

    def _text(self, value: bytes, name: str, row: int) -> str:
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: {name!r} has {value[:40]!r} in row {row}, which is not UTF-8") from error
        if name not in OPTIONAL_TEXT and not text:
            raise UserError(f"{self.path}: {name!r} is empty in row {row}; give every row a value")
        if not text.isprintable() or len(text) > 255:
            raise UserError(
                f"{self.path}: {name!r} has {text[:40]!r} in row {row}; ids have up to 255 printable characters"
            )
        return text

    def numbers(self, name: str, kinds: str, shape: tuple[int, ...]) -> np.ndarray:
        """A small array, read whole.

        Args:
            kinds: letters of `numpy.dtype.kind` that are allowed.
            shape: that it must have.
        """
        array = self.array(name)
        if array.shape != shape or array.dtype.kind not in kinds:
            raise UserError(
                f"{self.path}: {name!r} has shape {by(array.shape)} of {array.dtype}; with this many cases and raters "
                f"it must be {by(shape)} of {'bool or uint8' if 'b' in kinds else 'numbers'}"
            )
        with self.naming():
            values: np.ndarray = array[...]
        return values

    def attribute(self, name: str) -> Any:
        """A text, a list of texts or an array of numbers; None if there is none.

        Raises:
            UserError: another type (such as a reference), or more than 1024 entries.
        """
        import h5py

        with self.naming():
            if name not in self.file.attrs:
                return None
            found = self.file.attrs.get_id(name)
            text = h5py.check_string_dtype(found.dtype)
            size = math.prod(found.shape)
            if (text is None and found.dtype.kind not in "biuf") or size > 1024 or len(found.shape) > 1 or not size:
                raise UserError(
                    f"{self.path}: attribute {name!r} is {by(found.shape) or 'a scalar'} of {found.dtype}; store text "
                    f"or numbers"
                )
            value = self.file.attrs[name]
            if text is None:
                return np.asarray(value)
            texts = [v.decode() if isinstance(v, bytes) else str(v) for v in np.atleast_1d(value)]
            return texts if found.shape else texts[0]


OPTIONAL_TEXT = ("part", "volume")  # may be empty: in no part, of no volume
