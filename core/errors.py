"""Errors that are the user's to mend.

Every message is one sentence that says what was given, what is allowed, and what to do.
The command line prints it on stderr and exits with 2; ``--debug`` shows the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONG = 40  # more names than this are not listed in a message


class UserError(Exception):
    """Wrong usage or input."""


class UnsupportedPair(UserError):
    """A method refuses a data set; the message is the reason."""


def brief(error: BaseException, most: int = 120) -> str:
    """What a library says of a fault, for the middle of a sentence: one line of ASCII, at most `most` characters."""
    return " ".join(ascii(str(error))[1:-1].split())[:most]


def unknown(kind: str, given: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest valid one."""
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    near = near or difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(names) > _LONG:
        starting = [name for name in names if given and name.startswith(given[:3].lower())][:_LONG]
        some = f"; some of them: {', '.join(starting)}" if starting else ""
        return UserError(f"unknown {kind} {given!r}: {hint}`multirater list {kind}s` shows all {len(names)}{some}")
    return UserError(f"unknown {kind} {given!r}: {hint}valid: {', '.join(names) or '(none)'}")
