"""CSV tables that come with data sets."""

from __future__ import annotations

import csv
from pathlib import Path

from ..core.errors import UserError, brief


def read_table(path: Path, columns: tuple[str, ...] = (), encoding: str = "utf-8-sig") -> list[dict[str, str]]:
    """Rows by the names of the columns; those of `columns` are there in every row, though perhaps empty.

    Raises:
        UserError: no table in that encoding, a column that is not there, a row that ends before one of `columns`.
    """
    try:
        with path.open(encoding=encoding, newline="") as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path} cannot be read as a table in the encoding {encoding} ({brief(error)}); get it again"
        ) from error
    lacking = [column for column in columns if column not in names]
    if lacking:
        found = ascii(", ".join(names))[1:-1]
        raise UserError(f"{path} lacks the column {lacking[0]!r}; it has {found[:200] or 'none'}")
    for row in rows:
        if any(row[column] is None for column in columns):
            shown = ascii([cell for cell in row.values() if isinstance(cell, str)][:4])[:200]
            raise UserError(f"{path} has a row with fewer cells than columns: {shown}; get it again")
    return rows
