"""Surface metrics: Hausdorff distance, average symmetric surface distance, normalised surface Dice (section 6).

Distances are in millimetres if the case has a spacing, else in pixels. They run between the border pixels of a rater's
mask and those of the map meant for that rater (else the common mask), or between those of every rater and every sample.

Empty masks, canonical: both empty: distance 0, NSD 1; exactly one empty: the length of the image diagonal, NSD 0. The
reasons say how many pairs fell under each rule. Several classes: the mean over the fixed list, each by these rules.

Of a convention these metrics use the field `surface` alone, and for the common mask those of the mean map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .case import CaseView, NotDefined, Undefined
from .matching import distinct_match
from .overlap import Floats, Mask
from .per_rater import COMMON_MASK, maps_of_class
from .registry import id_with_value
from .surface_distances import RULES, Distances, Kind, Rule, measure

Group = Literal["maps", "samples", "raters"]

_ROUND_TO = 0.5  # millimetres, of the canonical tolerance


@dataclass(frozen=True)
class Asked:
    """What a metric computes (kind, and percentile or tolerance) and the id its notes stand under."""

    kind: Kind
    value: float | None
    name: str


# -- a case -----------------------------------------------------------------------------------------


def spacing_of(view: CaseView) -> tuple[float, ...]:
    """Millimetres per pixel; 1 on every axis if unknown."""
    return view.spacing or (1.0,) * len(_shape(view))


def image_diagonal(view: CaseView) -> float:
    """Length of the diagonal of the image in millimetres, pixels that do not count included; the worst distance."""
    return math.hypot(*(n * s for n, s in zip(_shape(view), spacing_of(view), strict=True)))


def one_pixel(view: CaseView) -> float:
    """Tolerance of plain `nsd`: the largest side of a pixel, so that a shift by one pixel passes along every axis."""
    return max(spacing_of(view))


def _shape(view: CaseView) -> tuple[int, ...]:
    return view.raters.shape[1:] if view.valid is None else view.valid.shape


def _rule(view: CaseView) -> Rule:
    return RULES[view.convention("surface").surface]


def _pairs(view: CaseView, group: Group) -> list[list[Distances]]:
    """Distances of each class (outer list): all raters against all masks of the group, or one rater against its map."""
    elements = _rule(view).elements
    common = view.convention("map") if group == "maps" else None
    key = ("surface", group, elements, common)
    if key not in view.measured:
        view.measured[key] = [_measured(view, label, group, elements) for label in view.classes]
    found = view.measured[key]
    assert isinstance(found, list)
    return found


def _measured(view: CaseView, label: int, group: Group, elements: bool) -> list[Distances]:
    raters = view.placed(view.class_mask(view.raters, label))
    others = view.placed(_others(view, label, group)) if group != "raters" else raters
    spacing = spacing_of(view)
    if group == "maps" and view.personalised:
        return [measure(raters[[r]], others[[r]], spacing, elements) for r in range(view.R)]
    return [measure(raters, others, spacing, elements)]


def _others(view: CaseView, label: int, group: Group) -> Mask:
    if group == "maps":
        return maps_of_class(view, label)
    assert view.samples is not None
    return view.class_mask(view.samples, label)


def _stacked(found: list[list[Distances]], get: Callable[[Distances], NDArray]) -> NDArray:
    """K×R×M of the classes' A×B matrices."""
    return np.stack([np.concatenate([get(d) for d in one]) for one in found])


def _values(view: CaseView, group: Group, asked: Asked) -> Floats:
    """R×M values (M = S samples, or 1), nan where the convention leaves a pair undefined; notes the empty masks."""
    rule, found, kind, value = _rule(view), _pairs(view, group), asked.kind, asked.value
    if kind == "nsd" and not rule.has_nsd:
        raise NotDefined("this variant does not define nsd, the surface Dice; leave it out, or give another variant")
    if kind == "nsd" and value is None:
        value = one_pixel(view)
    key = ("surface.values", group, kind, value, view.convention("surface"), view.convention("map"))
    if key not in view.memory:
        diagonal = image_diagonal(view)
        each = _stacked(found, lambda d: rule.values(d, kind, value, diagonal))
        view.memory[key] = _mean(each, None, rule.omits_nan)
    matrix = view.memory[key]
    assert isinstance(matrix, np.ndarray)
    if note := _note(view, group):
        view.notes[asked.name] = note
    return matrix


def _note(view: CaseView, group: Group) -> str:
    """Whether the mask is a common one, and how many pairs fell under each rule for empty masks."""
    key = ("surface.note", group)
    if key not in view.memory:
        found = _pairs(view, group)
        both, one = (_stacked(found, get) for get in (lambda d: d.both_empty, lambda d: d.one_empty))
        counts = (("both empty", int(both.sum())), ("one empty", int(one.sum())))
        notes = [COMMON_MASK] if group == "maps" and not view.personalised else []
        notes += [f"{what}: {count} of {both.size} pairs" for what, count in counts if count]
        view.memory[key] = "; ".join(notes)
    return str(view.memory[key])


def _mean(values: Floats, weights: Floats | None, omit_nan: bool) -> Any:
    """Mean over the first axis; nan stays nan, or is left out where `omit_nan`."""
    share = np.ones(len(values)) if weights is None else weights
    share = np.broadcast_to(share.reshape(-1, *(1,) * (values.ndim - 1)), values.shape)
    if omit_nan:
        share = np.where(np.isnan(values), 0.0, share)
        values = np.where(np.isnan(values), 0.0, values)
    total = share.sum(axis=0)
    with np.errstate(invalid="ignore"):
        sums = np.where(share > 0, values * share, 0.0).sum(axis=0)
    return np.where(total > 0, sums / np.where(total > 0, total, 1.0), math.nan)


def _known(view: CaseView, group: Group, asked: Asked, value: float) -> float:
    """The value, or why there is none, and whether another prediction could have had one."""
    if not math.isnan(value):
        return value
    rule = _rule(view)
    one, both = rule.empty_values(asked.kind, asked.value)
    empty = _stacked(_pairs(view, group), lambda d: np.repeat(d.empty_a[:, None], len(d.empty_b), axis=1))
    whatever = one is not None and math.isnan(one) and math.isnan(both)  # undefined for an empty rater, that is
    fixed = whatever and bool(empty.all() if rule.omits_nan else empty.any())
    raise Undefined(f"{'data' if fixed else 'method'}: {rule.why}")


# -- one map for each rater -----------------------------------------------------------------------------


def _own(view: CaseView, asked: Asked) -> float:
    own = _values(view, "maps", asked)[:, 0]
    return _known(view, "maps", asked, float(_mean(own, view.rater_weights, _rule(view).omits_nan)))


def _each(view: CaseView, asked: Asked) -> list[float]:
    own = _values(view, "maps", asked)[:, 0]
    if np.isnan(own).any():
        view.notes[asked.name] = "; ".join(filter(None, (view.notes.get(asked.name), _rule(view).why)))
    return view.spread(own)


# -- a set of samples -----------------------------------------------------------------------------------


def _all_pairs(view: CaseView, asked: Asked) -> float:
    """Mean over all pairs of rater and sample."""
    matrix = _values(view, "samples", asked)
    raters = np.ones(view.R) if view.rater_weights is None else view.rater_weights
    samples = np.ones(view.S) if view.sample_weights is None else view.sample_weights
    weights = np.outer(raters, samples).ravel()
    return _known(view, "samples", asked, float(_mean(matrix.ravel(), weights, _rule(view).omits_nan)))


def _best(view: CaseView, asked: Asked) -> float:
    """Best sample of each rater, mean over raters."""
    matrix = _values(view, "samples", asked)
    rule, worst = _rule(view), -math.inf if asked.kind == "nsd" else math.inf
    filled = np.where(np.isnan(matrix), worst, matrix) if rule.omits_nan else matrix
    best = filled.max(axis=1) if asked.kind == "nsd" else filled.min(axis=1)
    if rule.omits_nan:
        best = np.where(np.isnan(matrix).all(axis=1), math.nan, best)
    return _known(view, "samples", asked, float(_mean(best, view.rater_weights, rule.omits_nan)))


def _match(view: CaseView, asked: Asked) -> float:
    """Best assignment of samples to raters as in `dice_match`, mean over raters."""
    matrix = _values(view, "samples", asked)
    _known(view, "samples", asked, float(matrix.sum()))  # no assignment weighs an undefined pair
    if np.isinf(matrix).any():
        raise Undefined("method: a sample or a rater's mask is empty, and no assignment weighs an infinite distance")
    sign = 1.0 if asked.kind == "nsd" else -1.0
    return sign * distinct_match(sign * matrix, view.rater_weights) + 0.0  # not -0.0


# -- Hausdorff distance -----------------------------------------------------------------------------------


def hd(view: CaseView, percentile: float | None = None) -> float:
    """Hausdorff distance of each rater's mask and its map, mean over raters; `hd@p`: the percentile p, as in `hd95`."""
    return _own(view, Asked("hd", percentile, id_with_value("hd", percentile)))


def hd_each(view: CaseView, percentile: float | None = None) -> list[float]:
    """`hd` of every rater slot, nan for missing raters."""
    return _each(view, Asked("hd", percentile, id_with_value("hd.each", percentile)))


def hd_mean(view: CaseView, percentile: float | None = None) -> float:
    """Hausdorff distance of all pairs of rater and sample, mean."""
    return _all_pairs(view, Asked("hd", percentile, id_with_value("hd.mean", percentile)))


def hd_best(view: CaseView, percentile: float | None = None) -> float:
    """Smallest Hausdorff distance of any sample to a rater, mean over raters."""
    return _best(view, Asked("hd", percentile, id_with_value("hd.best", percentile)))


def hd_match(view: CaseView, percentile: float | None = None) -> float:
    """Hausdorff distance of a distinct sample for each rater, best assignment, mean over raters."""
    return _match(view, Asked("hd", percentile, id_with_value("hd.match", percentile)))


def hd95(view: CaseView) -> float:
    """Larger of the 95th percentiles of the distances from border to border, each way, mean over raters."""
    return _own(view, Asked("hd", 95.0, "hd95"))


def hd95_each(view: CaseView) -> list[float]:
    """`hd95` of every rater slot, nan for missing raters."""
    return _each(view, Asked("hd", 95.0, "hd95.each"))


def hd95_mean(view: CaseView) -> float:
    """95th percentile distance of all pairs of rater and sample, mean."""
    return _all_pairs(view, Asked("hd", 95.0, "hd95.mean"))


def hd95_best(view: CaseView) -> float:
    """Smallest 95th percentile distance of any sample to a rater, mean over raters."""
    return _best(view, Asked("hd", 95.0, "hd95.best"))


def hd95_match(view: CaseView) -> float:
    """95th percentile distance of a distinct sample for each rater, best assignment, mean over raters."""
    return _match(view, Asked("hd", 95.0, "hd95.match"))


# -- average symmetric surface distance ---------------------------------------------------------------------


def assd(view: CaseView) -> float:
    """Mean distance from border to border, both ways together, of each rater's mask and its map, mean over raters."""
    return _own(view, Asked("assd", None, "assd"))


def assd_each(view: CaseView) -> list[float]:
    """`assd` of every rater slot, nan for missing raters."""
    return _each(view, Asked("assd", None, "assd.each"))


def assd_mean(view: CaseView) -> float:
    """Average surface distance of all pairs of rater and sample, mean."""
    return _all_pairs(view, Asked("assd", None, "assd.mean"))


def assd_best(view: CaseView) -> float:
    """Smallest average surface distance of any sample to a rater, mean over raters."""
    return _best(view, Asked("assd", None, "assd.best"))


def assd_match(view: CaseView) -> float:
    """Average surface distance of a distinct sample for each rater, best assignment, mean over raters."""
    return _match(view, Asked("assd", None, "assd.match"))


# -- normalised surface Dice ----------------------------------------------------------------------------------


def nsd(view: CaseView, tolerance: float | None = None) -> float:
    """Share of border distances up to a tolerance, mean over raters; `nsd@τ`: τ mm, else the pixel's largest side."""
    return _own(view, Asked("nsd", tolerance, id_with_value("nsd", tolerance)))


def nsd_each(view: CaseView, tolerance: float | None = None) -> list[float]:
    """`nsd` of every rater slot, nan for missing raters."""
    return _each(view, Asked("nsd", tolerance, id_with_value("nsd.each", tolerance)))


def nsd_mean(view: CaseView, tolerance: float | None = None) -> float:
    """Normalised surface Dice of all pairs of rater and sample, mean."""
    return _all_pairs(view, Asked("nsd", tolerance, id_with_value("nsd.mean", tolerance)))


def nsd_best(view: CaseView, tolerance: float | None = None) -> float:
    """Largest normalised surface Dice of any sample and a rater, mean over raters."""
    return _best(view, Asked("nsd", tolerance, id_with_value("nsd.best", tolerance)))


def nsd_match(view: CaseView, tolerance: float | None = None) -> float:
    """Normalised surface Dice of a distinct sample for each rater, best assignment, mean over raters."""
    return _match(view, Asked("nsd", tolerance, id_with_value("nsd.match", tolerance)))


# -- tolerance of a data set ----------------------------------------------------------------------------------


def tolerance_of(
    raters: Any,
    *,
    spacing: Any = None,
    rater_valid: Any = None,
    valid: Any = None,
    classes: Sequence[int] | None = None,
) -> float:
    """Canonical tolerance τ of `nsd@τ` for a data set, from its training cases.

    The median over cases of the mean `assd` of its pairs of raters (a case's classes together), rounded to 0.5 mm
    (halves upwards), but never below one pixel: the largest pixel side of any case. A pair of which a mask is empty
    has no distance between borders and is left out, else the diagonals that stand for empty masks would decide τ.

    Args:
        raters, spacing, rater_valid, valid, classes: N training cases as in `multirater.metrics.score_cases`.

    Returns:
        Millimetres (pixels without spacing).

    Raises:
        UserError: no case, or as `score_cases`.
    """
    from ..core.errors import UserError
    from .score import Cases

    inputs = {"spacing": spacing, "rater_valid": rater_valid, "valid": valid}
    pixels, apart = [], []
    for view in Cases(raters, inputs, classes=classes):
        pixels.append(one_pixel(view))
        found = list(_distances_of_raters(view))
        if found:
            apart.append(float(np.mean(found)))
    if not pixels:
        raise UserError("raters holds no case; give the training cases")
    if not apart:
        return max(pixels)
    return max(math.floor(float(np.median(apart)) / _ROUND_TO + 0.5) * _ROUND_TO, *pixels)


def _distances_of_raters(view: CaseView) -> Iterable[float]:
    """`assd` of every pair of raters and class with two borders."""
    if view.void:
        return
    for [found] in _pairs(view, "raters"):
        matrix = Rule().values(found, "assd", None, math.nan)
        there = ~found.empty_a[:, None] & ~found.empty_b
        yield from matrix[np.triu(there, k=1)].tolist()
