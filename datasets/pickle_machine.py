"""The stack machine of `safe_pickle`: the bytes of the file, the stack, and the few globals that are understood."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .pickle_values import ALLOWED, Damaged, Name, Span, StoredArray, StoredType, scalar, shown

LONG = 1024  # bytes; longer strings stay in the file
STOP = ord(".")
_CHUNK = 1 << 13


@dataclass(frozen=True)
class Limits:
    """What a file may ask for before it is refused.

    Attributes:
        file_bytes: size of the file.
        instructions: length of the program; LIDC's largest file has about 4 million.
        memory: bytes of all strings that are kept.
        marks: depth of open tuples, lists and dicts.
    """

    file_bytes: int = 32 << 30
    instructions: int = 20_000_000
    memory: int = 256 << 20
    marks: int = 200


class Refused(Exception):
    """The file asks for something that could run code."""


class Machine:
    def __init__(self, path: Path, stream: BinaryIO, size: int, limits: Limits) -> None:
        self.path, self.stream, self.size, self.limits = path, stream, size, limits
        self.buffer = b""
        self.base = 0  # place of the buffer's first byte in the file
        self.position = 0  # in the buffer
        self.kept = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    @property
    def at(self) -> int:
        return self.base + self.position

    def run(self, instructions: Mapping[int, Callable[[Machine], None]]) -> Any:
        """The value that the file describes.

        Raises:
            Damaged, Refused, and what Python raises on operands that do not fit.
        """
        for _ in range(self.limits.instructions):
            code = self.take(1)[0]
            if code == STOP:
                return self.finish()
            if code not in instructions:
                raise Damaged(f"0x{code:02x} is no pickle instruction")
            instructions[code](self)
        raise Damaged(f"more than {self.limits.instructions} instructions")

    def finish(self) -> Any:
        if self.marks or len(self.stack) != 1:
            raise Damaged("it ends in the middle of a value")
        if self.at != self.size:
            raise Damaged(f"{self.size - self.at} bytes follow its end")
        return self.stack[0]

    # -- bytes of the file ----------------------------------------------------------------------

    def take(self, n: int) -> bytes:
        end = self.position + n
        if end > len(self.buffer):
            if self.at + n > self.size:
                raise Damaged("it is cut short")
            self.seek(self.at, max(n, _CHUNK))
            end = n
            if len(self.buffer) < n:
                raise Damaged("it is cut short")
        found = self.buffer[self.position : end]
        self.position = end
        return found

    def seek(self, place: int, n: int = _CHUNK) -> None:
        self.stream.seek(place)
        self.buffer, self.base, self.position = self.stream.read(n), place, 0

    def skip(self, n: int) -> int:
        """Leave `n` bytes where they are; their place."""
        start = self.at
        if start + n > self.size:
            raise Damaged("it is cut short")
        if self.position + n <= len(self.buffer):
            self.position += n
        else:
            self.seek(start + n)
        return start

    def line(self) -> tuple[int, int, bytes]:
        """Place and length of the text up to the next line feed, which is skipped, and the text if it is short."""
        start = self.at
        while (end := self.buffer.find(b"\n", self.position)) < 0:
            self.seek(self.base + len(self.buffer), 1 << 18)
            if not self.buffer:
                raise Damaged("it is cut short")
        length = self.base + end - start
        if length <= LONG and start < self.base:  # it began in the part before
            self.seek(start)
            end = length
        self.position = end + 1
        return start, length, self.buffer[end - length : end] if length <= LONG else b""

    def short_line(self, most: int = LONG) -> bytes:
        _, length, text = self.line()
        if length > most:
            raise Damaged("a line that is too long")
        return text

    def number(self, code: str) -> int:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def string(self, length: int, decode: Callable[[bytes], Any], form: str, text: bool) -> None:
        """Push a short string, or the place of a long one."""
        if length < 0:
            raise Damaged("a string of negative length")
        if length > LONG:
            self.push(Span(self.skip(length), length, form, text))
        else:
            self.keep(self.take(length), decode)

    def string_line(self, decode: Callable[[bytes], Any], form: str, text: bool) -> None:
        start, length, found = self.line()
        if length > LONG:
            self.push(Span(start, length, form, text))
        else:
            self.keep(found, decode)

    def keep(self, found: bytes, decode: Callable[[bytes], Any]) -> None:
        self.kept += len(found)
        if self.kept > self.limits.memory:
            raise Damaged(f"strings of more than {self.limits.memory >> 20} MiB")
        self.push(decode(found))

    # -- stack ----------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        if len(self.marks) >= self.limits.marks:
            raise Damaged(f"values nested more than {self.limits.marks} deep")
        self.marks.append(self.stack)
        self.stack = []

    def above_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def replace(self, n: int) -> None:
        """The uppermost `n` values become a tuple."""
        items = tuple(self.stack[-n:])
        if len(items) < n:
            raise Damaged("too few values for a tuple")
        del self.stack[-n:]
        self.push(items)

    def put_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Damaged("entries of something that is no dict")
        target.update(_pairs(items[::2], items[1::2]))

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Damaged("elements of something that is no list")
        target.extend(items)

    # -- globals --------------------------------------------------------------------------------

    def look_up(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Damaged("a global without a name")
        full = f"{module}.{name}"
        if full not in ALLOWED:
            raise Refused(f"it asks for the global {shown(full)}")
        self.push(ALLOWED[full])

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Damaged("a call of something that is no function")
        if function not in _MAKE:
            raise Refused(f"it calls {function.value} directly")
        self.push(_MAKE[function](self.path, *arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (StoredArray, StoredType)):
            raise Refused(
                f"it sets the state of a {target.value if isinstance(target, Name) else type(target).__name__}"
            )
        target.set_state(state)


def _pairs(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """A dict; keys are short strings or numbers only, since hashing a deep tuple can exhaust the stack."""
    for key in keys:
        if type(key) not in (str, bytes, int, float, bool, type(None)):
            raise Damaged("a dict key that is no short string or number")
    return dict(zip(keys, values, strict=True))


def _array(path: Path, kind: Any = None, shape: Any = None, code: Any = None) -> StoredArray:
    if kind is not Name.NDARRAY:
        raise Damaged("an array that is no numpy.ndarray")
    return StoredArray(path)


def _dtype(path: Path, code: Any = None, align: Any = None, copy: Any = None) -> StoredType:
    return StoredType(code)


def _from_buffer(path: Path, data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> StoredArray:
    array = StoredArray(path)
    array.fill(data, kind, shape, order, axes)
    return array


def _encode(path: Path, text: Any, encoding: Any) -> Any:
    if encoding not in ("latin1", "latin-1"):
        raise Damaged(f"a string encoded as {shown(encoding)}")
    if isinstance(text, Span) and text.text:
        return text.encoded()
    if not isinstance(text, str):
        raise Damaged("an encoding of something that is no text")
    return text.encode("latin-1")


def _ordered(path: Path, items: Any = None) -> dict[Any, Any]:
    if items is None:
        return {}
    if not isinstance(items, list) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in items):
        raise Damaged("an OrderedDict of something that is no list of pairs")
    return _pairs([p[0] for p in items], [p[1] for p in items])


_MAKE: dict[Name, Callable[..., Any]] = {
    Name.RECONSTRUCT: _array,
    Name.DTYPE: _dtype,
    Name.SCALAR: lambda path, kind, data: scalar(kind, data),
    Name.FROMBUFFER: _from_buffer,
    Name.ENCODE: _encode,
    Name.ORDERED: _ordered,
}
