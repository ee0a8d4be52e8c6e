"""Reading pickles of arrays without executing anything: two of the field's most used data files are pickles.

A pickle is a program for a stack machine whose instructions can import and call anything. This reader is a machine of
its own that knows only the instructions of plain data, and seven globals (`pickle_values.Name`), which are marks and
never imported or called. Everything else - another global, an instance, an extension code, a persistent id - ends the
reading with one sentence.

Strings above `LONG` bytes stay in the file, and arrays refer to them (`StoredArray`), so that a file of gigabytes is
listed in seconds and megabytes, and its arrays can be decoded one by one and in parallel. Understood are protocols 0 to
5, of Python 2 and 3, with arrays of NumPy 1 and 2. An OrderedDict becomes a dict, a set a list.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from ..core.errors import UserError, brief
from .pickle_instructions import INSTRUCTIONS
from .pickle_machine import Limits, Machine, Refused
from .pickle_values import Damaged, StoredArray

__all__ = ["Limits", "StoredArray", "read_pickle"]

_STOP_READING = (
    Damaged, IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error, OverflowError, EOFError,
    RecursionError,
)  # fmt: skip


def read_pickle(path: Path, limits: Limits | None = None) -> Any:
    """The plain data of a pickle: dicts, lists, tuples, numbers, strings, and arrays as `StoredArray`.

    Raises:
        UserError: a refused global or instruction (named), a damaged file, a limit; always with the file's name.
    """
    limits = limits or Limits()
    try:
        size = path.stat().st_size
        if not path.is_file():  # a pipe would never end
            raise UserError(f"{path} is no regular file; give the pickle itself")
        if size > limits.file_bytes:
            raise UserError(
                f"{path} has {size >> 20} MiB; pickles above {limits.file_bytes >> 20} MiB are not read: split it"
            )
        with path.open("rb") as stream:
            _check_start(path, stream.read(6))
            machine = Machine(path, stream, size, limits)
            return machine.run(INSTRUCTIONS)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except Refused as error:
        raise UserError(
            f"{path} is refused: {error}, which could run code when it is unpickled; nothing was run; only plain "
            f"data and NumPy arrays are read, so get the file from its original source or convert it to HDF5"
        ) from error
    except _STOP_READING as error:
        detail = str(error) if isinstance(error, Damaged) else brief(error, 160)
        raise UserError(
            f"{path} is damaged or no pickle of arrays (near byte {machine.at}: {detail}); restore the file"
        ) from error


def _check_start(path: Path, head: bytes) -> None:
    kinds = {b"PK": "a zip archive", b"\x1f\x8b": "compressed with gzip", b"BZh": "compressed with bzip2"}
    kinds |= {b"\xfd7zXZ": "compressed with xz", b"\x89HDF": "an HDF5 file"}
    for magic, what in kinds.items():
        if head.startswith(magic):
            raise UserError(f"{path} is {what}, not a pickle; unpack it or choose another dataset.preparation")
    if not head:
        raise UserError(f"{path} is empty; restore the file")
