"""Saliency scores of the mean map, as MR-Net's released evaluation file computes them (specification section 9).

They are not the soft Dice of its paper. The released file reads 8-bit images; here maps keep their precision.
"""

from __future__ import annotations

import numpy as np

from .case import CaseView
from .channels import mean_channels, shares
from .convention import CANONICAL
from .overlap import Floats

_BETA_SQUARED = 0.3


def _scaled(view: CaseView) -> Floats:
    """Mean map of each class (K×N) scaled to 0 … 1; a constant map becomes 0, as released."""
    mean = mean_channels(view, CANONICAL)[1:]
    low, high = mean.min(axis=1, keepdims=True), mean.max(axis=1, keepdims=True)
    return (mean - low) / np.where(high > low, high - low, 1.0)


def fmeasure(view: CaseView) -> float:
    """F with β² = 0.3 of the scaled map at the threshold min(1, twice its mean); mean over raters, then classes.

    A pixel at the threshold is foreground. 0 where precision and recall are both 0, which an empty rater makes so.
    """
    scaled = _scaled(view)
    mask = scaled >= np.minimum(1.0, 2.0 * scaled.mean(axis=1, keepdims=True))
    size = np.count_nonzero(mask, axis=1)
    values = []
    for label, one, total in zip(view.classes, mask, size, strict=True):
        rater = view.class_mask(view.raters, label).reshape(view.R, -1)
        both = np.count_nonzero(rater & one, axis=1)
        precision = both / max(1, total)
        recall = both / np.maximum(1, np.count_nonzero(rater, axis=1))
        below = _BETA_SQUARED * precision + recall
        values.append((1.0 + _BETA_SQUARED) * precision * recall / np.where(below > 0, below, 1.0))
    each = np.mean(values, axis=0)
    return float(each.mean() if view.rater_weights is None else view.rater_weights @ each)


def mae(view: CaseView) -> float:
    """Mean absolute difference of the scaled map and a rater's mask; mean over raters, then classes."""
    scaled = _scaled(view)
    # The mean over the raters of |y − s| at a pixel with vote share q is q(1 − s) + (1 − q)s.
    share = shares(view, view.raters, view.rater_weights)[1:]
    return float((share * (1.0 - scaled) + (1.0 - share) * scaled).mean())
