"""The HTML report: one folder that a browser opens from disk, without a server and without a network."""

from __future__ import annotations

from .pages import write_report

__all__ = ["write_report"]
