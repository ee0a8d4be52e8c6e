"""The trivial rows: what a cell's own outputs give without any learning of personalisation or diversity.

They stand in every table beside the method, also where they win (quick_preset, baselines).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.sequences import van_der_corput

THRESHOLDS = np.round(np.arange(0.02, 1.0, 0.02), 2)


def level_sets(mean: np.ndarray, n: int) -> np.ndarray:
    """Nested level sets S×H×W of a mean map H×W: mask s is ``mean > u_s``, u the van der Corput points."""
    return mean[None] > van_der_corput(n).reshape(-1, *[1] * mean.ndim)


def class_level_sets(mean: np.ndarray, n: int) -> np.ndarray:
    """Level sets n×K×H×W of a map (K+1)×H×W of exclusive classes, background first: each is one class a pixel.

    Threshold u gives the class k with P(class > k) ≤ u < P(class ≥ k). With one class these are the `level_sets`.
    """
    reached = mean[::-1].astype(np.float64).cumsum(0)[::-1]  # P(class >= k)
    sets = level_sets(reached[1:], n)
    sets[:, :-1] &= ~sets[:, 1:]
    return sets


def dice_at_thresholds(mean: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Dice between ``mean > t`` and each rater of one case: T×R (two empty masks: 1).

    Args:
        mean: [D×]H×W map.
        masks: R×[D×]H×W.
    """
    # Number of thresholds below each value, so that the counts above all thresholds are one histogram each.
    reached = np.searchsorted(THRESHOLDS, mean.ravel().astype(np.float64), side="left")
    planes = [np.ones(reached.shape, bool), *(mask.ravel() > 0 for mask in masks)]
    counts = np.stack([np.bincount(reached[plane], minlength=len(THRESHOLDS) + 1) for plane in planes], 1)
    above = counts[::-1].cumsum(0)[::-1][1:]  # of all pixels, then of each rater's
    total = above[:, :1] + counts[:, 1:].sum(0)
    return np.where(total > 0, 2 * above[:, 1:] / np.maximum(total, 1), 1.0)


def best_thresholds(scores: Sequence[np.ndarray], valid: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """One threshold per rater (R) and one for all raters, the best on these (validation) cases; the lowest wins a tie.

    A rater who is missing in all of them gets the common threshold.

    Args:
        scores: T×R of each case, `dice_at_thresholds`.
        valid: R bool of each case, who saw it.
    """
    seen = np.asarray(valid)
    means = np.where(seen[:, None], scores, 0).sum(0) / np.maximum(seen.sum(0), 1)
    common = float(THRESHOLDS[means.mean(1).argmax()])
    return np.where(seen.any(0), THRESHOLDS[means.argmax(0)], common), common


def rater_area_ranks(areas: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Rank 0…R-1 of each rater by mean area relative to its case, over (training) cases.

    Args:
        areas: N×R, of the masks.
        valid: N×R bool.
    """
    areas = np.where(valid, areas, np.nan)
    with np.errstate(invalid="ignore"):
        relative = areas / np.maximum(np.nanmean(areas, 1, keepdims=True), 1)
    mean = np.array([np.nanmean(column) if np.isfinite(column).any() else np.inf for column in relative.T])
    return np.argsort(np.argsort(mean, kind="stable"), kind="stable")


def area_ranks(samples: np.ndarray, ranks: np.ndarray, region: np.ndarray | None = None) -> np.ndarray:
    """For each rater the sample at that rater's area quantile: R×H×W from S×H×W.

    With S = 50 and R = 4 these are the samples number 7, 19, 32 and 44 by area; ties by position.

    Args:
        samples: S×[D×]H×W bool.
        ranks: R, `rater_area_ranks`.
        region: [D×]H×W bool, the pixels whose area counts; None: all.
    """
    count, raters = len(samples), len(ranks)
    counted = samples if region is None else samples & region
    order = np.argsort(counted.reshape(count, -1).sum(1), kind="stable")
    position = np.ceil((ranks + 0.5) / raters * count).astype(int) - 1
    return samples[order[position]]


def vote_levels(masks: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each rater the true vote level of its area rank: who draws least gets unanimity, who draws most the union."""
    votes = masks.sum(0)
    needed = len(masks) - ranks
    return votes[None] >= needed.reshape(-1, *[1] * votes.ndim)
