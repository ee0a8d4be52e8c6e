"""multirater: a benchmark suite for multi-rater medical image segmentation."""

__version__ = "0.1.0"
