"""Sample set against rater set (sections 2.1 to 2.4 and 2.8)."""

from __future__ import annotations

from ..registry import EMPTY_DISTANCE, EMPTY_SIMILARITY, SAMPLES, table

table(
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
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
    "sets",
    "2.1",
    "ged",
    {"ged.debiased": ("ged_debiased", "energy distance, sample pairs (i, i) left out: comparable across S")},
    direction="lower",
    range=(-1.0, 2.0),
    worst=2.0,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
    "sets",
    "2.1",
    "ged",
    {"ged.ustat": ("ged_ustat", "energy distance, pairs (i, i) of both sets left out; may be negative")},
    direction="lower",
    range=(-2.0, 2.0),
    worst=2.0,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
    "sets",
    "2.1",
    "ged",
    {"ged.per_class": ("ged_per_class", "ged of each class against the rest; their mean is ged")},
    direction="lower",
    range=(0.0, 2.0),
    worst=2.0,
    depends_on_samples=True,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
    values="class",
)
table(
    "sets",
    "2.1",
    "ged",
    {"cross": ("cross", "mean distance of a sample to a rater, a part of ged")},
    direction="lower",
    range=(0.0, 1.0),
    worst=1.0,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
    "sets",
    "2.2",
    "ged",
    {"diversity_samples": ("diversity_samples", "mean distance within the samples, diagonal included")},
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
    "sets",
    "2.2",
    "ged",
    {"diversity_samples.ustat": ("diversity_samples_ustat", "mean distance of two different samples")},
    range=(0.0, 1.0),
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
    "sets",
    "2.2",
    "ged",
    {"diversity_raters": ("diversity_raters", "mean distance within the raters, diagonal included")},
    range=(0.0, 1.0),
    empty=EMPTY_DISTANCE,
    needs=(),
)
table(
    "sets",
    "2.2",
    "ged",
    {"diversity_gap": ("diversity_gap", "diversity of the samples less that of the raters")},
    direction="target 0",
    range=(-1.0, 1.0),
    worst=-1.0,
    depends_on_samples=True,
    empty=EMPTY_DISTANCE,
    needs=SAMPLES,
)
table(
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
    empty=EMPTY_SIMILARITY,
    needs=SAMPLES,
)
for _kind, _label in (("dice", "Dice"), ("iou", "IoU")):
    table(
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
        empty=EMPTY_SIMILARITY,
        needs=SAMPLES,
    )
    table(
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
        empty=EMPTY_SIMILARITY,
        needs=SAMPLES,
    )
    table(
        "sets",
        "2.4",
        "dice",
        {f"{_kind}_max_mean": (f"{_kind}_max_mean", f"mean of the two {_kind}_max directions")},
        direction="higher",
        range=(0.0, 1.0),
        worst=0.0,
        depends_on_samples=True,
        empty=EMPTY_SIMILARITY,
        needs=SAMPLES,
    )
table(
    "sets",
    "2.8",
    "ged",
    {"empty_share_samples": ("empty_share_samples", "share of samples that are empty")},
    range=(0.0, 1.0),
    needs=SAMPLES,
)
table(
    "sets",
    "2.8",
    "ged",
    {"empty_share_raters": ("empty_share_raters", "share of raters whose mask is empty")},
    range=(0.0, 1.0),
    needs=(),
)
table(
    "sets",
    "2.8",
    "ged",
    {"empty_gap": ("empty_gap", "difference of the shares of empty masks")},
    direction="lower",
    depends_on_samples=True,
    range=(0.0, 1.0),
    worst=1.0,
    needs=SAMPLES,
)
