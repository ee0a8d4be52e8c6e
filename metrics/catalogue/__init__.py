"""What is known of each metric without importing NumPy: one table a family, `multirater.metrics.registry.table`."""

from . import human, mean_map, per_rater, sets

__all__ = ["human", "mean_map", "per_rater", "sets"]
