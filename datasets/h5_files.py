"""Reading arrays of HDF5 files that others wrote: shapes are checked before values are read, links are not followed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError, brief
from .volume_files import by

MAX_VALUES = 1 << 28


@contextlib.contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """An open `h5py.File`; what h5py raises inside on a damaged file becomes one sentence.

    Raises:
        UserError: missing, not readable, no HDF5 or damaged.
    """
    import h5py

    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise UserError(f"{path} is no regular file; give the HDF5 file itself")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; restore it") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: permission denied") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged or no HDF5 file ({brief(error)}); restore it") from error


def h5_array(file: Any, key: str, path: Path, max_values: int = MAX_VALUES) -> Any:
    """The dataset `key` (an `h5py.Dataset`, not read yet), or None if the file has none.

    A link into another file and values kept in another file are refused: a data set that somebody shares must not be
    able to name files of the reader.

    Raises:
        UserError: no array of real numbers, stored elsewhere, empty or too large.
    """
    import h5py

    link = file.get(key, getlink=True)
    if link is None:
        return None
    found = file.get(key) if isinstance(link, h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise UserError(f"{path} holds {key!r}, but not as an array of its own; store the values in the file")
    if found.shape is None or found.dtype.kind not in "biuf":
        raise UserError(f"{path} holds {key!r} of type {found.dtype}; only real numbers are read, so store those")
    if not 0 < math.prod(found.shape) <= max_values:
        raise UserError(
            f"{path} announces {key!r} of shape {by(found.shape) or '()'}; arrays of 1 to {max_values} values are "
            f"read, so restore the file"
        )
    return found


def h5_keys(file: Any) -> str:
    """Names in a file, for messages."""
    names = [ascii(name)[1:-1] for name in file]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") or "nothing"


def h5_values(found: Any) -> np.ndarray:
    return np.asarray(found[()])
