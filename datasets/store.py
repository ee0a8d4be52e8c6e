"""Prepared arrays on disk: written once, atomically, and memory-mapped afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.files import read_json, write_json


@contextlib.contextmanager
def _naming_files_outside(cache: Path) -> Iterator[None]:
    """Turn an error of a file outside `cache` into one that names it: it says nothing of the cache.

    An error without a file name (disk full while writing) passes.
    """
    try:
        yield
    except OSError as error:
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        if not name or Path(os.path.abspath(name)).is_relative_to(os.path.abspath(cache)):
            raise
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{name} cannot be used: {why}; mend that and run again") from error


class ArrayStore:
    """A folder with ``images.npy`` (N×C×… float32), ``masks.npy`` (N×R×… uint8), ``rater_valid.npy`` (N×R bool),
    ``cases.json`` (case_id, patient_id, spacing, source, meta) and ``meta.json`` (classes, rater_ids, identity, …)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = read_json(folder / "meta.json")
        self.records: list[dict[str, Any]] = read_json(folder / "cases.json")

    @staticmethod
    def complete(folder: Path) -> bool:
        return (folder / "meta.json").is_file()

    @staticmethod
    def build(folder: Path, fill: Callable[[Path], None]) -> None:
        """Let `fill` write into a temporary sibling of `folder`, then rename it; a concurrent builder's result wins.

        Raises:
            UserError: the cache cannot be written, or a file that `fill` needs cannot be used.
        """
        temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            temporary.mkdir(parents=True)
            with _naming_files_outside(temporary.parent):
                fill(temporary)
            try:
                os.rename(temporary, folder)
            except OSError:
                if not ArrayStore.complete(folder):
                    raise
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserError(
                f"cannot write the cache {folder.parent}: {why}; set MULTIRATER_CACHE to a folder you may write to"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @staticmethod
    def write(
        folder: Path,
        *,
        images: np.ndarray,
        masks: np.ndarray,
        rater_valid: np.ndarray,
        records: Sequence[dict[str, Any]],
        classes: int,
        rater_ids: Sequence[str],
        identity: str,
        overlapping: bool = False,
        **meta: Any,
    ) -> None:
        """Save checked arrays; ``meta.json`` comes last and marks the folder as complete."""
        assert images.dtype == np.float32
        assert masks.dtype == np.uint8
        assert rater_valid.dtype == bool
        assert len(images) == len(masks) == len(rater_valid) == len(records)
        for name, array in (("images", images), ("masks", masks)):
            path = folder / f"{name}.npy"
            if isinstance(array, np.memmap) and array.filename and path.exists() and path.samefile(array.filename):
                array.flush()  # filled in place by `np.lib.format.open_memmap`: too large to hold in memory
            else:
                np.save(path, array)
        np.save(folder / "rater_valid.npy", rater_valid)
        write_json(folder / "cases.json", list(records))
        sha = hashlib.sha256(np.ascontiguousarray(masks).data)
        sha.update(np.ascontiguousarray(rater_valid).data)
        write_json(
            folder / "meta.json",
            {
                **meta,
                "classes": classes,
                "rater_ids": list(rater_ids),
                "identity": identity,
                "overlapping": overlapping,
                "masks_sha256": sha.hexdigest(),
            },
        )

    @cached_property
    def images(self) -> np.ndarray:
        return self._map("images")

    @cached_property
    def masks(self) -> np.ndarray:
        return self._map("masks")

    @cached_property
    def rater_valid(self) -> np.ndarray:
        return np.array(self._map("rater_valid"))

    def extra(self, name: str) -> np.ndarray:
        """A further array of the data set, for example derived masks."""
        return self._map(name)

    def _map(self, name: str) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the prepared file {path} is damaged ({error}); delete {self.folder} and run again"
            ) from error
