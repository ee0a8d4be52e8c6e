"""Metrics of multi-rater segmentation: a set of samples against a set of raters, mean maps, personalised maps, humans.

>>> from multirater.metrics import score_case, list_metrics
>>> "ged" in list_metrics()
True

Importing this package loads neither NumPy nor SciPy, so that names and metadata can be listed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .convention import Convention
from .registry import METRICS, info_of, list_metrics
from .variants import list_variants

if TYPE_CHECKING:
    from .agreement import krippendorff_alpha
    from .consensus import consensus_mask
    from .data_agreement import agreement_cases
    from .human import human_case
    from .score import score_case, score_cases
    from .staple import staple_case

__all__ = [
    "score_case",
    "score_cases",
    "human_case",
    "agreement_cases",
    "staple_case",
    "consensus_mask",
    "krippendorff_alpha",
    "Convention",
    "list_metrics",
    "list_variants",
    "info_of",
    "METRICS",
]

_LAZY = {
    "score_case": "score",
    "score_cases": "score",
    "human_case": "human",
    "agreement_cases": "data_agreement",
    "staple_case": "staple",
    "consensus_mask": "consensus",
    "krippendorff_alpha": "agreement",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
