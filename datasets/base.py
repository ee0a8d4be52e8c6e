"""The data set contract: cases with one mask per rater, declared identity, patient-level splits, a fingerprint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from ..core.cache import cache_root
from ..core.errors import UserError, unknown
from ..core.files import write_json
from ..core.hashing import digest, key8
from .case_rows import CaseRows, case_rows
from .splits import FOLDS, RULES, Split, SplitName, make_split, published_split, split_record
from .store import ArrayStore

Identity = Literal["none", "derived", "consistent", "synthetic"]
Progress = Callable[[int, int, str], None]  # done, total, what


@dataclass(frozen=True)
class DataDescription:
    """What a method is told of the data it will see.

    Attributes:
        name: registry name of the data set.
        channels: image channels.
        classes: foreground classes; 1 means binary.
        raters: number of rater slots R (a case may miss some, see `has_missing`).
        rater_ids: R stable names.
        identity: ``none`` (slots are exchangeable), ``derived`` (an order computed from the masks, such as by area),
            ``consistent`` (slot r is one person or group everywhere), ``synthetic`` (made raters).
        spatial_dims: 2 or 3.
        size: spatial size of the arrays.
        overlapping: classes are nested or overlap (disc and cup).
        has_missing: some rater is missing in some case.
    """

    name: str = "unnamed"
    channels: int = 1
    classes: int = 1
    raters: int = 1
    rater_ids: tuple[str, ...] = ("1",)
    identity: Identity = "none"
    spatial_dims: int = 2
    size: tuple[int, ...] = (64, 64)
    overlapping: bool = False
    has_missing: bool = False


@dataclass(frozen=True)
class CaseRecord:
    """One row of the case list."""

    case_id: str
    patient_id: str
    spacing: tuple[float, ...] | None = None  # mm per pixel
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """One image with all its masks.

    Attributes:
        image: float32 C×H×W.
        masks: uint8 R×H×W class indices, or R×K×H×W in {0,1} for overlapping classes. The mask of a missing rater is 0.
        rater_valid: bool R; False means the rater never saw the case. An empty mask of a valid rater is an answer.
    """

    image: np.ndarray
    masks: np.ndarray
    rater_valid: np.ndarray
    rater_ids: tuple[str, ...]
    case_id: str
    patient_id: str
    spacing: tuple[float, ...] | None = None
    source: str = ""


class Dataset(ABC):
    """A data set; the keyword parameters of ``__init__`` are its options (``dataset.*``).

    A subclass implements `source`, `build` and, if its rater order is derived, `rater_order`. Arrays are built once per
    set of preprocessing options into the cache and memory-mapped from there.

    Class attributes:
        name: registry name, set by the registry.
        version: raised by the author when the arrays or the case list would change.
        embedded: True if it can be prepared without files of the user.
        notice: printed in every table, log and figure that uses the data (for simulated or derived data).
        title, citation, licence, how_to_get: the data card.
        split_names: splits by rule, the default first.
        compat_splits: names of published splits (``compat``, ``compat-<name>``) to one sentence: whose it is and, where
            it leaks, how; "" if there is nothing to say. The sentence is printed in every table.
        compat_folds: their numbers of folds, where not 1.
        resumes: `build` goes on with what a killed build has left.
    """

    name: str = "unnamed"
    version: int = 1
    embedded: bool = False
    notice: str = ""
    title: str = ""
    citation: str = ""
    licence: str = ""
    how_to_get: str = ""
    split_names: tuple[SplitName, ...] = ("cv4",)
    compat_splits: ClassVar[Mapping[str, str]] = MappingProxyType({})
    compat_folds: ClassVar[Mapping[str, int]] = MappingProxyType({})
    resumes: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._store: ArrayStore | None = None

    # -- to implement ---------------------------------------------------------------------------

    @abstractmethod
    def source(self) -> dict[str, Any]:
        """JSON that pins the raw data (file hashes, recipe version). Cheap; part of cache key and fingerprint.

        Raises:
            UserError: the user's files are missing or wrong.
        """

    @abstractmethod
    def build(self, folder: Path, progress: Progress) -> None:
        """Write the arrays of `ArrayStore` into `folder`, which is empty; with `resumes` it may hold what a build that
        was killed has left."""

    @property
    def build_options(self) -> dict[str, Any]:
        """The options that change the stored arrays (default: all but split and identity)."""
        return {k: v for k, v in self.options.items() if k not in ("split", "identity", "root")}

    @property
    def window(self) -> tuple[float, float] | None:
        """Grey values of the files that became 0 and 1 in the arrays, where a window was declared."""
        given = self.options.get("window")
        return (given[0], given[1]) if given else None

    def leftovers(self) -> dict[str, list[str]]:
        """Names of what was found beside the data and is not used, by kind; `multirater prepare` shows them."""
        return {}

    def rater_order(self, store: ArrayStore) -> tuple[np.ndarray, tuple[str, ...], Identity]:
        """Stored slot of each rater of each case (N×R int, -1: missing), the rater ids, and the identity."""
        n, slots = store.masks.shape[:2]
        order = np.tile(np.arange(slots), (n, 1))
        order[~store.rater_valid] = -1
        return order, tuple(store.meta["rater_ids"]), store.meta["identity"]

    def published(self, name: str, fold: int) -> dict[str, list[int]]:
        """Rows of ``train``, ``val`` and ``test`` of a split in `compat_splits`.

        Raises:
            UserError: the files at hand do not allow that split.
        """
        raise NotImplementedError(f"{type(self).__name__} names published splits, but does not give them")

    # -- ready to use ---------------------------------------------------------------------------

    @property
    def cache_folder(self) -> Path:
        identity = {"version": self.version, "options": self.build_options, "source": self.source()}
        return cache_root() / self.name / f"{key8(identity)}"

    def prepared(self) -> bool:
        return ArrayStore.complete(self.cache_folder)

    def prepare(self, progress: Progress = lambda done, total, what: None) -> Path:
        """Build the arrays unless they are there; atomic, and by one process at a time: others wait for its result."""
        folder = self.cache_folder
        if not ArrayStore.complete(folder):

            def waiting() -> None:
                progress(0, 1, "waiting for another process that prepares the same")

            ArrayStore.build(folder, lambda partial: self.build(partial, progress), self.resumes, waiting)
        return folder

    @property
    def store(self) -> ArrayStore:
        if self._store is None:
            self.prepare()
            self._store = ArrayStore(self.cache_folder)
            self._order, self._rater_ids, self._identity = self.rater_order(self._store)
        return self._store

    def describe(self) -> DataDescription:
        store = self.store
        return DataDescription(
            name=self.name,
            channels=store.images.shape[1],
            classes=int(store.meta["classes"]),
            raters=len(self._rater_ids),
            rater_ids=self._rater_ids,
            identity=self._identity,
            spatial_dims=store.images.ndim - 2,
            size=tuple(store.images.shape[2:]),
            overlapping=bool(store.meta.get("overlapping", False)),
            has_missing=bool((self._order < 0).any()),
        )

    def __len__(self) -> int:
        return len(self.store.records)

    @cached_property
    def records(self) -> list[CaseRecord]:
        return [CaseRecord(**record) for record in self.store.records]

    def arrays(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images B×C×…, masks B×R×…, rater_valid B×R of some cases, raters in the order of the chosen identity."""
        return np.asarray(self.store.images[np.asarray(indices)], dtype=np.float32), *self.masks(indices)

    def masks(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same without the images."""
        store = self.store
        indices = np.asarray(indices)
        order = self._order[indices]
        valid = order >= 0
        masks = store.masks[indices[:, None], np.where(valid, order, 0)]
        masks[~valid] = 0
        return masks, valid

    def load(self, index: int) -> Case:
        images, masks, valid = self.arrays([index])
        record = self.records[index]
        return Case(
            images[0],
            masks[0],
            valid[0],
            self._rater_ids,
            record.case_id,
            record.patient_id,
            record.spacing,
            record.source,
        )

    def volumes(self, indices: Sequence[int] | np.ndarray) -> list[CaseRows]:
        """Rows as the cases that are scored: the slices of each volume together, any other row alone (`case_rows`)."""
        return case_rows(self.records, indices)

    def valid_region(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Pixels that count (a field of view), B×… bool, if the store has an array ``valid_region``; None: all do."""
        if not (self.store.folder / "valid_region.npy").is_file():
            return None
        return np.asarray(self.store.extra("valid_region")[np.asarray(indices)], dtype=bool)

    @property
    def split_name(self) -> str:
        return str(self.options.get("split", self.split_names[0]))

    @property
    def folds(self) -> int:
        """Number of folds of the chosen split.

        Raises:
            UserError: the split does not exist.
        """
        name = self.split_name
        if name in self.compat_splits:
            return self.compat_folds.get(name, 1)
        if name not in FOLDS:
            raise unknown("split", name, [*self.split_names, *self.compat_splits])
        return FOLDS[name]

    def split(self, fold: int = 0) -> Split:
        """Train, validation and test cases of one fold.

        Splits by rule never part a patient; published ones may (`Split.shared`, `Split.selected`).

        Raises:
            UserError: the split or the fold does not exist.
        """
        name, folds = self.split_name, self.folds
        if name not in self.compat_splits:
            return make_split(name, *self._ids, fold)
        if not 0 <= fold < folds:
            has = "only fold 0" if folds == 1 else f"folds 0-{folds - 1}"
            raise UserError(f"fold {fold} does not exist: split {name!r} of {self.name} has {has}; choose one of them")
        return published_split(name, fold, self.published(name, fold), *self._ids)

    @cached_property
    def _ids(self) -> tuple[list[str], list[str]]:
        records = self.store.records
        return [r["case_id"] for r in records], [r["patient_id"] for r in records]

    @property
    def full_notice(self) -> str:
        """`notice`, and what a reader must know of the chosen split; printed in every table."""
        return "; ".join(filter(None, [self.notice, *self.split_warnings]))

    @cached_property
    def split_warnings(self) -> list[str]:
        """Sentences on a published split: its own, and that parts share patients where that is found."""
        name = self.split_name
        if name not in self.compat_splits:
            return []
        splits = [self.split(fold) for fold in range(self.folds)]
        texts = [
            self.compat_splits[name],
            "training shares patients with the other parts, so scores are too high" * any(s.shared for s in splits),
            "validation shares patients with the test part" * any(s.selected for s in splits),
        ]
        return [f"split {name}: {text}" for text in texts if text]

    def write_splits(self) -> list[Path]:
        """Write case ids, rule and hash of every fold of the chosen split beside the arrays."""
        name = self.split_name
        rule = self.compat_splits.get(name) or RULES.get(name, "as published")
        written = []
        for fold in range(self.folds):
            written.append(self.cache_folder / "splits" / f"{name}-f{fold}.json")
            write_json(written[-1], split_record(self.split(fold), self.name, rule, *self._ids))
        return written

    @property
    def fingerprint(self) -> str:
        """Hash of case list, rater list, options that make the arrays, raw data and mask bytes.

        Rows with different fingerprints never stand in one table. Images enter through the recipe and the raw files,
        not through their bytes: the last bit of a filtered float may differ between CPUs.
        """
        store = self.store
        return digest(
            {
                "dataset": self.name,
                "version": self.version,
                "options": {**self.build_options, "identity": self.options.get("identity")},
                "source": self.source(),
                "cases": sorted(self._ids[0]),
                "raters": list(self._rater_ids),
                "masks": store.meta["masks_sha256"],
            }
        )[:16]

    def require(self, condition: bool, message: str) -> None:
        if not condition:
            raise UserError(message)
