"""A set of samples against a set of raters: GED, diversity, matched IoU, the Dice family, empty masks.

Specification sections 2.1 to 2.4 and 2.8. Every function takes a `CaseView`; all numbers come from its similarity
matrices, hence from one product of the masks.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .case import CaseView, NotDefined, Undefined, parts
from .convention import Convention
from .matching import balanced_match, distinct_match
from .overlap import Floats

# -- energy distance ----------------------------------------------------------------------------


def _average(values: Floats, weights: Floats | None = None) -> float:
    return float(np.add.reduce(values) / len(values) if weights is None else weights @ values)


def _mean_of_pairs(values: Floats, a: Floats | None, b: Floats | None) -> float:
    if a is None and b is None:
        return _average(values.ravel())
    rows, columns = values.shape
    left = np.full(rows, 1.0 / rows) if a is None else a
    right = np.full(columns, 1.0 / columns) if b is None else b
    return float(left @ values @ right)


def _self_term(distance: Floats, weights: Floats | None, exclude: bool, who: str, omit_nan: bool = False) -> float:
    """Mean distance within one set, with or without the pairs (i, i)."""
    size = len(distance)
    if not exclude:
        if omit_nan and weights is None:
            known = distance[~np.isnan(distance)]
            return _average(known) if known.size else math.nan
        return _mean_of_pairs(distance, weights, weights)
    if size < 2:
        raise Undefined(f"one {who} has no pair of different members")
    if weights is None:
        return float((distance.sum() - distance.diagonal().sum()) / (size * (size - 1)))
    outside = 1.0 - float(weights @ weights)
    if outside <= 0:
        raise Undefined(f"all weight is on one {who}")
    return float((weights @ distance @ weights - (weights * weights) @ distance.diagonal()) / outside)


def _added_one_by_one(distance: Floats, exclude: bool) -> float:
    """Mean of pairs as TAB's Python sum of float32 tensors makes it: rounded after every pair, row by row."""
    pairs = distance[~np.eye(len(distance), dtype=bool)] if exclude else distance.ravel()
    if not pairs.size:
        raise Undefined("one mask has no pair of different members")
    total = np.add.accumulate(pairs, dtype=np.float32)[-1]
    return float(total / np.float32(pairs.size))


def _pooled(view: CaseView, kind: str, convention: Convention, term: str) -> float:
    """Distance from one ratio of counts summed over pairs and classes (ValUES)."""
    raters, right, left = view.blocks(convention)
    rows, columns = {"sr": (left, raters), "ss": (left, right), "rr": (raters, raters)}[term]
    numerator, denominator, _ = parts(view.counts(convention), kind, rows, columns)
    weights = {"s": view.weights_of_samples(convention), "r": view.rater_weights}
    above, below = (
        _mean_of_pairs(counts.sum(0), weights[term[0]], weights[term[1]]) for counts in (numerator, denominator)
    )
    if below == 0 and convention.smooth_den == 0:
        return 1.0 - convention.empty_similarity
    return 1.0 - (above + convention.smooth_num) / (below + convention.smooth_den)


def _term(view: CaseView, term: str, kind: str | None = None, exclude: bool | None = None) -> float:
    """Mean distance of samples and raters (``sr``), within the samples (``ss``) or within the raters (``rr``).

    Args:
        kind: ``iou`` or ``dice``; None: as the convention says.
        exclude: leave out the pairs (i, i); None: as the convention says.
    """
    convention = view.convention("ged")
    kind = kind or convention.distance
    if exclude is None:
        exclude = convention.diagonal == "exclude" or (convention.diagonal == "debiased" and term == "ss")
    key = ("ged", convention, term, kind, exclude)
    if key not in view.memory:
        view.memory[key] = _computed_term(view, term, kind, exclude, convention)
    value = view.memory[key]
    assert isinstance(value, float)
    return value


def _computed_term(view: CaseView, term: str, kind: str, exclude: bool, convention: Convention) -> float:
    if convention.pairs == "pooled":
        return _pooled(view, kind, convention, term)
    similarity = view.similarity(kind, convention)
    if convention.dtype == "float32_sum" and view.sample_weights is None and view.rater_weights is None:
        return _added_one_by_one(1.0 - getattr(similarity, term), exclude and term != "sr")
    if term == "sr":
        return _mean_of_pairs(1.0 - similarity.sr, view.weights_of_samples(convention), view.rater_weights)
    if term == "ss":
        return _self_term(1.0 - similarity.ss, view.weights_of_samples(convention), exclude, "sample")
    return _self_term(1.0 - similarity.rr, view.rater_weights, exclude, "rater", convention.rater_nan == "omit")


def cross(view: CaseView) -> float:
    """Mean distance between a sample and a rater (c of 2.1)."""
    return _known(_term(view, "sr"))


def diversity_samples(view: CaseView) -> float:
    """Mean distance within the samples, diagonal included (v_S of 2.1)."""
    return _known(_term(view, "ss"))


def diversity_raters(view: CaseView) -> float:
    """Mean distance within the raters, diagonal included (v_R of 2.1)."""
    return _known(_term(view, "rr"))


def diversity_gap(view: CaseView) -> float:
    """v_S − v_R; 0 is the target."""
    return _known(_term(view, "ss") - _term(view, "rr"))


def diversity_samples_ustat(view: CaseView) -> float:
    """Mean distance of two different samples, v_S·S/(S−1)."""
    _pairs_only(view)
    return _known(_term(view, "ss", exclude=True))


def ged(view: CaseView) -> float:
    """Squared generalised energy distance 2c − v_S − v_R (2.1)."""
    return _known(2.0 * _term(view, "sr") - _term(view, "ss") - _term(view, "rr"))


def ged_dice(view: CaseView) -> float:
    """`ged` with d = 1 − Dice."""
    return _known(2.0 * _term(view, "sr", "dice") - _term(view, "ss", "dice") - _term(view, "rr", "dice"))


def ged_debiased(view: CaseView) -> float:
    """`ged` without the sample pairs (i, i): independent of S in expectation."""
    _pairs_only(view)
    return _known(2.0 * _term(view, "sr") - _term(view, "ss", exclude=True) - _term(view, "rr", exclude=False))


def ged_ustat(view: CaseView) -> float:
    """`ged` without the pairs (i, i) of either set."""
    _pairs_only(view)
    return _known(2.0 * _term(view, "sr") - _term(view, "ss", exclude=True) - _term(view, "rr", exclude=True))


def ged_per_class(view: CaseView) -> list[float]:
    """`ged` of each evaluated class, one against the rest; their mean is the multi-class `ged`."""
    if len(view.classes) == 1:
        return [ged(view)]
    out = []
    for label in view.classes:
        try:
            out.append(ged(view.one_class(label)))
        except Undefined:
            out.append(math.nan)
    return out


def _known(value: float) -> float:
    if math.isnan(value):
        raise Undefined("a pair of masks has no similarity under this convention (both empty)")
    return value


def _pairs_only(view: CaseView) -> None:
    if view.convention("ged").pairs == "pooled":
        raise NotDefined(
            "this variant does not define ged.debiased, ged.ustat and diversity_samples.ustat, for a pooled distance "
            "has no diagonal to leave out; leave them out, or give another variant"
        )


# -- matching of whole sets -----------------------------------------------------------------------


def _balanced(view: CaseView, kind: str) -> float:
    convention = view.convention("hm")
    similarity = view.similarity(kind, convention).sr
    if math.isnan(convention.empty_similarity) and np.isnan(similarity).any():
        whole = view.S % view.R == 0 and view.sample_weights is None and view.rater_weights is None
        if math.isnan(convention.match_nan) or not whole:
            raise Undefined("a sample and a rater have no similarity under this convention (both empty)")
        return convention.match_nan
    return balanced_match(similarity, view.weights_of_samples(convention), view.rater_weights)


def hm_iou(view: CaseView) -> float:
    """Hungarian-matched IoU of both whole sets (2.3)."""
    return _balanced(view, "iou")


def hm_dice(view: CaseView) -> float:
    """Hungarian-matched Dice of both whole sets (2.3)."""
    return _balanced(view, "dice")


# -- Dice family ------------------------------------------------------------------------------------


def _scores(view: CaseView, kind: str) -> Floats:
    """The matrix D[r, i] of 2.4, R×S."""
    key = ("dice", view.convention("dice"), kind)
    if key not in view.memory:
        view.memory[key] = view.similarity(kind, view.convention("dice")).sr.T
    scores = view.memory[key]
    assert isinstance(scores, np.ndarray)
    if math.isnan(view.convention("dice").empty_similarity) and np.isnan(scores).any():
        raise Undefined("a sample and a rater have no similarity under this convention (both empty)")
    return scores


def _rater_to_sample(view: CaseView, kind: str) -> float:
    return _average(_scores(view, kind).max(axis=1), view.rater_weights)


def _sample_to_rater(view: CaseView, kind: str) -> float:
    return _average(_scores(view, kind).max(axis=0), view.weights_of_samples(view.convention("dice")))


def _match(view: CaseView, kind: str) -> float:
    scores = _scores(view, kind)
    if scores.shape[1] < scores.shape[0]:
        _enough_samples(view, *scores.shape)
    return distinct_match(scores, view.rater_weights)


def _enough_samples(view: CaseView, raters: int, samples: int) -> None:
    if view.convention("dice").missing_sample_policy == "error":
        raise NotDefined(
            f"{samples} samples for {raters} raters: this variant needs at least as many samples as raters; "
            f"give more samples or use the canonical convention"
        )


def dice_max_rater_to_sample(view: CaseView) -> float:
    """Mean over raters of the best sample's Dice: is every rater's view covered."""
    return _rater_to_sample(view, "dice")


def dice_max_sample_to_rater(view: CaseView) -> float:
    """Mean over samples of the best rater's Dice: is every sample plausible."""
    return _sample_to_rater(view, "dice")


def dice_max_mean(view: CaseView) -> float:
    """Mean of the two directions."""
    return 0.5 * (_rater_to_sample(view, "dice") + _sample_to_rater(view, "dice"))


def dice_match(view: CaseView) -> float:
    """Best one-to-one assignment of samples to raters, mean Dice over the raters."""
    return _match(view, "dice")


def dice_mean(view: CaseView) -> float:
    """Mean Dice over all pairs of rater and sample."""
    scores = _scores(view, "dice")
    return _mean_of_pairs(scores, view.rater_weights, view.weights_of_samples(view.convention("dice")))


def iou_max_rater_to_sample(view: CaseView) -> float:
    """`dice_max_rater_to_sample` with IoU."""
    return _rater_to_sample(view, "iou")


def iou_max_sample_to_rater(view: CaseView) -> float:
    """`dice_max_sample_to_rater` with IoU."""
    return _sample_to_rater(view, "iou")


def iou_max_mean(view: CaseView) -> float:
    """`dice_max_mean` with IoU."""
    return 0.5 * (_rater_to_sample(view, "iou") + _sample_to_rater(view, "iou"))


def iou_match(view: CaseView) -> float:
    """`dice_match` with IoU."""
    return _match(view, "iou")


def iou_mean(view: CaseView) -> float:
    """`dice_mean` with IoU."""
    scores = _scores(view, "iou")
    return _mean_of_pairs(scores, view.rater_weights, view.weights_of_samples(view.convention("dice")))


def matched_scores(view: CaseView) -> Floats:
    """Dice of each rater with the sample that the assignment gives it: D-Persona's `Dice_each` as released.

    The assignment minimises 1 − Dice with SciPy, as in the release, so that ties are broken alike.
    """
    scores = _scores(view, "dice")
    if scores.shape[1] < scores.shape[0]:
        raise NotDefined(
            f"{scores.shape[1]} samples for {scores.shape[0]} raters: dice_each needs a sample for each rater"
        )
    rows, columns = linear_sum_assignment(1.0 - scores)
    return scores[rows, columns]


# -- empty masks --------------------------------------------------------------------------------------


def _empty_share(view: CaseView, raters: bool) -> NDArray[np.float64]:
    """Share of empty masks of each class (K)."""
    convention = view.convention("ged")
    where = view.blocks(convention)[0 if raters else 1]
    empty = np.array([counts.diagonal()[where] == 0 for counts in view.counts(convention)], dtype=np.float64)
    weights = view.rater_weights if raters else view.weights_of_samples(convention)
    return empty.mean(axis=1) if weights is None else empty @ weights


def empty_share_samples(view: CaseView) -> float:
    """f_S, share of samples that are empty."""
    return float(_empty_share(view, raters=False).mean())


def empty_share_raters(view: CaseView) -> float:
    """f_R, share of raters whose mask is empty."""
    return float(_empty_share(view, raters=True).mean())


def empty_gap(view: CaseView) -> float:
    """|f_S − f_R|; several classes: the mean of the classes' gaps."""
    return float(np.abs(_empty_share(view, raters=False) - _empty_share(view, raters=True)).mean())
