"""What is known of each metric without importing NumPy: one table a family, `multirater.metrics.registry.table`."""

from . import agreement, human, insight, mean_map, others, per_rater, sets, uncertainty

__all__ = ["agreement", "human", "insight", "mean_map", "others", "per_rater", "sets", "uncertainty"]
