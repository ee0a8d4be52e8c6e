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
values            ``scalar``, ``rater`` (a list over rater slots) or ``class`` (a list over evaluated classes)
section           of the metric specification
================= ============================================================================================

Third-party packages add metrics through the entry-point group ``multirater.metrics``; metadata they leave out takes
the defaults of `info_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.registry import Registry

if TYPE_CHECKING:
    from .case import CaseView

METRICS: Registry[Callable[[CaseView], float | list[float]]] = Registry("metric", "multirater.metrics")

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
    "section": "",
}


def info_of(name: str) -> Mapping[str, Any]:
    """Metadata of a metric, complete.

    Raises:
        UserError: unknown name, with the nearest valid one.
    """
    return {**_DEFAULTS, **METRICS.entry(name).info}


_SAMPLES = ("samples|probs",)
_MEAN = ("samples|probs|mean_prob",)
_PERSONAL = ("rater_probs",)
_ANY_MAP = ("rater_probs|samples|probs|mean_prob",)

_EMPTY_DISTANCE = "two empty masks have distance 0, one empty mask has distance 1 to any other"
_EMPTY_SIMILARITY = "two empty masks have similarity 1, one empty mask has 0 with any other"
_EMPTY_MAPS = "1 where both thresholded maps are empty, 0 where one is"


def _table(module: str, section: str, family: str, rows: dict[str, tuple[str, str]], **shared: Any) -> None:
    for name, (function, summary) in rows.items():
        METRICS.add(
            name,
            f"multirater.metrics.{module}:{function}",
            origin="multirater",
            **{**_DEFAULTS, "summary": summary, "family": family, "section": section, **shared},
        )


_table(
    "sets",
    "2.1",
    "ged",
    {
        "ged": ("ged", "squared generalised energy distance, d = 1 - IoU"),
        "ged.dice": ("ged_dice", "squared generalised energy distance, d = 1 - Dice"),
    },
    direction="lower",
    range=(0.0, 2.0),
    worst=2.0,
    depends_on_samples=True,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.1",
    "ged",
    {"ged.debiased": ("ged_debiased", "energy distance, sample pairs (i, i) left out: comparable across S")},
    direction="lower",
    range=(-1.0, 2.0),
    worst=2.0,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.1",
    "ged",
    {"ged.ustat": ("ged_ustat", "energy distance, pairs (i, i) of both sets left out; may be negative")},
    direction="lower",
    range=(-2.0, 2.0),
    worst=2.0,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.1",
    "ged",
    {"ged.per_class": ("ged_per_class", "ged of each class against the rest; their mean is ged")},
    direction="lower",
    range=(0.0, 2.0),
    worst=2.0,
    depends_on_samples=True,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
    values="class",
)
_table(
    "sets",
    "2.1",
    "ged",
    {"cross": ("cross", "mean distance of a sample to a rater, a part of ged")},
    direction="lower",
    range=(0.0, 1.0),
    worst=1.0,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.2",
    "ged",
    {"diversity_samples": ("diversity_samples", "mean distance within the samples, diagonal included")},
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.2",
    "ged",
    {"diversity_samples.ustat": ("diversity_samples_ustat", "mean distance of two different samples")},
    range=(0.0, 1.0),
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.2",
    "ged",
    {"diversity_raters": ("diversity_raters", "mean distance within the raters, diagonal included")},
    range=(0.0, 1.0),
    empty=_EMPTY_DISTANCE,
    needs=(),
)
_table(
    "sets",
    "2.2",
    "ged",
    {"diversity_gap": ("diversity_gap", "diversity of the samples less that of the raters")},
    direction="target 0",
    range=(-1.0, 1.0),
    worst=-1.0,
    depends_on_samples=True,
    empty=_EMPTY_DISTANCE,
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.3",
    "hm",
    {
        "hm_iou": ("hm_iou", "Hungarian-matched IoU of both whole sets (M-IoU)"),
        "hm_dice": ("hm_dice", "Hungarian-matched Dice of both whole sets"),
    },
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty=_EMPTY_SIMILARITY,
    needs=_SAMPLES,
)
for _kind, _label in (("dice", "Dice"), ("iou", "IoU")):
    _table(
        "sets",
        "2.4",
        "dice",
        {
            f"{_kind}_max_rater_to_sample": (
                f"{_kind}_max_rater_to_sample",
                f"best sample's {_label}, mean over raters: is every rater covered",
            ),
            f"{_kind}_match": (f"{_kind}_match", f"{_label} of a distinct sample for each rater, best assignment"),
        },
        direction="higher",
        range=(0.0, 1.0),
        worst=0.0,
        depends_on_samples=True,
        empty=_EMPTY_SIMILARITY,
        needs=_SAMPLES,
    )
    _table(
        "sets",
        "2.4",
        "dice",
        {
            f"{_kind}_max_sample_to_rater": (
                f"{_kind}_max_sample_to_rater",
                f"best rater's {_label}, mean over samples: is every sample plausible",
            ),
            f"{_kind}_mean": (f"{_kind}_mean", f"mean {_label} over all pairs of rater and sample"),
        },
        direction="higher",
        range=(0.0, 1.0),
        worst=0.0,
        empty=_EMPTY_SIMILARITY,
        needs=_SAMPLES,
    )
    _table(
        "sets",
        "2.4",
        "dice",
        {f"{_kind}_max_mean": (f"{_kind}_max_mean", f"mean of the two {_kind}_max directions")},
        direction="higher",
        range=(0.0, 1.0),
        worst=0.0,
        depends_on_samples=True,
        empty=_EMPTY_SIMILARITY,
        needs=_SAMPLES,
    )
_table(
    "sets",
    "2.8",
    "ged",
    {"empty_share_samples": ("empty_share_samples", "share of samples that are empty")},
    range=(0.0, 1.0),
    needs=_SAMPLES,
)
_table(
    "sets",
    "2.8",
    "ged",
    {"empty_share_raters": ("empty_share_raters", "share of raters whose mask is empty")},
    range=(0.0, 1.0),
    needs=(),
)
_table(
    "sets",
    "2.8",
    "ged",
    {"empty_gap": ("empty_gap", "difference of the shares of empty masks")},
    direction="lower",
    range=(0.0, 1.0),
    worst=1.0,
    needs=_SAMPLES,
)
_table(
    "mean_map",
    "3",
    "map",
    {
        "dice_soft": ("dice_soft", "Dice of mean map and vote share, mean over thresholds 0.1, 0.3, 0.5, 0.7, 0.9"),
        "iou_soft": ("iou_soft", "dice_soft with IoU"),
        "qubiq": ("qubiq", "dice_soft over nine thresholds 0.1 to 0.9"),
        "dice_majority": ("dice_majority", "Dice of mean map and vote share at 0.5"),
    },
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    empty=_EMPTY_MAPS,
    needs=_MEAN,
)
_table(
    "mean_map",
    "3",
    "map",
    {"dice_continuous": ("dice_continuous", "2 sum(pq) / (sum p + sum q) of mean map and vote share, no threshold")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    empty="1 if both maps are 0 everywhere",
    needs=_MEAN,
)
_table(
    "per_rater",
    "4",
    "rater",
    {
        "dice_rater": ("dice_rater", "Dice of each rater with the map meant for that rater, mean over raters"),
        "dice_rater.worst": ("dice_rater_worst", "smallest Dice of a rater with its own map"),
        "iou_rater": ("iou_rater", "dice_rater with IoU"),
    },
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    empty=_EMPTY_SIMILARITY,
    needs=_ANY_MAP,
)
_table(
    "per_rater",
    "4",
    "rater",
    {
        "dice_rater.each": ("dice_rater_each", "dice_rater of every rater slot"),
        "iou_rater.each": ("iou_rater_each", "iou_rater of every rater slot"),
    },
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    empty=_EMPTY_SIMILARITY,
    needs=_ANY_MAP,
    values="rater",
)
_table(
    "per_rater",
    "4",
    "rater",
    {"dice_rater.gap": ("dice_rater_gap", "own map's Dice less that of the other maps: above 0, maps follow raters")},
    direction="higher",
    range=(-1.0, 1.0),
    worst=-1.0,
    empty=_EMPTY_SIMILARITY,
    needs=_PERSONAL,
)
_table(
    "per_rater",
    "4",
    "rater",
    {
        "rater_identification": ("rater_identification", "share of raters whose own map is their best map"),
        "dice_rater.soft": ("dice_rater_soft", "dice_soft of each personalised map against its rater's mask"),
    },
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    empty=_EMPTY_SIMILARITY,
    needs=_PERSONAL,
)
_table(
    "per_rater",
    "10.4",
    "dice",
    {"dice_each": ("dice_each", "D-Persona's list: matched (dpersona) or by index (dpersona_identity)")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty=_EMPTY_SIMILARITY,
    needs=("samples|probs|rater_probs",),
    values="rater",
)
_table(
    "human",
    "8",
    "dice",
    {
        "human.loo_majority_dice": ("loo_majority_dice", "each rater against the majority of the others"),
        "human.loo_mean_dice": ("loo_mean_dice", "each rater against an average colleague"),
        "human.loo_max_dice": ("loo_max_dice", "each rater against the best colleague"),
        "human.loo_soft_dice": ("loo_soft_dice", "each rater against the vote share of the others"),
    },
    direction="higher",
    range=(0.0, 1.0),
    empty=_EMPTY_SIMILARITY,
    needs=(),
)
_table(
    "human",
    "8",
    "dice",
    {
        "human.loo_majority_dice.each": ("loo_majority_dice_each", "human.loo_majority_dice of every rater slot"),
        "human.loo_mean_dice.each": ("loo_mean_dice_each", "human.loo_mean_dice of every rater slot"),
    },
    direction="higher",
    range=(0.0, 1.0),
    empty=_EMPTY_SIMILARITY,
    needs=(),
    values="rater",
)
_table(
    "human",
    "8",
    "ged",
    {
        "human.loo_ged": ("loo_ged", "one human as a single sample against the others"),
        "human.split_ged": ("split_ged", "half of the raters against the other half, all splits"),
    },
    direction="lower",
    range=(0.0, 2.0),
    empty=_EMPTY_DISTANCE,
    needs=(),
)
_table(
    "human",
    "8",
    "ged",
    {"human.loo_ged.each": ("loo_ged_each", "human.loo_ged of every rater slot")},
    direction="lower",
    range=(0.0, 2.0),
    empty=_EMPTY_DISTANCE,
    needs=(),
    values="rater",
)
_table(
    "human",
    "8",
    "ged",
    {"human.oracle_ged": ("oracle_ged", "expected ged of S independent draws from the raters")},
    direction="lower",
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=_EMPTY_DISTANCE,
    needs=(),
)
_table(
    "human",
    "8",
    "dice",
    {"human.oracle_dice_match": ("oracle_dice_match", "dice_match of S draws from the raters, mean of 200 draws")},
    direction="higher",
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=_EMPTY_SIMILARITY,
    needs=(),
)
_table(
    "human",
    "8",
    "hm",
    {"human.oracle_hm_iou": ("oracle_hm_iou", "hm_iou of S draws from the raters, mean of 200 draws")},
    direction="higher",
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=_EMPTY_SIMILARITY,
    needs=(),
)

# In tables "dice_max" means the direction that asks whether every rater is covered.
METRICS.alias("dice_max", "dice_max_rater_to_sample")
METRICS.alias("m_iou", "hm_iou")


def list_metrics() -> list[str]:
    """Names of all metrics, those of installed packages included."""
    return METRICS.names()
