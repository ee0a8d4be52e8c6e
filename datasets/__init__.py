"""Data sets: one image, every rater's mask, declared identity, patient-level splits."""

from __future__ import annotations

from typing import Any

from .registry import DATASETS

__all__ = ["Case", "Dataset", "register_dataset", "open_dataset", "list_datasets", "DataDescription", "DATASETS"]


def __getattr__(name: str) -> Any:  # numpy stays out of `multirater list`
    if name in ("Case", "Dataset", "DataDescription"):
        from . import base

        return getattr(base, name)
    raise AttributeError(name)


def register_dataset(name: str, **info: Any) -> Any:
    """Class decorator: ``@register_dataset("mine", summary="...")``."""
    return DATASETS.register(name, **info)


def list_datasets() -> list[str]:
    return DATASETS.names()


def open_dataset(name: str, **options: Any) -> Any:
    """A data set by registry name; its arrays are prepared at first use.

    Raises:
        UserError: unknown name, unknown option or a value that is not allowed.
    """
    from ..core.options import resolve_options

    entry = DATASETS.entry(name)
    cls = DATASETS.get(name)
    dataset = cls(**resolve_options(cls, DATASETS.with_implied(name, options), "dataset"))
    dataset.name = entry.name
    return dataset
