"""Probabilities of pixels and what the raters say there: the pairs that calibration compares (specification section 5).

For a class the probability is p̄ (or the map meant for a rater) and a rater hits where the mask holds the pixel. For the
top label it is max_k p_k over all channels, and a rater hits where the label is the arg max, the lower index winning a
tie. A binary map p has the channels 1 − p and p.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .case import CaseView
from .channels import labels_in
from .convention import CANONICAL, Convention
from .mean_map import MEAN_SLACK, mean_of_samples, mean_slack, votes
from .overlap import Floats, Mask
from .region import Cut, Region
from .rounding import torch_sum

_DIGITS = 12

Mode = Literal["class", "top", "top_evaluated", "top_rebuilt"]


@dataclass(frozen=True)
class Pairs:
    """Pixels of one class (or of the top label) in a region.

    Attributes:
        p: n, or R×n for maps meant for the raters; float64.
        hits: R×n.
        slack: rounding that p may carry.
        kept: n bool, False where a pixel belongs to no bin (MoSE: another label than an evaluated one is predicted);
            None: all.
        weights: of the raters, R; None: equal.
    """

    p: Floats
    hits: Mask
    slack: float = 0.0
    kept: Mask | None = None
    weights: Floats | None = None

    @cached_property
    def q(self) -> Floats:
        """Share of the raters that hit each pixel, n."""
        if self.weights is not None:
            return np.tensordot(self.weights, self.hits.astype(np.float64), axes=1)
        count = len(self.hits)
        return (np.arange(count + 1) / count)[votes(self.hits)]

    def disagreed(self) -> Pairs:
        """The pixels with 0 < q < 1, decided in integers; a rater without weight has no say."""
        asked = self.hits if self.weights is None else self.hits[self.weights > 0]
        count = votes(asked)
        where = (count > 0) & (count < len(asked))
        kept = None if self.kept is None else self.kept[where]
        return Pairs(self.p[where], self.hits[:, where], self.slack, kept, self.weights)


def pairs_of(view: CaseView, convention: Convention, region: Region, mode: Mode, personal: bool = False) -> list[Pairs]:
    """The pairs of each evaluated class, or those of the top label alone."""
    key = ("pairs", convention, region, mode, personal)
    if key not in view.memory:
        make = _personal if personal else _common
        view.memory[key] = list(make(view, convention, region, mode))
    found = view.memory[key]
    assert isinstance(found, list)
    return found


def _common(view: CaseView, convention: Convention, region: Region, mode: Mode) -> Iterator[Pairs]:
    hard = view.mean_prob is None and view.probs is None
    slack = MEAN_SLACK if hard and view.sample_weights is not None else 0.0
    if convention.binning == CANONICAL.binning:
        slack = slack or mean_slack(view, convention)
    if mode == "class":
        for label in view.classes:
            cut = _cut(view, region, label)
            p = _precise(cut(mean_map(view, label, convention)), convention)
            yield Pairs(p, cut(view.class_mask(view.raters, label)), slack, None, view.rater_weights)
        return
    cut = _cut(view, region, None)
    labels, maps = _channels(view, convention, mode)
    top, p = _top(labels, [cut(m) for m in maps], slack > 0)
    hits = cut(view.raters) == top
    yield Pairs(_precise(p, convention), hits, slack, _kept(view, top, mode), view.rater_weights)


def _personal(view: CaseView, convention: Convention, region: Region, mode: Mode) -> Iterator[Pairs]:
    if mode == "class":
        for label in view.classes:
            cut = _cut(view, region, label)
            p = _precise(cut(_rater_maps(view, label)), convention)
            yield Pairs(p, cut(view.class_mask(view.raters, label)), weights=view.rater_weights)
        return
    cut = _cut(view, region, None)
    tops, confidences = [], []
    for r in range(view.R):
        labels, maps = _rater_channels(view, r, mode)
        maps = maps if mode == "top_rebuilt" else [_native(m, convention) for m in maps]
        top, p = _top(labels, [cut(m) for m in maps])
        tops.append(top)
        confidences.append(_precise(p, convention))
    top = np.stack(tops)
    hits = cut(view.raters) == top
    yield Pairs(np.stack(confidences), hits, kept=_kept(view, top, mode), weights=view.rater_weights)


def _cut(view: CaseView, region: Region, label: int | None) -> Cut:
    if region == "full" or len(view.classes) == 1:
        label = view.classes[0]
    key = ("cut", region, None if region == "full" else label)
    if key not in view.memory:
        view.memory[key] = Cut(view, region, label)
    found = view.memory[key]
    assert isinstance(found, Cut)
    return found


def _precise(p: NDArray, convention: Convention) -> Floats:
    """Probabilities in float64, rounded to float32 before if the convention works in it."""
    return p.astype(np.float32, copy=False).astype(np.float64) if convention.single else _double(p)


def _double(p: NDArray) -> Floats:
    return p.astype(np.float64, copy=False)


def mean_map(view: CaseView, label: int, convention: Convention) -> NDArray:
    """p̄ of a channel (spatial): given, the mean of the probabilities, or the share of hard samples."""
    mose = convention.binning == "mose" and view.mean_prob is None
    key = ("mean", label, convention.sample_cap, convention.dtype, mose)
    if key not in view.memory:
        mean = _float32_mean(view, label, convention) if mose else mean_of_samples(view, label, convention)
        if mean is None:
            assert view.samples is not None
            masks = view.samples if len(view.classes) == 1 else view.samples == label
            masks = masks[: convention.sample_cap]
            mean = (np.arange(len(masks) + 1) / len(masks))[votes(masks)]
        view.memory[key] = mean
    found = view.memory[key]
    assert isinstance(found, np.ndarray)
    return found


def _float32_mean(view: CaseView, label: int, convention: Convention) -> NDArray[np.float32]:
    """p̄ of a channel with the rounding of MoSE's evaluation: Σ of float32 products p_i·(1/S).

    It decides in which bin a p̄ on an edge lies; and ten times 0.1 is 1.0000001, which lies in no bin. The terms are
    added as torch does, the channels in one tensor.
    """
    channels = 1 + max(view.classes) if len(view.classes) > 1 else 2
    if view.probs is not None:
        maps = view.probs[:, label] if view.channels else view.probs
        channels = view.probs.shape[1] if view.channels else channels
    else:
        assert view.samples is not None
        maps = view.samples if len(view.classes) == 1 else view.samples == label
    maps = maps[: convention.sample_cap]
    weights = view.weights_of_samples(convention)
    given = np.full(len(maps), 1 / len(maps)) if weights is None else weights
    terms = maps.astype(np.float32) * given.astype(np.float32).reshape(-1, *[1] * (maps.ndim - 1))
    channel = min(label, 1) if len(view.classes) == 1 else label
    return torch_sum(terms, first=channel * view.pixels, total=channels * view.pixels)


def _rater_maps(view: CaseView, label: int) -> NDArray:
    """R×spatial: the probability of a class in the maps meant for the raters; 0 and 1 for hard ones."""
    if view.rater_probs is None:
        assert view.rater_labels is not None
        return view.class_mask(view.rater_labels, label)
    return view.rater_probs if view.rater_probs.ndim == view.raters.ndim else view.rater_probs[:, label]


# -- channels ----------------------------------------------------------------------------------------


def _channels(view: CaseView, convention: Convention, mode: Mode) -> tuple[list[int], list[NDArray]]:
    """Labels in ascending order and p̄ of each, background first; of one class the labels are 0 and 1."""
    given = view.mean_prob if view.mean_prob is not None else None if view.probs is None else view.probs[0]
    spatial = view.raters.ndim - 1
    count = 0 if given is None or given.ndim == spatial else len(given)
    if mode == "top_rebuilt":  # in the precision of the maps given: rounded only when the sums are made
        precision = np.float64 if given is None else given.dtype
        convention = replace(convention, dtype="float64")
    if len(view.classes) == 1:
        label = view.classes[0]
        inside = mean_map(view, label, convention)
        if mode == "top_rebuilt":
            inside = inside.astype(precision)
            return [0, 1], [1 - inside, inside]
        inside = _native(inside, convention)
        outside = _native(mean_map(view, 0, convention), convention) if count == 2 else 1 - inside
        return [0, 1], [outside, inside]
    if count:
        labels = list(range(count))
    else:
        assert view.samples is not None
        labels = labels_in(view, view.samples)
    if mode == "top_rebuilt":
        return labels, _rebuilt([mean_map(view, k, convention).astype(precision) for k in labels[1:]])
    return labels, [_native(mean_map(view, k, convention), convention) for k in labels]


def _rater_channels(view: CaseView, r: int, mode: Mode) -> tuple[list[int], list[NDArray]]:
    """`_channels` of the map meant for rater r."""
    if view.rater_probs is not None and view.rater_probs.ndim > view.raters.ndim:
        maps = view.rater_probs[r]
        if len(view.classes) > 1:
            labels = list(range(len(maps)))
            return labels, _rebuilt(list(maps[1:])) if mode == "top_rebuilt" else list(maps)
        if len(maps) == 2 and mode != "top_rebuilt":
            return [0, 1], list(maps)
    if len(view.classes) == 1:
        inside = _rater_maps(view, view.classes[0])[r]
        inside = inside.astype(np.float64) if inside.dtype == bool else inside
        return [0, 1], [1 - inside, inside]
    assert view.rater_labels is not None
    own = view.rater_labels[r]
    labels = labels_in(view, own)
    return labels, [(own == k).astype(np.float64) for k in labels]


def _native(p: NDArray, convention: Convention) -> NDArray:
    """float64 unless the convention works in float32: 1 − p of a float32 map is then rounded as in the original."""
    return p if convention.single else _double(p)


def _rebuilt(foreground: list[NDArray]) -> list[NDArray]:
    """Channels with the background 1 − Σ p_k (CURVAS), in the precision of the maps.

    The evaluation then sees values outside [0, 1] as logits, so that one background of −6e-8 sends every pixel through
    a softmax; that is repeated here.
    """
    total = foreground[0].copy()
    for p in foreground[1:]:
        total += p
    maps = [1 - total, *foreground]
    if maps[0].size and not (maps[0].min() >= 0 and maps[0].max() <= 1):
        raised = [np.exp(p - np.maximum.reduce(maps)) for p in maps]
        norm = np.add.reduce(raised)
        maps = [p / norm for p in raised]
    return maps


def _top(labels: list[int], maps: list[NDArray], rounded: bool = False) -> tuple[NDArray, NDArray]:
    """Label and value of the largest channel of each pixel; ties go to the lower label."""
    if len(maps) == 2:
        background, foreground = (np.round(m, _DIGITS) for m in maps) if rounded else maps
        return foreground > background, np.maximum(*maps)
    stack = np.stack(maps)
    index = (np.round(stack, _DIGITS) if rounded else stack).argmax(axis=0)
    return np.array(labels)[index], np.take_along_axis(stack, index[None], axis=0)[0]


def _kept(view: CaseView, top: NDArray, mode: Mode) -> Mask | None:
    if mode != "top_evaluated":
        return None
    return top if len(view.classes) == 1 else np.isin(top, view.classes)
