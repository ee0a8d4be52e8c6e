"""The card of one entry, for ``multirater info``."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from ..core.options import options_of
from ..core.registry import Entry
from .catalogue import origin, registry

_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of", "min_length": "length ≥"}


def card(kind: str, name: str) -> dict[str, Any]:
    """Facts of an entry as JSON values; ``options`` and ``deviations`` are lists of rows.

    Raises:
        UserError: the entry's object cannot be loaded.
    """
    if kind == "presets":
        return _preset(name)
    entry = registry(kind).entry(name)
    obj = registry(kind).get(name)
    head = {"name": entry.name, "kind": kind[:-1], "summary": entry.info.get("summary", ""), "origin": origin(entry)}
    makers = {"methods": _method, "datasets": _dataset, "metrics": _metric}
    return {**head, **makers.get(kind, _other)(entry, obj)}


def _method(entry: Entry, cls: Any) -> dict[str, Any]:
    return {
        "paper": entry.info.get("paper", "") or _paragraph(cls),
        "gives": [word for word in ("samples", "raters") if getattr(cls, f"gives_{word}")] or ["mean"],
        "needs_identity": cls.needs_identity,
        "multiclass": cls.multiclass,
        "missing_raters": cls.missing_raters,
        "spatial_dims": list(cls.spatial_dims),
        "stages": list(cls.stages),
        "version": cls.version,
        "options": _options(cls),
        "deviations": [asdict(d) for d in cls.deviations],
    }


def _dataset(entry: Entry, cls: Any) -> dict[str, Any]:
    texts = {key: getattr(cls, key) for key in ("title", "notice", "citation", "licence", "how_to_get")}
    return {
        **{key: text for key, text in texts.items() if isinstance(text, str)},
        "embedded": cls.embedded,
        "identity": entry.info.get("identity", ""),
        "splits": [*cls.split_names, *cls.compat_splits],
        "published_splits": [f"{name}: {text or 'clean'}" for name, text in cls.compat_splits.items()],
        "version": cls.version,
        "options": _options(cls),
    }


def _metric(entry: Entry, obj: Any) -> dict[str, Any]:
    from ..metrics.registry import info_of

    return _other(entry, obj, info_of(entry.name))


def _other(entry: Entry, obj: Any, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All metadata, and what the object says of itself."""
    facts = {key: _plain(value) for key, value in (info or entry.info).items() if key != "summary"}
    return {**facts, "description": _paragraph(obj)}


def _preset(name: str) -> dict[str, Any]:
    from .presets import preset_summary

    text = (Path(__file__).parent / "presets" / f"{name}.yaml").read_text()
    return {"name": name, "kind": "preset", "summary": preset_summary(name), "origin": "built-in", "text": text}


def _options(cls: type) -> list[dict[str, str]]:
    return [
        {"option": o.name, "type": type_text(o.type), "default": json.dumps(_plain(o.default)), "meaning": o.help}
        for o in options_of(cls).values()
    ]


def type_text(hint: Any) -> str:
    """A type as a user would write its values: ``Annotated[int, Field(ge=1), "…"]`` is ``int ≥ 1``."""
    if get_origin(hint) is Annotated:
        base, *metadata = get_args(hint)
        limits = _limits(metadata)
        first, *others = get_args(base) if limits and type(None) in get_args(base) else (base,)
        return " | ".join([" ".join(filter(None, [type_text(first), limits])), *map(type_text, others)])
    if get_origin(hint) is Literal:
        return " | ".join(str(a) for a in get_args(hint))
    arguments = get_args(hint)
    if get_origin(hint) in (list, tuple, dict):
        inside = ", ".join("…" if a is Ellipsis else type_text(a) for a in arguments)
        return f"{{{inside}}}" if get_origin(hint) is dict else f"[{inside}]"
    if arguments:  # a union
        return " | ".join(type_text(a) for a in arguments)
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _limits(metadata: list[Any]) -> str:
    """``≥ 0, < 1`` of pydantic or annotated-types constraints."""
    single = [limit for m in metadata for limit in (getattr(m, "metadata", None) or [m])]
    found = [(sign, getattr(limit, key, None)) for limit in single for key, sign in _SIGNS.items()]
    return ", ".join(f"{sign} {value}" for sign, value in found if isinstance(value, (int, float)))


def _plain(value: Any) -> Any:
    """JSON form; JSON has no infinity, so it becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (tuple, list, set, frozenset)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, dict, type(None))) else str(value)


def _paragraph(obj: Any) -> str:
    """The first paragraph of an object's docstring, on one line."""
    return " ".join((inspect.getdoc(obj) or "").partition("\n\n")[0].split())
