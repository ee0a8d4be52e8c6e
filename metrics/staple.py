"""STAPLE: raters as noisy observers of an unknown true mask (Warfield, Zou and Wells 2004; specification section 7).

The estimate depends strongly on how much background is looked at: metrics run over the box around the raters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from ..core.errors import UserError
from .agreement import each_class, need
from .case import CaseView, Undefined
from .inputs import read_case
from .overlap import Floats, Mask, fraction, over_classes
from .patterns import Counts, coded, patterns_of
from .region import Region, box_of

START = 0.99999
TOLERANCE = 1e-6
ROUNDS = 200
CLIP = 1e-6
# A share of exactly 1/2 is background; the sums behind it carry rounding of about this size.
_SLACK = 1e-12


@dataclass(frozen=True)
class Estimate:
    """STAPLE over patterns.

    Attributes:
        weights: P, probability that a pixel of each pattern belongs to the truth.
        sensitivity, specificity: R, in [1e-6, 1 − 1e-6]; nan if the truth holds no pixel (every pixel).
        rounds: rounds of expectation and maximisation.
    """

    weights: Floats
    sensitivity: Floats
    specificity: Floats
    rounds: int


def estimate(rows: Mask, counts: Counts) -> Estimate:
    """STAPLE of vote patterns.

    Starts at 0.99999, with the mean vote share as prior, and stops when no parameter moves by more than 1e-6, at most
    after 200 rounds. `weights` are those of the last expectation, of which the parameters are the maximisation.

    Args:
        rows: P×R bool, all different; every pixel of the region has one of them.
        counts: P positive numbers of pixels.
    """
    raters = rows.shape[1]
    marked = rows[rows.any(axis=1)]
    if len(marked) == 0 or (len(marked) == 1 and marked.all()):  # all empty, or all equal
        weights: Floats = np.asarray(rows.any(axis=1), dtype=np.float64)
        sure = np.full(raters, 1.0 - CLIP)
        undefined = np.full(raters, math.nan)
        return Estimate(weights, sure if len(marked) else undefined, undefined if weights.all() else sure, 0)

    yes, no, pixels = rows, ~rows, counts[:, None].astype(np.float64)
    total = int(counts.sum()) * raters
    votes = int((rows.sum(axis=1) * counts).sum())
    prior = math.log(votes) - math.log(total - votes)
    a = b = np.full(raters, START)
    rounds, moved = 0, math.inf
    while moved > TOLERANCE and rounds < ROUNDS:
        rounds += 1
        if_marked = np.log(a) - np.log1p(-b)
        if_not = np.log1p(-a) - np.log(b)
        odds = prior + _sum(np.where(yes, if_marked, if_not).T)
        # Scaled by the largest term: with many raters the weights themselves underflow.
        in_truth, outside = log_expit(odds), log_expit(-odds)
        u = np.exp(in_truth - in_truth.max())[:, None] * pixels
        v = np.exp(outside - outside.max())[:, None] * pixels
        next_a = np.clip(_sum(np.where(yes, u, 0.0)) / _sum(u), CLIP, 1.0 - CLIP)
        next_b = np.clip(_sum(np.where(no, v, 0.0)) / _sum(v), CLIP, 1.0 - CLIP)
        moved = max(np.abs(next_a - a).max(), np.abs(next_b - b).max())
        a, b = next_a, next_b
    return Estimate(np.asarray(expit(odds)), a, b, rounds)


def _sum(terms: Floats) -> Floats:
    """Sum over the first axis with the same bits for any order of the terms.

    Raters whom the votes do not tell apart must keep equal parameters: equal parameters are often an unstable fixed
    point, from which a difference in the last bit grows over the rounds until it decides the estimate.
    """
    total: Floats = np.add.reduce(np.sort(terms, axis=0), axis=0)
    return total


def is_truth(weights: Floats) -> Mask:
    """1[W > 0.5], strictly: a tie is background."""
    return weights > 0.5 + _SLACK


# -- one case, with its map ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Staple:
    """STAPLE of one case.

    Attributes:
        weights: spatial float64, W: probability that a pixel belongs to the truth; 0 outside the region.
        sensitivity, specificity: one for each rater slot, nan for missing raters; also nan if the truth holds no pixel
            (sensitivity: all raters are empty) or every pixel (specificity).
        rounds: rounds of expectation and maximisation; 0 if all raters are equal.
    """

    weights: Floats
    sensitivity: Floats
    specificity: Floats
    rounds: int

    @property
    def mask(self) -> Mask:
        """1[W > 0.5], spatial."""
        return is_truth(self.weights)


def staple_case(
    raters: Any,
    *,
    rater_valid: Any = None,
    valid: Any = None,
    spacing: Any = None,
    label: int | None = None,
    region: Region = "box",
) -> Staple:
    """STAPLE of one case.

    Args:
        raters: R×spatial, binary masks or class maps.
        rater_valid, valid, spacing: as in `multirater.metrics.score_case`; the spacing sets the size of the box.
        label: the class that counts, against the rest; needed for class maps with several labels.
        region: ``box`` around the raters, or ``full``, all pixels that count.

    Raises:
        UserError: bad arrays, no rater or no pixel, or several labels and none chosen.

    Example:
        >>> import numpy as np
        >>> a = np.zeros((4, 4), bool); a[:, :2] = True
        >>> found = staple_case(np.stack([a, a, a.T]))
        >>> bool((found.mask == a).all()), found.sensitivity.round(2).tolist()
        (True, [1.0, 1.0, 0.5])
    """
    if region not in ("box", "full"):
        raise UserError(f"region = {region!r} is not allowed; choose box or full")
    view = one_class(raters, rater_valid=rater_valid, valid=valid, spacing=spacing, label=label)
    masks = view.placed(view.raters)
    rows, counts = patterns_of(view, view.classes[0]).with_background(region)
    result = estimate(rows, counts)

    box = box_of(masks, view.spacing) if region == "box" else (slice(None),) * (masks.ndim - 1)
    inside = masks[(slice(None), *box)]
    here = coded(inside)
    by_row = {row.tobytes(): weight for row, weight in zip(rows, result.weights, strict=True)}
    weights = np.zeros(masks.shape[1:])
    # A pattern without votes may occur here among invalid pixels only: then no weight of it was estimated.
    weights[box] = here.painted(np.array([by_row.get(row.tobytes(), 0.0) for row in here.rows]))
    if view.valid is not None:
        weights[~view.valid] = 0.0
    return Staple(
        weights, np.array(view.spread(result.sensitivity)), np.array(view.spread(result.specificity)), result.rounds
    )


def one_class(
    raters: Any, *, rater_valid: Any = None, valid: Any = None, spacing: Any = None, label: int | None = None
) -> CaseView:
    """A checked case of binary masks: those given, or one label of class maps.

    Raises:
        UserError: bad arrays, no rater or no pixel, or several labels and none chosen.
    """
    view = read_case(
        raters, rater_valid=rater_valid, valid=valid, spacing=spacing, classes=None if label is None else [label]
    )
    if view.void:
        raise UserError(f"{view.void}; leave the case out")
    if len(view.classes) > 1:
        raise UserError(f"raters holds the labels {list(view.classes)}; choose one with label=")
    return view


# -- metrics ------------------------------------------------------------------------------------------


def _of_class(view: CaseView, label: int) -> tuple[Mask, Counts, Estimate]:
    """Patterns of the box, their numbers and the estimate, once for each case and class."""
    key = ("staple", label)
    if key not in view.memory:
        rows, counts = patterns_of(view, label).with_background("box")
        view.memory[key] = rows, counts, estimate(rows, counts)
    out = view.memory[key]
    assert isinstance(out, tuple)
    return out


def _dice(view: CaseView) -> Floats:
    """Dice of each rater with 1[W > 0.5]; R."""
    need(view, 1)
    parts = []
    for label in view.classes:
        rows, counts, found = _of_class(view, label)
        truth = is_truth(found.weights)
        sizes = (rows * counts[:, None]).sum(axis=0)
        shared = (rows[truth] * counts[truth, None]).sum(axis=0)
        parts.append((shared, sizes, np.full(len(sizes), counts[truth].sum())))
    shared, sizes, truths = (np.array(column, dtype=np.float64) for column in zip(*parts, strict=True))
    values = over_classes(*fraction("dice", shared, sizes, truths), view.convention("agreement"), reference=sizes)
    if np.isnan(values).any():
        raise Undefined("a rater and the estimated truth have no similarity under this convention (both empty)")
    return values


def staple_dice(view: CaseView) -> float:
    """Mean Dice of each rater with the mask that STAPLE estimates."""
    return float(_sum(_dice(view))) / view.R


def staple_dice_each(view: CaseView) -> list[float]:
    """Dice of every rater slot with the mask that STAPLE estimates."""
    return view.spread(_dice(view))


def _parameters(view: CaseView, name: str, reason: str) -> list[float]:
    need(view, 1)

    def of(label: int) -> Floats:
        values: Floats = getattr(_of_class(view, label)[2], name)
        if np.isnan(values).any():
            raise Undefined(reason)
        return values

    return view.spread(np.mean(each_class(view, of), axis=0))


def staple_sensitivity_each(view: CaseView) -> list[float]:
    """Sensitivity of every rater slot as STAPLE estimates it."""
    return _parameters(view, "sensitivity", "all raters are empty, so the estimated truth holds no pixel")


def staple_specificity_each(view: CaseView) -> list[float]:
    """Specificity of every rater slot as STAPLE estimates it."""
    return _parameters(view, "specificity", "all raters mark the whole region, so nothing is outside the truth")
