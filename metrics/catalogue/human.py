"""Human baselines and oracle rows (section 8)."""

from __future__ import annotations

from ..registry import EMPTY_DISTANCE, EMPTY_SIMILARITY, table

table(
    "human",
    "8",
    "dice",
    {
        "human.loo_majority_dice": ("loo_majority_dice", "each rater against the majority of the others"),
        "human.loo_mean_dice": ("loo_mean_dice", "each rater against an average colleague"),
        "human.loo_max_dice": ("loo_max_dice", "each rater against the best colleague"),
    },
    direction="higher",
    range=(0.0, 1.0),
    empty=EMPTY_SIMILARITY,
    needs=(),
)
table(
    "human",
    "8",
    "map",
    {"human.loo_soft_dice": ("loo_soft_dice", "each rater against the vote share of the others")},
    direction="higher",
    range=(0.0, 1.0),
    empty=EMPTY_SIMILARITY,
    needs=(),
)
table(
    "human",
    "8",
    "dice",
    {
        "human.loo_majority_dice.each": ("loo_majority_dice_each", "human.loo_majority_dice of every rater slot"),
        "human.loo_mean_dice.each": ("loo_mean_dice_each", "human.loo_mean_dice of every rater slot"),
    },
    direction="higher",
    range=(0.0, 1.0),
    empty=EMPTY_SIMILARITY,
    needs=(),
    values="rater",
)
table(
    "human",
    "8",
    "ged",
    {
        "human.loo_ged": ("loo_ged", "one human as a single sample against the others"),
        "human.split_ged": ("split_ged", "half of the raters against the other half, all splits"),
    },
    direction="lower",
    range=(0.0, 2.0),
    empty=EMPTY_DISTANCE,
    needs=(),
)
table(
    "human",
    "8",
    "ged",
    {"human.loo_ged.each": ("loo_ged_each", "human.loo_ged of every rater slot")},
    direction="lower",
    range=(0.0, 2.0),
    empty=EMPTY_DISTANCE,
    needs=(),
    values="rater",
)
table(
    "human",
    "8",
    "ged",
    {"human.oracle_ged": ("oracle_ged", "expected ged of S independent draws from the raters")},
    direction="lower",
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=EMPTY_DISTANCE,
    needs=(),
)
table(
    "human",
    "8",
    "dice",
    {"human.oracle_dice_match": ("oracle_dice_match", "dice_match of S draws from the raters, mean of 200 draws")},
    direction="higher",
    version=2,
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=EMPTY_SIMILARITY,
    needs=(),
)
table(
    "human",
    "8",
    "hm",
    {"human.oracle_hm_iou": ("oracle_hm_iou", "hm_iou of S draws from the raters, mean of 200 draws")},
    direction="higher",
    version=2,
    range=(0.0, 1.0),
    depends_on_samples=True,
    empty=EMPTY_SIMILARITY,
    needs=(),
)
