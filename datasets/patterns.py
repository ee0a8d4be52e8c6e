"""File patterns with named fields: ``data/{case}/label{rater}_.jpg``.

=================  ============================================================================
in a pattern       matches
=================  ============================================================================
``{name}``         one or more characters other than ``/``, kept as the field `name`
``{name:regex}``   what the regular expression matches, kept as the field `name`
``*`` and ``?``    any run of characters, one character, other than ``/``
``**/``            any folders, also none
anything else      itself
=================  ============================================================================

A field that stands twice must match the same text twice. An expression given for a field in the image pattern holds in
the mask pattern too, and the other way round. Earlier fields take as much as they can, so that names are
read from the right: in ``{case}_l{rater}.png`` the file ``z--105.0_c0_l2.png`` has the case ``z--105.0_c0``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..core.errors import UserError

_NAME = re.compile(r"\{([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern; `fields` in order of first appearance."""

    text: str
    regex: re.Pattern[str]
    fields: tuple[str, ...]
    expressions: dict[str, str]  # of the fields that give their own

    def match(self, relative: str) -> dict[str, str] | None:
        """Fields of a path relative to the root (with ``/``), or None."""
        found = self.regex.fullmatch(relative)
        return found.groupdict() if found else None


def compile_pattern(
    text: str, ignore_case: bool = False, expressions: Mapping[str, str] = MappingProxyType({})
) -> Pattern:
    """The pattern of a text.

    Args:
        text: the pattern.
        ignore_case: match ``Seg_`` where the text says ``seg_``.
        expressions: regular expressions of fields that stand without one, as given for them in another pattern.

    Raises:
        UserError: unbalanced braces or a regular expression that is none.
    """
    parts: list[str] = []
    fields: list[str] = []
    own: dict[str, str] = {}
    i = 0
    while i < len(text):
        if text.startswith("**/", i):
            parts.append("(?:.*/)?")
            i += 3
        elif text[i] == "*":
            parts.append("[^/]*")
            i += 1
        elif text[i] == "?":
            parts.append("[^/]")
            i += 1
        elif text[i] == "{":
            name, expression, i = _field(text, i)
            if name in fields:
                parts.append(f"(?P={name})")
            else:
                fields.append(name)
                if expression:
                    own[name] = expression
                parts.append(f"(?P<{name}>{expression or expressions.get(name, '[^/]+')})")
        else:
            parts.append(re.escape(text[i]))
            i += 1
    try:
        return Pattern(text, re.compile("".join(parts), re.IGNORECASE if ignore_case else 0), tuple(fields), own)
    except re.error as error:
        raise UserError(
            f"pattern {text!r} holds a regular expression that cannot be read ({error}); mend it"
        ) from error


def _field(text: str, start: int) -> tuple[str, str, int]:
    """Name, expression (or nothing) and end of the field that opens at `start`; braces in the expression balance."""
    head = _NAME.match(text, start)
    depth, end = 0, start
    while head and end < len(text):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
        if depth == 0:
            body = text[head.end() : end - 1]
            if not body:
                return head.group(1), "", end
            if body.startswith(":") and len(body) > 1:
                return head.group(1), body[1:], end
            break
    raise UserError(
        f"pattern {text!r} has a field that cannot be read at {text[start : start + 12]!r}; "
        f"write {{name}} or {{name:regular expression}}"
    )


def files_below(root: Path) -> list[str]:
    """Sorted paths of all files below `root`, relative, with ``/``.

    Hidden files and ``__MACOSX`` are left out: archives made on a Mac hold a ``._x.png`` that is no picture beside
    every ``x.png``. Linked folders are followed, each once.

    Raises:
        UserError: a folder that cannot be listed (its files would count as absent), a pipe or a device, a name that is
            not UTF-8.
    """
    return sorted(_walk(root))


def _walk(root: Path) -> Iterator[str]:
    seen: set[str] = set()
    for folder, names, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        for name in files:
            if not name.startswith("."):
                _check_regular(os.path.join(folder, name))
                yield _utf8((Path(folder) / name).relative_to(root).as_posix())


def _refuse(error: OSError) -> None:
    raise UserError(
        f"folder {str(error.filename)!r} cannot be read ({(error.strerror or str(error)).lower()}): whether it holds "
        f"masks cannot be told; make it readable or move it away"
    ) from error


def _check_regular(path: str) -> None:
    """Opening a pipe waits for ever, and a device may never end; a link to nothing is told when it is read."""
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(kind):
        raise UserError(f"{path} is a pipe or a device, not a file; remove it")


def _utf8(relative: str) -> str:
    """`relative` itself; ids go into JSON and tables, which hold no other encoding."""
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the file name {os.fsencode(relative)!r} is not UTF-8; rename the file") from error
    return relative


def put_once(found: dict[str, Path], key: str, path: Path) -> None:
    """``found[key] = path``.

    Raises:
        UserError: there is a file of that key already.
    """
    if key in found:
        raise UserError(f"{found[key]} and {path} are the same picture twice; keep one of them")
    found[key] = path


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key that puts 2 before 10."""
    pieces = re.split(r"(\d+)", text.casefold())
    return tuple((0, int(p)) if p.isdigit() and p.isascii() else (1, p) for p in pieces if p)
