"""Maps that are meant for one rater against that rater's mask (specification section 4).

Pairing is by identity, never by a matching: a matched value is `dice_match`. A method without personalised output is
scored with one common mask, 1[p̄ > 0.5] (several classes: the arg max), for every rater; the reason column then says
"common mask". Rater weights enter the means over raters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .case import CaseView, NotDefined, Undefined
from .channels import labels_in
from .convention import FIVE_LEVELS, Convention
from .mean_map import mean_key, mean_of_samples, mean_slack, value_levels, votes
from .overlap import Floats, Mask, crop, fraction, intersections, over_classes
from .sets import matched_scores

COMMON_MASK = "common mask"


@dataclass(frozen=True)
class _Overlaps:
    """Counts K×R×M of the raters and the M maps (M = R, or 1 for a common mask), and R×M of their backgrounds."""

    inter: Floats
    size_raters: Floats
    size_maps: Floats
    background: Floats


def maps_of_class(view: CaseView, label: int) -> Mask:
    """Masks M×spatial of one class that are meant for the raters."""
    if view.rater_probs is not None:
        return view.class_mask(view.binarised(view.rater_probs), label)
    if view.rater_labels is not None:
        return view.class_mask(view.rater_labels, label)
    return common_mask(view, label)[None]


def common_mask(view: CaseView, label: int) -> Mask:
    """The hard mask (spatial) of one class of the mean map."""
    if len(view.classes) > 1:
        return common_labels(view) == label
    mean = mean_of_samples(view, label, view.convention("map"))
    if mean is not None:
        return mean > mean.dtype.type(0.5 + mean_slack(view, view.convention("map")))
    assert view.samples is not None
    samples = view.class_mask(view.samples, label)
    return votes(samples) > len(samples) // 2  # k of S pass 1/2 if k > ⌊S/2⌋, in integers


def common_labels(view: CaseView) -> NDArray[np.intp]:
    """The common class map of several classes: the arg max of the mean map, background included.

    As every other map of several classes is made into labels; 1[p̄_k > 0.5] would leave a pixel without a majority empty
    and so put methods with one map at a disadvantage beside those with a map for each rater.
    """
    convention = view.convention("map")
    key = ("per_rater", "common", convention.sample_cap, convention.dtype)
    if key not in view.memory:
        labels = _labels_of_mean(view)
        maps = np.stack([_mean_or_share(view, k, convention) for k in labels])
        view.memory[key] = np.array(labels)[maps.round(12).argmax(axis=0)]  # rounding decides no tie
    found = view.memory[key]
    assert isinstance(found, np.ndarray)
    return found


def _labels_of_mean(view: CaseView) -> list[int]:
    """Labels that the mean map may have, evaluated or not, background included, ascending."""
    if view.mean_prob is not None:
        return list(range(len(view.mean_prob)))
    if view.probs is not None:
        return list(range(view.probs.shape[1]))
    assert view.samples is not None
    return labels_in(view, view.samples)


def _mean_or_share(view: CaseView, label: int, convention: Convention) -> NDArray:
    """Mean map of a label, or the share of the samples that have it."""
    if view.mean_prob is not None or view.probs is not None:
        mean = mean_of_samples(view, label, convention)
        assert mean is not None
        return mean
    assert view.samples is not None
    hit = view.samples[: convention.sample_cap] == label
    weights = view.weights_of_samples(convention)
    return votes(hit).astype(np.float64) if weights is None else np.tensordot(weights, hit, axes=1).round(12)


def _overlaps(view: CaseView) -> _Overlaps:

    def compute() -> list[Floats]:
        rows = []
        for label in view.classes:
            counts = intersections(crop([view.class_mask(view.raters, label), maps_of_class(view, label)]))
            sizes = counts.diagonal()
            rows.append((counts[: view.R, view.R :], sizes[: view.R, None], sizes[None, view.R :]))
        out = [np.stack(column).astype(np.float64) for column in zip(*rows, strict=True)]
        return [*out, _background(view, *out)]

    common = view.convention("map")  # of the common mask
    mean = () if view.personalised else (common.sample_cap, mean_key(view, common))
    return _Overlaps(*view.tally(("per_rater", *mean), compute))


def scores(view: CaseView, kind: str = "dice") -> Floats:
    """Similarity [r, q] of rater r with the map meant for rater q; R×R, or R×1 for a common mask."""
    convention = view.convention("rater")
    found = _overlaps(view)
    parts = fraction(kind, found.inter, found.size_raters, found.size_maps)
    return over_classes(*parts, convention, reference=found.size_raters)


def own_counts(view: CaseView) -> tuple[Floats, Floats, Floats]:
    """Intersection, size of the rater's mask and size of its own map, each K×slots; 0 for missing raters."""
    found = _overlaps(view)
    out = np.zeros((3, len(view.classes), view.slots))
    shape = found.inter.shape
    for target, counts in zip(out, (found.inter, found.size_raters, found.size_maps), strict=True):
        full = np.broadcast_to(counts, shape)
        target[:, view.present] = full.diagonal(axis1=1, axis2=2) if view.personalised else full[:, :, 0]
    return out[0], out[1], out[2]


def own_background(view: CaseView) -> Floats:
    """Pixels that a rater and its own map both give to no evaluated class, per slot; 0 for missing raters."""
    found = _overlaps(view)
    full = np.broadcast_to(found.background, found.inter.shape[1:])
    out = np.zeros(view.slots)
    out[view.present] = full.diagonal() if view.personalised else full[:, 0]
    return out


def _background(view: CaseView, inter: Floats, size_raters: Floats, size_maps: Floats) -> Floats:
    """Pixels R×M that a rater and a map both give to no evaluated class."""
    if len(view.classes) == 1:
        return view.pixels - size_raters[0] - size_maps[0] + inter[0]
    outside = ~np.logical_or.reduce([maps_of_class(view, label) for label in view.classes])
    return intersections([view.class_mask(view.raters, 0), outside])[: view.R, view.R :].astype(np.float64)


def _own(view: CaseView, kind: str, name: str) -> Floats:
    """Each rater's score by its own map."""
    matrix = scores(view, kind)
    if view.personalised:
        return matrix.diagonal()
    view.notes[name] = COMMON_MASK
    return matrix[:, 0]


def _mean(view: CaseView, values: Floats) -> float:
    """Mean over the raters present, by their weights if there are any."""
    weights = view.rater_weights
    return _known(float(values.mean() if weights is None else weights @ values))


def _known(value: float) -> float:
    if math.isnan(value):
        raise Undefined("a rater's mask and its map have no similarity under this convention (both empty)")
    return value


def dice_rater(view: CaseView) -> float:
    """Mean over the raters present of Dice(y_r, m_r)."""
    return _mean(view, _own(view, "dice", "dice_rater"))


def dice_rater_each(view: CaseView) -> list[float]:
    """Dice(y_r, m_r) of every rater slot, nan for missing raters."""
    return view.spread(_own(view, "dice", "dice_rater.each"))


def dice_rater_worst(view: CaseView) -> float:
    """Smallest Dice(y_r, m_r) over the raters present."""
    return _known(float(_own(view, "dice", "dice_rater.worst").min()))


def iou_rater(view: CaseView) -> float:
    """Mean over the raters present of IoU(y_r, m_r)."""
    return _mean(view, _own(view, "iou", "iou_rater"))


def iou_rater_each(view: CaseView) -> list[float]:
    """IoU(y_r, m_r) of every rater slot, nan for missing raters."""
    return view.spread(_own(view, "iou", "iou_rater.each"))


def dice_rater_gap(view: CaseView) -> float:
    """Mean over r of Dice(y_r, m_r) less the mean Dice(y_r, m_q), q ≠ r; above 0, the maps follow their raters."""
    matrix = scores(view)
    size = len(matrix)
    if size < 2:
        raise Undefined("one rater has no other rater to compare with")
    own = matrix.diagonal()
    others = (matrix.sum(axis=1) - own) / (size - 1)
    return _mean(view, own - others)


def rater_identification(view: CaseView) -> float:
    """Share of raters whose own map is their best map; a tie of n maps counts 1/n."""
    matrix = scores(view)
    best = matrix == matrix.max(axis=1, keepdims=True)
    return _mean(view, best.diagonal() / np.maximum(best.sum(axis=1), 1))


def dice_rater_soft(view: CaseView) -> float:
    """`dice_soft` of each personalised map against its rater's own mask, mean over raters (TAB, PADL)."""
    convention = view.convention("rater")
    thresholds = convention.thresholds or FIVE_LEVELS

    def compute() -> list[Floats]:
        rows = [_soft_counts(view, label, thresholds, convention) for label in view.classes]
        return [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]

    inter, size_map, size_rater = view.tally(("per_rater.soft", convention.single, thresholds), compute)
    reference = size_rater[:, :, None]
    soft = over_classes(*fraction("dice", inter, size_map, reference), convention, reference)
    return _mean(view, soft.mean(axis=1))


def _soft_counts(
    view: CaseView, label: int, thresholds: tuple[float, ...], convention: Convention
) -> tuple[Floats, Floats, Floats]:
    """Intersections and map sizes R×T of one class, and the raters' sizes R, from one histogram."""
    raters = view.class_mask(view.raters, label).reshape(view.R, -1)
    if view.rater_probs is None:
        maps = maps_of_class(view, label).astype(np.float64)
    else:
        maps = view.rater_probs[:, label] if view.rater_probs.ndim > view.raters.ndim else view.rater_probs
        if convention.single:
            maps = maps.astype(np.float32)
    levels = value_levels(maps, thresholds)
    count = levels.passes.shape[1]
    cell = (levels.index.reshape(view.R, -1).astype(np.intp) * 2 + raters) + 2 * count * np.arange(view.R)[:, None]
    table = np.bincount(cell.ravel(), minlength=view.R * count * 2).reshape(view.R, count, 2)
    above = levels.passes.astype(np.int64)
    return (
        np.asarray(table[:, :, 1] @ above.T, dtype=np.float64),
        np.asarray(table.sum(axis=2) @ above.T, dtype=np.float64),
        np.asarray(table[:, :, 1].sum(axis=1), dtype=np.float64),
    )


def dice_each(view: CaseView) -> list[float]:
    """D-Persona's legacy list: matched values (variant ``dpersona``) or pairing by index (``dpersona_identity``)."""
    pairing = view.convention("dice").each
    if pairing == "matched":
        if not view.S:
            raise Undefined("the matched dice_each is computed from samples or probs, and only rater_probs were given")
        return view.spread(matched_scores(view))
    if pairing != "identity":
        raise NotDefined(
            "this variant does not define dice_each, which is legacy; give the variant dpersona (matched) or "
            "dpersona_identity (by index), or take dice_rater.each"
        )
    if view.personalised:
        return dice_rater_each(view)
    if view.slots != view.S:
        raise Undefined(f"pairing by index needs one sample for each of the {view.slots} raters, {view.S} were given")
    matrix = view.similarity("dice", view.convention("dice")).sr
    return view.spread(matrix[view.present, np.arange(view.R)])
