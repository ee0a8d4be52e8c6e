"""Canonical JSON and short keys: the identity of configurations and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .errors import UserError


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no insignificant space; refuses NaN, which has no JSON form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def key8(value: Any) -> str:
    """First eight hex digits of `digest`, for folder names."""
    return digest(value)[:8]


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises:
        UserError: the file is missing, a link to nothing, a folder, a pipe or a device (which may never end), or not
            readable.
    """
    try:
        if not path.is_file() and path.exists():
            what = "a folder" if path.is_dir() else "a pipe or a device"
            raise UserError(f"{path} is {what}, not a file; put the file there or remove it")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise UserError(f"{path} {what}; restore or remove it") from error
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{path} cannot be read: {why}; make it readable or remove it") from error
