"""The methods of the package, and small ones of each for its tests."""

from __future__ import annotations

from multirater.benchmark.config import resolve_classes
from multirater.datasets.base import DataDescription
from multirater.datasets.synthetic import Synthetic
from multirater.methods import METHODS
from multirater.methods.base import Method

BUILT_IN = [entry.name for entry in METHODS.entries() if entry.origin.startswith("multirater")]
RATERS = 3


def small_size(name: str) -> int:
    """Side of the smallest images that a method of the preset smoke works on here."""
    return 64 if name in ("phiseg", "tab") else 32  # strides of 32


def small_method(name: str) -> Method:
    """A method with the options of the preset smoke, for three raters and images of its `small_size`."""
    options = resolve_classes(METHODS.get(name), name, Synthetic, "synthetic", "smoke", {})["method"]["options"]
    size, ids = small_size(name), tuple(str(r + 1) for r in range(RATERS))
    return METHODS.get(name)(
        DataDescription("d", raters=RATERS, rater_ids=ids, identity="derived", size=(size, size)), **options
    )
