"""The YAML that explains a folder of images and masks: keys, checks, and the rule that turns values into classes."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field

from ..core.errors import UserError, unknown
from ..core.options import check_value
from ..core.overrides import CoreLoader
from .image_files import distinct, lossy, two_valued
from .patterns import Pattern, compile_pattern

COMPARISONS: dict[str, Callable[[Any, float], Any]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
IDS = ("raters", "classes")  # keys whose entries are text as written: 01 is a file's "01", not 1
KEYS: dict[str, Any] = {
    "image": str,
    "mask": str,
    "ignore_case": bool,
    "raters": list[str],
    "identity": Literal["none", "consistent"],
    "foreground": str | list[Finite] | dict[Finite, Annotated[int, Field(ge=1, le=254)]],
    "background": list[Finite],
    "classes": list[str],
    "overlapping": bool,
    "channels": Literal["grey", "rgb", "as_stored"],
    "window": tuple[Finite, Finite],
    "patient": str,
    "spacing": Positive | tuple[Positive, Positive],
    "notice": str,
}


@dataclass(frozen=True)
class Foreground:
    """Which mask values are foreground, and of which class.

    Attributes:
        test: comparison and number (``("<", 128.0)``), or None.
        classes: value to class index, if listed.
        background: the only other values that may occur beside `classes`.
    """

    test: tuple[str, float] | None = None
    classes: Mapping[float, int] = field(default_factory=dict)
    background: tuple[float, ...] = ()

    @property
    def declared(self) -> bool:
        return bool(self.test or self.classes)

    @property
    def count(self) -> int:
        """Number of foreground classes."""
        return max(self.classes.values(), default=1)

    def apply(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Class indices (uint8) of a mask.

        Without a declaration values must be {0, 1} or {0, 255}; JPEG masks, which blur values, are cut at > 127.

        Raises:
            UserError: other values, named with the file.
        """
        if self.test:
            sign, number = self.test
            return np.asarray(COMPARISONS[sign](values, number), dtype=np.uint8)
        if self.classes:
            found = distinct(values)
            other = np.setdiff1d(found, [*self.classes, *self.background])
            if len(other):
                raise UserError(
                    f"{path} holds the values {_show(other)}, which are neither in foreground "
                    f"({_show(self.classes)}) nor in background ({_show(self.background)}); add them to one of the two"
                )
            out = np.zeros(values.shape, np.uint8)
            for value, index in self.classes.items():
                out[values == value] = index
            return out
        if values.dtype == np.bool_:
            return values.astype(np.uint8)
        if lossy(path):
            return (values > 127).astype(np.uint8)
        found = distinct(values)
        if not two_valued(found):
            raise UserError(
                f"{path} holds the values {_show(found)}, but a mask must hold 0 and 1, or 0 and 255, unless the YAML "
                f"declares foreground, for example foreground: '> 127' or foreground: {{1: 1, 2: 2}}"
            )
        return (values != 0).astype(np.uint8)


def _show(values: Any, most: int = 8) -> str:
    listed = [f"{float(v):g}" for v in values]
    return ", ".join(listed[:most]) + (f", … ({len(listed)} values)" if len(listed) > most else "")


@dataclass(frozen=True)
class FolderConfig:
    """A checked YAML. `meaning` is what of it changes the arrays: patterns, hence paths, are no part of it."""

    image: Pattern
    mask: Pattern
    ignore_case: bool
    raters: tuple[str, ...] | None
    identity: Literal["none", "consistent"]
    foreground: Foreground
    classes: tuple[str, ...] | None
    overlapping: bool
    channels: str
    window: tuple[float, float] | None
    patient: re.Pattern[str] | None
    patient_given: bool
    spacing: tuple[float, float] | None
    notice: str
    meaning: dict[str, Any]


class _Twice(yaml.YAMLError):
    """A key stands twice in one mapping; YAML forbids it, PyYAML keeps the last."""


class _Loader(CoreLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            seen: set[Any] = set()
            for key in (self.construct_object(k, deep=True) for k, _ in node.value):
                if key in seen:
                    raise _Twice(key)
                seen.add(key)
        return mapping


def _parse(text: str) -> Any:
    """Values by the rules of YAML 1.2, so that ``no`` is a name; the entries of `IDS` as text."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
            if key.value in IDS and isinstance(value, yaml.SequenceNode):
                for entry in value.value:
                    if isinstance(entry, yaml.ScalarNode):
                        entry.tag = "tag:yaml.org,2002:str"
        return loader.construct_document(root)
    finally:
        loader.dispose()


def read_config(path: Path) -> FolderConfig:
    """The YAML of a folder.

    Raises:
        UserError: missing, not YAML, unknown key (with the nearest), a key given twice, value of a wrong type,
            contradicting keys.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no regular file; give a YAML file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: a folder of images needs a YAML with its patterns; write it there "
            f"(docs/folder.md shows how) or name another with --set dataset.config=FILE"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); give a YAML file") from error
    try:
        raw = _parse(text)
    except _Twice as error:
        raise UserError(f"{path} gives the key {error.args[0]!r} twice; keep one of them") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is not valid YAML ({where}); put patterns in quotes, as in docs/folder.md") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} must hold keys such as image: and mask:, but holds {raw!r}; see docs/folder.md")
    for key in raw:
        if key not in KEYS:
            raise unknown(f"key in {path}:", str(key), KEYS)
    given = {key: check_value(f"{path}: {key}", KEYS[key], value) for key, value in raw.items() if value is not None}
    for key in ("image", "mask"):
        if key not in given:
            raise UserError(f"{path} lacks {key}: give the pattern of the {key} files, see docs/folder.md")
    return _interpret(given, path)


def _interpret(given: dict[str, Any], path: Path) -> FolderConfig:
    ignore_case = given.get("ignore_case", False)
    image, mask = (compile_pattern(given[key], ignore_case) for key in ("image", "mask"))
    shared = {**mask.expressions, **image.expressions}
    image, mask = (compile_pattern(given[key], ignore_case, shared) for key in ("image", "mask"))
    _check_fields(image, mask, path)
    per_class = "class" in mask.fields
    foreground = foreground_rule(given.get("foreground"), given.get("background"), path)
    if per_class and foreground.count > 1:
        raise UserError(
            f"{path} has {{class}} in mask and several classes in foreground; with one file a class, foreground must "
            f"tell foreground from background only"
        )
    raters, classes = (tuple(given[k]) if k in given else None for k in IDS)
    for key, names in (("raters", raters), ("classes", classes)):
        if names is not None and (not names or len(set(names)) < len(names)):
            raise UserError(f"{path}: {key} {list(names)} must be a list of different names, at least one")
    if classes and not per_class and len(classes) != foreground.count:
        raise UserError(
            f"{path} names {len(classes)} classes, but foreground has {foreground.count}; give each class index a "
            f"value, for example foreground: {{1: 1, 2: 2}}"
        )
    if "overlapping" in given and not per_class:
        raise UserError(f"{path}: overlapping applies only with {{class}} in mask; remove it")
    window = given.get("window")
    if window and window[0] >= window[1]:
        raise UserError(f"{path}: window {list(window)} must be [low, high] with low < high")
    spacing = given.get("spacing")
    try:
        patient = (
            None
            if given.get("patient") in (None, "case")
            else re.compile(given["patient"], re.IGNORECASE if ignore_case else 0)
        )
    except re.error as error:
        raise UserError(f"{path}: patient {given['patient']!r} is not a regular expression ({error})") from error
    if patient and "patient" in image.fields:
        raise UserError(f"{path} has both {{patient}} in image and the key patient; keep one")
    meaning: dict[str, Any] = {
        k: given[k] for k in ("foreground", "background", "channels", "window", "spacing", "overlapping") if k in given
    }
    if isinstance(meaning.get("foreground"), dict):
        meaning["foreground"] = sorted(map(list, meaning["foreground"].items()))
    return FolderConfig(
        image=image,
        mask=mask,
        ignore_case=ignore_case,
        raters=raters,
        identity=given.get("identity", "none"),
        foreground=foreground,
        classes=classes,
        overlapping=given.get("overlapping", per_class),
        channels=given.get("channels", "grey"),
        window=window,
        patient=patient,
        patient_given="patient" in given or "patient" in image.fields,
        spacing=spacing if isinstance(spacing, tuple) or spacing is None else (spacing, spacing),
        notice=given.get("notice", ""),
        meaning=meaning,
    )


def _check_fields(image: Pattern, mask: Pattern, path: Path) -> None:
    allowed = {"image": {"case", "patient"}, "mask": {"case", "patient", "rater", "class"}}
    needed = {"image": {"case"}, "mask": {"case", "rater"}}
    for key, pattern in (("image", image), ("mask", mask)):
        for name in pattern.fields:
            if name not in allowed[key]:
                raise unknown(f"field in {path}, {key}:", name, allowed[key])
        for name in sorted(needed[key] - set(pattern.fields)):
            raise UserError(f"{path}: {key} pattern {pattern.text!r} lacks {{{name}}}; put it where the {name} stands")
    if "patient" in mask.fields and "patient" not in image.fields:
        raise UserError(f"{path} has {{patient}} in mask but not in image; put it in both, or write * in mask")


def foreground_rule(given: Any, background: list[float] | None, path: Path) -> Foreground:
    if background is not None and not isinstance(given, (list, dict)):
        raise UserError(f"{path}: background needs foreground as a list or map of values; give both, or neither")
    if given is None:
        return Foreground()
    if isinstance(given, str):
        parts = re.fullmatch(r"\s*(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?)\s*", given)
        if not parts:
            raise UserError(
                f"{path}: foreground {given!r} cannot be read; allowed are a comparison such as '> 127' or '< 128', "
                f"a list of values, or a map of values to classes"
            )
        return Foreground(test=(parts.group(1), float(parts.group(2))))
    classes = dict(given) if isinstance(given, dict) else dict.fromkeys(given, 1)
    rest = tuple(background if background is not None else [] if 0 in classes else [0.0])
    both = sorted(set(classes) & set(rest))
    if not classes or both or not rest:
        why = "is empty" if not classes else f"shares {_show(both)} with background" if both else "leaves no background"
        raise UserError(f"{path}: foreground {why}; list foreground and background values apart")
    if set(classes.values()) != set(range(1, max(classes.values()) + 1)):
        raise UserError(
            f"{path}: foreground uses the classes {sorted(set(classes.values()))}; number them 1, 2, … without a gap"
        )
    return Foreground(classes=classes, background=rest)
