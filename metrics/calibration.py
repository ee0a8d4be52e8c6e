"""Calibration of the mean map and of personalised maps (specification section 5).

Against the vote share q of the raters, or against each rater alone; several classes: the mean over the list of each
class's value. Each metric runs over the box around the raters' masks, which is the same for every method, or over all
pixels (``.full``). All of them follow from sums over pixels, which are made once and can be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .bins import Bins, bin_index, equal_mass, gaps, mean_known, sums_by_bin
from .case import CaseView, Undefined
from .confidence import Mode, Pairs, pairs_of
from .convention import Convention
from .inputs import read_case
from .mean_map import mean_key
from .overlap import Floats
from .region import Region
from .variants import conventions_of

CLIP = 1e-6  # of the probabilities inside the logarithms

Kind = Literal["map", "top", "disagree", "rater"]


def _convention(view: CaseView, region: Region) -> tuple[Convention, Region]:
    convention = view.convention("calibration")
    return convention, convention.region or region


def _mode(kind: Kind, convention: Convention) -> Mode:
    if kind != "top":
        return convention.confidence
    return "top_rebuilt" if convention.confidence == "top_rebuilt" else "top"


def _key(view: CaseView, part: str, region: Region, convention: Convention, *further: Any) -> tuple:
    averaged = part != "rater"  # not the maps meant for the raters
    cap = convention.sample_cap if averaged else None
    # What the probabilities depend on: their precision, and whether they are averaged in MoSE's way.
    rounding = mean_key(view, convention) if averaged else convention.single
    precision = rounding if isinstance(rounding, str) else "single" if rounding else "double"
    return ("calibration", part, region, precision, convention.binning == "mose", cap, *further)


def _need_pixels(view: CaseView) -> None:
    if not view.pixels:
        raise Undefined("data: the case has no pixel")


# -- sums by bins ------------------------------------------------------------------------------------


def _binned(view: CaseView, kind: Kind, convention: Convention, region: Region) -> tuple[NDArray, ...]:
    """Per group (class or top label), and per rater for personalised maps: count and Σp of each bin, hits of each rater
    in each bin, the denominator, and the number of pixels."""
    mode = _mode(kind, convention)

    def compute() -> list[Floats]:
        rows = []
        for pairs in pairs_of(view, convention, region, mode, personal=kind == "rater"):
            rows.append(_rows(pairs.disagreed() if kind == "disagree" else pairs, convention))
        return _columns(rows)

    return view.tally(_key(view, kind, region, convention, mode, convention.bins, convention.binning), compute)


def _rows(pairs: Pairs, convention: Convention) -> tuple:
    if pairs.p.ndim == 1:
        return _sums(pairs.p, pairs.hits, pairs.kept, pairs.slack, convention)
    each = []
    for r in range(len(pairs.p)):
        kept = None if pairs.kept is None else pairs.kept[r]
        count, sum_p, hits, pixels, size = _sums(pairs.p[r], pairs.hits[r : r + 1], kept, pairs.slack, convention)
        each.append((count, sum_p, hits[0], pixels, size))
    return tuple(_columns(each))


def _columns(rows: Sequence[tuple]) -> list[Floats]:
    """Rows of numbers or arrays as one array for each place, rows first."""
    return [np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)]


def _over_raters(view: CaseView, values: Floats) -> Floats:
    """Mean over the first axis, that of the raters present, by their weights."""
    if view.rater_weights is None:
        return values.sum(axis=0) / view.R
    return np.tensordot(view.rater_weights, values, axes=1)


def _sums(p: Floats, hits: NDArray, kept: NDArray | None, slack: float, convention: Convention) -> tuple:
    rule = convention.binning
    single = rule == "torchmetrics"
    found, width = bin_index(p, convention.bins, rule, slack)
    index = found.astype(np.intp)
    if kept is not None:
        index[~kept] = width
    count = sums_by_bin(index, width, single=single)
    marked = np.array([sums_by_bin(index[h], width, single=single) for h in hits])
    pixels = float(count.sum()) if rule in ("metrics_reloaded", "torchmetrics") else float(len(p))
    return count, sums_by_bin(index, width, p, single=single), marked, pixels, float(len(p))


def _kind(metric: str) -> Kind:
    return "map" if metric in ("ece", "ece.each") else metric.removeprefix("ece.")  # type: ignore[return-value]


def _bins(view: CaseView, metric: str, region: Region) -> Bins:
    """Bins behind one of the ids of `bins_case` (without its region mark); axes per rater are those present."""
    convention, over = _convention(view, region)
    count, sum_p, hits, pixels, size = _binned(view, _kind(metric), convention, over)
    per_rater = metric in ("ece.each", "ece.rater")
    if metric == "ece.each":
        count, sum_p = (np.broadcast_to(a[:, None], hits.shape) for a in (count, sum_p))
        pixels, size = (np.broadcast_to(a[:, None], hits.shape[:2]) for a in (pixels, size))
    sum_q = hits if per_rater else _over_raters(view, hits.swapaxes(0, 1))
    if convention.binning == "values":
        # scikit-learn's label_binarize turns a reference whose only value is 1 into zeros.
        marked = hits.sum(axis=-1)
        blank = marked == size if per_rater else (marked == size[:, None]).all(axis=1)
        sum_q = np.where(blank[..., None], 0.0, sum_q)
    return Bins(_named(metric, region), count, sum_p, sum_q, pixels)


def _named(metric: str, region: Region) -> str:
    return f"{metric}.full" if region == "full" else metric


def _filled(view: CaseView, metric: str, region: Region) -> Bins:
    """`_bins`, if every group that has pixels has some of them in bins.

    Raises:
        Undefined: the convention leaves out all pixels of a group.
    """
    _need_pixels(view)
    key = ("bins", metric, region)
    if key not in view.memory:
        convention, over = _convention(view, region)
        *_, pixels, size = _binned(view, _kind(metric), convention, over)
        if ((pixels == 0) & (size > 0)).any():
            raise Undefined("every probability of a map is 0, and this convention leaves such pixels out")
        view.memory[key] = _bins(view, metric, region)
    found = view.memory[key]
    assert isinstance(found, Bins)
    return found


def _over_groups(values: Floats) -> float:
    """Mean over the classes.

    Raises:
        Undefined: a class has no bin with a pixel.
    """
    if np.isnan(values).any():
        raise Undefined("no pixel of a map falls into a bin under this convention")
    return float(values.mean())


def _regions(compute: Callable[[CaseView, Region], Any], what: str) -> tuple[Callable[[CaseView], Any], ...]:
    """A metric over the box around the raters and over all pixels that count."""

    def box(view: CaseView) -> Any:
        return compute(view, "box")

    def full(view: CaseView) -> Any:
        return compute(view, "full")

    box.__doc__ = f"{what}, over the box around the raters."
    full.__doc__ = f"{what}, over all pixels."
    return box, full


# -- errors over bins --------------------------------------------------------------------------------


def _ece(metric: str) -> Callable[[CaseView, Region], float]:
    return lambda view, region: _over_groups(_filled(view, metric, region).ece())


def _mce(view: CaseView, region: Region) -> float:
    found = _filled(view, "ece", region).gaps()
    filled = ~np.isnan(found)
    return _over_groups(np.where(filled.any(axis=-1), np.where(filled, found, 0.0).max(axis=-1), np.nan))


def _ace_width(view: CaseView, region: Region) -> float:
    return _over_groups(mean_known(_filled(view, "ece", region).gaps()))


def _ace(view: CaseView, region: Region) -> float:
    _need_pixels(view)
    convention, over = _convention(view, region)
    mode = _mode("map", convention)

    def compute() -> list[Floats]:
        found = pairs_of(view, convention, over, mode)
        rows = [equal_mass(pairs.p, pairs.q, convention.bins) for pairs in found]
        return _columns(rows)

    count, sum_p, sum_q = view.tally(_key(view, "mass", over, convention, mode, convention.bins), compute)
    return _over_groups(mean_known(gaps(count, sum_p, sum_q)))


def _disagree(view: CaseView, region: Region) -> float:
    found = _filled(view, "ece.disagree", region)
    # Which classes count depends on the raters alone: no method can change it.
    value = float(mean_known(found.ece()))
    if np.isnan(value):
        raise Undefined("data: the raters agree on every pixel")
    return value


def _each(view: CaseView, region: Region) -> Floats:
    """ECE(p̄, y_r) of the raters present."""
    return _filled(view, "ece.each", region).ece().mean(axis=0)


def _mean_each(view: CaseView, region: Region) -> float:
    return float(_over_raters(view, _each(view, region)))


def _list_each(view: CaseView, region: Region) -> list[float]:
    return view.spread(_each(view, region))


def _ece_rater(view: CaseView, region: Region) -> float:
    return float(_over_raters(view, _filled(view, "ece.rater", region).ece().mean(axis=0)))


# -- scores of pixels --------------------------------------------------------------------------------


def _total(view: CaseView, part: str, region: Region) -> tuple[Floats, ...]:
    """Means over the pixels of each class; for personalised maps of each class and rater.

    ``squares``: brier and brier.raters. ``logs``: nll and the entropy of q. ``rater``: brier.rater, nll.rater.
    """
    _need_pixels(view)
    convention, over = _convention(view, region)

    def compute() -> list[Floats]:
        found = pairs_of(view, convention, over, "class", personal=part == "rater")
        rows = [_PARTS[part](pairs) for pairs in found]
        return _columns(rows)

    return view.tally(_key(view, part, over, convention, "means"), compute)


def _squares(pairs: Pairs) -> tuple[float, float]:
    p, q = pairs.p, pairs.q
    away = 1.0 - p
    return float(np.square(p - q).mean()), float((q * away * away + (1.0 - q) * p * p).mean())


def _logs(pairs: Pairs) -> tuple[float, float]:
    q = pairs.q
    p = np.clip(pairs.p, CLIP, 1.0 - CLIP)
    loss = -float((q * np.log(p) + (1.0 - q) * np.log(1.0 - p)).mean())
    inside = q[(q > 0.0) & (q < 1.0)]  # 0·log 0 is 0
    entropy = -float((inside * np.log(inside) + (1.0 - inside) * np.log(1.0 - inside)).sum()) / len(q)
    return loss, entropy


def _personal(pairs: Pairs) -> tuple[Floats, Floats]:
    p = np.clip(pairs.p, CLIP, 1.0 - CLIP)
    return np.square(pairs.p - pairs.hits).mean(axis=1), -np.log(np.where(pairs.hits, p, 1.0 - p)).mean(axis=1)


_PARTS: dict[str, Callable[[Pairs], tuple]] = {"squares": _squares, "logs": _logs, "rater": _personal}


def _of_map(part: str, which: int) -> Callable[[CaseView, Region], float]:
    return lambda view, region: float(_total(view, part, region)[which].mean())


def _excess(view: CaseView, region: Region) -> float:
    loss, entropy = _total(view, "logs", region)
    return max(0.0, float((loss - entropy).mean()))  # p = q leaves rounding of either sign


def _of_raters(which: int) -> Callable[[CaseView, Region], float]:
    def compute(view: CaseView, region: Region) -> float:
        return float(_over_raters(view, _total(view, "rater", region)[which].mean(axis=0)))

    return compute


# -- the metrics -------------------------------------------------------------------------------------

brier, brier_full = _regions(_of_map("squares", 0), "Mean of (p̄ − q)²")
brier_raters, brier_raters_full = _regions(_of_map("squares", 1), "Mean over raters of the mean of (p̄ − y_r)²")
nll, nll_full = _regions(_of_map("logs", 0), "Cross entropy of q and p̄ clipped to [1e-6, 1 − 1e-6], in nats")
nll_excess, nll_excess_full = _regions(_excess, "`nll` less the mean entropy of q, the part a method can reduce")
ece_map, ece_map_full = _regions(_ece("ece"), "Expected calibration error of p̄ against q")
mce, mce_full = _regions(_mce, "Largest |conf − freq| of the bins with pixels")
ace, ace_full = _regions(_ace, "Mean |conf − freq| over bins of equal mass")
ace_width, ace_width_full = _regions(_ace_width, "Mean |conf − freq| over the bins of equal width with pixels")
ece_top, ece_top_full = _regions(_ece("ece.top"), "Expected calibration error of the top label's probability")
ece_each, ece_each_full = _regions(_mean_each, "Mean over raters of the calibration error of p̄ against the rater")
ece_each_list, ece_each_list_full = _regions(_list_each, "Calibration error of p̄ against every rater slot")
ece_disagree, ece_disagree_full = _regions(_disagree, "Calibration error where the raters disagree, 0 < q < 1")
ece_rater, ece_rater_full = _regions(_ece_rater, "Mean calibration error of each personalised map against its rater")
brier_rater, brier_rater_full = _regions(_of_raters(0), "Mean of (p_r − y_r)² of each personalised map")
nll_rater, nll_rater_full = _regions(_of_raters(1), "Cross entropy of each personalised map and its rater's mask")


# -- bins of a case ----------------------------------------------------------------------------------


def bins_case(
    raters: Any, samples: Any = None, *, variant: str | Convention | None = None, **inputs: Any
) -> dict[str, Bins]:
    """Sums of one case for the calibration errors of a data set, `multirater.metrics.bins.pooled_ece`.

    Args:
        raters, samples, inputs: as in `multirater.metrics.score_case`.
        variant: as there. Cases can be pooled if they were made under one.

    Returns:
        ``ece``, ``ece.top``, ``ece.each`` and ``ece.disagree`` if there is a mean map, ``ece.rater`` if there are
        personalised maps, and each with ``.full``.

    Raises:
        UserError: as `score_case`.
    """
    return bins_of(read_case(raters, samples, **inputs), variant)


def bins_of(view: CaseView, variant: str | Convention | None = None) -> dict[str, Bins]:
    """`bins_case` of a checked case, or of stored components."""
    one = view.again()
    one.conventions = conventions_of(variant, len(view.classes) > 1)
    names = ["ece", "ece.top", "ece.each", "ece.disagree"] if one.given & {"samples", "probs", "mean_prob"} else []
    names += ["ece.rater"] if one.personalised else []
    regions: tuple[Region, ...] = ("box", "full")
    return {_named(name, region): _slotted(one, name, region) for name in names for region in regions}


def _slotted(view: CaseView, metric: str, region: Region) -> Bins:
    """Bins with an axis of all rater slots where there is one for raters; zeros for what is missing."""
    per_rater = metric in ("ece.each", "ece.rater")
    if view.void or not view.pixels:
        convention, _ = _convention(view, region)
        groups = len(view.classes) if _mode(_kind(metric), convention) == "class" else 1
        width = bin_index(np.zeros(0), convention.bins, convention.binning)[1]
        lead = (groups, view.slots) if per_rater else (groups,)
        nothing = np.zeros((*lead, width))
        return Bins(_named(metric, region), nothing, nothing, nothing, np.zeros(lead))
    found = _bins(view, metric, region)
    if not per_rater or view.slots == view.R:
        return found
    columns = []
    for array in (found.count, found.sum_p, found.sum_q, found.pixels):
        out = np.zeros((len(array), view.slots, *array.shape[2:]))
        out[:, view.present] = array
        columns.append(out)
    return Bins(found.metric, *columns)
