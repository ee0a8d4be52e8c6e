"""Data sets that lie on the user's disk: a listing of raw cases and a decoder make a loader."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ..core.errors import UserError
from ..core.hashing import digest
from .base import Dataset, Identity, Progress
from .digests import file_digests
from .image_files import resize_image, resize_labels
from .orders import order_raters
from .patterns import natural
from .splits import SplitName, patient_number
from .store import ArrayStore

Side = Annotated[int, Field(ge=8, le=8192)]


@dataclass(frozen=True)
class RawCase:
    """Where one case lies, found without decoding anything.

    Attributes:
        case_id, patient_id: unique id, and the group that a split never parts.
        files: everything that is read for the case; hashed into the fingerprint.
        slices: rows that the case fills in the store; more than 1 for a volume (`Dataset.volumes`).
        part: ``train``, ``val`` or ``test`` of the published split, if there is one.
        handle: whatever `FileDataset.decode` needs.
        meta: JSON, kept with the case.
    """

    case_id: str
    patient_id: str
    files: tuple[Path, ...]
    slices: int = 1
    part: str = ""
    handle: Any = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class Decoded:
    """One case at its own size.

    Attributes:
        image: float32 C×H×W, or D×C×H×W of a volume.
        masks: uint8 class indices R×H×W, or {0,1} R×K×H×W of overlapping classes; D first for a volume. Zero for a
            missing rater.
        valid: bool R; False: the rater never saw the case.
        spacing: mm, (row, column) or (slice, row, column).
        region: bool H×W (D first for a volume), the pixels that count (a field of view); None: all. Given for every
            case of a data set or for none.
    """

    image: np.ndarray
    masks: np.ndarray
    valid: np.ndarray
    spacing: tuple[float, ...] | None = None
    region: np.ndarray | None = None


class FileDataset(Dataset):
    """A data set made of the user's files under ``dataset.root``.

    A subclass gives `list_cases`, `decode` and the class attributes below; arrays, cache, splits, rater orders and
    fingerprint follow.

    Class attributes:
        rater_names: stable ids of the stored slots.
        declared: what a slot means as stored: ``consistent`` (one person everywhere) or ``none``.
        class_names: foreground classes.
        overlapping: masks are planes R×K×H×W, not class indices.
        ahead: decoded cases kept waiting per thread: bounds the memory of `build`.
    """

    ahead = 4
    rater_names: tuple[str, ...] = ()
    declared: Identity = "none"
    class_names: tuple[str, ...] = ("foreground",)
    overlapping = False
    split_names: tuple[SplitName, ...] = ("cv4", "fixed")

    def __init__(
        self,
        root: str | None = None,
        size: int | tuple[int, int] | None = None,
        identity: str | None = None,  # an Order; a subclass may know more
        split: str = "cv4",
        **options: Any,
    ) -> None:
        chosen = identity or ("as_stored" if self.declared == "consistent" else "none")
        super().__init__(root=root, size=size, identity=chosen, split=split, **options)

    # -- to implement ---------------------------------------------------------------------------

    @abstractmethod
    def list_cases(self, root: Path) -> list[RawCase]:
        """All cases below `root`, in any order.

        Raises:
            UserError: what is expected below `root` and what is there instead, with the path.
        """

    @abstractmethod
    def decode(self, raw: RawCase) -> Decoded:
        """Read one case; called from several threads.

        Raises:
            UserError: the file and what is wrong with it.
        """

    # -- ready to use ---------------------------------------------------------------------------

    @cached_property
    def root(self) -> Path:
        given = self.options["root"]
        if not given:
            raise UserError(
                f"dataset {self.name} needs its root; give --root PATH or --set dataset.root=PATH "
                f"(how to get the data: multirater info {self.name})"
            )
        root = Path(given).expanduser()
        if not root.is_dir():
            raise UserError(f"dataset.root {str(root)!r} is not a folder; give the folder that holds the files")
        return root

    @cached_property
    def cases(self) -> list[RawCase]:
        """The checked listing, in natural order of the ids."""
        cases = sorted(self.list_cases(self.root), key=lambda c: natural(c.case_id))
        if not cases:
            raise UserError(f"no case of {self.name} was found below {self.root}; see multirater info {self.name}")
        for one, other in pairwise(cases):
            if one.case_id == other.case_id:
                raise UserError(
                    f"case {one.case_id!r} is there twice, as {one.files[0]} and as {other.files[0]}; remove one"
                )
        return cases

    def source(self) -> dict[str, Any]:
        return self._source

    @cached_property
    def _source(self) -> dict[str, Any]:
        """Hashes of all files used, by case: where they lie does not matter."""
        digests = file_digests(sorted({f for case in self.cases for f in case.files}))
        files = [[c.case_id, c.patient_id, c.slices, c.part, [digests[f] for f in c.files]] for c in self.cases]
        return {"files": digest(files), "raters": list(self.rater_names), "classes": list(self.class_names)}

    def build(self, folder: Path, progress: Progress) -> None:
        cases, raters = self.cases, len(self.rater_names)
        total = sum(case.slices for case in cases)
        planes = (len(self.class_names),) if self.overlapping else ()
        images: np.ndarray | None = None
        masks: np.ndarray | None = None
        valid = np.zeros((total, raters), bool)
        records: list[dict[str, Any]] = []
        first: np.ndarray | None = None
        regions: np.ndarray | None = None
        for raw, found in zip(cases, self._decoded(cases), strict=True):
            progress(len(records), total, raw.case_id)
            image = found.image if found.image.ndim == 4 else found.image[None]
            labels = found.masks if found.image.ndim == 4 else found.masks[None]
            if images is None or masks is None:
                first = image
                size = self._target(image, image, raw)
                images = _open(folder / "images.npy", np.float32, (total, image.shape[1], *size))
                masks = _open(folder / "masks.npy", np.uint8, (total, raters, *planes, *size))
            assert first is not None
            size = self._target(image, first, raw)
            if image.shape[1] != images.shape[1]:
                raise UserError(
                    f"{raw.files[0]} has {image.shape[1]} channels, but {cases[0].files[0]} has {images.shape[1]}"
                )
            rows = slice(len(records), len(records) + len(image))
            images[rows] = np.stack([resize_image(one, size) for one in image])
            masks[rows] = resize_labels(labels, size)
            if found.region is not None:
                if regions is None:
                    regions = _open(folder / "valid_region.npy", np.bool_, (total, *size))
                region = found.region if found.region.ndim == 3 else found.region[None]
                regions[rows] = resize_labels(region, size)
            valid[rows] = found.valid
            scale = [old / new for old, new in zip(image.shape[2:], size, strict=True)]
            spacing = None
            if found.spacing is not None:
                spacing = [*found.spacing[:-2], *(s * k for s, k in zip(found.spacing[-2:], scale, strict=True))]
            for k in range(len(image)):
                volume = found.image.ndim == 4
                place: dict[str, Any] = {}
                if volume:
                    drawn = bool(masks[rows][k].any())
                    place = {"volume": raw.case_id, "slice": k, "foreground": drawn}
                records.append(
                    {
                        "case_id": f"{raw.case_id}/z{k:04d}" if volume else raw.case_id,
                        "patient_id": raw.patient_id,
                        "spacing": spacing,
                        "source": raw.files[0].name,
                        "meta": {
                            **raw.meta,
                            **({"part": raw.part} if raw.part else {}),
                            **place,
                        },
                    }
                )
        assert images is not None
        assert masks is not None
        if regions is not None:
            regions.flush()  # type: ignore[attr-defined]
        ArrayStore.write(
            folder,
            images=images,
            masks=masks,
            rater_valid=valid,
            records=records,
            classes=len(self.class_names),
            rater_ids=list(self.rater_names),
            identity=self.declared,
            overlapping=self.overlapping,
            class_names=list(self.class_names),
        )
        progress(total, total, "done")

    def _decoded(self, cases: list[RawCase]) -> Iterator[Decoded]:
        """Cases in order, decoded by threads: file formats and filters release the interpreter lock."""
        workers = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            waiting = iter(cases)
            futures = [pool.submit(self.decode, c) for c in islice(waiting, workers * self.ahead)]
            while futures:
                yield futures.pop(0).result()
                futures += [pool.submit(self.decode, c) for c in islice(waiting, 1)]

    def _target(self, image: np.ndarray, first: np.ndarray, raw: RawCase) -> tuple[int, int]:
        size = self.options["size"]
        if size is None:
            if image.shape[2:] != first.shape[2:]:
                raise UserError(
                    f"images differ in size: {self.cases[0].files[0]} has {_by(first.shape[2:])} and {raw.files[0]} "
                    f"has {_by(image.shape[2:])}; choose one with --set dataset.size=N or dataset.size=[H,W]"
                )
            return image.shape[2], image.shape[3]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    # -- parts of an official split ---------------------------------------------------------------

    def rows_of(self, part: str) -> list[int]:
        """Rows of one part of the official split."""
        return [i for i, record in enumerate(self.store.records) if record["meta"].get("part") == part]

    def official(self, needed: Sequence[str] = ("train", "val", "test")) -> dict[str, list[int]]:
        """Rows of the official parts.

        Raises:
            UserError: files of a needed part are not there.
        """
        rows = {part: self.rows_of(part) for part in ("train", "val", "test")}
        for part in needed:
            if not rows[part]:
                raise UserError(
                    f"split {self.split_name!r} of {self.name} needs the official {part} part, but no case of it lies "
                    f"below {self.options['root']}; add it or use --set dataset.split=cv4"
                )
        return rows

    def carve(self, rows: Sequence[int], every: int) -> tuple[list[int], list[int]]:
        """Training rows without, and with only, about one patient in `every`, chosen by the MD5 of the patient id.

        For official splits without cases of their own for selection. At least one patient is chosen.
        """
        patients = self._ids[1]
        numbers = {p: patient_number(p) for p in sorted({patients[i] for i in rows})}
        ranked = sorted(numbers, key=lambda p: (numbers[p] // 4, p))
        chosen = set(ranked[: max(1, round(len(ranked) / every))]) if len(ranked) > 1 else set()
        return [i for i in rows if patients[i] not in chosen], [i for i in rows if patients[i] in chosen]

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        return order_raters(self.name, store, self.options["identity"], self.declared, tuple(store.meta["rater_ids"]))


def _open(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
