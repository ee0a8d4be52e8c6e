"""Collective insight of CIMD and its parts (specification section 2.6).

Its code was never released, so published values cannot be reproduced with certainty. Two readings of the "variance of a
pair" are provided; the printed combination is the variant ``cimd``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from .case import CaseView, Undefined
from .overlap import Floats, Mask, over_classes


def combined_sensitivity(view: CaseView) -> float:
    """S_c = |Y_c ∩ Ŷ_c| / |Y_c| of the unions of all raters and of all samples; 1 if no rater marks anything.

    Several classes: the mean over the list. Members without weight count like the others: a union has no weights.
    """
    return _once(view, "sensitivity", _combined_sensitivity)


def _once(view: CaseView, name: str, compute: Callable[[CaseView], float]) -> float:
    """A part that is a metric of its own and a part of `ci`: computed once a case."""
    key = ("insight", name)
    if key not in view.memory:
        view.memory[key] = compute(view)
    found = view.memory[key]
    assert isinstance(found, float)
    return found


def _combined_sensitivity(view: CaseView) -> float:
    convention = view.convention("insight")
    assert view.samples is not None
    both, size = [], []
    for label in view.classes:
        raters, samples = view.cropped(label)
        union = np.logical_or.reduce(raters, axis=0)
        covered = np.logical_or.reduce(samples[: convention.sample_cap], axis=0)
        both.append(np.count_nonzero(union & covered))
        size.append(np.count_nonzero(union))
    return _known(float(over_classes(np.array(both, np.float64), np.array(size, np.float64), convention)))


def _agreement(raters: Floats, samples: Floats) -> float:
    """D_a from the spreads of all pairs (R×R and S×S) of both sets."""
    extremes = []
    for spread in (raters, samples):
        pairs = spread[_above_diagonal(len(spread))]
        extremes.append((pairs.max(), pairs.min()) if pairs.size else (0.0, 0.0))
    (largest_r, smallest_r), (largest_s, smallest_s) = extremes
    return _known(float(1.0 - (abs(largest_r - largest_s) + abs(smallest_r - smallest_s)) / 2.0))


@lru_cache(maxsize=64)
def _above_diagonal(size: int) -> Mask:
    out = np.triu(np.ones((size, size), bool), 1)
    out.flags.writeable = False  # shared by all callers
    return out


def diversity_agreement(view: CaseView) -> float:
    """D_a with the spread 1 − Dice of a pair: do the most and the least different pairs differ as much in both sets."""
    return _once(view, "agreement", _diversity_agreement)


def _diversity_agreement(view: CaseView) -> float:
    # CIMD's second sigmoid would make the spread of a pair depend on which of the two comes first.
    similarity = view.similarity("dice", replace(view.convention("insight"), binarise="gt_half"))
    return _agreement(1.0 - similarity.rr, 1.0 - similarity.ss)


def diversity_agreement_variance(view: CaseView) -> float:
    """D_a with the spread #(a Δ b)/(4N): the pixel-wise variance of the two masks, averaged over all pixels.

    It shrinks with the image: 0.99 and above for small lesions in large crops. Several classes: the spread is the mean
    over the list.
    """
    convention = view.convention("insight")
    inter = np.stack(view.counts(convention))
    sizes = inter.diagonal(axis1=1, axis2=2)
    spread = (sizes[:, :, None] + sizes[:, None, :] - 2.0 * inter).mean(axis=0) / (4.0 * view.pixels)
    raters, samples, _ = view.blocks(convention)
    return _agreement(spread[raters, raters], spread[samples, samples])


def _d_max(view: CaseView) -> float:
    """Best sample's Dice, mean over the raters: `dice_max_rater_to_sample` under the convention of this family."""
    best = view.similarity("dice", view.convention("insight")).sr.max(axis=0)
    return _known(float(best.mean() if view.rater_weights is None else view.rater_weights @ best))


def ci(view: CaseView) -> float:
    """Harmonic mean of `combined_sensitivity`, `dice_max_rater_to_sample` and `diversity_agreement`; 0 if one is 0.

    Under ``ci="printed"`` (CIMD) the printed form 3·S_c·d_max·D_a / (S_c + d_max + D_a), with
    `diversity_agreement_variance`; it is no mean: three equal parts x give x².
    """
    printed = view.convention("insight").ci == "printed"
    agreement = diversity_agreement_variance(view) if printed else diversity_agreement(view)
    parts = (combined_sensitivity(view), _d_max(view), agreement)
    if min(parts) <= 0:
        return 0.0
    if printed:
        return 3.0 * math.prod(parts) / sum(parts)
    return 3.0 / sum(1.0 / part for part in parts)


def _known(value: float) -> float:
    if math.isnan(value):
        raise Undefined("two empty masks have no similarity under this convention")
    return value
