"""Names of cases and patients that may leave the house: the same for the same data, telling nothing by themselves.

A pseudonym is not anonymity: who holds the list of ids can compute all pseudonyms and compare. It keeps ids, and what
hospitals write into them, out of files that are passed on.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..core.hashing import digest

_LENGTH = 10  # hex digits: of a million ids, the chance that any two meet is below one in two


def pseudonym(kind: str, fingerprint: str, name: str) -> str:
    """``case-3f9a0c12de``: a short hash of an id within its data.

    Args:
        kind: ``case`` or ``patient``.
        fingerprint: of the data, so that ids of different data sets do not coincide.
        name: the id.
    """
    return f"{kind}-{digest([kind, fingerprint, name])[:_LENGTH]}"


def pseudonyms(kind: str, fingerprint: str, names: Iterable[str]) -> dict[str, str]:
    """Id to pseudonym; should two ids meet, both get all digits."""
    ids = sorted(set(names))
    found = {name: pseudonym(kind, fingerprint, name) for name in ids}
    if len(set(found.values())) < len(ids):
        return {name: f"{kind}-{digest([kind, fingerprint, name])}" for name in ids}
    return found
