"""Whether the cells of a method were made by one code: numbers of two revisions may differ for that reason alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .collect import StoredCell

_SHOWN = 7  # characters of a revision, as git shortens them


def revision_note(cells: Iterable[StoredCell]) -> str:
    """One sentence on the methods whose cells were trained or scored by different code; empty if there is none.

    Methods are not compared with each other: a table that grows with the suite holds many revisions. Records that do
    not name their code say nothing.
    """
    made: dict[str, dict[str, set[str]]] = {}
    for cell in cells:
        for verb, record in (("trained", cell.train), ("scored", cell.result)):
            code = _name(record.get("code") or {})
            if code:
                made.setdefault(cell.method, {}).setdefault(verb, set()).add(code)
    mixed = [
        f"{method} {' and '.join(f'{verb} by {_listed(codes)}' for verb, codes in verbs.items() if len(codes) > 1)}"
        for method, verbs in sorted(made.items())
        if any(len(codes) > 1 for codes in verbs.values())
    ]
    if not mixed:
        return ""
    trained = any(len(verbs.get("trained", ())) > 1 for verbs in made.values())
    advice = "`run --overwrite outdated` makes them again" if trained else "`evaluate --force` scores all again"
    return f"cells of one method by different code: {'; '.join(mixed)} ({advice})"


def _name(code: Mapping[str, Any]) -> str:
    """Revision and, where it was changed, its changes; the version where the suite was installed without a history."""
    if not code.get("revision"):
        return str(code.get("multirater") or "")
    changes = code.get("diff_sha256")
    return str(code["revision"])[:_SHOWN] + (f" with changes {str(changes)[:_SHOWN]}" if changes else "")


def _listed(codes: set[str]) -> str:
    return ", ".join(sorted(codes))
