"""Direction and worst value of a metric, and who leaves a value undefined."""

from __future__ import annotations

from typing import Literal

Direction = Literal["higher", "lower", "zero", "none"]
_LOWER = ("ged", "ece", "brier", "nll", "mode_tv", "empty_gap", "hd95", "assd")
_ZERO = ("diversity_gap",)
_NONE = ("diversity_samples", "diversity_raters", "empty_share_samples", "empty_share_raters")


def direction(metric: str) -> Direction:
    head = metric.partition("@")[0]
    if head in _ZERO:
        return "zero"
    if head in _NONE:
        return "none"
    return "lower" if head.partition(".")[0] in _LOWER else "higher"


def worst_value(metric: str) -> float:
    """The value that stands in where a method leaves a metric undefined (metrics.md 12)."""
    head = metric.partition(".")[0]
    if head == "ged":
        return 2.0
    if head == "ncc":
        return -1.0
    return 1.0 if direction(metric) == "lower" else 0.0


def undefined_by(reason: str) -> int:
    """0: does not apply to the output (not claimed); 1: the data leave it undefined; 2: the method does."""
    head = reason.partition(":")[0].strip()
    if not head or head in ("n/a", "not claimed", "not applicable"):
        return 0
    return 1 if head == "data" else 2


def track(metric: str) -> str:
    """``diversified`` (a set of samples), ``personalised`` (a map per reader) or ``mean`` (the mean map)."""
    head = metric.partition("@")[0].partition(".")[0]
    if head in ("dice_rater", "iou_rater", "rater_identification") or metric.endswith(".rater"):
        return "personalised"
    if head in (
        "dice_soft",
        "iou_soft",
        "qubiq",
        "dice_majority",
        "dice_continuous",
        "ncc",
        "ece",
        "ace",
        "mce",
        "brier",
        "nll",
    ):
        return "mean"
    return "diversified"
