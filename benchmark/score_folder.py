"""A folder of masks and predictions as cases to score: patterns say which file is what (docs/folder.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError, unknown
from ..datasets.folder_config import Foreground
from ..datasets.patterns import Pattern, compile_pattern, files_below, natural
from ..metrics.case import CaseView
from ..metrics.inputs import read_case
from .score import naming
from .score_files import Array, labels_of, probabilities_of, read_array

# Fields of each pattern: those it needs, those it may have beside.
FIELDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "raters": (("case", "rater"), ("patient",)),
    "samples": (("case",), ("patient", "sample")),
    "probs": (("case",), ("patient", "sample")),
    "rater_probs": (("case", "rater"), ("patient",)),
    "mean_prob": (("case",), ("patient",)),
    "uncertainty": (("case",), ("patient",)),
}
PREDICTIONS = ("samples", "probs", "rater_probs", "mean_prob", "uncertainty")
_NARROW = "narrow the pattern with {case:regex}, or remove one of the files"
Key = tuple[str, ...]


def option(name: str) -> str:
    """``--rater-probs`` of ``rater_probs``."""
    return "--" + name.replace("_", "-")


@dataclass
class FolderCase:
    """Files of a case: by role, then by rater or sample (nothing where the pattern has neither)."""

    case_id: str
    files: dict[str, dict[str, Path]] = field(default_factory=dict)


class ScoreFolder:
    """Cases of a folder; one at a time is in memory.

    Args:
        root: the folder.
        patterns: pattern of each role; ``raters`` and at least one prediction.
        spatial_dims: 2 or 3.
        classes: labels to evaluate; the masks are then class maps. None: masks of one class.
        foreground: which mask values are foreground; None: 0 and 1, or 0 and 255, JPEG cut at > 127.
        spacing: millimetres per pixel of each axis; None: as the headers of NIfTI files say.
        ignore_case: match names without regard to case.

    Raises:
        UserError: a bad pattern, one that matches nothing, two files for one place, a case without a prediction, cases
            with different numbers of samples.
    """

    def __init__(
        self,
        root: Path,
        patterns: Mapping[str, str],
        spatial_dims: int = 2,
        classes: Sequence[int] | None = None,
        foreground: Foreground | None = None,
        spacing: Sequence[float] | None = None,
        ignore_case: bool = False,
    ) -> None:
        if "raters" not in patterns:
            raise UserError(
                f"{root} is a folder; say which files are the raters' masks with --raters PATTERN, for example "
                f"--raters 'gt/{{case}}_r{{rater}}.png'"
            )
        if not any(name in patterns for name in PREDICTIONS[:4]):
            raise UserError(
                f"{root} is a folder; say which files are the predictions with --samples, --probs, --rater-probs or "
                f"--mean-prob PATTERN, for example --samples 'pred/{{case}}_s{{sample}}.png'"
            )
        self.root = root
        self.spatial_dims = spatial_dims
        self.classes = None if classes is None else list(classes)
        self.foreground = foreground or Foreground()
        self.spacing = spacing
        self.patterns = _compiled(patterns, ignore_case)
        self.notes: list[str] = []
        self._fold = str.casefold if ignore_case else str
        self.only_ones: Path | None = None  # a probability file whose whole numbers are 0 and 1
        self.larger = False  # whether another one has larger numbers
        self._list()

    @property
    def given(self) -> frozenset[str]:
        return frozenset(name for name in PREDICTIONS if name in self.patterns)

    @property
    def case_ids(self) -> list[str]:
        return [case.case_id for case in self.cases]

    # -- which files ------------------------------------------------------------------------------

    def _list(self) -> None:
        files = files_below(self.root)
        if not files:
            raise UserError(f"{self.root} is an empty folder; give the folder that holds the files")
        shared = tuple(k for k in ("patient", "case") if all(k in p.fields for p in self.patterns.values()))
        cases: dict[Key, FolderCase] = {}
        slots: dict[str, str] = {}
        orphans: list[str] = []
        for role, pattern in self.patterns.items():
            for path, fields in self._matches(files, role, pattern):
                key = tuple(self._fold(fields[k]) for k in shared)
                if role == "raters":
                    cases.setdefault(key, FolderCase("/".join(fields[k] for k in shared)))
                elif key not in cases:
                    orphans.append(path.relative_to(self.root).as_posix())
                    continue
                name = fields.get("rater", fields.get("sample", ""))
                if "rater" in fields:  # one spelling for each rater
                    known = slots.get(self._fold(name), name)
                    name = slots.setdefault(self._fold(name), name) if role == "raters" else known
                other = cases[key].files.setdefault(role, {}).setdefault(name, path)
                if other != path:
                    raise UserError(f"{other} and {path} both match {option(role)} for one place; {_NARROW}")
        self.rater_ids = tuple(sorted(slots.values(), key=natural))
        self.cases = sorted(cases.values(), key=lambda case: natural(case.case_id))
        if orphans:
            more = f" and {len(orphans) - 1} more" if len(orphans) > 1 else ""
            self.notes.append(f"not used, no rater has a mask of their case: {orphans[0]}{more}")
        self._check_complete()

    def _matches(self, files: list[str], role: str, pattern: Pattern) -> list[tuple[Path, dict[str, str]]]:
        found = [(self.root / f, fields) for f in files if (fields := pattern.match(f)) is not None]
        if not found:
            raise UserError(
                f"{option(role)} {pattern.text!r} matches none of the {len(files)} files below {self.root}, for "
                f"example not {files[0]!r}; mend the pattern"
            )
        return found

    def _check_complete(self) -> None:
        """A missing rater is no error; a missing prediction is, for no score can stand for it."""
        first = self.cases[0]
        for case in self.cases:
            for role in self.given:
                pattern = self.patterns[role].text
                if role not in case.files:
                    raise UserError(
                        f"case {case.case_id!r} has masks of raters but no file for {option(role)} {pattern!r}; add "
                        f"it, or leave the case's masks out"
                    )
                if role in ("samples", "probs") and len(case.files[role]) != len(first.files[role]):
                    raise UserError(
                        f"case {case.case_id!r} has {len(case.files[role])} files for {option(role)}, case "
                        f"{first.case_id!r} has {len(first.files[role])}; give every case the same number of samples"
                    )
            for rater in case.files["raters"] if "rater_probs" in self.given else ():
                if rater not in case.files["rater_probs"]:
                    raise UserError(
                        f"case {case.case_id!r} has no file for --rater-probs of rater {rater!r}, who annotated it; "
                        f"add it, or leave the option out"
                    )
        if "samples" in self.given and "probs" in self.given:
            for case in self.cases:
                if set(case.files["samples"]) != set(case.files["probs"]):
                    raise UserError(
                        f"case {case.case_id!r} has other samples for --samples than for --probs; give the same "
                        f"samples in both, or one of the two options"
                    )

    # -- what they hold -----------------------------------------------------------------------------

    def views(self) -> Iterator[CaseView]:
        for case in self.cases:
            yield self._view(case)
        if self.only_ones and not self.larger:
            raise UserError(
                f"all probability files hold 0 and 1 only, for example {self.only_ones}, and whole numbers are "
                f"divided by the largest of their type; give masks as --samples"
            )

    def _view(self, case: FolderCase) -> CaseView:
        reader = _Reader(self)
        files = case.files
        inputs: dict[str, Any] = {}
        present = [rater in files["raters"] for rater in self.rater_ids]
        raters = _stack(files["raters"], self.rater_ids, reader.mask)
        if "samples" in files:
            inputs["samples"] = _stack(files["samples"], sorted(files["samples"], key=natural), reader.mask)
        if "probs" in files:
            inputs["probs"] = _stack(files["probs"], sorted(files["probs"], key=natural), reader.probability)
        if "rater_probs" in files:
            maps = {rater: path for rater, path in files["rater_probs"].items() if rater in files["raters"]}
            inputs["rater_probs"] = _stack(maps, self.rater_ids, reader.probability)
        for role, read in (("mean_prob", reader.probability), ("uncertainty", reader.values)):
            if role in files:
                inputs[role] = read(files[role][""])
        with naming(case.case_id):
            return read_case(raters, **inputs, rater_valid=present, classes=self.classes, spacing=reader.spacing)


class _Reader:
    """Reads the files of one case, which must lie on one grid."""

    def __init__(self, folder: ScoreFolder) -> None:
        self._folder = folder
        self._first: Array | None = None
        self.spacing = None if folder.spacing is None else tuple(folder.spacing)

    def _array(self, path: Path, labels: bool) -> Array:
        folder = self._folder
        array = read_array(path, folder.spatial_dims, labels)
        self._first = self._first or array
        array.check_same_grid(self._first, folder.spatial_dims, headers=folder.spacing is None)
        self.spacing = self.spacing or array.spacing
        return array

    def mask(self, path: Path) -> NDArray:
        return labels_of(self._array(path, True), self._folder.foreground, self._folder.classes is not None)

    def probability(self, path: Path) -> NDArray:
        values, ones = probabilities_of(self._array(path, False))
        if ones:
            self._folder.only_ones = path
        self._folder.larger = self._folder.larger or ones is False
        return values

    def values(self, path: Path) -> NDArray:
        return self._array(path, False).values


def _stack(files: Mapping[str, Path], names: Sequence[str], read: Callable[[Path], NDArray]) -> NDArray:
    """Arrays by name, one after the other; zeros stand for a missing rater, whose slot is not looked at."""
    found = {name: read(files[name]) for name in names if name in files}
    example = next(iter(found.values()))
    return np.stack([found[name] if name in found else np.zeros_like(example) for name in names])


def _compiled(patterns: Mapping[str, str], ignore_case: bool) -> dict[str, Pattern]:
    """Checked patterns, raters first; an expression given for a field in one holds in all."""
    order = [name for name in FIELDS if name in patterns]
    shared: dict[str, str] = {}
    for name in reversed(order):
        shared |= compile_pattern(patterns[name], ignore_case).expressions
    out = {}
    for name in order:
        pattern = compile_pattern(patterns[name], ignore_case, MappingProxyType(shared))
        needed, others = FIELDS[name]
        for found in pattern.fields:
            if found == "class":
                raise UserError(
                    f"{option(name)} {pattern.text!r} has {{class}}: files of one class are a task of their own, so "
                    f"write the class as it stands in the names and score each"
                )
            if found not in (*needed, *others):
                raise unknown(f"field in {option(name)}", found, (*needed, *others))
        for lacking in set(needed) - set(pattern.fields):
            raise UserError(
                f"{option(name)} {pattern.text!r} lacks {{{lacking}}}; put it where the {lacking} stands in the names"
            )
        out[name] = pattern
    if len({"patient" in pattern.fields for pattern in out.values()}) > 1:
        raise UserError("{patient} stands in some of the patterns only; put it in all, or write * for it")
    return out
