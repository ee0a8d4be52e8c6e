"""Prepared arrays on disk: written once, atomically, and memory-mapped afterwards."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import UserError
from ..core.files import read_json, write_json
from .row_files import stored_bytes

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


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


@contextlib.contextmanager
def _alone(folder: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Only one process at a time is here for one `folder`; the lock ends with the process that holds it.

    Yields:
        False on a file system without locks: two builds at once then cost time, not truth.
    """
    from filelock import FileLock

    path = folder.parent.parent / ".locks" / f"{folder.parent.name}-{folder.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive the process that holds it
    if not _acquired(lock, waiting):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquired(lock: BaseFileLock, waiting: Callable[[], None]) -> bool:
    from filelock import Timeout

    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the stored images, and of masks and `rater_valid` together (part of the fingerprint)."""
    found = {}
    for name, files in (("images_sha256", ["images"]), ("masks_sha256", ["masks", "rater_valid"])):
        sha = hashlib.sha256()
        for file in files:
            for piece in stored_bytes(folder / f"{file}.npy"):
                sha.update(piece)
        found[name] = sha.hexdigest()
    return found


def _put_in_place(partial: Path, folder: Path) -> None:
    """Rename, unless another process, which no lock kept away, was faster: its result is the same."""
    try:
        if not ArrayStore.complete(folder):
            os.rename(partial, folder)
            return
    except OSError:
        if not ArrayStore.complete(folder):
            raise
    shutil.rmtree(partial, ignore_errors=True)


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
    def build(
        folder: Path,
        fill: Callable[[Path], None],
        resumes: bool = False,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Let `fill` write into a hidden sibling of `folder`, then rename it.

        One process builds, others wait for it and use its result. After an error nothing is left. After a kill (or
        Ctrl-C) the sibling stays, and the next build starts with it: as `fill` finds it if `resumes`, else emptied.

        Args:
            waiting: called once before waiting for another process.

        Raises:
            UserError: the cache cannot be written, or a file that `fill` needs cannot be used.
        """
        partial = folder.with_name(f".{folder.name}.partial")
        try:
            with _alone(folder, waiting) as alone:
                if ArrayStore.complete(folder):
                    return
                if not alone:
                    resumes, partial = False, partial.with_suffix(f".{uuid.uuid4().hex[:12]}")
                if not resumes:
                    shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True, exist_ok=True)
                try:
                    with _naming_files_outside(partial.parent):
                        fill(partial)
                    for path in partial.iterdir():
                        with path.open("rb") as stream:
                            os.fsync(stream.fileno())
                    if folder.exists() and not ArrayStore.complete(folder):  # somebody has deleted files in it
                        shutil.rmtree(folder)
                    _put_in_place(partial, folder)
                except BaseException as error:
                    if not (resumes and isinstance(error, KeyboardInterrupt)):
                        shutil.rmtree(partial, ignore_errors=True)
                    raise
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserError(
                f"cannot write the cache {folder.parent}: {why}; make room there, or set MULTIRATER_CACHE to a folder "
                f"you may write to"
            ) from error

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
                array.flush()  # filled in place: too large to hold in memory
            else:
                np.save(path, np.ascontiguousarray(array))
        np.save(folder / "rater_valid.npy", np.ascontiguousarray(rater_valid))
        write_json(folder / "cases.json", list(records))
        write_json(
            folder / "meta.json",
            {
                **meta,
                "classes": classes,
                "rater_ids": list(rater_ids),
                "identity": identity,
                "overlapping": overlapping,
                **checksums(folder),
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
