"""The mean map of the samples against the vote share of the raters (specification section 3).

Pixels are first sorted into levels: the number of votes where a map is a share of masks, else the number of thresholds
that a probability passes. One joint histogram of both levels then gives every threshold's exact overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .case import CaseView, Undefined
from .convention import FIVE_LEVELS, NINE_LEVELS, Convention
from .overlap import Floats, Mask, fraction, over_classes
from .rounding import torch_sum

# A mean of probabilities and a weighted share carry rounding of about 1e-16, which depends on the order of the samples:
# it is no reason to pass a threshold.
MEAN_SLACK = 1e-12


@dataclass(frozen=True)
class Levels:
    """Pixels sorted by the thresholds they pass.

    Attributes:
        index: level of each pixel, flat.
        passes: thresholds × levels, whether a level is strictly above a threshold.
        values: value of each pixel, None if it is `worth[index]`.
        worth: value of each level where levels are vote shares.
    """

    index: NDArray
    passes: Mask
    values: Floats | None
    worth: Floats | None


def votes(masks: Mask) -> NDArray:
    """Number of masks (first axis) that hold each pixel, in the smallest unsigned type."""
    kind = np.uint8 if len(masks) < 256 else np.uint16 if len(masks) < 1 << 16 else np.uint32
    return np.add.reduce(masks.view(np.uint8), axis=0, dtype=kind)


def vote_levels(masks: Mask, thresholds: tuple[float, ...]) -> Levels:
    """Levels of the share of masks; k votes of n pass t if k·den > num·n for t = num/den, in integers."""
    n = len(masks)
    return Levels(votes(masks).ravel(), passes_of_votes(n, thresholds), None, np.arange(n + 1) / max(1, n))


@lru_cache(maxsize=1024)
def passes_of_votes(n: int, thresholds: tuple[float, ...]) -> Mask:
    """Thresholds × (n+1): whether k of n votes are strictly more than a threshold; exact for decimal thresholds."""
    exact = [Fraction(t).limit_denominator(10_000) for t in thresholds]
    table = np.array([[k * t.denominator > t.numerator * n for k in range(n + 1)] for t in exact])
    table.flags.writeable = False  # shared by all callers
    return table


def value_levels(values: NDArray, thresholds: tuple[float, ...], slack: float = 0.0) -> Levels:
    """Levels of probabilities: the number of thresholds below the value.

    The comparison is made in the precision of `values`: a stored float32 map that holds the share 3/10 is
    0.30000001 and must not pass 0.3.
    """
    ordered = np.sort(np.array(thresholds))
    flat = values.ravel()
    index = np.zeros(flat.shape, np.uint8)
    for threshold in ordered:
        index += flat > flat.dtype.type(threshold + slack)
    rank = np.searchsorted(ordered, thresholds)
    passes = np.arange(len(ordered) + 1)[None, :] > rank[:, None]
    return Levels(index, passes, flat, None)


@dataclass(frozen=True)
class Comparison:
    """Per class and threshold (K×T): sizes of the thresholded maps and of their intersection; sums of the maps."""

    inter: Floats
    size_map: Floats
    size_raters: Floats
    products: Floats  # K: Σ p̄·q
    sums: Floats  # K: Σ p̄ + Σ q


def mean_of_samples(view: CaseView, label: int, convention: Convention) -> NDArray | None:
    """The mean map of a class (spatial) where it is no share of masks, else None."""
    if view.mean_prob is not None:
        return view.mean_prob if view.mean_prob.ndim < view.raters.ndim else view.mean_prob[label]
    if view.probs is not None:
        probs = view.probs[:, label] if view.channels else view.probs
        probs = probs[: convention.sample_cap]
        weights = view.weights_of_samples(convention)
        if weights is None and convention.single:
            return torch_sum(probs.astype(np.float32)) / np.float32(len(probs))
        if weights is None and convention.dtype == "given":
            given: NDArray = probs.mean(axis=0)
            return given
        if weights is None:
            mean = np.add.reduce(probs, axis=0, dtype=np.float64) / len(probs)
        else:
            mean = np.tensordot(weights, probs.astype(np.float64), axes=1)
        return mean.astype(np.float32) if convention.single else mean
    assert view.samples is not None
    weights = view.weights_of_samples(convention)
    if weights is None:
        return None
    return np.tensordot(
        weights, view.class_mask(view.samples, label)[: convention.sample_cap].astype(np.float64), axes=1
    )


def mean_slack(view: CaseView, convention: Convention) -> float:
    """Rounding that the mean of several samples' probabilities may carry; 0 for maps as they were given."""
    averaged = view.mean_prob is None and view.probs is not None and len(view.probs) > 1
    return MEAN_SLACK if averaged and convention.dtype == "float64" else 0.0


def mean_key(view: CaseView, convention: Convention) -> bool | str:
    """What the mean map depends on of `dtype`; part of the keys of tallies, also of those that are stored.

    Only the mean of several probabilities has a precision of its own; a stored map and a share of masks stay as they
    are.
    """
    averaged = "probs" in view.given and "mean_prob" not in view.given
    return "given" if averaged and convention.dtype == "given" else convention.single


def compare(view: CaseView, convention: Convention) -> Comparison:
    """Overlaps of the mean map and the rater share at all thresholds; shared by the metrics of this module."""

    def compute() -> list[Floats]:
        rows = [_compare_class(view, label, convention) for label in view.classes]
        return [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]

    key = ("mean_map", convention.sample_cap, mean_key(view, convention), thresholds_of(convention))
    return Comparison(*view.tally(key, compute))


def thresholds_of(convention: Convention) -> tuple[float, ...]:
    """The nine levels of QUBIQ, then any further ones the convention asks for."""
    return NINE_LEVELS + tuple(t for t in convention.thresholds or () if t not in NINE_LEVELS)


def _compare_class(view: CaseView, label: int, convention: Convention) -> tuple[Floats, Floats, Floats, float, float]:
    thresholds = thresholds_of(convention)
    given = mean_of_samples(view, label, convention)
    if given is None:
        # Outside the union of all masks both maps are 0 and pass no threshold.
        raters, samples = view.cropped(label)
        left = vote_levels(samples[: convention.sample_cap], thresholds)
    else:
        raters = view.class_mask(view.raters, label)
        hard = view.probs is None and view.mean_prob is None  # a weighted share of masks
        left = value_levels(given, thresholds, mean_slack(view, convention) or (MEAN_SLACK if hard else 0.0))
    if view.rater_weights is None:
        right = vote_levels(raters, thresholds)
    else:
        share = np.tensordot(view.rater_weights, raters.astype(np.float64), axes=1)
        right = value_levels(share, thresholds, MEAN_SLACK)

    n_left, n_right = left.passes.shape[1], right.passes.shape[1]
    joint = np.bincount(left.index.astype(np.intp) * n_right + right.index, minlength=n_left * n_right).reshape(
        n_left, n_right
    )
    pass_left, pass_right = left.passes.astype(np.int64), right.passes.astype(np.int64)
    inter = ((pass_left @ joint) * pass_right).sum(1)
    products, sum_left, sum_right = _sums(left, right, joint)
    return inter, pass_left @ joint.sum(1), pass_right @ joint.sum(0), products, sum_left + sum_right


def _sums(left: Levels, right: Levels, joint: NDArray[np.int64]) -> tuple[float, float, float]:
    """Σ p̄q, Σ p̄, Σ q; from the histogram where both are shares, so that they do not depend on the order of pixels."""
    if left.worth is not None and right.worth is not None:
        sums = left.worth @ joint @ right.worth, joint.sum(1) @ left.worth, joint.sum(0) @ right.worth
        return float(sums[0]), float(sums[1]), float(sums[2])
    a = left.values if left.values is not None else left.worth[left.index]  # type: ignore[index]
    b = right.values if right.values is not None else right.worth[right.index]  # type: ignore[index]
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b), float(a.sum()), float(b.sum())


def _at_levels(view: CaseView, kind: str, levels: tuple[float, ...] | None) -> Floats:
    """Similarity at each threshold, classes combined."""
    convention = view.convention("map")
    chosen = levels or convention.thresholds or FIVE_LEVELS
    where = [thresholds_of(convention).index(t) for t in chosen]
    found = compare(view, convention)
    size_map, size_raters = found.size_map[:, where], found.size_raters[:, where]
    parts = fraction(kind, found.inter[:, where], size_map, size_raters)
    return over_classes(*parts, convention, reference=size_raters)


def soft_scores(view: CaseView, kind: str = "dice", levels: tuple[float, ...] | None = None) -> list[float]:
    """`dice_soft` (or ``iou``) at each threshold, in order; default thresholds as in `dice_soft`."""
    return _at_levels(view, kind, levels).tolist()


def _mean(values: Floats) -> float:
    out = float(values.mean())
    if np.isnan(out):
        raise Undefined("two empty maps have no similarity under this convention")
    return out


def dice_soft(view: CaseView) -> float:
    """Mean over thresholds 0.1, 0.3, 0.5, 0.7, 0.9 of the Dice of both thresholded maps."""
    return _mean(_at_levels(view, "dice", None))


def iou_soft(view: CaseView) -> float:
    """`dice_soft` with IoU."""
    return _mean(_at_levels(view, "iou", None))


def qubiq(view: CaseView) -> float:
    """Mean Dice over the nine thresholds 0.1, 0.2, …, 0.9."""
    return _mean(_at_levels(view, "dice", NINE_LEVELS))


def dice_majority(view: CaseView) -> float:
    """Dice of 1[p̄ > 0.5] and the strict majority of the raters."""
    return _mean(_at_levels(view, "dice", (0.5,)))


def dice_continuous(view: CaseView) -> float:
    """2Σp̄q / (Σp̄ + Σq), what loss functions call soft Dice; 1 if both sums are 0."""
    convention = view.convention("map")
    found = compare(view, convention)
    return _mean(over_classes(2.0 * found.products[:, None], found.sums[:, None], convention))
