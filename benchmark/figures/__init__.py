"""Figures from stored results: nothing is trained or predicted; each comes as PNG and PDF with the CSV it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .kinds import KINDS

if TYPE_CHECKING:
    from .book import draw_figures

__all__ = ["KINDS", "draw_figures"]


def __getattr__(name: str) -> Any:
    # The names of the kinds stand in the help of the command, which must not wait for pandas.
    if name == "draw_figures":
        from .book import draw_figures

        return draw_figures
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
