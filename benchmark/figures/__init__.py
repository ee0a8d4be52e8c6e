"""Figures from stored results: nothing is trained or predicted; each comes as PNG and PDF with the CSV it draws."""

from __future__ import annotations

from .book import draw_figures
from .kinds import KINDS

__all__ = ["KINDS", "draw_figures"]
