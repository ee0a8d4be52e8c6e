"""Files that are whole or absent: unique temporary name, flush, fsync, `os.replace`."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it becomes `path` atomically.

    The temporary name is unique per writer: a name left behind by a killed process never blocks another.

    A symbolic link is followed: the file it names is replaced, not the link. Who may read the file is what the umask
    says, whatever the writer does.

    Raises:
        UserError: the folder cannot be written, or `path` is something else than a regular file (a device, a pipe).
    """
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"cannot write {path}: it is a device or a pipe; give an ordinary file")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:  # a writer that makes files of its own, for nobody else to read
            temporary.chmod(mode)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:  # permission, read-only file system, disk full, a file where a folder should be
        why = (error.strerror or str(error)).lower()
        raise UserError(f"cannot write {path}: {why}; mend that or choose a folder you may write to") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys, so that files can be compared."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        UserError: not JSON (truncated by a full disk, edited by hand).
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it or delete its folder and run again") from error
