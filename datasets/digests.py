"""SHA-256 of many files, in parallel, remembered while size and time of change stay the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.cache import cache_root
from ..core.errors import UserError
from ..core.files import read_json, write_json
from ..core.hashing import file_digest, key8

_FEW = 64  # fewer files are hashed faster than they are looked up


def file_digests(paths: Sequence[Path]) -> dict[Path, str]:
    """Digest of each file.

    A memory in the cache spares a second reading of tens of gigabytes; it holds only as long as a file keeps path,
    size and time of change.

    Raises:
        UserError: a file is missing or not readable.
    """
    if len(paths) < _FEW and sum(_size(p) for p in paths) < 1 << 28:
        return {path: file_digest(path) for path in paths}
    memory = cache_root() / "digests" / f"{key8([os.path.abspath(p) for p in paths[:_FEW]])}.json"
    try:
        known = read_json(memory) if memory.is_file() else {}
    except UserError:
        known = {}
    stamps = {path: stamp(path) for path in paths}
    unknown = [p for p in paths if known.get(os.path.abspath(p), [None])[0] != stamps[p]]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        fresh = dict(zip(unknown, pool.map(file_digest, unknown), strict=True))
    if fresh:
        known |= {os.path.abspath(p): [stamps[p], d] for p, d in fresh.items()}
        write_json(memory, known)
    return {p: fresh.get(p) or known[os.path.abspath(p)][1] for p in paths}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def stamp(path: Path) -> str:
    """Size and time of change; empty for a missing file, which is reported when it is read."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"
