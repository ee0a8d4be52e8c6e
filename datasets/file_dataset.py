"""Data sets that lie on the user's disk: a listing of raw cases and a decoder make a loader."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ..core.errors import UserError
from ..core.hashing import digest
from .base import Dataset, Identity, Progress
from .digests import file_digests
from .filling import fill_store
from .image_files import target_size
from .orders import order_raters
from .patterns import natural
from .splits import PARTS, SplitName, patient_number
from .store import ArrayStore
from .volume_files import by

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
    """

    resumes = True
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
        self.unused: dict[str, list[str]] = {}  # what `list_cases` has found and left out, by kind

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

    def leftovers(self) -> dict[str, list[str]]:
        assert self.cases  # listed: until then nothing is known
        return self.unused

    def build(self, folder: Path, progress: Progress) -> None:
        fill_store(self, folder, progress)

    def stored_size(self, native: Sequence[int], first: Sequence[int], raw: RawCase) -> tuple[int, int]:
        """Size in the store of a case whose slices are `native`, where those of the first case are `first`.

        Raises:
            UserError: no size is chosen, and the two differ.
        """
        size = self.options["size"]
        if size is None and list(native) != list(first):
            raise UserError(
                f"images differ in size: {self.cases[0].files[0]} has {by(first)} and {raw.files[0]} has {by(native)}; "
                f"choose one with --set dataset.size=N or dataset.size=[H,W]"
            )
        return target_size(size, native)

    # -- parts of an official split ---------------------------------------------------------------

    def rows_of(self, part: str) -> list[int]:
        """Rows of one part of the official split."""
        return [i for i, record in enumerate(self.store.records) if record["meta"].get("part") == part]

    def official(self, needed: Sequence[str] = PARTS) -> dict[str, list[int]]:
        """Rows of the official parts.

        Raises:
            UserError: files of a needed part are not there.
        """
        rows = {part: self.rows_of(part) for part in PARTS}
        for part in needed:
            if not rows[part]:
                raise UserError(
                    f"split {self.split_name!r} of {self.name} needs the official {part} part, but no case of it lies "
                    f"below {self.options['root']}; add it or use --set dataset.split=cv4"
                )
        return rows

    def official_halves(self, every: int, test: str = "test") -> dict[str, list[int]]:
        """The official training part against the official part `test`, with about one training patient in `every` for
        selection (`carve`).

        Raises:
            UserError: files of one of the two are not there.
        """
        rows = self.official(("train", test))
        train, val = self.carve(rows["train"], every)
        return {"train": train, "val": val, "test": rows[test]}

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
