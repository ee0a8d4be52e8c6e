"""Reading the JSON of a `manifest`: keys, paths that stay below its folder, and cases (docs/generic.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import UserError, brief, unknown
from ..core.options import check_value
from .folder_config import KEYS, Foreground, foreground_rule
from .listed_files import WHOLE, ListedCase, Reading
from .patterns import natural

_LARGEST = 64 << 20
_PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
_LISTS = {"training": "train", "train": "train", "validation": "val", "val": "val", "test": "test", "cases": ""}
_RULES = (
    "raters", "identity", "foreground", "background", "classes", "overlapping", "channels", "window", "spacing",
    "notice",
)  # fmt: skip
_DECATHLON = (
    "name", "description", "reference", "licence", "license", "release", "relase", "tensorImageSize", "modality",
    "labels", "numTraining", "numTest", "numValidation",
)  # fmt: skip
_ENTRY = ("image", "labels", "label", "patient", "split", "case")


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        left_out: ids of entries without any mask, such as decathlon's test images.
        patients: whether the entries name their patients.
    """

    reading: Reading
    cases: list[ListedCase]
    raters: tuple[str, ...]
    left_out: list[str]
    patients: bool
    notice: str


def read_manifest(path: Path) -> Manifest:
    """The cases of a JSON file.

    Raises:
        UserError: no JSON, an unknown key, a value of a wrong type, a path that is absolute, leads out of the folder of
            the manifest or does not exist.
    """
    given = _parse(path)
    if isinstance(given, list):
        given = {"cases": given}
    if not isinstance(given, dict):
        raise UserError(f"{path} must hold a list of cases, or an object with such lists, but holds {_shown(given)}")
    for key in given:
        if key not in (*_RULES, *_DECATHLON, *_LISTS):
            raise unknown(f"key in {path}:", key, (*_RULES, *_LISTS, "labels"))
    entries = [(part, entry) for key, part in _LISTS.items() for entry in _list(path, key, given.get(key))]
    if not entries:
        raise UserError(f"{path} lists no case; give a list of cases, or one of {', '.join(_LISTS)}")
    found = [_case(path, number, part, entry) for number, (part, entry) in enumerate(entries, 1)]
    named = [case.patient_id != "" for case in found]
    if any(named) and not all(named):
        lacking = found[named.index(False)]
        raise UserError(f"{path}: case {lacking.case_id!r} has no patient, but others have; give all of them one")
    for case in found:
        case.patient_id = case.patient_id or case.case_id
    options = _options(path, given)
    used = [case for case in found if case.masks]
    if not used:
        raise UserError(f"{path} gives no case a mask; add labels: {{rater: path}} to the cases")
    raters = _names(path, "rater", options.get("raters"), {r for case in used for r in case.masks})
    for case in used:
        case.masks = {r: case.masks[r] for r in raters if r in case.masks}
    kept = [case for case in used if case.masks]
    reading = _reading(path, options, kept)
    left = [case.case_id for case in found if not case.masks]
    return Manifest(reading, kept, raters, sorted(left, key=natural), all(named), options.get("notice", ""))


def _parse(path: Path) -> Any:
    try:
        if not path.is_file():
            raise UserError(f"{path} {'is no regular file' if path.exists() else 'does not exist'}; give the JSON file")
        if path.stat().st_size > _LARGEST:
            raise UserError(f"{path} has more than {_LARGEST >> 20} MiB; split the manifest")
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON file that can be read ({brief(error)}); mend it") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} stands twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _list(path: Path, key: str, value: Any) -> Iterable[Any]:
    if value is not None and not isinstance(value, list):
        raise UserError(f"{path}: {key} must be a list of cases, but is {_shown(value)}")
    return value or ()


# -- cases --------------------------------------------------------------------------------------


def _case(path: Path, number: int, part: str, entry: Any) -> ListedCase:
    where = f"{path}, case {number}"
    if isinstance(entry, str):  # decathlon lists test images so
        entry = {"image": entry}
    if not isinstance(entry, dict):
        raise UserError(f"{where}: {_shown(entry)} is no object with image and labels")
    for key in entry:
        if key not in _ENTRY:
            raise unknown(f"key in {where}:", key, _ENTRY)
    images = entry.get("image")
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not images:
        raise UserError(f"{where}: image is {_shown(images)}; give the path of a file, or a list of them as channels")
    files = tuple(_below(path, where, value) for value in images)
    case_id = _text(where, "case", entry.get("case")) or _stem(images[0])
    _text(where, "case", case_id)
    if "labels" in entry and "label" in entry:
        raise UserError(f"{where} has labels and label; keep labels")
    masks = _labels(path, where, entry.get("labels", entry.get("label")))
    split = entry.get("split")
    if split is not None and (not isinstance(split, str) or split.lower() not in _PARTS):
        raise UserError(f"{where}: split is {_shown(split)}; give train, val or test")
    own = _PARTS[split.lower()] if split else part
    if part and own != part:
        raise UserError(f"{where}: split is {split!r}, but the case stands in the list of the {part} part; remove one")
    return ListedCase(
        case_id, _text(where, "patient", entry.get("patient")), files[0], masks, further=files[1:], part=own
    )


def _labels(path: Path, where: str, given: Any) -> dict[str, dict[str, Path]]:
    if given is None:
        return {}
    if isinstance(given, str):
        given = {"1": given}
    if isinstance(given, list):
        given = {str(k): value for k, value in enumerate(given, 1)}
    if not isinstance(given, dict):
        raise UserError(f"{where}: labels is {_shown(given)}; give {{rater: path}}")
    masks: dict[str, dict[str, Path]] = {}
    owner: dict[Path, str] = {}
    for rater, value in given.items():
        if value is None:  # said to be absent
            continue
        name = _text(where, "a rater", rater, needed=True)
        files = value if isinstance(value, dict) else {WHOLE: value}
        if not files:
            raise UserError(f"{where}: rater {name!r} has no file; give a path, or null if this rater is absent")
        for label, file in files.items():
            if label != WHOLE:
                _text(where, "a class", label, needed=True)
            found = _below(path, where, file)
            if found in owner:
                raise UserError(f"{where}: {file!r} is given as two masks, of {owner[found]!r} and {name!r}; mend one")
            owner[found] = name
            masks.setdefault(name, {})[label] = found
    return masks


def _below(path: Path, where: str, value: Any) -> Path:
    """A file below the folder of the manifest, links resolved."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise UserError(f"{where}: {_shown(value)} is no path of a file")
    shown = ascii(value)[:120]
    pure = PurePosixPath(value)
    if pure.is_absolute() or ".." in pure.parts:
        raise UserError(
            f"{where}: the path {shown} leads out of the folder of the manifest; give paths relative to it, without .."
        )
    found = path.parent / pure
    try:
        inside = found.resolve(strict=True).is_relative_to(path.parent.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links, a name that is too long
        why = getattr(error, "strerror", None) or "links in a circle"
        raise UserError(f"{where}: the file {shown} cannot be found: {why.lower()}; mend the path") from error
    except ValueError as error:  # lone surrogates
        raise UserError(f"{where}: {shown} is no path of a file") from error
    if not inside:
        raise UserError(f"{where}: the path {shown} is a link out of the folder of the manifest; copy the file into it")
    if not found.is_file():
        raise UserError(f"{where}: {shown} is no regular file; give a picture or a volume")
    return found


def _stem(value: str) -> str:
    """The path without its suffix."""
    pure = PurePosixPath(value)
    name = pure.name
    for suffix in (".nii.gz", pure.suffix):
        if suffix and name.lower().endswith(suffix.lower()):
            name = name[: -len(suffix)]
            break
    return str(pure.with_name(name)) if name else value


def _text(where: str, what: str, value: Any, needed: bool = False) -> str:
    """A name; whole numbers are taken as written. Empty if there is none."""
    if value is None and not needed:
        return ""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text or not text.isprintable() or len(text) > 255:
        raise UserError(f"{where}: {what} is {_shown(value)}; give up to 255 printable characters")
    return text


# -- rules --------------------------------------------------------------------------------------


def _options(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    rules = {key: given[key] for key in _RULES if given.get(key) is not None}
    if isinstance(rules.get("foreground"), dict):
        rules["foreground"] = {_number(key): value for key, value in rules["foreground"].items()}
    labels = given.get("labels")
    if labels is not None and "foreground" not in rules:
        # decathlon: {"0": "background", "1": "liver", ...}
        if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
            raise UserError(f"{path}: labels is {_shown(labels)}; give names to values, such as {{'0': 'background'}}")
        wrong = [key for key in labels if isinstance(_number(key), str)]
        if wrong:
            raise UserError(f"{path}: labels has the value {wrong[0]!r}, which is no number")
        classes = sorted((float(key), name) for key, name in labels.items() if float(key) != 0)
        rules["foreground"] = {value: k for k, (value, _) in enumerate(classes, 1)}
        rules.setdefault("background", [0.0])
        rules.setdefault("classes", [name for _, name in classes])
    return {key: check_value(f"{path}: {key}", KEYS[key], value) for key, value in rules.items()}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _reading(path: Path, options: Mapping[str, Any], cases: list[ListedCase]) -> Reading:
    split = {WHOLE not in by_class for case in cases for by_class in case.masks.values()}
    if len(split) > 1:
        raise UserError(f"{path} has masks of all classes and masks of one class; give every rater the same kind")
    per_class = split.pop()
    rule: Foreground = foreground_rule(options.get("foreground"), options.get("background"), path)
    if per_class:
        found = {name for case in cases for by_class in case.masks.values() for name in by_class}
        classes = _names(path, "class", options.get("classes"), found)
        if rule.count > 1:
            raise UserError(f"{path} has a file for every class, so foreground must tell only it from background")
        for case in cases:
            for rater, by_class in case.masks.items():
                lacking = [name for name in classes if name not in by_class]
                if lacking:
                    raise UserError(
                        f"{path}: rater {rater!r} of case {case.case_id!r} has no mask of class {lacking[0]!r}; add an "
                        f"empty one, or leave that rater out of the case"
                    )
    else:
        classes = tuple(options.get("classes") or (str(k + 1) for k in range(rule.count)))
        if len(classes) != rule.count or len(set(classes)) < len(classes):
            raise UserError(f"{path} names the classes {list(classes)}, but foreground has {rule.count} classes")
        if "overlapping" in options:
            raise UserError(f"{path}: overlapping applies only with a file for every class; remove it")
    window, spacing = options.get("window"), options.get("spacing")
    if window and window[0] >= window[1]:
        raise UserError(f"{path}: window {list(window)} must be [low, high] with low < high")
    meaning = {
        k: options[k]
        for k in ("foreground", "background", "channels", "window", "spacing", "overlapping")
        if k in options
    }
    if isinstance(meaning.get("foreground"), dict):
        meaning["foreground"] = sorted(map(list, meaning["foreground"].items()))
    return Reading(
        foreground=rule,
        classes=classes,
        overlapping=options.get("overlapping", per_class),
        channels=options.get("channels", "grey"),
        window=window,
        spacing=spacing if isinstance(spacing, tuple) or spacing is None else (spacing, spacing),
        identity=options.get("identity", "none"),
        where="manifest",
        meaning=meaning,
    )


def _names(path: Path, what: str, wanted: list[str] | None, found: set[str]) -> tuple[str, ...]:
    """The declared names, each of which must occur; else all that occur, in natural order."""
    if wanted is None:
        return tuple(sorted(found, key=natural))
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"{path}: {what}s {wanted} must be a list of different names, at least one")
    for name in wanted:
        if name not in found:
            raise UserError(f"{path}: {what} {name!r} has no mask; found are {', '.join(sorted(found, key=natural))}")
    return tuple(wanted)


def _shown(value: Any) -> str:
    return ascii(value)[:60]
