"""What is known of each metric without importing NumPy: one table a family, `multirater.metrics.registry.table`."""

from . import agreement, calibration, human, insight, mean_map, others, per_rater, sets, surface, uncertainty

__all__ = [
    "agreement",
    "calibration",
    "human",
    "insight",
    "mean_map",
    "others",
    "per_rater",
    "sets",
    "surface",
    "uncertainty",
]
