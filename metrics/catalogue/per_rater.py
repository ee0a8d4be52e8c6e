"""Per rater and personalised (section 4)."""

from __future__ import annotations

from ..registry import ANY_MAP, EMPTY_SIMILARITY, PERSONAL, table

table(
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
    empty=EMPTY_SIMILARITY,
    needs=ANY_MAP,
)
table(
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
    empty=EMPTY_SIMILARITY,
    needs=ANY_MAP,
    values="rater",
)
table(
    "per_rater",
    "4",
    "rater",
    {"dice_rater.gap": ("dice_rater_gap", "own map's Dice less that of the other maps: above 0, maps follow raters")},
    direction="higher",
    range=(-1.0, 1.0),
    worst=-1.0,
    empty=EMPTY_SIMILARITY,
    needs=PERSONAL,
)
table(
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
    empty=EMPTY_SIMILARITY,
    needs=PERSONAL,
)
table(
    "per_rater",
    "10.4",
    "dice",
    {"dice_each": ("dice_each", "D-Persona's list: matched (dpersona) or by index (dpersona_identity)")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    depends_on_samples=True,
    empty=EMPTY_SIMILARITY,
    needs=("samples|probs|rater_probs",),
    values="rater",
)
