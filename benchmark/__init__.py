"""Configuration, cells, trainer, evaluation, tables and figures."""

from __future__ import annotations

from typing import Any

__all__ = ["run", "load_results", "load_cell", "check_method", "Check"]


def __getattr__(name: str) -> Any:  # heavy imports wait for their first use
    if name == "run":
        from .runner import run

        return run
    if name == "load_results":
        from .collect import load_results

        return load_results
    if name == "load_cell":
        from .worker import load_cell

        return load_cell
    if name in ("check_method", "Check"):
        from . import contract

        return getattr(contract, name)
    raise AttributeError(name)
