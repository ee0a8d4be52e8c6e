"""What can be listed: methods, data sets, metrics, presets, executors, from static metadata.

Nothing here imports torch or numpy; the objects themselves are imported only by ``multirater info``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from ..core.cache import cache_root
from ..core.errors import UserError
from ..core.registry import Entry, Registry
from .presets import preset_names, preset_summary

REGISTRIES = {
    "methods": "multirater.methods.registry:METHODS",
    "datasets": "multirater.datasets.registry:DATASETS",
    "metrics": "multirater.metrics.registry:METRICS",
    "executors": "multirater.benchmark.executors:EXECUTORS",
}
# What a method's registry entry may say, and what holds where it says nothing: the defaults of `Method`.
METHOD_FACTS = {
    "gives_samples": False,
    "gives_raters": False,
    "needs_identity": False,
    "multiclass": False,
    "missing_raters": True,
    "spatial_dims": (2,),
}
KINDS = ("methods", "datasets", "metrics", "presets", "executors")


def registry(kind: str) -> Registry[Any]:
    module, _, name = REGISTRIES[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def rows(kind: str) -> list[dict[str, Any]]:
    """One row per entry: ``name, capabilities, origin, note, summary``, all text."""
    if kind == "presets":
        return [_row(name, "", "built-in", "", preset_summary(name)) for name in preset_names()]
    notes = {"datasets": _data_note, "executors": _extra_note}
    return [
        _row(
            entry.name,
            _capabilities(kind, entry),
            origin(entry),
            notes.get(kind, _extra_note)(entry),
            str(entry.info.get("summary", "")),
        )
        for entry in registry(kind).entries()
    ]


def find(name: str) -> list[tuple[str, str]]:
    """(kind, registered name) of all entries called `name`, aliases included.

    Raises:
        UserError: no such entry of any kind, with the nearest name.
    """
    found = [(kind, registry(kind).entry(name).name) for kind in REGISTRIES if name in registry(kind)]
    if name in preset_names():
        found.append(("presets", name))
    if not found:
        near = difflib.get_close_matches(name, list(_all_names()), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown name {name!r}: {hint}see them all with multirater list")
    return found


def origin(entry: Entry) -> str:
    """``built-in``, or the package that brought the entry."""
    return "built-in" if entry.origin.partition(".")[0] == "multirater" else entry.origin


def _all_names() -> Iterable[str]:
    for kind in REGISTRIES:
        yield from registry(kind).names()
    yield from preset_names()


def _row(name: str, capabilities: str, origin_: str, note: str, summary: str) -> dict[str, Any]:
    return {"name": name, "capabilities": capabilities, "origin": origin_, "note": note, "summary": summary}


def _capabilities(kind: str, entry: Entry) -> str:
    info = entry.info
    if kind == "methods":
        return _method(entry)
    if kind == "datasets":
        return f"identity: {info['identity'].replace('|', ', ')}" if info.get("identity") else "see info"
    if kind == "metrics":
        return _metric(entry)
    return ""


def _method(entry: Entry) -> str:
    """``samples, raters; needs identity``: what it gives, then what differs from a plain binary network."""
    info = entry.info
    if not isinstance(entry.target, str):  # imported already: its class knows
        info = {key: getattr(entry.target, key) for key in METHOD_FACTS}
    elif not info:  # a third party's: known only after import
        return "see info"
    facts = {**METHOD_FACTS, **info}
    gives = [word for word in ("samples", "raters") if facts[f"gives_{word}"]]
    dims = tuple(facts["spatial_dims"])
    words = [
        ", ".join(gives or ["mean"]),
        "needs identity" if facts["needs_identity"] else "",
        "multi-class" if facts["multiclass"] else "",
        "" if facts["missing_raters"] else "no missing raters",
        "" if dims == (2,) else " and ".join(f"{d}D" for d in dims),
    ]
    return "; ".join(filter(None, words))


def _metric(entry: Entry) -> str:
    from ..metrics.registry import info_of

    info = info_of(entry.name)
    low, high = info["range"]
    better = {"lower": "↓ ", "higher": "↑ ", "none": ""}.get(
        info["direction"], f"→ {info['direction'].removeprefix('target ')}, "
    )
    words = [f"{better}{low:g} … {high:g}", "depends on S" if info["depends_on_samples"] else ""]
    return ", ".join(filter(None, [*words, f"per {info['values']}" if info["values"] != "scalar" else ""]))


def _data_note(entry: Entry) -> str:
    if any(cache_root().joinpath(entry.name).glob("*/meta.json")):
        return "prepared"
    if entry.info.get("embedded"):
        return "made at first use"
    return f"not prepared: multirater prepare {entry.name} --root PATH" if entry.info else "not prepared"


def _extra_note(entry: Entry) -> str:
    """What is not installed, by the registered `requires` (a module) and `extra` (the extra that brings it)."""
    module = entry.info.get("requires")
    if not module or find_spec(module):
        return ""
    return f"needs pip install 'multirater[{entry.info['extra']}]'" if "extra" in entry.info else f"needs {module}"
