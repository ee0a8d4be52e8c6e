"""What a pickle may hold for `safe_pickle`: names of the allow-list, byte strings left in the file, stored arrays."""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError

ARRAY_BYTES = 1 << 30  # of one array, decoded
MAX_DIMS = 8
SMALL_ITEM = 4096  # bytes of a scalar

# Numbers, and the fixed strings of NumPy scalars; not O (Python objects), V (records), M and m.
_DTYPE = re.compile(r"(?:[biufcSU]\d{1,4}|\?)")


class Damaged(ValueError):
    """The stream is no pickle of the kind that is read; the message says where it leaves it."""


class Name(Enum):
    """The only globals that are known. They are marks: nothing is imported and nothing is called by name."""

    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    RECONSTRUCT = "numpy.core.multiarray._reconstruct"
    SCALAR = "numpy.core.multiarray.scalar"
    FROMBUFFER = "numpy.core.numeric._frombuffer"
    ENCODE = "_codecs.encode"
    ORDERED = "collections.OrderedDict"


ALLOWED = {name.value: name for name in Name} | {
    name.value.replace("numpy.core.", "numpy._core."): name for name in Name if "core" in name.value
}


@dataclass(frozen=True, slots=True)
class Span:
    """A long string that stays in the file: where it lies and how it is written.

    Attributes:
        form: ``raw``, ``utf-8``, ``unicode-escape`` (a line of protocol 0) or ``escape`` (a quoted line of Python 2).
        text: True while it is a str; `_codecs.encode` makes it bytes.
    """

    start: int
    length: int
    form: str = "raw"
    text: bool = False

    def encoded(self) -> Span:
        return Span(self.start, self.length, self.form)

    def may_hold(self, size: int) -> bool:
        """Whether it can decode to `size` bytes: checked before anything is read."""
        longest = {"raw": 1, "utf-8": 2, "unicode-escape": 6, "escape": 4}[self.form]
        return size <= self.length <= longest * size + 2

    def read(self, path: Path) -> bytes:
        with path.open("rb") as stream:
            stream.seek(self.start)
            found = stream.read(self.length)
        if len(found) != self.length:
            raise ValueError("cut short")
        if self.form == "raw":
            return found
        if self.form == "utf-8":
            return found.decode("utf-8").encode("latin-1")
        if self.form == "unicode-escape":
            return codecs.decode(found, "raw-unicode-escape").encode("latin-1")
        return unquote(found)


def unquote(line: bytes) -> bytes:
    """The bytes of a quoted string as protocol 0 of Python 2 writes them."""
    if len(line) < 2 or line[:1] not in (b"'", b'"') or line[-1:] != line[:1]:
        raise Damaged("a string without its quotes")
    return codecs.escape_decode(line[1:-1])[0]


class StoredType:
    """A dtype under construction: kind and size, then the byte order."""

    __slots__ = ("_order", "code")

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise Damaged(f"an array of dtype {shown(code)}; only numbers are read, never Python objects or records")
        self.code = code
        self._order = "="

    def set_state(self, state: Any) -> None:
        """NumPy's ``(version, byte order, subarray, names, fields, size, alignment, flags, ...)``."""
        if not isinstance(state, tuple) or not 4 <= len(state) <= 9 or state[1] not in ("<", ">", "|", "="):
            raise Damaged("a dtype with an unknown state")
        if any(part is not None for part in state[2:5]):
            raise Damaged("a dtype with fields or subarrays; only numbers are read")
        self._order = state[1]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder("=" if self._order == "|" else self._order)  # type: ignore[arg-type]


class StoredArray:
    """An array whose values stay in the file until `read`.

    Attributes:
        path: the pickle.
        shape, dtype: as declared; checked against the length of the stored bytes.
    """

    __slots__ = ("_axes", "_data", "_order", "dtype", "path", "shape")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype | None = None
        self._data: Any = None
        self._order = "C"
        self._axes: tuple[int, ...] | None = None

    def set_state(self, state: Any) -> None:
        """NumPy's ``(version, shape, dtype, is Fortran, bytes)``."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[3], (bool, int)):
            raise Damaged("an array with an unknown state")
        self.fill(state[4], state[2], state[1], "F" if state[3] else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> None:
        if self.dtype is not None:
            raise Damaged("an array that is filled twice")
        if not isinstance(kind, StoredType):
            raise Damaged("an array without a dtype")
        if not isinstance(shape, tuple) or len(shape) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
            raise Damaged(f"an array of shape {shown(shape)}")
        if order not in ("C", "F", "K"):
            raise Damaged(f"an array in order {shown(order)}")
        if axes is not None and (not isinstance(axes, tuple) or sorted(map(_index, axes)) != list(range(len(shape)))):
            raise Damaged(f"an array with axes {shown(axes)}")
        dtype = kind.dtype
        size = math.prod(shape) * dtype.itemsize
        if size > ARRAY_BYTES:
            raise Damaged(f"an array of shape {shown(shape)} and {dtype}, more than {ARRAY_BYTES >> 20} MiB")
        if isinstance(data, str):  # a string of Python 2
            data = data.encode("latin-1")
        fits = data.may_hold(size) if isinstance(data, Span) else isinstance(data, bytes) and len(data) == size
        if not fits or (isinstance(data, Span) and data.text):
            raise Damaged(f"an array of shape {shown(shape)} and {dtype} whose bytes do not fill it")
        self.shape, self.dtype = shape, dtype
        self._data, self._order, self._axes = data, order, axes

    def read(self) -> np.ndarray:
        """The array, in the machine's byte order.

        Raises:
            UserError: the bytes are damaged.
        """
        if self.dtype is None:
            raise UserError(f"{self.path} is damaged: it holds an array that is declared and never filled")
        try:
            data = self._data.read(self.path) if isinstance(self._data, Span) else self._data
            flat = np.frombuffer(data, self.dtype)
            values = flat.reshape(self.shape, order="F" if self._order == "F" else "C")
        except (OSError, ValueError) as error:  # UnicodeError and Damaged are ValueErrors
            raise UserError(f"{self.path} is damaged: an array of shape {shown(self.shape)} cannot be read") from error
        if self._axes is not None:
            values = values.transpose(self._axes)
        return values.astype(self.dtype.newbyteorder("="), copy=False)


def scalar(kind: Any, data: Any) -> Any:
    """A NumPy scalar as a Python value."""
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(kind, StoredType) or not isinstance(data, bytes):
        raise Damaged("a NumPy scalar without its dtype or bytes")
    if len(data) != kind.dtype.itemsize or len(data) > SMALL_ITEM:
        raise Damaged("a NumPy scalar whose bytes do not fill it")
    return np.frombuffer(data, kind.dtype)[0].item()


def shown(value: Any) -> str:
    """`value` for a message: one line, short whatever a file holds."""
    if isinstance(value, tuple):
        return "×".join(shown(v) for v in value[:MAX_DIMS]) + ("×…" if len(value) > MAX_DIMS else "") or "()"
    if isinstance(value, int) and abs(value) < 1 << 64:
        return str(value)
    return ascii(value[:80]) if isinstance(value, (str, bytes)) else f"({type(value).__name__})"


def _index(value: Any) -> int:
    return value if type(value) is int else -1
