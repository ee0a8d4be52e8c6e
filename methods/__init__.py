"""Methods behind one interface; torch is imported at first use, not by listing."""

from __future__ import annotations

from typing import Any

from .registry import METHODS

__all__ = ["Method", "Prediction", "Deviation", "register_method", "create_method", "list_methods", "METHODS"]


def __getattr__(name: str) -> Any:
    if name in ("Method", "Prediction", "Deviation"):
        from . import base

        return getattr(base, name)
    raise AttributeError(name)


def register_method(name: str, **info: Any) -> Any:
    """Class decorator: ``@register_method("mine", summary="...")``."""
    return METHODS.register(name, **info)


def list_methods() -> list[str]:
    return METHODS.names()


def create_method(name: str, data: Any, **hparams: Any) -> Any:
    """A method by registry name, its options validated and its fit to `data` checked.

    Raises:
        UserError: unknown name, unknown option or a value that is not allowed.
        UnsupportedPair: the method refuses the data, with the reason.
    """
    from ..core.options import resolve_options

    cls = METHODS.get(name)
    resolved = resolve_options(cls, hparams, "method")
    cls.check_supported(data, resolved)
    method = cls(data, **resolved)
    method.hparams = resolved  # also where a class keeps none of them
    return method
