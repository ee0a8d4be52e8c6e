"""Rankings of a table by the primary metrics of its tracks, shared by the figures of one drawing."""

from __future__ import annotations

from ..columns import CALIBRATION_COLUMNS, RATER_MEAN, SAMPLE_COLUMNS
from ..directions import direction
from ..ranked import Ranked, rankings
from ..sheet import Line, Sheet
from .source import LeftOut, kept

_LABELS = {c.metric: c.label for c in (*CALIBRATION_COLUMNS, *SAMPLE_COLUMNS)} | {RATER_MEAN.metric: "Dice of readers"}
_ARROWS = {"higher": " ↑", "lower": " ↓", "target 0": " → 0"}


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
    return f"{_LABELS.get(metric, metric)}{_ARROWS.get(direction(metric), '')}"


def compared(one: Ranked) -> str:
    """``GED ↓, S = 50``: a metric and at what S it compares."""
    return metric_label(one.metric) + (f", S = {one.n_samples}" if one.n_samples else "")


def mark(sheet: Sheet, one: Ranked, line: Line) -> str:
    """``†`` where a common mask stands for the maps of named readers."""
    score = sheet.score(line, one.metric)
    return "†" if score is not None and score.fallback else ""


def marked_names(sheet: Sheet, one: Ranked) -> dict[str, str]:
    """Name to the name as it is shown."""
    return {name: name + mark(sheet, one, line) for name, line in zip(one.names, one.lines, strict=True)}


def footnote(sheet: Sheet, found: dict[str, Ranked]) -> str:
    """What the dagger means, if it is shown, and who is not compared."""
    dagger = any(mark(sheet, one, line) for one in found.values() for line in one.lines)
    return "† one common mask for all readers" if dagger else ""
