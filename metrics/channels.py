"""Probabilities with a background channel, and label maps as channel indices, for metrics that need every channel.

Channel 0 is the background and channel j the j-th evaluated class, K + 1 channels for K classes. Channels of classes
that are not evaluated belong to the background, as their labels do. A binary map p has the channels 1 − p and p.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .case import CaseView
from .convention import Convention
from .overlap import Floats

# Elements of samples × channels × pixels handled at once: the intermediate arrays stay in the cache.
_BLOCK = 1 << 17
_SMALLEST = 1 << 8
# A weighted share of hard masks carries rounding of about 1e-16; ties are decided after this rounding.
_DIGITS = 12


def label_index(view: CaseView, labels: NDArray) -> NDArray[np.intp]:
    """Label maps n×spatial as channel indices n×N in 0 … K; labels that are not evaluated become 0."""
    flat = labels.reshape(len(labels), -1)
    if len(view.classes) == 1:
        return flat.astype(np.intp)
    table = np.zeros(max(*view.classes, int(flat.max(initial=0))) + 1, np.intp)
    table[list(view.classes)] = np.arange(1, len(view.classes) + 1)
    return table[flat]


def labels_in(view: CaseView, maps: NDArray) -> list[int]:
    """Background, evaluated classes and whatever else occurs in hard class maps, ascending."""
    return sorted({0, *view.classes, *np.flatnonzero(np.bincount(maps.ravel().astype(np.intp))).tolist()})


def channel_maps(view: CaseView, maps: NDArray, channels: bool) -> NDArray:
    """Probabilities n×N (n×C×N with `channels`) as n×(K+1)×N in their own precision."""
    if not channels:
        return np.stack([1 - maps, maps], axis=1)
    wanted = list(view.classes)
    if wanted == list(range(1, maps.shape[1])):
        return maps
    others = [c for c in range(maps.shape[1]) if c not in view.classes]
    return np.concatenate([maps[:, others].sum(axis=1, keepdims=True), maps[:, wanted]], axis=1)


def sample_blocks(view: CaseView, convention: Convention, dtype: type | None = None) -> Iterator[tuple[slice, NDArray]]:
    """Probabilities of the samples, S×(K+1)×pixels, a block of pixels at a time: (where, block).

    Hard samples are probabilities 0 and 1 in float64.

    Args:
        dtype: of the blocks, converted before the background is made; None: as given (half precision as float32).
    """
    count = min(view.S, convention.sample_cap or view.S)
    total = len(view.classes) + 1
    step = max(_SMALLEST, _BLOCK // max(1, count * total))
    if view.probs is None:
        assert view.samples is not None
        index = label_index(view, view.samples[:count])
        for start in range(0, view.pixels, step):
            part = slice(start, min(view.pixels, start + step))
            yield part, (index[:, None, part] == np.arange(total)[:, None]).astype(np.float64)
        return
    source = view.probs[:count]
    flat = source.reshape(*source.shape[: 2 if view.channels else 1], -1)
    kind = dtype or (np.float32 if source.dtype == np.float16 else source.dtype)
    for start in range(0, view.pixels, step):
        part = slice(start, min(view.pixels, start + step))
        yield part, channel_maps(view, flat[..., part].astype(kind, copy=False), view.channels)


def foreground_blocks(view: CaseView, convention: Convention) -> Iterator[tuple[slice, Floats]]:
    """Binary probabilities without a channel axis, S×pixels in float64, a block of pixels at a time: (where, block).

    A block belongs to the caller.
    """
    assert view.probs is not None
    source = view.probs[: convention.sample_cap]
    flat = source.reshape(len(source), -1)
    step = max(_SMALLEST, _BLOCK // len(flat))
    for start in range(0, view.pixels, step):
        part = slice(start, min(view.pixels, start + step))
        yield part, flat[:, part].astype(np.float64)


def average(values: NDArray, weights: Floats | None) -> Floats:
    """Mean over the first axis in float64, weighted or not."""
    if weights is None:
        return np.add.reduce(values, axis=0, dtype=np.float64) / len(values)
    return np.tensordot(weights, values.astype(np.float64, copy=False), axes=1)


def shares(view: CaseView, labels: NDArray, weights: Floats | None) -> Floats:
    """Share of label maps n×spatial that hold each channel, (K+1)×N."""
    index = label_index(view, labels)
    return np.stack([average(index == channel, weights) for channel in range(len(view.classes) + 1)])


def mean_channels(view: CaseView, convention: Convention) -> Floats:
    """The mean map p̄ with background, (K+1)×N: `mean_prob`, else the mean of `probs`, else the share of the samples."""
    weights = view.weights_of_samples(convention) if view.S else None
    key = ("channels", convention.sample_cap)
    if key not in view.memory:
        view.memory[key] = _mean_channels(view, convention, weights)
    found = view.memory[key]
    assert isinstance(found, np.ndarray)
    return found


def _mean_channels(view: CaseView, convention: Convention, weights: Floats | None) -> Floats:
    if view.mean_prob is not None:
        channels = view.mean_prob.ndim == view.raters.ndim
        flat = view.mean_prob.reshape(*view.mean_prob.shape[: 1 if channels else 0], -1).astype(np.float64)
        return channel_maps(view, flat[None], channels)[0]
    if view.probs is None:
        assert view.samples is not None
        return shares(view, view.samples[: convention.sample_cap], weights)
    out = np.empty((len(view.classes) + 1, view.pixels))
    for part, block in sample_blocks(view, convention, np.float64):
        out[:, part] = average(block, weights)
    return out
