"""Mean map against vote share (section 3)."""

from __future__ import annotations

from ..registry import EMPTY_MAPS, MEAN, table

table(
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
    empty=EMPTY_MAPS,
    depends_on_samples=True,
    needs=MEAN,
)
table(
    "mean_map",
    "3",
    "map",
    {"dice_continuous": ("dice_continuous", "2 sum(pq) / (sum p + sum q) of mean map and vote share, no threshold")},
    direction="higher",
    range=(0.0, 1.0),
    worst=0.0,
    empty="1 if both maps are 0 everywhere",
    depends_on_samples=True,
    needs=MEAN,
)
