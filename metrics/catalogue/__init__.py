"""What is known of each metric without importing NumPy: one table a family, `multirater.metrics.registry.table`."""

from . import agreement, human, mean_map, per_rater, sets

__all__ = ["agreement", "human", "mean_map", "per_rater", "sets"]
