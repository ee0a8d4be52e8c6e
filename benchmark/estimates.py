"""What cells will take, from finished ones: the median of the same method, data set and preset."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .cell import State
from .states import Found

MARGIN = 1.5  # of a time limit over the median


@dataclass
class Estimates:
    """Seconds and memory of finished cells by (method, data set, preset)."""

    seconds: dict[tuple[str, str, str], float] = field(default_factory=dict)
    memory_mb: dict[tuple[str, str, str], float] = field(default_factory=dict)
    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Path, found: Iterable[Found], most: int = 50) -> Estimates:
        """Read at most `most` finished cells of each kind."""
        seconds: dict[tuple[str, str, str], list[float]] = {}
        memory: dict[tuple[str, str, str], list[float]] = {}
        for one in found:
            kind = kind_of(one.facts)
            if one.state != State.DONE or len(seconds.get(kind, [])) >= most:
                continue
            folder = results / "cells" / one.path
            train = _read(folder / "train.json")
            result = _read(folder / "eval" / one.facts["eval_key"][:8] / "result.json")
            spent = sum((train.get("seconds") or {}).values()) + sum((result.get("seconds") or {}).values())
            seconds.setdefault(kind, []).append(spent)
            peaks = [r["peak_memory_mb"] for r in (train, result) if r.get("peak_memory_mb")]
            memory.setdefault(kind, []).append(max(peaks, default=0.0))
        return cls(
            {kind: median(values) for kind, values in seconds.items()},
            {kind: max(values) for kind, values in memory.items()},
            {kind: len(values) for kind, values in seconds.items()},
        )


def kind_of(facts: dict[str, Any]) -> tuple[str, str, str]:
    return (str(facts["method"]), str(facts["dataset"]), str(facts["preset"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
