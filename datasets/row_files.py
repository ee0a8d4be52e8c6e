"""Arrays on disk that are filled row by row, and a journal of the cases that are in them."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

_AT_ONCE = 1 << 24  # bytes


class RowFile:
    """An npy file whose rows are written in any order and from several threads.

    Written, not mapped: a full disk is an error with a name and not a signal that kills the process, and memory does
    not grow with the array.

    Args:
        path: a file that is there with the same type and shape keeps its rows.
    """

    def __init__(self, path: Path, dtype: type, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), tuple(int(n) for n in shape)
        self._row = self.dtype.itemsize * math.prod(self.shape[1:])
        self._lock = threading.Lock()
        if not path.exists():
            with path.open("wb") as stream:
                header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(stream, {**header, "shape": self.shape})
                stream.truncate(stream.tell() + self._row * self.shape[0])
        found = np.load(path, mmap_mode="r")
        if found.shape != self.shape or found.dtype != self.dtype:
            raise ValueError(f"{path} holds {found.shape} of {found.dtype}, not {self.shape} of {self.dtype}")
        self._start = path.stat().st_size - self._row * self.shape[0]
        self._stream = path.open("r+b", buffering=0)

    def write(self, first: int, rows: np.ndarray) -> None:
        """Put `rows` at the places from `first` on."""
        assert rows.shape[1:] == self.shape[1:]
        assert 0 <= first <= first + len(rows) <= self.shape[0]
        left = np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data
        with self._lock:
            self._stream.seek(self._start + first * self._row)
            while left:  # a write may take a part only
                left = left[self._stream.write(left) :]

    def flush(self) -> None:
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


class Journal:
    """One line of JSON a finished case, on the disk only after its rows are.

    Lines that a kill has cut short are dropped.
    """

    def __init__(self, path: Path) -> None:
        self.done: dict[int, Any] = {}
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    number, value = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self.done[number] = value
                whole += len(line)
        self._stream = path.open("ab")
        self._stream.truncate(whole)
        self._waiting: list[tuple[int, Any]] = []

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def add(self, number: int, value: Any) -> None:
        self._waiting.append((number, value))
        self.done[number] = value

    def flush(self, files: list[RowFile]) -> None:
        """Make what was added lasting: the rows first."""
        if not self._waiting:
            return
        for file in files:
            file.flush()
        text = "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in self._waiting)
        self._stream.write(text.encode())
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._waiting.clear()


def stored_bytes(path: Path) -> Iterator[bytes]:
    """The values of an npy file in pieces, as they lie on the disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    with path.open("rb") as stream:
        stream.seek(-array.nbytes, os.SEEK_END)
        while piece := stream.read(_AT_ONCE):
            yield piece
