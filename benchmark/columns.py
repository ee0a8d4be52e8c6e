"""What the tables say of a metric: heading, direction, digits, footnote, and the rules of its comparison."""

from __future__ import annotations

from dataclasses import dataclass

TRIVIAL = ("levels", "own_threshold", "area_ranks", "common_threshold")
HUMAN_OUTPUTS = ("human", "oracle", "oracle_majority", "oracle_levels")
REAL_ORDER = ("diverse", "consensus", "personalised")

OUTPUT_NOTES = {
    "human": "each reader against the remaining ones: not a bound, since one mask cannot show the spread",
    "oracle": "a perfect sampler: S masks drawn from the readers themselves",
    "oracle_majority": "the true strict majority as the only mask; no method can know it",
    "oracle_levels": "nested level sets of the true vote map; no method can know it",
    "diverse": "the method's anonymous samples",
    "consensus": "the deterministic mean map as the only mask",
    "personalised": "the map given for each reader; as a set, these R maps are the samples",
    "levels": "trivial: nested level sets of the same cell's mean map",
    "own_threshold": "trivial: one threshold of the mean map per reader, chosen on validation patients",
    "area_ranks": "trivial: the cell's samples sorted by area, one rank per reader by mean area over training patients",
    "common_threshold": "trivial: one threshold of the mean map for all readers, chosen on validation (common mask)",
}


@dataclass(frozen=True)
class Column:
    """One metric column.

    Attributes:
        metric: metric id.
        label: heading without the arrow.
        note: footnote.
        interval: show the 95 % interval in Markdown.
        digits: decimals.
    """

    metric: str
    label: str
    note: str
    interval: bool = False
    digits: int = 3


SAMPLE_COLUMNS = (
    Column("ged", "GED", "squared generalised energy distance, 1 − IoU, diagonal included", interval=True),
    Column("ged.debiased", "GED deb.", "GED with the samples' diagonal left out: expectation independent of S"),
    Column("hm_iou", "HM-IoU", "Hungarian-matched IoU of both whole sets", interval=True),
    Column(
        "diversity_samples",
        "Div.",
        "mean distance (1 − IoU) between the samples; the readers' own is the target",
    ),
    Column("diversity_gap", "Div. gap", "diversity of the samples minus that of the readers; 0 is the target"),
    Column("dice_max_rater_to_sample", "Dice max", "best sample for each reader (dice_max_rater_to_sample)"),
    Column("dice_match", "Dice match", "best one-to-one choice of a sample for each reader"),
    Column("ncc", "NCC", "correlation of the uncertainty map with the readers' cross-entropy maps"),
    Column("mode_tv", "Modes", "total variation between how often samples and readers take each reader's mask"),
    Column("ci", "CI", "collective insight: harmonic mean of sensitivity, Dice max and diversity agreement"),
    Column("empty_share_samples", "Empty", "share of empty samples"),
    Column("empty_gap", "Empty gap", "distance of that share from the readers' share of empty masks"),
)
MEAN_COLUMNS = (
    Column(
        "dice_soft",
        "Dice soft",
        "mean map against the vote share, Dice averaged over the thresholds 0.1, 0.3, 0.5, 0.7, 0.9",
        interval=True,
    ),
    Column("dice_majority", "Dice maj.", "mean map > 0.5 against the strict majority"),
)
_FULL = "the same over the whole image, which easy background dominates"
CALIBRATION_COLUMNS = (
    Column(
        "brier",
        "Brier",
        "mean squared error of the mean map against the vote share, in the box around the readers' masks",
        interval=True,
        digits=4,
    ),
    Column("brier.full", "Brier full", _FULL, digits=4),
    Column("ece", "ECE", "calibration error of the mean map against the vote share, 10 bins, same box", interval=True),
    Column("ece.full", "ECE full", _FULL),
    Column("nll", "NLL", "cross entropy of vote share and mean map, in nats; 0 cannot be reached where readers differ"),
    Column("nll.full", "NLL full", _FULL),
    Column("ace", "ACE", "calibration error over bins of equal mass, same box"),
    Column("mce", "MCE", "largest calibration gap of a bin, same box"),
    Column("ece.rater", "ECE reader", "calibration error of the map meant for a reader against that reader's mask"),
    Column("brier.rater", "Brier reader", "mean squared error of the same", digits=4),
)
BORDER_COLUMNS = (
    Column(
        "hd95",
        "HD95",
        "95th percentile distance of the borders of mask and reader, mean over readers; mm, or pixels without spacing",
        interval=True,
        digits=2,
    ),
    Column("assd", "ASSD", "mean distance of the borders, same unit", digits=2),
    Column("nsd", "NSD", "share of the borders within one pixel of each other"),
)
RATER_MEAN = Column("dice_rater", "Dice mean", "mean over the readers of a case, then over cases", interval=True)
BY_METRIC = {c.metric: c for c in (*SAMPLE_COLUMNS, *MEAN_COLUMNS, *CALIBRATION_COLUMNS, *BORDER_COLUMNS, RATER_MEAN)}
RATER_OVER = Column(
    "dice_rater.over_raters", "Dice of means", "mean of the per-reader means; differs where readers miss cases"
)
RATER_EXTRA = (
    Column(
        "dice_rater.gap",
        "gap",
        "own reader's Dice minus the other readers' with the same mask; > 0: outputs follow readers",
    ),
    Column("rater_identification", "Ident.", "share of readers for whom their own mask is the best of the R"),
)
TERMINAL_COLUMNS = ("ged", "diversity_samples", "dice_soft", "dice_max_rater_to_sample", "dice_match")


def rater_column(rater: str) -> Column:
    return Column(f"dice_rater[{rater}]", f"Dice {rater}", "Dice of the mask meant for this reader")


def base_metric(metric: str) -> str:
    """The registered id behind a table's metric: without rater or class."""
    return metric.removesuffix(".over_raters").partition("[")[0].partition("{")[0]
