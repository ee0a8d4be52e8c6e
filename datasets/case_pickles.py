"""The pickles of the Probabilistic U-Net and of MedicalMatting: a dict of cases, each with ``image`` and ``masks``.

Nothing of a pickle is executed (`safe_pickle`); its arrays stay in the file until a case is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from .patterns import files_below
from .safe_pickle import read_pickle
from .volume_files import by, codes

_LONGEST = 255  # characters of an id


def only_file(root: Path, name: str) -> Path:
    """The one file `name` below `root`, or `root` itself if it is a file.

    Raises:
        UserError: none there, several, or a zip that may hold it.
    """
    if root.is_file():
        return root
    below = files_below(root)
    paths = [root / n for n in below if n.rpartition("/")[2] == name]
    if len(paths) == 1:
        return paths[0]
    packed = next((n for n in below if n.endswith(".zip")), None)
    hint = f"; unpack {packed} first" if packed and not paths else "; give the folder that holds one, or the file"
    raise UserError(f"{root} holds {len(paths) or 'no'} file{'s' * (len(paths) != 1)} {name}{hint}")


def case_entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Id and dict of every case, in the order of the file.

    Raises:
        UserError: no dict of cases, an id that is no short line of text, a case without image or masks.
    """
    content = read_pickle(path)
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{path} holds no dict of cases; only pickles of the LIDC and MedicalMatting kinds are read, so get the "
            f"file from its source"
        )
    for stored, value in content.items():
        key = str(stored) if isinstance(stored, (str, int)) else ""
        if not 0 < len(key) <= _LONGEST or not key.isprintable():  # it becomes an id in tables and files
            raise UserError(
                f"{path} holds a case named {ascii(stored)[:80]}; an id is a short line of text, so restore it"
            )
        if not isinstance(value, dict) or not {"image", "masks"} <= set(value):
            raise UserError(f"{path} holds case {key!r} without image and masks; restore the file")
        yield key, value


def check_count(masks: Any, raters: int, path: Path, case: str) -> None:
    """Refuse another number of masks than `raters`; of one array it shows when it is read (`read_masks`)."""
    listed = isinstance(masks, (list, tuple))
    if (listed and len(masks) == raters) or hasattr(masks, "read"):
        return
    count = len(masks) if listed else type(masks).__name__
    raise UserError(f"{path} holds case {case!r} with masks: {count}, expected are {raters}; restore it")


def read_numbers(stored: Any, axes: int, path: Path, case: str) -> np.ndarray:
    """The values of an array of so many axes.

    Raises:
        UserError: no array, of other axes, not of real numbers, or without any.
    """
    values = stored.read() if hasattr(stored, "read") else None
    if not isinstance(values, np.ndarray) or values.ndim != axes or values.dtype.kind not in "buif" or not values.size:
        found = by(values.shape) if isinstance(values, np.ndarray) else type(stored).__name__
        raise UserError(f"{path} holds {found} in case {case!r}, expected is a {axes}D array of numbers")
    return values


def read_masks(stored: Any, raters: int, size: tuple[int, ...], path: Path, case: str) -> np.ndarray:
    """R×H×W in {0, 1}, from one array R×H×W or a list of arrays.

    Raises:
        UserError: another number of masks, another size than that of the image, other values.
    """
    if hasattr(stored, "read"):
        planes = list(read_numbers(stored, 3, path, case))
    else:
        planes = [read_numbers(mask, 2, path, case) for mask in stored]
    check_count(planes, raters, path, case)
    for plane in planes:
        if plane.shape != size:
            raise UserError(f"{path} holds a mask of {by(plane.shape)} for an image of {by(size)} in case {case!r}")
    return np.stack([codes(plane, {0: 0, 1: 1}, path) for plane in planes])
