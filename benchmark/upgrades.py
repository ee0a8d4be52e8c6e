"""Records of earlier versions as the present one writes them.

Files are never changed by a reader: `checked` upgrades what it has read. Each step is a function of its own, tested
on a stored sample of its version (``tests/benchmark/records``). Fields that no version knows are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]


def train_1(record: Record) -> Record:
    """Version 2 adds memory by phase, how numbers were computed, and the cases seen (unknown before)."""
    numerics = {"precision": "fp32", "tf32": False, "channels_last": True, "compile": False, "processes": 1}
    return {"memory_mb": {}, "numerics": numerics, "samples_seen": None, **record}


def result_1(record: Record) -> Record:
    """Version 2 adds memory by phase."""
    return {"memory_mb": {}, **record}


UPGRADES: dict[tuple[str, int], Callable[[Record], Record]] = {("train", 1): train_1, ("result", 1): result_1}


def upgraded(record: Record, name: str, to: int) -> Record:
    """A record of kind `name` in version `to`, which is not older than its own."""
    version = record["schema"]["version"]
    while version < to:
        record = UPGRADES[name, version](record)
        version += 1
        record = {**record, "schema": {**record["schema"], "version": version}}
    return record
