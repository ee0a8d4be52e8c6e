"""Pairwise distances of masks, and GED over the number of samples from one such matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...metrics.overlap import crop, intersections


def iou_distances(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 − IoU of all pairs of T×H×W masks; two empty masks agree (distance 0)."""
    inter = intersections(crop([masks])).astype(np.float64)
    sizes = np.diag(inter)
    union = sizes[:, None] + sizes[None] - inter
    return 1 - np.where(union > 0, inter / np.maximum(union, 1), 1.0)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def rater_diversity(masks: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """v_R of N cases (metrics.md 2.1) from N×R×H×W masks; NaN where no reader saw the case."""
    return np.array([iou_distances(m[v]).mean() if v.any() else np.nan for m, v in zip(masks, valid, strict=True)])


def ged_over_samples(
    samples: NDArray[np.bool_], raters: NDArray[np.bool_], sizes: Sequence[int]
) -> NDArray[np.float64]:
    """GED of the first s samples against the readers, for every s in `sizes`.

    Args:
        samples: S×H×W, in stored order.
        raters: R×H×W, the readers that saw the case.
        sizes: numbers of samples, each at most S.

    Returns:
        One value per size, diagonal included (metrics.md 2.1).
    """
    count = len(samples)
    distance = iou_distances(np.concatenate([samples, raters]))
    among_raters = distance[count:, count:].mean()
    cross = distance[:count, count:].mean(1)
    among = distance[:count, :count]
    return np.array([2 * cross[:s].mean() - among[:s, :s].mean() - among_raters for s in sizes])
