"""Ranks along the last axis, vectorised over all others; 1 = smallest."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ties = Literal["min", "average"]


def tied_ranks(values: NDArray[np.float64], ties: Ties = "average") -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ranks and, for every element, how many share its rank.

    Args:
        values: …×m; NaN sorts last and is tied with nothing.
        ties: the smallest or the mean rank of those that are equal.

    Returns:
        Ranks and sizes of the ties, …×m each.
    """
    m = values.shape[-1]
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, -1)
    position = np.arange(m)
    starts = np.ones(values.shape, dtype=bool)
    starts[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    ends = np.ones(values.shape, dtype=bool)
    ends[..., :-1] = starts[..., 1:]
    first = np.maximum.accumulate(np.where(starts, position, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, position, m)[..., ::-1], axis=-1)[..., ::-1]
    place = first + 1.0 if ties == "min" else (first + last) / 2 + 1
    ranks, sizes = np.empty(values.shape), np.empty(values.shape, dtype=np.int64)
    np.put_along_axis(ranks, order, place, -1)
    np.put_along_axis(sizes, order, last - first + 1, -1)
    return ranks, sizes


def ranks_with_missing(values: NDArray[np.float64], ties: Ties = "min") -> NDArray[np.float64]:
    """Ranks of …×m values; a missing one gets the largest rank beside it plus one (metrics.md 13.4)."""
    ranks, _ = tied_ranks(values, ties)
    missing = np.isnan(values)
    if not missing.any():
        return ranks
    last = np.where(missing, 0.0, ranks).max(-1, keepdims=True)
    return np.where(missing, last + 1, ranks)
