"""The table of metrics: where each is computed and what is known of it without importing NumPy.

Every entry's target is a function of a `multirater.metrics.case.CaseView` that returns a float (or a list) or raises
`multirater.metrics.case.Undefined`. Its metadata:

================= ============================================================================================
key               meaning
================= ============================================================================================
summary           one line
direction         ``lower`` or ``higher`` is better, ``target 0``, or ``none``
range             smallest and largest possible value
unit              ``""`` for pure numbers
depends_on_samples whether the expected value changes with the number of samples S
empty             what happens when masks are empty (canonical convention)
worst             the value that replaces a method-undefined one in a mean over cases; None: left out
version           raised when the value of the same input would change
family            which convention of a variant applies (`multirater.metrics.convention`)
needs             inputs beside the raters, alternatives separated by ``|``; all groups are needed
values            ``scalar``, ``rater`` (a list over rater slots), ``class`` (over evaluated classes) or ``votes`` (over
                  0, 1, … votes, one more than there are slots)
region            pixels it runs over: ``box`` or ``full`` where the choice matters (section 5.3), else ``""``
base              the id without the region mark, for ids such as ``ece.full``; else ``""``
section           of the metric specification
pixels            False: can be computed from stored components (`multirater.metrics.components`), without the masks
parameter         what a value after ``@`` sets, and its smallest and largest: ``nsd@2``, ``hd@50.each``; None: none
================= ============================================================================================

Third-party packages add metrics through the entry-point group ``multirater.metrics``; metadata they leave out takes
the defaults of `info_of`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.registry import Entry, Registry

if TYPE_CHECKING:
    from .case import CaseView

Metric = Callable[["CaseView"], float | list[float]]

_BRACKETS = re.compile(r"([\w.]+)([\[(])(.*)[\])]")  # ged[dpersona], as papers and tables write a variant
_VALUE = re.compile(r"(\d+(?:\.\d+)?)((?:\.[A-Za-z_]\w*)?)")


class MetricRegistry(Registry[Metric]):
    """Names to functions; ``base@value`` and ``base@value.suffix`` name a metric with its parameter set.

    Only names without a value are listed.
    """

    def entry(self, name: str) -> Entry:
        """Metadata of a name, without importing its function.

        Raises:
            UserError: unknown name, with the nearest valid one; or a value that the metric does not take.
        """
        if isinstance(name, str) and (written := _BRACKETS.fullmatch(name)):
            base, kind, inside = written.groups()
            how = "n_samples" if kind == "(" else "variant"
            raise UserError(
                f"metric {name!r}: write the id {base!r} and give {inside!r} as {how} (on the command line "
                f"--variant), or as an id of `multirater list metrics`"
            )
        base, value = _parted(name)
        entry = super().entry(base)
        if value is None:
            return entry
        what, low, high = entry.info.get("parameter") or ("", 0.0, 0.0)
        if not what:
            raise UserError(f"metric {name!r}: {base!r} takes no value after @; write {base!r}")
        if not low <= value <= high:
            usual = 2.0 if math.isinf(high) else (low + high) / 2
            most = "" if math.isinf(high) else f" and <= {spelled(high)}"
            raise UserError(
                f"metric {name!r}: give a {what} >= {spelled(low)}{most}, such as {id_with_value(base, usual)!r}"
            )
        if name != id_with_value(base, value):
            raise UserError(f"metric {name!r}: write {id_with_value(base, value)!r}, so that one metric has one name")
        summary = entry.info.get("summary", base)
        return replace(entry, name=name, info={**entry.info, "summary": f"{summary}; {what} {spelled(value)}"})

    def get(self, name: str) -> Metric:
        """The function of a name, with its value if it has one."""
        base, value = _parted(name)
        if value is None:
            return super().get(name)
        self.entry(name)
        function: Callable[..., float | list[float]] = super().get(base)
        return lambda view: function(view, value)

    def __contains__(self, name: str) -> bool:
        try:
            self.entry(name)
        except UserError:
            return False
        return True


def _parted(name: str) -> tuple[str, float | None]:
    """``nsd.each`` and 2.0 of ``nsd@2.each``.

    Raises:
        UserError: what follows the @ is no number.
    """
    head, at, tail = name.partition("@")
    if not at:
        return name, None
    match = _VALUE.fullmatch(tail)
    if match is None:
        raise UserError(f"metric {name!r}: {tail!r} is no number; write for example 'nsd@2' or 'hd@50.each'")
    return head + match[2], float(match[1])


def id_with_value(base: str, value: float | None) -> str:
    """``nsd@2.each`` of ``nsd.each`` and 2; the base itself without a value."""
    head, dot, suffix = base.partition(".")
    return base if value is None else f"{head}@{spelled(value)}{dot}{suffix}"


def spelled(value: float) -> str:
    """The shortest decimal form: 2 and 0.5."""
    return format(Decimal(str(float(value))).normalize(), "f")


METRICS = MetricRegistry("metric", "multirater.metrics")

_DEFAULTS: dict[str, Any] = {
    "summary": "",
    "direction": "none",
    "range": (float("-inf"), float("inf")),
    "unit": "",
    "depends_on_samples": False,
    "empty": "",
    "worst": None,
    "version": 1,
    "family": "",
    "needs": ("samples|probs",),
    "values": "scalar",
    "region": "",
    "base": "",
    "section": "",
    "pixels": True,
    "parameter": None,
}

# Modules whose metrics take all they need of the pixels from `CaseView.counts` and `CaseView.tally`.
_FROM_COUNTS = ("sets", "mean_map", "per_rater", "human")


def info_of(name: str) -> Mapping[str, Any]:
    """Metadata of a metric, complete.

    Raises:
        UserError: unknown name, with the nearest valid one.
    """
    return {**_DEFAULTS, **METRICS.entry(name).info}


SAMPLES = ("samples|probs",)
MEAN = ("samples|probs|mean_prob",)
PERSONAL = ("rater_probs",)
ANY_MAP = ("rater_probs|samples|probs|mean_prob",)

EMPTY_DISTANCE = "two empty masks have distance 0, one empty mask has distance 1 to any other"
EMPTY_SIMILARITY = "two empty masks have similarity 1, one empty mask has 0 with any other"
EMPTY_MAPS = "1 where both thresholded maps are empty, 0 where one is"


def table(module: str, section: str, family: str, rows: dict[str, tuple[str, str]], **shared: Any) -> None:
    """Add metrics of one module: id to (function, summary), and the metadata they share."""
    for name, (function, summary) in rows.items():
        METRICS.add(
            name,
            f"multirater.metrics.{module}:{function}",
            origin="multirater",
            **{
                **_DEFAULTS,
                "pixels": module not in _FROM_COUNTS,
                "summary": summary,
                "family": family,
                "section": section,
                **shared,
            },
        )


def list_metrics() -> list[str]:
    """Names of all metrics, those of installed packages included."""
    return METRICS.names()


from . import catalogue  # noqa: E402, F401  (the tables add themselves)

# In tables "dice_max" means the direction that asks whether every rater is covered.
METRICS.alias("dice_max", "dice_max_rater_to_sample")
METRICS.alias("m_iou", "hm_iou")
METRICS.alias("d_max", "dice_max_rater_to_sample")  # its name in CIMD
