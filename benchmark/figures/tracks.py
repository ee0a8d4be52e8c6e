"""Rankings of a table by the primary metrics of its tracks, shared by the figures of one drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..columns import BY_METRIC, RATER_MEAN
from ..directions import direction
from ..layout import ARROWS, COMMON_MASK
from ..ranked import Ranked, rankings
from ..sheet import Line, Sheet
from .source import LeftOut, kept
from .style import caption, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = {metric: column.label for metric, column in BY_METRIC.items()} | {RATER_MEAN.metric: "Dice of readers"}


def rankings_of(sheet: Sheet, least: int = 1) -> dict[str, Ranked]:
    """Metric to its ranking, of those with at least `least` methods; per-reader Dice only where readers are somebody.

    Raises:
        LeftOut: none has so many.
    """
    found: dict[str, Ranked] = kept(("rankings", id(sheet)), lambda: rankings(sheet))
    if not sheet.show_raters:
        found = {metric: one for metric, one in found.items() if metric != RATER_MEAN.metric}
    enough = {metric: one for metric, one in found.items() if len(one.names) >= least}
    if not enough:
        most = max((len(one.names) for one in found.values()), default=0)
        raise LeftOut(
            f"{'one method' if most == 1 else 'no method'} can be ranked, {least} are needed"
            if least > 1
            else "no method has a value that can be ranked"
        )
    return enough


def metric_label(metric: str) -> str:
    """The heading of the tables, with an arrow."""
    return f"{_LABELS.get(metric, metric)}{ARROWS[direction(metric)]}"


def compared(one: Ranked) -> str:
    """``GED ↓, S = 50``: a metric and at what S it compares."""
    return metric_label(one.metric) + (f", S = {one.n_samples}" if one.n_samples else "")


def mark(sheet: Sheet, one: Ranked, line: Line) -> str:
    """``†`` where a common mask stands for the maps of named readers."""
    score = sheet.score(line, one.metric)
    return COMMON_MASK if score is not None and score.fallback else ""


def row_name(sheet: Sheet, index: int) -> str:
    """A row's name in a picture: the method alone where it stands in the table once, as `labels` then says the rest."""
    row = sheet.group.rows[index]
    return row.method if sum(other.method == row.method for other in sheet.group.rows) == 1 else row.name


def labels(sheet: Sheet) -> str:
    """``prob_unet: variant pt``: what the names in the picture leave out."""
    said = [
        f"{row.method}: {row.label}"
        for index, row in enumerate(sheet.group.rows)
        if row.label and row.cells and row_name(sheet, index) != row.name
    ]
    return ", ".join(said)


def marked_names(sheet: Sheet, one: Ranked) -> dict[str, str]:
    """Name to the name as it is shown."""
    shown = {}
    for name, line in zip(one.names, one.lines, strict=True):
        own = row_name(sheet, line.row)
        shown[name] = (own if name == sheet.row(line).name else name) + mark(sheet, one, line)
    return shown


def footnote(sheet: Sheet, found: dict[str, Ranked]) -> str:
    """What the dagger means, if it is shown, and what the names leave out."""
    dagger = any(mark(sheet, one, line) for one in found.values() for line in one.lines)
    return "; ".join(filter(None, [f"{COMMON_MASK} one common mask for all readers" if dagger else "", labels(sheet)]))


def ranked_caption(figure: Figure, sheet: Sheet, found: dict[str, Ranked], *notes: str) -> None:
    """The caption of a figure of rankings: table, cases and patients, the figure's own notes, names, notice."""
    first = next(iter(found.values()))
    count = counted(first.table.n, first.table.n_clusters)
    caption(figure, sheet.group.title, count, *notes, footnote(sheet, found), notice=sheet.group.notice)


def grid_of(found: dict[str, Ranked]) -> tuple[int, int]:
    """Rows and columns of a figure with one panel a metric, two beside each other."""
    across = min(2, len(found))
    return -(-len(found) // across), across
