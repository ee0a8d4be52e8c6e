"""Which files of a folder are the image and the masks of which case."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UserError
from .folder_config import FolderConfig
from .listed_files import WHOLE, ListedCase
from .patterns import Pattern, files_below, natural

_NARROW = "narrow the pattern with {case:regex}, or remove one of the files"


@dataclass
class Listing:
    """What the patterns found."""

    cases: list[ListedCase]
    raters: tuple[str, ...]
    classes: tuple[str, ...]
    left_out: list[str]  # cases with an image but no mask of any chosen rater
    masks_without_image: list[str]  # paths below the root of masks of chosen raters and classes


def list_folder(root: Path, config: FolderConfig) -> Listing:
    """Cases, raters and classes of a folder by the patterns of its YAML.

    Raises:
        UserError: a pattern matches nothing, two files claim one place, a declared rater or class has no file, a
            folder cannot be read, a file name is not UTF-8.
    """
    files = files_below(root)
    if not files:
        raise UserError(f"dataset.root {str(root)!r} is empty; give the folder that holds the files")
    keys = tuple(f for f in ("patient", "case") if f in config.mask.fields)
    fold = str.casefold if config.ignore_case else str
    cases: dict[tuple[str, ...], ListedCase] = {}
    for path, fields in _matches(root, files, config.image, "image"):
        key = tuple(fold(fields[k]) for k in keys)
        if key in cases:
            raise UserError(f"{cases[key].image} and {path} are both the image of case {'/'.join(key)!r}; {_NARROW}")
        case_id = "/".join(fields[k] for k in keys)
        cases[key] = ListedCase(case_id, fields.get("patient") or _patient(case_id, config), path)
    # Two spellings of one patient would be two patients, whom a split may part. The choice must not hang on the paths.
    patients = {fold(p): p for p in sorted({case.patient_id for case in cases.values()}, reverse=True)}
    for case in cases.values():
        case.patient_id = patients[fold(case.patient_id)]

    found = [
        (tuple(fold(fields[k]) for k in keys), fields["rater"], fields.get("class", WHOLE), path)
        for path, fields in _matches(root, files, config.mask, "mask")
    ]
    raters = _chosen("rater", config.raters, {rater for _, rater, _, _ in found}, config)
    per_class = "class" in config.mask.fields
    names = _chosen("class", config.classes, {name for _, _, name, _ in found}, config) if per_class else (WHOLE,)
    spelling = {fold(n): n for n in (*raters, *names)}
    orphans: list[str] = []
    for key, rater, name, path in found:
        if fold(rater) not in map(fold, raters) or fold(name) not in map(fold, names):
            continue
        if key not in cases:
            orphans.append(path.relative_to(root).as_posix())
            continue
        by_class = cases[key].masks.setdefault(spelling[fold(rater)], {})
        other = by_class.setdefault(spelling[fold(name)], path)
        if other != path:
            raise UserError(
                f"{other} and {path} are both the mask of rater {rater!r} for case {cases[key].case_id!r}; {_NARROW}"
            )
    used = sorted((c for c in cases.values() if c.masks), key=lambda c: natural(c.case_id))
    if not used:
        image, mask = next(iter(cases.values())), found[0]
        raise UserError(
            f"no image has a mask: {image.image} is case {image.case_id!r}, and {mask[3]} is of case "
            f"{'/'.join(mask[0])!r}; make {{case}} of both patterns agree"
        )
    _check_classes(used, names)
    left_out = sorted((c.case_id for c in cases.values() if not c.masks), key=natural)
    count = config.foreground.count
    shown = names if per_class else config.classes or tuple(str(k + 1) for k in range(count))
    return Listing(used, raters, shown, left_out, orphans)


def _check_classes(cases: list[ListedCase], names: tuple[str, ...]) -> None:
    """A rater of a case has a file for every class: whether one left out is empty or absent cannot be told."""
    for case in cases:
        for rater, files in case.masks.items():
            lacking = next((name for name in names if name not in files), None)
            if lacking is not None:
                raise UserError(
                    f"rater {rater!r} of case {case.case_id!r} has a mask for class {next(iter(files))!r} but none for "
                    f"{lacking!r}; add it (empty if the rater saw none) or remove that rater's masks of the case"
                )


def _matches(root: Path, files: list[str], pattern: Pattern, what: str) -> list[tuple[Path, dict[str, str]]]:
    found = [(root / f, fields) for f in files if (fields := pattern.match(f)) is not None]
    if not found:
        suffix = Path(pattern.text).suffix.lower()
        example = next((f for f in files if f.lower().endswith(suffix)), files[0])
        raise UserError(
            f"{what} pattern {pattern.text!r} matches none of the {len(files)} files below {root}, for example not "
            f"{example!r}; mend the pattern"
            + ("" if pattern.regex.flags & re.IGNORECASE else " or set ignore_case: true")
        )
    return found


def _chosen(what: str, wanted: tuple[str, ...] | None, found: set[str], config: FolderConfig) -> tuple[str, ...]:
    """The declared raters or classes, each of which must exist; else all that were found, in natural order."""
    fold = str.casefold if config.ignore_case else str
    unique = {fold(name): name for name in sorted(found, reverse=True)}
    if wanted is None:
        return tuple(sorted(unique.values(), key=natural))
    for name in wanted:
        if fold(name) not in unique:
            raise UserError(
                f"{what} {name!r} of the YAML has no mask; found are {', '.join(sorted(unique.values(), key=natural))}"
            )
    return wanted


def _patient(case_id: str, config: FolderConfig) -> str:
    if config.patient is None:
        return case_id
    found = config.patient.search(case_id)
    text = found and (found.group(1) if config.patient.groups else found.group())
    if not text:
        raise UserError(f"patient {config.patient.pattern!r} does not match case {case_id!r}; mend the expression")
    return text
