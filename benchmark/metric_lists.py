"""Which metrics an evaluation computes, by what they look at."""

from __future__ import annotations

from functools import lru_cache

from ..metrics.registry import METRICS, info_of

SET_METRICS = (
    "ged ged.dice ged.debiased ged.ustat cross diversity_samples diversity_raters diversity_gap hm_iou hm_dice "
    "dice_max_rater_to_sample dice_max_sample_to_rater dice_max_mean dice_match dice_mean "
    "mode_tv ci combined_sensitivity diversity_agreement empty_share_samples empty_share_raters empty_gap"
).split()
UNCERTAINTY_METRICS = ["ncc"]
_CALIBRATION = "brier nll ece ace mce".split()
MEAN_METRICS = [
    *"dice_soft iou_soft qubiq dice_majority dice_continuous".split(),
    *(f"{metric}{region}" for metric in _CALIBRATION for region in ("", ".full")),
]
# Of a mask for each rater, or of the common mask of an output that has none.
RATER_METRICS = "dice_rater dice_rater.each dice_rater.worst iou_rater hd95 hd95.each assd nsd".split()
# Of a mask for each rater only.
PERSONAL_METRICS = "dice_rater.gap rater_identification".split()
# Of a probability map for each rater.
PERSONAL_MAP_METRICS = "ece.rater ece.rater.full brier.rater brier.rater.full".split()

NEEDS_TWO = ("ged.debiased", "ged.ustat")
NAMED = ("dice_rater.each", "dice_rater.worst", "hd95.each")  # meaningless where rater slots have no identity


def set_metrics(samples: int) -> list[str]:
    """Metrics of a set of so many masks; one mask has no spread to correct for: n/a, not a failure of the method."""
    return [m for m in SET_METRICS if samples > 1 or m not in NEEDS_TWO]


def rater_metrics(personal: bool, named: bool) -> list[str]:
    """Metrics of masks per rater.

    Args:
        personal: there is a mask for each rater.
        named: rater slots have an identity.
    """
    names = RATER_METRICS + (PERSONAL_METRICS if personal and named else [])
    return [m for m in names if named or m not in NAMED]


def metric_versions() -> dict[str, int]:
    """Versions of the metrics that an evaluation computes: a raised version makes a new evaluation, not a training."""
    lists = (SET_METRICS, UNCERTAINTY_METRICS, MEAN_METRICS, RATER_METRICS, PERSONAL_METRICS, PERSONAL_MAP_METRICS)
    names = sorted(name for metrics in lists for name in metrics)
    return {name: int(METRICS.entry(name).info.get("version", 1)) for name in names}


@lru_cache(maxsize=256)
def base_and_region(metric: str) -> tuple[str, str]:
    """Id and region as ``metrics.csv`` writes them: ``ece.full`` is ``ece`` over ``full``, ``ece`` is over ``box``."""
    info = info_of(metric)
    return str(info["base"] or metric), str(info["region"] or "full")
