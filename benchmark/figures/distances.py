"""Pairwise distances of masks, and GED and Dice match over the number of samples from one matrix of overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...metrics.matching import distinct_match
from ...metrics.overlap import crop, intersections


def iou_distances(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 − IoU of all pairs of T×H×W masks; two empty masks agree (distance 0)."""
    inter, area = _overlaps(masks)
    return 1 - _ratio(inter, area[:, None] + area[None] - inter)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def rater_diversity(masks: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """v_R of N cases (metrics.md 2.1) from N×R×H×W masks; NaN where no reader saw the case."""
    return np.array([iou_distances(m[v]).mean() if v.any() else np.nan for m, v in zip(masks, valid, strict=True)])


def over_samples(samples: NDArray[np.bool_], raters: NDArray[np.bool_], sizes: Sequence[int]) -> NDArray[np.float64]:
    """GED and Dice match of the first s samples against the readers, for every s in `sizes`: 2×len(sizes).

    Args:
        samples: S×H×W, in stored order.
        raters: R×H×W, the readers that saw the case.
        sizes: numbers of samples, each at most S.
    """
    count = len(samples)
    inter, area = _overlaps(np.concatenate([samples, raters]))
    distance = 1 - _ratio(inter, area[:, None] + area[None] - inter)
    similarity = _ratio(2 * inter[count:, :count], area[count:, None] + area[None, :count])
    among_raters = distance[count:, count:].mean()
    cross = distance[:count, count:].mean(1)
    among = distance[:count, :count]
    ged = [2 * cross[:s].mean() - among[:s, :s].mean() - among_raters for s in sizes]
    return np.array([ged, [distinct_match(similarity[:, :s]) for s in sizes]])


def perfect_sampler(raters: NDArray[np.bool_], sizes: Sequence[int], draws: NDArray[np.intp]) -> NDArray[np.float64]:
    """What the readers themselves as samples would get: 2×len(sizes), GED exactly, Dice match as a mean over draws.

    Args:
        raters: R×H×W, the readers that saw the case.
        sizes: numbers of samples.
        draws: T×S reader drawn as each sample, S at least the largest size; taken modulo R.
    """
    inter, area = _overlaps(raters)
    diversity = (1 - _ratio(inter, area[:, None] + area[None] - inter)).mean()
    similarity = _ratio(2 * inter, area[:, None] + area[None])
    drawn = similarity[:, draws % len(raters)]  # R×T×S
    match = [[distinct_match(drawn[:, t, :s]) for t in range(drawn.shape[1])] for s in sizes]
    return np.array([[diversity / s for s in sizes], np.mean(match, axis=1)])


def _overlaps(masks: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersections of all pairs and sizes."""
    inter = intersections(crop([masks])).astype(np.float64)
    return inter, np.diag(inter)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU or Dice from counts; two empty masks agree."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)
