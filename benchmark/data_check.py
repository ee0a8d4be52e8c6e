"""What `multirater data check` finds in a data set: counts, values, duplicates, splits and checksums."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..core.errors import UserError
from ..datasets.base import Dataset
from ..datasets.file_dataset import FileDataset, RawCase
from ..datasets.splits import Split
from ..datasets.store import checksums
from .class_layout import ClassLayout

Progress = Callable[[int, int, str], None]
_BYTES_AT_ONCE = 64 << 20  # of images, and of masks
_SHOWN = 5  # cases named in one finding


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: ``fault`` (mend it), ``warning`` (look at it) or ``note``.
        check: which check.
        found: one sentence with the value that was found.
        files: files it was found in.
        cases: cases it concerns.
    """

    level: Literal["fault", "warning", "note"]
    check: str
    found: str
    files: list[str] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Facts of a data set and what was found in it."""

    facts: dict[str, Any]
    findings: list[Finding]

    @property
    def faults(self) -> int:
        return sum(one.level == "fault" for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {**self.facts, "faults": self.faults, "findings": [asdict(one) for one in self.findings]}


def check_dataset(
    data: Dataset, checksum_file: Path | None = None, progress: Progress = lambda done, total, what: None
) -> Report:
    """All checks.

    Raises:
        UserError: the files cannot even be listed.
    """
    findings: list[Finding] = []
    if isinstance(data, FileDataset):
        _ = data.cases  # what cannot be listed cannot be checked
    if checksum_file is not None:
        findings += _compare_files(data, checksum_file, progress)
    try:
        data.prepare(progress)
        store = data.store
    except UserError as error:
        findings += _unreadable(data, error, progress)
        return Report({"dataset": data.name, "prepared": False}, findings)
    stored = _compare_store(data, progress)
    findings += stored
    described = data.describe()
    facts: dict[str, Any] = {
        "dataset": data.name,
        "prepared": True,
        "notice": data.full_notice,
        "fingerprint": data.fingerprint,
        "rows": len(data),
        "cases": len(data.volumes(range(len(data)))),
        "patients": len({r.patient_id for r in data.records}),
        "shapes": {"images": list(store.images.shape), "masks": list(store.masks.shape)},
        "rater_ids": list(described.rater_ids),
        "identity": described.identity,
    }
    if not any(one.level == "fault" for one in stored):
        scan = _Scan(data)
        scan.run(progress)
        facts |= scan.facts()
        findings += scan.findings()
        splits = [data.split(fold) for fold in range(data.folds)]
        facts["splits"] = [_sizes(split) for split in splits]
        findings += _splits(data, splits)
        findings += _duplicates(data, splits, scan)
    rank = {"fault": 0, "warning": 1, "note": 2}
    findings.sort(key=lambda one: rank[one.level])
    return Report(facts, findings)


# -- files ----------------------------------------------------------------------------------------


def _unreadable(data: Dataset, error: UserError, progress: Progress) -> list[Finding]:
    """Every file that cannot be used, not the first only."""
    found = []
    if isinstance(data, FileDataset):
        for number, raw in enumerate(data.cases):
            progress(number, len(data.cases), f"reading {raw.case_id}")
            try:
                data.decode(raw)
            except UserError as fault:
                found.append(Finding("fault", "files", str(fault), _files(raw), [raw.case_id]))
    return found or [Finding("fault", "files", str(error))]


def _files(raw: RawCase) -> list[str]:
    return [str(path) for path in raw.files[:1]]


def _compare_store(data: Dataset, progress: Progress) -> list[Finding]:
    """Checksums of the prepared arrays."""
    progress(0, 1, "checksums")
    found = []
    now = checksums(data.store.folder)
    for name, array in (("images_sha256", "images"), ("masks_sha256", "masks")):
        known = data.store.meta.get(name)
        path = data.store.folder / f"{array}.npy"
        if known is None:
            found.append(Finding("note", "checksums", f"no checksum of {array} was recorded by an older version"))
        elif known != now[name]:
            what = f"{path} has SHA-256 {now[name][:16]}…, recorded was {known[:16]}…: delete {path.parent}, run again"
            found.append(Finding("fault", "checksums", what, [str(path)]))
    return found


def _compare_files(data: Dataset, path: Path, progress: Progress) -> list[Finding]:
    """The user's files against a list of checksums (``sha256sum`` and the like, or a table with a column of them)."""
    wanted = read_checksums(path)
    used = {f.resolve() for raw in data.cases for f in raw.files} if isinstance(data, FileDataset) else set[Path]()
    below = {(path.parent / name).resolve(): (name, value) for name, value in wanted.items()}
    chosen = {file: known for file, known in below.items() if file in used}
    found = []
    for number, (file, (_, value)) in enumerate(sorted(chosen.items())):
        progress(number, len(chosen), "checksums of files")
        kind = {32: "md5", 40: "sha1", 64: "sha256"}[len(value)]
        with file.open("rb") as stream:
            now = hashlib.file_digest(stream, kind).hexdigest()
        if now != value:
            what = f"{file} has {kind} {now}, but {path.name} says {value}: get the file again"
            found.append(Finding("fault", "checksums", what, [str(file)]))
    unlisted = len(used - set(below))
    if not chosen:
        found.append(Finding("fault", "checksums", f"{path} lists none of the {len(used)} files that are used"))
    else:
        more = f"; {unlisted} used files are not listed" if unlisted else ""
        level: Literal["note", "warning"] = "warning" if unlisted else "note"
        found.append(Finding(level, "checksums", f"{len(chosen)} files compared with {path.name}{more}"))
    return found


def read_checksums(path: Path) -> dict[str, str]:
    """Relative path to hexadecimal digest (MD5, SHA-1 or SHA-256), from lines that hold both.

    Raises:
        UserError: not readable, no such line, a path that is absolute, leads out of the folder or holds NUL.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of checksums ({error}); give a text file") from error
    found = {}
    for line in lines:
        words = line.split("\t") if "\t" in line else line.split(maxsplit=1)
        digests = [w for w in words if len(w) in (32, 40, 64) and set(w.lower()) <= set("0123456789abcdef")]
        names = [w.strip().lstrip("*") for w in words if w not in digests and not w.strip().isdigit()]
        if len(digests) != 1 or len(names) != 1:
            continue
        if "\0" in names[0]:  # no file can have that name
            raise UserError(f"{path} names {ascii(names[0])[:200]}, which no file can be called; get the list again")
        if Path(names[0]).is_absolute() or ".." in Path(names[0]).parts:
            raise UserError(f"{path} names {names[0]!r}, which leads out of its folder; give paths relative to it")
        found[names[0]] = digests[0].lower()
    if not found:
        raise UserError(f"{path} holds no line with a path and a checksum; give the output of sha256sum or a table")
    return found


# -- arrays ---------------------------------------------------------------------------------------


class _Scan:
    """One pass over all arrays."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        described = data.describe()
        self.layout, self.slots = ClassLayout.of(described), described.raters
        self.ids = described.rater_ids
        self.image_hash: list[bytes | None] = []  # None: a constant image
        self.low, self.high = np.full(described.channels, np.inf), np.full(described.channels, -np.inf)
        self.values: set[int] = set()
        self.seen, self.empty = np.zeros(self.slots, np.int64), np.zeros(self.slots, np.int64)
        self.area = np.zeros(self.slots)
        self.same, self.both = (np.zeros((self.slots, self.slots), np.int64) for _ in range(2))
        self.bad: dict[str, list[int]] = defaultdict(list)
        files = {raw.case_id: raw for raw in data.cases} if isinstance(data, FileDataset) else {}
        self.raw = [files.get(r.meta.get("volume", r.case_id)) for r in data.records]

    def run(self, progress: Progress) -> None:
        most = 1 if self.layout.kind == "overlapping" else self.layout.classes
        store = self.data.store
        row_bytes = max(array[:1].nbytes for array in (store.images, store.masks))
        step = max(1, _BYTES_AT_ONCE // row_bytes)
        for start in range(0, len(self.data), step):
            rows = range(start, min(start + step, len(self.data)))
            progress(start, len(self.data), "values")
            images, masks, valid = self.data.arrays(rows)
            finite = np.isfinite(images).reshape(len(images), -1).all(1)
            self.bad["not finite"] += [r for r, fine in zip(rows, finite, strict=True) if not fine]
            flat = images.reshape(*images.shape[:2], -1)
            low, high = flat.min(2), flat.max(2)
            if finite.any():
                self.low = np.minimum(self.low, low[finite].min(0))
                self.high = np.maximum(self.high, high[finite].max(0))
            constant = (low == high).all(1)
            self.bad["constant"] += [r for r, flag in zip(rows, constant, strict=True) if flag]
            stored = store.masks[start : rows.stop]
            self.values |= set(np.flatnonzero(np.bincount(stored.ravel(), minlength=256)).tolist())
            if max(self.values) > most:
                self.bad["values"] += [r for r, m in zip(rows, stored, strict=True) if m.max() > most]
            unseen = ~store.rater_valid[start : rows.stop]
            hidden = (stored.reshape(*stored.shape[:2], -1).max(2) > 0) & unseen
            self.bad["absent"] += [rows[i] for i in np.flatnonzero(hidden.sum(1))]
            self.bad["nobody"] += [rows[i] for i in np.flatnonzero(valid.sum(1) == 0)]
            self._raters(rows, masks, valid)
            for row, image, flag in zip(rows, images, constant, strict=True):
                digest = None if flag else hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
                assert len(self.image_hash) == row
                self.image_hash.append(digest)

    def _raters(self, rows: Iterable[int], masks: np.ndarray, valid: np.ndarray) -> None:
        flat = masks.reshape(*masks.shape[:2], -1)
        area = np.count_nonzero(flat, axis=2)
        self.seen += valid.sum(0)
        self.area += (area * valid).sum(0)
        empty = valid & (area == 0)
        self.empty += empty.sum(0)
        self.bad["empty"] += [r for r, e, v in zip(rows, empty.sum(1), valid.sum(1), strict=True) if e == v > 0]
        drawn = valid & (area > 0)
        for a in range(self.slots - 1):
            pairs = drawn[:, a, None] & drawn[:, a + 1 :]
            if pairs.any():
                same = (flat[:, a, None] == flat[:, a + 1 :]).all(2)
                self.both[a, a + 1 :] += pairs.sum(0)
                self.same[a, a + 1 :] += (pairs & same).sum(0)

    def facts(self) -> dict[str, Any]:
        raters = [
            {
                "rater": name,
                "rows": int(self.seen[r]),
                "missing": len(self.data) - int(self.seen[r]),
                "empty": int(self.empty[r]),
                "mean_area": float(self.area[r] / self.seen[r]) if self.seen[r] else None,
            }
            for r, name in enumerate(self.ids)
        ]
        ranges = [[float(a), float(b)] for a, b in zip(self.low, self.high, strict=True)]
        return {"mask_values": sorted(self.values), "image_range": ranges, "raters": raters}

    def name(self, rows: Sequence[int]) -> tuple[list[str], list[str]]:
        """Files and cases of some rows, the first few."""
        raws = [self.raw[r] for r in rows[:_SHOWN]]
        return (
            [str(raw.files[0]) for raw in raws if raw is not None],
            [self.data.records[r].case_id for r in rows[:_SHOWN]],
        )

    def findings(self) -> list[Finding]:
        total = len(self.data)
        texts: dict[str, tuple[Literal["fault", "warning", "note"], str, str]] = {
            "not finite": ("fault", "values", "images hold values that are not finite"),
            "values": ("fault", "values", f"masks hold values above the number of classes: {sorted(self.values)}"),
            "absent": ("fault", "raters", "masks of raters who are declared absent are not empty"),
            "nobody": ("fault", "raters", "no rater saw the case"),
            "constant": ("warning", "values", "images have one value everywhere"),
            "empty": ("note", "raters", "all raters who saw it left it empty"),
        }
        found = []
        for kind, (level, check, text) in texts.items():
            if rows := self.bad[kind]:
                found.append(Finding(level, check, f"{text} ({len(rows)} of {total} rows)", *self.name(rows)))
        for a, b in combinations(range(self.slots), 2):
            both, same = int(self.both[a, b]), int(self.same[a, b])
            if both >= 3 and same > both / 2:
                what = f"raters {self.ids[a]} and {self.ids[b]} drew the same mask in {same} of {both} rows: copies?"
                found.append(Finding("warning", "raters", what))
        never = [name for name, seen in zip(self.ids, self.seen, strict=True) if not seen]
        if never:
            found.append(Finding("fault", "raters", f"raters without any case: {', '.join(never)}"))
        return found


# -- splits ---------------------------------------------------------------------------------------


def _sizes(split: Split) -> dict[str, Any]:
    parts = {part: len(rows) for part, rows in split.parts.items()}
    return {"split": split.name, "fold": split.fold, "hash": split.hash, **parts}


def _splits(data: Dataset, splits: Sequence[Split]) -> list[Finding]:
    """Patients in several parts, empty parts."""
    found = []
    patients = {r.patient_id for r in data.records}
    for split in splits:
        where = f"split {split.name}, fold {split.fold}"
        for people, level, what in (
            (split.shared, "fault", "stand in training and in another part"),
            (split.selected, "warning", "stand in validation and test"),
        ):
            if people:
                text = f"{where}: {len(people)} of {len(patients)} patients {what}: {_few(people)}"
                found.append(Finding(level, "patients", text))  # type: ignore[arg-type]
        lacking = [part for part, rows in split.parts.items() if not len(rows)]
        if lacking:
            text = f"{where}: no case in {' and '.join(lacking)}; the split needs more patients, or is another's"
            found.append(Finding("warning", "splits", text))
    return found


def _duplicates(data: Dataset, splits: Sequence[Split], scan: _Scan) -> list[Finding]:
    """Equal images, by content: in several parts of a fold, under several patients, or simply twice."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(scan.image_hash):
        if digest is not None:
            groups[digest].append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    if not repeated:
        return []
    part_of: list[dict[int, set[str]]] = []
    for split in splits:
        places: dict[int, set[str]] = defaultdict(set)
        for part, members in split.parts.items():
            for row in members.tolist():
                places[row].add(part)
        part_of.append(places)
    found = []
    for rows in repeated:
        files, cases = scan.name(rows)
        across = [
            (fold, parts)
            for fold, places in enumerate(part_of)
            if len(parts := set().union(*(places[r] for r in rows))) > 1 and "train" in parts
        ]
        people = sorted({data.records[r].patient_id for r in rows})
        what = f"one image {len(rows)} times: {_few([data.records[r].case_id for r in rows])}"
        if across:
            fold, parts = across[0]
            text = f"{what}; fold {fold} has it in {' and '.join(sorted(parts))}"
            found.append(Finding("fault", "duplicates", text, files, cases))
        elif len(people) > 1:
            text = f"{what}, under the patients {_few(people)}; a split may part them"
            found.append(Finding("warning", "duplicates", text, files, cases))
        elif len({data.records[r].meta.get("volume") for r in rows}) > 1 or "volume" not in data.records[rows[0]].meta:
            found.append(Finding("warning", "duplicates", f"{what}, of one patient", files, cases))
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", … ({len(names)})" if len(names) > _SHOWN else "")
