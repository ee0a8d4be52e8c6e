"""Filling a store from the user's files: in threads, with a journal, so that a killed build goes on where it was."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..core.errors import UserError
from ..core.files import read_json, write_json
from .image_files import resize_image, resize_labels
from .row_files import Journal, RowFile
from .store import ArrayStore

if TYPE_CHECKING:
    from .base import Progress
    from .file_dataset import Decoded, FileDataset, RawCase

_SAVE_SECONDS = 2.0
_PLAN, _JOURNAL = "plan.json", "journal.jsonl"


def fill_store(data: FileDataset, folder: Path, progress: Progress) -> None:
    """Decode all cases of `data` and write the files of `ArrayStore` into `folder`.

    Raises:
        UserError: what is wrong with a file, the first in the order of the cases; cases that differ in size or channels
            where they must not; a disk without room for the arrays.
    """
    cases = data.cases
    counts = [case.slices for case in cases]
    ends = np.cumsum(counts)
    total = int(ends[-1])
    filler = _Filler(data, folder, total)  # first: it removes what cannot be gone on with
    with Journal(folder / _JOURNAL) as journal:
        left = [i for i in range(len(cases)) if i not in journal.done]
        rows, saved = total - sum(counts[i] for i in left), time.monotonic()
        try:
            for i, entry in _in_threads(lambda i: filler.fill(i, int(ends[i]) - counts[i]), left):
                progress(rows, total, cases[i].case_id)
                journal.add(i, entry)
                rows += counts[i]
                if time.monotonic() - saved > _SAVE_SECONDS:
                    journal.flush(filler.files)
                    saved = time.monotonic()
            journal.flush(filler.files)
        finally:
            filler.close()
        entries = [journal.done[i] for i in range(len(cases))]
    ArrayStore.write(
        folder,
        images=np.load(folder / "images.npy", mmap_mode="r+"),
        masks=np.load(folder / "masks.npy", mmap_mode="r+"),
        rater_valid=np.repeat(np.array([entry["valid"] for entry in entries], bool), counts, axis=0),
        records=[record for entry in entries for record in entry["records"]],
        classes=len(data.class_names),
        rater_ids=list(data.rater_names),
        identity=data.declared,
        overlapping=data.overlapping,
        class_names=list(data.class_names),
    )
    for name in (_PLAN, _JOURNAL):
        (folder / name).unlink()
    progress(total, total, "done")


class _Filler:
    """The open arrays of a store, and how a case becomes rows of them."""

    def __init__(self, data: FileDataset, folder: Path, rows: int) -> None:
        self.data, self.folder = data, folder
        self._decoded: dict[int, Decoded] = {}  # the first case, until it is written
        self.plan = self._read_plan()
        size, slots = tuple(self.plan["size"]), len(data.rater_names)
        planes = (len(data.class_names),) if data.overlapping else ()
        shapes: dict[str, tuple[type, tuple[int, ...]]] = {
            "images": (np.float32, (rows, self.plan["channels"], *size)),
            "masks": (np.uint8, (rows, slots, *planes, *size)),
        }
        if self.plan["regions"]:
            shapes["valid_region"] = (np.bool_, (rows, *size))
        self._check_space(sum(math.prod(shape) * np.dtype(kind).itemsize for kind, shape in shapes.values()))
        self._files = {name: RowFile(folder / f"{name}.npy", *kind) for name, kind in shapes.items()}
        if not (folder / _PLAN).is_file():  # last: what a kill has left without it is not gone on with
            write_json(folder / _PLAN, self.plan)

    @property
    def files(self) -> list[RowFile]:
        return list(self._files.values())

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _read_plan(self) -> dict[str, Any]:
        """What the first case says of all: its size, the stored size, channels, whether there are regions.

        What another version of the code has left is removed.
        """
        path = self.folder / _PLAN
        if path.is_file():
            try:
                plan = read_json(path)
                if plan.get("multirater") == __version__:
                    return plan
            except UserError:
                pass
        for other in self.folder.iterdir():
            other.unlink()
        found = self._decoded[0] = self.data.decode(self.data.cases[0])
        native = [int(n) for n in found.image.shape[-2:]]
        return {
            "multirater": __version__,
            "native": native,
            "size": list(self.data.stored_size(native, native, self.data.cases[0])),
            "channels": found.image.shape[-3],
            "regions": found.region is not None,
        }

    def _check_space(self, needed: int) -> None:
        """Refuse before anything more is decoded what the disk has no room for."""
        there = sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in self.folder.iterdir())
        free = shutil.disk_usage(self.folder).free + there
        if needed > free:
            raise UserError(
                f"preparing {self.data.name} needs {needed / 1e9:.2f} GB in {self.folder.parent}, but only "
                f"{free / 1e9:.2f} GB are free; make room there, choose a smaller dataset.size, or set "
                f"MULTIRATER_CACHE to a folder on a larger disk"
            )

    def fill(self, number: int, row: int) -> dict[str, Any]:
        """Decode a case and write its rows from `row` on; what the journal keeps of it."""
        data, plan, raw = self.data, self.plan, self.data.cases[number]
        found = self._decoded.pop(number, None) or data.decode(raw)
        volume = found.image.ndim == 4
        image, labels = (x if volume else x[None] for x in (found.image, found.masks))
        size = data.stored_size(image.shape[2:], plan["native"], raw)
        if image.shape[1] != plan["channels"]:
            raise UserError(
                f"{raw.files[0]} has {image.shape[1]} channels, but {data.cases[0].files[0]} has {plan['channels']}"
            )
        if len(image) != raw.slices:
            raise UserError(f"{raw.files[0]} has {len(image)} slices, but {raw.slices} were listed; run again")
        labels = resize_labels(labels, size)
        self._files["images"].write(row, np.stack([resize_image(one, size) for one in image]))
        self._files["masks"].write(row, labels)
        if found.region is not None:
            region = found.region if volume else found.region[None]
            self._files["valid_region"].write(row, resize_labels(region, size))
        drawn = [bool(one.any()) for one in labels]
        records = [
            _record(raw, found, _spacing(found, image.shape[2:], size), k if volume else None, drawn[k])
            for k in range(len(image))
        ]
        return {"valid": [bool(v) for v in found.valid], "records": records}


def _spacing(found: Decoded, native: Sequence[int], size: Sequence[int]) -> list[float] | None:
    if found.spacing is None:
        return None
    scaled = [s * (old / new) for s, old, new in zip(found.spacing[-2:], native, size, strict=True)]
    return [float(s) for s in (*found.spacing[:-2], *scaled)]


def _record(raw: RawCase, found: Decoded, spacing: list[float] | None, k: int | None, drawn: bool) -> dict[str, Any]:
    place = {} if k is None else {"volume": raw.case_id, "slice": k, "foreground": drawn}
    return {
        "case_id": raw.case_id if k is None else f"{raw.case_id}/z{k:04d}",
        "patient_id": raw.patient_id,
        "spacing": spacing,
        "source": raw.files[0].name,
        "meta": {**raw.meta, **({"part": raw.part} if raw.part else {}), **place},
    }


def _in_threads(work: Callable[[int], Any], numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Results in order, so that of several faults the same one is told every time.

    File formats and filters release the interpreter lock. As many cases are in memory as there are threads.
    """
    workers = min(8, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers)
    waiting = iter(numbers)
    try:
        futures = [(i, pool.submit(work, i)) for i in islice(waiting, 4 * workers)]
        while futures:
            number, future = futures.pop(0)
            yield number, future.result()
            futures += [(i, pool.submit(work, i)) for i in islice(waiting, 1)]
    finally:
        pool.shutdown(cancel_futures=True)
