"""How far the raters of a data set agree, before any method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def inter_rater_dice(data: Any, progress: Callable[[int], None] = lambda done: None) -> float | None:
    """Mean over cases of the mean Dice over pairs of raters who saw the case; None with fewer than two raters.

    Several classes count as the mean over classes; two empty masks agree (Dice 1). A case seen by one rater is left
    out.
    """
    classes = data.describe().classes
    values = []
    for i in range(len(data)):
        _, masks, valid = data.arrays([i])
        seen = masks[0][valid[0]]
        if len(seen) > 1:
            values.append(np.mean([_pairs(mask) for mask in _per_class(seen, classes)]))
        progress(i + 1)
    return float(np.mean(values)) if values else None


def _per_class(masks: np.ndarray, classes: int) -> list[np.ndarray]:
    """Binary R×pixels of each class, from class indices R×H×W or planes R×K×H×W."""
    if masks.ndim > 3:
        return [masks[:, k].reshape(len(masks), -1) > 0 for k in range(classes)]
    flat = masks.reshape(len(masks), -1)
    return [flat == k + 1 for k in range(classes)]


def _pairs(masks: np.ndarray) -> float:
    flat = masks.astype(np.float64)
    both = flat @ flat.T
    total = np.add.outer(both.diagonal(), both.diagonal())
    dice = np.divide(2 * both, total, out=np.ones_like(both), where=total > 0)
    return float(dice[np.triu_indices(len(flat), 1)].mean())
